//! The rule: when a row is `regressed`, `improved`, `unchanged`, `inconclusive` or `not measured`, and the sentence
//! that says why. Effects are compared as log-ratios, so that swapping the sides swaps the verdicts and nothing else:
//! a minimum effect of 3 % is a factor of 1.03 either way.

use super::{CaseFacts, Row, Verdict};
use crate::config::{MinEffect, VerdictConfig};
use crate::metric::{Direction, Family, Metric};
use crate::plan::Side;
use crate::result::{Outcome, Repetition};
use crate::statistics::{Shift, hodges_lehmann, relative, shift};

/// Half width of the band that `unchanged` means: the 90 % interval lies inside a factor of 1.05 either way.
const UNCHANGED: f64 = 0.05;

/// How to get a verdict from a comparison of single runs.
const CURE: &str = "`vllm-perf run --pairs 5` interleaves five repetitions a side and can tell";

/// A row before its verdict, which needs the p values of all rows.
pub(super) struct Draft<'a> {
    pub case: &'a CaseFacts,
    pub metric: &'static Metric,
    pub base: Vec<f64>,
    pub head: Vec<f64>,
    pub evidence: Evidence,
    /// Repetitions without a value, as the tail of a sentence.
    holes: String,
}

/// What the values of a row allow.
pub(super) enum Evidence {
    /// Two samples with a test.
    Tested(Shift),
    /// Values, but no test; why.
    Single(String),
    /// 0 in every repetition of both sides.
    Zero,
    /// A side has no value; why.
    Missing(String),
}

impl<'a> Draft<'a> {
    /// Collects the values of a metric of a case, and what they allow.
    pub fn new(case: &'a CaseFacts, metric: &'static Metric, base: &[Repetition], head: &[Repetition]) -> Self {
        let raw = |side| values(case, metric, side);
        let positive = |values: &[f64]| values.iter().copied().filter(|value| *value > 0.0).collect::<Vec<f64>>();
        let (raw_base, raw_head) = (raw(base), raw(head));
        let (base_values, head_values) = (positive(&raw_base), positive(&raw_head));
        let draft = |base, head, evidence, holes| Self { case, metric, base, head, evidence, holes };

        let all_zero = |values: &[f64]| !values.is_empty() && values.iter().all(|value| *value == 0.0);
        if all_zero(&raw_base) && all_zero(&raw_head) {
            return draft(raw_base, raw_head, Evidence::Zero, String::new());
        }
        let evidence = if head_values.is_empty() {
            Evidence::Missing(missing(case, metric, Side::Head, head))
        } else if base.is_empty() {
            Evidence::Single("there is no base to compare with".to_owned())
        } else if base_values.is_empty() {
            Evidence::Missing(missing(case, metric, Side::Base, base))
        } else if base.len() == head.len() {
            match shift(&logs(&base_values), &logs(&head_values), None) {
                Some(shift) => Evidence::Tested(shift),
                None => Evidence::Single(format!(
                    "{} of base and {} of head gave a value, and one run cannot tell a change from noise: {CURE}",
                    count(base_values.len()),
                    count(head_values.len()),
                )),
            }
        } else {
            Evidence::Single(format!(
                "base has {} and head has {}, so they are no pairs: {CURE}",
                count(base.len()),
                count(head.len()),
            ))
        };
        let holes: String = [(Side::Base, base.len(), base_values.len()), (Side::Head, head.len(), head_values.len())]
            .into_iter()
            .filter(|(_, planned, valued)| (1..*planned).contains(valued))
            .map(|(side, planned, valued)| {
                format!("; {} of {planned} repetitions of {} gave no value", planned - valued, side.as_str())
            })
            .collect();
        draft(base_values, head_values, evidence, holes)
    }
}

/// Gives a draft its verdict. `q` is its adjusted p value, of tested primary rows.
pub(super) fn judge(draft: Draft, q: Option<f64>, config: &VerdictConfig) -> Row {
    let Draft { case, metric, base, head, evidence, holes } = draft;
    let (estimate, interval) = match &evidence {
        Evidence::Tested(shift) => (Some(relative(shift.estimate)), Some(shift.interval(0.95))),
        Evidence::Single(_) => (hodges_lehmann(&logs(&base), &logs(&head)).map(relative), None),
        Evidence::Zero | Evidence::Missing(_) => (None, None),
    };
    let shift = match &evidence {
        Evidence::Tested(shift) => Some(*shift),
        _ => None,
    };
    let (verdict, why) = match evidence {
        Evidence::Tested(shift) => tested(&shift, q, metric, head.len().max(base.len()), config),
        Evidence::Single(why) => (Verdict::Inconclusive, why),
        Evidence::Zero => (Verdict::Unchanged, format!("0 {} in every repetition of both sides", metric.unit)),
        Evidence::Missing(why) => (Verdict::NotMeasured, why),
    };
    Row {
        case: case.name.clone(),
        metric: metric.id.to_owned(),
        label: metric.label.to_owned(),
        unit: metric.unit.to_owned(),
        direction: metric.direction,
        family: metric.family,
        primary: metric.primary,
        base,
        head,
        estimate,
        low: interval.map(|(low, _)| relative(low)),
        high: interval.map(|(_, high)| relative(high)),
        p: shift.map(|shift| shift.p()),
        q,
        detectable: shift.map(|shift| shift.detectable()),
        verdict,
        why: why + &holes,
    }
}

