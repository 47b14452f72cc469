//! The criteria of a verdict: minimum effects, directions, primary metrics and the false discovery rate.

use indexmap::IndexMap;
use regex::{Regex, RegexBuilder};

use crate::case::Kind;
use crate::metric::{self, Direction, Family, Metric};
use crate::v1::CaseFacts;

/// The settings of the rule.
#[derive(Debug, Clone, PartialEq)]
pub struct VerdictConfig {
    /// Relative changes (0.02 is 2 %) below which a row is neither `regressed` nor `improved`.
    pub min_effect: MinEffect,
    /// Which way is better, by metric id, where it differs from `metric::ALL`.
    pub direction: IndexMap<&'static str, Direction>,
    /// Which rows are tested.
    pub primary: Primary,
    /// False discovery rate over the primary and overall rows of a report: 0.02, or 0.01 where a verdict blocks a merge.
    pub fdr: f64,
}

/// The criterion that a metric of a case is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Criterion {
    pub metric: &'static Metric,
    pub direction: Direction,
    pub min_effect: f64,
    pub primary: bool,
}

impl Criterion {
    /// The criterion from the settings.
    pub fn new(config: &VerdictConfig, metric: &'static Metric, primary: bool) -> Self {
        let (direction, min_effect) = (config.direction(metric), config.min_effect(metric));
        Self { metric, direction, min_effect, primary }
    }
}

/// Smallest relative change that is reported as `regressed` or `improved`, by the family of the metric.
#[derive(Debug, Clone, PartialEq)]
pub struct MinEffect {
    /// Rates.
    pub throughput: f64,
    /// Medians, means and start-up times.
    pub median: f64,
    /// 99th percentiles.
    pub p99: f64,
    /// Minimum effects of single metrics, by id.
    pub metrics: IndexMap<&'static str, f64>,
}

/// The primary rows: those of these metrics in these cases.
#[derive(Debug, Clone, PartialEq)]
pub struct Primary {
    /// Metric ids.
    pub metrics: Vec<&'static str>,
    /// A pattern for the names of the cases; `None` for every case.
    pub cases: Option<CasePattern>,
}

/// The primary metrics of a serving case that generates nothing.
const WITHOUT_TOKENS: [&str; 3] = ["total_token_throughput", "median_e2el_ms", "p99_e2el_ms"];

/// Most bytes of a compiled pattern.
const LARGEST: usize = 1 << 20;

/// A regular expression over case names. Two patterns are equal if their texts are equal.
#[derive(Debug, Clone)]
pub struct CasePattern(Regex);

impl CasePattern {
    /// Compiles a pattern. It may come from an untrusted file: the compiled size is limited.
    ///
    /// # Errors
    /// The text is not a regular expression, or its compiled form is too large.
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        RegexBuilder::new(text).size_limit(LARGEST).build().map(Self)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for CasePattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl VerdictConfig {
    /// Smallest relative change of a metric that is reported as a change: 0.03 is 3 %.
    pub fn min_effect(&self, metric: &Metric) -> f64 {
        let of_family = match metric.family {
            Family::Throughput => self.min_effect.throughput,
            Family::Median => self.min_effect.median,
            Family::P99 => self.min_effect.p99,
        };
        self.min_effect.metrics.get(metric.id).copied().unwrap_or(of_family)
    }

    /// Which way of a metric is better.
    pub fn direction(&self, metric: &Metric) -> Direction {
        self.direction.get(metric.id).copied().unwrap_or(metric.direction)
    }

    /// The primary metrics of a case that has the metrics `has`. A serving case with none of them generates nothing, as one of
    /// embeddings: its primary metrics are those that it can have.
    pub fn primary_of(&self, case: &CaseFacts, has: impl Fn(&str) -> bool) -> Vec<&'static str> {
        if self.primary.cases.as_ref().is_some_and(|pattern| !pattern.0.is_match(case.name.raw())) {
            return Vec::new();
        }
        let of_kind = metric::of(case.kind).map(|metric| metric.id).filter(|id| self.primary.metrics.contains(id));
        let of_kind: Vec<&'static str> = of_kind.collect();
        let generates_nothing =
            case.kind == Kind::Serving && !of_kind.iter().any(|id| has(id)) && WITHOUT_TOKENS.iter().any(|id| has(id));
        if generates_nothing { WITHOUT_TOKENS.to_vec() } else { of_kind }
    }
}

impl Default for VerdictConfig {
    fn default() -> Self {
        Self { min_effect: MinEffect::default(), direction: IndexMap::new(), primary: Primary::default(), fdr: 0.02 }
    }
}

impl Default for MinEffect {
    fn default() -> Self {
        Self { throughput: 0.02, median: 0.03, p99: 0.08, metrics: IndexMap::new() }
    }
}

impl Default for Primary {
    fn default() -> Self {
        let primary = metric::ALL.iter().filter(|metric| metric.primary);
        Self { metrics: primary.map(|metric| metric.id).collect(), cases: None }
    }
}
