//! The verdict of a report, from its rows.

use std::collections::HashSet;

use crate::untrusted::Untrusted;
use crate::v1::{Counts, OverallRow, Row, Verdict};

/// Primary rows by verdict. `screened` are the cases that only the screening pass ran.
pub(crate) fn count(rows: &[Row], screened: &HashSet<&Untrusted>) -> Counts {
    let mut counts = Counts::default();
    for row in rows.iter().filter(|row| row.primary) {
        let number = match row.verdict {
            Verdict::Inconclusive if screened.contains(&row.case) => &mut counts.screened,
            Verdict::Failing => &mut counts.failing,
            Verdict::Regressed => &mut counts.regressed,
            Verdict::Improved => &mut counts.improved,
            Verdict::Unchanged => &mut counts.unchanged,
            Verdict::Inconclusive => &mut counts.inconclusive,
            Verdict::NotMeasured => &mut counts.not_measured,
        };
        *number += 1;
    }
    counts
}

/// The verdict of a report, by precedence: one regressed row or overall row, or a case that only head fails, makes it
/// `regressed`; else one row that was not measured makes it `not measured`, because it may hide a regression; else one improved
/// row makes it `improved`, although other rows may be inconclusive; else one inconclusive row makes it `inconclusive`, because
/// `unchanged` is a statement about every row. With secondary rows alone it is `inconclusive`; without any row it is
/// `not measured`.
pub(crate) fn of_report(counts: &Counts, overall: &[OverallRow], no_rows: bool) -> Verdict {
    let any = |verdict: Verdict| overall.iter().any(|row| row.verdict == verdict);
    match counts {
        Counts { failing: 1.., .. } | Counts { regressed: 1.., .. } => Verdict::Regressed,
        _ if any(Verdict::Regressed) => Verdict::Regressed,
        Counts { not_measured: 1.., .. } => Verdict::NotMeasured,
        Counts { improved: 1.., .. } => Verdict::Improved,
        _ if any(Verdict::Improved) => Verdict::Improved,
        Counts { inconclusive: 1.., .. } | Counts { screened: 1.., .. } => Verdict::Inconclusive,
        Counts { unchanged: 1.., .. } => Verdict::Unchanged,
        _ if no_rows => Verdict::NotMeasured,
        _ => Verdict::Inconclusive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_of_a_report_follows_the_precedence_of_its_rows() {
        let mut counts = Counts {
            failing: 1,
            regressed: 1,
            improved: 1,
            unchanged: 1,
            inconclusive: 1,
            not_measured: 1,
            screened: 0,
        };
        let mut verdicts = vec![of_report(&counts, &[], false)];
        for remove in [
            |counts: &mut Counts| counts.failing = 0,
            |counts: &mut Counts| counts.regressed = 0,
            |counts: &mut Counts| counts.not_measured = 0,
            |counts: &mut Counts| counts.improved = 0,
            |counts: &mut Counts| counts.inconclusive = 0,
        ] {
            remove(&mut counts);
            verdicts.push(of_report(&counts, &[], false));
        }
        use Verdict::{Improved, Inconclusive, NotMeasured, Regressed, Unchanged};
        assert_eq!(verdicts, [Regressed, Regressed, NotMeasured, Improved, Inconclusive, Unchanged]);
    }

    #[test]
    fn a_report_without_primary_rows_is_inconclusive_and_one_without_rows_is_not_measured() {
        assert_eq!(of_report(&Counts::default(), &[], false), Verdict::Inconclusive);
        assert_eq!(of_report(&Counts::default(), &[], true), Verdict::NotMeasured);
    }
}
