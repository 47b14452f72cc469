//! The comparison of base and head: rows with their values, statistics and verdicts.

use serde::{Deserialize, Serialize};

use super::{Conduct, OverallRow, Row, Subject, Verdict};
use crate::case::{Kind, MeasuredBy};
use crate::side::Side;
use crate::strategy::Strategy;
use crate::untrusted::Untrusted;

/// Schema of `comparison.json`.
pub const SCHEMA: &str = "vllm-perf/comparison/v1";

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
    /// One row for all cases of a metric, where at least half of them are whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overall: Vec<OverallRow>,
    /// Tests that were not run, and why.
    pub skipped: Vec<Skipped>,
    /// How the run was conducted; empty for a comparison of folders.
    #[serde(default)]
    pub conduct: Conduct,
}

/// Primary rows by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows of cases that fail on head and not on base. A report with one is `regressed`.
    #[serde(default)]
    pub failing: usize,
    pub regressed: usize,
    pub improved: usize,
    pub unchanged: usize,
    pub inconclusive: usize,
    /// Rows that the screening pass saw no change in, so that they were not repeated. Not counted as inconclusive here.
    #[serde(default)]
    pub screened: usize,
    pub not_measured: usize,
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
    /// The properties in the name of a case: `<test>[_qps_<rate>[_concurrency_<n>]]` or `<config>-conc-<n>` for serving, the test
    /// itself otherwise.
    pub fn named(name: &str, kind: Kind) -> Self {
        let (front, max_concurrency) = match name.rsplit_once("_concurrency_").or_else(|| name.rsplit_once("-conc-")) {
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
    /// Its bit 0 gives the side that is first in the first pair; the order alternates.
    pub seed: u64,
    /// False discovery rate over the report. A sequential run spends parts of it at its looks.
    pub fdr: f64,
    /// The analyses, in order; one unless the run was sequential. The last one gives the verdicts, at its rate.
    pub looks: Vec<Look>,
    /// Whether differences inside pairs were tested, because the pairs share much of their noise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blocked: bool,
    /// The variance inside pairs in parts of that inside sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Mean correlation between the cases of a metric over the repetitions.
    #[serde(default)]
    pub rho: f64,
}

/// One analysis of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Number of repetitions of each side, counted from the first.
    pub pairs: u32,
    /// False discovery rate of this look.
    pub fdr: f64,
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
