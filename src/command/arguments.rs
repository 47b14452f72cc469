//! The command line: what can be typed. What each command does is decided in its own file.

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
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
    before_help = "Example:\n  vllm-perf run --suite example --base sim:itl=10ms --head sim:itl=12ms"
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

/// The definition for `-h`, whose text fits a screen: without the variables of the flags.
fn brief(command: clap::Command) -> clap::Command {
    let more = "`--help` has every flag with its variable.";
    let after = match command.get_after_help() {
        Some(text) => format!("{text}\n\n{more}"),
        None => more.to_owned(),
    };
    command.mut_args(|argument| argument.hide_env(true)).after_help(after).mut_subcommands(brief)
}

/// Parses `words` (the program's name first).
///
/// # Errors
/// Usage errors, and the texts of `-h`, `--help` and `--version`.
pub fn parse(words: &[String], environment: &Environment) -> Result<Cli, clap::Error> {
    let definition = definition(environment);
    let is_brief = words.iter().any(|word| word == "-h");
    let definition = if is_brief { brief(definition) } else { definition };
    let matches = definition.clone().try_get_matches_from(words).map_err(|error| {
        match variable_of(&error, words, &definition, environment) {
            Some(variable) => with_variable(&variable, &error),
            None => error,
        }
    })?;
    Cli::from_arg_matches(&matches)
}

/// A usage error as one line: what is wrong, and the tip. For a command alone it is its help.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return text;
    }
    let is_end = |line: &&str| line.starts_with("Usage:") || line.starts_with("For more information");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.into_iter().take_while(|line| !is_end(line)).collect::<Vec<_>>().join(" ").replace(" tip: ", "; ")
}

/// The variable that a wrong value is from, where the flag was not typed.
fn variable_of(
    error: &clap::Error,
    words: &[String],
    definition: &clap::Command,
    environment: &Environment,
) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = argument.split_whitespace().next()?;
    let is_typed = words.iter().any(|word| word.split('=').next() == Some(flag));
    let mut command = definition;
    while let Some(inner) = words.iter().skip(1).find_map(|word| command.find_subcommand(word)) {
        command = inner;
    }
    let found = command.get_arguments().find(|it| it.get_long() == flag.strip_prefix("--"))?;
    let variable = found.get_env()?.to_str()?;
    (!is_typed && environment.get(variable).is_some()).then(|| variable.to_owned())
}

/// The first sentence of an error, with the variable.
fn with_variable(variable: &str, error: &clap::Error) -> clap::Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    clap::Error::raw(error.kind(), format!("{first} (from the variable {variable})\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of all commands that people call, as words.
    fn commands(command: &clap::Command, before: &[String]) -> Vec<Vec<String>> {
        let mut all = vec![before.to_vec()];
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            all.extend(commands(inner, &[before, &[inner.get_name().to_owned()]].concat()));
        }
        all
    }

    fn help(words: &[String], flag: &str) -> String {
        let words = [words, &[flag.to_owned()]].concat();
        parse(&words, &Environment::default()).unwrap_err().to_string()
    }

    #[test]
    fn the_short_help_of_every_command_fits_a_screen_and_the_long_one_has_every_variable() {
        let definition = definition(&Environment::default());
        let all = commands(&definition, &["vllm-perf".to_owned()]);
        assert!(all.len() > 15, "{all:?}");
        for words in all {
            let (short, long) = (help(&words, "-h"), help(&words, "--help"));
            assert!(short.lines().count() <= 40, "{words:?}: {} lines\n{short}", short.lines().count());
            assert!(!short.contains("[env:"), "{short}");
            let command = words[1..].iter().fold(&definition, |command, name| command.find_subcommand(name).unwrap());
            for variable in command.get_arguments().filter_map(|it| it.get_env()?.to_str()) {
                assert!(
                    long.replace(char::is_whitespace, "").contains(&format!("[env:{variable}")),
                    "{variable}\n{long}"
                );
            }
        }
    }

    #[test]
    fn a_usage_error_is_one_line_with_its_tip() {
        let error = |words: &str| {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            one_line(&parse(&words, &Environment::default()).unwrap_err())
        };
        insta::assert_snapshot!(error("vllm-perf run --hed sim"), @"error: unexpected argument '--hed' found; a similar argument exists: '--head'");
        insta::assert_snapshot!(error("vllm-perf run --pairs 0"), @"error: invalid value '0' for '--pairs <N>': 0 is not in 1..=10");
        insta::assert_snapshot!(error("vllm-perf frobnicate"), @"error: unrecognized subcommand 'frobnicate'; a similar subcommand exists: 'calibrate'");
        insta::assert_snapshot!(error("vllm-perf dashboard"), @"error: the following required arguments were not provided: --store <STORE>");
        assert!(error("vllm-perf").lines().count() > 10);
    }

    #[test]
    fn a_wrong_value_of_a_variable_names_the_variable() {
        let environment: Environment = [("VLLM_PERF_PAIRS", "many")].into_iter().collect();
        let error = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let definition = definition(&environment);
            let error = definition.clone().try_get_matches_from(&words).unwrap_err();
            variable_of(&error, &words, &definition, &environment)
                .map_or_else(|| error.to_string(), |variable| with_variable(&variable, &error).to_string())
        };
        // clap reads the variables of the process; the flag stands for the variable here.
        assert!(error(&["vllm-perf", "run", "--pairs=0"]).starts_with("error: invalid value '0' for '--pairs <N>'"));
        let raw = clap::Error::raw(
            clap::error::ErrorKind::InvalidValue,
            "invalid value 'many' for '--pairs <N>': x\n\nMore\n",
        );
        insta::assert_snapshot!(with_variable("VLLM_PERF_PAIRS", &raw), @"error: invalid value 'many' for '--pairs <N>': x (from the variable VLLM_PERF_PAIRS)");
    }

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
