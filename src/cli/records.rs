//! Arguments of `vllm-perf records`.

use std::path::PathBuf;

use clap::Args;

use super::{DeviceArgs, EventArgs};

/// `vllm-perf records`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf records results/ --repository vllm-project/vllm --branch main --commit \"$(git rev-parse HEAD)\" \\\n    --workflow-id 20362340534 --job-id 58585533990 --device cpu"
)]
pub struct RecordsArgs {
    /// Results folder, ours or upstream's
    #[arg(value_name = "RESULTS")]
    pub results: PathBuf,
    /// Where the event comes from.
    #[command(flatten)]
    pub event: EventArgs,
    /// OWNER/NAME, in place of the event's
    #[arg(long, env = "VLLM_PERF_REPOSITORY", value_name = "NAME")]
    pub repository: Option<String>,
    /// Branch, in place of the event's
    #[arg(long, env = "VLLM_PERF_BRANCH", value_name = "NAME")]
    pub branch: Option<String>,
    /// Full commit hash, in place of the event's
    #[arg(long, env = "VLLM_PERF_COMMIT", value_name = "HASH")]
    pub commit: Option<String>,
    /// Date of the commit, in place of what git says (seconds since 1970)
    #[arg(long, env = "VLLM_PERF_TIMESTAMP", value_name = "SECONDS")]
    pub timestamp: Option<u64>,
    /// The CI run, a number that grows, in place of GITHUB_RUN_ID
    #[arg(long, env = "VLLM_PERF_WORKFLOW_ID", value_name = "N")]
    pub workflow_id: Option<u64>,
    /// The job of the run (number)
    #[arg(long, env = "VLLM_PERF_JOB_ID", value_name = "N")]
    pub job_id: Option<u64>,
    /// Which try of the run, in place of GITHUB_RUN_ATTEMPT (number)
    #[arg(long, env = "VLLM_PERF_RUN_ATTEMPT", value_name = "N")]
    pub run_attempt: Option<u32>,
    /// What it was measured on.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// File for all records, in place of standard output
    #[arg(long, env = "VLLM_PERF_RECORDS_OUTPUT", value_name = "FILE")]
    pub output: Option<PathBuf>,
}
