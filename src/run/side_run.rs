//! One side during a run: its plan, how its commands start, and which of its servers failed to start.

use vllm_verdict::v1::SideFacts;

use crate::plan::SidePlan;
use crate::plan::suite::Command;
use crate::run::launch::Launch;

/// What is known about a side before it runs.
#[derive(Debug)]
pub struct Fetched {
    pub facts: SideFacts,
    /// Its image by the digest that the registry named, or else by the engine's id.
    pub pinned: Option<String>,
}

#[derive(Debug)]
pub struct SideRun {
    pub plan: SidePlan,
    pub launch: Launch,
    /// For the report; completed while the side runs.
    pub facts: SideFacts,
    /// Servers and how often in a row each failed to start.
    failed_starts: Vec<(Command, u32)>,
}

impl SideRun {
    /// A side that has not run yet.
    pub fn new(plan: SidePlan, launch: Launch) -> Self {
        Self { plan, launch, facts: SideFacts::default(), failed_starts: Vec::new() }
    }

    /// Takes what was found out about the side's image.
    pub fn know(&mut self, fetched: Fetched) {
        self.facts = fetched.facts;
        self.launch.pinned = fetched.pinned;
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