fn tested(
    shift: &Shift,
    q: Option<f64>,
    metric: &Metric,
    repetitions: usize,
    config: &VerdictConfig,
) -> (Verdict, String) {
    let (low, high) = shift.interval(0.95);
    let change = format!(
        "{} (95 % interval {} to {})",
        percent(relative(shift.estimate)),
        percent(relative(low)),
        percent(relative(high))
    );
    let min_effect = min_effect(&config.min_effect, metric.family);
    let significant = q.filter(|q| *q <= config.fdr);
    let worse = match metric.direction {
        Direction::Higher => shift.estimate < 0.0,
        Direction::Lower => shift.estimate > 0.0,
    };
    if let Some(q) = significant
        && shift.estimate.abs() >= min_effect.ln_1p()
    {
        let (verdict, word) = if worse { (Verdict::Regressed, "worse") } else { (Verdict::Improved, "better") };
        let why = format!("{change} is {word}, {}, and at least {}", probability(q), size(min_effect));
        return (verdict, why);
    }
    let (low, high) = shift.interval(0.90);
    if low > -UNCHANGED.ln_1p() && high < UNCHANGED.ln_1p() {
        let (low, high) = (percent(relative(low)), percent(relative(high)));
        return (Verdict::Unchanged, format!("the 90 % interval, {low} to {high}, lies inside ±{}", size(UNCHANGED)));
    }
    let needed = shift.required_repetitions(min_effect);
    let why = match q {
        None => format!("{change}: shown only, this metric raises no alarm"),
        Some(q) if significant.is_some() => {
            format!("{change}, {}, but smaller than the minimum effect of {}", probability(q), size(min_effect))
        }
        Some(q) if needed > repetitions as u64 => {
            let needed = if needed > 1000 { "more than 1000".to_owned() } else { format!("about {needed}") };
            format!("{change}, {}: {needed} pairs would tell a change of {}", probability(q), size(min_effect))
        }
        Some(q) => format!("{change}, {}: near what {repetitions} pairs can tell", probability(q)),
    };
    (Verdict::Inconclusive, why)
}

/// Every finite value of a metric of a case, in the order of the repetitions.
fn values(case: &CaseFacts, metric: &Metric, repetitions: &[Repetition]) -> Vec<f64> {
    repetitions
        .iter()
        .filter_map(|repetition| match repetition.get(&case.name) {
            Some(Outcome::Measured(measurement)) => measurement.metrics.get(metric.id).copied(),
            _ => None,
        })
        .filter(|value| value.is_finite())
        .collect()
}

/// Why a side has no value above 0.
fn missing(case: &CaseFacts, metric: &Metric, side: Side, repetitions: &[Repetition]) -> String {
    let word = side.as_str();
    if !values(case, metric, repetitions).is_empty() {
        return format!("{word} is 0, and a change relative to 0 has no size");
    }
    match case.problems.iter().find(|problem| problem.side == side) {
        Some(problem) => format!("{word} has no value: {} (repetition {})", problem.reason, problem.repetition),
        None if repetitions.is_empty() => format!("{word} was not run"),
        None => format!("{word} has no value: its results lack `{}`", metric.id),
    }
}

fn logs(values: &[f64]) -> Vec<f64> {
    values.iter().map(|value| value.ln()).collect()
}

fn min_effect(config: &MinEffect, family: Family) -> f64 {
    match family {
        Family::Throughput => config.throughput,
        Family::Median => config.median,
        Family::P99 => config.p99,
    }
}

/// `1 repetition`, `3 repetitions`.
fn count(repetitions: usize) -> String {
    format!("{repetitions} repetition{}", if repetitions == 1 { "" } else { "s" })
}

/// A relative change with its sign: `+4.1 %`, `−0.3 %`.
fn percent(change: f64) -> String {
    let percent = change * 100.0;
    let number = match percent.abs() {
        size if size < 0.05 => return "0.0 %".to_owned(),
        size if size < 1000.0 => format!("{percent:+.1}"),
        size if size < 1e6 => format!("{percent:+.0}"),
        _ => format!("{percent:+.0e}"),
    };
    format!("{} %", number.replace('-', "−"))
}

/// A size without a sign, with no more digits than it has: `3 %`, `2.5 %`.
fn size(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn probability(q: f64) -> String {
    if q < 0.0001 { "q < 0.0001".to_owned() } else { format!("q = {q:.4}") }
}
