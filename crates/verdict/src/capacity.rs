//! The largest concurrency at which a serving test meets its latency limits, on each side.

use std::str::FromStr;

use anyhow::Context;
use indexmap::IndexMap;
use serde::Serialize;

use crate::side::Side;
use crate::untrusted::Untrusted;
use crate::v1::{CaseFacts, Comparison, Row};

/// The latency limits of a test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Longest TTFT, in milliseconds.
    pub ttft_ms: Option<f64>,
    /// Longest TPOT, in milliseconds.
    pub tpot_ms: Option<f64>,
    /// Tolerance: 0.05 accepts 5 % above a limit.
    pub slack: f64,
    /// The statistic of a result that is compared with the limits.
    pub statistic: Statistic,
}

/// The statistic of a result that is compared with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Statistic {
    /// The 99th percentile over the requests.
    P99,
    /// The median over the requests.
    Median,
}

impl Statistic {
    pub const ALL: [Self; 2] = [Self::P99, Self::Median];

    /// The name in flags and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::P99 => "p99",
            Self::Median => "median",
        }
    }

    /// The ids of its TTFT and its TPOT.
    fn metrics(self) -> [&'static str; 2] {
        match self {
            Self::P99 => ["p99_ttft_ms", "p99_tpot_ms"],
            Self::Median => ["median_ttft_ms", "median_tpot_ms"],
        }
    }
}

impl FromStr for Statistic {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let named = Self::ALL.into_iter().find(|statistic| statistic.as_str() == text);
        named.with_context(|| {
            format!("`{text}` is not a statistic: expected {}", Self::ALL.map(Self::as_str).join(" or "))
        })
    }
}

/// The largest concurrency of one test at one request rate that meets its limits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Capacity {
    /// Name of the test.
    pub test: Untrusted,
    /// Request rate as text (`inf`).
    pub request_rate: Option<Untrusted>,
    /// Which limits: `ttft`, `tpot` or `both`.
    pub within: &'static str,
    /// Largest concurrency of base; `None` if none meets the limits.
    pub base: Option<Reached>,
    /// Largest concurrency of head.
    pub head: Option<Reached>,
}

/// The values at one concurrency: medians over the repetitions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Reached {
    /// Largest number of concurrent requests.
    pub concurrency: u64,
    /// Output tokens a second.
    pub output_throughput: Option<f64>,
    /// TTFT in milliseconds, by the statistic of the limits.
    pub ttft_ms: Option<f64>,
    /// TPOT in milliseconds, by the statistic of the limits.
    pub tpot_ms: Option<f64>,
}

