//! The native load client: the requests of `vllm bench serve`, sent and timed by us. This file goes from a command to its
//! result; what is sent, when, how it is timed, and what it amounts to is in `client/`.

pub mod answer;
pub mod arguments;
pub mod clock;
pub mod connection;
pub mod dataset;
mod failure;
mod generator;
pub mod lag;
pub mod load;
pub mod metrics;
pub mod pytorch;
pub mod ramp;
pub mod request;
pub mod schedule;
pub mod stream;
pub mod summary;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use crate::environment::Environment;
use crate::exit::Classify;
use arguments::Arguments;
use dataset::Prompt;
use load::Load;
use request::Endpoint;

pub use metrics::ServingResult;

/// Pause between two tries of the first request.
const RETRY: Duration = Duration::from_millis(500);

/// Files that a process has open beside its connections, with room to spare.
const OTHER_FILES: u64 = 64;

/// Measures the server that `arguments` name. `progress` gets how many requests have ended, and of how many.
///
/// With a ready check one request that is not measured goes first, as in `vllm bench serve`; the warm-ups follow it.
///
/// # Errors
/// The command cannot be (exit 2), or the server does not answer the ready check (exit 3). Requests that fail later are
/// in the result.
pub async fn run(
    arguments: &Arguments,
    env: &Environment,
    progress: impl Fn(usize, usize) + Send + Sync,
) -> Result<ServingResult> {
    let prompts = tokio::task::spawn_blocking({
        let (arguments, env) = (arguments.clone(), env.clone());
        move || dataset::draw(&arguments, &env)
    });
    let prompts = prompts.await.context("cannot draw prompts")??;
    let load = load(arguments, env, &prompts)?;
    allow_files(load.connections() as u64).mistake()?;
    let first = load.requests.first().context("no prompts")?.clone();
    // Only the counts are needed from here on; the texts are in the requests.
    let input_tokens: Vec<u64> = prompts.into_iter().map(|prompt| prompt.tokens as u64).collect();

    if arguments.ready_check_timeout_sec > 0 {
        check(&load.repeated(first.clone(), 1), Duration::from_secs(arguments.ready_check_timeout_sec)).await?;
    }
    if arguments.num_warmups > 0 {
        load::apply(&load.repeated(first, arguments.num_warmups), |_, _| ()).await?;
    }

    let mut applied = load::apply(&load, progress).await?;
    for (exchange, tokens) in applied.exchanges.iter_mut().zip(input_tokens) {
        if exchange.input_tokens == 0 {
            exchange.input_tokens = tokens;
        }
    }
    let load::Applied { exchanges, seconds, lag } = applied;
    Ok(ServingResult::new(arguments.clone(), now(), exchanges, seconds).with_lag(lag))
}

