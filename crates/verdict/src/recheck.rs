//! Recomputes a comparison from an untrusted source from its own values, and rejects numbers and verdicts that do not
//! follow from them. The values themselves cannot be checked.

use std::collections::HashMap;

use anyhow::{Context, anyhow, ensure};

use crate::case::Kind;
use crate::counts;
use crate::noise::ENOUGH_PAIRS;
use crate::rule::{self, JudgedRow, Numbers, Sample};
use crate::side::Side;
use crate::statistics::{hodges_lehmann, relative};
use crate::strategy::Strategy;
use crate::untrusted::Untrusted;
use crate::v1::{Comparison, OverallRow, Row, Verdict};

/// Accepted relative difference between two computations of one number.
const TOLERANCE: f64 = 1e-6;

/// Checks that every number and verdict of a comparison follows from the values of its rows, its counts from its rows and
/// its verdict from both.
///
/// # Errors
/// The first row or count that does not follow, with the recomputed value.
pub fn recheck(comparison: &Comparison) -> anyhow::Result<()> {
    let Comparison { method, conduct, rows, overall, .. } = comparison;
    check_untested(comparison)?;
    let screened = conduct.screened();
    let is_paired = method.pairs > 1 && conduct.held.is_none() && method.strategy != Strategy::Single;
    let (tested, others): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|row| is_paired && !screened.contains(&row.case));
    for row in &others {
        check_values(row).and_then(|()| check_other(row)).map_err(|error| of_row(&error, row))?;
    }
    check_tested(comparison, &tested)?;
    ensure!(is_paired || overall.is_empty(), "it has overall rows without pairs");
    let counts = counts::count(rows, &screened);
    ensure!(comparison.counts == counts, "its counts do not match its rows");
    let verdict = counts::of_report(&counts, overall, rows.is_empty());
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
        method.strategy != Strategy::Single || conduct.held.is_some() || method.pairs < 2,
        "it does not test its pairs"
    );
    ensure!(
        conduct.screened.is_empty() || conduct.strategy == Strategy::Screen,
        "it has screened cases without a screen"
    );
    let screened = conduct.screened();
    let repeated = |row: &Row| row.base.len() > 1 || row.head.len() > 1;
    ensure!(!rows.iter().any(|row| screened.contains(&row.case) && repeated(row)), "a screened case was repeated");
    Ok(())
}

/// Checks the rows that are tested together, and the overall rows.
fn check_tested(comparison: &Comparison, rows: &[&Row]) -> anyhow::Result<()> {
    let Comparison { method, overall, .. } = comparison;
    let kinds: HashMap<&Untrusted, Kind> = comparison.cases.iter().map(|case| (&case.name, case.kind)).collect();
    let look = method.looks.last().context("it lists no look")?;
    ensure!((0.0..=1.0).contains(&look.fdr), "its false discovery rate is {}", look.fdr);
    for row in rows {
        check_values(row).and_then(|()| check_noise(row)).map_err(|error| of_row(&error, row))?;
        let at = row.look as usize;
        ensure!(at == method.looks.len(), "its look {at} is not the last one ({})", named(row));
    }
    let mut samples = Vec::new();
    for row in rows {
        let kind = kinds.get(&row.case).with_context(|| format!("its case is not listed ({})", named(row)))?;
        samples.push(sample(row, *kind));
    }
    let judged = rule::judge(&samples, look.fdr);
    for (row, computed) in rows.iter().zip(&judged.rows) {
        check_row(row, computed).map_err(|error| of_row(&error, row))?;
    }
    ensure!(overall.len() == judged.overall.len(), "its overall rows do not match its rows");
    for (row, computed) in overall.iter().zip(&judged.overall) {
        let first = rows[computed.members[0]];
        let same = row.metric == first.metric && row.cases == computed.members.len();
        let same = same && row.direction == first.direction && row.min_effect == first.min_effect;
        ensure!(same, "an overall row does not match its rows");
        check_overall(row, &computed.numbers, computed.verdict)
            .map_err(|error| anyhow!("{error} (overall `{}`)", brief(row.metric.raw())))?;
    }
    if !rows.is_empty() {
        ensure!(method.blocked == judged.blocked, "whether its pairs are blocked does not follow from its values");
        same("ratio of variances", method.ratio, judged.ratio)?;
    }
    Ok(())
}

