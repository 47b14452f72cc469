//! The rule: when a row is `regressed`, `improved`, `unchanged`, `inconclusive` or `not measured`, and the sentence
//! that gives the reason. Effects are compared as log-ratios, so swapping the sides only swaps `regressed` and
//! `improved`: a minimum effect of 3 % is a factor of 1.03 in either direction.

use crate::criteria::VerdictConfig;
use crate::metric::{Direction, Metric};
use crate::noise::NoiseEstimate;
use crate::number;
use crate::repetition::{Repetition, measurement};
use crate::side::Side;
use crate::statistics::{MOST_REPETITIONS, Shift, hodges_lehmann, logs, relative, shift};
use crate::v1::{CaseFacts, Row, Verdict};

/// Half width of the band of `unchanged`: the 90 % interval is within a factor of 1.05 in either direction.
const UNCHANGED: f64 = 0.05;

/// How to get a verdict where the repetitions form no pairs.
const REMEDY: &str = "`vllm-perf run --pairs 5` measures five interleaved pairs";

/// The criterion that a metric of a case is judged by.
#[derive(Clone, Copy)]
pub(super) struct Criterion {
    pub metric: &'static Metric,
    pub direction: Direction,
    pub min_effect: f64,
    pub primary: bool,
}

impl Criterion {
    /// The criterion from the config.
    pub fn new(config: &VerdictConfig, case: &str, metric: &'static Metric) -> Self {
        let (direction, min_effect) = (config.direction(metric), config.min_effect(metric));
        Self { metric, direction, min_effect, primary: config.is_primary(case, metric) }
    }
}

/// A row before its verdict, which needs the p values of all rows.
pub(super) struct Draft<'a> {
    pub case: &'a CaseFacts,
    pub criterion: Criterion,
    pub base: Vec<f64>,
    pub head: Vec<f64>,
    pub evidence: Evidence,
    known: NoiseEstimate,
    /// Repetitions without a value, as the end of a sentence.
    missing_note: String,
}

/// What can be concluded from the values of a row.
pub(super) enum Evidence {
    /// Two samples with a test.
    Tested(Shift),
    /// Values without a test, with the reason.
    Single(String),
    /// The value 0 in every repetition of both sides.
    Zero,
    /// A side without a value, with the reason.
    Missing(String),
}

impl<'a> Draft<'a> {
    /// Collects the values of a metric of a case and tests them where possible.
    pub fn new(
        case: &'a CaseFacts,
        criterion: Criterion,
        base: &[Repetition],
        head: &[Repetition],
        known: NoiseEstimate,
    ) -> Self {
        let metric = criterion.metric;
        let raw = |side| values(case, metric, side);
        let positive = |values: &[f64]| values.iter().copied().filter(|value| *value > 0.0).collect::<Vec<f64>>();
        let (raw_base, raw_head) = (raw(base), raw(head));
        let (base_values, head_values) = (positive(&raw_base), positive(&raw_head));
        let draft =
            |base, head, evidence, missing_note| Self { case, criterion, base, head, evidence, known, missing_note };

        let all_zero = |values: &[f64]| !values.is_empty() && values.iter().all(|value| *value == 0.0);
        if !criterion.primary && all_zero(&raw_base) && all_zero(&raw_head) {
            return draft(raw_base, raw_head, Evidence::Zero, String::new());
        }
        let evidence = if head_values.is_empty() {
            Evidence::Missing(missing(case, metric, Side::Head, head))
        } else if base.is_empty() {
            Evidence::Single("there is no base to compare with".to_owned())
        } else if base_values.is_empty() {
            Evidence::Missing(missing(case, metric, Side::Base, base))
        } else if base.len() == head.len() {
            match shift(&logs(&base_values), &logs(&head_values), known.prior) {
                Some(shift) => Evidence::Tested(shift),
                None => Evidence::Single(format!(
                    "a test needs two values on each side; base has {} and head has {}: {REMEDY}",
                    base_values.len(),
                    head_values.len(),
                )),
            }
        } else {
            Evidence::Single(format!(
                "base has {} and head has {}, which do not form pairs: {REMEDY}",
                number::plural(base.len(), "repetition"),
                head.len(),
            ))
        };
        let missing_note: String =
            [(Side::Base, base.len(), base_values.len()), (Side::Head, head.len(), head_values.len())]
                .into_iter()
                .filter(|(_, planned, valued)| (1..*planned).contains(valued))
                .map(|(side, planned, valued)| {
                    format!("; no value in {} of {planned} repetitions of {}", planned - valued, side.as_str())
                })
                .collect();
        draft(base_values, head_values, evidence, missing_note)
    }

