//! The reference implementation's answers on twenty reports, among them two of real vLLM.
use serde::Deserialize;

use super::judge;
use super::row_numbers::Numbers;
use super::sample::Sample;
use crate::case::Kind;
use crate::metric::Direction;
use crate::statistics::relative;
use crate::v1::{Failed, RepetitionValue, Verdict};

#[derive(Deserialize)]
struct Report {
    name: String,
    rows: Vec<Given>,
    expected: Expected,
}

#[derive(Deserialize)]
struct Given {
    kind: Kind,
    metric: String,
    direction: Direction,
    min_effect: f64,
    #[serde(default = "yes")]
    primary: bool,
    base: Vec<Option<RepetitionValue>>,
    head: Vec<Option<RepetitionValue>>,
    s0: Option<f64>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Expected {
    rows: Vec<Answer>,
    overall: Vec<Answer>,
    blocked: bool,
    ratio: Option<f64>,
    rho: f64,
    fdr: f64,
}

// 14 fields: the keys of the reference.
#[derive(Deserialize)]
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

#[track_caller]
fn same(what: &str, actual: Option<f64>, expected: Option<f64>) {
    let close = match (actual, expected) {
        (Some(actual), Some(expected)) => (actual - expected).abs() <= 1e-6 * expected.abs().max(1.0),
        (actual, expected) => actual == expected,
    };
    assert!(close, "{what}: {actual:?} is not {expected:?}");
}

#[track_caller]
fn same_numbers(what: &str, numbers: Option<&Numbers>, verdict: Verdict, answer: &Answer) {
    let of = |read: fn(&Numbers) -> f64| numbers.map(read);
    same(&format!("{what} estimate"), of(|it| relative(it.test.estimate)), answer.estimate);
    same(&format!("{what} low"), of(|it| relative(it.test.interval(0.95).0)), answer.low);
    same(&format!("{what} high"), of(|it| relative(it.test.interval(0.95).1)), answer.high);
    same(&format!("{what} deviation"), of(|it| it.test.deviation()), answer.deviation);
    same(&format!("{what} freedom"), of(|it| it.test.freedom), answer.freedom);
    same(&format!("{what} p"), of(|it| it.test.p()), answer.p);
    same(&format!("{what} q"), numbers.and_then(|it| it.q), answer.q);
    same(&format!("{what} detectable"), numbers.and_then(|it| it.detectable), answer.detectable);
    assert_eq!(verdict.as_str(), answer.verdict.replace('_', " "), "{what}");
    // The reference gives it for the number alone, whatever a failure made of the verdict.
    if verdict != Verdict::Failing {
        assert_eq!(numbers.and_then(|it| it.needed), answer.needed, "{what}");
    }
}

#[test]
fn the_rule_is_that_of_the_reference() {
    let reports: Vec<Report> =
        serde_json::from_str(include_str!("../../../../tests/data/verdict/golden.json")).unwrap();
    assert_eq!(reports.len(), 20);
    for report in &reports {
        let expected = &report.expected;
        let samples: Vec<Sample<'_>> = report
            .rows
            .iter()
            .zip(&expected.rows)
            .map(|(row, answer)| Sample {
                kind: row.kind,
                metric: &row.metric,
                direction: row.direction,
                min_effect: row.min_effect,
                primary: row.primary,
                base: &row.base,
                head: &row.head,
                failed: [answer.failed.base, answer.failed.head],
                calibrated: row.s0,
            })
            .collect();
        let judged = judge(&samples, expected.fdr);
        assert_eq!(judged.blocked, expected.blocked, "{}", report.name);
        same("ratio", judged.ratio, expected.ratio);
        same("rho", Some(judged.rho), Some(expected.rho));
        for (at, (row, answer)) in judged.rows.iter().zip(&expected.rows).enumerate() {
            let what = format!("{}: row {at}", report.name);
            same_numbers(&what, row.numbers.as_ref(), row.verdict, answer);
            same(&format!("{what} n0"), Some(row.prior.weight), answer.n0.or(Some(row.prior.weight)));
            same(&format!("{what} s02"), Some(row.prior.variance), answer.s02.or(Some(row.prior.variance)));
        }
        assert_eq!(judged.overall.len(), expected.overall.len(), "{}", report.name);
        for (at, (row, answer)) in judged.overall.iter().zip(&expected.overall).enumerate() {
            let what = format!("{}: overall row {at}", report.name);
            same_numbers(&what, Some(&row.numbers), row.verdict, answer);
            assert_eq!(row.members.len(), answer.cases.len(), "{what}");
        }
    }
}
