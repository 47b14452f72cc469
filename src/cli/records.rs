//! Arguments of `vllm-perf records`.

use std::path::PathBuf;

use clap::Args;

use super::{DeviceArgs, EventArgs};

/// `vllm-perf records`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf records results/ --repository vllm-project/vllm --branch main --commit \"$(git rev-parse HEAD)\" \\\n    --workflow-id 20362340534 --job-id 58585533990 --device cpu\n\n  vllm-perf records data.js --store file:///srv/vllm-perf --device cpu --device-type AMD_EPYC_9654_96c --model opt-125m",
    after_help = "A data.js is github-action-benchmark's. Of its benches, those whose name holds a metric of the dashboard (median_ttft_ms, \"Median TTFT\", p99_tpot, tokens_per_second, latency ...) become records; tp2, qps_4, concurrency_8 and random_128_16 in the rest of the name become parameters. The others are named. A run's number is the date of the measurement."
)]
pub struct RecordsArgs {
    /// Results folder, ours or upstream's, or a data.js
    #[arg(value_name = "RESULTS")]
    pub results: PathBuf,
    /// Where the event comes from.
    #[command(flatten)]
    pub event: EventArgs,
    /// Whose records they are.
    #[command(flatten)]
    pub identity: IdentityArgs,
    /// What it was measured on.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Model of a data.js, in place of the name of each suite in it
    #[arg(long, env = "VLLM_PERF_MODEL", value_name = "NAME")]
    pub model: Option<String>,
    /// Store that they are added to, in place of standard output: a folder, file:///, s3://, gs:// or az://
    #[arg(long, env = "VLLM_PERF_RECORDS_STORE", value_name = "STORE", conflicts_with = "output")]
    pub store: Option<String>,
    /// File for all records, in place of standard output
    #[arg(long, env = "VLLM_PERF_RECORDS_OUTPUT", value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Config file, in place of vllm-perf.yml
    #[arg(long, env = "VLLM_PERF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Whose records they are, where CI does not say or says otherwise.
#[derive(Debug, Default, Args)]
pub struct IdentityArgs {
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
}