    /// The same values without a test, for the reason `why`.
    pub fn held(self, why: &str) -> Self {
        match self.evidence {
            Evidence::Tested(_) | Evidence::Single(_) => Self { evidence: Evidence::Single(why.to_owned()), ..self },
            Evidence::Zero | Evidence::Missing(_) => self,
        }
    }
}

/// The row of a draft, with its verdict. `q` is the adjusted p value of a tested primary row, `tests` the number of tests
/// in the report, and `fdr` the false discovery rate over them.
pub(super) fn judge(draft: Draft, q: Option<f64>, tests: usize, fdr: f64) -> Row {
    let Draft { case, criterion, base, head, evidence, known, missing_note } = draft;
    let Criterion { metric, direction, min_effect, primary } = criterion;
    let (estimate, interval) = match &evidence {
        Evidence::Tested(shift) => (Some(relative(shift.estimate)), Some(shift.interval(0.95))),
        Evidence::Single(_) => (hodges_lehmann(&logs(&base), &logs(&head)).map(relative), None),
        Evidence::Zero | Evidence::Missing(_) => (None, None),
    };
    let shift = match &evidence {
        Evidence::Tested(shift) => Some(*shift),
        _ => None,
    };
    // If no other row changed, Benjamini-Hochberg applies the level of Bonferroni to this one.
    let level = fdr / tests.max(1) as f64;
    let (verdict, why) = match evidence {
        Evidence::Tested(shift) => tested(&shift, q, criterion, head.len().max(base.len()), fdr),
        Evidence::Single(why) => (Verdict::Inconclusive, why),
        Evidence::Zero => (Verdict::Unchanged, format!("0 {} in every repetition of both sides", metric.unit)),
        Evidence::Missing(why) => (Verdict::NotMeasured, why),
    };
    Row {
        case: case.name.clone(),
        metric: metric.id.into(),
        label: metric.label.into(),
        unit: metric.unit.into(),
        direction,
        min_effect,
        primary,
        calibrated: known.calibrated,
        aa_pairs: known.pairs,
        s0: known.prior.map(|prior| prior.s0),
        n0: known.prior.map_or(0.0, |prior| prior.n0),
        look: 1,
        base,
        head,
        estimate,
        deviation: shift.map(|shift| shift.deviation),
        low: interval.map(|(low, _)| relative(low)),
        high: interval.map(|(_, high)| relative(high)),
        p: shift.map(|shift| shift.p()),
        q,
        detectable: shift.filter(|_| primary).map(|shift| shift.detectable(level, min_effect)),
        verdict,
        why: (why + &missing_note).into(),
    }
}

/// The verdict of a tested row: `q` is the adjusted p value of a primary row, and `fdr` the false discovery rate.
pub(super) fn decide(shift: &Shift, q: Option<f64>, direction: Direction, min_effect: f64, fdr: f64) -> Verdict {
    if q.is_some_and(|q| q <= fdr) && shift.estimate.abs() >= min_effect.ln_1p() {
        let worse = match direction {
            Direction::Higher => shift.estimate < 0.0,
            Direction::Lower => shift.estimate > 0.0,
        };
        return if worse { Verdict::Regressed } else { Verdict::Improved };
    }
    let (low, high) = shift.interval(0.90);
    let inside = low > -UNCHANGED.ln_1p() && high < UNCHANGED.ln_1p();
    if inside { Verdict::Unchanged } else { Verdict::Inconclusive }
}

