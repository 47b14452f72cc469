//! `vllm-perf sim-server`: the simulated vLLM server alone.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use vllm_load::open_files;
use vllm_load::sim::{self, Pace, Simulation};

use super::Shell;
use crate::cli::SimServerArgs;
use crate::client::draw::find_tokenizer;
use crate::exit::{Classify, Exit};

/// Serves until it is interrupted.
pub(super) async fn sim_server(arguments: &SimServerArgs, shell: &Shell) -> Result<Exit> {
    let pace: Pace = arguments.pace.parse().context("cannot read --pace").mistake()?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", arguments.port))
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{}", arguments.port))
        .world()?;
    let address = listener.local_addr().context("cannot tell the port").world()?;
    shell.print(&format!("http://{address}"));
    open_files::raise();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
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
