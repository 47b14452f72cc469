//! Base against head: rows, each with a verdict and the numbers behind it.

use serde::{Deserialize, Serialize};

use super::{Conduct, Subject};
use crate::case::{Kind, MeasuredBy};
use crate::metric::Direction;
use crate::side::Side;
use crate::strategy::Strategy;

/// Schema of `comparison.json`.
pub const SCHEMA: &str = "vllm-perf/comparison/v1";

/// What may be said of a row or of a whole report. The order is that of importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Worse: significant after correction, and at least the minimum effect.
    Regressed,
    /// Either side has no value.
    #[serde(rename = "not measured")]
    NotMeasured,
    /// Better, by the same rule.
    Improved,
    /// The 90 % interval lies inside ±5 %.
    Unchanged,
    /// The runs cannot tell.
    Inconclusive,
}

impl Verdict {
    /// The word for it.
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

/// Base against head: every row and every number behind it. The one input of every rendering.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The whole report's verdict.
    pub verdict: Verdict,
    /// Primary rows by verdict.
    pub counts: Counts,
    /// What was compared, where and how.
    pub subject: Subject,
    /// How verdicts were reached.
    pub method: Method,
    /// The cases, in the order of the plan.
    pub cases: Vec<CaseFacts>,
    /// One metric of one case each; a case's rows stand together.
    pub rows: Vec<Row>,
    /// Tests that were left out, and why.
    pub skipped: Vec<Skipped>,
    /// How the run was conducted; empty where folders are compared.
    #[serde(default)]
    pub conduct: Conduct,
}

/// Primary rows by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Worse.
    pub regressed: usize,
    /// Better.
    pub improved: usize,
    /// The same.
    pub unchanged: usize,
    /// Cannot tell.
    pub inconclusive: usize,
    /// Cannot tell either: run once, in a screen that saw nothing suspicious. Not among the inconclusive ones here.
    #[serde(default)]
    pub screened: usize,
    /// No value.
    pub not_measured: usize,
}

/// One metric of one case, base against head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the case.
    pub case: String,
    /// Metric id.
    pub metric: String,
    /// Words for people.
    pub label: String,
    /// Unit of `base` and `head`.
    pub unit: String,
    /// Which way is better.
    pub direction: Direction,
    /// Smallest relative change that is called one: 0.03 is 3 % either way.
    pub min_effect: f64,
    /// Whether it may raise an alarm.
    pub primary: bool,
    /// Whether its noise is known from A/A pairs of its own.
    pub calibrated: bool,
    /// A/A pairs that its noise is known from, its own or those of its metric.
    pub aa_pairs: usize,
    /// Standard deviation of A/A pair log-ratios that the variance was drawn towards, if one was known.
    pub s0: Option<f64>,
    /// Weight of `s0`, in degrees of freedom; 0 without one.
    pub n0: f64,
    /// Which of the method's looks decided, from 1.
    pub look: u32,
    /// One value a repetition.
    pub base: Vec<f64>,
    /// One value a repetition.
    pub head: Vec<f64>,
    /// Relative change, Hodges-Lehmann: 0.05 is +5 %.
    pub estimate: Option<f64>,
    /// Standard deviation of the logarithm of one repetition, drawn towards `s0`.
    pub deviation: Option<f64>,
    /// Lower end of the 95 % interval of the relative change.
    pub low: Option<f64>,
    /// Upper end of the 95 % interval of the relative change.
    pub high: Option<f64>,
    /// Two-sided p value.
    pub p: Option<f64>,
    /// Benjamini-Hochberg adjusted p value over the primary rows of the same look; primary rows only.
    pub q: Option<f64>,
    /// Smallest relative change that would have been called one with 80 % power, had no other row changed; primary rows
    /// only.
    pub detectable: Option<f64>,
    /// What may be said.
    pub verdict: Verdict,
    /// One sentence: why.
    pub why: String,
}

/// What is known of a case, for its label and its chart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseFacts {
    /// Unique name.
    pub name: String,
    /// What it measures.
    pub kind: Kind,
    /// Name of the test that it comes from.
    pub test: String,
    /// Model.
    pub model: String,
    /// Request rate as text (`inf`), serving only.
    pub request_rate: Option<String>,
    /// Concurrency, serving only.
    pub max_concurrency: Option<u64>,
    /// Who measured it.
    pub measured_by: MeasuredBy,
    /// Why a side has no value, where one has none.
    pub problems: Vec<Problem>,
    /// Why numbers may not be what they seem, in the words of the client that measured them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
}

impl CaseFacts {
    /// What the name of a case tells: `<test>[_qps_<rate>[_concurrency_<n>]]` for serving, the test itself else.
    pub fn named(name: &str, kind: Kind) -> Self {
        let (front, max_concurrency) = match name.rsplit_once("_concurrency_") {
            Some((front, number)) if kind == Kind::Serving && number.parse::<u64>().is_ok() => {
                (front, number.parse().ok())
            }
            _ => (name, None),
        };
        let (test, request_rate) = match front.rsplit_once("_qps_") {
            Some((test, rate)) if kind == Kind::Serving => (test, Some(rate.to_owned())),
            _ => (front, None),
        };
        Self {
            name: name.to_owned(),
            kind,
            test: test.to_owned(),
            model: String::new(),
            request_rate,
            max_concurrency,
            measured_by: MeasuredBy::Vllm,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// What was wrong with a repetition of a case: why it has no value, or why its value may not be what it seems.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Which side.
    pub side: Side,
    /// Which repetition, from 1.
    pub repetition: u32,
    /// What went wrong.
    pub reason: String,
}

/// How verdicts were reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// How the runs turned out to be arranged.
    pub strategy: Strategy,
    /// Repetitions a side that were run.
    pub pairs: u32,
    /// Repetitions a side that were planned.
    pub planned_pairs: u32,
    /// Seed of the order inside each pair.
    pub seed: u64,
    /// False discovery rate over the primary rows: the sum of those of the looks.
    pub fdr: f64,
    /// When the values were looked at, in order; one look unless the run was sequential.
    pub looks: Vec<Look>,
}

/// One look at the values: cases that it decides are done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Repetitions a side, of the first on.
    pub pairs: u32,
    /// False discovery rate over the primary rows that it looks at.
    pub fdr: f64,
}

impl Look {
    /// The looks of a sequential run: at 5 pairs with a fifth of the false discovery rate, and of the cases that are
    /// inconclusive then, at 10 with the rest.
    pub fn sequential(fdr: f64) -> [Self; 2] {
        [Self { pairs: 5, fdr: fdr / 5.0 }, Self { pairs: 10, fdr: fdr * 4.0 / 5.0 }]
    }
}

/// A test or a kind that is left out, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Name of the test, or the kind when a whole file is left out.
    pub name: String,
    /// Why, and what would make it run.
    pub reason: String,
}
