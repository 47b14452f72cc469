//! What a comparison is made of.

use crate::criteria::VerdictConfig;
use crate::noise::Noise;
use crate::repetition::Repetition;
use crate::v1::{CaseFacts, Look, Skipped, Subject};

/// What [`compare`](crate::rows::compare) needs: what was measured on both sides, and what is known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// What is compared, where and how.
    pub subject: Subject,
    /// The cases, in the order of the plan.
    pub cases: Vec<CaseFacts>,
    /// Repetitions of base in order; none where there is no base.
    pub base: Vec<Repetition>,
    /// Repetitions of head in order.
    pub head: Vec<Repetition>,
    /// Tests that were left out, and why.
    pub skipped: Vec<Skipped>,
    /// Repetitions a side that were planned.
    pub planned_pairs: u32,
    /// Seed of the order inside each pair.
    pub seed: u64,
    /// When a change is called one.
    pub verdict: VerdictConfig,
    /// What is known of the noise of the rows.
    pub noise: Noise,
    /// When the values are looked at, in order of their pairs; with none, once, at all of them. A case that a look decided
    /// needs no later repetitions.
    pub looks: Vec<Look>,
}