/// The load that `arguments` describe.
fn load(arguments: &Arguments, env: &Environment, prompts: &[Prompt]) -> Result<Load> {
    let url = arguments.url().context("cannot make a URL of --host, --port and --endpoint").mistake()?;
    let headers = headers(arguments, env).mistake()?;
    let patience = Duration::from_secs(arguments.stall_timeout_sec);
    let endpoint = Endpoint::new(url, arguments.backend.api(), headers, arguments.save_detailed, patience);
    let sampling = arguments.sampling();
    let request = |(index, prompt)| {
        let body = endpoint.body(arguments.model_name(), prompt, &sampling)?;
        match &arguments.request_id_prefix {
            Some(prefix) => Ok(endpoint.identified(&format!("{prefix}{index}")).mistake()?.request(&body)),
            None => Ok(endpoint.request(&body)),
        }
    };
    let requests = prompts.iter().enumerate().map(request).collect::<Result<_>>()?;
    let (count, burstiness, seed) = (prompts.len(), arguments.burstiness, arguments.seed);
    let arrivals = match arguments.ramp_up() {
        Some(ramp) => ramp.arrivals(count, burstiness, seed),
        None => schedule::arrivals(count, arguments.request_rate, burstiness, seed),
    };
    Ok(Load { endpoint, requests, arrivals, max_concurrency: arguments.max_concurrency })
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
async fn check(load: &Load, patience: Duration) -> Result<()> {
    let begin = Instant::now();
    loop {
        let exchanges = load::apply(load, |_, _| ()).await?.exchanges;
        let Some(failure) = exchanges.into_iter().find_map(|exchange| exchange.failure) else { return Ok(()) };
        if begin.elapsed() >= patience {
            return Err(anyhow!("the first request to {} failed: {failure}", load.endpoint.url())).unmeasured();
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "a result says when it was measured")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Writes the result where `--save-result` or `--append-result` wants it and says where; `None` without them. Records
/// for the dashboard stand beside it where `SAVE_TO_PYTORCH_BENCHMARK_FORMAT` is set, as `vllm bench serve` has it.
///
/// # Errors
/// A file cannot be written.
pub fn save(arguments: &Arguments, result: &ServingResult, env: &Environment) -> Result<Option<PathBuf>> {
    if !arguments.save_result && !arguments.append_result {
        return Ok(None);
    }
    let name = arguments.result_filename.clone().unwrap_or_else(|| file_name(arguments, &result.date()));
    let path = arguments.result_dir.clone().unwrap_or_default().join(name);
    let mut text = String::new();
    if arguments.append_result && path.is_file() {
        text = std::fs::read_to_string(&path).with_context(|| format!("cannot add to {}", path.display()))?;
        text.push('\n');
    }
    text.push_str(&result.to_json(arguments.save_detailed));
    write(&path, text.as_bytes())?;
    if env.get("SAVE_TO_PYTORCH_BENCHMARK_FORMAT").is_some_and(|set| !set.is_empty()) {
        write(&path.with_extension("pytorch.json"), pytorch::records(result)?.as_bytes())?;
    }
    Ok(Some(path))
}

/// Upstream's name for a result without `--result-filename`.
fn file_name(arguments: &Arguments, date: &str) -> PathBuf {
    let label = arguments.label.as_deref().unwrap_or(arguments.backend.as_str());
    let concurrency = arguments.max_concurrency.map(|n| format!("-concurrency{n}")).unwrap_or_default();
    let model = arguments.model.rsplit('/').next().unwrap_or_default();
    let rate = match arguments.ramp_up() {
        Some(ramp) => format!("ramp-up-{}-{}qps-{}qps", ramp.strategy, ramp.start, ramp.end),
        None => format!("{:?}qps", arguments.request_rate),
    };
    PathBuf::from(format!("{label}-{rate}{concurrency}-{model}-{date}.json"))
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

/// Allows `connections` and what else a process has open; many systems begin with 1024 files.
///
/// # Errors
/// The system does not let us have so many.
pub fn allow_files(connections: u64) -> Result<()> {
    let needed = connections + OTHER_FILES;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    if soft >= needed {
        return Ok(());
    }
    if hard < needed {
        return Err(anyhow!(
            "{connections} connections need {needed} open files and the hard limit is {hard}: \
             raise it (`ulimit -Hn {needed}`, LimitNOFILE, --ulimit nofile), or lower --max-concurrency"
        ));
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).with_context(|| format!("cannot raise the open files to {hard}"))
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
        assert_eq!(
            name("--model tiny --ramp-up-strategy linear --ramp-up-start-rps 1 --ramp-up-end-rps 9"),
            "openai-ramp-up-linear-1qps-9qps-tiny-20261124-111844.json"
        );
    }

    #[test]
    fn results_stand_alone_or_a_line_each_and_records_only_where_they_are_asked_for() {
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
        assert_eq!(read("r.pytorch.json"), pytorch::records(&saved).unwrap());
    }

    #[test]
    fn every_request_has_its_own_id_where_a_prefix_is_given() {
        let prompt = Prompt { content: dataset::Content::Tokens(vec![1]), tokens: 1, output_tokens: 1 };
        let requests = |flags: &str| {
            let load = load(&arguments(flags), &Environment::default(), &[prompt.clone(), prompt.clone()]);
            load.map(|load| {
                load.requests.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect::<Vec<_>>()
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
        let env: Environment = [("OPENAI_API_KEY", "sk-hidden")].into_iter().collect();
        let headers = headers(&arguments("--model m --header x-run=7 x-team=perf"), &env).unwrap();
        assert_eq!(headers["authorization"], "Bearer sk-hidden");
        assert_eq!((&headers["x-run"], &headers["x-team"]), (&HeaderValue::from(7), &HeaderValue::from_static("perf")));
        assert!(!format!("{headers:?}").contains("hidden"));
    }
}
