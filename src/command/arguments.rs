//! Arguments: what can be typed. What it means is decided elsewhere.

use crate::command::calibrate_command;
use crate::command::compare_command::CompareArgs;
use crate::command::config_command::ConfigCommand;
use crate::command::dashboard_command::DashboardArgs;
use crate::command::matrix_command::MatrixArgs;
use crate::command::plan_command::PlanArgs;
use crate::command::publish_command::PublishArgs;
use crate::command::records_command::RecordsArgs;
use crate::command::report_command::ReportArgs;
use crate::command::run_command::RunArgs;
use crate::command::serve_command::BenchCommand;
use crate::command::sim_server_command::SimServerArgs;
use crate::command::verdict_command::VerdictArgs;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use vllm_verdict::v1::{DeviceName, Provider};

use crate::duration;
use crate::environment::Environment;

/// Continuous performance benchmarking for vLLM: what regressed, and how sure that is.
#[derive(Debug, Parser)]
#[command(
    name = "vllm-perf",
    version,
    disable_help_subcommand = true,
    before_help = "Example:\n  vllm-perf run --suite examples/suite --device cpu --base sim:itl=10ms --head sim:itl=12ms"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the decision, the device, the images, the cases and the exact commands; start nothing
    Plan(Box<PlanArgs>),
    /// Plan, wait for the images, benchmark base and head, compare; write the output folder
    Run(Box<RunArgs>),
    /// Measure head against itself until the noise of every primary row is known
    Calibrate(Box<calibrate_command::CalibrateArgs>),
    /// Comment, job summary or annotation, and the records of main, from an output folder
    Publish(PublishArgs),
    /// Print the verdict of an output folder and exit by it: the last step in CI
    Verdict(VerdictArgs),
    /// Compare what was measured before
    Compare(CompareArgs),
    /// Write benchmark_results.md, benchmark_results.json and report.html from a results folder
    Report(ReportArgs),
    /// Print dashboard records from a results folder
    Records(Box<RecordsArgs>),
    /// Build a static site and the night's alarms from a store
    Dashboard(DashboardArgs),
    /// Print the CI matrix: GitHub JSON or a Buildkite pipeline
    Matrix(Box<MatrixArgs>),
    /// Show or check the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The load client alone
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Serve the simulated vLLM on a loopback port
    SimServer(SimServerArgs),
    /// The simulated vLLM as an executable; the `sim` target runs it
    #[command(hide = true)]
    SimVllm(WordsArgs),
    /// Run a command so that nothing of it outlives whoever started it; targets run under it
    #[command(hide = true)]
    Guard(GuardArgs),
}

/// How a value is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Which program measures serving cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// Our own where it can, else vLLM's.
    Auto,
    /// Our own, or not at all.
    Native,
    /// `vllm bench serve`.
    Vllm,
}

/// Where the event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProviderChoice {
    /// Find out.
    Auto,
    /// GitHub Actions.
    Github,
    /// Buildkite.
    Buildkite,
    /// No CI: flags alone.
    Local,
}

impl ProviderChoice {
    /// The provider that was named, if one was.
    pub fn named(self) -> Option<Provider> {
        match self {
            Self::Auto => None,
            Self::Github => Some(Provider::Github),
            Self::Buildkite => Some(Provider::Buildkite),
            Self::Local => Some(Provider::Local),
        }
    }
}

fn device(text: &str) -> Result<Option<DeviceName>, String> {
    if text == "auto" { Ok(None) } else { text.parse().map(Some).map_err(|error| format!("{error:#}")) }
}

pub fn span(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| format!("{error:#}"))
}

/// A device that was named, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceChoice(pub Option<DeviceName>);

pub fn device_choice(text: &str) -> Result<DeviceChoice, String> {
    device(text).map(DeviceChoice)
}

/// Where the event is read.
#[derive(Debug, Args)]
pub struct EventArgs {
    /// Where the event comes from
    #[arg(long, env = "VLLM_PERF_PROVIDER", value_enum, default_value = "auto", hide_possible_values = true)]
    pub provider: ProviderChoice,
    /// Name of the event, in place of GITHUB_EVENT_NAME
    #[arg(long, env = "VLLM_PERF_EVENT_NAME", value_name = "NAME")]
    pub event_name: Option<String>,
    /// Payload of the event, in place of GITHUB_EVENT_PATH
    #[arg(long, env = "VLLM_PERF_EVENT_PATH", value_name = "FILE")]
    pub event_path: Option<PathBuf>,
    /// Name of the environment variable that holds the GitHub token
    #[arg(long, env = "VLLM_PERF_GITHUB_TOKEN_ENV", value_name = "NAME", default_value = "GITHUB_TOKEN")]
    pub github_token_env: String,
}

/// Words for another program.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct WordsArgs {
    /// The words.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
    pub words: Vec<String>,
}

/// `vllm-perf guard`.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Container that the command runs, removed at the end
    #[arg(long)]
    pub container: Option<String>,
    /// The command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub words: Vec<String>,
}

/// The command line as clap sees it. A flag whose variable is set but empty has no value from the environment.
pub fn definition(environment: &Environment) -> clap::Command {
    forget_empty(Cli::command(), environment)
}

fn forget_empty(command: clap::Command, environment: &Environment) -> clap::Command {
    let command = command.mut_args(|argument| {
        let argument = argument.hide_env_values(true);
        let unset = argument
            .get_env()
            .and_then(|name| name.to_str())
            .is_some_and(|name| environment.is_set(name) && environment.get(name).is_none());
        if unset { argument.env(Resettable::Reset) } else { argument }
    });
    command.mut_subcommands(|subcommand| forget_empty(subcommand, environment))
}

/// Parses `words` (the program's name first).
///
/// # Errors
/// Usage errors, and the texts of `--help` and `--version`.
pub fn parse(words: &[String], environment: &Environment) -> Result<Cli, clap::Error> {
    let matches = definition(environment).try_get_matches_from(words)?;
    Cli::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        definition(&Environment::default()).debug_assert();
    }

    #[test]
    fn every_visible_flag_has_an_environment_variable() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments().filter(|argument| argument.get_long().is_some()) {
                let name = argument.get_long().unwrap();
                assert!(
                    argument.get_env().is_some() || ["help", "version"].contains(&name),
                    "{} --{name}",
                    command.get_name()
                );
            }
            command.get_subcommands().filter(|command| !command.is_hide_set()).for_each(check);
        }
        check(&Cli::command());
    }
}
