//! One pass over cases on one side: servers, cases, the time that they took and what went on beside them.

use crate::system::probe;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use vllm_verdict::repetition::Outcome;
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Pass, Phase};
use vllm_verdict::v1::Host;

use super::session::{Bench, UnderWay, now, servers};
use super::time_spent::PassTime;
use super::{case_run, collect, server_start};
use crate::exit::Classify;
use crate::plan::suite::{Case, Command};
use crate::plan::target::Target;
use crate::run::fingerprint::{self, Conditions, Fingerprint, Surroundings};
use crate::run::journal::{Entry, Journal, Void};
use crate::system::host::outside_load::Watch;
use crate::system::host::{self, temperature};
use crate::system::{docker, output};

/// How many passes in a row a server may fail to start before its cases are given up.
const START_TRIES: u32 = 2;
/// How often a repetition is repeated because others were at work beside it.
const REPEATS: usize = 2;

/// The warm-up as a pass.
const WARM_UP: Pass = Pass { phase: Phase::WarmUp, pair: 0 };

impl Bench<'_> {
    /// One case of every server on each side, thrown away: the first run on a machine reads files that later ones find in
    /// memory. Nothing is measured yet, so head's image may arrive beside base's.
    pub async fn warm_up(&mut self, cases: &[&Case]) -> Result<()> {
        let first: Vec<(&Command, &Case)> = servers(cases.iter().copied())
            .into_iter()
            .filter_map(|(server, cases)| Some((server?, *cases.first()?)))
            .collect();
        // One repetition of one side is compared with nothing here: it is what upstream's script would measure, which warms
        // nothing up.
        let alone = self.base.is_none() && self.plan.pairs == 1;
        if first.is_empty() || alone {
            return self.arrive().await;
        }
        self.progress.group("Warm-up");
        match self.arriving.take() {
            Some(arriving) => {
                let (warmed, facts) = tokio::join!(self.warm_up_side(Side::Base, &first), arriving.0);
                warmed?;
                self.head.facts = facts?;
            }
            None => self.warm_up_side(Side::Base, &first).await?,
        }
        self.warm_up_side(Side::Head, &first).await?;
        self.progress.end_group();
        Ok(())
    }

    async fn warm_up_side(&mut self, side: Side, first: &[(&Command, &Case)]) -> Result<()> {
        if self.side(side).is_none() {
            return Ok(());
        }
        let begun = Instant::now();
        self.under_way = UnderWay::default();
        let folder = self.make_folder(side, WARM_UP)?;
        let mut whole = true;
        for (number, (server, case)) in (1..).zip(first) {
            whole &= self.serve(side, WARM_UP, number, server, &[case], None).await?;
        }
        self.account(side, WARM_UP, begun, true)?;
        if whole {
            std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display())).world()
        } else {
            self.set_aside(side, WARM_UP)
        }
    }

    /// One pass over the cases that are not finished yet; again where others were at work beside it.
    pub async fn pass(&mut self, side: Side, pass: Pass, cases: &[&Case], journal: &mut Journal) -> Result<()> {
        loop {
            let left: Vec<&Case> =
                cases.iter().copied().filter(|case| !self.is_done(side, pass, case, journal)).collect();
            if left.is_empty() || self.side(side).is_none() {
                return Ok(());
            }
            let begun = Instant::now();
            let throttled = temperature::throttled();
            self.under_way = UnderWay::default();
            self.cases(side, pass, &left, journal).await?;
            let surroundings = self.surroundings(side, throttled);
            let path = self.output.pass(side, pass).join(collect::ENVIRONMENT);
            let text = serde_json::to_string_pretty(&surroundings).context("cannot write an environment")?;
            output::write(&path, text.as_bytes()).world()?;
            let key = (side, pass.phase, pass.pair);
            let repeats = journal.voids().iter().filter(|void| (void.side, void.phase, void.repetition) == key).count();
            let disturbed = surroundings.conditions.disturbed(self.limits.outside_load);
            self.account(side, pass, begun, disturbed.is_none() || repeats >= REPEATS)?;
            let Some(why) = disturbed else { return Ok(()) };
            if repeats >= REPEATS {
                self.progress
                    .say(&format!("{}: {why}; it was repeated {repeats} times and is kept", label(side, pass)));
                return Ok(());
            }
            self.progress.say(&format!("{}: {why}; it is repeated", label(side, pass)));
            journal.void(Void { phase: pass.phase, repetition: pass.pair, side, void: why })?;
            self.set_aside(side, pass)?;
            self.progress.expect_more(cases.len() as u64);
        }
    }

    /// Writes down where the time of a pass went.
    fn account(&mut self, side: Side, pass: Pass, begun: Instant, kept: bool) -> Result<()> {
        let UnderWay { mut spent, servers, cases, .. } = self.under_way;
        spent.total = begun.elapsed().as_secs_f64();
        let time = PassTime { phase: pass.phase, pair: pass.pair, side, servers, cases, spent, kept };
        self.costs.learn_pass(&time);
        self.times.add(time)
    }

    /// Moves what a pass wrote out of the way: it does not count, but may tell why.
    fn set_aside(&self, side: Side, pass: Pass) -> Result<()> {
        let (from, to) = (self.output.pass(side, pass), self.output.void(side, pass));
        let cannot = || format!("cannot move `{}` aside", from.display());
        std::fs::create_dir_all(to.parent().unwrap_or(&to)).with_context(cannot).world()?;
        std::fs::rename(&from, &to).with_context(cannot).world()
    }

    /// What the pass under way was measured on, and what went on beside it.
    fn surroundings(&mut self, side: Side, throttled: Option<u64>) -> Surroundings {
        let device = &self.plan.device;
        let state = probe::state(device.name, self.environment);
        let UnderWay { seen, watched, .. } = self.under_way;
        let warmest = [temperature::temperature(), state.temperature].into_iter().flatten().reduce(f64::max);
        let conditions = Conditions {
            load_average: temperature::load_average(),
            outside_load: (seen.capacity > 0.0).then(|| seen.outside / seen.capacity),
            watched_seconds: watched,
            temperature: warmest,
            throttled: temperature::throttled().zip(throttled).map(|(now, before)| now.saturating_sub(before)),
            device_throttled: state.throttled,
        };
        let (device_type, device_count) = (device.device_type.clone(), device.count);
        let facts = self.side(side).map(|side| side.facts.clone()).unwrap_or_default();
        let mut fingerprint = Fingerprint {
            device_type,
            device_count,
            driver: state.driver,
            image_digest: facts.image_digest,
            vllm_version: facts.vllm_version,
            ..Fingerprint::default()
        };
        if let Ok(Host { cpu, cores, memory_gib, numa_nodes, kernel, governor }) = host::host() {
            fingerprint = Fingerprint { cpu, cores, memory_gib, numa_nodes, kernel, governor, ..fingerprint };
        }
        Surroundings { schema: fingerprint::SCHEMA.to_owned(), fingerprint, conditions }
    }

    /// The folder of a pass, as an absolute path: children and containers run elsewhere.
    fn make_folder(&self, side: Side, pass: Pass) -> Result<PathBuf> {
        let folder = self.output.pass(side, pass);
        std::fs::create_dir_all(&folder)
            .and_then(|()| folder.canonicalize())
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))
            .world()
    }

    /// Measures cases, each with the server that it needs.
    async fn cases(&mut self, side: Side, pass: Pass, cases: &[&Case], journal: &mut Journal) -> Result<()> {
        self.make_folder(side, pass)?;
        let plan = self.plan;
        for (number, (server, group)) in servers(&plan.cases).into_iter().enumerate() {
            let left: Vec<&Case> = group.into_iter().filter(|case| cases.contains(case)).collect();
            match server {
                _ if left.is_empty() => {}
                Some(server) => {
                    self.serve(side, pass, number + 1, server, &left, Some(journal)).await?;
                }
                None => {
                    for case in left {
                        self.measure(side, pass, case, None, Some(&mut *journal)).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts a server, measures its cases, ends it, and tells whether all gave numbers. Without a journal it is the warm-up.
    async fn serve(
        &mut self,
        side: Side,
        pass: Pass,
        number: usize,
        server: &Command,
        cases: &[&Case],
        mut journal: Option<&mut Journal>,
    ) -> Result<bool> {
        let folder = self.make_folder(side, pass)?;
        let log = folder.join(format!("server-{number}.log"));
        let (processes, progress, limits) = (self.processes, self.progress, self.limits);
        let Some(bench) = self.side(side) else { return Ok(true) };
        if bench.failures(server) >= START_TRIES {
            let reason = format!("server did not start in {START_TRIES} repetitions before; not tried again");
            self.give_up(side, pass, cases, &reason, journal)?;
            return Ok(false);
        }
        progress.working(&format!("{}: starting server {number}", label(side, pass)));
        let phase = if pass.phase == Phase::Screen { "screen".to_owned() } else { pass.pair.to_string() };
        let name = format!("vllm-perf-{}-{}-{phase}-{number}", bench.launch.run, side.as_str());
        let begun = Instant::now();
        let reading = self.read_ahead(side, server);
        let Some(bench) = self.side(side) else { return Ok(true) };
        let started = server_start::start(bench, processes, server, &folder, &log, &name, limits.server).await;
        bench.count_start(server, started.is_ok());
        self.end_reading(reading).await;
        self.under_way.spent.server_start += begun.elapsed().as_secs_f64();
        self.under_way.servers += 1;
        let running = match started {
            Ok(running) => running,
            Err(error) => {
                let reason = format!("server did not start: {error:#} (log: {})", self.shown(&log));
                progress.failure(&reason, &tail(&log));
                self.give_up(side, pass, cases, &reason, journal)?;
                return Ok(false);
            }
        };
        let mut whole = true;
        for (index, case) in cases.iter().enumerate() {
            let measured = self.measure(side, pass, case, Some(&running), journal.as_deref_mut()).await?;
            whole &= measured;
            let left = &cases[index + 1..];
            let is_last = !left.first().is_some_and(|next| next.is_same_test_and_rate(case));
            if let (true, true, Some(journal)) = (measured, is_last, journal.as_deref_mut()) {
                self.search(side, pass, case, &running, journal).await?;
            }
            // A server that saw a failure may be gone, or still be at work for a client that is: the rest gets another.
            if !measured && !left.is_empty() {
                running.stop().await;
                Box::pin(self.serve(side, pass, number, server, left, journal)).await?;
                return Ok(false);
            }
        }
        running.stop().await;
        Ok(whole)
    }

    /// Measures one case, writes down how it ended, and tells whether it gave numbers.
    pub async fn measure(
        &mut self,
        side: Side,
        pass: Pass,
        case: &Case,
        server: Option<&server_start::Running>,
        journal: Option<&mut Journal>,
    ) -> Result<bool> {
        let folder = self.make_folder(side, pass)?;
        let label = label(side, pass);
        self.progress.working(&format!("{label}: {}", case.name));
        let (started, begun) = (now(), Instant::now());
        let (processes, limits, environment) = (self.processes, self.limits, self.environment);
        let Some(bench) = self.side(side) else { return Ok(false) };
        let container = server.and_then(|server| server.container.clone());
        let container_time = processor_time(container.as_deref()).await;
        // What works for us unseen would pass for others: a container whose processor time nobody tells or that is gone before
        // it can be read, and a server that may be on this machine but is not ours.
        let is_ours = match &bench.plan.target {
            Target::Image(_) => container_time.is_some(),
            Target::Remote(_) => false,
            Target::Local(_) | Target::Sim(_) => true,
        };
        let watch = Watch::begin(container_time);
        let case_run = case_run::CaseRun { bench, processes, folder: &folder, limit: limits.case, environment };
        let outcome = case_run.measure(case, server).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let container_time = processor_time(container.as_deref()).await;
        if let (true, Some(seen)) = (is_ours, watch.end(container_time)) {
            self.under_way.seen.outside += seen.outside;
            self.under_way.seen.capacity += seen.capacity;
            self.under_way.watched += seconds;
        }
        self.spend(case, &folder, seconds);
        let failed = match outcome {
            Outcome::Measured(measurement) => {
                let numbers = vllm_verdict::metric::of(case.kind)
                    .filter(|metric| metric.primary)
                    .filter_map(|metric| Some((metric, measurement.metrics.get(metric.id)?)))
                    .map(|(metric, value)| format!("{} {value:.4} {}", metric.label, metric.unit))
                    .take(2)
                    .collect::<Vec<_>>()
                    .join(", ");
                self.progress.finished(&format!("{label}: {}: {numbers}", case.name));
                None
            }
            Outcome::Failed(reason) => {
                let log = folder.join(format!("{}.log", case.name));
                self.progress.failure(&format!("{label}: {}: {reason}", case.name), &tail(&log));
                Some(reason)
            }
        };
        let measured = failed.is_none();
        if measured {
            self.costs.learn_case(side, &case.name, seconds);
        }
        self.write_down(side, pass, case, Ended { started, seconds, failed }, journal)?;
        Ok(measured)
    }

    /// Tells the measuring in a case's time from what came before and after it.
    fn spend(&mut self, case: &Case, folder: &Path, seconds: f64) {
        let result = std::fs::read_to_string(folder.join(format!("{}.json", case.name))).unwrap_or_default();
        let measuring = crate::run::time_spent::measured(case.kind, &result).unwrap_or(seconds).min(seconds);
        self.under_way.spent.measuring += measuring;
        self.under_way.spent.client_start += seconds - measuring;
        self.under_way.cases += 1;
    }

    fn give_up(
        &mut self,
        side: Side,
        pass: Pass,
        cases: &[&Case],
        reason: &str,
        mut journal: Option<&mut Journal>,
    ) -> Result<()> {
        for case in cases {
            self.progress.failure(&format!("{}: {}: {reason}", label(side, pass), case.name), "");
            let ended = Ended { started: now(), seconds: 0.0, failed: Some(reason.to_owned()) };
            self.write_down(side, pass, case, ended, journal.as_deref_mut())?;
        }
        Ok(())
    }

    fn write_down(
        &self,
        side: Side,
        pass: Pass,
        case: &Case,
        ended: Ended,
        journal: Option<&mut Journal>,
    ) -> Result<()> {
        let Some(journal) = journal else { return Ok(()) };
        self.progress.step();
        journal.append(Entry {
            order: journal.next_order(),
            phase: pass.phase,
            repetition: pass.pair,
            side,
            case: case.name.clone(),
            started: ended.started,
            seconds: ended.seconds,
            failed: ended.failed,
        })
    }

    /// A path as it is found in the output folder.
    fn shown(&self, path: &Path) -> String {
        let root = self.output.root().canonicalize().unwrap_or_default();
        path.strip_prefix(&root).unwrap_or(path).display().to_string()
    }
}

/// How a case ended.
struct Ended {
    started: String,
    seconds: f64,
    failed: Option<String>,
}

/// `base 2`, `head warm-up`.
fn label(side: Side, pass: Pass) -> String {
    match pass.phase {
        Phase::WarmUp | Phase::Screen => format!("{} {}", side.as_str(), pass.phase.as_str()),
        Phase::Pairs | Phase::MorePairs => format!("{} {}", side.as_str(), pass.pair),
    }
}

async fn processor_time(container: Option<&str>) -> Option<f64> {
    docker::processor_time(container?).await
}

/// The last lines of a log, to show beside a failure.
fn tail(log: &Path) -> String {
    let Ok(text) = std::fs::read(log) else { return String::new() };
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
