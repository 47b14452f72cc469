//! `vllm bench latency|throughput|startup` of the simulated vLLM. Each starts a server in this process, measures it over
//! loopback, and writes a result like that of vLLM. Nothing is computed from the pace.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use indexmap::IndexMap;
use serde::Serialize;
use vllm_load::prompts::RandomPrompts;
use vllm_load::sim::Pace;
use vllm_load::{Load, Run, numbers};

use super::loopback_server::LoopbackServer;
use super::sim_flags::SimFlags;
use super::sim_output::print;
use crate::environment::Environment;
use crate::exit::Classify;
use crate::system::output;

/// The percentiles of vLLM's latency and startup results.
const PERCENTILES: [u8; 6] = [10, 25, 50, 75, 90, 99];

/// `vllm bench latency`: the time of a batch of requests, repeated. Defaults are vLLM's.
///
/// # Errors
/// A flag is not a number, a request fails, or a file cannot be written.
pub async fn latency(flags: &SimFlags, pace: Pace, env: &Environment) -> Result<()> {
    #[derive(Serialize)]
    struct Latency<'a> {
        model_id: &'a str,
        avg_latency: f64,
        latencies: Vec<f64>,
        percentiles: IndexMap<String, f64>,
    }
    let number = |name, default| Ok::<usize, anyhow::Error>(flags.value(name).mistake()?.unwrap_or(default));
    let model = flags.model().mistake()?;
    let spec = RandomPrompts {
        prompts: number("batch-size", 8)?,
        input_len: number("input-len", 32)?,
        output_len: number("output-len", 128)?,
        seed: number("seed", 0)? as u64,
        ..RandomPrompts::default()
    };
    let (warm_up, iterations) = (number("num-iters-warmup", 10)?, number("num-iters", 30)?);

    let server = LoopbackServer::start(pace, model, env).await?;
    let load = server.load(spec, None).await?;
    let mut latencies = Vec::with_capacity(iterations);
    for iteration in 0..warm_up + iterations {
        let (seconds, _) = measure(&load).await?;
        if iteration >= warm_up {
            latencies.push(seconds);
        }
    }
    server.stop().await?;
    let average = numbers::mean(&latencies);
    let result = Latency { model_id: model, avg_latency: average, percentiles: percentiles(&latencies), latencies };
    write(flags, &result)?;
    print(&format!("Mean latency: {average:.4} s over {iterations} iterations"))
}

/// `vllm bench throughput`: all requests at once, as many at a time as the server runs. Random prompts only.
///
/// # Errors
/// The data set is not random, a flag is not a number, a request fails, or a file cannot be written.
pub async fn throughput(flags: &SimFlags, pace: Pace, env: &Environment) -> Result<()> {
    #[derive(Serialize)]
    struct Throughput<'a> {
        model_id: &'a str,
        elapsed_time: f64,
        num_requests: usize,
        total_num_tokens: u64,
        requests_per_second: f64,
        tokens_per_second: f64,
    }
    for file in ["dataset", "dataset-path"] {
        if let Some(path) = flags.get(file) {
            return Err(anyhow!("`--{file} {path}`: the simulated vLLM supports random prompts only")).mistake();
        }
    }
    if let Some(name) = flags.get("dataset-name").filter(|name| *name != "random") {
        return Err(anyhow!("`--dataset-name {name}`: the simulated vLLM supports random prompts only")).mistake();
    }
    let length = |names: [&str; 2], default: usize| -> Result<usize> {
        for name in names {
            if let Some(length) = flags.value(name).mistake()? {
                return Ok(length);
            }
        }
        Ok(default)
    };
    let model = flags.model().mistake()?;
    let spec = RandomPrompts {
        prompts: flags.value("num-prompts").mistake()?.unwrap_or(1000),
        input_len: length(["random-input-len", "input-len"], 1024)?,
        output_len: length(["random-output-len", "output-len"], 128)?,
        seed: flags.value("seed").mistake()?.unwrap_or(0),
        ..RandomPrompts::default()
    };
    let at_once = pace.max_num_seqs;
    let server = LoopbackServer::start(pace, model, env).await?;
    let load = server.load(spec, Some(at_once)).await?;
    let (elapsed, tokens) = measure(&load).await?;
    server.stop().await?;
    let result = Throughput {
        model_id: model,
        elapsed_time: elapsed,
        num_requests: spec.prompts,
        total_num_tokens: tokens,
        requests_per_second: spec.prompts as f64 / elapsed,
        tokens_per_second: tokens as f64 / elapsed,
    };
    write(flags, &result)?;
    print(&format!(
        "Throughput: {:.2} requests/s, {:.2} total tokens/s",
        result.requests_per_second, result.tokens_per_second
    ))
}

