//! The load client compared with the true times, with its limits, and with `vllm bench serve`.
//! `cargo bench --bench client -- truth|unpaced|scale|vllm`; `VLLM_PERF_BENCH_VLLM=/path/to/vllm` adds upstream's client to
//! the first two, and `vllm` needs it.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads its environment and starts processes")]
#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use statrs::distribution::{ContinuousCDF, StudentsT};
use tempfile::TempDir;
use vllm_load::numbers::{mean, percentile, sorted};
use vllm_load::sim::TracedAnswer;

const OURS: &str = env!("CARGO_BIN_EXE_vllm-perf");
const MODEL: &str = "tests/data/tiny-llama";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let upstream = std::env::var("VLLM_PERF_BENCH_VLLM").ok();
    let [mode] = words.as_slice() else {
        bail!("no benchmark given: cargo bench --bench client -- truth|unpaced|scale|vllm")
    };
    match mode.as_str() {
        "truth" => truth(upstream.as_deref()),
        "unpaced" => unpaced(upstream.as_deref()),
        "scale" => scale(),
        "vllm" => real(&upstream.context("VLLM_PERF_BENCH_VLLM is not set: expected the path of a vllm executable")?),
        other => bail!("there is no `{other}`: expected truth, unpaced, scale or vllm"),
    }
}

/// The keys of a result that both clients write, in milliseconds and tokens.
#[derive(Deserialize)]
struct Measured {
    completed: u64,
    failed: u64,
    duration: f64,
    total_input_tokens: u64,
    total_output_tokens: u64,
    output_throughput: f64,
    #[serde(default)]
    distorted: Vec<String>,
    /// All other keys.
    #[serde(flatten)]
    statistics: serde_json::Map<String, serde_json::Value>,
}

impl Measured {
    /// A statistic by its key.
    fn statistic(&self, key: &str) -> f64 {
        self.statistics.get(key).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN)
    }
}

/// One run of a client, and its resources.
struct Run {
    measured: Measured,
    /// CPU time of its process, in seconds.
    cpu: f64,
    /// Peak memory of any client so far, in MB.
    memory: f64,
}

