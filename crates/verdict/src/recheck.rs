//! Recomputes a comparison from an untrusted source from its own values, and rejects numbers and verdicts that do not
//! follow from them. The values themselves cannot be checked.

use anyhow::{anyhow, ensure};

use crate::statistics::{self, Prior, Shift, hodges_lehmann, logs, relative, shift};
use crate::strategy::Strategy;
use crate::v1::{Comparison, Row, Verdict};
use crate::{noise, rows, rule};

/// Accepted relative difference between two computations of one number: the quantiles of Student's t come from a
/// numerical search that is accurate to about a millionth, and its versions differ.
const TOLERANCE: f64 = 1e-4;

/// Checks that every number and verdict of a comparison follows from the values of its rows, its counts from its rows and
/// its verdict from its counts.
///
/// # Errors
/// The first row or count that does not follow, with the recomputed value.
pub fn recheck(comparison: &Comparison) -> anyhow::Result<()> {
    check_untested(comparison)?;
    let screened = comparison.conduct.screened();
    let is_tested = |row: &&Row| !screened.contains(&row.case);
    let tested: Vec<Option<Shift>> =
        comparison.rows.iter().map(|row| Some(row).filter(is_tested).and_then(|row| tested(comparison, row))).collect();
    // With several looks, the p values that an earlier look adjusted together are not all in the file.
    let family: Vec<f64> = of_family(&comparison.rows, &tested).map(|(_, shift)| shift.p()).collect();
    let adjusted = statistics::benjamini_hochberg(&family);
    let one_look = comparison.method.looks.len() == 1;
    let mut adjusted = adjusted.into_iter();
    for (row, shift) in comparison.rows.iter().zip(&tested) {
        let q = if row.primary && shift.is_some() { adjusted.next().filter(|_| one_look) } else { None };
        check(comparison, row, shift.as_ref(), q)
            .map_err(|error| anyhow!("{error} (`{}` of `{}`)", brief(row.metric.raw()), brief(row.case.raw())))?;
    }
    let counts = rows::count(&comparison.rows, &comparison.conduct);
    ensure!(comparison.counts == counts, "its counts do not match its rows");
    let verdict = rows::overall(&counts, comparison.rows.is_empty());
    let (stated, computed) = (comparison.verdict.as_str(), verdict.as_str());
    ensure!(comparison.verdict == verdict, "its verdict is `{stated}`, but its rows give `{computed}`");
    Ok(())
}

/// Checks the reasons for which rows are not tested: verdicts are withheld from runs that are not paired alone, and a screened
/// case was measured once.
fn check_untested(comparison: &Comparison) -> anyhow::Result<()> {
    let Comparison { method, conduct, rows, .. } = comparison;
    ensure!(conduct.held.is_none() || method.strategy == Strategy::Single, "it withholds the verdicts of paired runs");
    ensure!(
        conduct.screened.is_empty() || conduct.strategy == Strategy::Screen,
        "it has screened cases without a screen"
    );
    let screened = conduct.screened();
    let repeated = |row: &Row| row.base.len() > 1 || row.head.len() > 1;
    ensure!(!rows.iter().any(|row| screened.contains(&row.case) && repeated(row)), "a screened case was repeated");
    Ok(())
}

fn of_family<'a>(rows: &'a [Row], tested: &'a [Option<Shift>]) -> impl Iterator<Item = (&'a Row, &'a Shift)> {
    rows.iter().zip(tested).filter(|(row, _)| row.primary).filter_map(|(row, shift)| Some((row, shift.as_ref()?)))
}

/// The test of a row that is not screened; `None` where the rule does not test it.
fn tested(comparison: &Comparison, row: &Row) -> Option<Shift> {
    let conduct = &comparison.conduct;
    let untested = comparison.method.strategy == Strategy::Single || conduct.held.is_some();
    let zero = row.base.iter().chain(&row.head).any(|value| *value <= 0.0);
    if untested || zero {
        return None;
    }
    let prior = row.s0.map(|s0| Prior { n0: row.n0, s0 });
    shift(&logs(&row.base), &logs(&row.head), prior)
}

