//! `vllm bench latency|throughput|startup` of the simulated vLLM: each starts the server in this process, measures it
//! over loopback, and writes what vLLM writes. Nothing is computed from the pace; everything is measured.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use indexmap::IndexMap;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use url::Url;
use vllm_load::prompts::{self, Shape};
use vllm_load::sim::{self, Pace};
use vllm_load::{Api, Limits, Load, Request, Run, Sampling, Server, numbers, open_files};

use super::{Flags, say, simulation};
use crate::environment::Environment;
use crate::exit::Classify;
use crate::run::native_client;

/// The percentiles of upstream's latency and startup results.
const PERCENTILES: [u8; 6] = [10, 25, 50, 75, 90, 99];

/// How long an answer may be silent: longer than any pace.
const SILENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// How often a starting server is asked whether it is ready.
const POLL: Duration = Duration::from_millis(1);

/// `vllm bench latency`: the time that a batch of requests takes, again and again. Defaults are vLLM's.
///
/// # Errors
/// A flag that is no number, a request that fails, or a file that cannot be written.
pub async fn latency(flags: &Flags, pace: Pace, env: &Environment) -> Result<()> {
    #[derive(Serialize)]
    struct Latency<'a> {
        model_id: &'a str,
        avg_latency: f64,
        latencies: Vec<f64>,
        percentiles: IndexMap<String, f64>,
    }
    let number = |name, default| Ok::<usize, anyhow::Error>(flags.parsed(name).mistake()?.unwrap_or(default));
    let model = flags.model().mistake()?;
    let shape = Shape {
        prompts: number("batch-size", 8)?,
        input_len: number("input-len", 32)?,
        output_len: number("output-len", 128)?,
        seed: number("seed", 0)? as u64,
        ..Shape::default()
    };
    let (warm_up, iterations) = (number("num-iters-warmup", 10)?, number("num-iters", 30)?);

    let served = Served::start(pace, model, env).await?;
    let load = served.load(shape, None).await?;
    let mut latencies = Vec::with_capacity(iterations);
    for iteration in 0..warm_up + iterations {
        let (seconds, _) = measure(&load).await?;
        if iteration >= warm_up {
            latencies.push(seconds);
        }
    }
    served.stop().await?;
    let average = numbers::mean(&latencies);
    let result = Latency { model_id: model, avg_latency: average, percentiles: percentiles(&latencies), latencies };
    write(flags, &result)?;
    say(&format!("Mean latency: {average:.4} s over {iterations} iterations"))
}

/// `vllm bench throughput`: all requests at once, as many at a time as the server runs. Random prompts only.
///
/// # Errors
/// A data set other than random, a flag that is no number, a request that fails, or a file that cannot be written.
pub async fn throughput(flags: &Flags, pace: Pace, env: &Environment) -> Result<()> {
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
            return Err(anyhow!("`--{file} {path}`: the simulated vLLM has random prompts only")).mistake();
        }
    }
    if let Some(name) = flags.get("dataset-name").filter(|name| *name != "random") {
        return Err(anyhow!("`--dataset-name {name}`: the simulated vLLM has random prompts only")).mistake();
    }
    let length = |names: [&str; 2], default: usize| -> Result<usize> {
        for name in names {
            if let Some(length) = flags.parsed(name).mistake()? {
                return Ok(length);
            }
        }
        Ok(default)
    };
    let model = flags.model().mistake()?;
    let shape = Shape {
        prompts: flags.parsed("num-prompts").mistake()?.unwrap_or(1000),
        input_len: length(["random-input-len", "input-len"], 1024)?,
        output_len: length(["random-output-len", "output-len"], 128)?,
        seed: flags.parsed("seed").mistake()?.unwrap_or(0),
        ..Shape::default()
    };
    let at_once = pace.max_num_seqs;
    let served = Served::start(pace, model, env).await?;
    let load = served.load(shape, Some(at_once)).await?;
    let (elapsed, tokens) = measure(&load).await?;
    served.stop().await?;
    let result = Throughput {
        model_id: model,
        elapsed_time: elapsed,
        num_requests: shape.prompts,
        total_num_tokens: tokens,
        requests_per_second: shape.prompts as f64 / elapsed,
        tokens_per_second: tokens as f64 / elapsed,
    };
    write(flags, &result)?;
    say(&format!(
        "Throughput: {:.2} requests/s, {:.2} total tokens/s",
        result.requests_per_second, result.tokens_per_second
    ))
}