/// Runs `PROGRAM bench serve` with `flags` against `port`.
fn client(program: &str, port: u16, flags: &str) -> Result<Run> {
    let folder = tempfile::tempdir()?;
    let words = format!(
        "bench serve --port {port} --backend vllm --ignore-eos --temperature 0 --disable-tqdm --dataset-name random \
         --save-result --result-filename result.json --result-dir {} {flags}",
        folder.path().display()
    );
    let before = children()?;
    let mut command = Command::new(program);
    command.args(words.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = quiet(&mut command).output().with_context(|| format!("cannot run {program}"))?;
    let after = children()?;
    ensure!(output.status.success(), "{program} {words}\n{}", String::from_utf8_lossy(&output.stderr));
    let measured = serde_json::from_str(&std::fs::read_to_string(folder.path().join("result.json"))?)?;
    Ok(Run { measured, cpu: seconds(&after) - seconds(&before), memory: after.max_rss() as f64 / 1e3 })
}

/// Disables network access, usage statistics and logs of vLLM.
fn quiet(command: &mut Command) -> &mut Command {
    command.env("HF_HUB_OFFLINE", "1").env("VLLM_NO_USAGE_STATS", "1").env("VLLM_LOGGING_LEVEL", "ERROR")
}

/// The resources of the child processes that have ended.
fn children() -> Result<Usage> {
    getrusage(UsageWho::RUSAGE_CHILDREN).context("cannot read the resource usage")
}

fn seconds(usage: &Usage) -> f64 {
    let time = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    time(usage.user_time()) + time(usage.system_time())
}

/// A server in its own process group, which is interrupted when it is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// The simulated vLLM.
    fn simulated(pace: &str, trace: Option<&Path>) -> Result<Self> {
        let mut command = Command::new(OURS);
        command.args(["sim-server", "--port", "0", "--pace", pace]).process_group(0);
        if let Some(trace) = trace {
            command.arg("--trace").arg(trace);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start sim-server")?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().context("no output")?).read_line(&mut line)?;
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        Ok(Self { child, port: port.with_context(|| format!("`{line}` has no port"))? })
    }

    /// A real vLLM with random weights, when it is ready.
    fn real(vllm: &str, load: &RealLoad) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let words = format!(
            "serve {MODEL} --host 127.0.0.1 --port {port} --load-format dummy --dtype float32 --max-model-len 2048 \
             --enforce-eager --disable-log-stats --no-enable-prefix-caching"
        );
        let mut command = Command::new(vllm);
        command.args(words.split_whitespace()).process_group(0).env("VLLM_CPU_KVCACHE_SPACE", "2");
        command.args(load.model.iter().flat_map(|changes| ["--hf-overrides", changes]));
        let child = quiet(&mut command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut server = Self { child: child.with_context(|| format!("cannot start {vllm}"))?, port };
        let begun = Instant::now();
        while !server.is_ready() {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended with {status}");
            }
            ensure!(begun.elapsed() < Duration::from_secs(600), "the server is not up after 600 s");
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(server)
    }

    fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
            connection.set_read_timeout(Some(Duration::from_secs(5)))?;
            connection.write_all(b"GET /v1/models HTTP/1.0\r\n\r\n")?;
            let mut response = String::new();
            connection.read_to_string(&mut response)?;
            Ok(response)
        };
        ask().is_ok_and(|response| response.contains(" 200 "))
    }

    /// Ends it and waits until its files are written.
    fn stop(mut self) -> Result<()> {
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        let group = Pid::from_raw(self.child.id() as i32);
        // It may have ended already.
        let _ = killpg(group, Signal::SIGINT);
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Clients by name.
fn clients(upstream: Option<&str>) -> Vec<(&'static str, String)> {
    let theirs = upstream.map(|vllm| ("vllm", vllm.to_owned()));
    [("native", OURS.to_owned())].into_iter().chain(theirs).collect()
}

/// Clients against the trace of the server, on a machine without other work and on one with two busy loops beside.
fn truth(upstream: Option<&str>) -> Result<()> {
    println!("TTFT 100 ms, ITL 20 ms, 64 tokens per answer, 4 rounds. Errors relative to the trace of the server.");
    for busy in [false, true] {
        let _loops = if busy { vec![BusyLoop::start()?, BusyLoop::start()?] } else { Vec::new() };
        println!(
            "\n{}\n{:<12} {:<8} {:>10} {:>13} {:>10} {:>13}   marked, and unmarked by more than 5 % off",
            if busy { "Two busy loops beside" } else { "Nothing beside" },
            "concurrency",
            "client",
            "mean TTFT",
            "error ms",
            "p99 ITL",
            "error ms"
        );
        for concurrency in [64, 256, 1000] {
            for (name, program) in clients(upstream.filter(|_| concurrency <= 256)) {
                truth_of(name, &program, concurrency)?;
            }
        }
    }
    Ok(())
}

fn truth_of(name: &str, program: &str, concurrency: usize) -> Result<()> {
    let folder = TempDir::new()?;
    let trace = folder.path().join("truth.jsonl");
    let server = Server::simulated("ttft=100ms,itl=20ms,jitter=0.02,max-num-seqs=100000", Some(&trace))?;
    let flags = format!(
        "--model sim --tokenizer {MODEL} --num-prompts {} --max-concurrency {concurrency} --random-input-len 64 \
         --random-output-len 64",
        4 * concurrency
    );
    let run = client(program, server.port, &flags)?.measured;
    server.stop()?;
    ensure!(run.failed == 0, "{} requests failed", run.failed);
    let truth = true_times(&trace)?;
    let pairs = truth.iter().map(|(key, truth)| (key, *truth, run.statistic(key)));
    let pairs: Vec<(&String, f64, f64)> = pairs.collect();
    let error = |wanted: &str| {
        let found = pairs.iter().find(|(key, ..)| *key == wanted);
        found.map_or((f64::NAN, f64::NAN), |(_, truth, measured)| (*truth, measured - truth))
    };
    let unmarked: Vec<String> = pairs
        .iter()
        .filter(|(key, truth, measured)| !run.distorted.contains(key) && (measured / truth - 1.0).abs() > 0.05)
        .map(|(key, truth, measured)| format!("{key} {:+.1} %", (measured / truth - 1.0) * 100.0))
        .collect();
    let ((ttft, ttft_error), (itl, itl_error)) = (error("mean_ttft_ms"), error("p99_itl_ms"));
    println!(
        "{concurrency:<12} {name:<8} {ttft:>10.2} {ttft_error:>+13.2} {itl:>10.2} {itl_error:>+13.2}   {} of {}; {}",
        run.distorted.len(),
        pairs.len(),
        if unmarked.is_empty() { "none".to_owned() } else { unmarked.join(", ") }
    );
    Ok(())
}

/// A process that takes as much of a core as it gets, until it is dropped.
struct BusyLoop(Child);

impl BusyLoop {
    fn start() -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
        Ok(Self(command.spawn().context("cannot start a busy loop")?))
    }
}