fn check(comparison: &Comparison, row: &Row, shift: Option<&Shift>, q: Option<f64>) -> anyhow::Result<()> {
    let values = || row.base.iter().chain(&row.head);
    ensure!(values().all(|value| *value >= 0.0), "a row holds a negative value");
    ensure!(row.min_effect >= 0.0, "a minimum effect is negative");
    let weighed = (0.0..=noise::WEIGHT).contains(&row.n0) && row.s0.is_none_or(|s0| s0 >= 0.0);
    ensure!(weighed, "the weight of its noise is {} degrees of freedom: at most {}", row.n0, noise::WEIGHT);

    let all_zero = values().all(|value| *value == 0.0);
    let interval = shift.map(|shift| shift.interval(0.95));
    let estimate = match shift {
        Some(shift) => Some(shift.estimate),
        None if all_zero => None,
        None => hodges_lehmann(&logs(&row.base), &logs(&row.head)),
    };
    same("estimate", row.estimate, estimate.map(relative))?;
    same("low", row.low, interval.map(|(low, _)| relative(low)))?;
    same("high", row.high, interval.map(|(_, high)| relative(high)))?;
    same("p", row.p, shift.map(Shift::p))?;
    match q {
        Some(_) => same("q", row.q, q)?,
        None => {
            let p = shift.filter(|_| row.primary).map(Shift::p);
            let as_tested = row.q.is_some() == p.is_some();
            // Benjamini-Hochberg gives at least p, and at most p for each row of the family.
            let family = comparison.rows.iter().filter(|row| row.primary).count() as f64;
            let range = |p: f64| p * (1.0 - TOLERANCE)..=(p * family).min(1.0) * (1.0 + TOLERANCE);
            let possible = row.q.zip(p).is_none_or(|(q, p)| range(p).contains(&q));
            ensure!(as_tested && possible, "its q {} does not follow from its values", shown(row.q));
        }
    }
    let verdict = match shift {
        Some(shift) => {
            let look = comparison.method.looks.get((row.look as usize).wrapping_sub(1));
            let fdr = look.map(|look| look.fdr).ok_or_else(|| anyhow!("its look {} is not listed", row.look))?;
            ensure!((0.0..=1.0).contains(&fdr), "its false discovery rate is {fdr}");
            rule::decide(shift, row.q, row.direction, row.min_effect, fdr)
        }
        None if row.head.is_empty() => Verdict::NotMeasured,
        None if row.base.is_empty() && row.verdict == Verdict::NotMeasured => Verdict::NotMeasured,
        None if all_zero && !row.primary => Verdict::Unchanged,
        None => Verdict::Inconclusive,
    };
    let (stated, computed) = (row.verdict.as_str(), verdict.as_str());
    ensure!(row.verdict == verdict, "the verdict of a row is `{stated}`, but its values give `{computed}`");
    Ok(())
}

/// Checks a number of the file against the recomputed one. Numbers that are not finite are omitted from files.
fn same(what: &str, stated: Option<f64>, computed: Option<f64>) -> anyhow::Result<()> {
    let computed = computed.filter(|number| number.is_finite());
    let close = match (stated, computed) {
        (Some(stated), Some(computed)) => (stated - computed).abs() <= TOLERANCE * computed.abs().max(TOLERANCE),
        (stated, computed) => stated == computed,
    };
    ensure!(close, "its {what} is {}, but its values give {}", shown(stated), shown(computed));
    Ok(())
}

fn shown(number: Option<f64>) -> String {
    number.map_or("none".to_owned(), |number| number.to_string())
}

