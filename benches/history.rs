//! The history of main. `cargo bench --bench history -- store|changes|otava`:
//! `store`: builds the site of 500 series over 250 commits, from scratch and after one more commit;
//! `changes`: the change points of the same series alone;
//! `otava`: change points in series with known changes, compared with Apache Otava
//! (`VLLM_PERF_BENCH_OTAVA=/path/to/python` with `apache-otava` installed). Seeds are fixed.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::unwrap_used, reason = "a benchmark panics on errors")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads and writes files")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use vllm_perf::dashboard;
use vllm_perf::dashboard::series::Setting;
use vllm_perf::environment::Environment;
use vllm_perf::system::store::Store;
use vllm_perf::system::store::object_key::RecordKey;
use vllm_verdict::change_points::{self, Windows};

const SERIES: usize = 500;
const COMMITS: usize = 250;
/// Models of the store, each on one device.
const MODELS: usize = 10;
const METRICS: [&str; 12] = [
    "median_ttft_ms",
    "mean_ttft_ms",
    "std_ttft_ms",
    "p99_ttft_ms",
    "median_tpot_ms",
    "mean_tpot_ms",
    "std_tpot_ms",
    "p99_tpot_ms",
    "median_itl_ms",
    "mean_itl_ms",
    "std_itl_ms",
    "p99_itl_ms",
];
/// Series of each kind in the table of known changes.
const LABELLED: usize = 100;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    if wanted("store") {
        store();
    }
    if wanted("changes") {
        changes();
    }
    if wanted("otava") {
        otava();
    }
}

fn normal(random: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(random)
}

/// Noise of 2 % and a spike of 10 to 30 % in 1 % of the points; `shift` is added to the logarithm.
fn series(seed: u64, length: usize, shift: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..length)
        .map(|at| {
            let spike = if random.random_bool(0.01) { random.random_range(0.1..0.3) } else { 0.0 };
            (100.0_f64.ln() + shift(at) + 0.02 * normal(&mut random) + spike).exp()
        })
        .collect()
}

/// Every fifth series has a step of 5 %.
fn many() -> Vec<Vec<f64>> {
    (0..SERIES as u64)
        .map(|seed| {
            let place = 20 + (seed as usize * 37) % 210;
            series(seed, COMMITS + 1, |at| if seed % 5 == 0 && at >= place { 0.05_f64.ln_1p() } else { 0.0 })
        })
        .collect()
}

fn write_commit(folder: &Path, all: &[Vec<f64>], commit: usize) {
    let sha = format!("{commit:040x}");
    for model in 0..MODELS {
        let name = format!("meta-llama/Model-{model}");
        let mut lines = String::new();
        // 50 series a model: 4 cases of 12 metrics, and 2 of a fifth.
        for (at, values) in all.iter().enumerate().skip(model * SERIES / MODELS).take(SERIES / MODELS) {
            let (case, metric) = (at % 50 / 12, METRICS[at % 50 % 12]);
            lines += &format!(
                r#"{{"timestamp":{},"schema_version":"v3","name":"vLLM benchmark","repo":"vllm-project/vllm","head_branch":"main","head_sha":"{sha}","workflow_id":{},"run_attempt":1,"job_id":58585533990,"runners":[{{"name":"cuda","type":"NVIDIA H100 80GB HBM3","cpu_info":"x86_64","cpu_count":16,"avail_mem_in_gb":128,"gpu_info":"NVIDIA H100 80GB HBM3","gpu_count":1,"avail_gpu_mem_in_gb":79,"extra_info":{{"hostname":"h"}}}}],"benchmark":{{"name":"vLLM benchmark","extra_info":{{"args":{{"request_rate":"inf","tensor_parallel_size":1,"random_input_len":{},"random_output_len":128,"max_concurrency":64,"num_prompts":200,"dataset_name":"random"}},"compilation_config.mode":"","optimization_level":"","use_compile":true}}}},"model":{{"name":"{name}"}},"metric":{{"name":"{metric}","benchmark_values":[{}],"extra_info":{{"num_prompts":200,"max_concurrency":64,"duration":12.5,"completed":200,"failed":0,"case":"serving_llama8B_tp1_qps_inf_concurrency_64"}}}}}}"#,
                1_700_000_000 + 86_400 * commit,
                20_000_000_000_u64 + commit as u64,
                256 << case,
                values[commit],
            );
            lines.push('\n');
        }
        let key = RecordKey::new("vllm-project/vllm", "main", &sha, "NVIDIA H100 80GB HBM3", &name);
        let path = folder.join(key.to_string());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, lines).unwrap();
    }
}

