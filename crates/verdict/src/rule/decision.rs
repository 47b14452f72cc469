//! Step 8: the verdict of a row or an overall row. Step 9: failures, which come before every number.

use super::sample::Sample;
use super::test::Test;
use super::values::Values;
use crate::metric::Direction;
use crate::special::fisher_greater;
use crate::v1::Verdict;

/// Half width of the band of `unchanged`, unless the minimum effect is larger.
pub(crate) const UNCHANGED: f64 = 0.05;
/// Largest chance of more failures of head than of base, at which they are a finding.
const FAILING: f64 = 0.05;

/// The verdict of a row from its test and its adjusted p value; without them, of one that was not tested.
pub(super) fn of_row(sample: &Sample<'_>, values: &Values, tested: Option<(&Test, Option<f64>)>, fdr: f64) -> Verdict {
    let [base, head] = sample.failed;
    if sample.primary && values.pairs() > 0 && is_failing(base, head, values.pairs()) {
        return Verdict::Failing;
    }
    let verdict = match tested {
        Some((test, q)) => of_test(sample, test, q, fdr),
        None if values.has_base && values.has_head => Verdict::Inconclusive,
        None => Verdict::NotMeasured,
    };
    // Repetitions that survived are no sample.
    let is_survivor = sample.primary && head > base && matches!(verdict, Verdict::Unchanged | Verdict::Improved);
    if is_survivor { Verdict::Inconclusive } else { verdict }
}

/// The verdict that follows from the test alone.
pub(super) fn of_test(sample: &Sample<'_>, test: &Test, q: Option<f64>, fdr: f64) -> Verdict {
    if q.is_some_and(|q| q <= fdr) && test.estimate.abs() >= sample.min_effect.ln_1p() {
        let worse = match sample.direction {
            Direction::Higher => test.estimate < 0.0,
            Direction::Lower => test.estimate > 0.0,
        };
        return if worse { Verdict::Regressed } else { Verdict::Improved };
    }
    let (low, high) = test.interval(0.90);
    let band = UNCHANGED.max(sample.min_effect).ln_1p();
    if low > -band && high < band { Verdict::Unchanged } else { Verdict::Inconclusive }
}

/// Whether head fails more than base: in at least half of the pairs, two or more, where base never did; or by Fisher's exact test.
fn is_failing(base: usize, head: usize, pairs: usize) -> bool {
    let (base, head) = (base.min(pairs), head.min(pairs));
    let often = base == 0 && head >= 2 && 2 * head >= pairs;
    often || fisher_greater(head, base, pairs) <= FAILING
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_failing_when_it_fails_in_half_of_the_pairs_and_base_never() {
        // scipy.stats.fisher_exact([[5, 0], [1, 4]], "greater").pvalue = 0.0238; [[4, 1], [1, 4]]: 0.103
        for (base, head, pairs, expected) in [
            (0, 3, 5, true),
            (0, 2, 5, false),
            (0, 2, 4, true),
            (0, 1, 2, false),
            (0, 2, 2, true),
            (0, 1, 1, false),
            (1, 5, 5, true),
            (1, 4, 5, false),
            (5, 5, 5, false),
            (0, 0, 5, false),
        ] {
            assert_eq!(is_failing(base, head, pairs), expected, "{base} {head} {pairs}");
        }
    }
}
