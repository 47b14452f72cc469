//! The input of a comparison.

use crate::criteria::VerdictConfig;
use crate::noise::Noise;
use crate::repetition::Repetition;
use crate::v1::{CaseFacts, Look, Skipped, Subject};

/// The measurements of both sides, and the settings and noise to judge them by: the input of
/// [`compare`](crate::compare).
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub subject: Subject,
    /// The cases, in the order of the plan.
    pub cases: Vec<CaseFacts>,
    /// Repetitions of base, in order; empty without a base.
    pub base: Vec<Repetition>,
    /// Repetitions of head, in order.
    pub head: Vec<Repetition>,
    /// Tests that were not run, and why.
    pub skipped: Vec<Skipped>,
    /// Planned repetitions of each side.
    pub planned_pairs: u32,
    /// Seed of the order inside each pair.
    pub seed: u64,
    pub verdict: VerdictConfig,
    /// Noise of the rows in earlier A/A runs.
    pub noise: Noise,
    /// Interim analyses, by number of pairs; empty for one analysis of all pairs. A case that a look decided needs no
    /// later repetitions.
    pub looks: Vec<Look>,
}
