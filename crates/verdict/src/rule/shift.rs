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

#[cfg(test)]
mod tests {
    //! Expected values were computed with numpy 2 and SciPy 1; the call is next to each, with
    //! `x = np.log([101.2, 99.8, 100.4, 102.1, 98.9])` and `y = np.log([108.3, 107.1, 109.9, 106.5, 110.2])`.
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::statistics::{RESOLUTION, relative};

    fn x() -> Vec<f64> {
        [101.2_f64, 99.8, 100.4, 102.1, 98.9].map(f64::ln).to_vec()
    }

    fn y() -> Vec<f64> {
        [108.3_f64, 107.1, 109.9, 106.5, 110.2].map(f64::ln).to_vec()
    }

    fn test(base: &[f64], head: &[f64], prior: Prior) -> Test {
        between_sides(base, head).unwrap().moderated(prior)
    }

    #[track_caller]
    fn assert_close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() <= 1e-9 * expected.abs().max(1e-300), "{actual:e} is not {expected:e}");
    }

    #[test]
    fn the_shift_of_five_against_five_is_that_of_scipy() {
        let shift = test(&x(), &y(), Prior::default());
        assert_close(shift.estimate, 0.07574294674931537); // np.median(np.subtract.outer(y, x))
        // se = 1.02 * np.sqrt(pooled) * np.sqrt(2 / 5)
        assert_close(shift.p(), 2.7982729308085058e-05); // 2 * stats.t.sf(estimate / se, 8)
        let (low, high) = shift.interval(0.95); // np.expm1(estimate -+ stats.t.ppf(.975, 8) * se)
        assert_close(relative(low), 0.05676407097470562);
        assert_close(relative(high), 0.10106117331688702);
        let (low, high) = shift.interval(0.90); // np.expm1(estimate -+ stats.t.ppf(.95, 8) * se)
        assert_close(relative(low), 0.060973083641354835);
        assert_close(relative(high), 0.09669312619420148);
        // np.expm1((stats.t.ppf(1 - .05 / 2 / 30, 8) + stats.t.ppf(.8, 8)) * se)
        assert_close(shift.detectable(0.05 / 30.0, 0.03), 0.05045616250514106);
        // np.expm1(np.log1p(.08) + stats.t.ppf(.8, 8) * se)
        assert_close(shift.detectable(0.05, 0.08), 0.08858126292146745);
    }

    #[test]
    fn sides_of_different_length_are_weighed_by_their_length() {
        let shift = test(&x(), &y()[..3], Prior::default());
        assert_close(shift.estimate, 0.07574294674931537); // np.median(np.subtract.outer(y[:3], x))
        // se = 1.02 * np.sqrt((np.var(x, ddof=1) * 4 + np.var(y[:3], ddof=1) * 2) / 6 * (1 / 5 + 1 / 3))
        assert_close(shift.p(), 0.00018673597229993826); // 2 * stats.t.sf(estimate / se, 6)
    }

    #[test]
    fn a_prior_adds_its_variance_and_its_degrees_of_freedom() {
        let own = between_sides(&x(), &y()).unwrap();
        assert_close(own.variance, 0.00019048449701626773); // (np.var(x, ddof=1) * 4 + np.var(y, ddof=1) * 4) / 8
        let shift = own.moderated(Prior { weight: 8.0, variance: 0.02 * 0.02 / 2.0 });
        assert_close(shift.variance, 0.00019524224850813387); // (8 * 0.02**2 / 2 + 8 * pooled) / (8 + 8)
        assert_eq!(shift.freedom, 16.0);
        assert_close(shift.p(), 2.915060414940009e-07); // 2 * stats.t.sf(estimate / se, 16)
        let (low, high) = shift.interval(0.90); // np.expm1(estimate -+ stats.t.ppf(.95, 16) * se)
        assert_close(relative(low), 0.061842459826875563);
        assert_close(relative(high), 0.09579521626611952);
    }

    #[test]
    fn differences_inside_pairs_have_twice_the_variance_of_a_repetition() {
        let shift = inside_pairs(&[0.01, 0.03, 0.02, 0.06]).unwrap();
        assert_close(shift.estimate, 0.0275); // d = np.array([.01, .03, .02, .06]); the median of (d_i + d_j) / 2, i <= j
        assert_close(shift.variance, 0.00023333333333333333); // np.var(d, ddof=1) / 2
        assert_eq!((shift.freedom, shift.share), (3.0, 0.5));
        assert_eq!(inside_pairs(&[0.01]), None);
    }

    #[test]
    fn equal_repetitions_have_the_variance_of_the_resolution() {
        let same = test(&[1.0; 5], &[1.0; 5], Prior::default());
        assert_eq!((same.estimate, same.deviation(), same.p()), (0.0, RESOLUTION, 1.0));
        let moved = test(&[0.0; 2], &[0.03; 2], Prior::default());
        // 2 * stats.t.sf(0.03 / (1.02 * 1e-4), 2)
        assert_close(moved.p(), 1.1559799553461937e-05);
    }

    #[test]
    fn too_few_values_have_no_shift_and_extreme_noise_gives_finite_numbers() {
        assert_eq!(between_sides(&[1.0], &[1.0, 2.0]), None);
        assert_eq!(between_sides(&[], &[]), None);
        let wild = test(&[-700.0, 700.0], &[700.0, -700.0], Prior::default());
        let (low, high) = wild.interval(0.95);
        for value in [wild.p(), relative(low), relative(high), wild.detectable(0.05, 0.03)] {
            assert!(value.is_finite(), "{value}");
        }
        assert_eq!(wild.needed(2, 0.05, 0.02), None);
    }

    /// A thousand samples with a fixed seed: two to ten repetitions on each side, noise and shift of random size, and every
    /// second time a prior.
    fn samples() -> impl Iterator<Item = (Vec<f64>, Vec<f64>, Prior)> {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        (0..1000).map(move |number| {
            let deviation = 10_f64.powf(random.random_range(-3.0..0.5));
            let moved = random.random_range(-1.0..1.0);
            let mut side = |moved: f64| {
                let length = random.random_range(2..=10);
                (0..length).map(|_| moved + deviation * random.random_range(-1.0..1.0)).collect::<Vec<f64>>()
            };
            let (base, head) = (side(0.0), side(moved));
            let prior = Prior { weight: 8.0, variance: deviation * deviation / 2.0 };
            (base, head, if number % 2 == 0 { prior } else { Prior::default() })
        })
    }

    #[test]
    fn swapping_the_sides_only_changes_the_sign() {
        for (base, head, prior) in samples() {
            let (forth, back) = (test(&base, &head, prior), test(&head, &base, prior));
            assert_close(forth.variance, back.variance);
            assert!((forth.estimate + back.estimate).abs() < 1e-12, "{base:?} {head:?}");
            assert!((forth.p() - back.p()).abs() < 1e-9, "{base:?} {head:?}");
            let ((low, high), (back_low, back_high)) = (forth.interval(0.9), back.interval(0.9));
            assert!((low + back_high).abs() < 1e-9 && (high + back_low).abs() < 1e-9, "{base:?} {head:?}");
        }
    }

    #[test]
    fn another_unit_or_a_change_of_both_sides_changes_nothing() {
        for (base, head, prior) in samples() {
            let moved = |values: &[f64]| values.iter().map(|value| value + 1000_f64.ln()).collect::<Vec<f64>>();
            let (one, other) = (test(&base, &head, prior), test(&moved(&base), &moved(&head), prior));
            assert!((one.estimate - other.estimate).abs() < 1e-9, "{base:?} {head:?}");
            assert!((one.deviation() - other.deviation()).abs() < 1e-9, "{base:?} {head:?}");
            assert!((one.p() - other.p()).abs() < 1e-6, "{base:?} {head:?}");
        }
    }

    #[test]
    fn stretching_differences_and_noise_alike_stretches_the_estimate_and_keeps_p() {
        for (base, head, prior) in samples() {
            let stretched = |values: &[f64]| values.iter().map(|value| 3.0 * value).collect::<Vec<f64>>();
            let one = test(&base, &head, prior);
            let wide = Prior { variance: 9.0 * prior.variance, ..prior };
            let other = test(&stretched(&base), &stretched(&head), wide);
            if one.deviation() > RESOLUTION {
                assert!((3.0 * one.estimate - other.estimate).abs() < 1e-9, "{base:?} {head:?}");
                assert!((one.p() - other.p()).abs() < 1e-9, "{base:?} {head:?}");
            }
        }
    }

    #[test]
    fn the_order_of_repetitions_does_not_matter_and_the_estimate_lies_between_the_extremes() {
        for (base, head, prior) in samples() {
            let reversed = |values: &[f64]| values.iter().rev().copied().collect::<Vec<f64>>();
            let (one, other) = (test(&base, &head, prior), test(&reversed(&base), &reversed(&head), prior));
            assert!((one.estimate - other.estimate).abs() < 1e-12);
            assert!((one.deviation() - other.deviation()).abs() < 1e-12);
            let end = |values: &[f64], of: fn(f64, f64) -> f64| values.iter().copied().reduce(of).unwrap();
            let least = end(&head, f64::min) - end(&base, f64::max);
            let most = end(&head, f64::max) - end(&base, f64::min);
            assert!((least..=most).contains(&one.estimate), "{base:?} {head:?}");
            let (low, high) = one.interval(0.95);
            assert!(low <= one.estimate && one.estimate <= high && (0.0..=1.0).contains(&one.p()));
        }
    }
}
