//! One pass over cases on one side: measuring a case, its entry in the journal, and the time it took.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use vllm_verdict::repetition::{Measurement, Outcome};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Pass, Phase};
use vllm_verdict::v1::CaseFacts;

use super::case_run::{CaseOutcome, CaseRun};
use super::cost::Costs;
use super::log_end::tail;
use super::server_start::Running;
use super::session::{Session, now};
use super::side_run::SideRun;
use super::time_spent::{self, PassTime, Spent, Times};
use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::suite::{self, Case};
use crate::plan::target::Target;
use crate::result::{self, Document};
use crate::run::journal::{Entry, Journal};
use crate::system::host::outside_load::{ProcessorUse, Watch};
use crate::system::regular_file::{self, RESULT_LIMIT};
use crate::system::{docker, output};

/// One pass in progress. The results of a warm-up go to a journal that is not written.
pub struct PassRun<'r, 's> {
    pub session: &'r Session<'s>,
    pub side: Side,
    pub pass: Pass,
    /// The slice that is being measured, from 1.
    pub slice: u32,
    pub side_run: &'r mut SideRun,
    pub journal: &'r mut Journal,
    pub costs: &'r mut Costs,
    pub times: &'r mut Times,
    /// When its pair began, after the start of the run.
    pub pair_begun: Duration,
    /// Model files that have been read into memory.
    pub read_files: &'r mut BTreeSet<PathBuf>,
    pub tally: Tally,
}

/// What became of a case that ran.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    pub is_measured: bool,
    /// Whether the next case can use the same server.
    pub is_server_usable: bool,
}

/// Time and processor use of a pass so far.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub spent: Spent,
    pub servers: u32,
    /// Case runs.
    pub cases: u32,
    pub processors: ProcessorUse,
    /// Seconds during which `processors` was measured.
    pub watched: f64,
    /// Case runs with a primary metric that the client distorted.
    pub distorted: u32,
}

impl PassRun<'_, '_> {
    /// The folder of the pass.
    pub fn folder(&self) -> PathBuf {
        self.session.output.pass(self.side, self.pass)
    }

    /// Makes the folder of the pass and returns its absolute path: children and containers run in other folders.
    pub fn make_folder(&self) -> Result<PathBuf> {
        output::make_folders(self.session.output.root(), &self.folder())
    }

    /// Makes the folder of the slice and returns its absolute path.
    fn make_slice_folder(&self) -> Result<PathBuf> {
        output::make_folders(self.session.output.root(), &output::slice(&self.folder(), self.slice))
    }

    /// `base 2`, `head warm-up`, `head 2 slice 3`; the first slice is not named.
    pub fn label(&self) -> String {
        let side = self.side.as_str();
        let slice = if self.slice > 1 { format!(" slice {}", self.slice) } else { String::new() };
        match self.pass.phase {
            Phase::WarmUp | Phase::Screen => format!("{side} {}", self.pass.phase.as_str()),
            Phase::Pairs | Phase::MorePairs => format!("{side} {}{slice}", self.pass.pair),
        }
    }

    /// Measures one slice of a case and records the outcome.
    pub async fn measure(&mut self, case: &Case, server: Option<&Running>) -> Result<Ran> {
        let folder = self.make_slice_folder()?;
        let (label, case) = (self.label(), &of_slice(case, self.slice));
        let Session { output, processes, progress, limits, environment, .. } = *self.session;
        progress.working(&format!("{label}: {}", case.name));
        let (started, begun) = (now(), Instant::now());
        let container = server.and_then(|server| server.container.clone());
        let container_time = processor_time(container.as_deref(), environment).await;
        // Where the processor time of the server is unknown it would count as outside load: of a container whose time is
        // not there or that ends before it is read, and of a remote server, which may be on this machine.
        let is_attributed = match &self.side_run.plan.target {
            Target::Image(_) => container_time.is_some(),
            Target::Remote(_) => false,
            Target::Wheel(_) | Target::Local(_) | Target::Sim(_) => true,
        };
        let watch = Watch::begin(container_time);
        let case_run = CaseRun {
            side: self.side_run,
            output,
            processes,
            folder: &folder,
            limit: limits.case,
            most_distortion: limits.distortion,
            environment,
        };
        let CaseOutcome { outcome, is_server_usable } = case_run.measure(case, server).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let container_time = processor_time(container.as_deref(), environment).await;
        if let (true, Some(used)) = (is_attributed, watch.end(container_time)) {
            self.tally.processors.outside += used.outside;
            self.tally.processors.capacity += used.capacity;
            self.tally.watched += seconds;
        }
        self.spend(case, &folder, seconds);
        let failed = match outcome {
            Outcome::Measured(measurement) => {
                let has = |id: &str| measurement.metrics.contains_key(id);
                let primary = self.session.verdict.primary_of(&CaseFacts::from(case), has);
                progress.finished(&format!("{label}: {}: {}", case.name, main_values(&primary, &measurement)));
                self.costs.learn_case(self.side, &case.name, seconds);
                self.side_run.failures_of_mut(case).measured(&case.name);
                None
            }
            Outcome::Failed(reason) => {
                let own = folder.join(format!("{}.log", case.name));
                let log = server.and_then(Running::log).filter(|_| !own.exists()).map_or(own, |log| log.path.clone());
                progress.failure(&format!("{label}: {}", case.name), &reason, &tail(&log));
                // One case of each server is warmed up: the others may be better.
                if !is_server_usable && self.pass.phase != Phase::WarmUp {
                    let own = format!("{}.log", case.name);
                    let log = server.and_then(Running::log).map_or(own, |log| log.shown.clone());
                    self.side_run.failures_of_mut(case).failed(&case.name, &reason, &log);
                }
                Some(reason)
            }
        };
        let is_measured = failed.is_none();
        self.record(case, started, seconds, failed)?;
        Ok(Ran { is_measured, is_server_usable })
    }

