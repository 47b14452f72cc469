//! The native load client: the requests of `vllm bench serve`, sent and timed by us. This file applies the load; what is
//! sent, when, and what it amounts to is in `client/`.

pub mod arguments;
pub mod dataset;
pub mod metrics;
pub mod ramp;
pub mod request;
pub mod schedule;
pub mod stream;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::environment::Environment;
use crate::exit::Classify;
use arguments::Arguments;
use dataset::Prompt;
use request::{Endpoint, Exchange, Failure};

pub use metrics::ServingResult;

/// Pause between two tries of the first request.
const RETRY: Duration = Duration::from_millis(500);

/// Requests, when they are due, and where they go.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub endpoint: Endpoint,
    /// Bodies, in order.
    pub bodies: Vec<Bytes>,
    /// When each is due, from the start.
    pub arrivals: Vec<Duration>,
    /// Most requests under way at once.
    pub max_concurrency: Option<usize>,
}

/// Measures the server that `arguments` name. `progress` gets how many requests have ended, and of how many.
///
/// One request that is not measured goes first, and the warm-ups after it.
///
/// # Errors
/// The command cannot be (exit 2), or the first request fails (exit 3). Requests that fail later are in the result.
pub async fn run(
    arguments: &Arguments,
    env: &Environment,
    progress: impl Fn(usize, usize) + Send + Sync,
) -> Result<ServingResult> {
    raise_file_limit();
    let prompts = tokio::task::spawn_blocking({
        let (arguments, env) = (arguments.clone(), env.clone());
        move || dataset::draw(&arguments, &env)
    });
    let prompts = prompts.await.context("cannot draw prompts")??;
    let load = load(arguments, env, &prompts)?;
    let first = load.bodies.first().context("no prompts")?;

    check(&load.endpoint, first, Duration::from_secs(arguments.ready_check_timeout_sec)).await?;
    let warm_up = Load {
        bodies: vec![first.clone(); arguments.num_warmups],
        arrivals: vec![Duration::ZERO; arguments.num_warmups],
        ..load.clone()
    };
    apply(&warm_up, |_, _| ()).await;

    let (mut exchanges, seconds) = apply(&load, progress).await;
    for (exchange, prompt) in exchanges.iter_mut().zip(&prompts) {
        if exchange.input_tokens == 0 {
            exchange.input_tokens = prompt.tokens as u64;
        }
    }
    Ok(ServingResult::new(arguments.clone(), now(), exchanges, seconds))
}

/// The load that `arguments` describe.
fn load(arguments: &Arguments, env: &Environment, prompts: &[Prompt]) -> Result<Load> {
    let url = arguments.url().context("cannot make a URL of --host, --port and --endpoint").mistake()?;
    let headers = headers(arguments, env).mistake()?;
    let endpoint = Endpoint::new(url, arguments.backend.api(), headers, arguments.save_detailed)?;
    let sampling = arguments.sampling();
    let body = |prompt| endpoint.body(arguments.model_name(), prompt, &sampling);
    let bodies = prompts.iter().map(body).collect::<Result<_>>()?;
    let (count, burstiness, seed) = (prompts.len(), arguments.burstiness, arguments.seed);
    let arrivals = match arguments.ramp_up() {
        Some(ramp) => ramp.arrivals(count, burstiness, seed),
        None => schedule::arrivals(count, arguments.request_rate, burstiness, seed),
    };
    Ok(Load { endpoint, bodies, arrivals, max_concurrency: arguments.max_concurrency })
}