fn tested(shift: &Shift, q: Option<f64>, criterion: Criterion, repetitions: usize, fdr: f64) -> (Verdict, String) {
    let Criterion { direction, min_effect, .. } = criterion;
    let (low, high) = shift.interval(0.95);
    let change = format!(
        "{} (95 % interval {} to {})",
        number::change(relative(shift.estimate)),
        number::change(relative(low)),
        number::change(relative(high))
    );
    let verdict = decide(shift, q, direction, min_effect, fdr);
    let why = match (verdict, q) {
        (Verdict::Regressed | Verdict::Improved, Some(q)) => {
            let word = if verdict == Verdict::Regressed { "worse" } else { "better" };
            let (q, size) = (probability(q), number::percent(min_effect));
            format!("{change}: {word}, {q}, at least the minimum effect of {size}")
        }
        (Verdict::Unchanged, _) => {
            let (low, high) = shift.interval(0.90);
            let (low, high) = (number::change(relative(low)), number::change(relative(high)));
            format!("the 90 % interval, {low} to {high}, is within ±{}", number::percent(UNCHANGED))
        }
        (_, None) => format!("{change}: secondary metric, not part of the verdict"),
        (_, Some(q)) if q <= fdr => {
            let (q, size) = (probability(q), number::percent(min_effect));
            format!("{change}, {q}: below the minimum effect of {size}")
        }
        (_, Some(q)) => format!("{change}, {}: {}", probability(q), needed(shift, min_effect, repetitions)),
    };
    (verdict, why)
}

/// The number of pairs needed to detect a change of `min_effect`, where `repetitions` pairs gave no verdict.
fn needed(shift: &Shift, min_effect: f64, repetitions: usize) -> String {
    let pairs = match shift.required_repetitions(min_effect) {
        None => format!("more than {MOST_REPETITIONS} pairs are needed"),
        Some(needed) if needed as usize > repetitions => format!("about {needed} pairs are needed"),
        Some(_) => format!("{repetitions} pairs are only just enough"),
    };
    format!("{pairs} to detect a change of {}", number::percent(min_effect))
}

/// Every finite value of a metric of a case, in the order of the repetitions.
fn values(case: &CaseFacts, metric: &Metric, repetitions: &[Repetition]) -> Vec<f64> {
    repetitions
        .iter()
        .filter_map(|repetition| measurement(repetition, case.name.raw())?.metrics.get(metric.id).copied())
        .filter(|value| value.is_finite())
        .collect()
}

/// Why a side has no positive value, which a relative change needs.
fn missing(case: &CaseFacts, metric: &Metric, side: Side, repetitions: &[Repetition]) -> String {
    let word = side.as_str();
    let values = values(case, metric, repetitions);
    if !values.is_empty() {
        let what = if values.iter().any(|value| *value < 0.0) { "negative" } else { "0" };
        return format!("{word} is {what}, so no relative change can be computed");
    }
    match case.problems.iter().find(|problem| problem.side == side) {
        Some(problem) => format!("{word} has no value: {} (repetition {})", problem.reason.raw(), problem.repetition),
        None if repetitions.is_empty() => format!("{word} was not run"),
        None => format!("{word} has no value: `{}` is missing from its results", metric.id),
    }
}