/// `vllm bench startup`: from the start of a server to its first 200. There is nothing to compile and nothing to cache,
/// so compilation times are 0 and a warm start is one more start.
///
/// # Errors
/// A flag that is no number, a server that does not start, or a file that cannot be written.
pub async fn startup(flags: &Flags, pace: Pace, env: &Environment) -> Result<()> {
    let number = |name, default| Ok::<usize, anyhow::Error>(flags.parsed(name).mistake()?.unwrap_or(default));
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
            let served = Served::start(pace.clone(), model, env).await?;
            seconds.push(begin.elapsed().as_secs_f64());
            served.stop().await?;
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
    let nothing = |times: &[f64]| vec![0.0; times.len()];
    let summary = format!("Mean start: {:.3} s cold, {:.3} s warm", numbers::mean(&cold), numbers::mean(&warm));
    let (cold_compilation, warm_compilation) = (nothing(&cold), nothing(&warm));
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
    say(&summary)
}

/// One pass over the load: how long it took in seconds, and how many tokens went in and out.
async fn measure(load: &Load) -> Result<(f64, u64)> {
    let Run { answers, seconds, .. } = vllm_load::run(load, |_, _| ()).await?;
    if let Some(failure) = answers.iter().find_map(|answer| answer.failure.as_ref()) {
        return Err(anyhow!("a request to the simulated vLLM failed: {failure}")).unmeasured();
    }
    Ok((seconds, answers.iter().map(|answer| answer.input_tokens + answer.output_tokens).sum()))
}

fn percentiles(values: &[f64]) -> IndexMap<String, f64> {
    let sorted = numbers::sorted(values);
    PERCENTILES.iter().map(|p| (p.to_string(), numbers::percentile(&sorted, f64::from(*p)))).collect()
}

/// Writes `--output-json`, indented as upstream's files are; nothing without that flag.
fn write(flags: &Flags, result: &impl Serialize) -> Result<()> {
    let Some(path) = flags.get("output-json") else { return Ok(()) };
    let mut json = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    result
        .serialize(&mut serde_json::Serializer::with_formatter(&mut json, format))
        .context("cannot print a result")?;
    native_client::write(Path::new(path), &json)
}

/// A simulated server in this process.
struct Served {
    url: Url,
    model: String,
    env: Environment,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<()>>,
}

impl Served {
    /// Starts a server on a free loopback port and waits until it is ready.
    async fn start(pace: Pace, model: &str, env: &Environment) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen on loopback")?;
        let address = listener.local_addr().context("cannot read the address that was bound")?;
        let url = Url::parse(&format!("http://{address}/")).context("cannot name the simulated server")?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn({
            let (model, env) = (model.to_owned(), env.clone());
            async move {
                let shutdown = async {
                    let _ = stopped.await;
                };
                sim::serve(simulation(pace, &model, &env), listener, shutdown).await
            }
        });
        let served = Self { url, model: model.to_owned(), env: env.clone(), stop, serving };
        served.ready().await?;
        Ok(served)
    }

    async fn ready(&self) -> Result<()> {
        let http = http(&self.url)?;
        let health = self.url.join("health").context("cannot name the simulated server")?;
        while !self.serving.is_finished() {
            let answer = http.get(health.clone()).send().await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("the simulated vLLM ended before it was ready")
    }

    /// Random prompts for this server, all due at once.
    async fn load(&self, shape: Shape, max_concurrency: Option<usize>) -> Result<Load> {
        // Both ends of every connection are in this process.
        let connections = max_concurrency.unwrap_or(shape.prompts).min(shape.prompts);
        open_files::allow(2 * connections as u64)?;
        let tokenizer = native_client::draw::open_tokenizer(&self.model, &self.env)?;
        let prompts = prompts::random(&shape, tokenizer.as_ref()).mistake()?;
        let url = self.url.join("v1/completions").context("cannot name the simulated server")?;
        let server = Server::new(url, HeaderMap::new());
        let sampling = Sampling::from_iter([("ignore_eos".to_owned(), true.into())]);
        let requests = prompts.iter().map(|prompt| {
            let body = Api::Completions.body(&self.model, prompt, &sampling)?;
            Ok(Request { due: Duration::ZERO, bytes: server.request(&body) })
        });
        let requests = requests.collect::<Result<_>>()?;
        Ok(Load { server, requests, limits: Limits { max_concurrency, silence: SILENCE }, keep_texts: false })
    }

    async fn stop(self) -> Result<()> {
        // Its receiver is gone only where the server ended already, and then `serving` says why.
        let _ = self.stop.send(());
        self.serving.await.context("cannot stop the simulated vLLM")?
    }
}

/// A client for `url`, without a proxy: what is measured is the server.
///
/// # Errors
/// No certificates are found for an https URL.
pub fn http(url: &Url) -> Result<reqwest::Client> {
    let builder =
        reqwest::Client::builder().no_proxy().http1_only().tcp_nodelay(true).pool_max_idle_per_host(usize::MAX);
    // Plain http needs no certificates, and an image built from scratch has none.
    let builder = if url.scheme() == "http" { builder.tls_certs_only([]) } else { builder };
    builder.build().context("cannot set up the HTTP client")
}
