//! Estimators, tests and corrections on logarithms, one value for each repetition. A result that cannot be computed is
//! `None`, never NaN.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Smallest standard deviation that is used, on the log scale: 0.01 %. If repetitions agree to the last digit (a simulated
/// server, a counter), every difference would otherwise be infinitely significant.
pub const RESOLUTION: f64 = 1e-4;

/// Ratio of the standard error of Hodges-Lehmann to that of the mean, for normal noise.
const HODGES_LEHMANN: f64 = 1.02;

/// Power at which a change counts as detectable.
const POWER: f64 = 0.80;

/// Largest number of repetitions that is computed; more are not practical.
pub const MOST_REPETITIONS: u32 = 1000;

/// The noise of a row from earlier A/A runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// Weight, in degrees of freedom.
    pub n0: f64,
    /// Standard deviation of log-ratios of A/A pairs: twice the variance of one repetition.
    pub s0: f64,
}

/// The difference between two sides on the log scale, head minus base, with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// Hodges-Lehmann estimate.
    pub estimate: f64,
    /// Standard deviation of one repetition.
    pub deviation: f64,
    /// Standard error of the estimate.
    pub error: f64,
    distribution: StudentsT,
}

/// The difference of two sides of at least two logarithms each; `None` with fewer, or with a value that is not finite.
pub fn shift(base: &[f64], head: &[f64], prior: Option<Prior>) -> Option<Shift> {
    let pooled = pooled_variance(base, head)?;
    let own_freedom = (base.len() + head.len() - 2) as f64;
    let (variance, freedom) = moderated_variance(pooled, own_freedom, prior);
    let deviation = variance.sqrt().max(RESOLUTION);
    let error = HODGES_LEHMANN * deviation * (1.0 / base.len() as f64 + 1.0 / head.len() as f64).sqrt();
    let estimate = hodges_lehmann(base, head)?;
    let distribution = StudentsT::new(0.0, 1.0, freedom).ok()?;
    (estimate.is_finite() && error.is_finite()).then_some(Shift { estimate, deviation, error, distribution })
}

impl Shift {
    /// Two-sided p value of Student's t test against no difference.
    pub fn p(&self) -> f64 {
        (2.0 * self.distribution.sf((self.estimate / self.error).abs())).min(1.0)
    }

    /// Two-sided confidence interval on the log scale, at a confidence like 0.95.
    pub fn interval(&self, confidence: f64) -> (f64, f64) {
        let reach = self.distribution.inverse_cdf(0.5 + confidence / 2.0) * self.error;
        (self.estimate - reach, self.estimate + reach)
    }

    /// Smallest relative change (0.03 is 3 %) that has 80 % power to be significant at `level`, two-sided, and to be
    /// estimated as at least `min_effect`.
    pub fn detectable(&self, level: f64, min_effect: f64) -> f64 {
        let margin = (self.distribution.inverse_cdf(1.0 - level / 2.0) * self.error).max(min_effect.ln_1p());
        relative(margin + self.distribution.inverse_cdf(POWER) * self.error)
    }

    /// Repetitions of each side that detect a relative change of `effect` (0.03 is 3 %) with 80 % power: the smallest
    /// `N >= 2 (t.95 + t.80)^2 s^2 / delta^2`, with the degrees of freedom of N repetitions on each side. `None` if that is
    /// more than [`MOST_REPETITIONS`].
    pub fn required_repetitions(&self, effect: f64) -> Option<u32> {
        let ratio = self.deviation / effect.ln_1p();
        let suffices = |repetitions: u32| -> bool {
            StudentsT::new(0.0, 1.0, f64::from(2 * repetitions - 2)).is_ok_and(|student| {
                let quantiles = student.inverse_cdf(0.95) + student.inverse_cdf(POWER);
                2.0 * (quantiles * ratio).powi(2) <= f64::from(repetitions)
            })
        };
        // Student's quantiles are larger than the normal ones, so the normal solution is a lower bound, and a close one.
        let normal = Normal::standard();
        let quantiles = normal.inverse_cdf(0.95) + normal.inverse_cdf(POWER);
        let fewest = (2.0 * (quantiles * ratio).powi(2)).ceil().max(2.0);
        let fewest = (fewest <= f64::from(MOST_REPETITIONS)).then_some(fewest as u32)?;
        (fewest..=MOST_REPETITIONS).find(|repetitions| suffices(*repetitions))
    }
}

/// Natural logarithms of positive values.
pub fn logs(values: &[f64]) -> Vec<f64> {
    values.iter().map(|value| value.ln()).collect()
}

