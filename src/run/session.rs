//! The constant part of a run: what is measured, where results go, and under which limits.

use std::time::{Duration, Instant};

use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::noise::Noise;

use crate::environment::Environment;
use crate::plan::Plan;
use crate::plan::estimate::by_server;
use crate::plan::suite::Case;
use crate::run::progress::Progress;
use crate::system::output::OutputFolder;
use crate::system::process::Processes;

/// Limits of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a server may take to start.
    pub server: Duration,
    /// How long one case may take.
    pub case: Duration,
    /// No further pair begins that would end after this time.
    pub budget: Option<Duration>,
    /// Share of the processors that other programs may use during a repetition; above it, the repetition is repeated.
    pub outside_load: f64,
    /// Share by which the load client may change a metric; above it, the repetition is repeated.
    pub distortion: f64,
}

/// Everything that stays the same during a run.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    pub plan: &'a Plan,
    pub output: &'a OutputFolder,
    pub processes: &'a Processes,
    pub progress: &'a Progress,
    pub limits: Limits,
    pub environment: &'a Environment,
    pub verdict: &'a VerdictConfig,
    /// Noise of the rows, from A/A runs.
    pub noise: &'a Noise,
    pub begun: Instant,
}

impl Session<'_> {
    /// Whether something that takes this long would end after the budget.
    pub fn is_over_budget_after(&self, more: Duration) -> bool {
        self.limits.budget.is_some_and(|budget| self.begun.elapsed().saturating_add(more) > budget)
    }
}

/// How many servers the cases need.
pub fn server_count<'a>(cases: impl IntoIterator<Item = &'a Case>) -> usize {
    by_server(cases).iter().filter(|(server, _)| server.is_some()).count()
}

/// The current time, RFC 3339 in UTC.
#[expect(clippy::disallowed_methods, reason = "the journal records when cases ran")]
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
