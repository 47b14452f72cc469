//! Arguments of `vllm-perf dashboard`.

use std::path::PathBuf;

use clap::Args;

/// `vllm-perf dashboard`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  vllm-perf dashboard --store file:///srv/vllm-perf --out site")]
pub struct DashboardArgs {
    /// Where the records are: a folder, file:///FOLDER, s3://BUCKET/PREFIX, gs:// or az://
    #[arg(long, env = "VLLM_PERF_STORE", value_name = "STORE")]
    pub store: String,
    /// Folder of the site; what is there of an earlier build is brought up to date
    #[arg(long, env = "VLLM_PERF_DASHBOARD_OUT", value_name = "DIR", default_value = "vllm-perf-site")]
    pub out: PathBuf,
    /// Branch whose commits are shown
    #[arg(long, env = "VLLM_PERF_BRANCH", value_name = "NAME", default_value = "main")]
    pub branch: String,
    /// OWNER/NAME; needed where the store has records of more than one
    #[arg(long, env = "VLLM_PERF_REPOSITORY", value_name = "NAME")]
    pub repository: Option<String>,
    /// Page of a CI run, to link, with {id} for its number
    #[arg(long, env = "VLLM_PERF_RUN_URL", value_name = "URL")]
    pub run_url: Option<String>,
}
