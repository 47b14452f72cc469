//! The table of metrics: unit, direction, family, and whether a metric is primary.

use serde::{Deserialize, Serialize};

use crate::case::Kind;

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Higher is better: throughput.
    Higher,
    /// Lower is better: latencies and times.
    Lower,
}

impl Direction {
    /// The name in files and texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
        }
    }
}

/// The family of a metric, which selects its minimum effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Rates.
    Throughput,
    /// Medians, means and start-up times.
    Median,
    /// 99th percentiles.
    P99,
}

/// One metric of a kind of test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    pub kind: Kind,
    /// Key in upstream's result file, where upstream has one.
    pub id: &'static str,
    /// Display name.
    pub label: &'static str,
    pub unit: &'static str,
    pub direction: Direction,
    pub family: Family,
    /// Whether its rows are tested and count in the verdict, unless the config overrides it. Other rows are only shown.
    pub primary: bool,
}

const fn metric(
    kind: Kind,
    id: &'static str,
    label: &'static str,
    unit: &'static str,
    family: Family,
    primary: bool,
) -> Metric {
    let direction = match family {
        Family::Throughput => Direction::Higher,
        Family::Median | Family::P99 => Direction::Lower,
    };
    Metric { kind, id, label, unit, direction, family, primary }
}

/// All compared metrics, in the order of reports.
pub const ALL: &[Metric] = &[
    metric(Kind::Serving, "output_throughput", "Output throughput", "tok/s", Family::Throughput, true),
    metric(Kind::Serving, "median_ttft_ms", "Median TTFT", "ms", Family::Median, true),
    metric(Kind::Serving, "p99_ttft_ms", "P99 TTFT", "ms", Family::P99, true),
    metric(Kind::Serving, "median_tpot_ms", "Median TPOT", "ms", Family::Median, true),
    metric(Kind::Serving, "p99_tpot_ms", "P99 TPOT", "ms", Family::P99, true),
    metric(Kind::Serving, "request_throughput", "Request throughput", "req/s", Family::Throughput, false),
    metric(Kind::Serving, "total_token_throughput", "Total token throughput", "tok/s", Family::Throughput, false),
    metric(Kind::Serving, "mean_ttft_ms", "Mean TTFT", "ms", Family::Median, false),
    metric(Kind::Serving, "mean_tpot_ms", "Mean TPOT", "ms", Family::Median, false),
    metric(Kind::Serving, "mean_itl_ms", "Mean ITL", "ms", Family::Median, false),
    metric(Kind::Serving, "median_itl_ms", "Median ITL", "ms", Family::Median, false),
    metric(Kind::Serving, "p99_itl_ms", "P99 ITL", "ms", Family::P99, false),
    metric(
        Kind::Serving,
        "median_ttft_including_client_queue_ms",
        "Median TTFT incl. client queue",
        "ms",
        Family::Median,
        false,
    ),
    metric(
        Kind::Serving,
        "p99_ttft_including_client_queue_ms",
        "P99 TTFT incl. client queue",
        "ms",
        Family::P99,
        false,
    ),
    metric(Kind::Serving, "median_e2el_ms", "Median E2EL", "ms", Family::Median, false),
    metric(Kind::Serving, "p99_e2el_ms", "P99 E2EL", "ms", Family::P99, false),
    metric(Kind::Latency, "median_latency", "Median latency", "s", Family::Median, true),
    metric(Kind::Latency, "avg_latency", "Mean latency", "s", Family::Median, false),
    metric(Kind::Latency, "p99_latency", "P99 latency", "s", Family::P99, false),
    metric(Kind::Throughput, "tokens_per_second", "Total token throughput", "tok/s", Family::Throughput, true),
    metric(Kind::Throughput, "requests_per_second", "Request throughput", "req/s", Family::Throughput, false),
    metric(Kind::Startup, "avg_cold_startup_time", "Cold start", "s", Family::Median, true),
    metric(Kind::Startup, "avg_warm_startup_time", "Warm start", "s", Family::Median, true),
    metric(Kind::Startup, "avg_cold_compilation_time", "Cold compilation", "s", Family::Median, false),
    metric(Kind::Startup, "avg_warm_compilation_time", "Warm compilation", "s", Family::Median, false),
];

/// The metrics of one kind of test.
pub fn of(kind: Kind) -> impl Iterator<Item = &'static Metric> {
    ALL.iter().filter(move |metric| metric.kind == kind)
}
