//! Arguments: what can be typed. What it means is decided elsewhere.

pub mod calibrate;
mod compare;
mod dashboard;
mod load;
pub mod matrix;
mod planning;
pub mod records;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, Resettable};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use vllm_verdict::v1::{DeviceName, Provider};

use crate::duration;
use crate::environment::Environment;
use crate::publish::CommentFailure;

pub use compare::CompareArgs;
pub use dashboard::DashboardArgs;
pub use load::{BenchCommand, SimServerArgs};
pub use planning::{DeviceArgs, Planning};
pub use records::RecordsArgs;

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
    Calibrate(Box<calibrate::CalibrateArgs>),
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
    Matrix(Box<matrix::MatrixArgs>),
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

fn span(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| format!("{error:#}"))
}

/// A device that was named, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceChoice(pub Option<DeviceName>);

fn device_choice(text: &str) -> Result<DeviceChoice, String> {
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

/// `vllm-perf plan`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf plan --suite examples/suite --device cpu --base sim --head sim:itl=12ms"
)]
pub struct PlanArgs {
    /// What to plan.
    #[command(flatten)]
    pub planning: Planning,
    /// text or json
    #[arg(long, env = "VLLM_PERF_FORMAT", value_enum, default_value = "text", hide_possible_values = true)]
    pub format: Format,
    /// Ask the registry whether the images are there
    #[arg(long, env = "VLLM_PERF_CHECK_IMAGES", value_parser = BoolishValueParser::new())]
    pub check_images: bool,
    /// Ask GitHub's API for the labels of now (needs GITHUB_TOKEN)
    #[arg(long, env = "VLLM_PERF_FETCH_LABELS", value_parser = BoolishValueParser::new())]
    pub fetch_labels: bool,
}

/// `vllm-perf run`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf run --suite examples/suite --device cpu --base sim:itl=10ms --head sim:itl=12ms"
)]
pub struct RunArgs {
    /// What to plan.
    #[command(flatten)]
    pub planning: Planning,
    /// Print the plan and stop
    #[arg(long, env = "VLLM_PERF_DRY_RUN", value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
    /// Go on where an interrupted run of the same output folder ended
    #[arg(long, env = "VLLM_PERF_RESUME", value_parser = BoolishValueParser::new())]
    pub resume: bool,
    /// Where base's image is missing, take one of so many commits before it (number, 0 to 99)
    #[arg(long, env = "VLLM_PERF_BASE_FALLBACK", value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=99))]
    pub base_fallback: u32,
    /// How long things may take.
    #[command(flatten)]
    pub timeouts: Timeouts,
}

/// How long things may take.
#[derive(Debug, Args)]
pub struct Timeouts {
    /// How long a server may take to answer /v1/models (45s, 20m)
    #[arg(long, env = "VLLM_PERF_SERVER_TIMEOUT", value_name = "TIME", default_value = "1200s", value_parser = span)]
    pub server_timeout: Duration,
    /// How long one case may take (90s, 60m)
    #[arg(long, env = "VLLM_PERF_CASE_TIMEOUT", value_name = "TIME", default_value = "60m", value_parser = span)]
    pub case_timeout: Duration,
    /// How long to wait for an image that is not there yet, in place of the config's (0s, 90m)
    #[arg(long, env = "VLLM_PERF_WAIT", value_name = "TIME", value_parser = span)]
    pub wait: Option<Duration>,
}

/// `vllm-perf publish`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  vllm-perf publish vllm-perf-out")]
pub struct PublishArgs {
    /// Output folder of a run; read strictly, never executed
    #[arg(env = "VLLM_PERF_OUT", value_name = "OUT", default_value = "vllm-perf-out")]
    pub out: PathBuf,
    /// What happened.
    #[command(flatten)]
    pub event: EventArgs,
    /// Page of the uploaded artifact, to link
    #[arg(long, env = "VLLM_PERF_ARTIFACT_URL", value_name = "URL")]
    pub artifact_url: Option<String>,
    /// Store for the records of main, in place of the config's: a folder, file:///, s3://, gs:// or az://
    #[arg(long, env = "VLLM_PERF_STORE", value_name = "STORE")]
    pub store: Option<String>,
    /// API that takes the records in place of a store (VLLM_PERF_UPLOADER_USERNAME and _PASSWORD are its credentials)
    #[arg(long, env = "VLLM_PERF_UPLOADER", value_name = "URL")]
    pub uploader: Option<String>,
    /// Upload the records that did not arrive before, and do nothing else
    #[arg(long, env = "VLLM_PERF_RETRY", value_parser = BoolishValueParser::new())]
    pub retry: bool,
    /// Config file, in place of vllm-perf.yml
    #[arg(long, env = "VLLM_PERF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// warn or error, where the comment cannot be written
    #[arg(
        long,
        env = "VLLM_PERF_COMMENT_FAILURE",
        value_enum,
        default_value = "warn",
        value_name = "HOW",
        hide_possible_values = true
    )]
    pub comment_failure: CommentFailure,
}

/// Which verdict fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Exit 1 when a primary row regressed.
    Regressed,
    /// Exit 1 unless everything is known to be no worse.
    Inconclusive,
    /// Always exit 0.
    Never,
}

/// `vllm-perf verdict`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  vllm-perf verdict vllm-perf-out --fail-on regressed")]
pub struct VerdictArgs {
    /// Output folder of a run
    #[arg(env = "VLLM_PERF_OUT", value_name = "OUT", default_value = "vllm-perf-out")]
    pub out: PathBuf,
    /// regressed, inconclusive (also fails on regressed and not measured) or never
    #[arg(
        long,
        env = "VLLM_PERF_FAIL_ON",
        value_enum,
        default_value = "regressed",
        value_name = "VERDICT",
        hide_possible_values = true
    )]
    pub fail_on: FailOn,
    /// text or json
    #[arg(long, env = "VLLM_PERF_FORMAT", value_enum, default_value = "text", hide_possible_values = true)]
    pub format: Format,
}

/// `vllm-perf report`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  vllm-perf report results/")]
pub struct ReportArgs {
    /// Results folder, ours or upstream's; the files are written into it
    #[arg(value_name = "RESULTS")]
    pub results: PathBuf,
}

/// `vllm-perf config ...`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the settings in force and where each came from
    #[command(before_help = "Example:\n  vllm-perf config show --format json")]
    Show {
        /// Flags whose effect to show.
        #[command(flatten)]
        planning: Box<Planning>,
        /// text or json
        #[arg(long, env = "VLLM_PERF_FORMAT", value_enum, default_value = "text", hide_possible_values = true)]
        format: Format,
    },
    /// Print the JSON Schema of the config file
    #[command(before_help = "Example:\n  vllm-perf config schema > vllm-perf.schema.json")]
    Schema,
    /// Check a config file
    #[command(before_help = "Example:\n  vllm-perf config check .github/vllm-perf.yml")]
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
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