/// A log difference as a relative change: `ln 1.05` is 0.05. Finite for every finite input.
pub fn relative(log_difference: f64) -> f64 {
    // e^709 overflows, and JSON has no infinity.
    log_difference.clamp(-700.0, 700.0).exp_m1()
}

/// Hodges-Lehmann estimate of the shift: the median of all differences head - base. `None` if a side is empty.
pub fn hodges_lehmann(base: &[f64], head: &[f64]) -> Option<f64> {
    let differences: Vec<f64> = head.iter().flat_map(|h| base.iter().map(move |b| h - b)).collect();
    median(&differences)
}

/// Variance of one repetition, from the spread inside each side. `None` with fewer than two values in a side.
pub fn pooled_variance(base: &[f64], head: &[f64]) -> Option<f64> {
    if base.len() < 2 || head.len() < 2 {
        return None;
    }
    let freedom = (base.len() + head.len() - 2) as f64;
    Some((squared_deviations(base) + squared_deviations(head)) / freedom)
}

/// The variance of a row, moderated towards the variance of its prior, and the degrees of freedom of the result:
/// `(n0 s0^2 / 2 + df s^2) / (n0 + df)`: Smyth 2004, as in limma. Without a prior, the variance itself.
pub fn moderated_variance(pooled: f64, freedom: f64, prior: Option<Prior>) -> (f64, f64) {
    let Some(Prior { n0, s0 }) = prior else { return (pooled, freedom) };
    ((n0 * s0 * s0 / 2.0 + freedom * pooled) / (n0 + freedom), n0 + freedom)
}

/// Standard deviation of the log-ratios of A/A pairs, whose mean is 0 by construction: the larger of IQR / 1.349, which is
/// robust to a rare outlier, and 0.8 of the root mean square, which accounts for it. `None` without ratios.
pub fn pair_deviation(ratios: &[f64]) -> Option<f64> {
    let range = percentile(ratios, 75.0)? - percentile(ratios, 25.0)?;
    let mean_square = mean(&ratios.iter().map(|ratio| ratio * ratio).collect::<Vec<_>>())?;
    Some((range / 1.349).max(0.8 * mean_square.sqrt()))
}

/// Benjamini-Hochberg adjusted p values, in the order of `p`: rejecting those at or below a rate limits the
/// expected share of false rejections to that rate.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut descending: Vec<usize> = (0..p.len()).collect();
    descending.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    let mut adjusted = vec![1.0; p.len()];
    let mut smallest: f64 = 1.0;
    for (passed, &index) in descending.iter().enumerate() {
        let rank = p.len() - passed;
        smallest = smallest.min(p[index] * p.len() as f64 / rank as f64);
        adjusted[index] = smallest;
    }
    adjusted
}

/// The middle value, or the mean of the two middle ones; `None` if there is none.
pub fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 50.0)
}

/// Percentile (0 to 100), linear between the values, as numpy's default; `None` if there are no values.
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let position = percent.clamp(0.0, 100.0) / 100.0 * last as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    Some(below + (above - below) * position.fract())
}