fn store() {
    let folder = tempfile::tempdir().unwrap();
    let (records, out) = (folder.path().join("store"), folder.path().join("site"));
    let all = many();
    (0..COMMITS).for_each(|commit| write_commit(&records, &all, commit));
    let store = Store::open(&records.display().to_string(), &Environment::default()).unwrap();
    let setting = Setting {
        repository: "vllm-project/vllm".into(),
        branch: "main".into(),
        server: "https://github.com".into(),
        run_url: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("store: {SERIES} series over {COMMITS} commits, {} objects", COMMITS * MODELS);
    let build = |what: &str| {
        let begun = Instant::now();
        let built = runtime.block_on(dashboard::build(&store, &setting, &out)).unwrap();
        println!(
            "  {what:<22} {:>6.2} s; {} of {} objects read, {} pages, {} series, {} files written; peak memory {} MB",
            begun.elapsed().as_secs_f64(),
            built.read,
            built.objects,
            built.pages,
            built.series,
            built.written,
            peak_memory(),
        );
        assert!(built.notes.is_empty() && built.unread.is_empty(), "{:?}", built.notes);
    };
    build("from scratch");
    build("no new records");
    write_commit(&records, &all, COMMITS);
    build("after one more commit");
}

/// Peak memory of this process, in MB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default() / 1024
}

fn changes() {
    let all: Vec<Vec<f64>> = many().into_iter().map(|values| values[..COMMITS].to_vec()).collect();
    let begun = Instant::now();
    let (found, windows) = change_points::changes_of_all(&all, &Windows::default());
    let cold = begun.elapsed();
    let grown = many();
    let begun = Instant::now();
    change_points::changes_of_all(&grown, &windows);
    println!(
        "changes: {SERIES} series of {COMMITS} points: {:.2} s; one point more on each: {:.2} s; {} changes",
        cold.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        found.iter().map(Vec::len).sum::<usize>(),
    );
}

/// A kind of series with its step or drift. The place of the step differs between series.
struct Labelled {
    name: &'static str,
    step: f64,
    drift: f64,
}

const KINDS: [Labelled; 6] = [
    Labelled { name: "no change", step: 0.0, drift: 0.0 },
    Labelled { name: "step of 2 %", step: 0.02, drift: 0.0 },
    Labelled { name: "step of 5 %", step: 0.05, drift: 0.0 },
    Labelled { name: "step of 10 %", step: 0.10, drift: 0.0 },
    Labelled { name: "drift of 5 %", step: 0.0, drift: 0.05 },
    Labelled { name: "drift of 10 %", step: 0.0, drift: 0.10 },
];

fn place(seed: usize) -> usize {
    30 + seed * 53 % 190
}

fn labelled(kind: usize) -> Vec<Vec<f64>> {
    let Labelled { step, drift, .. } = KINDS[kind];
    (0..LABELLED)
        .map(|seed| {
            let place = place(seed);
            let shift =
                |at: usize| (if at >= place { step.ln_1p() } else { 0.0 }) + drift.ln_1p() * at as f64 / COMMITS as f64;
            series(10_000 * (kind as u64 + 1) + seed as u64, COMMITS, shift)
        })
        .collect()
}

fn otava() {
    println!("{LABELLED} series of {COMMITS} points a kind, noise of 2 %, a spike in 100 points:");
    println!(
        "{:<15} {:<16} {:>8} {:>8} {:>8} {:>14} {:>8}",
        "series", "by", "found", "within 2", "within 5", "other changes", "time"
    );
    let python = std::env::var("VLLM_PERF_BENCH_OTAVA").ok();
    for (kind, Labelled { name, step, .. }) in KINDS.iter().enumerate() {
        let all = labelled(kind);
        let begun = Instant::now();
        let found = change_points::changes_of_all(&all, &Windows::default()).0;
        let found: Vec<Vec<usize>> =
            found.iter().map(|changes| changes.iter().map(|change| change.at).collect()).collect();
        row(name, "vllm-perf", *step, &found, begun.elapsed().as_secs_f64());
        match &python {
            Some(python) => {
                let (found, seconds) = by_otava(python, &all);
                row(name, "Otava", *step, &found, seconds);
            }
            None => println!("{:<15} {:<16} not run: VLLM_PERF_BENCH_OTAVA is not set", "", "Otava"),
        }
    }
    println!("found: within 10 points of the step; with drift, every change counts as another change");
}

/// One row of the table. Changes other than the step are false alarms, except for drift.
fn row(name: &str, by: &str, step: f64, found: &[Vec<usize>], seconds: f64) {
    let near = |reach: usize| {
        let hit = |(seed, places): (usize, &Vec<usize>)| {
            usize::from(step > 0.0 && places.iter().any(|at| at.abs_diff(place(seed)) <= reach))
        };
        found.iter().enumerate().map(hit).sum::<usize>()
    };
    let all: usize = found.iter().map(Vec::len).sum();
    let shown = |number: usize| if step > 0.0 { format!("{number} %") } else { "-".to_owned() };
    println!(
        "{name:<15} {by:<16} {:>8} {:>8} {:>8} {:>14} {seconds:>6.2} s",
        shown(near(10)),
        shown(near(2)),
        shown(near(5)),
        all - near(10),
    );
}

/// The changes that Otava finds, and its time without the start of Python.
fn by_otava(python: &str, all: &[Vec<f64>]) -> (Vec<Vec<usize>>, f64) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/change_points.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&serde_json::to_vec(all).unwrap()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "change_points.py failed");
    serde_json::from_slice(&output.stdout).unwrap()
}
