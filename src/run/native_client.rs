//! The native client: from a command of `vllm bench serve` to its result and its files. The crate `vllm-load` runs the
//! load.

mod decoding;
pub mod draw;
pub mod prompt_process;
pub mod pytorch;
mod server_counters;
pub mod serving_check;
pub mod serving_file;
pub mod serving_metrics;
pub mod serving_summary;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use vllm_load::open_files::{self, OpenFilesError};
use vllm_load::prompts::Prompt;
use vllm_load::{Failure, Limits, Load, Request, Sampling, Server, arrivals};

use crate::environment::{Environment, Secret};
use crate::exit::Classify;
use crate::plan::serve_flags::Arguments;
use crate::system::output;

use decoding::Decoding;
use server_counters::Counters;

pub use serving_metrics::ServingResult;

/// Pause between two attempts of the ready check.
const RETRY: Duration = Duration::from_millis(500);

/// Most tokens of an answer: as many as the longest context has.
const MOST_TOKENS: usize = 1 << 20;

/// Measures the server of `arguments` with `prompts`. `key` is sent with every request; a run has none, because its server is
/// the code under test. `progress` is called with the number of finished requests and the number of all requests.
///
/// As in `vllm bench serve`, the ready check and the warm-ups come first and are not measured.
///
/// # Errors
/// The command is not valid (exit 2), or the ready check fails (exit 3). Requests that fail later are in the result.
pub async fn run(
    arguments: &Arguments,
    prompts: Vec<Prompt>,
    key: Option<&Secret>,
    progress: impl Fn(usize, usize) + Send + Sync,
) -> Result<ServingResult> {
    run_until(arguments, prompts, key, std::future::pending(), progress).await
}

/// [`run`], which ends early when `stop` completes. The result then has the requests that had ended.
///
/// # Errors
/// Those of [`run`].
pub async fn run_until(
    arguments: &Arguments,
    prompts: Vec<Prompt>,
    key: Option<&Secret>,
    stop: impl Future<Output = ()>,
    progress: impl Fn(usize, usize) + Send + Sync,
) -> Result<ServingResult> {
    let load = load(arguments, key, &prompts)?;
    allow_files(&load, arguments.load.request_rate)?;
    // The texts are in the requests; only the counts are needed below.
    let input_tokens: Vec<u64> = prompts.into_iter().map(|prompt| prompt.tokens as u64).collect();

    if arguments.load.ready_check_timeout_sec > 0 {
        let first = load.first_repeated(1).context("no prompts")?;
        ready_check(&first, Duration::from_secs(arguments.load.ready_check_timeout_sec)).await?;
    }
    if arguments.load.num_warmups > 0 {
        let warm_ups = load.first_repeated(arguments.load.num_warmups).context("no prompts")?;
        vllm_load::run(&warm_ups, |_, _| ()).await?;
    }

    // A server without these counters has nothing to read after the load.
    let before = Counters::read(&arguments.server).await.unwrap_or_default();
    let is_stopped = AtomicBool::new(false);
    let stop = async {
        stop.await;
        is_stopped.store(true, Ordering::Relaxed);
    };
    let mut run = vllm_load::run_until(&load, stop, progress).await?;
    let decoding = match before.is_empty() || is_stopped.load(Ordering::Relaxed) {
        true => Decoding::default(),
        false => decoding(&before, arguments, run.seconds).await,
    };
    for (answer, tokens) in run.answers.iter_mut().zip(input_tokens) {
        if answer.input_tokens == 0 {
            answer.input_tokens = tokens;
        }
    }
    run.answers.retain(|answer| answer.failure != Some(Failure::NotSent));
    let result = ServingResult::new(arguments.clone(), now(), run.answers, run.seconds);
    Ok(ServingResult { decoding, ..result.with_check(run.check, run.offered) })
}

/// How the server decoded since its counters were `before`.
async fn decoding(before: &Counters, arguments: &Arguments, seconds: f64) -> Decoding {
    match Counters::read(&arguments.server).await {
        Ok(after) if after.is_empty() => Decoding::lost("it had them before the load, and not after it"),
        Ok(after) => Decoding::between(before, &after, seconds),
        Err(error) => Decoding::lost(&format!("{error:#}")),
    }
}

