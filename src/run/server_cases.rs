//! The cases of a pass, each measured on the server that it needs, as often as it has slices.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use vllm_verdict::strategy::Phase;

use super::journal::Choice;
use super::log_end::{tail, with_log};
use super::pass::PassRun;
use super::server_start::{self, Log, Running, Started};
use super::{cost, read_next_model, search_run, slices};
use crate::plan::estimate::by_server;
use crate::plan::suite::{Case, Command};

/// Measures what is not finished yet of cases, in the order of the plan, each with the server that it needs.
pub async fn measure(run: &mut PassRun<'_, '_>, cases: &[&Case]) -> Result<()> {
    run.make_folder()?;
    for (number, (server, group)) in (1..).zip(by_server(&run.session.plan.cases)) {
        let group: Vec<&Case> = group.into_iter().filter(|case| cases.contains(case)).collect();
        let is_done = |case: &&Case| search_run::is_done(run.session, run.journal, run.side, run.pass, case);
        match server {
            _ if group.iter().all(is_done) => {}
            Some(server) => {
                let mut life =
                    Life { number, server, running: None, restart: None, lost: None, dropped: HashMap::new() };
                let measured = life.measure(run, &group, cases).await;
                run.slice = 1;
                life.stop().await;
                measured?;
            }
            None => {
                for case in group {
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

/// One server of a pass, and what its cases have become so far. A server that a case ended is started again.
struct Life<'a> {
    /// Its number in the plan.
    number: usize,
    server: &'a Command,
    running: Option<Running>,
    /// Seconds of its last start.
    restart: Option<f64>,
    /// Why nothing more is measured with it in this repetition.
    lost: Option<String>,
    /// Cases that are not tried in a further slice of this repetition, and why.
    dropped: HashMap<String, String>,
}

impl Life<'_> {
    /// Measures the slices one after the other: not each case several times, because neighbours in time are alike.
    /// `round` are all cases of the pass.
    async fn measure(&mut self, run: &mut PassRun<'_, '_>, group: &[&Case], round: &[&Case]) -> Result<()> {
        self.slice(run, 1, group).await?;
        self.choose(run, group, round).await?;
        let slices =
            |run: &PassRun<'_, '_>, case: &Case| slices::of_case(run.session.plan, run.journal, run.pass, case);
        let most = group.iter().map(|case| slices(run, case)).max().unwrap_or(1);
        for slice in 2..=most {
            let cases: Vec<&Case> = group.iter().copied().filter(|case| slices(run, case) >= slice).collect();
            self.slice(run, slice, &cases).await?;
        }
        Ok(())
    }

    /// Measures one slice. The cases after one that the server did not survive, or that may still keep it busy, get a new
    /// server; after two such failures of one kind they are given up.
    async fn slice(&mut self, run: &mut PassRun<'_, '_>, slice: u32, cases: &[&Case]) -> Result<()> {
        run.slice = slice;
        let mut remaining = Vec::new();
        for case in cases {
            if search_run::is_slice_done(run.session, run.journal, run.side, run.pass, case, slice) {
                continue;
            }
            let reason = self.lost.clone().or_else(|| self.dropped.get(&case.name).cloned());
            match reason.or_else(|| run.side_run.given_up(case)) {
                Some(reason) => run.give_up(&[*case], &reason)?,
                None => remaining.push(*case),
            }
        }
        let mut remaining = remaining.as_slice();
        while !remaining.is_empty() {
            if let Err(reason) = self.start(run).await? {
                run.give_up(remaining, &reason)?;
                return Ok(());
            }
            let measured = self.until_unusable(run, remaining).await?;
            remaining = &remaining[measured..];
            if let Some(reason) = &self.lost {
                return run.give_up(remaining, reason);
            }
        }
        Ok(())
    }

    /// Measures cases until the server is not usable; returns how many ran.
    async fn until_unusable(&mut self, run: &mut PassRun<'_, '_>, cases: &[&Case]) -> Result<usize> {
        let Some(running) = &self.running else { return Ok(0) };
        for (index, case) in cases.iter().enumerate() {
            let ran = run.measure(case, Some(running)).await?;
            if !ran.is_server_usable {
                let reason = format!("not tried again in this repetition: its slice {} cost the server", run.slice);
                self.dropped.insert(case.name.clone(), reason);
                self.stop().await;
                self.lost = run.side_run.failures.repeated().map(|reason| format!("not tried: {reason}"));
                return Ok(index + 1);
            }
            let is_last = !cases.get(index + 1).is_some_and(|next| next.is_same_test_and_rate(case));
            if is_last && ran.is_measured && run.slice == 1 {
                search_run::search(run, case, running).await?;
            }
        }
        Ok(cases.len())
    }

    /// Chooses how many slices the cases have, once something of their first one was measured.
    async fn choose(&mut self, run: &mut PassRun<'_, '_>, group: &[&Case], round: &[&Case]) -> Result<()> {
        let plan = run.session.plan;
        let first: Vec<_> =
            group.iter().filter_map(|case| run.journal.find(run.side, run.pass, &case.name, 1)).collect();
        let is_open = group.iter().any(|case| slices::is_open(plan, run.journal, run.pass, case));
        if !is_open || first.iter().all(|entry| entry.failed.is_some()) {
            return Ok(());
        }
        let slice: f64 = first.iter().map(|entry| entry.seconds).sum();
        // A run that was interrupted after the first slice has not started the server again.
        if self.lost.is_none() && self.restart.is_none() {
            let _ = self.start(run).await?;
        }
        let Some(restart) = self.restart else { return Ok(()) };
        let slices = slices::chosen(restart, slice, room(run, round));
        if slices > 1 {
            let costs = [restart, slice].map(crate::duration::text_of_seconds);
            run.session.progress.say(&format!(
                "server {}: {slices} slices in each repetition, because it took {} to start and one slice of its cases {}",
                self.number, costs[0], costs[1],
            ));
        }
        run.journal.choose(Choice { server: self.number, slices, restart_seconds: restart, slice_seconds: slice })
    }

    /// Starts the server unless it is running. Where it does not start, nothing more is measured with it: the inner error says
    /// why.
    async fn start(&mut self, run: &mut PassRun<'_, '_>) -> Result<std::result::Result<(), String>> {
        if self.running.is_some() {
            return Ok(Ok(()));
        }
        match start(run, self.number, self.server).await? {
            Ok((running, seconds)) => {
                (self.running, self.restart) = (Some(running), Some(seconds));
                Ok(Ok(()))
            }
            Err(reason) => {
                self.lost = Some(reason.clone());
                Ok(Err(reason))
            }
        }
    }

    async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }
}

/// The seconds that each of the first pairs has for further slices of one side; `None` without a budget.
fn room(run: &PassRun<'_, '_>, round: &[&Case]) -> Option<f64> {
    let plan = run.session.plan;
    let left = run.session.limits.budget?.saturating_sub(run.pair_begun).as_secs_f64();
    let of_case = |case: &Case| slices::of_case(plan, run.journal, run.pass, case);
    let pair = cost::pair(run.costs, plan, round, of_case);
    Some(slices::room(left, run.pass.pair, pair, plan.sides.present().count()))
}

/// Starts a server, and returns it with the seconds that it took. The inner error says why it did not start.
async fn start(
    run: &mut PassRun<'_, '_>,
    number: usize,
    server: &Command,
) -> Result<std::result::Result<(Running, f64), String>> {
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
    let seconds = begun.elapsed().as_secs_f64();
    run.side_run.count_start(server, matches!(started, Started::Ready(_)));
    if let Some(reading) = reading {
        run.read_files.extend(reading.end().await);
    }
    run.tally.spent.server_start += begun.elapsed().as_secs_f64();
    run.tally.servers += 1;
    match started {
        Started::Ready(running) => Ok(Ok((*running, seconds))),
        Started::Failed(error) => {
            let reason = format!("server did not start: {error:#}");
            let reason = with_log(&reason, "log", &log.shown, &log.path);
            run.side_run.failures.did_not_start(&reason, &log.shown);
            session.progress.failure(&run.label(), &reason, &tail(&log.path));
            Ok(Err(reason))
        }
    }
}

/// A path relative to the output folder.
fn shown(run: &PassRun<'_, '_>, path: &Path) -> String {
    let root = run.session.output.root().canonicalize().unwrap_or_default();
    path.strip_prefix(&root).unwrap_or(path).display().to_string()
}
