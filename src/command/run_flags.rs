//! Time limits of the commands that measure.

use std::time::Duration;

use clap::Args;

use crate::command::shared_flags::{limit, span};
use crate::plan::config::Config;
use crate::run::session::Limits;

/// Default of `--server-timeout`.
pub const SERVER_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Default of `--case-timeout`.
pub const CASE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Time limits of a run.
#[derive(Debug, Args)]
pub struct Timeouts {
    /// How long a server may take to answer /v1/models (45s, 20m)
    #[arg(long, env = "VLLM_PERF_SERVER_TIMEOUT", value_name = "TIME", default_value = "20m", value_parser = limit)]
    pub server_timeout: Duration,
    /// How long one case may take (90s, 60m)
    #[arg(long, env = "VLLM_PERF_CASE_TIMEOUT", value_name = "TIME", default_value = "60m", value_parser = limit)]
    pub case_timeout: Duration,
    /// How long to wait for an image or a wheel that does not exist yet, in place of the config's (0s, 90m)
    #[arg(long, env = "VLLM_PERF_WAIT", value_name = "TIME", value_parser = span)]
    pub wait: Option<Duration>,
}

impl Timeouts {
    /// The limits of a run with a budget.
    pub fn limits(&self, budget: Option<Duration>, config: &Config) -> Limits {
        Limits {
            server: self.server_timeout,
            case: self.case_timeout,
            budget,
            outside_load: config.environment.max_outside_load,
            distortion: config.environment.max_distortion,
        }
    }
}
