//! Step 6: overall rows. Most real regressions move every case a little; the mean of the logarithms over all cases of a metric
//! finds them where no single row does.

use super::prior::Prior;
use super::sample::Sample;
use super::shift;
use super::test::Test;
use super::values::Values;
use crate::case::Kind;
use crate::special::digamma;
use crate::statistics::{LEAST_VARIANCE, mean, median};

/// Weight of the expected variance, in parts of the row's own degrees of freedom.
const MOST_WEIGHT: f64 = 0.25;

/// An overall row before its variance is drawn to what its rows predict.
struct Raw {
    kind: Kind,
    members: Vec<usize>,
    shift: shift::Shift,
    predicted: f64,
    /// Logarithm of the variance in parts of the predicted one, without the bias of few degrees of freedom.
    excess: f64,
}

/// The overall rows: one for each group with at least two whole primary rows, which are at least half of its rows. Each with
/// the rows that it is built from.
pub(super) fn rows(
    samples: &[Sample<'_>],
    values: &[Values],
    tests: &[Option<Test>],
    groups: &[Vec<usize>],
    blocked: bool,
) -> Vec<(Vec<usize>, Test)> {
    let is_representative = |group: &&Vec<usize>| {
        let all = samples.iter().filter(|row| row.primary && row.group() == samples[group[0]].group()).count();
        group.len() >= 2 && 2 * group.len() >= all
    };
    let raw: Vec<Raw> = groups
        .iter()
        .filter(is_representative)
        .filter_map(|group| of_group(samples[group[0]].kind, group, values, tests, blocked))
        .collect();
    raw.iter()
        .map(|row| {
            let excesses: Vec<f64> = raw.iter().filter(|other| other.kind == row.kind).map(|row| row.excess).collect();
            let factor = mean(&excesses).unwrap_or_default().exp();
            let prior = Prior { weight: MOST_WEIGHT * row.shift.freedom, variance: factor * row.predicted };
            (row.members.clone(), row.shift.moderated(prior))
        })
        .collect()
}

fn of_group(kind: Kind, group: &[usize], values: &[Values], tests: &[Option<Test>], blocked: bool) -> Option<Raw> {
    let variances: Vec<f64> =
        group.iter().map(|at| Some(tests[*at]?.variance.max(LEAST_VARIANCE))).collect::<Option<Vec<f64>>>()?;
    let weights = weights(&variances);
    let mut sides = [Vec::new(), Vec::new()];
    for (weight, at) in weights.iter().zip(group) {
        let (base, head) = values[*at].sides()?;
        for (sum, side) in sides.iter_mut().zip([base, head]) {
            sum.resize(side.len(), 0.0);
            sum.iter_mut().zip(side).for_each(|(sum, log)| *sum += weight * log);
        }
    }
    let [base, head] = sides.map(|side| side.into_iter().map(Some).collect::<Vec<Option<f64>>>());
    let shift = shift::shift(&base, &head, blocked)?;
    let predicted: f64 = weights.iter().zip(&variances).map(|(weight, variance)| weight * weight * variance).sum();
    let half = shift.freedom / 2.0;
    let excess =
        shift.variance.max(LEAST_VARIANCE).ln() - predicted.max(LEAST_VARIANCE).ln() - (digamma(half) - half.ln());
    Some(Raw { kind, members: group.to_vec(), shift, predicted, excess })
}

/// `min(1, median(s) / s)`, summing to 1: noisier cases count less, and one that cannot vary (throughput at a fixed request
/// rate) no more than the middle one.
fn weights(variances: &[f64]) -> Vec<f64> {
    let deviations: Vec<f64> = variances.iter().map(|variance| variance.sqrt()).collect();
    let middle = median(&deviations).unwrap_or_default();
    let weights: Vec<f64> = deviations.iter().map(|deviation| (middle / deviation).min(1.0)).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noisy_case_counts_less_and_a_quiet_one_as_much_as_the_middle_one() {
        let weights = weights(&[0.01, 0.0001, 0.04]);
        assert_eq!(weights, [0.4, 0.4, 0.2]);
    }
}
