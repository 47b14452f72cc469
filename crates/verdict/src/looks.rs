//! The looks of a sequential run: analyses of all pairs so far, each at a part of the false discovery rate. The first one with
//! a reason ends the run.

use crate::strategy::{MOST_PAIRS, Strategy};
use crate::v1::{Comparison, Look, Verdict};

/// The looks of a `sequential` run: after how many pairs, and at which part of the false discovery rate (O'Brien-Fleming-like:
/// little at first). The parts are those of verdicts that are taken once, at the look that ends the run.
const LOOKS: [(u32, f64); 4] = [(3, 0.05), (5, 0.3), (7, 0.5), (MOST_PAIRS, 0.7)];
/// From so many pairs on, a run in which no adjusted p value is at most [`HOPE`] ends.
const FUTILE_FROM: u32 = 5;
const HOPE: f64 = 0.5;

/// The looks of a run of at most `pairs` pairs at a false discovery rate: one after all pairs, unless it is sequential.
pub fn looks(strategy: Strategy, pairs: u32, fdr: f64) -> Vec<Look> {
    if strategy != Strategy::Sequential {
        return vec![Look { pairs, fdr }];
    }
    let mut looks: Vec<Look> = Vec::new();
    for (at, part) in LOOKS {
        looks.push(Look { pairs: at.min(pairs), fdr: part * fdr });
        if at >= pairs {
            break;
        }
    }
    looks
}

/// Why a sequential run ends at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A row or an overall row changed, or head fails.
    Finding,
    /// Every primary row and overall row is `unchanged`.
    Unchanged,
    /// No row is near a finding.
    Futile,
}

/// Whether a sequential run ends at a look, given the comparison of its pairs so far.
pub fn ends(comparison: &Comparison) -> Option<End> {
    let rows = || comparison.rows.iter().filter(|row| row.primary);
    let verdicts = || rows().map(|row| row.verdict).chain(comparison.overall.iter().map(|row| row.verdict));
    if verdicts().any(|verdict| matches!(verdict, Verdict::Failing | Verdict::Regressed | Verdict::Improved)) {
        return Some(End::Finding);
    }
    if verdicts().next().is_some() && verdicts().all(|verdict| verdict == Verdict::Unchanged) {
        return Some(End::Unchanged);
    }
    let mut q = rows().filter_map(|row| row.q).chain(comparison.overall.iter().map(|row| row.q));
    (comparison.method.pairs >= FUTILE_FROM && q.all(|q| q > HOPE)).then_some(End::Futile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequential_run_spends_little_at_first_and_every_other_run_has_one_look() {
        let of = |strategy, pairs| {
            let looks = looks(strategy, pairs, 0.02);
            looks.iter().map(|look| (look.pairs, (look.fdr * 1e6).round() as u32)).collect::<Vec<_>>()
        };
        assert_eq!(of(Strategy::Sequential, 10), [(3, 1000), (5, 6000), (7, 10000), (10, 14000)]);
        assert_eq!(of(Strategy::Sequential, 4), [(3, 1000), (4, 6000)]);
        assert_eq!(of(Strategy::Sequential, 2), [(2, 1000)]);
        assert_eq!(of(Strategy::Paired, 5), [(5, 20000)]);
    }
}
