//! What went wrong in the repetitions of a case: failures and warnings.

use crate::repetition::{Outcome, Repetition, measurement};
use crate::side::Side;
use crate::statistics;
use crate::v1::{CaseFacts, Failed, Problem};

/// Output tokens of the sides that differ by a larger share are different amounts of work.
const SAME_WORK: f64 = 0.01;

/// Adds the failures of the repetitions of a side, and their warnings, unless the case already lists them.
fn add_problems(case: &mut CaseFacts, side: Side, repetitions: &[Repetition]) {
    for (number, repetition) in (1..).zip(repetitions) {
        let reason = match repetition.get(case.name.raw()) {
            Some(Outcome::Measured(measurement)) => {
                for reason in &measurement.warnings {
                    let warning = Problem { side, repetition: number, reason: reason.as_str().into() };
                    if !case.warnings.contains(&warning) {
                        case.warnings.push(warning);
                    }
                }
                continue;
            }
            Some(Outcome::Failed(reason)) => reason.as_str(),
            None => "there is no result",
        };
        if !case.problems.iter().any(|known| (known.side, known.repetition) == (side, number)) {
            case.problems.push(Problem { side, repetition: number, reason: reason.into() });
        }
    }
}

/// Adds the failures and warnings of both sides.
pub(crate) fn add_all(case: &mut CaseFacts, [base, head]: [&[Repetition]; 2]) {
    add_problems(case, Side::Base, base);
    add_problems(case, Side::Head, head);
    add_other_work(case, [base, head]);
}

/// In how many repetitions a case failed. One without a result has failed where the other side ran the case, unless this side
/// never did: a test that one side does not have is no failure.
pub(crate) fn failed(case: &CaseFacts, [base, head]: [&[Repetition]; 2]) -> Failed {
    let of = |side: &[Repetition], other: &[Repetition]| {
        let has_run = |repetition: &Repetition| repetition.contains_key(case.name.raw());
        let ever_ran = side.iter().any(has_run);
        let failed = |(at, repetition): &(usize, &Repetition)| match repetition.get(case.name.raw()) {
            Some(Outcome::Failed(_)) => true,
            Some(Outcome::Measured(_)) => false,
            None => ever_ran && other.get(*at).is_some_and(has_run),
        };
        side.iter().enumerate().filter(failed).count()
    };
    Failed { base: of(base, head), head: of(head, base) }
}

/// Adds a warning where the answers of the sides have different numbers of tokens: rates and times are then those of
/// different work.
fn add_other_work(case: &mut CaseFacts, [base, head]: [&[Repetition]; 2]) {
    let of = |side: &[Repetition]| {
        let tokens = side.iter().filter_map(|repetition| measurement(repetition, case.name.raw())?.output_tokens);
        let tokens: Vec<f64> = tokens.map(|tokens| tokens as f64).collect();
        statistics::mean(&tokens)
    };
    let (Some(base), Some(head)) = (of(base), of(head)) else { return };
    if (base - head).abs() <= SAME_WORK * base.max(head) {
        return;
    }
    let reason = format!(
        "its answers have {head:.0} tokens on average over the repetitions, those of base {base:.0}: the sides did different work"
    );
    let warning = Problem { side: Side::Head, repetition: 1, reason: reason.into() };
    if !case.warnings.contains(&warning) {
        case.warnings.push(warning);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repetition::Measurement;

    #[test]
    fn answers_of_different_lengths_are_told_as_different_work() {
        let warnings = |base: [u64; 2], head: [u64; 2]| {
            let mut case = CaseFacts::named("serving_a", crate::case::Kind::Serving);
            let side = |tokens: [u64; 2]| {
                tokens.map(|tokens| -> Repetition {
                    let measured = Measurement {
                        output_tokens: Some(tokens),
                        ..Measurement::new(case.kind, [("output_throughput".to_owned(), 1.0)].into_iter().collect())
                    };
                    [("serving_a".to_owned(), Outcome::Measured(measured))].into_iter().collect()
                })
            };
            let (base, head) = (side(base), side(head));
            for _ in 0..2 {
                add_other_work(&mut case, [&base, &head]);
            }
            case.warnings.iter().map(|warning| warning.reason.raw().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(warnings([256, 256], [256, 255]), Vec::<String>::new());
        let expected = "its answers have 64 tokens on average over the repetitions, those of base 256: the sides did different work";
        assert_eq!(warnings([256, 256], [64, 64]), [expected]);
    }
}
