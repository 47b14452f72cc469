//! Estimators and the correction for many tests. A result that cannot be computed is `None`, never NaN.

/// The noise of a row from earlier A/A runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// Weight, in degrees of freedom.
    pub n0: f64,
    /// Standard deviation of log-ratios of A/A pairs: twice the variance of one repetition.
    pub s0: f64,
}

/// Smallest standard deviation that is used, on the log scale: 0.01 %. If repetitions agree to the last digit (a simulated
/// server, a counter), every difference would otherwise be infinitely significant.
pub const RESOLUTION: f64 = 1e-4;
/// Smallest variance that is used.
pub const LEAST_VARIANCE: f64 = RESOLUTION * RESOLUTION;

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

/// One-sample Hodges-Lehmann estimate: the median of the means of all pairs of values, each with itself too.
pub fn walsh(values: &[f64]) -> Option<f64> {
    let means: Vec<f64> = values
        .iter()
        .enumerate()
        .flat_map(|(at, one)| values[at..].iter().map(move |other| (one + other) / 2.0))
        .collect();
    median(&means)
}

/// Unbiased variance; 0 with fewer than two values.
pub fn variance(values: &[f64]) -> f64 {
    let Some(mean) = mean(values).filter(|_| values.len() > 1) else { return 0.0 };
    squared_deviations(values, mean) / (values.len() as f64 - 1.0)
}

/// Sum of the squared distances from `centre`.
pub fn squared_deviations(values: &[f64], centre: f64) -> f64 {
    values.iter().map(|value| (value - centre).powi(2)).sum()
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

#[cfg(test)]
mod tests {
    //! Expected values were computed with numpy 2 and SciPy 1; the call is next to each.
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[track_caller]
    fn assert_close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() <= 1e-9 * expected.abs().max(1e-300), "{actual:e} is not {expected:e}");
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

    #[test]
    fn hodges_lehmann_estimates_are_medians_of_differences_and_of_means() {
        let (x, y) = ([1.0, 2.0, 4.0], [2.5, 3.0, 10.0]);
        assert_eq!(hodges_lehmann(&x, &y), Some(1.5)); // np.median(np.subtract.outer(y, x))
        assert_eq!(walsh(&x), Some(2.25)); // the median of 1, 1.5, 2, 2.5, 3, 4
        assert_close(variance(&x), 2.3333333333333335); // np.var(x, ddof=1)
        assert_eq!((hodges_lehmann(&[], &x), walsh(&[]), variance(&[1.0])), (None, None, 0.0));
    }
}
