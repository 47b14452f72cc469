//! Step 2: the estimate of a row (head minus base, on the log scale) and the variance of one repetition.

use super::prior::Prior;
use super::test::Test;
use crate::statistics::{LEAST_VARIANCE, hodges_lehmann, mean, squared_deviations, variance, walsh};

/// The estimate of a row with the variance that its repetitions show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shift {
    /// Head minus base, Hodges-Lehmann.
    pub estimate: f64,
    /// Variance of one repetition.
    pub variance: f64,
    /// Degrees of freedom of the variance.
    pub freedom: f64,
    /// The variance of the estimate in parts of that of a repetition: `1/nb + 1/nh`.
    pub share: f64,
}

/// The shift of a row: between sides, or inside pairs where the report is blocked. `None` with fewer than two values, or pairs.
pub(super) fn shift(base: &[Option<f64>], head: &[Option<f64>], blocked: bool) -> Option<Shift> {
    if blocked {
        let inside: Vec<f64> = base.iter().zip(head).filter_map(|(base, head)| Some((*head)? - (*base)?)).collect();
        return inside_pairs(&inside);
    }
    let present = |side: &[Option<f64>]| side.iter().copied().flatten().collect::<Vec<f64>>();
    between_sides(&present(base), &present(head))
}

/// From the differences inside pairs.
pub(super) fn inside_pairs(differences: &[f64]) -> Option<Shift> {
    let pairs = differences.len() as f64;
    if differences.len() < 2 {
        return None;
    }
    let estimate = walsh(differences)?;
    Some(Shift { estimate, variance: variance(differences) / 2.0, freedom: pairs - 1.0, share: 2.0 / pairs })
}

/// From the values of both sides.
pub(super) fn between_sides(base: &[f64], head: &[f64]) -> Option<Shift> {
    if base.len() < 2 || head.len() < 2 {
        return None;
    }
    let freedom = (base.len() + head.len()) as f64 - 2.0;
    let spread = squared_deviations(base, mean(base)?) + squared_deviations(head, mean(head)?);
    let share = 1.0 / base.len() as f64 + 1.0 / head.len() as f64;
    Some(Shift { estimate: hodges_lehmann(base, head)?, variance: spread / freedom, freedom, share })
}

impl Shift {
    /// The test with the variance drawn to that of the prior: `v = (w0 s0^2 + df s2) / (w0 + df)` (Smyth 2004, as in limma).
    pub fn moderated(&self, prior: Prior) -> Test {
        let freedom = prior.weight + self.freedom;
        let variance = (prior.weight * prior.variance + self.freedom * self.variance) / freedom;
        Test { estimate: self.estimate, variance: variance.max(LEAST_VARIANCE), freedom, share: self.share }
    }
}
