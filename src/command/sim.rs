//! `vllm-perf sim-server`: the simulated vLLM server alone.

use anyhow::{Context, Result};

use super::Shell;
use crate::cli::SimServerArgs;
use crate::exit::{Classify, Exit};
use crate::sim::{self, Pace};

/// Serves until it is interrupted.
pub(super) async fn sim_server(arguments: &SimServerArgs, shell: &Shell) -> Result<Exit> {
    let pace: Pace = arguments.pace.parse().context("cannot read --pace").mistake()?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", arguments.port))
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{}", arguments.port))
        .world()?;
    let address = listener.local_addr().context("cannot tell the port").world()?;
    shell.print(&format!("http://{address}"));
    sim::serve(pace, arguments.model.clone(), &shell.environment, listener, async {
        let _ = tokio::signal::ctrl_c().await;
    })
    .await?;
    Ok(Exit::Done)
}
