//! The measurements of one repetition, which are the input of a comparison.

use indexmap::IndexMap;

use crate::case::Kind;

/// The result of one case, reduced to the metrics that are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// What was measured.
    pub kind: Kind,
    /// Metric id (see `metric::ALL`) to value, without the metrics that the result lacks.
    pub metrics: IndexMap<String, f64>,
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
        Self { kind, metrics, missing: Vec::new(), warnings: Vec::new(), output_tokens: None }
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

/// One pass over the cases: the outcome of each case by its name.
pub type Repetition = IndexMap<String, Outcome>;

/// The measurement of a case in a repetition; `None` where the case failed or did not run.
pub fn measurement<'a>(repetition: &'a Repetition, case: &str) -> Option<&'a Measurement> {
    match repetition.get(case)? {
        Outcome::Measured(measurement) => Some(measurement),
        Outcome::Failed(_) => None,
    }
}
