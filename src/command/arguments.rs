//! The command line: what can be typed. What each command does is decided in its own file.

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::command::calibrate_command::CalibrateArgs;
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
use crate::environment::Environment;

/// Continuous performance benchmarking for vLLM: what regressed, and with what confidence.
#[derive(Debug, Parser)]
#[command(
    name = "vllm-perf",
    version,
    disable_help_subcommand = true,
    before_help = "Example:\n  vllm-perf run --suite examples/suite --device cpu --base sim:itl=10ms --head sim:itl=12ms"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the decision, the device, the images, the cases and the exact commands; start nothing
    Plan(Box<PlanArgs>),
    /// Plan, wait for the images, benchmark base and head, compare; write the output folder
    Run(Box<RunArgs>),
    /// Measure head against itself until the noise of every primary row is known
    Calibrate(Box<CalibrateArgs>),
    /// Publish the comment, job summary or annotation, and the records of main, from an output folder
    Publish(PublishArgs),
    /// Print the verdict of an output folder; the exit code depends on it (the last step in CI)
    Verdict(VerdictArgs),
    /// Compare existing results
    Compare(CompareArgs),
    /// Write benchmark_results.md, benchmark_results.json and report.html from a results folder
    Report(ReportArgs),
    /// Print dashboard records from a results folder
    Records(Box<RecordsArgs>),
    /// Build a static site from a store, and list the newest changes as alarms
    Dashboard(DashboardArgs),
    /// Print the CI matrix: GitHub JSON or a Buildkite pipeline
    Matrix(Box<MatrixArgs>),
    /// Show the settings, print their schema, or check a config file
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
    /// Print the prompts of a load as JSON lines, within a limit of memory; the load client runs it
    #[command(hide = true, name = "prompts")]
    Prompts(WordsArgs),
    /// Run a command and terminate its processes when this process or its parent ends; targets run under it
    #[command(hide = true)]
    Guard(GuardArgs),
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
    /// Folders that are removed at the end where the starter is gone
    #[arg(long)]
    pub remove: Vec<std::path::PathBuf>,
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
    fn the_definition_is_consistent() {
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
