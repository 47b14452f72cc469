//! Arguments of the commands about load: the simulated server, and the client alone.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use vllm_load::sim::fault::Fault;

/// `vllm-perf bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure a running server, as `vllm bench serve` does: same flags, same output, same files
    #[command(
        before_help = "Example:\n  vllm-perf bench serve --model meta-llama/Llama-3.1-8B --port 8000 --num-prompts 200 --max-concurrency 16",
        after_help = SERVE
    )]
    Serve(ServeArgs),
}

const SERVE: &str = "\
Flags of `vllm bench serve`, with its defaults. A flag that is missing here is refused by name.
  Server:      --base-url | --host --port, --endpoint, --backend vllm|openai|openai-chat, --header KEY=VALUE
               --ready-check-timeout-sec (s), --stall-timeout-sec (s an answer may be silent; ours alone)
  Model:       --model, --served-model-name, --tokenizer
  Prompts:     --dataset-name random|sharegpt|sonnet|custom, --dataset-path, --num-prompts, --seed
               --random-input-len, --random-output-len (tokens), --random-range-ratio
  Load:        --request-rate (requests/s, or inf), --burstiness, --max-concurrency, --num-warmups, --ramp-up-strategy
  Sampling:    --temperature, --top-p, --top-k, --ignore-eos, --extra-body JSON
  Result:      --save-result, --save-detailed, --result-dir, --result-filename, --metadata KEY=VALUE
               --percentile-metrics, --metric-percentiles, --goodput METRIC:MS
Times are in milliseconds. Connections are opened before the clock starts. Exit code 3: a request failed.";

/// `vllm-perf bench serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Flags of `vllm bench serve`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0.., value_name = "FLAGS")]
    pub words: Vec<String>,
}

/// `vllm-perf sim-server`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf sim-server --port 8000 --pace ttft=100ms,itl=20ms --trace truth.jsonl",
    after_help = "Check a client against the truth: each line of the trace is one answer, with `request`, `accepted_us` and \
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