fn probability(q: f64) -> String {
    let chance = number::chance(q);
    if chance.starts_with('<') { format!("q {chance}") } else { format!("q = {chance}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::MeasuredBy;
    use crate::metric;
    use crate::repetition::{Measurement, Outcome};
    use crate::rows::add_problems;

    fn row(id: &str, base: &[Option<f64>], head: &[Option<f64>], q: Option<f64>) -> Row {
        let metric = metric::ALL.iter().find(|metric| metric.id == id).unwrap();
        let mut case = CaseFacts {
            name: "x".into(),
            kind: metric.kind,
            test: "x".into(),
            model: "m".into(),
            request_rate: None,
            max_concurrency: None,
            measured_by: MeasuredBy::Native,
            problems: Vec::new(),
            warnings: Vec::new(),
        };
        let repetitions = |values: &[Option<f64>]| -> Vec<Repetition> {
            values
                .iter()
                .map(|value| {
                    let outcome = value.map_or(Outcome::Failed("the server did not start".into()), |value| {
                        let metrics = [(id.to_owned(), value)].into_iter().collect();
                        Outcome::Measured(Measurement::new(metric.kind, metrics))
                    });
                    [("x".to_owned(), outcome)].into_iter().collect()
                })
                .collect()
        };
        let (base, head) = (repetitions(base), repetitions(head));
        add_problems(&mut case, Side::Base, &base);
        add_problems(&mut case, Side::Head, &head);
        let criterion = Criterion::new(&VerdictConfig::default(), "x", metric);
        judge(Draft::new(&case, criterion, &base, &head, NoiseEstimate::default()), q, 30, 0.05)
    }

    fn explained(row: &Row) -> String {
        format!("{:?}: {}", row.verdict, row.why.raw())
    }

    fn some<const N: usize>(values: [f64; N]) -> [Option<f64>; N] {
        values.map(Some)
    }

    #[test]
    fn direction_is_that_of_the_metric() {
        let (low, high) = (some([100.0, 101.0, 99.0, 100.5, 99.5]), some([110.0, 111.0, 109.0, 110.5, 109.5]));
        insta::assert_snapshot!(explained(&row("median_ttft_ms", &low, &high, Some(0.00004))), @"Regressed: +10.0 % (95 % interval +8.8 % to +11.2 %): worse, q < 0.0001, at least the minimum effect of 3 %");
        insta::assert_snapshot!(explained(&row("output_throughput", &low, &high, Some(0.0123))), @"Improved: +10.0 % (95 % interval +8.8 % to +11.2 %): better, q = 0.012, at least the minimum effect of 2 %");
        insta::assert_snapshot!(explained(&row("output_throughput", &high, &low, Some(0.0123))), @"Regressed: −9.1 % (95 % interval −10.1 % to −8.1 %): worse, q = 0.012, at least the minimum effect of 2 %");
    }

    #[test]
    fn a_change_that_is_not_significant_after_correction_reports_how_many_pairs_are_needed() {
        let base = some([100.0, 108.0, 95.0, 103.0, 99.0]);
        let head = some([104.0, 113.0, 97.0, 109.0, 101.0]);
        insta::assert_snapshot!(explained(&row("median_ttft_ms", &base, &head, Some(0.31))), @"Inconclusive: +4.0 % (95 % interval −4.1 % to +12.8 %), q = 0.31: about 43 pairs are needed to detect a change of 3 %");
    }

    #[test]
    fn a_significant_change_below_the_minimum_effect_is_no_regression() {
        let base = some([100.0, 100.5, 99.5, 100.2, 99.8]);
        let head = some([106.0, 106.5, 105.5, 106.2, 105.8]);
        insta::assert_snapshot!(explained(&row("p99_ttft_ms", &base, &head, Some(0.0001))), @"Inconclusive: +6.0 % (95 % interval +5.4 % to +6.6 %), q = 0.0001: below the minimum effect of 8 %");
    }

    #[test]
    fn close_repetitions_are_unchanged() {
        let base = some([100.0, 101.0, 99.0, 100.5, 99.5]);
        let head = some([100.4, 101.0, 99.2, 100.9, 99.6]);
        insta::assert_snapshot!(explained(&row("median_ttft_ms", &base, &head, Some(0.9))), @"Unchanged: the 90 % interval, −0.7 % to +1.2 %, is within ±5 %");
    }

    #[test]
    fn equal_repetitions_are_unchanged_and_every_number_is_finite() {
        let row = row("median_ttft_ms", &some([7.0; 5]), &some([7.0; 5]), Some(1.0));
        insta::assert_snapshot!(explained(&row), @"Unchanged: the 90 % interval, 0.0 % to 0.0 %, is within ±5 %");
        assert_eq!((row.estimate, row.p), (Some(0.0), Some(1.0)));
    }

    #[test]
    fn a_secondary_metric_is_never_a_change() {
        let (low, high) = (some([100.0, 101.0, 99.0, 100.5, 99.5]), some([210.0, 211.0, 209.0, 210.5, 209.5]));
        insta::assert_snapshot!(explained(&row("mean_ttft_ms", &low, &high, None)), @"Inconclusive: +110 % (95 % interval +108 % to +112 %): secondary metric, not part of the verdict");
    }

    #[test]
    fn one_run_or_unequal_numbers_of_runs_or_no_base_is_inconclusive_with_values() {
        let single = row("median_ttft_ms", &some([10.0]), &some([30.0]), None);
        assert_eq!((single.estimate.map(|e| (e * 1e9).round()), single.p, single.low), (Some(2e9), None, None));
        insta::assert_snapshot!(explained(&single), @"Inconclusive: a test needs two values on each side; base has 1 and head has 1: `vllm-perf run --pairs 5` measures five interleaved pairs");
        insta::assert_snapshot!(explained(&row("median_ttft_ms", &some([1.0, 1.0]), &some([9.0, 9.0, 9.0]), None)), @"Inconclusive: base has 2 repetitions and head has 3, which do not form pairs: `vllm-perf run --pairs 5` measures five interleaved pairs");
        let head_only = row("median_ttft_ms", &[], &some([30.0, 31.0]), None);
        assert_eq!(head_only.head, [30.0, 31.0]);
        insta::assert_snapshot!(explained(&head_only), @"Inconclusive: there is no base to compare with");
    }

    #[test]
    fn a_side_without_a_value_is_not_measured_with_the_reason() {
        insta::assert_snapshot!(explained(&row("median_ttft_ms", &some([1.0, 1.0]), &[None, None], None)), @"NotMeasured: head has no value: the server did not start (repetition 1)");
        insta::assert_snapshot!(explained(&row("median_ttft_ms", &[None, None], &some([1.0, 1.0]), None)), @"NotMeasured: base has no value: the server did not start (repetition 1)");
        insta::assert_snapshot!(explained(&row("median_ttft_ms", &some([1.0, 1.0]), &some([0.0, 0.0]), None)), @"NotMeasured: head is 0, so no relative change can be computed");
    }

    #[test]
    fn a_failed_repetition_leaves_the_others_to_compare() {
        let base = [Some(100.0), None, Some(100.4), Some(99.6), Some(100.2)];
        let row = row("median_ttft_ms", &base, &some([120.0, 120.4, 119.6, 120.2, 119.8]), Some(0.0004));
        assert_eq!(row.base, [100.0, 100.4, 99.6, 100.2]);
        insta::assert_snapshot!(explained(&row), @"Regressed: +19.9 % (95 % interval +19.4 % to +20.5 %): worse, q = 0.0004, at least the minimum effect of 3 %; no value in 1 of 5 repetitions of base");
        let one_left = super::tests::row("median_ttft_ms", &[Some(1.0), None], &some([1.0, 1.0]), None);
        insta::assert_snapshot!(explained(&one_left), @"Inconclusive: a test needs two values on each side; base has 1 and head has 2: `vllm-perf run --pairs 5` measures five interleaved pairs; no value in 1 of 2 repetitions of base");
    }

    #[test]
    fn nothing_compiled_on_both_sides_is_unchanged() {
        let row = row("avg_cold_compilation_time", &some([0.0; 3]), &some([0.0; 3]), None);
        assert_eq!((row.base.len(), row.estimate), (3, None));
        insta::assert_snapshot!(explained(&row), @"Unchanged: 0 s in every repetition of both sides");
        let appeared = super::tests::row("avg_cold_compilation_time", &some([0.0; 2]), &some([5.0; 2]), None);
        insta::assert_snapshot!(explained(&appeared), @"NotMeasured: base is 0, so no relative change can be computed");
    }

    #[test]
    fn invalid_values_are_left_out_and_never_a_change() {
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -3.0] {
            let good = some([100.0, 101.0, 99.0, 100.0, 100.5]);
            let spoilt = [Some(odd), Some(101.0), Some(99.0), Some(100.0), Some(100.5)];
            for (base, head) in [(good, spoilt), (spoilt, good), (spoilt, spoilt)] {
                let row = row("median_ttft_ms", &base, &head, Some(0.9));
                assert_eq!(row.verdict, Verdict::Unchanged, "{odd}: {}", row.why.raw());
                assert!(row.why.raw().contains("1 of 5 repetitions of"), "{odd}: {}", row.why.raw());
            }
            for id in ["median_ttft_ms", "avg_cold_compilation_time"] {
                let nothing = row(id, &some([odd; 3]), &some([100.0; 3]), None);
                assert_eq!((nothing.verdict, nothing.estimate), (Verdict::NotMeasured, None), "{odd}");
            }
        }
        insta::assert_snapshot!(explained(&row("median_ttft_ms", &some([1.0]), &some([-3.0]), None)), @"NotMeasured: head is negative, so no relative change can be computed");
        insta::assert_snapshot!(explained(&row("median_ttft_ms", &some([1.0]), &some([f64::NAN]), None)), @"NotMeasured: head has no value: `median_ttft_ms` is missing from its results");
    }
}
