//! Arguments of `vllm-perf calibrate`.

use clap::Args;

use super::{Planning, Timeouts};

/// `vllm-perf calibrate`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf calibrate --suite examples/suite --device cpu --head sim:itl=10ms --store noise --budget 2h"
)]
pub struct CalibrateArgs {
    /// What to plan.
    #[command(flatten)]
    pub planning: Planning,
    /// How long things may take.
    #[command(flatten)]
    pub timeouts: Timeouts,
    /// Relative standard error of each primary row's noise at which it is known (percent)
    #[arg(
        long,
        env = "VLLM_PERF_PRECISION",
        value_name = "PERCENT",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=50)
    )]
    pub precision: u32,
}