/// Arithmetic mean; `None` if there are no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn squared_deviations(values: &[f64]) -> f64 {
    let mean = mean(values).unwrap_or_default();
    values.iter().map(|value| (value - mean).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    //! Expected values were computed with numpy 2 and SciPy 1; the call is next to each, with
    //! `x = np.log([101.2, 99.8, 100.4, 102.1, 98.9])` and `y = np.log([108.3, 107.1, 109.9, 106.5, 110.2])`.
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn x() -> Vec<f64> {
        logs(&[101.2, 99.8, 100.4, 102.1, 98.9])
    }

    fn y() -> Vec<f64> {
        logs(&[108.3, 107.1, 109.9, 106.5, 110.2])
    }

    #[track_caller]
    fn assert_close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() <= 1e-9 * expected.abs().max(1e-300), "{actual:e} is not {expected:e}");
    }

    #[test]
    fn the_shift_of_five_against_five_is_that_of_scipy() {
        let shift = shift(&x(), &y(), None).unwrap();
        assert_close(shift.estimate, 0.07574294674931537); // np.median(np.subtract.outer(y, x))
        assert_close(shift.error, 0.008903484052790234); // se = 1.02 * np.sqrt(pooled) * np.sqrt(2 / 5)
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
        let shift = shift(&x(), &y()[..3], None).unwrap();
        assert_close(shift.estimate, 0.07574294674931537); // np.median(np.subtract.outer(y[:3], x))
        // se = 1.02 * np.sqrt((np.var(x, ddof=1) * 4 + np.var(y[:3], ddof=1) * 2) / 6 * (1 / 5 + 1 / 3))
        assert_close(shift.error, 0.009322770524596574);
        assert_close(shift.p(), 0.00018673597229993826); // 2 * stats.t.sf(estimate / se, 6)
    }

    #[test]
    fn a_prior_adds_its_variance_and_its_degrees_of_freedom() {
        let pooled = pooled_variance(&x(), &y()).unwrap();
        assert_close(pooled, 0.00019048449701626773); // (np.var(x, ddof=1) * 4 + np.var(y, ddof=1) * 4) / 8
        let (variance, freedom) = moderated_variance(pooled, 8.0, Some(Prior { n0: 8.0, s0: 0.02 }));
        assert_close(variance, 0.00019524224850813387); // (8 * 0.02**2 / 2 + 8 * pooled) / (8 + 8)
        assert_eq!(freedom, 16.0);
        assert_eq!(moderated_variance(pooled, 8.0, None), (pooled, 8.0));
        let shift = shift(&x(), &y(), Some(Prior { n0: 8.0, s0: 0.02 })).unwrap();
        assert_close(shift.error, 0.009013989912305483); // se = 1.02 * np.sqrt(variance) * np.sqrt(2 / 5)
        assert_close(shift.p(), 2.915060414940009e-07); // 2 * stats.t.sf(estimate / se, 16)
        let (low, high) = shift.interval(0.90); // np.expm1(estimate -+ stats.t.ppf(.95, 16) * se)
        assert_close(relative(low), 0.061842459826875563);
        assert_close(relative(high), 0.09579521626611952);
    }

    #[test]
    fn the_noise_of_pairs_is_the_larger_of_two_measures() {
        let ratios = [-0.015, 0.024, -0.033, 0.02, -0.008, 0.004, -0.019, 0.025, -0.004, -0.013];
        assert_close(pair_deviation(&ratios).unwrap(), 0.02260934025203855); // stats.iqr(ratios) / 1.349
        let outlier = [0.01, -0.01, 0.01, -0.01, 0.5];
        assert_close(pair_deviation(&outlier).unwrap(), 0.17902848935295188); // 0.8 * np.sqrt(np.mean(np.square(outlier)))
        assert_eq!(pair_deviation(&[]), None);
    }

    #[test]
    fn adjusted_p_values_are_those_of_scipy_in_the_order_given() {
        // stats.false_discovery_control([0.01, 0.04, 0.03, 0.005, 0.8])
        let expected = [0.025, 0.05, 0.05, 0.025, 0.8];
        for (actual, expected) in benjamini_hochberg(&[0.01, 0.04, 0.03, 0.005, 0.8]).into_iter().zip(expected) {
            assert_close(actual, expected);
        }
        assert!(benjamini_hochberg(&[]).is_empty());
    }

    #[test]
    fn percentiles_are_those_of_numpy() {
        let values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0];
        // np.percentile(values, [0, 50, 90, 99, 100])
        for (percent, expected) in [(0.0, 1.0), (50.0, 3.5), (90.0, 6.9), (99.0, 8.79), (100.0, 9.0)] {
            assert_close(percentile(&values, percent).unwrap(), expected);
        }
        assert_eq!((median(&[]), mean(&[])), (None, None));
        assert_eq!(median(&[7.0]), Some(7.0));
    }

    #[test]
    fn required_repetitions_are_the_smallest_that_satisfy_the_formula() {
        // next(n for n in range(2, 10**6) if n >= 2 * (t.ppf(.95, 2*n-2) + t.ppf(.8, 2*n-2))**2 * s**2 / log1p(e)**2)
        for (deviation, effect, expected) in [
            (0.05, 0.03, Some(37)),
            (0.02, 0.03, Some(7)),
            (0.01, 0.02, Some(5)),
            (0.0001, 0.08, Some(2)),
            (1.0, 0.02, None),
        ] {
            let shift = Shift { deviation, ..shift(&x(), &y(), None).unwrap() };
            assert_eq!(shift.required_repetitions(effect), expected, "{deviation} {effect}");
        }
    }

    #[test]
    fn equal_repetitions_have_the_variance_of_the_resolution() {
        let same = shift(&[1.0; 5], &[1.0; 5], None).unwrap();
        assert_eq!((same.estimate, same.deviation, same.p()), (0.0, RESOLUTION, 1.0));
        let moved = shift(&[0.0; 2], &[0.03; 2], None).unwrap();
        // 2 * stats.t.sf(0.03 / (1.02 * 1e-4), 2)
        assert_close(moved.p(), 1.1559799553461937e-05);
    }

    #[test]
    fn too_few_values_and_values_that_are_not_finite_have_no_shift() {
        assert_eq!(shift(&[1.0], &[1.0, 2.0], None), None);
        assert_eq!(shift(&[], &[], None), None);
        assert_eq!(shift(&[1.0, f64::NAN], &[1.0, 2.0], None), None);
        assert_eq!(shift(&[1.0, f64::INFINITY], &[1.0, 2.0], None), None);
        assert_eq!(hodges_lehmann(&[], &[1.0]), None);
    }

    #[test]
    fn extreme_noise_gives_finite_numbers() {
        let wild = shift(&[-700.0, 700.0], &[700.0, -700.0], None).unwrap();
        let (low, high) = wild.interval(0.95);
        for value in [wild.p(), relative(low), relative(high), wild.detectable(0.05, 0.03)] {
            assert!(value.is_finite(), "{value}");
        }
        assert_eq!(wild.required_repetitions(0.02), None);
    }

    /// A thousand samples with a fixed seed: two to ten repetitions on each side, noise and shift of random size, and every
    /// second time a prior.
    fn samples() -> impl Iterator<Item = (Vec<f64>, Vec<f64>, Option<Prior>)> {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        (0..1000).map(move |number| {
            let deviation = 10_f64.powf(random.random_range(-3.0..0.5));
            let moved = random.random_range(-1.0..1.0);
            let mut side = |moved: f64| {
                let length = random.random_range(2..=10);
                (0..length).map(|_| moved + deviation * random.random_range(-1.0..1.0)).collect::<Vec<f64>>()
            };
            let (base, head) = (side(0.0), side(moved));
            (base, head, (number % 2 == 0).then_some(Prior { n0: 8.0, s0: deviation }))
        })
    }

    #[test]
    fn swapping_the_sides_only_changes_the_sign() {
        for (base, head, prior) in samples() {
            let (forth, back) = (shift(&base, &head, prior).unwrap(), shift(&head, &base, prior).unwrap());
            assert_close(forth.error, back.error);
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
            let one = shift(&base, &head, prior).unwrap();
            let other = shift(&moved(&base), &moved(&head), prior).unwrap();
            assert!((one.estimate - other.estimate).abs() < 1e-9, "{base:?} {head:?}");
            assert!((one.error - other.error).abs() < 1e-9 && (one.p() - other.p()).abs() < 1e-6, "{base:?} {head:?}");
        }
    }

    #[test]
    fn stretching_differences_and_noise_alike_stretches_the_estimate_and_keeps_p() {
        for (base, head, prior) in samples() {
            let stretched = |values: &[f64]| values.iter().map(|value| 3.0 * value).collect::<Vec<f64>>();
            let one = shift(&base, &head, prior).unwrap();
            let wide = prior.map(|prior| Prior { s0: 3.0 * prior.s0, ..prior });
            let other = shift(&stretched(&base), &stretched(&head), wide).unwrap();
            if one.deviation > RESOLUTION {
                assert!((3.0 * one.estimate - other.estimate).abs() < 1e-9, "{base:?} {head:?}");
                assert!((one.p() - other.p()).abs() < 1e-9, "{base:?} {head:?}");
            }
        }
    }

    #[test]
    fn the_order_of_repetitions_does_not_matter_and_the_estimate_lies_between_the_extremes() {
        for (base, head, prior) in samples() {
            let reversed = |values: &[f64]| values.iter().rev().copied().collect::<Vec<f64>>();
            let (one, other) =
                (shift(&base, &head, prior).unwrap(), shift(&reversed(&base), &reversed(&head), prior).unwrap());
            assert!((one.estimate - other.estimate).abs() < 1e-12 && (one.error - other.error).abs() < 1e-12);
            let end = |values: &[f64], of: fn(f64, f64) -> f64| values.iter().copied().reduce(of).unwrap();
            let least = end(&head, f64::min) - end(&base, f64::max);
            let most = end(&head, f64::max) - end(&base, f64::min);
            assert!((least..=most).contains(&one.estimate), "{base:?} {head:?}");
            let (low, high) = one.interval(0.95);
            assert!(low <= one.estimate && one.estimate <= high && (0.0..=1.0).contains(&one.p()));
        }
    }

    #[test]
    fn adjusted_p_values_keep_their_order_and_are_never_smaller() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        for length in 1..200 {
            let p: Vec<f64> = (0..length).map(|_| random.random_range(0.0_f64..1.0).powi(3)).collect();
            let q = benjamini_hochberg(&p);
            for at in 0..length {
                assert!(p[at] <= q[at] * (1.0 + 1e-12) && q[at] <= 1.0);
                assert!((0..length).all(|other| p[at] > p[other] || q[at] <= q[other]), "{p:?}");
            }
        }
    }
}
