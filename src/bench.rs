//! Runs a plan: interleaved repetitions, a fresh server for each, every finished case in the journal.
//! Order, groups and budget are pure functions; servers and cases are in `bench/`.

mod case;
mod server;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::compare::SideFacts;
use crate::environment::Environment;
use crate::exit::Classify;
use crate::journal::{Entry, Journal};
use crate::output::OutputFolder;
use crate::plan::{Plan, Side, SidePlan};
use crate::progress::Progress;
use crate::result::{self, Outcome, Repetition};
use crate::suite::{Case, Command, Kind};
use crate::target::launch::Launch;
use crate::target::process::Processes;

/// How many repetitions in a row a server may fail to start before its cases are given up.
const START_TRIES: u32 = 2;

/// Limits of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a server may take to answer.
    pub server: Duration,
    /// How long one case may take.
    pub case: Duration,
    /// No further pair begins that would end after this.
    pub budget: Option<Duration>,
}

/// One side, ready to start.
#[derive(Debug)]
pub struct SideBench {
    /// What was decided.
    pub plan: SidePlan,
    /// How its commands start.
    pub launch: Launch,
    /// What is learnt of it while it runs.
    pub facts: SideFacts,
    /// Servers that did not start, and how often in a row.
    failed_starts: Vec<(Command, u32)>,
}

impl SideBench {
    /// A side that has not run yet.
    pub fn new(plan: SidePlan, launch: Launch) -> Self {
        let facts = SideFacts {
            target: plan.target.to_string(),
            commit: plan.commit.clone(),
            server_args: plan.server_args.clone(),
            ..SideFacts::default()
        };
        Self { plan, launch, facts, failed_starts: Vec::new() }
    }

    fn failures(&self, server: &Command) -> u32 {
        self.failed_starts.iter().find(|(command, _)| command == server).map_or(0, |(_, times)| *times)
    }

    fn count_start(&mut self, server: &Command, started: bool) {
        let times = if started { 0 } else { self.failures(server) + 1 };
        self.failed_starts.retain(|(command, _)| command != server);
        self.failed_starts.push((server.clone(), times));
    }
}

/// Everything that a run works with.
#[derive(Debug)]
pub struct Bench<'a> {
    /// What to run.
    pub plan: &'a Plan,
    /// Where it goes.
    pub output: &'a OutputFolder,
    /// Base, unless there is none.
    pub base: Option<SideBench>,
    /// Head.
    pub head: SideBench,
    /// Who starts and ends processes.
    pub processes: &'a Processes,
    /// Who tells.
    pub progress: &'a Progress,
    /// How long things may take.
    pub limits: Limits,
    /// For the native client.
    pub environment: &'a Environment,
}

/// The order in which the sides run inside each pair: random, the same for the same seed.
pub fn order(seed: u64, pairs: u32) -> Vec<[Side; 2]> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..pairs)
        .map(|_| if random.random_bool(0.5) { [Side::Base, Side::Head] } else { [Side::Head, Side::Base] })
        .collect()
}

/// The serving cases by server, in the order of the plan: cases with equal servers share one. The other kinds have none.
fn servers(cases: &[Case]) -> Vec<(Option<&Command>, Vec<&Case>)> {
    let mut groups: Vec<(Option<&Command>, Vec<&Case>)> = Vec::new();
    for case in cases {
        let server = case.server.as_ref();
        match groups.iter_mut().find(|(known, _)| server.is_some() && *known == server) {
            Some((_, group)) => group.push(case),
            None => groups.push((server, vec![case])),
        }
    }
    groups
}

/// Whether another pair still fits: as long as the mean of those before.
fn fits(budget: Option<Duration>, elapsed: Duration, pairs_done: u32) -> bool {
    budget.is_none_or(|budget| pairs_done == 0 || elapsed + elapsed / pairs_done <= budget)
}

