//! The measurements of one repetition, which are the input of a comparison.

use indexmap::IndexMap;

use crate::case::Kind;
use crate::v1::RepetitionValue;

/// The result of one case, reduced to the metrics that are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// What was measured.
    pub kind: Kind,
    /// Metric id (see `metric::ALL`) to value, without the metrics that the result lacks. Of several slices, the mean that the
    /// rule reads.
    pub metrics: IndexMap<String, f64>,
    /// The values of the slices, by metric id and in order; `None` where a slice has no value. Empty without slices.
    pub slices: IndexMap<String, Vec<Option<f64>>>,
    /// Primary metrics that a result of this kind has and this one lacks: their rows are not measured.
    pub missing: Vec<String>,
    /// Why the values may be unreliable, as the client reported it.
    pub warnings: Vec<String>,
    /// Output tokens of all answers, where the result has them: the work that was done.
    pub output_tokens: Option<u64>,
}

impl Measurement {
    /// A measurement of which nothing but the metrics is known.
    pub fn new(kind: Kind, metrics: IndexMap<String, f64>) -> Self {
        Self { kind, metrics, slices: IndexMap::new(), missing: Vec::new(), warnings: Vec::new(), output_tokens: None }
    }
}

/// The outcome of one case in one repetition.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A result with values.
    Measured(Measurement),
    /// No values, with the reason.
    Failed(String),
}

impl Outcome {
    /// The outcome of a repetition from those of its slices, in order. A repetition in which more than half of the slices
    /// failed has failed; so has a metric that more than half of them lack. `None` without slices.
    pub fn of_slices(mut slices: Vec<Self>) -> Option<Self> {
        if slices.len() < 2 {
            return slices.pop();
        }
        let measured: Vec<&Measurement> = slices.iter().filter_map(Self::measurement).collect();
        match measured.first() {
            Some(first) if 2 * measured.len() >= slices.len() => {
                Some(Self::Measured(of_slices(first.kind, &slices, &measured)))
            }
            _ => failure(&slices).map(Self::Failed),
        }
    }

    fn measurement(&self) -> Option<&Measurement> {
        match self {
            Self::Measured(measurement) => Some(measurement),
            Self::Failed(_) => None,
        }
    }

    fn failure(&self) -> Option<&str> {
        match self {
            Self::Measured(_) => None,
            Self::Failed(reason) => Some(reason),
        }
    }
}

/// The measurement of a repetition: the metrics that at least half of its slices have.
fn of_slices(kind: Kind, slices: &[Outcome], measured: &[&Measurement]) -> Measurement {
    let mut whole = Measurement::new(kind, IndexMap::new());
    for id in measured.iter().flat_map(|slice| slice.metrics.keys()) {
        if whole.metrics.contains_key(id) {
            continue;
        }
        let value = |slice: &Outcome| {
            let value = slice.measurement()?.metrics.get(id).copied();
            value.filter(|value| value.is_finite() && *value >= 0.0)
        };
        let values: Vec<Option<f64>> = slices.iter().map(value).collect();
        if 2 * values.iter().flatten().count() >= values.len() {
            let mean = RepetitionValue::Slices(values.clone()).shown();
            whole.metrics.extend(mean.map(|mean| (id.clone(), mean)));
            whole.slices.insert(id.clone(), values);
        }
    }
    for missing in measured.iter().flat_map(|slice| &slice.missing) {
        if !whole.metrics.contains_key(missing) && !whole.missing.contains(missing) {
            whole.missing.push(missing.clone());
        }
    }
    for (number, slice) in (1..).zip(slices) {
        let failed = slice.failure().map(|reason| format!("slice {number} of {} failed: {reason}", slices.len()));
        let warnings = slice.measurement().into_iter().flat_map(|slice| slice.warnings.iter().cloned());
        for warning in warnings.chain(failed) {
            if !whole.warnings.contains(&warning) {
                whole.warnings.push(warning);
            }
        }
    }
    let tokens: Vec<u64> = measured.iter().filter_map(|slice| slice.output_tokens).collect();
    whole.output_tokens = tokens.iter().sum::<u64>().checked_div(tokens.len() as u64);
    whole
}

