//! Arguments of `vllm-perf matrix`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::EventArgs;

/// `vllm-perf matrix`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf matrix --format github --suite examples/suite --config examples/matrix.yml\n\n  vllm-perf matrix --format buildkite --unbenchmarked 100 | buildkite-agent pipeline upload --no-interpolation",
    after_help = "The runners of each device and size, and what is skipped, are `matrix` in vllm-perf.yml. A job measures one model: set\nMODEL_FILTER to it. An event that is not benchmarked has no jobs, and the reason is on standard error."
)]
pub struct MatrixArgs {
    /// github (one line of JSON for `strategy.matrix`) or buildkite (a pipeline to upload)
    #[arg(long, env = "VLLM_PERF_MATRIX_FORMAT", value_enum, value_name = "FORMAT", hide_possible_values = true)]
    pub format: MatrixFormat,
    /// What happened.
    #[command(flatten)]
    pub event: EventArgs,
    /// A label, for local runs; repeatable
    #[arg(long = "label", env = "VLLM_PERF_LABEL", value_name = "NAME", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Folder of the test files, or of a folder of them for each device
    #[arg(long, env = "VLLM_PERF_SUITE", value_name = "DIR")]
    pub suite: Option<PathBuf>,
    /// Only this model; repeatable
    #[arg(long = "model", env = "VLLM_PERF_MATRIX_MODELS", value_name = "NAME", value_delimiter = ',')]
    pub models: Vec<String>,
    /// Only runners with this in their name; repeatable
    #[arg(long = "runner", env = "VLLM_PERF_MATRIX_RUNNERS", value_name = "PART", value_delimiter = ',')]
    pub runners: Vec<String>,
    /// For each job the newest of so many commits of the branch with an image and no records (number, 1 to 100)
    #[arg(long, env = "VLLM_PERF_UNBENCHMARKED", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub unbenchmarked: Option<u32>,
    /// Where to look for records, in place of the config's: a folder, file:///, s3://, gs:// or az://
    #[arg(long, env = "VLLM_PERF_STORE", value_name = "STORE")]
    pub store: Option<String>,
    /// OWNER/NAME of the records, in place of the event's
    #[arg(long, env = "VLLM_PERF_REPOSITORY", value_name = "NAME")]
    pub repository: Option<String>,
    /// Branch of the records and the commits
    #[arg(long, env = "VLLM_PERF_BRANCH", value_name = "NAME", default_value = "main")]
    pub branch: String,
    /// Buildkite: the plugin of the steps
    #[arg(long, env = "VLLM_PERF_MATRIX_PLUGIN", value_name = "PLUGIN", default_value = PLUGIN)]
    pub plugin: String,
    /// Buildkite: an option that every step gives to the plugin; repeatable
    #[arg(long = "option", env = "VLLM_PERF_MATRIX_OPTIONS", value_name = "NAME=VALUE", value_delimiter = ',')]
    pub options: Vec<String>,
    /// Config file, in place of vllm-perf.yml
    #[arg(long, env = "VLLM_PERF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The plugin at this program's version.
const PLUGIN: &str = concat!("vllm-project/vllm-perf#v", env!("CARGO_PKG_VERSION"));

/// Whose matrix it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MatrixFormat {
    /// For `strategy.matrix`.
    Github,
    /// For `buildkite-agent pipeline upload`.
    Buildkite,
}
