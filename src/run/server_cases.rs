//! The cases of a pass, each measured on the server that it needs.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use vllm_verdict::strategy::Phase;

use super::pass::{PassRun, tail};
use super::server_start::{self, Running, Started};
use super::session::servers;
use super::{read_next_model, search_run};
use crate::plan::suite::{Case, Command};

/// How many passes in a row a server may fail to start before its cases are given up.
const START_ATTEMPTS: u32 = 2;

/// Measures cases in the order of the plan, each with the server that it needs.
pub async fn measure(run: &mut PassRun<'_, '_>, cases: &[&Case]) -> Result<()> {
    run.make_folder()?;
    for (number, (server, group)) in (1..).zip(servers(&run.session.plan.cases)) {
        let remaining: Vec<&Case> = group.into_iter().filter(|case| cases.contains(case)).collect();
        match server {
            _ if remaining.is_empty() => {}
            Some(server) => on_server(run, number, server, &remaining).await?,
            None => {
                for case in remaining {
                    run.measure(case, None).await?;
                }
            }
        }
    }
    Ok(())
}

/// Starts a server, measures its cases and stops it. After a failed case the remaining cases get a new server: the old one
/// may be gone, or still be busy for a client that is.
async fn on_server(run: &mut PassRun<'_, '_>, number: usize, server: &Command, cases: &[&Case]) -> Result<()> {
    let mut remaining = cases;
    while !remaining.is_empty() {
        let Some(running) = start(run, number, server, remaining).await? else { return Ok(()) };
        let measured = until_failure(run, &running, remaining).await;
        running.stop().await;
        remaining = &remaining[measured?..];
    }
    Ok(())
}

/// Measures cases until one fails; returns how many ran.
async fn until_failure(run: &mut PassRun<'_, '_>, running: &Running, cases: &[&Case]) -> Result<usize> {
    for (index, case) in cases.iter().enumerate() {
        if !run.measure(case, Some(running)).await? {
            return Ok(index + 1);
        }
        let is_last = !cases.get(index + 1).is_some_and(|next| next.is_same_test_and_rate(case));
        if is_last {
            search_run::search(run, case, running).await?;
        }
    }
    Ok(cases.len())
}

/// Starts a server. Where it does not start, its cases are recorded as failed and there is none.
async fn start(run: &mut PassRun<'_, '_>, number: usize, server: &Command, cases: &[&Case]) -> Result<Option<Running>> {
    let folder = run.make_folder()?;
    let log = folder.join(format!("server-{number}.log"));
    if run.side_run.failed_starts(server) >= START_ATTEMPTS {
        let reason = format!("the server did not start in {START_ATTEMPTS} earlier repetitions; not tried again");
        run.give_up(cases, &reason)?;
        return Ok(None);
    }
    let session = run.session;
    session.progress.working(&format!("{}: starting server {number}", run.label()));
    let phase = if run.pass.phase == Phase::Screen { "screen".to_owned() } else { run.pass.pair.to_string() };
    let name = format!("vllm-perf-{}-{}-{phase}-{number}", run.side_run.launch.run, run.side.as_str());
    let begun = Instant::now();
    let reading = read_next_model::begin(session, run.side_run, server, run.read_files);
    let place = server_start::Place { output: session.output, log: &log, container: &name };
    let started = server_start::start(run.side_run, session.processes, server, &place, session.limits.server).await?;
    run.side_run.count_start(server, matches!(started, Started::Ready(_)));
    if let Some(reading) = reading {
        run.read_files.extend(reading.end().await);
    }
    run.tally.spent.server_start += begun.elapsed().as_secs_f64();
    run.tally.servers += 1;
    match started {
        Started::Ready(running) => Ok(Some(running)),
        Started::Failed(error) => {
            let reason = format!("server did not start: {error:#} (log: {})", shown(run, &log));
            session.progress.failure(&reason, &tail(&log));
            run.give_up(cases, &reason)?;
            Ok(None)
        }
    }
}

/// A path relative to the output folder.
fn shown(run: &PassRun<'_, '_>, path: &Path) -> String {
    let root = run.session.output.root().canonicalize().unwrap_or_default();
    path.strip_prefix(&root).unwrap_or(path).display().to_string()
}
