//! The simulated vLLM as an executable: `vllm serve`, `vllm bench ...` and `vllm --version` with vLLM's own flags, so that
//! whatever drives vLLM can drive the simulation without knowing. The pace comes from `VLLM_PERF_SIM`.

mod sim_bench;

use std::io::Write;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use vllm_load::open_files;
use vllm_load::sim::{self, Pace, Simulation};

use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::serve_flags;
use crate::run::native_client::draw::find_tokenizer;
use crate::run::native_client::{self, serving_summary};

/// The variable that holds the pace, as in `sim:` targets.
pub const PACE_VARIABLE: &str = "VLLM_PERF_SIM";

/// Runs `vllm ARGV...`, `argv` without the program's name. `serve` ends well on SIGINT and SIGTERM.
///
/// # Errors
/// A command, a flag or a pace that cannot be (exit 2); a benchmark whose requests fail (exit 3); a port or a file that
/// cannot be had (exit 4).
pub async fn run(argv: Vec<String>, env: &Environment) -> Result<()> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let pace = |flags: &Flags| pace(env, flags).mistake();
    match words.as_slice() {
        ["--version" | "-v"] => say(sim::VERSION),
        ["serve", rest @ ..] => {
            let flags = Flags::read(rest);
            serve(&flags, pace(&flags)?, env).await
        }
        ["bench", "latency", rest @ ..] => {
            let flags = Flags::read(rest);
            sim_bench::latency(&flags, pace(&flags)?, env).await
        }
        ["bench", "throughput", rest @ ..] => {
            let flags = Flags::read(rest);
            sim_bench::throughput(&flags, pace(&flags)?, env).await
        }
        ["bench", "startup", rest @ ..] => {
            let flags = Flags::read(rest);
            sim_bench::startup(&flags, pace(&flags)?, env).await
        }
        ["bench", "serve", ..] => {
            let arguments = serve_flags::parse(argv.get(2..).unwrap_or_default()).mistake()?;
            let result = native_client::run(&arguments, env, |_, _| ()).await?;
            native_client::save(&arguments, &result, env)?;
            say(serving_summary::block(&result).trim_end())
        }
        _ => Err(anyhow::anyhow!(
            "`vllm {}` is not simulated: expected serve, bench latency|throughput|startup|serve or --version",
            argv.join(" ")
        ))
        .mistake(),
    }
}

fn pace(env: &Environment, flags: &Flags) -> Result<Pace> {
    let mut pace = Pace::from_str(env.get(PACE_VARIABLE).unwrap_or_default())
        .with_context(|| format!("cannot read {PACE_VARIABLE}"))?;
    if let Some(number) = flags.parsed("max-num-seqs")? {
        if number == 0 {
            bail!("`--max-num-seqs 0` would answer nothing: expected at least 1");
        }
        pace.max_num_seqs = number;
    }
    Ok(pace)
}

async fn serve(flags: &Flags, pace: Pace, env: &Environment) -> Result<()> {
    let model = flags.model().mistake()?;
    let name = flags.get("served-model-name").unwrap_or(model).to_owned();
    // vLLM's own defaults: every interface, port 8000.
    let host = flags.get("host").unwrap_or("0.0.0.0");
    let port: u16 = flags.parsed("port").mistake()?.unwrap_or(8000);
    open_files::raise();
    let listener =
        TcpListener::bind((host, port)).await.with_context(|| format!("cannot listen on {host}:{port}")).world()?;
    let address = listener.local_addr().context("cannot read the address that was bound")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    say(&format!("simulated vLLM serves {name} on http://{address} ({pace})"))?;
    sim::serve(simulation(pace, name, env), listener, async move {
        tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
    })
    .await
}

/// The simulated server of a model, whose tokenizer counts prompts where it is on this machine.
fn simulation(pace: Pace, model: impl Into<String>, env: &Environment) -> Simulation {
    let model = model.into();
    let model_folder = find_tokenizer(&model, env);
    Simulation { model_folder, ..Simulation::new(pace, model) }
}

fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write to standard output")
}

/// The words after a subcommand. vLLM has hundreds of flags; the simulation asks for the few that it heeds.
pub struct Flags {
    first: Option<String>,
    named: Vec<(String, Option<String>)>,
}

impl Flags {
    /// Reads `--name value`, `--name=value` and `--name`, with `-` and `_` alike, and a first word that is no flag.
    pub fn read(words: &[&str]) -> Self {
        let mut named: Vec<(String, Option<String>)> = Vec::new();
        for word in words {
            if let Some(flag) = word.strip_prefix("--") {
                let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
                named.push((name.replace('_', "-"), value.map(str::to_owned)));
            } else if let Some((_, value @ None)) = named.last_mut() {
                *value = Some((*word).to_owned());
            }
        }
        let first = words.first().filter(|word| !word.starts_with('-')).map(|word| (*word).to_owned());
        Self { first, named }
    }

    /// The value of a flag; the last one wins.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.named.iter().rev().find(|(flag, _)| flag == name).and_then(|(_, value)| value.as_deref())
    }

    /// The value of a flag, parsed.
    ///
    /// # Errors
    /// The value is not a `T`.
    pub fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        self.get(name)
            .map(|value| value.parse().ok().with_context(|| format!("`--{name} {value}`: not a number in range")))
            .transpose()
    }

    /// The model: the first word, or `--model`.
    ///
    /// # Errors
    /// There is neither.
    pub fn model(&self) -> Result<&str> {
        self.first.as_deref().or_else(|| self.get("model")).context("no model: give its name, or --model NAME")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_in_every_spelling_and_the_last_one_wins() {
        let words = "org/model --max_num_seqs 256 --trust-remote-code --port=81 --max-num-seqs 4 --enforce-eager";
        let flags = Flags::read(&words.split(' ').collect::<Vec<_>>());
        assert_eq!(flags.model().unwrap(), "org/model");
        assert_eq!(flags.parsed::<usize>("max-num-seqs").unwrap(), Some(4));
        assert_eq!(flags.get("port"), Some("81"));
        assert_eq!(flags.get("trust-remote-code"), None);
        assert_eq!(flags.get("host"), None);
    }

    #[test]
    fn the_pace_comes_from_the_environment_and_the_flag_wins() {
        let env: Environment = [(PACE_VARIABLE, "itl=5ms,max-num-seqs=8")].into_iter().collect();
        assert_eq!(pace(&env, &Flags::read(&[])).unwrap().max_num_seqs, 8);
        assert_eq!(pace(&env, &Flags::read(&["--max-num-seqs", "1"])).unwrap().max_num_seqs, 1);
        assert!(pace(&env, &Flags::read(&["--max-num-seqs", "0"])).is_err());
    }

    #[tokio::test]
    async fn a_command_that_is_not_simulated_is_the_users_mistake() {
        let error = run(vec!["chat".to_owned()], &Environment::default()).await.unwrap_err();
        assert_eq!(crate::exit::of(&error), crate::exit::Exit::Mistake);
        assert!(error.to_string().starts_with("`vllm chat` is not simulated"), "{error}");
    }
}
