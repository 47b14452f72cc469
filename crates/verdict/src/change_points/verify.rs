//! Verification of candidates: each is tested on the points up to its neighbours, and the weakest is removed first.

use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::statistics::{RESOLUTION, mean, median};

/// Fewest points on either side of a confirmed change.
pub(super) const CONFIRMED_BY: usize = 5;

/// Fewest points after a reported change: a single point may be a spike.
const REPORTED_BY: usize = 2;

/// Largest p value of a change.
const P: f64 = 1e-3;

/// Smallest change of the level, as a relative change: 2 %.
const SHIFT: f64 = 0.02;

/// Values further from the median of their segment than this many MADs are clamped to that distance.
const MADS: f64 = 2.5;

/// MAD of a normal distribution relative to its standard deviation.
const MAD_OF_NORMAL: f64 = 0.6745;

/// Largest autocorrelation that is used; with more, no change could be significant.
const MOST_CORRELATED: f64 = 0.9;

/// A candidate with its test, on the log scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TestedSplit {
    pub at: usize,
    pub before: f64,
    pub after: f64,
    pub p: f64,
}

/// The candidates that hold. The weakest of those that do not is removed and its neighbours are tested again, until all hold.
pub(super) fn verified(logs: &[f64], mut candidates: Vec<usize>) -> Vec<TestedSplit> {
    loop {
        let borders = |index: usize| {
            let begin = index.checked_sub(1).map_or(0, |before| candidates[before]);
            (begin, candidates[index], candidates.get(index + 1).copied().unwrap_or(logs.len()))
        };
        let tests: Vec<TestedSplit> = (0..candidates.len()).map(|index| test(logs, borders(index))).collect();
        let weakest = (0..tests.len())
            .filter(|&index| !holds(&tests[index], borders(index), logs.len()))
            .max_by(|&a, &b| tests[a].p.total_cmp(&tests[b].p));
        match weakest {
            Some(index) => candidates.remove(index),
            None => return tests,
        };
    }
}

fn holds(found: &TestedSplit, (begin, at, end): (usize, usize, usize), length: usize) -> bool {
    // Only the newest segment may be short.
    let enough = if end == length { REPORTED_BY } else { CONFIRMED_BY };
    let shift = (found.after - found.before).abs();
    at - begin >= CONFIRMED_BY && end - at >= enough && found.p < P && shift >= SHIFT.ln_1p()
}

/// Student's t test of the segments before and after `at`, with the effective number of points given their
/// autocorrelation.
fn test(logs: &[f64], (begin, at, end): (usize, usize, usize)) -> TestedSplit {
    let (before, after) = (winsorised(&logs[begin..at]), winsorised(&logs[at..end]));
    let (low, high) = (mean(&before).unwrap_or_default(), mean(&after).unwrap_or_default());
    let residuals: Vec<f64> =
        before.iter().map(|value| value - low).chain(after.iter().map(|value| value - high)).collect();
    let squares: f64 = residuals.iter().map(|residual| residual * residual).sum();
    let products: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let correlation = if squares > 0.0 { (products / squares).clamp(0.0, MOST_CORRELATED) } else { 0.0 };
    let kept = (1.0 - correlation) / (1.0 + correlation);
    let (n, m) = (before.len() as f64 * kept, after.len() as f64 * kept);
    let freedom = n + m - 2.0;
    let own_freedom = residuals.len() as f64 - 2.0;
    let p = match StudentsT::new(0.0, 1.0, freedom) {
        Ok(student) if freedom > 0.0 && own_freedom > 0.0 => {
            let deviation = (squares / own_freedom).sqrt().max(RESOLUTION);
            let error = deviation * (1.0 / n + 1.0 / m).sqrt();
            // Correction for the choice of the place: n points contain n / k stretches of k points.
            let places = residuals.len() as f64 / before.len().min(after.len()) as f64;
            (2.0 * student.sf((high - low).abs() / error) * places).min(1.0)
        }
        _ => 1.0,
    };
    TestedSplit { at, before: low, after: high, p }
}

fn winsorised(segment: &[f64]) -> Vec<f64> {
    let centre = median(segment).unwrap_or_default();
    let away: Vec<f64> = segment.iter().map(|value| (value - centre).abs()).collect();
    let reach = MADS * median(&away).unwrap_or_default() / MAD_OF_NORMAL;
    segment.iter().map(|value| value.clamp(centre - reach, centre + reach)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_autocorrelation_the_p_value_is_that_of_scipy() {
        // Residuals alternate, so the autocorrelation is below 0 and all points count.
        // Two places: stats.ttest_ind([1, 1.1, 1, 1.1, 1, 1.1], [2, 2.1, 2, 2.1, 2, 2.1]).pvalue
        let logs = [1.0, 1.1, 1.0, 1.1, 1.0, 1.1, 2.0, 2.1, 2.0, 2.1, 2.0, 2.1];
        let found = test(&logs, (0, 6, 12));
        assert!((found.before - 1.05).abs() < 1e-12 && (found.after - 2.05).abs() < 1e-12);
        assert!((found.p / 2.0 / 2.3512191643196312e-11 - 1.0).abs() < 1e-6, "{:e}", found.p);
    }

    #[test]
    fn a_spike_is_clamped_to_its_segment() {
        let mut segment = vec![1.0, 1.02, 0.98, 1.01, 0.99, 1.0, 1.02, 0.98];
        segment.push(9.0);
        assert!(winsorised(&segment).into_iter().fold(0.0, f64::max) < 1.1);
    }

    #[test]
    fn points_of_removed_candidates_go_to_their_neighbours() {
        let noisy = |place: usize| if place.is_multiple_of(2) { 0.005 } else { -0.005 };
        let logs: Vec<f64> = (0..40).map(|place| noisy(place) + if place >= 20 { 0.1 } else { 0.0 }).collect();
        let found: Vec<usize> = verified(&logs, vec![7, 13, 20, 21, 33]).iter().map(|found| found.at).collect();
        assert_eq!(found, [20]);
        assert_eq!(verified(&logs, vec![7, 33]), []);
    }
}
