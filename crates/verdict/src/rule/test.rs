//! Step 5: standard error, p value and interval of an estimate. Step 10: what it could have detected, and with how many pairs
//! more.

use crate::statistics::{LEAST_VARIANCE, relative};
use crate::student::Student;

/// Ratio of the standard error of Hodges-Lehmann to that of the mean, for normal noise.
const HODGES_LEHMANN: f64 = 1.02;
/// Power at which a change counts as detectable.
const POWER: f64 = 0.80;
/// Largest number of pairs that is computed; more are not practical.
pub(crate) const MOST_PAIRS: u32 = 1000;

/// An estimate on the log scale, head minus base, with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Test {
    pub estimate: f64,
    /// Variance of one repetition, at least [`LEAST_VARIANCE`].
    pub variance: f64,
    pub freedom: f64,
    /// The variance of the estimate in parts of that of a repetition.
    pub share: f64,
}

impl Test {
    /// Standard deviation of the logarithm of one repetition.
    pub fn deviation(&self) -> f64 {
        self.variance.max(LEAST_VARIANCE).sqrt()
    }

    fn error(&self) -> f64 {
        HODGES_LEHMANN * (self.variance.max(LEAST_VARIANCE) * self.share).sqrt()
    }

    /// Two-sided p value of Student's t test against no difference.
    pub fn p(&self) -> f64 {
        (2.0 * Student::new(self.freedom).tail(self.estimate.abs() / self.error())).min(1.0)
    }

    /// Two-sided confidence interval on the log scale, at a confidence like 0.95.
    pub fn interval(&self, confidence: f64) -> (f64, f64) {
        let reach = Student::new(self.freedom).beyond((1.0 - confidence) / 2.0) * self.error();
        (self.estimate - reach, self.estimate + reach)
    }

    /// Smallest relative change (0.03 is 3 %) that has 80 % power to be significant at `level`, two-sided, and to be
    /// estimated as at least `min_effect`.
    pub fn detectable(&self, level: f64, min_effect: f64) -> f64 {
        detectable(self.error(), self.freedom, level, min_effect)
    }

    /// The number of pairs at which 1.5 times the minimum effect is detectable; `None` beyond [`MOST_PAIRS`]. `pairs` is the
    /// number that there are. A true change of exactly the minimum effect is found at most half of the time, however many
    /// pairs there are.
    pub fn needed(&self, pairs: usize, level: f64, min_effect: f64) -> Option<u32> {
        let of_pair = self.freedom / (pairs.checked_sub(1).filter(|pairs| *pairs > 0)? as f64);
        let suffices = |pairs: u32| {
            let error = HODGES_LEHMANN * self.deviation() * (2.0 / f64::from(pairs)).sqrt();
            detectable(error, of_pair * f64::from(pairs - 1), level, min_effect) <= 1.5 * min_effect
        };
        // More pairs never detect less: bisect.
        let (mut too_few, mut enough) = (1, MOST_PAIRS);
        if !suffices(enough) {
            return None;
        }
        while enough - too_few > 1 {
            let middle = u32::midpoint(too_few, enough);
            if suffices(middle) { enough = middle } else { too_few = middle }
        }
        Some(enough)
    }
}

fn detectable(error: f64, freedom: f64, level: f64, min_effect: f64) -> f64 {
    let student = Student::new(freedom);
    let margin = (student.beyond(level / 2.0) * error).max(min_effect.ln_1p());
    relative(margin + student.beyond(1.0 - POWER) * error)
}
