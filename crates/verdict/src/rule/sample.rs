//! A row as the rule reads it.

use crate::case::Kind;
use crate::metric::Direction;
use crate::v1::RepetitionValue;

/// A row before its verdict.
#[derive(Debug, Clone)]
pub(crate) struct Sample<'a> {
    pub kind: Kind,
    /// Metric id. Rows of one kind and metric are a group.
    pub metric: &'a str,
    pub direction: Direction,
    /// Smallest relative change that is a finding.
    pub min_effect: f64,
    pub primary: bool,
    /// A value for each repetition, in the order of the pairs.
    pub base: &'a [Option<RepetitionValue>],
    pub head: &'a [Option<RepetitionValue>],
    /// Repetitions in which the case failed, base and head.
    pub failed: [usize; 2],
    /// Standard deviation of the log-ratios of enough stored A/A pairs of this row.
    pub calibrated: Option<f64>,
}

impl<'a> Sample<'a> {
    pub fn group(&self) -> (Kind, &'a str) {
        (self.kind, self.metric)
    }
}
