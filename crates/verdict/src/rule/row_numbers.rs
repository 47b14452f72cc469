//! The numbers of a tested row, together.

use super::decision;
use super::sample::Sample;
use super::test::Test;
use crate::v1::Verdict;

/// The numbers of a tested row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub test: Test,
    /// Adjusted p value; primary and overall rows only.
    pub q: Option<f64>,
    /// Smallest relative change that is detected with 80 % power; primary and overall rows only.
    pub detectable: Option<f64>,
    /// Pairs at which 1.5 times the minimum effect is detectable, where the row is `inconclusive`.
    pub needed: Option<u32>,
}

impl Numbers {
    pub fn new(sample: &Sample<'_>, test: Test, q: Option<f64>, level: f64, fdr: f64, pairs: usize) -> Self {
        let detectable = q.map(|_| test.detectable(level, sample.min_effect));
        let inconclusive = q.is_some() && decision::of_test(sample, &test, q, fdr) == Verdict::Inconclusive;
        let needed = inconclusive.then(|| test.needed(pairs, level, sample.min_effect)).flatten();
        Self { test, q, detectable, needed }
    }
}
