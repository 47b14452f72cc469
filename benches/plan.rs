//! The time that `vllm-perf plan` takes for a suite of 100 tests, as a whole process, and the size of the program.
//! `cargo bench --bench plan` prints both.

#![allow(clippy::disallowed_methods, reason = "a benchmark starts processes and writes its input")]
#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const BINARY: &str = env!("CARGO_BIN_EXE_vllm-perf");
const TESTS: usize = 100;
const RUNS: usize = 30;

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("serving-tests-cpu.json"), suite())?;
    let mut times = (0..RUNS).map(|_| plan(folder.path())).collect::<Result<Vec<Duration>>>()?;
    times.sort();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "plan: {TESTS} tests, {} cases: median {:.1} ms, fastest {:.1} ms, slowest {:.1} ms of {RUNS} runs",
        TESTS * 7,
        milliseconds(times[RUNS / 2]),
        milliseconds(times[0]),
        milliseconds(times[RUNS - 1]),
    );
    let size = std::fs::metadata(BINARY)?.len();
    println!("binary: {:.1} MB", size as f64 / 1e6);
    Ok(())
}

fn plan(suite: &std::path::Path) -> Result<Duration> {
    let begun = Instant::now();
    let output = Command::new(BINARY)
        .args(["plan", "--format", "json", "--device", "cpu", "--base", "sim", "--head", "sim", "--suite"])
        .arg(suite)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .context("cannot run the program")?;
    let time = begun.elapsed();
    ensure!(output.status.success(), "plan failed: {}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.stdout.len() > TESTS * 7 * 100, "the plan is too short to hold every case");
    Ok(time)
}

/// A serving file in upstream's format: every test at seven concurrencies and with its own server.
fn suite() -> String {
    let tests: Vec<String> = (0..TESTS)
        .map(|number| {
            format!(
                r#"{{"test_name": "serving_model{number}_tp1_random_128_128", "server_parameters": {{"block_size": {number}}},
                "client_parameters": {{"dataset_name": "random", "random-input-len": 128, "random-output-len": 128}}}}"#
            )
        })
        .collect();
    format!(
        r#"{{"defaults": {{"qps_list": ["inf"], "max_concurrency_list": [12, 16, 24, 32, 64, 128, 200],
        "server_parameters": {{"model": "m", "tensor_parallel_size": 1, "dtype": "bfloat16"}},
        "client_parameters": {{"model": "m", "backend": "vllm", "ignore-eos": "", "temperature": 0, "num_prompts": 200}}}},
        "tests": [{}]}}"#,
        tests.join(",")
    )
}
