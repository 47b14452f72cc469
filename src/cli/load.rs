//! Arguments of the commands about load: the simulated server, and the client alone.

use std::path::PathBuf;

use clap::Args;

use crate::sim::fault::Fault;

/// `vllm-perf sim-server`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf sim-server --port 8000 --pace ttft=100ms,itl=20ms --trace truth.jsonl",
    after_help = "Check a client against the truth: each line of the trace is one answer, with `request`, `accepted_us` and\n\
        `tokens_us`, in microseconds of one clock. Time to first token is the first of `tokens_us` less `accepted_us`.\n\
        Faults: status-NNN, stall, reset, close, bad-utf8, split-utf8, error, no-token, no-usage, no-done, big-event.\n\
        Stop it with Ctrl-C; it ends well."
)]
pub struct SimServerArgs {
    /// Port on 127.0.0.1; 0 takes a free one and prints it
    #[arg(long, env = "VLLM_PERF_SIM_PORT", value_name = "PORT", default_value_t = 8000)]
    pub port: u16,
    /// Pace: ttft, itl and startup with unit (0: as fast as it can), jitter (relative), seed, max-num-seqs (requests)
    #[arg(long, env = "VLLM_PERF_SIM", value_name = "PACE", default_value = "")]
    pub pace: String,
    /// Model name to answer to
    #[arg(long, env = "VLLM_PERF_SIM_MODEL", value_name = "NAME", default_value = "sim")]
    pub model: String,
    /// File for the true times of every answer, one line of JSON each
    #[arg(long, env = "VLLM_PERF_SIM_TRACE", value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// What goes wrong: KIND@N with the Nth request, KIND@* with every one (repeatable)
    #[arg(long, env = "VLLM_PERF_SIM_FAULT", value_name = "KIND@N", value_delimiter = ',')]
    pub fault: Vec<Fault>,
}