/// `vllm bench startup`: from the start of a server to its first 200. There is nothing to compile and nothing to cache,
/// so compilation times are 0 and a warm start is one more start.
///
/// # Errors
/// A flag is not a number, the server does not start, or a file cannot be written.
pub async fn startup(flags: &SimFlags, pace: Pace, env: &Environment) -> Result<()> {
    let number = |name, default| Ok::<usize, anyhow::Error>(flags.value(name).mistake()?.unwrap_or(default));
    let model = flags.model().mistake()?;
    let (cold, warm_up, warm) =
        (number("num-iters-cold", 3)?, number("num-iters-warmup", 1)?, number("num-iters-warm", 3)?);
    if cold == 0 || warm == 0 {
        return Err(anyhow!("`--num-iters-cold` and `--num-iters-warm` must be at least 1")).mistake();
    }
    let starts = async |count: usize| -> Result<Vec<f64>> {
        let mut seconds = Vec::with_capacity(count);
        for _ in 0..count {
            let begin = Instant::now();
            let server = LoopbackServer::start(pace.clone(), model, env).await?;
            seconds.push(begin.elapsed().as_secs_f64());
            server.stop().await?;
        }
        Ok(seconds)
    };
    let cold = starts(cold).await?;
    starts(warm_up).await?;
    let warm = starts(warm).await?;

    #[derive(Serialize)]
    #[serde(untagged)]
    enum Entry {
        Average(f64),
        Times(Vec<f64>),
        Percentiles(IndexMap<String, f64>),
    }
    let zeros = |times: &[f64]| vec![0.0; times.len()];
    let summary = format!("Mean start: {:.3} s cold, {:.3} s warm", numbers::mean(&cold), numbers::mean(&warm));
    let (cold_compilation, warm_compilation) = (zeros(&cold), zeros(&warm));
    let result: IndexMap<String, Entry> = [
        ("cold_startup", cold),
        ("cold_compilation", cold_compilation),
        ("warm_startup", warm),
        ("warm_compilation", warm_compilation),
    ]
    .into_iter()
    .flat_map(|(key, times)| {
        let (average, percentiles) = (numbers::mean(&times), percentiles(&times));
        [
            (format!("avg_{key}_time"), Entry::Average(average)),
            (format!("{key}_times"), Entry::Times(times)),
            (format!("{key}_percentiles"), Entry::Percentiles(percentiles)),
        ]
    })
    .collect();
    write(flags, &result)?;
    print(&summary)
}

/// Runs the load. Gives its duration in seconds, and its number of prompt and output tokens.
async fn measure(load: &Load) -> Result<(f64, u64)> {
    let Run { answers, seconds, .. } = vllm_load::run(load, |_, _| ()).await?;
    if let Some(failure) = answers.iter().find_map(|answer| answer.failure.as_ref()) {
        return Err(anyhow!("a request to the simulated vLLM failed: {failure}")).unmeasured();
    }
    Ok((seconds, answers.iter().map(|answer| answer.input_tokens + answer.output_tokens.unwrap_or_default()).sum()))
}

fn percentiles(values: &[f64]) -> IndexMap<String, f64> {
    let sorted = numbers::sorted(values);
    PERCENTILES.iter().map(|p| (p.to_string(), numbers::percentile(&sorted, f64::from(*p)))).collect()
}

/// Writes `--output-json`, indented like vLLM's files, if that flag is given.
fn write(flags: &SimFlags, result: &impl Serialize) -> Result<()> {
    let Some(path) = flags.get("output-json") else { return Ok(()) };
    let mut json = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    result
        .serialize(&mut serde_json::Serializer::with_formatter(&mut json, format))
        .context("cannot serialize a result")?;
    output::write(Path::new(path), &json)
}