/// The capacities of every test of a comparison, in its order: within each limit that is set, and within both. Tests
/// without a concurrency are left out.
pub fn capacities(comparison: &Comparison, limits: &Limits) -> Vec<Capacity> {
    let rows: IndexMap<(&str, &str), &Row> =
        comparison.rows.iter().map(|row| ((row.case.raw(), row.metric.raw()), row)).collect();
    let value = |case: &CaseFacts, metric: &str, side: Side| {
        rows.get(&(case.name.raw(), metric)).and_then(|row| row.centre(side))
    };
    let [ttft, tpot] = limits.statistic.metrics();
    let mut tests: IndexMap<(&Untrusted, Option<&Untrusted>), Vec<&CaseFacts>> = IndexMap::new();
    for case in comparison.cases.iter().filter(|case| case.max_concurrency.is_some()) {
        tests.entry((&case.test, case.request_rate.as_ref())).or_default().push(case);
    }
    let largest = |cases: &[&CaseFacts], side: Side, [ttft_limit, tpot_limit]: [Option<f64>; 2]| {
        let meets = |case: &CaseFacts, metric: &str, limit: Option<f64>| {
            limit.is_none_or(|limit| {
                value(case, metric, side).is_some_and(|value| value <= limit * (1.0 + limits.slack))
            })
        };
        let within = cases.iter().filter(|case| meets(case, ttft, ttft_limit) && meets(case, tpot, tpot_limit));
        let case = within.max_by_key(|case| case.max_concurrency)?;
        Some(Reached {
            concurrency: case.max_concurrency?,
            output_throughput: value(case, "output_throughput", side),
            ttft_ms: value(case, ttft, side),
            tpot_ms: value(case, tpot, side),
        })
    };
    let mut within = Vec::new();
    within.extend(limits.ttft_ms.map(|_| ("ttft", [limits.ttft_ms, None])));
    within.extend(limits.tpot_ms.map(|_| ("tpot", [None, limits.tpot_ms])));
    if within.len() == 2 {
        within.push(("both", [limits.ttft_ms, limits.tpot_ms]));
    }
    let mut capacities = Vec::new();
    for ((test, request_rate), cases) in tests {
        capacities.extend(within.iter().map(|(words, limits)| Capacity {
            test: test.clone(),
            request_rate: request_rate.cloned(),
            within: words,
            base: largest(&cases, Side::Base, *limits),
            head: largest(&cases, Side::Head, *limits),
        }));
    }
    capacities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Kind;
    use crate::criteria::VerdictConfig;
    use crate::input::Input;
    use crate::noise::Noise;
    use crate::repetition::{Measurement, Outcome, Repetition};
    use crate::v1::Subject;

    fn name(concurrency: u64) -> String {
        format!("serving_a_qps_inf_concurrency_{concurrency}")
    }

    /// TTFT and TPOT (99th percentiles) of each concurrency.
    fn repetition(points: &[(u64, f64, f64)]) -> Repetition {
        let outcome = |(concurrency, ttft, tpot): &(u64, f64, f64)| {
            let throughput = (concurrency * 10) as f64;
            let metrics = [("output_throughput", throughput), ("p99_ttft_ms", *ttft), ("p99_tpot_ms", *tpot)];
            let metrics = metrics.into_iter().map(|(id, value)| (id.to_owned(), value)).collect();
            let measured = Measurement::new(Kind::Serving, metrics);
            (name(*concurrency), Outcome::Measured(measured))
        };
        points.iter().map(outcome).collect()
    }

    fn comparison(base: &[(u64, f64, f64)], head: &[(u64, f64, f64)]) -> Comparison {
        let concurrencies: std::collections::BTreeSet<u64> = base.iter().chain(head).map(|point| point.0).collect();
        crate::rows::compare(Input {
            subject: Subject::default(),
            cases: concurrencies.into_iter().map(|number| CaseFacts::named(&name(number), Kind::Serving)).collect(),
            base: vec![repetition(base)],
            head: vec![repetition(head)],
            skipped: Vec::new(),
            planned_pairs: 1,
            seed: 1,
            verdict: VerdictConfig::default(),
            noise: Noise::default(),
            looks: Vec::new(),
        })
    }

    fn limits(ttft_ms: Option<f64>, tpot_ms: Option<f64>) -> Limits {
        Limits { ttft_ms, tpot_ms, slack: 0.05, statistic: Statistic::P99 }
    }

    #[test]
    fn the_largest_concurrency_meets_the_limits_with_five_percent_tolerance() {
        let base = [(8, 500.0, 40.0), (16, 3100.0, 60.0), (32, 9000.0, 104.0), (64, 20000.0, 106.0)];
        let head = [(8, 3200.0, 120.0), (16, 4000.0, 130.0)];
        let capacities = capacities(&comparison(&base, &head), &limits(Some(3000.0), Some(100.0)));
        let values = |reached: Option<Reached>| reached.map(|reached| (reached.concurrency, reached.output_throughput));
        let found: Vec<_> =
            capacities.iter().map(|capacity| (capacity.within, values(capacity.base), values(capacity.head))).collect();
        assert_eq!(
            found,
            [
                ("ttft", Some((16, Some(160.0))), None),
                ("tpot", Some((32, Some(320.0))), None),
                ("both", Some((16, Some(160.0))), None)
            ]
        );
        assert_eq!(capacities[0].base.unwrap().ttft_ms, Some(3100.0));
    }

    #[test]
    fn a_limit_that_is_not_set_gives_no_capacity() {
        let points = [(8, 500.0, 400.0)];
        let capacities = capacities(&comparison(&points, &points), &limits(Some(3000.0), None));
        assert_eq!(capacities.iter().map(|capacity| capacity.within).collect::<Vec<_>>(), ["ttft"]);
    }
}