/// The load of `arguments`.
fn load(arguments: &Arguments, key: Option<&Secret>, prompts: &[Prompt]) -> Result<Load> {
    let url = arguments.server.url().map_err(|why| anyhow!(why)).mistake()?;
    let headers = headers(arguments, key).mistake()?;
    let server = Server::new(url, headers);
    let server = if arguments.server.insecure { server.insecure() } else { server };
    let server = if arguments.generates() { server } else { server.with_whole_answers() };
    let (count, burstiness, seed) = (prompts.len(), arguments.load.burstiness, arguments.dataset.seed);
    let due = match arguments.load.ramp_up() {
        Some(ramp) => ramp.arrivals(count, burstiness, seed),
        None => arrivals(count, arguments.load.request_rate, burstiness, seed),
    };
    let sampling = arguments.sampling.fields(arguments.server.backend.api());
    let request = |((index, prompt), due)| {
        let body = arguments.server.backend.api().body(arguments.model.model_name(), prompt, &sampling)?;
        let bytes = match &arguments.server.request_id_prefix {
            Some(prefix) => server.with_request_id(&format!("{prefix}{index}")).mistake()?.request(&body),
            None => server.request(&body),
        };
        let output_tokens = if arguments.generates() { output_tokens(prompt, &sampling) } else { 0 };
        Ok(Request { due, bytes, output_tokens })
    };
    let requests = prompts.iter().enumerate().zip(due).map(request).collect::<Result<_>>()?;
    let stall_timeout = Duration::from_secs(arguments.load.stall_timeout_sec);
    let limits = Limits { max_concurrency: arguments.load.max_concurrency, stall_timeout };
    Ok(Load { server, requests, limits, keep_texts: arguments.result.save_detailed })
}

/// Most tokens of the answer to a request: `--extra-body` can ask for more than the prompt has, and for several answers.
fn output_tokens(prompt: &Prompt, sampling: &Sampling) -> usize {
    let field = |name: &str| sampling.get(name).and_then(serde_json::Value::as_u64).map_or(0, |value| value as usize);
    let longest = prompt.output_tokens.max(field("max_tokens")).max(field("max_completion_tokens"));
    longest.saturating_mul(field("n").max(1)).min(MOST_TOKENS)
}

/// Raises the limit of open files. At a finite rate without a limit of concurrency it is not known how many requests will be
/// in flight; one that finds no file fails and says so.
fn allow_files(load: &Load, rate: f64) -> Result<()> {
    if load.limits.max_concurrency.is_none() && rate.is_finite() {
        open_files::raise();
        return Ok(());
    }
    open_files::allow(load.connections() as u64).map_err(name_concurrency).mistake()
}

/// The limit of open files is the result of the concurrency, which a flag can lower.
fn name_concurrency(error: OpenFilesError) -> anyhow::Error {
    match error {
        OpenFilesError::HardLimit { .. } => anyhow!("{error}, or lower --max-concurrency"),
        OpenFilesError::System(_) => error.into(),
    }
}