impl Bench<'_> {
    /// Runs what the journal does not have yet. Failed cases are in the journal, not in the error.
    ///
    /// # Errors
    /// When the output folder cannot be written.
    pub async fn run(&mut self, journal: &mut Journal) -> Result<()> {
        let begun = Instant::now();
        self.warm_up(journal).await?;
        let warm = Instant::now();
        // Pairs of an interrupted run took none of this run's time.
        let mut run_now = 0;
        for (pair, sides) in (1_u32..).zip(order(self.plan.seed, self.plan.pairs)) {
            if self.is_finished(pair, journal) {
                continue;
            }
            if !fits(self.limits.budget, begun.elapsed(), run_now) {
                self.progress.say(&format!(
                    "the budget ends here: {} of {} pairs are done, {run_now} of them in {}",
                    pair - 1,
                    self.plan.pairs,
                    crate::duration::text(warm.elapsed())
                ));
                break;
            }
            self.progress.group(&format!("Pair {pair} of {}", self.plan.pairs));
            for side in sides {
                self.repetition(side, pair, journal).await?;
            }
            self.progress.end_group();
            run_now += 1;
        }
        Ok(())
    }

    fn side(&mut self, side: Side) -> Option<&mut SideBench> {
        match side {
            Side::Base => self.base.as_mut(),
            Side::Head => Some(&mut self.head),
        }
    }

    /// Whether the journal has every case of a pair.
    fn is_finished(&self, pair: u32, journal: &Journal) -> bool {
        let base = self.base.is_some().then_some(Side::Base);
        let mut sides = base.into_iter().chain([Side::Head]);
        sides.all(|side| self.plan.cases.iter().all(|case| journal.find(side, pair, &case.name).is_some()))
    }

    /// One case of every server on each side, thrown away: the first run on a machine reads files that later ones find in memory.
    async fn warm_up(&mut self, journal: &mut Journal) -> Result<()> {
        let plan = self.plan;
        let first: Vec<(&Command, &Case)> =
            servers(&plan.cases).into_iter().filter_map(|(server, cases)| Some((server?, *cases.first()?))).collect();
        if first.is_empty() || self.is_finished(plan.pairs, journal) {
            return Ok(());
        }
        self.progress.group("Warm-up");
        for side in [Side::Base, Side::Head] {
            if self.side(side).is_none() {
                continue;
            }
            let folder = self.make_folder(side, 0)?;
            for (number, (server, case)) in first.iter().enumerate() {
                self.serve(side, 0, number + 1, server, &[case], None).await?;
            }
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove `{}`", folder.display()))
                .world()?;
        }
        self.progress.end_group();
        Ok(())
    }

    /// The folder of a repetition, as an absolute path: children and containers run elsewhere.
    fn make_folder(&self, side: Side, repetition: u32) -> Result<std::path::PathBuf> {
        let folder = self.output.repetition(side, repetition);
        std::fs::create_dir_all(&folder)
            .and_then(|()| folder.canonicalize())
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))
            .world()
    }

    /// One pass over the cases that are not finished yet.
    async fn repetition(&mut self, side: Side, repetition: u32, journal: &mut Journal) -> Result<()> {
        if self.side(side).is_none() {
            return Ok(());
        }
        self.make_folder(side, repetition)?;
        let plan = self.plan;
        for (number, (server, cases)) in servers(&plan.cases).into_iter().enumerate() {
            let left: Vec<&Case> =
                cases.into_iter().filter(|case| journal.find(side, repetition, &case.name).is_none()).collect();
            if left.is_empty() {
                continue;
            }
            match server {
                Some(server) => self.serve(side, repetition, number + 1, server, &left, Some(journal)).await?,
                None => {
                    for case in left {
                        self.measure(side, repetition, case, None, Some(&mut *journal)).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts a server, measures its cases, ends it. Without a journal it is the warm-up.
    async fn serve(
        &mut self,
        side: Side,
        repetition: u32,
        number: usize,
        server: &Command,
        cases: &[&Case],
        mut journal: Option<&mut Journal>,
    ) -> Result<()> {
        let folder = self.make_folder(side, repetition)?;
        let log = folder.join(format!("server-{number}.log"));
        let (processes, progress, limits) = (self.processes, self.progress, self.limits);
        let Some(bench) = self.side(side) else { return Ok(()) };
        if bench.failures(server) >= START_TRIES {
            let reason = format!("server did not start in {START_TRIES} repetitions before; not tried again");
            return self.give_up(side, repetition, cases, &reason, journal);
        }
        progress.working(&format!("{} {repetition}: starting server {number}", side.as_str()));
        let name = format!("vllm-perf-{}-{}-{repetition}-{number}", bench.launch.run, side.as_str());
        let started = server::start(bench, processes, server, &folder, &log, &name, limits.server).await;
        bench.count_start(server, started.is_ok());
        let running = match started {
            Ok(running) => running,
            Err(error) => {
                let reason = format!("server did not start: {error:#} (log: {})", self.shown(&log));
                progress.failure(&reason, &tail(&log));
                return self.give_up(side, repetition, cases, &reason, journal);
            }
        };
        for (index, case) in cases.iter().enumerate() {
            let measured = self.measure(side, repetition, case, Some(&running), journal.as_deref_mut()).await?;
            let left = &cases[index + 1..];
            // A server that saw a failure may be gone, or still be at work for a client that is: the rest gets another.
            if !measured && !left.is_empty() {
                running.stop().await;
                return Box::pin(self.serve(side, repetition, number, server, left, journal)).await;
            }
        }
        running.stop().await;
        Ok(())
    }

    /// Measures one case, writes down how it ended, and tells whether it gave numbers.
    async fn measure(
        &mut self,
        side: Side,
        repetition: u32,
        case: &Case,
        server: Option<&server::Running>,
        journal: Option<&mut Journal>,
    ) -> Result<bool> {
        let folder = self.make_folder(side, repetition)?;
        let label = if repetition == 0 { "warm-up".to_owned() } else { repetition.to_string() };
        self.progress.working(&format!("{} {label}: {}", side.as_str(), case.name));
        let started = now();
        let begun = Instant::now();
        let (processes, limits, environment) = (self.processes, self.limits, self.environment);
        let Some(bench) = self.side(side) else { return Ok(false) };
        let case_run = case::CaseRun { bench, processes, folder: &folder, limit: limits.case, environment };
        let outcome = case_run.measure(case, server).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let failed = match outcome {
            Outcome::Measured(measurement) => {
                let numbers = crate::metric::of(case.kind)
                    .filter(|metric| metric.primary)
                    .filter_map(|metric| Some((metric, measurement.metrics.get(metric.id)?)))
                    .map(|(metric, value)| format!("{} {value:.4} {}", metric.label, metric.unit))
                    .take(2)
                    .collect::<Vec<_>>()
                    .join(", ");
                self.progress.finished(&format!("{} {label}: {}: {numbers}", side.as_str(), case.name));
                None
            }
            Outcome::Failed(reason) => {
                let log = folder.join(format!("{}.log", case.name));
                self.progress.failure(&format!("{} {label}: {}: {reason}", side.as_str(), case.name), &tail(&log));
                Some(reason)
            }
        };
        let measured = failed.is_none();
        self.write_down(side, repetition, case, started, seconds, failed, journal)?;
        Ok(measured)
    }

    fn give_up(
        &mut self,
        side: Side,
        repetition: u32,
        cases: &[&Case],
        reason: &str,
        mut journal: Option<&mut Journal>,
    ) -> Result<()> {
        for case in cases {
            self.progress.failure(&format!("{} {repetition}: {}: {reason}", side.as_str(), case.name), "");
            self.write_down(side, repetition, case, now(), 0.0, Some(reason.to_owned()), journal.as_deref_mut())?;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one journal line")]
    fn write_down(
        &self,
        side: Side,
        repetition: u32,
        case: &Case,
        started: String,
        seconds: f64,
        failed: Option<String>,
        journal: Option<&mut Journal>,
    ) -> Result<()> {
        let Some(journal) = journal else { return Ok(()) };
        self.progress.step();
        let order = journal.entries().len() as u64 + 1;
        journal.append(Entry { order, repetition, side, case: case.name.clone(), started, seconds, failed })
    }

    /// A path as it is found in the output folder.
    fn shown(&self, path: &std::path::Path) -> String {
        let root = self.output.root().canonicalize().unwrap_or_default();
        path.strip_prefix(&root).unwrap_or(path).display().to_string()
    }
}

/// What both sides gave, from the journal and the result files. A case that never ran is absent.
///
/// # Errors
/// When a result file that the journal names cannot be read.
pub fn collect(plan: &Plan, output: &OutputFolder, journal: &Journal, side: Side) -> Result<Vec<Repetition>> {
    let last = journal.entries().iter().filter(|entry| entry.side == side).map(|entry| entry.repetition).max();
    (1..=last.unwrap_or(0))
        .map(|repetition| {
            let folder = output.repetition(side, repetition);
            let mut outcomes = Repetition::new();
            for case in &plan.cases {
                let Some(entry) = journal.find(side, repetition, &case.name) else { continue };
                let outcome = match &entry.failed {
                    Some(reason) => Outcome::Failed(reason.clone()),
                    None => read(&folder, case.kind, &case.name)?,
                };
                outcomes.insert(case.name.clone(), outcome);
            }
            Ok(outcomes)
        })
        .collect()
}

fn read(folder: &std::path::Path, kind: Kind, case: &str) -> Result<Outcome> {
    let path = folder.join(format!("{case}.json"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display())).world()?;
    result::parse(kind, &text).with_context(|| format!("cannot read `{}`", path.display())).unmeasured()
}

/// The last lines of a log, to show beside a failure.
fn tail(log: &std::path::Path) -> String {
    let Ok(text) = std::fs::read(log) else { return String::new() };
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[expect(clippy::disallowed_methods, reason = "the journal tells when things ran")]
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_order_and_both_orders_occur() {
        assert_eq!(order(1, 10), order(1, 10));
        assert_ne!(order(1, 10), order(2, 10));
        let first: Vec<Side> = order(1, 10).iter().map(|pair| pair[0]).collect();
        assert!(first.contains(&Side::Base) && first.contains(&Side::Head));
    }

    #[test]
    fn a_pair_that_would_not_end_in_time_does_not_begin() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        assert!(fits(None, minutes(500), 3));
        assert!(fits(Some(minutes(1)), minutes(5), 0));
        assert!(fits(Some(minutes(20)), minutes(10), 1));
        assert!(!fits(Some(minutes(20)), minutes(16), 2));
    }
}
