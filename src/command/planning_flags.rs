//! Flags of every command that makes a plan. `prepare` turns them into one.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use vllm_verdict::strategy::Strategy;

use crate::command::event_flags::EventArgs;
use crate::command::shared_flags::{DeviceArgs, limit};
use crate::plan::config::CommitSides;
use crate::plan::tier::TierName;

/// Flags of every command that makes a plan, in the order of `--help`.
#[derive(Debug, Args)]
pub struct Planning {
    /// The CI event.
    #[command(flatten)]
    pub event: EventArgs,
    /// A label, for local runs; repeatable
    #[arg(hide_short_help = true, long = "label", env = "VLLM_PERF_LABEL", value_name = "NAME", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Base and head.
    #[command(flatten)]
    pub sides: SideArgs,
    /// Folder of test files, a recipe of perf-eval (.yaml) or a folder of them, or `example`, which is built in
    #[arg(long, env = "VLLM_PERF_SUITE", value_name = "DIR")]
    pub suite: Option<PathBuf>,
    /// The device to measure on.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Only the cases whose name matches
    #[arg(long, env = "VLLM_PERF_ONLY", value_name = "REGEX")]
    pub only: Option<String>,
    /// How the runs are arranged.
    #[command(flatten)]
    pub runs: RunsArgs,
    /// Client that measures serving cases: auto, native, vllm or vllm-rs
    #[arg(long, env = "VLLM_PERF_CLIENT", value_enum, default_value = "auto", hide_possible_values = true)]
    pub client: Client,
    /// Output folder
    #[arg(long, env = "VLLM_PERF_OUT", value_name = "DIR", default_value = "vllm-perf-out")]
    pub out: PathBuf,
    /// Where the noise of A/A runs is kept and read, in place of the config's: a folder, file:///, s3://, gs:// or az://
    #[arg(long, env = "VLLM_PERF_STORE", value_name = "STORE")]
    pub store: Option<String>,
    /// Config file, in place of vllm-perf.yml
    #[arg(long, env = "VLLM_PERF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What is compared.
#[derive(Debug, Args)]
pub struct SideArgs {
    /// Base: a full commit, a branch, a target, results:DIR (output folder of an earlier run), or `none`
    #[arg(long, env = "VLLM_PERF_BASE", value_name = "SIDE")]
    pub base: Option<String>,
    /// Head: a full commit, or image:REF, wheel:COMMIT, local[:PATH], remote:URL, sim[:key=value,...]
    #[arg(long, env = "VLLM_PERF_HEAD", value_name = "SIDE")]
    pub head: Option<String>,
    /// What a commit is measured as, in place of the config's: auto, image or wheel
    #[arg(
        hide_short_help = true,
        long,
        env = "VLLM_PERF_SIDES",
        value_enum,
        value_name = "KIND",
        hide_possible_values = true
    )]
    pub sides: Option<CommitSides>,
    /// Arguments appended to base's server command
    #[arg(
        hide_short_help = true,
        long,
        env = "VLLM_PERF_BASE_SERVER_ARGS",
        value_name = "WORDS",
        allow_hyphen_values = true
    )]
    pub base_server_args: Option<String>,
    /// Arguments appended to head's server command
    #[arg(
        hide_short_help = true,
        long,
        env = "VLLM_PERF_HEAD_SERVER_ARGS",
        value_name = "WORDS",
        allow_hyphen_values = true
    )]
    pub head_server_args: Option<String>,
}

/// How the runs are arranged.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// paired, screen, sequential or single; default: paired where there is a base
    #[arg(long, env = "VLLM_PERF_STRATEGY", value_name = "HOW", hide_possible_values = true, value_parser = strategies())]
    pub strategy: Option<Strategy>,
    /// Repetitions per side, interleaved; sequential: at most (number, 1 to 10; default: 5, sequential: 10)
    #[arg(long, env = "VLLM_PERF_PAIRS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10))]
    pub pairs: Option<u32>,
    /// Part of the suite, and its time: pr or full (default: by the event)
    #[arg(long, env = "VLLM_PERF_TIER", value_enum, value_name = "TIER", hide_possible_values = true)]
    pub tier: Option<TierName>,
    /// Start no further pair that would end after this time (45s, 90m, 2h)
    #[arg(long, env = "VLLM_PERF_BUDGET", value_name = "TIME", value_parser = limit)]
    pub budget: Option<Duration>,
    /// Who is first in odd pairs: base if the seed is even, else head (number; default: from the head commit)
    #[arg(hide_short_help = true, long, env = "VLLM_PERF_SEED", value_name = "N")]
    pub seed: Option<u64>,
}

/// Which program measures serving cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// The native client where it can, else vLLM's.
    Auto,
    /// The native client, or not at all.
    Native,
    /// `vllm bench serve`.
    Vllm,
    /// vLLM's Rust client.
    VllmRs,
}

fn strategies() -> impl TypedValueParser<Value = Strategy> {
    PossibleValuesParser::new(Strategy::ALL.map(Strategy::as_str)).try_map(|text| text.parse::<Strategy>())
}
