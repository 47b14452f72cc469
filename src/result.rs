//! What a case gave. Upstream's result files in and out, typed; reading is lenient about keys that we do not use.

use indexmap::IndexMap;

use crate::suite::Kind;

/// What one case gave, reduced to the metrics that are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// What was measured.
    pub kind: Kind,
    /// Metric id (see `metric::ALL`) to value; a metric that the result lacks is absent.
    pub metrics: IndexMap<String, f64>,
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
