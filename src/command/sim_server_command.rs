//! `vllm-perf sim-server`: the simulated vLLM server.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use vllm_load::open_files;
use vllm_load::sim::{self, Fault, Pace, Simulation};

use crate::exit::{Classify, Exit};
use crate::run::native_client::draw::find_tokenizer;
use crate::system::shell::Shell;

/// Serves until it is interrupted.
pub(super) async fn sim_server(arguments: &SimServerArgs, shell: &Shell) -> Result<Exit> {
    let pace: Pace = arguments.pace.parse().context("cannot read --pace").mistake()?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", arguments.port))
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{}: give another --port, or 0", arguments.port))
        .mistake()?;
    let address = listener.local_addr().context("cannot read the port").world()?;
    shell.print(&format!("http://{address}"));
    open_files::raise();
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let (model, faults, trace) = (arguments.model.clone(), arguments.fault.clone(), arguments.trace.clone());
    let model_folder = find_tokenizer(&model, &shell.environment);
    let simulation = Simulation { pace, model, model_folder, faults, trace };
    sim::serve(simulation, listener, async move {
        tokio::select! { _ = tokio::signal::ctrl_c() => (), _ = terminate.recv() => () }
    })
    .await
    .world()?;
    Ok(Exit::Done)
}

/// `vllm-perf sim-server`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf sim-server --port 8000 --pace ttft=100ms,itl=20ms --trace truth.jsonl",
    after_help = "Check the times of a client against the trace: each line is one answer, with `request`, `accepted_us` and \
        `tokens_us`, in microseconds of one clock. Time to first token is the first of `tokens_us` minus `accepted_us`.\n\
        Faults of the connection: status-NNN, stall, reset, close, redirect, open-end, close-after, many-headers, encoded.\n\
        Faults of the stream: error, error-text, error-null, error-flat, error-event, error-comment, abort, no-end, no-done,\n\
        bare-done, no-blanks, byte-order-mark, empty-events, big-event, bad-utf8, split-utf8, whole, json-error, html.\n\
        Faults of the tokens: no-token, empty-answer, short, no-usage, role-first, packed.\n\
        Stop it with Ctrl-C."
)]
pub struct SimServerArgs {
    /// Port on 127.0.0.1; 0 selects a free one
    #[arg(long, env = "VLLM_PERF_SIM_PORT", value_name = "PORT", default_value_t = 8000)]
    pub port: u16,
    /// Pace: ttft, itl and startup with unit (0: as fast as possible), jitter (relative), seed, max-num-seqs (requests)
    #[arg(long, env = "VLLM_PERF_SIM", value_name = "PACE", default_value = "")]
    pub pace: String,
    /// Name of its model
    #[arg(long, env = "VLLM_PERF_SIM_MODEL", value_name = "NAME", default_value = "sim")]
    pub model: String,
    /// File for the true times, one line of JSON for each answer
    #[arg(long, env = "VLLM_PERF_SIM_TRACE", value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Fault: KIND@N for the Nth request, KIND@* for every request (repeatable)
    #[arg(long, env = "VLLM_PERF_SIM_FAULT", value_name = "KIND@N", value_delimiter = ',')]
    pub fault: Vec<Fault>,
}