fn headers(arguments: &Arguments, key: Option<&Secret>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        let value = HeaderValue::from_str(&format!("Bearer {}", key.expose()));
        let mut value = value.map_err(|_| anyhow!("OPENAI_API_KEY has characters that are not allowed in a header"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    for (name, value) in &arguments.server.header {
        let bad = || format!("`--header {name}=...` is not a header");
        headers.insert(HeaderName::try_from(name).with_context(bad)?, HeaderValue::try_from(value).with_context(bad)?);
    }
    Ok(headers)
}

/// Repeats `load` for at most `limit`, until no request fails.
async fn ready_check(load: &Load, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut last = format!("it was not answered within {} s", limit.as_secs());
    let attempts = async {
        loop {
            let answers = vllm_load::run(load, |_, _| ()).await?.answers;
            let Some(failure) = answers.into_iter().find_map(|answer| answer.failure) else { return Ok(()) };
            last = failure.to_string();
            if Instant::now() >= deadline {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    let ready: Result<Result<()>, _> = tokio::time::timeout_at(deadline.into(), attempts).await;
    ready.unwrap_or_else(|_| Err(anyhow!("the first request to {} failed: {last}", load.server.url())).unmeasured())
}

#[expect(clippy::disallowed_methods, reason = "a result has the time of its measurement")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Writes the result if `--save-result` or `--append-result` is given, and gives its path. If the variable
/// `SAVE_TO_PYTORCH_BENCHMARK_FORMAT` is set, writes records for the dashboard next to it, as `vllm bench serve` does.
///
/// # Errors
/// A file cannot be written.
pub fn save(arguments: &Arguments, result: &ServingResult, env: &Environment) -> Result<Option<PathBuf>> {
    let Some(path) = path(arguments, result) else { return Ok(None) };
    let mut text = String::new();
    if arguments.result.append_result && path.is_file() {
        text = std::fs::read_to_string(&path).with_context(|| format!("cannot append to {}", path.display()))?;
        text.push('\n');
    }
    text.push_str(&result.to_json(arguments.result.save_detailed));
    output::write(&path, text.as_bytes())?;
    if env.get("SAVE_TO_PYTORCH_BENCHMARK_FORMAT").is_some_and(|set| !set.is_empty())
        && let Some(records) = pytorch::records(result)?
    {
        output::write(&path.with_extension("pytorch.json"), records.as_bytes())?;
    }
    Ok(Some(path))
}

/// Writes the result of an interrupted load beside the place of a whole one, with the ending `.partial`: it describes another
/// load than the one that was asked for.
///
/// # Errors
/// The file cannot be written.
pub fn save_partial(arguments: &Arguments, result: &ServingResult) -> Result<Option<PathBuf>> {
    let Some(mut path) = path(arguments, result) else { return Ok(None) };
    path.as_mut_os_string().push(".partial");
    output::write(&path, result.to_json(arguments.result.save_detailed).as_bytes())?;
    Ok(Some(path))
}

/// Where the result is written, if it is.
fn path(arguments: &Arguments, result: &ServingResult) -> Option<PathBuf> {
    if !arguments.result.save_result && !arguments.result.append_result {
        return None;
    }
    let name = arguments.result.result_filename.clone().unwrap_or_else(|| file_name(arguments, &result.date()));
    Some(arguments.result.result_dir.clone().unwrap_or_default().join(name))
}

/// The name of `vllm bench serve` for a result without `--result-filename`.
fn file_name(arguments: &Arguments, date: &str) -> PathBuf {
    let label = arguments.result.label.as_deref().unwrap_or(arguments.server.backend.as_str());
    let concurrency = arguments.load.max_concurrency.map(|n| format!("-concurrency{n}")).unwrap_or_default();
    let model = arguments.model.model.rsplit('/').next().unwrap_or_default();
    let rate = match arguments.load.ramp_up() {
        Some(ramp) => format!("ramp-up-{}-{}qps-{}qps", ramp.strategy, ramp.start, ramp.end),
        None => format!("{:?}qps", arguments.load.request_rate),
    };
    PathBuf::from(format!("{label}-{rate}{concurrency}-{model}-{date}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::serve_flags;

    fn arguments(text: &str) -> Arguments {
        serve_flags::parse(&shell_words::split(text).unwrap()).unwrap()
    }

    #[test]
    fn a_result_without_a_name_has_that_of_vllm() {
        let name = |text: &str| file_name(&arguments(text), "20261124-111844").display().to_string();
        assert_eq!(name("--model org/tiny"), "openai-infqps-tiny-20261124-111844.json");
        assert_eq!(
            name("--model tiny --label main --request-rate 4 --max-concurrency 8"),
            "main-4.0qps-concurrency8-tiny-20261124-111844.json"
        );
        assert_eq!(
            name("--model tiny --ramp-up-strategy linear --ramp-up-start-rps 1 --ramp-up-end-rps 9"),
            "openai-ramp-up-linear-1qps-9qps-tiny-20261124-111844.json"
        );
    }

    #[test]
    fn results_are_files_or_lines_and_records_are_written_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let flags = format!("--model m --result-dir {} --result-filename r.json", folder.path().display());
        let result = |flags: &str| {
            let arguments = arguments(flags);
            (arguments.clone(), ServingResult::new(arguments, now(), Vec::new(), 1.0))
        };
        let none = Environment::default();
        let (arguments, unsaved) = result(&flags);
        assert_eq!(save(&arguments, &unsaved, &none).unwrap(), None);
        let (arguments, appended) = result(&format!("{flags} --append-result"));
        for _ in 0..2 {
            save(&arguments, &appended, &none).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("r.json").lines().collect::<Vec<_>>(), [appended.to_json(false), appended.to_json(false)]);
        assert!(!folder.path().join("r.pytorch.json").exists());
        let env: Environment = [("SAVE_TO_PYTORCH_BENCHMARK_FORMAT", "1")].into_iter().collect();
        let (arguments, saved) = result(&format!("{flags} --save-result"));
        save(&arguments, &saved, &env).unwrap();
        assert_eq!(read("r.json"), saved.to_json(false));
        assert_eq!(read("r.pytorch.json"), pytorch::records(&saved).unwrap().unwrap());
    }

    #[test]
    fn every_request_has_its_own_id_with_a_prefix() {
        let prompt = Prompt { content: vllm_load::prompts::Content::Tokens(vec![1]), tokens: 1, output_tokens: 1 };
        let requests = |flags: &str| {
            let load = load(&arguments(flags), None, &[prompt.clone(), prompt.clone()]);
            load.map(|load| {
                load.requests
                    .iter()
                    .map(|request| String::from_utf8_lossy(&request.bytes).into_owned())
                    .collect::<Vec<_>>()
            })
        };
        let with = requests("--model m --request-id-prefix run7-").unwrap();
        assert!(with[0].contains("\r\nx-request-id: run7-0\r\n") && with[1].contains("\r\nx-request-id: run7-1\r\n"));
        assert!(!requests("--model m").unwrap()[0].contains("x-request-id"));
        let error = requests("--model m --request-id-prefix 'a\nb'").unwrap_err();
        assert_eq!(crate::exit::of(&error), crate::exit::Exit::Mistake);
    }

    #[test]
    fn the_api_key_is_sent_and_never_printed() {
        let key = Secret::from("sk-hidden".to_owned());
        let headers = headers(&arguments("--model m --header x-run=7 x-team=perf"), Some(&key)).unwrap();
        assert_eq!(headers["authorization"], "Bearer sk-hidden");
        assert_eq!((&headers["x-run"], &headers["x-team"]), (&HeaderValue::from(7), &HeaderValue::from_static("perf")));
        assert!(!format!("{headers:?}").contains("hidden"));
    }
}