/// The row as the rule reads it.
fn sample<'a>(row: &'a Row, kind: Kind) -> Sample<'a> {
    Sample {
        kind,
        metric: row.metric.raw(),
        direction: row.direction,
        min_effect: row.min_effect,
        primary: row.primary,
        base: &row.base,
        head: &row.head,
        failed: [row.failed.base, row.failed.head],
        calibrated: row.s0.filter(|_| row.calibrated),
    }
}

fn check_values(row: &Row) -> anyhow::Result<()> {
    let sides = [&row.base, &row.head];
    let values = || sides.into_iter().flat_map(|side| side.iter().flatten()).flat_map(|value| value.values());
    ensure!(values().all(|value| value.is_finite() && value >= 0.0), "a row holds a negative value");
    ensure!(row.min_effect >= 0.0, "a minimum effect is negative");
    for (side, failed) in [(Side::Base, row.failed.base), (Side::Head, row.failed.head)] {
        let holes = row.side(side).iter().filter(|value| value.is_none()).count();
        ensure!(failed <= holes, "{} failed {failed} times, and {holes} of its values are absent", side.as_str());
    }
    Ok(())
}

fn check_noise(row: &Row) -> anyhow::Result<()> {
    let weighed = row.n0 >= 0.0 && row.s0.is_none_or(|s0| s0.is_finite() && s0 >= 0.0);
    let known =
        !row.calibrated || (row.n0 == rule::CALIBRATED_WEIGHT && row.aa_pairs >= ENOUGH_PAIRS && row.s0.is_some());
    ensure!(weighed && known, "the weight of its noise, {}, is not one that the rule gives", row.n0);
    Ok(())
}

/// Checks a row that was not tested.
fn check_other(row: &Row) -> anyhow::Result<()> {
    let (base, head) = (row.numbers(Side::Base), row.numbers(Side::Head));
    let zero = base.iter().chain(&head).any(|value| *value <= 0.0);
    let logs = |values: &[f64]| values.iter().map(|value| value.ln()).collect::<Vec<f64>>();
    let estimate = if zero { None } else { hodges_lehmann(&logs(&base), &logs(&head)) };
    same("estimate", row.estimate, estimate.map(relative).filter(|_| row.verdict != Verdict::NotMeasured))?;
    let tested = [row.low, row.high, row.p, row.q, row.deviation, row.detectable];
    ensure!(tested.iter().all(Option::is_none), "it has numbers of a test that was not done");
    let possible = match row.verdict {
        Verdict::Inconclusive => !head.is_empty(),
        Verdict::NotMeasured => head.is_empty() || base.is_empty(),
        _ => false,
    };
    ensure!(possible, "its verdict is `{}` without a test", row.verdict.as_str());
    Ok(())
}

fn check_row(row: &Row, computed: &JudgedRow) -> anyhow::Result<()> {
    let numbers = computed.numbers.as_ref();
    let interval = numbers.map(|numbers| numbers.test.interval(0.95));
    same("estimate", row.estimate, numbers.map(|numbers| relative(numbers.test.estimate)))?;
    same("low", row.low, interval.map(|(low, _)| relative(low)))?;
    same("high", row.high, interval.map(|(_, high)| relative(high)))?;
    same("p", row.p, numbers.map(|numbers| numbers.test.p()))?;
    same("q", row.q, numbers.and_then(|numbers| numbers.q))?;
    same("deviation", row.deviation, numbers.map(|numbers| numbers.test.deviation()))?;
    same("degrees of freedom", row.freedom, numbers.map(|numbers| numbers.test.freedom))?;
    ensure!(
        row.needed == numbers.and_then(|numbers| numbers.needed),
        "its number of needed pairs does not follow from its values"
    );
    same("weight of the noise", Some(row.n0), Some(computed.prior.weight))?;
    let s0 = (computed.prior.weight > 0.0).then(|| (2.0 * computed.prior.variance).sqrt());
    same("noise", row.s0, s0)?;
    same("smallest detectable change", row.detectable, numbers.and_then(|numbers| numbers.detectable))?;
    let (stated, verdict) = (row.verdict.as_str(), computed.verdict.as_str());
    ensure!(row.verdict == computed.verdict, "the verdict of a row is `{stated}`, but its values give `{verdict}`");
    Ok(())
}