fn headers(arguments: &Arguments, env: &Environment) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    if let Some(key) = env.secret("OPENAI_API_KEY") {
        let value = HeaderValue::from_str(&format!("Bearer {}", key.expose()));
        let mut value = value.map_err(|_| anyhow!("OPENAI_API_KEY has characters that no header can carry"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    for (name, value) in &arguments.header {
        let bad = || format!("`--header {name}=...` is not a header");
        headers.insert(HeaderName::try_from(name).with_context(bad)?, HeaderValue::try_from(value).with_context(bad)?);
    }
    Ok(headers)
}

/// Sends one request, again and again for at most `patience`, until it is answered.
async fn check(endpoint: &Endpoint, body: &Bytes, patience: Duration) -> Result<()> {
    let begin = Instant::now();
    loop {
        let now = Instant::now();
        let Some(failure) = endpoint.send(body.clone(), now, now).await.failure else { return Ok(()) };
        if begin.elapsed() >= patience {
            return Err(anyhow!("the first request to {} failed: {failure}", endpoint.url())).unmeasured();
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Sends every request when it is due and a place is free, in order. Gives what was seen of each, in that order, and how
/// long all took, in seconds. Dropping the future ends the requests.
pub async fn apply(load: &Load, progress: impl Fn(usize, usize)) -> (Vec<Exchange>, f64) {
    let total = load.bodies.len();
    let places = Arc::new(Semaphore::new(load.max_concurrency.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)));
    let (report, mut reports) = mpsc::unbounded_channel();
    let mut under_way = JoinSet::new();
    let begin = Instant::now();
    let send_all = async {
        for (index, (body, after)) in load.bodies.iter().zip(&load.arrivals).enumerate() {
            let due = begin + *after;
            if !after.is_zero() {
                tokio::time::sleep_until(due.into()).await;
            }
            let place = Arc::clone(&places).acquire_owned().await;
            let (endpoint, body, report) = (load.endpoint.clone(), body.clone(), report.clone());
            under_way.spawn(async move {
                let exchange = endpoint.send(body, begin, due).await;
                drop(place);
                // The receiver is gone only when the whole load was dropped.
                let _ = report.send((index, exchange));
            });
        }
        drop(report);
    };
    let mut exchanges = vec![Exchange { failure: Some(Failure::NotSent), ..Exchange::default() }; total];
    let collect_all = async {
        let mut ended = 0;
        while let Some((index, exchange)) = reports.recv().await {
            ended += 1;
            progress(ended, total);
            if let Some(slot) = exchanges.get_mut(index) {
                *slot = exchange;
            }
        }
    };
    tokio::join!(send_all, collect_all);
    (exchanges, begin.elapsed().as_secs_f64())
}

#[expect(clippy::disallowed_methods, reason = "a result says when it was measured")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Writes the result where `--save-result` wants it and says where; `None` without that flag.
///
/// # Errors
/// The file cannot be written.
pub fn save(arguments: &Arguments, result: &ServingResult) -> Result<Option<PathBuf>> {
    if !arguments.save_result {
        return Ok(None);
    }
    let name = arguments.result_filename.clone().unwrap_or_else(|| file_name(arguments, &result.date()));
    let path = arguments.result_dir.clone().unwrap_or_default().join(name);
    write(&path, result.to_json(arguments.save_detailed).as_bytes())?;
    Ok(Some(path))
}

/// Upstream's name for a result without `--result-filename`.
fn file_name(arguments: &Arguments, date: &str) -> PathBuf {
    let label = arguments.label.as_deref().unwrap_or(arguments.backend.as_str());
    let concurrency = arguments.max_concurrency.map(|n| format!("-concurrency{n}")).unwrap_or_default();
    let model = arguments.model.rsplit('/').next().unwrap_or_default();
    PathBuf::from(format!("{label}-{:?}qps{concurrency}-{model}-{date}.json", arguments.request_rate))
}

/// Writes a whole file or none: a temporary name, then a rename. Missing folders are made.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(cannot)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".part");
    File::create(&temporary).and_then(|mut file| file.write_all(bytes)).with_context(cannot)?;
    std::fs::rename(&temporary, path).with_context(cannot)
}

/// Allows as many open connections as the system lets us have; many systems begin with 1024.
pub(crate) fn raise_file_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Where it is refused, requests beyond the limit fail and are counted.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Arguments {
        arguments::parse(&shell_words::split(text).unwrap()).unwrap()
    }

    #[test]
    fn a_result_without_a_name_gets_upstreams() {
        let name = |text: &str| file_name(&arguments(text), "20261124-111844").display().to_string();
        assert_eq!(name("--model org/tiny"), "openai-infqps-tiny-20261124-111844.json");
        assert_eq!(
            name("--model tiny --label main --request-rate 4 --max-concurrency 8"),
            "main-4.0qps-concurrency8-tiny-20261124-111844.json"
        );
    }

    #[test]
    fn the_api_key_is_sent_and_never_printed() {
        let env: Environment = [("OPENAI_API_KEY", "sk-hidden")].into_iter().collect();
        let headers = headers(&arguments("--model m --header x-run=7 x-team=perf"), &env).unwrap();
        assert_eq!(headers["authorization"], "Bearer sk-hidden");
        assert_eq!((&headers["x-run"], &headers["x-team"]), (&HeaderValue::from(7), &HeaderValue::from_static("perf")));
        assert!(!format!("{headers:?}").contains("hidden"));
    }
}