impl Drop for BusyLoop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The true times by the keys of a result, in milliseconds.
fn true_times(trace: &Path) -> Result<Vec<(String, f64)>> {
    let text = std::fs::read_to_string(trace)?;
    let answers = text.lines().map(serde_json::from_str).collect::<Result<Vec<TracedAnswer>, _>>()?;
    let milliseconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e3;
    let first = |answer: &TracedAnswer| answer.tokens_us.first().map(|first| milliseconds(answer.accepted_us, *first));
    let gaps =
        |answer: &TracedAnswer| answer.tokens_us.windows(2).map(|two| milliseconds(two[0], two[1])).collect::<Vec<_>>();
    let tpot = |answer: &TracedAnswer| {
        let (first, last) = (answer.tokens_us.first()?, answer.tokens_us.last()?);
        Some(milliseconds(*first, *last) / (answer.tokens_us.len() - 1) as f64)
    };
    let times = [
        ("ttft", answers.iter().filter_map(first).collect::<Vec<_>>()),
        ("tpot", answers.iter().filter_map(tpot).collect()),
        ("itl", answers.iter().flat_map(gaps).collect()),
    ];
    Ok(times
        .into_iter()
        .flat_map(|(key, values)| {
            let sorted = sorted(&values);
            [
                (format!("mean_{key}_ms"), mean(&values)),
                (format!("median_{key}_ms"), percentile(&sorted, 50.0)),
                (format!("p99_{key}_ms"), percentile(&sorted, 99.0)),
            ]
        })
        .collect())
}

fn unpaced(upstream: Option<&str>) -> Result<()> {
    println!(
        "A server without a pace, concurrency 64, 1,024 tokens per answer. CPU of the client without its start.\n"
    );
    println!("{:<8} {:>10} {:>14} {:>16} {:>12}", "client", "tokens", "tokens/s", "CPU us/token", "start CPU s");
    let mut rows = Vec::new();
    for (name, program) in clients(upstream) {
        let server = Server::simulated("ttft=0,itl=0,jitter=0,max-num-seqs=100000", None)?;
        let flags = |prompts: usize| {
            format!(
                "--model sim --tokenizer {MODEL} --num-prompts {prompts} --max-concurrency 64 --random-input-len 16 \
                 --random-output-len 1024"
            )
        };
        let start = client(&program, server.port, &flags(1))?;
        let run = client(&program, server.port, &flags(256))?;
        ensure!(run.measured.failed == 0, "{} requests failed", run.measured.failed);
        let tokens = run.measured.total_output_tokens;
        let cost = (run.cpu - start.cpu).max(0.0) / (tokens - start.measured.total_output_tokens) as f64;
        let speed = run.measured.output_throughput;
        println!("{name:<8} {tokens:>10} {speed:>14.0} {:>16.3} {:>12.2}", cost * 1e6, start.cpu);
        rows.push((speed, cost));
    }
    if let [(our_speed, our_cost), (their_speed, their_cost)] = rows.as_slice() {
        println!(
            "\nratio: {:.1} times the tokens/s, {:.4} of the CPU per token",
            our_speed / their_speed,
            our_cost / their_cost
        );
    }
    Ok(())
}

