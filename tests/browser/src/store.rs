//! A store with a known history: steps at known commits, a page with many charts, and hostile names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The main model of the walk.
pub const MODEL: &str = "meta-llama/Meta-Llama-3.1-8B-Instruct";
/// Its device type, with characters that are special in paths, addresses and pages.
pub const DEVICE_TYPE: &str = "NVIDIA H100 80GB HBM3; <b>+\"x\"</b>";
/// A model whose name is a script.
pub const HOSTILE: &str =
    "<script>window.harm=1</script><img src=x onerror=window.harm=2>../../etc/passwd\"'`;+🚀\u{202e}";
/// The start of a name of 10,000 characters.
pub const LONG: &str = "org/long-name-";
/// Number of commits.
pub const COMMITS: usize = 250;
/// Series of the largest page: every serving metric at four rates and two sizes.
pub const SERIES: usize = METRICS.len() * RATES.len() * 2;
/// The commit where the median TTFT of [`MODEL`] gets worse.
pub const STEP: usize = 150;
/// Number of newest commits with a worse P99 TTFT: too few for a confirmed change.
pub const FRESH: usize = 3;

const METRICS: [(&str, f64); 7] = [
    ("median_ttft_ms", 41.7),
    ("p99_ttft_ms", 88.0),
    ("mean_ttft_ms", 44.0),
    ("median_tpot_ms", 9.1),
    ("p99_tpot_ms", 12.0),
    ("median_itl_ms", 9.0),
    ("p99_itl_ms", 20.0),
];
const RATES: [&str; 4] = ["1", "4", "16", "inf"];

/// The hash of a commit.
pub fn sha(at: usize) -> String {
    let mixed = (at as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    format!("{mixed:032x}{at:08x}")
}

/// Noise between -1 and 1, determined by the two numbers.
fn noise(series: usize, at: usize) -> f64 {
    let mut state = (series as u64) << 32 | at as u64;
    let mut sum = 0.0;
    for _ in 0..4 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sum += ((state >> 40) as f64) / f64::from(1 << 23) - 1.0;
    }
    sum / 4.0
}

/// Writes the store to a folder.
pub fn write(folder: &Path) -> Result<()> {
    let long = LONG.repeat(10_000 / LONG.len());
    for at in 0..COMMITS {
        object(folder, at, "cuda", DEVICE_TYPE, MODEL, 1)?;
        if at >= COMMITS - 20 {
            for model in [HOSTILE, &long, "mistralai/Mixtral-8x7B-Instruct-v0.1"] {
                object(folder, at, "cpu", "AMD EPYC 9654", model, 0)?;
            }
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a test folder that is only read when it is complete")]
fn object(folder: &Path, at: usize, device: &str, device_type: &str, model: &str, moves: usize) -> Result<()> {
    let plain = |text: &str| -> String {
        text.chars().take(60).map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
    };
    let mut lines = String::new();
    for (index, (metric, level)) in METRICS.iter().enumerate() {
        for (place, rate) in RATES.iter().enumerate() {
            for (size, share) in [(1, 1.0), (4, 0.6)] {
                let step = if index == 0 && at >= STEP { 0.12 } else { 0.0 };
                let fresh = if index == 1 && at + FRESH >= COMMITS { 0.3 } else { 0.0 };
                let known = noise(index * 100 + place * 10 + size + model.len(), at);
                let value = level
                    * share
                    * [1.0, 1.3, 1.9, 4.0][place]
                    * (1.0 + moves as f64 * (step + fresh))
                    * (1.0 + 0.02 * known);
                lines.push_str(&record(at, device, device_type, model, metric, value, rate, size).to_string());
                lines.push('\n');
            }
        }
    }
    let path = folder.join(format!("v3/vllm-project/vllm/main/{}/{}", sha(at), plain(device_type)));
    fs::create_dir_all(&path).context("cannot make a folder of the store")?;
    fs::write(path.join(format!("benchmark_results_{}.json", plain(model))), lines).context("cannot write records")
}

#[allow(clippy::too_many_arguments, reason = "they are the record's fields")]
fn record(
    at: usize,
    device: &str,
    device_type: &str,
    model: &str,
    metric: &str,
    value: f64,
    rate: &str,
    size: usize,
) -> Value {
    let rate = rate.parse::<f64>().ok().filter(|rate| rate.is_finite()).map_or(json!(rate), |rate| json!(rate));
    json!({
        "timestamp": 1_767_225_600 + at * 82_800, "schema_version": "v3", "name": "vLLM benchmark", "repo": "vllm-project/vllm",
        "head_branch": "main", "head_sha": sha(at), "workflow_id": 20_000_000_000_u64 + at as u64, "run_attempt": 1, "job_id": 1,
        "runners": [{"name": device, "type": device_type, "cpu_info": "x86_64", "cpu_count": 16, "avail_mem_in_gb": 128, "gpu_info": "", "gpu_count": 1}],
        "benchmark": {"name": "vLLM benchmark", "extra_info": {
            "args": {"request_rate": rate, "tensor_parallel_size": size, "random_input_len": 1024, "random_output_len": 128},
            "compilation_config.mode": "", "optimization_level": "", "use_compile": true,
        }},
        "model": {"name": model},
        "metric": {"name": metric, "benchmark_values": [value], "extra_info": {"completed": 200, "failed": 0}},
    })
}
