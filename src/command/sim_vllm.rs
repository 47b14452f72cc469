//! The simulated vLLM as an executable: `vllm serve`, `vllm bench ...` and `vllm --version` with vLLM's flags, so that it can
//! replace vLLM wherever that is called. The pace is in the variable `VLLM_PERF_SIM`.

mod loopback_server;
mod sim_bench;
mod sim_flags;
mod sim_output;

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use vllm_load::open_files;
use vllm_load::sim::{self, Pace};

use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::serve_flags;
use crate::plan::suite::RUST_CLIENT;
use crate::run::native_client::{self, ServingResult, draw, serving_summary};
use crate::system::output;
use loopback_server::simulation;
use sim_flags::SimFlags;
use sim_output::print;

/// The variable with the pace, in the text form of `sim:` targets.
pub const PACE_VARIABLE: &str = "VLLM_PERF_SIM";

/// Runs `vllm ARGV...`, `argv` without the name of the program. `serve` ends on SIGINT and SIGTERM.
///
/// # Errors
/// A command, a flag or a pace is not valid (exit 2); a request of a benchmark fails (exit 3); a port or a file cannot be
/// opened (exit 4).
pub async fn run(argv: Vec<String>, env: &Environment) -> Result<()> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let pace = |flags: &SimFlags| pace(env, flags).mistake();
    match words.as_slice() {
        ["--version" | "-v"] => print(sim::VERSION),
        ["serve", rest @ ..] => {
            let flags = SimFlags::parse(rest);
            serve(&flags, pace(&flags)?, env).await
        }
        ["bench", "latency", rest @ ..] => {
            let flags = SimFlags::parse(rest);
            sim_bench::latency(&flags, pace(&flags)?, env).await
        }
        ["bench", "throughput", rest @ ..] => {
            let flags = SimFlags::parse(rest);
            sim_bench::throughput(&flags, pace(&flags)?, env).await
        }
        ["bench", "startup", rest @ ..] => {
            let flags = SimFlags::parse(rest);
            sim_bench::startup(&flags, pace(&flags)?, env).await
        }
        ["bench", "serve", ..] => {
            let arguments = serve_flags::parse(argv.get(2..).unwrap_or_default()).mistake()?;
            let prompts = draw::draw(&arguments, env)?;
            let result = native_client::run(&arguments, prompts, None, |_, _| ()).await?;
            // vLLM's client does not measure itself.
            let result = ServingResult { check: None, ..result };
            let saved = native_client::save(&arguments, &result, env)?;
            if let Some(path) = saved.filter(|_| env.get(RUST_CLIENT) == Some("1")) {
                as_of_rust(&path)?;
            }
            print(serving_summary::block(&result).trim_end())
        }
        _ => Err(anyhow::anyhow!(
            "`vllm {}` is not simulated: expected serve, bench latency|throughput|startup|serve or --version",
            argv.join(" ")
        ))
        .mistake(),
    }
}

/// Adds the key by which a result of vLLM's Rust client is known.
fn as_of_rust(path: &Path) -> Result<()> {
    let read = || format!("cannot read `{}`", path.display());
    let text = std::fs::read_to_string(path).with_context(read)?;
    let mut result: Map<String, Value> = serde_json::from_str(&text).with_context(read)?;
    result.insert("steady_state".to_owned(), Value::Null);
    output::write(path, Value::Object(result).to_string().as_bytes())
}

fn pace(env: &Environment, flags: &SimFlags) -> Result<Pace> {
    let mut pace = Pace::from_str(env.get(PACE_VARIABLE).unwrap_or_default())
        .with_context(|| format!("cannot read {PACE_VARIABLE}"))?;
    if let Some(number) = flags.value("max-num-seqs")? {
        if number == 0 {
            bail!("`--max-num-seqs 0` would run no request: expected at least 1");
        }
        pace.max_num_seqs = number;
    }
    Ok(pace)
}

async fn serve(flags: &SimFlags, pace: Pace, env: &Environment) -> Result<()> {
    let model = flags.model().mistake()?;
    let name = flags.get("served-model-name").unwrap_or(model).to_owned();
    // vLLM's defaults: every interface, port 8000.
    let host = flags.get("host").unwrap_or("0.0.0.0");
    let port: u16 = flags.value("port").mistake()?.unwrap_or(8000);
    open_files::raise();
    let listener =
        TcpListener::bind((host, port)).await.with_context(|| format!("cannot listen on {host}:{port}")).world()?;
    let address = listener.local_addr().context("cannot read the address that was bound")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    print(&format!("simulated vLLM serves {name} on http://{address} ({pace})"))?;
    sim::serve(simulation(pace, name, env), listener, async move {
        tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_in_the_environment_and_a_flag_replaces_it() {
        let env: Environment = [(PACE_VARIABLE, "itl=5ms,max-num-seqs=8")].into_iter().collect();
        assert_eq!(pace(&env, &SimFlags::parse(&[])).unwrap().max_num_seqs, 8);
        assert_eq!(pace(&env, &SimFlags::parse(&["--max-num-seqs", "1"])).unwrap().max_num_seqs, 1);
        assert!(pace(&env, &SimFlags::parse(&["--max-num-seqs", "0"])).is_err());
    }

    #[tokio::test]
    async fn a_command_that_is_not_simulated_is_a_mistake() {
        let error = run(vec!["chat".to_owned()], &Environment::default()).await.unwrap_err();
        assert_eq!(crate::exit::of(&error), crate::exit::Exit::Mistake);
        assert!(error.to_string().starts_with("`vllm chat` is not simulated"), "{error}");
    }
}