fn brief(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Look;

    fn real() -> Comparison {
        serde_json::from_str(include_str!("../../../tests/data/comparison/comparison.json")).unwrap()
    }

    fn refusal(tamper: impl FnOnce(&mut Comparison)) -> String {
        let mut comparison = real();
        tamper(&mut comparison);
        recheck(&comparison).unwrap_err().to_string()
    }

    #[test]
    fn a_regression_is_not_hidden_by_a_reason_for_which_nothing_is_tested() {
        let untested = |comparison: &mut Comparison| {
            for row in &mut comparison.rows {
                (row.p, row.q, row.low, row.high, row.deviation) = (None, None, None, None, None);
                row.verdict = Verdict::Inconclusive;
            }
            comparison.verdict = Verdict::Inconclusive;
            (comparison.counts.inconclusive, comparison.counts.regressed) = (comparison.rows.len(), 0);
        };
        let held = refusal(|it| {
            untested(it);
            it.conduct.held = Some("x".into());
        });
        let screened = |conduct: Strategy| {
            refusal(|it| {
                untested(it);
                it.conduct.screened = it.cases.iter().map(|case| case.name.clone()).collect();
                it.conduct.strategy = conduct;
            })
        };
        let late = refusal(|it| {
            it.method.looks = vec![Look { pairs: 5, fdr: 0.01 }, Look { pairs: 10, fdr: 0.04 }];
            it.rows.iter_mut().for_each(|row| row.q = Some(1.0));
        });
        assert_eq!(held, "it withholds the verdicts of paired runs");
        assert_eq!(screened(Strategy::Paired), "it has screened cases without a screen");
        assert_eq!(screened(Strategy::Screen), "a screened case was repeated");
        assert!(late.contains("its q 1 does not follow from its values"), "{late}");
    }

    #[test]
    fn an_unmodified_comparison_is_accepted() {
        recheck(&real()).unwrap();
    }

    #[test]
    fn a_verdict_or_number_that_does_not_follow_from_the_values_is_rejected() {
        let refusals = [
            refusal(|it| it.verdict = Verdict::Improved),
            refusal(|it| it.counts.improved = 40),
            refusal(|it| it.rows[0].verdict = Verdict::Improved),
            refusal(|it| it.rows[6].verdict = Verdict::Unchanged),
            refusal(|it| it.rows[6].p = None),
            refusal(|it| it.rows[6].estimate = Some(-0.5)),
            refusal(|it| (it.rows[0].q, it.rows[0].verdict) = (Some(0.001), Verdict::Improved)),
            refusal(|it| it.rows[0].base.iter_mut().for_each(|value| *value /= 2.0)),
            refusal(|it| (it.rows[0].n0, it.rows[0].s0) = (1e9, Some(1e-9))),
            refusal(|it| it.rows[0].head[0] = -1.0),
            refusal(|it| it.rows[6].head.clear()),
            refusal(|it| it.method.strategy = Strategy::Single),
            refusal(|it| it.rows[6].look = 0),
        ];
        insta::assert_snapshot!(refusals.join("\n"), @r"
        its verdict is `improved`, but its rows give `regressed`
        its counts do not match its rows
        the verdict of a row is `improved`, but its values give `inconclusive` (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        the verdict of a row is `unchanged`, but its values give `regressed` (`median_ttft_ms` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8`)
        its p is none, but its values give 0.0004671295108337236 (`median_ttft_ms` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8`)
        its estimate is -0.5, but its values give 4.2917347711080005 (`median_ttft_ms` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8`)
        its q is 0.001, but its values give 0.969287129459598 (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        its estimate is 0.07431776068205743, but its values give 1.148635521364115 (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        the weight of its noise is 1000000000 degrees of freedom: at most 8 (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        a row holds a negative value (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        its q is 0.9692871294505172, but its values give 0.97748363708904 (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        its low is -0.2685272553975889, but its values give none (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        its look 0 is not listed (`median_ttft_ms` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8`)
        ");
    }
}