    /// Splits the time of a case into measuring and the client's start and end.
    fn spend(&mut self, case: &Case, folder: &Path, seconds: f64) {
        let path = folder.join(format!("{}.json", case.name));
        let result = regular_file::text(&path, RESULT_LIMIT).unwrap_or_default();
        let measuring = time_spent::measured(case.kind, &result).unwrap_or(seconds).min(seconds);
        if let Ok(Outcome::Measured(measurement)) = result::parse(case.kind, &result) {
            let has = |id: &str| measurement.metrics.contains_key(id) || measurement.missing.iter().any(|it| it == id);
            let primary = self.session.verdict.primary_of(&CaseFacts::from(case), has);
            let is_distorted = |id: &String| primary.contains(&id.as_str());
            if matches!(Document::read(case.kind, &result), Ok(Document::Serving(it)) if it.distorted.iter().any(is_distorted))
            {
                self.tally.distorted += 1;
            }
        }
        self.tally.spent.measuring += measuring;
        self.tally.spent.client_start += seconds - measuring;
        self.tally.cases += 1;
    }

    /// Records cases as failed without running them. A further slice leaves its commands, by which those who read the files
    /// alone see that it failed.
    pub fn give_up(&mut self, cases: &[&Case], reason: &str) -> Result<()> {
        for case in cases {
            if self.slice > 1 {
                self.side_run.write_commands(case, &self.make_slice_folder()?)?;
            }
            self.session.progress.failure(&format!("{}: {}", self.label(), case.name), reason, "");
            self.record(case, now(), 0.0, Some(reason.to_owned()))?;
        }
        Ok(())
    }

    fn record(&mut self, case: &Case, started: String, seconds: f64, failed: Option<String>) -> Result<()> {
        // The total of the progress bar has no warm-up.
        if self.pass.phase != Phase::WarmUp {
            self.session.progress.step();
        }
        self.journal.append(Entry {
            order: self.journal.next_order(),
            phase: self.pass.phase,
            repetition: self.pass.pair,
            side: self.side,
            case: case.name.clone(),
            slice: self.slice,
            started,
            seconds,
            failed,
        })
    }

    /// Adds the time of the pass to the times of the run.
    pub fn account(&mut self, begun: Instant, kept: bool) -> Result<()> {
        let Tally { mut spent, servers, cases, .. } = self.tally;
        spent.total = begun.elapsed().as_secs_f64();
        let Pass { phase, pair } = self.pass;
        let time = PassTime { phase, pair, side: self.side, servers, cases, spent, kept, expected: None };
        self.costs.learn_pass(&time);
        self.times.add(time)
    }

    /// Moves the files of a pass that does not count to `void/`, where they can still be read.
    pub fn set_aside(&self) -> Result<()> {
        let (from, to) = (self.folder(), self.session.output.void(self.side, self.pass));
        let cannot = || format!("cannot move `{}` aside", from.display());
        std::fs::create_dir_all(to.parent().unwrap_or(&to)).with_context(cannot).world()?;
        std::fs::rename(&from, &to).with_context(cannot).world()
    }
}

/// The case as a slice measures it. What a recipe asks to repeat is repeated as it is.
fn of_slice(case: &Case, slice: u32) -> Case {
    let mut case = case.clone();
    if case.slices.is_none() {
        case.client.argv = suite::of_slice(&case.client.argv, slice);
    }
    case
}

/// The first two primary metrics of a measurement: `Median TTFT 12.3 ms, ...`.
fn main_values(primary: &[&str], measurement: &Measurement) -> String {
    vllm_verdict::metric::ALL
        .iter()
        .filter(|metric| metric.kind == measurement.kind && primary.contains(&metric.id))
        .filter_map(|metric| Some((metric, measurement.metrics.get(metric.id)?)))
        .map(|(metric, value)| format!("{} {value:.4} {}", metric.label, metric.unit))
        .take(2)
        .collect::<Vec<_>>()
        .join(", ")
}

async fn processor_time(container: Option<&str>, environment: &Environment) -> Option<f64> {
    docker::processor_time(container?, environment).await
}
