//! What one repetition measured: the input of a comparison.

use indexmap::IndexMap;

use crate::case::Kind;

/// What one case gave, reduced to the metrics that are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// What was measured.
    pub kind: Kind,
    /// Metric id (see `metric::ALL`) to value; a metric that the result lacks is absent.
    pub metrics: IndexMap<String, f64>,
    /// Why the values may not be what they seem; our own client says so in its results.
    pub warnings: Vec<String>,
}

/// How one case of one repetition ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It gave numbers.
    Measured(Measurement),
    /// It gave none, and why.
    Failed(String),
}

/// One pass over the cases: case name to how it ended.
pub type Repetition = IndexMap<String, Outcome>;
