//! A report as the reference implementation of the rule reads and answers it, and how our answers differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::row_numbers::Numbers;
use super::sample::Sample;
use super::{Judged, judge};
use crate::case::Kind;
use crate::metric::Direction;
use crate::noise::ENOUGH_PAIRS;
use crate::statistics::relative;
use crate::v1::{Failed, RepetitionValue, Verdict};

/// Accepted difference between two numbers, in parts of the number where that is more than 1.
const TOLERANCE: f64 = 1e-6;

/// A row of a report.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Given {
    pub case: String,
    pub kind: Kind,
    pub metric: String,
    pub direction: Direction,
    pub min_effect: f64,
    #[serde(default = "yes")]
    pub primary: bool,
    pub base: Vec<Option<RepetitionValue>>,
    pub head: Vec<Option<RepetitionValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s0: Option<f64>,
    #[serde(default)]
    pub aa_pairs: usize,
    /// `None` where every absent value is a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
}

fn yes() -> bool {
    true
}

/// The reference's answer to a report.
#[derive(Debug, Deserialize)]
pub(super) struct Expected {
    rows: Vec<Answer>,
    overall: Vec<Answer>,
    blocked: bool,
    ratio: Option<f64>,
    rho: f64,
    fdr: f64,
}

// 14 fields: the keys of the reference.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    failed: Failed,
    #[serde(default)]
    cases: Vec<String>,
    n0: Option<f64>,
    s02: Option<f64>,
    estimate: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    deviation: Option<f64>,
    freedom: Option<f64>,
    p: Option<f64>,
    q: Option<f64>,
    detectable: Option<f64>,
    needed: Option<u32>,
    verdict: String,
}

/// How our answers differ from those of the reference.
#[derive(Debug, Default)]
pub(super) struct Differences {
    /// One sentence for each number or verdict that is not the same.
    pub found: Vec<String>,
    /// The largest accepted difference of a number, and the name of the number.
    pub largest: (f64, String),
    /// Numbers and verdicts that were compared.
    pub compared: usize,
    /// Rows and overall rows by verdict, and reports that are blocked.
    pub verdicts: BTreeMap<&'static str, usize>,
    pub blocked: usize,
}

impl Differences {
    /// Judges a report and adds how that differs from what is expected.
    pub fn add(&mut self, name: &str, rows: &[Given], expected: &Expected) {
        let samples: Vec<Sample<'_>> =
            rows.iter().zip(&expected.rows).map(|(row, answer)| row.sample(answer.failed)).collect();
        let Judged { rows, overall, blocked, ratio, rho } = judge(&samples, expected.fdr);
        self.blocked += usize::from(blocked);
        self.same(name, "blocked", blocked, expected.blocked);
        self.number(name, "ratio", ratio, expected.ratio);
        self.number(name, "rho", Some(rho), Some(expected.rho));
        self.same(name, "rows", rows.len(), expected.rows.len());
        self.same(name, "overall rows", overall.len(), expected.overall.len());
        for (at, (row, answer)) in rows.iter().zip(&expected.rows).enumerate() {
            let row_name = format!("{name}: row {at}");
            self.numbers(&row_name, row.numbers.as_ref(), row.verdict, answer);
            // The reference has no prior for a row that it does not test.
            if answer.n0.is_some() {
                self.number(&row_name, "n0", Some(row.prior.weight), answer.n0);
                self.number(&row_name, "s02", Some(row.prior.variance), answer.s02);
            }
        }
        for (at, (row, answer)) in overall.iter().zip(&expected.overall).enumerate() {
            let row_name = format!("{name}: overall row {at}");
            self.numbers(&row_name, Some(&row.numbers), row.verdict, answer);
            self.same(&row_name, "cases", row.members.len(), answer.cases.len());
        }
    }

    fn numbers(&mut self, name: &str, numbers: Option<&Numbers>, verdict: Verdict, answer: &Answer) {
        *self.verdicts.entry(verdict.as_str()).or_default() += 1;
        let of = |read: fn(&Numbers) -> f64| numbers.map(read);
        self.number(name, "estimate", of(|it| relative(it.test.estimate)), answer.estimate);
        self.number(name, "low", of(|it| relative(it.test.interval(0.95).0)), answer.low);
        self.number(name, "high", of(|it| relative(it.test.interval(0.95).1)), answer.high);
        self.number(name, "deviation", of(|it| it.test.deviation()), answer.deviation);
        self.number(name, "freedom", of(|it| it.test.freedom), answer.freedom);
        self.number(name, "p", of(|it| it.test.p()), answer.p);
        self.number(name, "q", numbers.and_then(|it| it.q), answer.q);
        self.number(name, "detectable", numbers.and_then(|it| it.detectable), answer.detectable);
        self.same(name, "needed", numbers.and_then(|it| it.needed), answer.needed);
        self.same(name, "verdict", verdict.as_str(), answer.verdict.replace('_', " ").as_str());
    }

    fn number(&mut self, name: &str, what: &str, ours: Option<f64>, expected: Option<f64>) {
        let (Some(number), Some(reference)) = (ours, expected) else {
            return self.same(name, what, ours, expected);
        };
        self.compared += 1;
        let difference = (number - reference).abs() / reference.abs().max(1.0);
        if difference > TOLERANCE || difference.is_nan() {
            self.found.push(format!("{name}: {what} is {number:?}, not {reference:?}"));
        } else if difference > self.largest.0 {
            self.largest = (difference, format!("{name}: {what}"));
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, what: &str, ours: T, expected: T) {
        self.compared += 1;
        if ours != expected {
            self.found.push(format!("{name}: {what} is {ours:?}, not {expected:?}"));
        }
    }
}

impl Given {
    fn sample(&self, failed: Failed) -> Sample<'_> {
        Sample {
            kind: self.kind,
            metric: &self.metric,
            direction: self.direction,
            min_effect: self.min_effect,
            primary: self.primary,
            base: &self.base,
            head: &self.head,
            failed: [failed.base, failed.head],
            calibrated: self.s0.filter(|_| self.aa_pairs >= ENOUGH_PAIRS),
        }
    }
}
