//! Step 1: whether the pairs of a report share so much noise (drift, clocks, neighbours) that differences inside pairs pay.
//! Blocking halves the degrees of freedom, so it needs evidence: at most half of the variance, by two standard errors.

use super::correlation::standardized;
use crate::special::{digamma, trigamma};
use crate::statistics::{LEAST_VARIANCE, variance};

/// Fewest pairs that can show it.
const FEWEST: usize = 3;

/// Whether a report is blocked, and the ratio of the variances of differences inside pairs and of values inside sides.
/// `rows` are the whole primary rows, all of the same number of pairs.
pub(super) fn is_blocked(rows: &[(&[f64], &[f64])]) -> (bool, Option<f64>) {
    let pairs = rows.first().map_or(0, |(base, _)| base.len());
    if pairs < FEWEST {
        return (false, None);
    }
    let half = (pairs as f64 - 1.0) / 2.0;
    let differences: Vec<Vec<f64>> =
        rows.iter().map(|(base, head)| head.iter().zip(*base).map(|(head, base)| head - base).collect()).collect();
    let log_ratio = |((base, head), inside): (&(&[f64], &[f64]), &Vec<f64>)| {
        let apart = (variance(base) + variance(head)) / 2.0;
        (variance(inside) / 2.0).max(LEAST_VARIANCE).ln() - apart.max(LEAST_VARIANCE).ln()
    };
    let sum: f64 = rows.iter().zip(&differences).map(log_ratio).sum();
    let chance = digamma(half) - digamma(2.0 * half) + std::f64::consts::LN_2;
    let level = sum / rows.len() as f64 - chance;
    let error = ((trigamma(half) - trigamma(2.0 * half)) / independent_rows(&differences)).sqrt();
    (level < -2.0 * error && level < 0.5_f64.ln(), Some(level.exp()))
}

/// How many independent rows these are worth: `K / (1 + (K - 1) r2)`, where `r2` is the mean squared correlation of the
/// differences of two rows, less what chance gives.
fn independent_rows(differences: &[Vec<f64>]) -> f64 {
    let rows = differences.len() as f64;
    let pairs = differences.first().map_or(0, Vec::len);
    if differences.len() < 2 {
        return rows;
    }
    let centred: Vec<Vec<f64>> = differences.iter().map(|row| standardized(row)).collect();
    // The sum of the squared correlations of all rows is that of the squared entries of the small matrix X'X.
    let mut squared = 0.0;
    for one in 0..pairs {
        for other in 0..pairs {
            let product: f64 = centred.iter().map(|row| row[one] * row[other]).sum();
            squared += product * product;
        }
    }
    let chance = 1.0 / (pairs as f64 - 1.0);
    let mean_square = (squared - rows) / (rows * (rows - 1.0));
    let r2 = ((mean_square - chance) / (1.0 - chance)).clamp(0.0, 1.0);
    rows / (1.0 + (rows - 1.0) * r2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_that_move_together_are_blocked_and_pairs_that_do_not_are_not() {
        let noise = [0.3, -0.2, 0.1, -0.4, 0.25];
        let row = |number: usize, shared: f64| {
            let own = |at: usize| 0.01 * ((number * 7 + at * 13) % 10) as f64 - 0.05;
            let side = |offset: usize| (0..5).map(|at| shared * noise[at] + own(at + offset)).collect::<Vec<f64>>();
            (side(0), side(5))
        };
        let blocked = |shared: f64| {
            let rows: Vec<(Vec<f64>, Vec<f64>)> = (0..12).map(|number| row(number, shared)).collect();
            is_blocked(&rows.iter().map(|(base, head)| (base.as_slice(), head.as_slice())).collect::<Vec<_>>())
        };
        assert!(blocked(1.0).0);
        assert!(!blocked(0.0).0);
    }

    #[test]
    fn two_pairs_show_nothing() {
        assert_eq!(is_blocked(&[(&[0.0, 1.0], &[0.0, 1.0])]), (false, None));
        assert_eq!(is_blocked(&[]), (false, None));
    }
}