fn check_overall(row: &OverallRow, numbers: &Numbers, verdict: Verdict) -> anyhow::Result<()> {
    let (low, high) = numbers.test.interval(0.95);
    same("estimate", Some(row.estimate), Some(relative(numbers.test.estimate)))?;
    same("low", Some(row.low), Some(relative(low)))?;
    same("high", Some(row.high), Some(relative(high)))?;
    same("p", Some(row.p), Some(numbers.test.p()))?;
    same("q", Some(row.q), numbers.q)?;
    same("deviation", Some(row.deviation), Some(numbers.test.deviation()))?;
    same("degrees of freedom", Some(row.freedom), Some(numbers.test.freedom))?;
    ensure!(row.needed == numbers.needed, "its number of needed pairs does not follow from its rows");
    same("smallest detectable change", Some(row.detectable), numbers.detectable)?;
    let (stated, computed) = (row.verdict.as_str(), verdict.as_str());
    ensure!(row.verdict == verdict, "its verdict is `{stated}`, but its rows give `{computed}`");
    Ok(())
}

fn of_row(error: &anyhow::Error, row: &Row) -> anyhow::Error {
    anyhow!("{error} ({})", named(row))
}

fn named(row: &Row) -> String {
    format!("`{}` of `{}`", brief(row.metric.raw()), brief(row.case.raw()))
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
    use crate::v1::RepetitionValue;

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
        let late = refusal(|it| it.rows.iter_mut().for_each(|row| row.q = Some(1.0)));
        assert_eq!(held, "it withholds the verdicts of paired runs");
        assert_eq!(screened(Strategy::Paired), "it has screened cases without a screen");
        assert_eq!(screened(Strategy::Screen), "a screened case was repeated");
        assert!(late.contains("its q is 1, but its values give"), "{late}");
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
            refusal(|it| it.rows[0].base.iter_mut().for_each(|value| *value = Some(RepetitionValue::One(1.0)))),
            refusal(|it| (it.rows[0].calibrated, it.rows[0].n0, it.rows[0].s0) = (true, 1e9, Some(1e-9))),
            refusal(|it| (it.rows[0].calibrated, it.rows[0].n0, it.rows[0].s0) = (true, 8.0, Some(1e-9))),
            refusal(|it| it.rows[0].head[0] = Some(RepetitionValue::One(-1.0))),
            refusal(|it| it.rows[0].failed.head = 3),
            refusal(|it| it.rows[6].head.clear()),
            refusal(|it| it.method.strategy = Strategy::Single),
            refusal(|it| it.rows[6].look = 0),
            refusal(|it| it.overall[0].verdict = Verdict::Improved),
            refusal(|it| it.overall.clear()),
            refusal(|it| it.method.blocked = !it.method.blocked),
            refusal(|it| it.method.ratio = Some(0.1)),
            refusal(|it| it.rows[0].needed = Some(2)),
            refusal(|it| it.rows[0].freedom = Some(1000.0)),
            refusal(|it| it.rows[0].s0 = Some(0.001)),
            refusal(|it| it.overall[0].deviation = 0.001),
        ];
        insta::assert_snapshot!(refusals.join("\n"), @"
        its verdict is `improved`, but its rows give `regressed`
        its counts do not match its rows
        the verdict of a row is `improved`, but its values give `inconclusive` (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        the verdict of a row is `unchanged`, but its values give `regressed` (`median_ttft_ms` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8`)
        its p is none, but its values give 0.0004671295108337236 (`median_ttft_ms` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8`)
        its estimate is -0.5, but its values give 4.2917347711080005 (`median_ttft_ms` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8`)
        its q is 0.001, but its values give 1 (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        its estimate is 0.07431776068205743, but its values give 523.7700104742554 (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        the weight of its noise, 1000000000, is not one that the rule gives (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        the weight of its noise, 8, is not one that the rule gives (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        a row holds a negative value (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        head failed 3 times, and 0 of its values are absent (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        its smallest detectable change is 1.6871704445979505, but its values give 1.6496607040818636 (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        it does not test its pairs
        its look 0 is not the last one (`median_ttft_ms` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8`)
        its verdict is `improved`, but its rows give `inconclusive` (overall `output_throughput`)
        its overall rows do not match its rows
        whether its pairs are blocked does not follow from its values
        its ratio of variances is 0.1, but its values give 0.6205620060260643
        its number of needed pairs does not follow from its values (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        its degrees of freedom is 1000, but its values give 8 (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        its noise is 0.001, but its values give none (`output_throughput` of `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`)
        its deviation is 0.001, but its values give 0.20778457696692085 (overall `output_throughput`)
        ");
    }
}
