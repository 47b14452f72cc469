//! Student's t distribution: its upper tail and the inverse of it, to the precision of the tail.

use statrs::distribution::{ContinuousCDF, Normal};
use statrs::function::beta::{beta_reg, ln_beta};

/// Student's t with some degrees of freedom.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Student {
    freedom: f64,
}

impl Student {
    /// The distribution with `freedom` degrees of freedom, a positive number.
    pub fn new(freedom: f64) -> Self {
        Self { freedom }
    }

    /// The chance of a value above `t`, which is not negative.
    pub fn tail(&self, t: f64) -> f64 {
        // Beyond this the square overflows; the chance is 0 for every practical purpose.
        let squared = t * t;
        if !squared.is_finite() {
            return 0.0;
        }
        0.5 * beta_reg(self.freedom / 2.0, 0.5, self.freedom / (self.freedom + squared))
    }

    /// The value above which lies the chance `chance`, which is more than 0 and less than a half.
    pub fn beyond(&self, chance: f64) -> f64 {
        let goal = chance.ln();
        let start = Normal::standard().inverse_cdf(1.0 - chance.max(1e-15)).max(1e-3);
        // Newton's method on the logarithms of both: the tail of t is a power of t, on which it takes few steps.
        let mut log_t = start.ln();
        for _ in 0..60 {
            let t = log_t.exp();
            let tail = self.tail(t);
            if tail <= 0.0 {
                log_t -= 1.0;
                continue;
            }
            let step = (tail.ln() - goal) * tail / (self.log_density(t) + log_t).exp();
            log_t += step.clamp(-2.0, 2.0);
            if step.abs() < 1e-13 {
                break;
            }
        }
        log_t.exp()
    }

    fn log_density(&self, t: f64) -> f64 {
        let half = self.freedom / 2.0;
        -(half + 0.5) * (t * t / self.freedom).ln_1p() - 0.5 * self.freedom.ln() - ln_beta(half, 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_and_their_inverse_are_those_of_scipy() {
        // scipy.stats.t.isf(chance, freedom)
        for (chance, freedom, expected) in [
            (0.025, 8.0, 2.3060041352041662),
            (0.05, 2.0, 2.9199855803537256),
            (0.2, 1008.0, 0.8419779671219412),
            (1e-6, 4.0, 41.577854150450975),
            (3e-5, 1.0, 10610.329508043762),
            (0.0004, 11.5, 4.505248030244343),
        ] {
            let student = Student::new(freedom);
            let actual = student.beyond(chance);
            assert!((actual / expected - 1.0).abs() < 1e-9, "{chance} {freedom}: {actual} is not {expected}");
            assert!((student.tail(actual) / chance - 1.0).abs() < 1e-9);
        }
        assert_eq!(Student::new(8.0).tail(0.0), 0.5);
        assert_eq!(Student::new(8.0).tail(1e200), 0.0);
    }
}
