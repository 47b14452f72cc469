//! The comparison of base and head: rows with their values, statistics and verdicts.

use serde::{Deserialize, Serialize};

use super::{Conduct, Subject};
use crate::case::{Kind, MeasuredBy};
use crate::metric::Direction;
use crate::side::Side;
use crate::strategy::Strategy;
use crate::untrusted::Untrusted;

/// Schema of `comparison.json`.
pub const SCHEMA: &str = "vllm-perf/comparison/v1";

/// The verdict of a row or of a report, in order of importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Worse: significant after correction and at least the minimum effect.
    Regressed,
    /// A side has no value.
    #[serde(rename = "not measured")]
    NotMeasured,
    /// Better, by the same rule.
    Improved,
    /// The 90 % interval is within ±5 %.
    Unchanged,
    /// None of the above.
    Inconclusive,
}

impl Verdict {
    /// The name in files and texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regressed => "regressed",
            Self::NotMeasured => "not measured",
            Self::Improved => "improved",
            Self::Unchanged => "unchanged",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// The comparison of base and head, the content of `comparison.json`. All renderings are made from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Verdict of the report.
    pub verdict: Verdict,
    pub counts: Counts,
    pub subject: Subject,
    pub method: Method,
    /// The cases, in the order of the plan.
    pub cases: Vec<CaseFacts>,
    /// One row for each metric of each case; the rows of a case are adjacent.
    pub rows: Vec<Row>,
    /// Tests that were not run, and why.
    pub skipped: Vec<Skipped>,
    /// How the run was conducted; empty for a comparison of folders.
    #[serde(default)]
    pub conduct: Conduct,
}

/// Primary rows by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub regressed: usize,
    pub improved: usize,
    pub unchanged: usize,
    pub inconclusive: usize,
    /// Rows that the screening pass saw no change in, so that they were not repeated. Not counted as inconclusive here.
    #[serde(default)]
    pub screened: usize,
    pub not_measured: usize,
}

/// One metric of one case, base against head.
// 23 fields: the keys of a row in `comparison/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the case.
    pub case: Untrusted,
    /// Metric id.
    pub metric: Untrusted,
    /// Display name of the metric.
    pub label: Untrusted,
    /// Unit of `base` and `head`.
    pub unit: Untrusted,
    pub direction: Direction,
    /// Smallest relative change that is reported as `regressed` or `improved`: 0.03 is 3 % in either direction.
    pub min_effect: f64,
    /// Whether the row counts in the verdict of the report.
    pub primary: bool,
    /// Whether its noise was estimated from A/A pairs of this row.
    pub calibrated: bool,
    /// A/A pairs of the noise estimate, of this row or of its metric.
    pub aa_pairs: usize,
    /// Prior standard deviation of the log-ratios of A/A pairs, if one was used.
    pub s0: Option<f64>,
    /// Weight of `s0`, in degrees of freedom; 0 without one.
    pub n0: f64,
    /// The look that decided the row, as an index into the looks of the method, from 1.
    pub look: u32,
    /// Values of the repetitions.
    pub base: Vec<f64>,
    /// Values of the repetitions.
    pub head: Vec<f64>,
    /// Relative change, Hodges-Lehmann: 0.05 is +5 %.
    pub estimate: Option<f64>,
    /// Standard deviation of the logarithm of one repetition, moderated towards `s0`.
    pub deviation: Option<f64>,
    /// Lower end of the 95 % interval of the relative change.
    pub low: Option<f64>,
    /// Upper end of the 95 % interval of the relative change.
    pub high: Option<f64>,
    /// Two-sided p value.
    pub p: Option<f64>,
    /// Benjamini-Hochberg adjusted p value over the primary rows of the same look; primary rows only.
    pub q: Option<f64>,
    /// Smallest relative change that is detected with 80 % power if no other row changes; primary rows only.
    pub detectable: Option<f64>,
    pub verdict: Verdict,
    /// The reason of the verdict, one sentence.
    pub why: Untrusted,
}

/// The properties of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseFacts {
    /// Unique name.
    pub name: Untrusted,
    pub kind: Kind,
    pub test: Untrusted,
    pub model: Untrusted,
    /// Request rate as text (`inf`), serving only.
    pub request_rate: Option<Untrusted>,
    /// Concurrency, serving only.
    pub max_concurrency: Option<u64>,
    pub measured_by: MeasuredBy,
    /// Repetitions without a value, with the reason.
    pub problems: Vec<Problem>,
    /// Warnings of the load client about repetitions that are compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
}

impl CaseFacts {
    /// The properties in the name of a case: `<test>[_qps_<rate>[_concurrency_<n>]]` for serving, the test itself otherwise.
    pub fn named(name: &str, kind: Kind) -> Self {
        let (front, max_concurrency) = match name.rsplit_once("_concurrency_") {
            Some((front, number)) if kind == Kind::Serving && number.parse::<u64>().is_ok() => {
                (front, number.parse().ok())
            }
            _ => (name, None),
        };
        let (test, request_rate) = match front.rsplit_once("_qps_") {
            Some((test, rate)) if kind == Kind::Serving => (test, Some(rate.into())),
            _ => (front, None),
        };
        Self {
            name: name.into(),
            kind,
            test: test.into(),
            model: Untrusted::default(),
            request_rate,
            max_concurrency,
            measured_by: MeasuredBy::Vllm,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// A failure or a warning of one repetition of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub side: Side,
    /// Number of the repetition, from 1.
    pub repetition: u32,
    pub reason: Untrusted,
}

/// How the verdicts were computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// How the compared repetitions are arranged.
    pub strategy: Strategy,
    /// Repetitions of each side that were run.
    pub pairs: u32,
    /// Repetitions of each side that were planned.
    pub planned_pairs: u32,
    /// Seed of the order inside each pair.
    pub seed: u64,
    /// False discovery rate over the primary rows: the sum over the looks.
    pub fdr: f64,
    /// The analyses, in order; one unless the run was sequential.
    pub looks: Vec<Look>,
}

/// One analysis of a run: cases that it decides are finished.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Number of repetitions of each side, counted from the first.
    pub pairs: u32,
    /// False discovery rate over the primary rows of this look.
    pub fdr: f64,
}

impl Look {
    /// The looks of a sequential run: at 5 pairs with a fifth of the false discovery rate, and at 10 pairs with the rest for
    /// the cases that were inconclusive at the first.
    pub fn sequential(fdr: f64) -> [Self; 2] {
        [Self { pairs: 5, fdr: fdr / 5.0 }, Self { pairs: 10, fdr: fdr * 4.0 / 5.0 }]
    }
}

/// A test or a kind of tests that was not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Name of the test, or the kind if a whole file was skipped.
    pub name: Untrusted,
    /// Why, and how to run it.
    pub reason: Untrusted,
    /// Whether it cannot be run as it is written. Nobody asked to leave it out, and a run without it is not complete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invalid: bool,
}

impl Skipped {
    /// What was left out as asked, or because the device cannot run it.
    pub fn new(name: impl Into<Untrusted>, reason: impl Into<Untrusted>) -> Self {
        Self { name: name.into(), reason: reason.into(), invalid: false }
    }

    /// What cannot be run as it is written.
    pub fn invalid(name: impl Into<Untrusted>, reason: impl Into<Untrusted>) -> Self {
        Self { invalid: true, ..Self::new(name, reason) }
    }
}