fn scale() -> Result<()> {
    let server = Server::simulated("ttft=50ms,itl=10ms,max-num-seqs=100000", None)?;
    let flags = "--model sim --num-prompts 10000 --max-concurrency 2000 --random-input-len 128 --random-output-len 32";
    let run = client(OURS, server.port, flags)?;
    let Measured { completed, failed, duration, output_throughput, .. } = run.measured;
    println!(
        "10,000 requests at concurrency 2,000: completed {completed}, failed {failed}, {duration:.1} s, \
         {output_throughput:.0} tokens/s, peak memory {:.0} MB, CPU {:.2} s",
        run.memory, run.cpu
    );
    ensure!(failed == 0 && run.memory < 300.0, "expected no failed request and less than 300 MB");
    Ok(())
}

/// A load for a real vLLM.
struct RealLoad {
    /// Changes of the configuration of the tiny model, JSON.
    model: Option<&'static str>,
    input: u32,
    output: u32,
    /// Requests of a run, multiplied by its concurrency.
    requests: u32,
}

/// One in which a few milliseconds of a client are visible, and one with a realistic TTFT.
const LOADS: [RealLoad; 2] = [
    RealLoad { model: None, input: 64, output: 32, requests: 40 },
    RealLoad {
        model: Some(
            r#"{"hidden_size":512,"intermediate_size":1536,"num_hidden_layers":8,"num_attention_heads":8,"num_key_value_heads":8,"head_dim":64}"#,
        ),
        input: 256,
        output: 32,
        requests: 16,
    },
];

fn real(vllm: &str) -> Result<()> {
    for load in &LOADS {
        under_load(vllm, load)?;
    }
    Ok(())
}

fn under_load(vllm: &str, load: &RealLoad) -> Result<()> {
    const RUNS: usize = 5;
    let RealLoad { input, output, requests, .. } = load;
    println!(
        "A real vLLM{}, {input} tokens in and {output} out, {RUNS} interleaved runs each: median [95 % interval of the mean].\n",
        load.model.map_or(String::new(), |changes| format!(" with {changes}"))
    );
    let server = Server::real(vllm, load)?;
    let flags = |concurrency: u32, seed: usize| {
        format!(
            "--model {MODEL} --num-prompts {} --max-concurrency {concurrency} --random-input-len {input} \
             --random-output-len {output} --seed {seed}",
            requests * concurrency
        )
    };
    // A warm-up: the first requests of a server include its lazy setup.
    client(OURS, server.port, &flags(8, RUNS))?;
    println!(
        "{:<12} {:<8} {:>28} {:>28} {:>28}  tokens",
        "concurrency", "client", "tokens/s", "median TTFT (ms)", "median TPOT (ms)"
    );
    for concurrency in [1, 4, 8] {
        let mut runs = [Vec::new(), Vec::new()];
        for seed in 0..RUNS {
            for (place, (_, program)) in clients(Some(vllm)).iter().enumerate() {
                runs[place].push(client(program, server.port, &flags(concurrency, seed))?.measured);
            }
        }
        for (name, runs) in ["native", "vllm"].iter().zip(&runs) {
            let column = |of: fn(&Measured) -> f64| interval(&runs.iter().map(of).collect::<Vec<_>>());
            println!(
                "{concurrency:<12} {name:<8} {:>28} {:>28} {:>28}  {:?}",
                column(|run| run.output_throughput)?,
                column(|run| run.statistic("median_ttft_ms"))?,
                column(|run| run.statistic("median_tpot_ms"))?,
                totals(runs)
            );
        }
        println!("{:<12} token totals equal: {}", "", totals(&runs[0]) == totals(&runs[1]));
    }
    println!();
    server.stop()
}

/// Prompt and output tokens of all runs.
fn totals(runs: &[Measured]) -> (u64, u64) {
    (runs.iter().map(|run| run.total_input_tokens).sum(), runs.iter().map(|run| run.total_output_tokens).sum())
}

/// The median, and the 95 % interval of the mean by Student's t.
fn interval(values: &[f64]) -> Result<String> {
    let count = values.len() as f64;
    let average = mean(values);
    let variance = values.iter().map(|value| (value - average).powi(2)).sum::<f64>() / (count - 1.0);
    let half = StudentsT::new(0.0, 1.0, count - 1.0)?.inverse_cdf(0.975) * (variance / count).sqrt();
    let median = percentile(&sorted(values), 50.0);
    Ok(format!("{median:.2} [{:.2}, {:.2}]", average - half, average + half))
}
