//! The warm-up: one case of every server on each side, because the first start on a machine reads files that later starts
//! find in memory. Its results are not kept.

use std::time::Instant;

use anyhow::{Context, Result};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Pass, Phase};

use super::run_state::RunState;
use super::server_cases;
use super::session::Session;
use crate::exit::Classify;
use crate::plan::estimate::by_server;
use crate::plan::suite::Case;
use crate::run::journal::Journal;

const WARM_UP: Pass = Pass { phase: Phase::WarmUp, pair: 0 };

/// Warms both sides up. Head's image may be fetched meanwhile, as nothing is measured yet.
pub async fn warm_up(session: &Session<'_>, state: &mut RunState<'_>, cases: &[&Case]) -> Result<()> {
    let groups = by_server(cases.iter().copied()).into_iter();
    let first: Vec<&Case> =
        groups.filter(|(server, _)| server.is_some()).filter_map(|(_, cases)| cases.first().copied()).collect();
    // A single repetition of one side is not compared: like upstream's script, it has no warm-up.
    let is_alone = state.base.is_none() && session.plan.pairs == 1;
    if first.is_empty() || is_alone {
        return state.fetch_head().await;
    }
    session.progress.group("Warm-up");
    match state.head_fetch.take() {
        Some(fetch) => {
            let (warmed, fetched) = tokio::join!(warm_up_side(session, state, Side::Base, &first), fetch.0);
            warmed?;
            state.head.know(fetched?);
        }
        None => warm_up_side(session, state, Side::Base, &first).await?,
    }
    warm_up_side(session, state, Side::Head, &first).await?;
    session.progress.end_group();
    Ok(())
}

async fn warm_up_side(session: &Session<'_>, state: &mut RunState<'_>, side: Side, first: &[&Case]) -> Result<()> {
    let mut journal = Journal::in_memory();
    let Some(mut run) = state.pass(session, side, WARM_UP, &mut journal) else { return Ok(()) };
    let begun = Instant::now();
    server_cases::measure(&mut run, first).await?;
    run.account(begun, true)?;
    if run.journal.entries().iter().all(|entry| entry.failed.is_none()) {
        let folder = run.folder();
        return std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove `{}`", folder.display()))
            .world();
    }
    run.set_aside()
}
