//! Arguments of `vllm-perf compare`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use vllm_verdict::capacity::Statistic;

use super::{DeviceChoice, Format, device_choice};

/// `vllm-perf compare`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  vllm-perf compare vllm-perf-out/base vllm-perf-out/head")]
pub struct CompareArgs {
    /// Output folder, results folder (01/ 02/ ... in it are repetitions), or upstream's benchmark_results.json
    #[arg(value_name = "BASE")]
    pub base: PathBuf,
    /// The same, of head; without it BASE is a benchmark_results.json, split by its parallel layouts
    #[arg(value_name = "HEAD")]
    pub head: Option<PathBuf>,
    /// Store with the noise of A/A runs: a folder, file:///, s3://, gs:// or az:// [default: the config's]
    #[arg(long, env = "VLLM_PERF_NOISE", value_name = "STORE")]
    pub noise: Option<String>,
    /// What was measured on, for --noise [default: what the output folder's plan says]
    #[arg(long, env = "VLLM_PERF_DEVICE", value_name = "NAME", default_value = "auto", hide_default_value = true, value_parser = device_choice)]
    pub device: DeviceChoice,
    /// Its device type, e.g. `NVIDIA H100`
    #[arg(long, env = "VLLM_PERF_DEVICE_TYPE", value_name = "TYPE")]
    pub device_type: Option<String>,
    /// Show the largest concurrency with at most this TTFT (ms)
    #[arg(long, env = "VLLM_PERF_TTFT_MAX_MS", value_name = "MS", value_parser = limit)]
    pub ttft_max_ms: Option<f64>,
    /// Show the largest concurrency with at most this TPOT (ms)
    #[arg(long, env = "VLLM_PERF_TPOT_MAX_MS", value_name = "MS", value_parser = limit)]
    pub tpot_max_ms: Option<f64>,
    /// Slack above these limits (percent)
    #[arg(long, env = "VLLM_PERF_SLA_SLACK", value_name = "PERCENT", default_value_t = 5.0, value_parser = slack)]
    pub sla_slack: f64,
    /// What is held against these limits: p99 or median
    #[arg(long, env = "VLLM_PERF_SLA_STATISTIC", default_value = "p99", hide_possible_values = true, value_parser = statistics())]
    pub sla_statistic: Statistic,
    /// text or json
    #[arg(long, env = "VLLM_PERF_FORMAT", value_enum, default_value = "text", hide_possible_values = true)]
    pub format: Format,
    /// Write comparison.json, comment.md, summary.md, annotation.md and report.html into this folder
    #[arg(long, env = "VLLM_PERF_COMPARE_OUT", value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Config file, in place of vllm-perf.yml
    #[arg(long, env = "VLLM_PERF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

fn limit(text: &str) -> Result<f64, String> {
    number(text).filter(|value| *value > 0.0).ok_or_else(|| "expected a number of milliseconds above 0".to_owned())
}

fn slack(text: &str) -> Result<f64, String> {
    let percent = number(text.trim_end_matches('%').trim_end());
    percent.filter(|value| *value >= 0.0).ok_or_else(|| "expected a percentage of 0 or more, such as `5`".to_owned())
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

fn statistics() -> impl TypedValueParser<Value = Statistic> {
    PossibleValuesParser::new(Statistic::ALL.map(Statistic::as_str)).try_map(|text| text.parse::<Statistic>())
}