/// Why a repetition failed: the reason of its slices where they share one, or else how many failed, and the first reason.
fn failure(slices: &[Outcome]) -> Option<String> {
    let reasons: Vec<&str> = slices.iter().filter_map(Outcome::failure).collect();
    let first = *reasons.first()?;
    let is_shared = reasons.len() == slices.len() && reasons.iter().all(|reason| *reason == first);
    Some(match is_shared {
        true => first.to_owned(),
        false => format!("{} of {} slices failed, the first because: {first}", reasons.len(), slices.len()),
    })
}

/// One pass over the cases: the outcome of each case by its name.
pub type Repetition = IndexMap<String, Outcome>;

/// The measurement of a case in a repetition; `None` where the case failed or did not run.
pub fn measurement<'a>(repetition: &'a Repetition, case: &str) -> Option<&'a Measurement> {
    repetition.get(case)?.measurement()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(values: &[(&str, f64)]) -> Outcome {
        let metrics = values.iter().map(|(id, value)| ((*id).to_owned(), *value)).collect();
        Outcome::Measured(Measurement { output_tokens: Some(100), ..Measurement::new(Kind::Serving, metrics) })
    }

    fn failed(reason: &str) -> Outcome {
        Outcome::Failed(reason.to_owned())
    }

    #[test]
    fn a_repetition_has_the_mean_of_its_slices_and_their_values() {
        // rule.py: np.exp(reduce_slices([2, 4, 16])) is 4.756828460010884, of [3, 12] it is 6
        let slices = [("a", 2.0), ("a", 4.0), ("a", 16.0)].map(|value| slice(&[value])).to_vec();
        let Some(Outcome::Measured(whole)) = Outcome::of_slices(slices) else { panic!("not measured") };
        assert!((whole.metrics["a"] - 4.756828460010884).abs() < 1e-12, "{whole:?}");
        assert_eq!(whole.slices["a"], [Some(2.0), Some(4.0), Some(16.0)]);
        assert_eq!(whole.output_tokens, Some(100), "of one slice: slices do the same work");
        let Some(Outcome::Measured(whole)) = Outcome::of_slices(vec![slice(&[("a", 3.0)]), slice(&[("a", 12.0)])])
        else {
            panic!("not measured")
        };
        assert!((whole.metrics["a"] - 6.0).abs() < 1e-12, "{whole:?}");
    }

    #[test]
    fn a_repetition_fails_with_more_than_half_of_its_slices() {
        let one = || slice(&[("a", 2.0)]);
        let Some(Outcome::Measured(half)) = Outcome::of_slices(vec![one(), failed("it crashed")]) else {
            panic!("half of the slices are enough")
        };
        assert_eq!((half.metrics["a"], &half.slices["a"][..]), (2.0, &[Some(2.0), None][..]));
        assert_eq!(half.warnings, ["slice 2 of 2 failed: it crashed"]);
        let three = Outcome::of_slices(vec![one(), failed("it crashed"), failed("it hung")]);
        assert_eq!(three, Some(failed("2 of 3 slices failed, the first because: it crashed")));
        assert_eq!(Outcome::of_slices(vec![failed("x"), failed("x")]), Some(failed("x")));
        assert_eq!(Outcome::of_slices(vec![one()]), Some(one()), "one slice is the repetition");
        assert_eq!(Outcome::of_slices(Vec::new()), None);
    }

    #[test]
    fn a_metric_that_most_slices_lack_has_no_value() {
        let whole = |slices: Vec<Outcome>| match Outcome::of_slices(slices) {
            Some(Outcome::Measured(whole)) => whole,
            other => panic!("{other:?}"),
        };
        let (both, one) = (|| slice(&[("a", 1.0), ("b", 2.0)]), || slice(&[("a", 1.0)]));
        assert_eq!(whole(vec![one(), both()]).slices["b"], [None, Some(2.0)]);
        let mostly = whole(vec![one(), both(), one()]);
        assert_eq!((mostly.metrics.get("b"), mostly.slices.get("b")), (None, None));
        assert_eq!(whole(vec![slice(&[("a", -1.0), ("b", 1.0)]), both()]).slices["a"], [None, Some(1.0)]);
    }
}
