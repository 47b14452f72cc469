//! Step 7: one family of tests. Half of the error goes to the overall rows; once they are found, the others get easier.

use crate::statistics::benjamini_hochberg;

/// The part of the false discovery rate that overall rows have.
const SHARE: f64 = 0.5;

/// The adjusted p values of a report.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Family {
    pub rows: Vec<f64>,
    pub overall: Vec<f64>,
    /// The level at which a row alone is significant, in parts of the false discovery rate.
    pub level_of_rows: f64,
    pub level_of_overall: f64,
}

/// Weighted Benjamini-Hochberg over the tested primary rows and the overall rows.
pub(super) fn adjust(rows: &[f64], overall: &[f64]) -> Family {
    let (m, k) = (rows.len() as f64, overall.len() as f64);
    let [of_rows, of_overall] = match (rows.is_empty(), overall.is_empty()) {
        (true, _) => [1.0, 1.0],
        (_, true) => [1.0, 0.0],
        _ => [(1.0 - SHARE) * (m + k) / m, SHARE * (m + k) / k],
    };
    let weighted = |p: &f64, weight: f64| (p / weight).min(1.0);
    let p: Vec<f64> =
        rows.iter().map(|p| weighted(p, of_rows)).chain(overall.iter().map(|p| weighted(p, of_overall))).collect();
    let mut adjusted = benjamini_hochberg(&p);
    let overall = adjusted.split_off(rows.len());
    let number = (m + k).max(1.0);
    Family { rows: adjusted, overall, level_of_rows: of_rows / number, level_of_overall: of_overall / number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_error_is_that_of_the_overall_rows() {
        let family = adjust(&[0.01, 0.5, 0.5, 0.5], &[0.01]);
        // rule.py: wr, wo = .5 * 5 / 4, .5 * 5 / 1; benjamini_hochberg([.01, .5, .5, .5, .01], [wr] * 4 + [wo])
        assert_eq!(family.overall, [0.02]);
        assert_eq!(family.rows[0], 0.04);
        assert_eq!((family.level_of_rows, family.level_of_overall), (0.125, 0.5));
    }

    #[test]
    fn without_overall_rows_it_is_benjamini_hochberg() {
        assert_eq!(adjust(&[0.01, 0.04], &[]).rows, benjamini_hochberg(&[0.01, 0.04]));
        assert!(adjust(&[], &[]).rows.is_empty());
    }
}
