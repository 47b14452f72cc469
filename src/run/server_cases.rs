//! The cases of a pass, each measured on the server that it needs.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use vllm_verdict::strategy::Phase;

use super::log_end::{tail, with_log};
use super::pass::PassRun;
use super::server_start::{self, Log, Running, Started};
use super::session::servers;
use super::{read_next_model, search_run};
use crate::plan::suite::{Case, Command};

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
                    match run.side_run.given_up(case) {
                        Some(reason) => run.give_up(&[case], &reason)?,
                        None => {
                            run.measure(case, None).await?;
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// Starts a server, measures its cases and stops it. The cases after one that the server did not survive, or that may still
/// keep it busy, get a new server; after two such failures of one kind they are given up.
async fn on_server(run: &mut PassRun<'_, '_>, number: usize, server: &Command, cases: &[&Case]) -> Result<()> {
    let mut remaining = Vec::new();
    for case in cases {
        match run.side_run.given_up(case) {
            Some(reason) => run.give_up(&[*case], &reason)?,
            None => remaining.push(*case),
        }
    }
    let mut remaining = remaining.as_slice();
    while !remaining.is_empty() {
        let Some(running) = start(run, number, server, remaining).await? else { return Ok(()) };
        let measured = until_unusable(run, &running, remaining).await;
        running.stop().await;
        remaining = &remaining[measured?..];
        if let Some(reason) = run.side_run.failures.repeated().filter(|_| !remaining.is_empty()) {
            let reason = format!("not tried: {reason}");
            return run.give_up(remaining, &reason);
        }
    }
    Ok(())
}

/// Measures cases until the server is not usable; returns how many ran.
async fn until_unusable(run: &mut PassRun<'_, '_>, running: &Running, cases: &[&Case]) -> Result<usize> {
    for (index, case) in cases.iter().enumerate() {
        let ran = run.measure(case, Some(running)).await?;
        if !ran.is_server_usable {
            return Ok(index + 1);
        }
        let is_last = !cases.get(index + 1).is_some_and(|next| next.is_same_test_and_rate(case));
        if is_last && ran.is_measured {
            search_run::search(run, case, running).await?;
        }
    }
    Ok(cases.len())
}

/// Starts a server. Where it does not start, its cases are recorded as failed and there is none.
async fn start(run: &mut PassRun<'_, '_>, number: usize, server: &Command, cases: &[&Case]) -> Result<Option<Running>> {
    let folder = run.make_folder()?;
    let path = folder.join(format!("server-{number}.log"));
    let log = Log { shown: shown(run, &path), path };
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
        Started::Ready(running) => Ok(Some(*running)),
        Started::Failed(error) => {
            let reason = format!("server did not start: {error:#}");
            let reason = with_log(&reason, "log", &log.shown, &log.path);
            run.side_run.failures.did_not_start(&reason, &log.shown);
            session.progress.failure(&run.label(), &reason, &tail(&log.path));
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
