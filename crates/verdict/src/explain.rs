//! The sentence that gives the reason of a verdict.

use crate::criteria::Criterion;
use crate::number;
use crate::repetition::{Repetition, measurement};
use crate::rule::{MOST_PAIRS, Numbers, UNCHANGED};
use crate::side::Side;
use crate::statistics::relative;
use crate::v1::{CaseFacts, Failed, RepetitionValue, Verdict};

/// How to get a verdict where the repetitions form no pairs.
const REMEDY: &str = "`vllm-perf run --pairs 5` measures five interleaved pairs";

/// The reason of a tested row or overall row at the false discovery rate `fdr`.
pub(crate) fn tested(numbers: &Numbers, verdict: Verdict, min_effect: f64, fdr: f64) -> String {
    let test = &numbers.test;
    let size = number::percent(min_effect);
    let change = change(numbers);
    match (verdict, numbers.q) {
        (Verdict::Regressed | Verdict::Improved, Some(q)) => {
            let word = if verdict == Verdict::Regressed { "worse" } else { "better" };
            format!("{change}: {word}, {}, at least the minimum effect of {size}", probability(q))
        }
        // Significant, and so certain, but too small to be a finding.
        (_, Some(q)) if q <= fdr && test.estimate.abs() < min_effect.ln_1p() => {
            format!("{change}, certain ({}), below the minimum effect of {size}", probability(q))
        }
        (Verdict::Unchanged, _) => {
            let (low, high) = test.interval(0.90);
            let (low, high) = (number::change(relative(low)), number::change(relative(high)));
            format!("the 90 % interval, {low} to {high}, is within ±{}", number::percent(UNCHANGED.max(min_effect)))
        }
        (_, None) => format!("{change}: secondary metric, not part of the verdict"),
        (_, Some(q)) => format!("{change}, {}: {}", probability(q), needed(numbers.needed, min_effect)),
    }
}

fn change(numbers: &Numbers) -> String {
    let (low, high) = numbers.test.interval(0.95);
    let [estimate, low, high] =
        [numbers.test.estimate, low, high].map(|log_difference| number::change(relative(log_difference)));
    format!("{estimate} (95 % interval {low} to {high})")
}

/// The number of pairs at which a change of 1.5 times the minimum effect is detectable.
fn needed(pairs: Option<u32>, min_effect: f64) -> String {
    let pairs = match pairs {
        Some(pairs) => format!("about {pairs} pairs"),
        None => format!("more than {MOST_PAIRS} pairs"),
    };
    format!("to detect {} would need {pairs}", number::percent(1.5 * min_effect))
}

/// The reason of a case that fails on head.
pub(crate) fn failing(case: &CaseFacts, failed: Failed, pairs: usize) -> String {
    let base = if failed.base == 0 { "in none".to_owned() } else { format!("in {}", failed.base) };
    let said = match case.problems.iter().find(|problem| problem.side == Side::Head) {
        Some(problem) => format!(": {}", problem.reason.raw()),
        None => String::new(),
    };
    format!("head failed in {} of {}, base {base}{said}", failed.head, number::plural(pairs, "repetition"))
}

/// The reason of a row with values on both sides that was not tested.
pub(crate) fn untested(base: &[Option<RepetitionValue>], head: &[Option<RepetitionValue>]) -> String {
    let zeros = |side: &[Option<RepetitionValue>]| side.iter().flatten().filter(|value| value.has_zero()).count();
    let number = |side: &[Option<RepetitionValue>]| side.iter().flatten().count();
    for (side, values) in [(Side::Head, head), (Side::Base, base)] {
        if zeros(values) > 0 {
            let all = number(values);
            let part = if zeros(values) == all {
                String::new()
            } else {
                format!(" in {} of {all} repetitions", zeros(values))
            };
            return format!("{} is 0{part}, so no relative change can be computed", side.as_str());
        }
    }
    format!("a test needs two values on each side; base has {} and head has {}: {REMEDY}", number(base), number(head))
}

/// The reason of a row with a side that has no value.
pub(crate) fn missing(case: &CaseFacts, criterion: &Criterion, [base, head]: [&[Repetition]; 2]) -> String {
    let has_value = |side: &[Repetition]| {
        side.iter().any(|repetition| {
            measurement(repetition, case.name.raw()).is_some_and(|one| one.metrics.contains_key(criterion.metric.id))
        })
    };
    let (side, repetitions) = if has_value(head) { (Side::Base, base) } else { (Side::Head, head) };
    let word = side.as_str();
    match case.problems.iter().find(|problem| problem.side == side) {
        Some(problem) => format!("{word} has no value: {} (repetition {})", problem.reason.raw(), problem.repetition),
        None if repetitions.is_empty() => format!("{word} was not run"),
        None => format!("{word} has no value: `{}` is missing from its results", criterion.metric.id),
    }
}

/// Repetitions without a value, as the end of a sentence.
pub(crate) fn holes(base: &[Option<f64>], head: &[Option<f64>]) -> String {
    [(Side::Base, base), (Side::Head, head)]
        .into_iter()
        .map(|(side, values)| (side, values.len(), values.iter().filter(|value| value.is_none()).count()))
        .filter(|(_, planned, holes)| (1..*planned).contains(holes))
        .map(|(side, planned, holes)| format!("; no value in {holes} of {planned} repetitions of {}", side.as_str()))
        .collect()
}

fn probability(q: f64) -> String {
    let chance = number::chance(q);
    if chance.starts_with('<') { format!("q {chance}") } else { format!("q = {chance}") }
}
