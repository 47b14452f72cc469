//! One side during a run: its plan, how its commands start, and which of its servers failed to start.

use std::path::Path;

use anyhow::Result;
use vllm_verdict::v1::SideFacts;

use super::server_failures::ServerFailures;
use crate::exit::Classify;
use crate::plan::SidePlan;
use crate::plan::suite::{self, Case, Command};
use crate::run::launch::{FetchedBuild, Launch};
use crate::system::output;

/// What is known about a side before it runs.
#[derive(Debug)]
pub struct Fetched {
    pub facts: SideFacts,
    /// Its build; `None` where its target is none.
    pub build: Option<FetchedBuild>,
}

#[derive(Debug)]
pub struct SideRun {
    pub plan: SidePlan,
    pub launch: Launch,
    /// For the report; completed while the side runs.
    pub facts: SideFacts,
    /// Servers and how often in a row each failed to start.
    failed_starts: Vec<(Command, u32)>,
    /// Of cases with a server.
    pub failures: ServerFailures,
    /// Of benchmarks without one.
    pub benchmark_failures: ServerFailures,
}

/// How many passes in a row a server may fail to start before its cases are given up.
pub const START_ATTEMPTS: u32 = 2;

impl SideRun {
    /// A side that has not run yet.
    pub fn new(plan: SidePlan, launch: Launch) -> Self {
        Self {
            plan,
            launch,
            facts: SideFacts::default(),
            failed_starts: Vec::new(),
            failures: ServerFailures::default(),
            benchmark_failures: ServerFailures::default(),
        }
    }

    /// Takes what was found out about the side's build.
    pub fn know(&mut self, fetched: Fetched) {
        self.facts = fetched.facts;
        self.launch.build = fetched.build;
    }

    /// Writes the commands of a case into a folder of results.
    pub fn write_commands(&self, case: &Case, folder: &Path) -> Result<()> {
        let commands = suite::commands_json(case, &self.launch.gpu_type, &self.plan.server_args);
        output::write(&folder.join(format!("{}.commands", case.name)), commands.as_bytes()).world()
    }

    /// The failures that count for a case.
    pub fn failures_of(&self, case: &Case) -> &ServerFailures {
        if case.server.is_some() { &self.failures } else { &self.benchmark_failures }
    }

    /// The failures that count for a case, to add one.
    pub fn failures_of_mut(&mut self, case: &Case) -> &mut ServerFailures {
        if case.server.is_some() { &mut self.failures } else { &mut self.benchmark_failures }
    }

    /// Why a case is not tried again on this side.
    pub fn given_up(&self, case: &Case) -> Option<String> {
        let failures = self.failures_of(case);
        let server = case.server.as_ref().filter(|server| self.failed_starts(server) >= START_ATTEMPTS);
        if let Some(reason) = failures.all_given_up() {
            return Some(format!("not tried: {reason}"));
        }
        match (failures.case_given_up(&case.name), server) {
            (Some(reason), _) => Some(format!("not tried again: {reason}")),
            (None, Some(_)) => {
                Some(format!("the server did not start in {START_ATTEMPTS} earlier repetitions; not tried again"))
            }
            (None, None) => None,
        }
    }

    /// The failure because of which a case is given up, for the report; `None` where it is tried.
    pub fn cause(&self, case: &Case) -> Option<String> {
        let given_up = self.given_up(case)?;
        Some(self.failures_of(case).cause(&case.name).map_or(given_up, str::to_owned))
    }

    /// How often in a row a server failed to start.
    pub fn failed_starts(&self, server: &Command) -> u32 {
        self.failed_starts.iter().find(|(command, _)| command == server).map_or(0, |(_, times)| *times)
    }

    /// Counts a start, successful or not.
    pub fn count_start(&mut self, server: &Command, started: bool) {
        let times = if started { 0 } else { self.failed_starts(server) + 1 };
        self.failed_starts.retain(|(command, _)| command != server);
        self.failed_starts.push((server.clone(), times));
    }
}
