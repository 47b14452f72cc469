//! The result files of `vllm bench`, typed. Reading ignores keys that are not used.

use anyhow::Context;
use indexmap::IndexMap;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::metric;
use vllm_verdict::repetition::{Measurement, Outcome};

use crate::result::python_json::{self, or_default, or_none};

/// Reads a result file of one kind. A result that shows that something failed (failed requests, zeros) is
/// [`Outcome::Failed`] with the numbers. A value that is no number (null, NaN) is not there: a primary metric without one is
/// missing, and nothing else is lost.
///
/// # Errors
/// A text that is not a result of this kind.
pub fn parse(kind: Kind, text: &str) -> anyhow::Result<Outcome> {
    Document::read(kind, text).map(|document| document.outcome())
}

/// A result file, as `vllm bench` writes it.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// `vllm bench serve`.
    Serving(Box<Serving>),
    /// `vllm bench latency`.
    Latency(Latency),
    /// `vllm bench startup`.
    Startup(Startup),
    /// `vllm bench throughput`.
    Throughput(Throughput),
}

/// What `vllm bench serve` writes. Times in milliseconds, rates per second.
// 33 fields: upstream's keys.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Serving {
    #[serde(deserialize_with = "or_none")]
    pub model_id: Option<String>,
    #[serde(deserialize_with = "or_none")]
    pub num_prompts: Option<u64>,
    #[serde(deserialize_with = "or_none")]
    pub max_concurrency: Option<u64>,
    #[serde(deserialize_with = "or_none")]
    pub completed: Option<u64>,
    /// Absent in results of older versions.
    #[serde(deserialize_with = "or_none")]
    pub failed: Option<u64>,
    #[serde(deserialize_with = "or_none")]
    pub duration: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub total_input_tokens: Option<u64>,
    #[serde(deserialize_with = "or_none")]
    pub total_output_tokens: Option<u64>,
    #[serde(deserialize_with = "or_none")]
    pub request_throughput: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub output_throughput: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub total_token_throughput: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub mean_ttft_ms: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub median_ttft_ms: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub p99_ttft_ms: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub std_ttft_ms: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub mean_tpot_ms: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub median_tpot_ms: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub p99_tpot_ms: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub std_tpot_ms: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub mean_itl_ms: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub median_itl_ms: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub p99_itl_ms: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub std_itl_ms: Option<f64>,
    /// From sending to the end of the answer. Where nothing is generated it is the only time.
    #[serde(deserialize_with = "or_none")]
    pub median_e2el_ms: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub p99_e2el_ms: Option<f64>,
    /// With the wait for a place, at a finite rate with a limit of concurrency. Only the native client writes it.
    #[serde(deserialize_with = "or_none")]
    pub median_ttft_including_client_queue_ms: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub p99_ttft_including_client_queue_ms: Option<f64>,
    /// How many requests failed, by kind. Only the native client writes it.
    #[serde(deserialize_with = "or_default")]
    pub failures: IndexMap<String, u64>,
    /// The words of the first failure of each kind. Only the native client writes it.
    #[serde(deserialize_with = "or_default")]
    pub failure_messages: IndexMap<String, String>,
    /// Metrics that the client may have distorted. Only the native client writes it.
    #[serde(deserialize_with = "or_default")]
    pub distorted: Vec<String>,
    /// CPU time of the client. Only the native client writes it.
    #[serde(deserialize_with = "or_none")]
    pub client_cpu_share: Option<f64>,
    /// Why the numbers may be wrong. Only the native client writes it.
    #[serde(deserialize_with = "or_default")]
    pub warnings: Vec<String>,
    /// Whether it has this key, also without a value. Only vLLM's Rust client writes it, always.
    #[serde(rename = "steady_state", deserialize_with = "is_there")]
    pub has_steady_state: bool,
}

/// What `vllm bench latency` writes, in seconds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Latency {
    #[serde(deserialize_with = "or_none")]
    pub avg_latency: Option<f64>,
    /// One value an iteration.
    #[serde(deserialize_with = "numbers")]
    pub latencies: Vec<f64>,
    /// `"10"` to `"99"`.
    #[serde(deserialize_with = "named_numbers")]
    pub percentiles: IndexMap<String, f64>,
}

/// What `vllm bench throughput` writes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Throughput {
    #[serde(deserialize_with = "or_none")]
    pub elapsed_time: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub num_requests: Option<u64>,
    #[serde(deserialize_with = "or_none")]
    pub total_num_tokens: Option<u64>,
    #[serde(deserialize_with = "or_none")]
    pub requests_per_second: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub tokens_per_second: Option<f64>,
}

/// What `vllm bench startup` writes, in seconds. Compilation times are 0 where nothing is compiled.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Startup {
    #[serde(deserialize_with = "or_none")]
    pub avg_cold_startup_time: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub avg_warm_startup_time: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub avg_cold_compilation_time: Option<f64>,
    #[serde(deserialize_with = "or_none")]
    pub avg_warm_compilation_time: Option<f64>,
}

impl Document {
    /// Reads a result file of one kind; the error has the position.
    pub fn read(kind: Kind, text: &str) -> anyhow::Result<Self> {
        let text = python_json::plain(text);
        match kind {
            Kind::Serving => serde_json::from_str(&text).map(|result| Self::Serving(Box::new(result))),
            Kind::Latency => serde_json::from_str(&text).map(Self::Latency),
            Kind::Startup => serde_json::from_str(&text).map(Self::Startup),
            Kind::Throughput => serde_json::from_str(&text).map(Self::Throughput),
        }
        .with_context(|| format!("cannot read the result as one of `{}`", kind.as_str()))
    }

    /// The model; only results of serving name it.
    pub fn model(&self) -> Option<&str> {
        match self {
            Self::Serving(result) => result.model_id.as_deref(),
            Self::Latency(_) | Self::Startup(_) | Self::Throughput(_) => None,
        }
    }

    /// Whether requests failed, some did not, and those that did are at most this share of all.
    pub fn failed_share_is(&self, at_most: f64) -> bool {
        let Self::Serving(serving) = self else { return false };
        let (completed, failed) = (serving.completed.unwrap_or_default(), serving.failed.unwrap_or_default());
        completed > 0 && failed > 0 && failed as f64 <= at_most * completed.saturating_add(failed) as f64
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Serving(result) => result.outcome(),
            Self::Latency(result) => measured(
                Kind::Latency,
                [
                    ("median_latency", result.percentiles.get("50").copied()),
                    ("avg_latency", result.avg_latency),
                    ("p99_latency", result.percentiles.get("99").copied()),
                ],
            ),
            Self::Throughput(result) => measured(
                Kind::Throughput,
                [("tokens_per_second", result.tokens_per_second), ("requests_per_second", result.requests_per_second)],
            ),
            Self::Startup(result) => measured(
                Kind::Startup,
                [
                    ("avg_cold_startup_time", result.avg_cold_startup_time),
                    ("avg_warm_startup_time", result.avg_warm_startup_time),
                    ("avg_cold_compilation_time", result.avg_cold_compilation_time),
                    ("avg_warm_compilation_time", result.avg_warm_compilation_time),
                ],
            ),
        }
    }
}

impl Serving {
    /// The client that wrote it, by the keys that only one has.
    pub fn measured_by(&self) -> MeasuredBy {
        match (self.client_cpu_share, self.has_steady_state) {
            (Some(_), _) => MeasuredBy::Native,
            (None, true) => MeasuredBy::VllmRs,
            (None, false) => MeasuredBy::Vllm,
        }
    }

    /// The outcome where nothing is generated, as by embedding, reranking and classification: there are only request rates
    /// and whole times.
    fn without_tokens(&self, mut metrics: IndexMap<String, f64>) -> Outcome {
        metrics.retain(|metric, _| !self.distorted.contains(metric));
        if metrics.is_empty() {
            return Outcome::Failed("the result has no metric".to_owned());
        }
        let (missing, warnings) = (self.distorted.clone(), self.warnings.clone());
        Outcome::Measured(Measurement { missing, warnings, ..Measurement::new(Kind::Serving, metrics) })
    }

    fn outcome(&self) -> Outcome {
        let completed = self.completed.unwrap_or_default();
        if let Some(failed) = self.failed.filter(|failed| *failed > 0) {
            let kinds: Vec<_> = self.failures.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
            let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
            let first = self.failure_messages.values().next().map(|words| format!("; the first: {words}"));
            let total = completed.saturating_add(failed);
            return Outcome::Failed(format!("{failed} of {total} requests failed{kinds}{}", first.unwrap_or_default()));
        }
        if completed == 0 {
            return Outcome::Failed("no request was completed".to_owned());
        }
        if let (None, Some(sent)) = (self.failed, self.num_prompts)
            && completed < sent
        {
            return Outcome::Failed(format!("only {completed} of {sent} requests were completed"));
        }
        let values = [
            ("output_throughput", self.output_throughput),
            ("median_ttft_ms", self.median_ttft_ms),
            ("p99_ttft_ms", self.p99_ttft_ms),
            ("median_tpot_ms", self.median_tpot_ms),
            ("p99_tpot_ms", self.p99_tpot_ms),
            ("request_throughput", self.request_throughput),
            ("total_token_throughput", self.total_token_throughput),
            ("mean_ttft_ms", self.mean_ttft_ms),
            ("mean_tpot_ms", self.mean_tpot_ms),
            ("mean_itl_ms", self.mean_itl_ms),
            ("median_itl_ms", self.median_itl_ms),
            ("p99_itl_ms", self.p99_itl_ms),
            ("median_ttft_including_client_queue_ms", self.median_ttft_including_client_queue_ms),
            ("p99_ttft_including_client_queue_ms", self.p99_ttft_including_client_queue_ms),
            ("median_e2el_ms", self.median_e2el_ms),
            ("p99_e2el_ms", self.p99_e2el_ms),
        ];
        let has_tokens = [self.output_throughput, self.median_ttft_ms, self.median_tpot_ms].iter().any(Option::is_some);
        if !has_tokens {
            return self.without_tokens(values.into_iter().filter_map(present).collect());
        }
        match measured(Kind::Serving, values) {
            Outcome::Measured(mut measurement) => {
                // There is no time between tokens where every response has one.
                let is_single = self.total_output_tokens.is_some_and(|tokens| tokens <= completed);
                let has_no_value = |metric: &str| is_single && (metric.contains("tpot") || metric.contains("itl"));
                measurement.metrics.retain(|metric, _| !self.distorted.contains(metric) && !has_no_value(metric));
                let distorted = self.distorted.iter().filter(|metric| !measurement.missing.contains(metric));
                measurement.missing.extend(distorted.cloned().collect::<Vec<_>>());
                measurement.warnings.clone_from(&self.warnings);
                measurement.output_tokens = self.total_output_tokens;
                Outcome::Measured(measurement)
            }
            failed @ Outcome::Failed(_) => failed,
        }
    }
}

fn present((id, value): (&str, Option<f64>)) -> Option<(String, f64)> {
    value.map(|value| (id.to_owned(), value))
}

/// Measured, unless every primary metric is missing or all values are 0.
fn measured<const N: usize>(kind: Kind, values: [(&str, Option<f64>); N]) -> Outcome {
    let metrics: IndexMap<String, f64> = values.into_iter().filter_map(present).collect();
    let primary: Vec<&str> = metric::of(kind).filter(|metric| metric.primary).map(|metric| metric.id).collect();
    let missing: Vec<&str> = primary.iter().copied().filter(|id| !metrics.contains_key(*id)).collect();
    if let Some(first) = missing.first().filter(|_| missing.len() == primary.len()) {
        return Outcome::Failed(format!("the result lacks `{first}`"));
    }
    if metrics.values().all(|value| *value <= 0.0) {
        return Outcome::Failed("every metric of the result is 0".to_owned());
    }
    let missing = missing.into_iter().map(str::to_owned).collect();
    Outcome::Measured(Measurement { missing, ..Measurement::new(kind, metrics) })
}

/// Whether a key is there, whatever its value.
fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// The finite numbers of a list.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let values: Vec<Value> = or_default(deserializer)?;
    Ok(values.iter().filter_map(Value::as_f64).collect())
}

/// The finite numbers of an object.
fn named_numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IndexMap<String, f64>, D::Error> {
    let values: IndexMap<String, Value> = or_default(deserializer)?;
    Ok(values.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: &str = include_str!("../../tests/data/results/upstream-run/latency_tinyllama_tp1.json");
    const THROUGHPUT: &str = include_str!("../../tests/data/results/upstream-run/throughput_tinyllama_tp1.json");
    const STARTUP: &str = include_str!("../../tests/data/results/upstream-run/startup_tinyllama_tp1.json");
    const SERVING: &str = include_str!(
        "../../tests/data/results/upstream-run/serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8.json"
    );

    fn metrics(kind: Kind, text: &str) -> Vec<(String, f64)> {
        match parse(kind, text).unwrap() {
            Outcome::Measured(measurement) => measurement.metrics.into_iter().collect(),
            Outcome::Failed(reason) => panic!("{reason}"),
        }
    }

    fn failure(kind: Kind, text: &str) -> String {
        match parse(kind, text).unwrap() {
            Outcome::Measured(measurement) => panic!("{measurement:?}"),
            Outcome::Failed(reason) => reason,
        }
    }

    #[test]
    fn every_kind_of_real_result_gives_every_metric_of_its_kind() {
        for (kind, text) in [
            (Kind::Serving, SERVING),
            (Kind::Latency, LATENCY),
            (Kind::Throughput, THROUGHPUT),
            (Kind::Startup, STARTUP),
        ] {
            let ids: Vec<String> = metrics(kind, text).into_iter().map(|(id, _)| id).collect();
            // Only the native client writes times with its own queue, and only who asks gets whole times of generated answers.
            let is_written = |id: &&str| !id.contains("client_queue") && !id.contains("e2el");
            let known = metric::of(kind).map(|metric| metric.id).filter(is_written);
            assert_eq!(ids, known.collect::<Vec<_>>());
        }
        assert_eq!(metrics(Kind::Latency, LATENCY)[0].1, 0.2871881804999248);
        assert_eq!(metrics(Kind::Serving, SERVING)[1].1, 41.78914149997581);
        assert_eq!(metrics(Kind::Startup, STARTUP)[2], ("avg_cold_compilation_time".to_owned(), 0.0));
    }

    #[test]
    fn warnings_of_the_native_client_are_kept_with_its_numbers() {
        let text = SERVING.replacen('{', r#"{"warnings": ["the client needed 97 % of its core"], "#, 1);
        let Outcome::Measured(measurement) = parse(Kind::Serving, &text).unwrap() else { panic!("{text}") };
        assert_eq!(measurement.warnings, ["the client needed 97 % of its core"]);
    }

    #[test]
    fn failed_requests_are_a_failure_with_their_counts() {
        let text = SERVING.replace(r#""completed": 60, "failed": 0"#, r#""completed": 54, "failed": 6"#);
        assert_eq!(failure(Kind::Serving, &text), "6 of 60 requests failed");
        let native = text.replacen('{', r#"{"failures": {"status 503": 4, "stalled": 2}, "#, 1);
        assert_eq!(failure(Kind::Serving, &native), "6 of 60 requests failed (status 503: 4, stalled: 2)");
        let text = SERVING.replace(r#""completed": 60, "failed": 0"#, r#""completed": 0, "failed": 0"#);
        assert_eq!(failure(Kind::Serving, &text), "no request was completed");
        let text = SERVING.replace(r#""completed": 60, "failed": 0"#, r#""completed": 59"#);
        assert_eq!(failure(Kind::Serving, &text), "only 59 of 60 requests were completed");
    }

    #[test]
    fn missing_and_zero_metrics_are_failures() {
        let zero = r#"{"requests_per_second": 0.0, "tokens_per_second": 0}"#;
        assert_eq!(failure(Kind::Throughput, zero), "every metric of the result is 0");
        assert_eq!(failure(Kind::Latency, "{}"), "the result lacks `median_latency`");
    }

    #[test]
    fn tpot_is_absent_where_every_response_has_one_token() {
        let has_tpot = |text: &str| metrics(Kind::Serving, text).iter().any(|(id, _)| id == "median_tpot_ms");
        let zero = SERVING.replace(r#""median_tpot_ms": 5.6173619677389475"#, r#""median_tpot_ms": 0.0"#);
        assert!(has_tpot(&zero), "a TPOT of 0 was measured: all tokens came at once");
        let tokens = r#""total_output_tokens": "#;
        let at = zero.find(tokens).unwrap() + tokens.len();
        let end = at + zero[at..].find(',').unwrap();
        assert!(!has_tpot(&format!("{}60{}", &zero[..at], &zero[end..])));
    }

    #[test]
    fn a_metric_that_the_client_distorted_is_not_measured_and_the_others_are() {
        let text = SERVING.replacen('{', r#"{"distorted": ["p99_ttft_ms"], "warnings": ["the client was late"], "#, 1);
        let Outcome::Measured(measured) = parse(Kind::Serving, &text).unwrap() else { panic!("not measured") };
        assert!(!measured.metrics.contains_key("p99_ttft_ms") && measured.metrics.contains_key("median_ttft_ms"));
        assert_eq!(measured.warnings, ["the client was late"]);
    }

    #[test]
    fn an_embedding_result_has_request_rates_and_whole_times() {
        let text =
            r#"{"completed": 5, "request_throughput": 2.5, "total_token_throughput": 640.0, "median_e2el_ms": 9.0}"#;
        let expected = [("request_throughput", 2.5), ("total_token_throughput", 640.0), ("median_e2el_ms", 9.0)];
        assert_eq!(metrics(Kind::Serving, text), expected.map(|(id, value)| (id.to_owned(), value)));
        let distorted = text.replace('}', r#", "distorted": ["median_e2el_ms", "mean_e2el_ms"]}"#);
        assert_eq!(metrics(Kind::Serving, &distorted).len(), 2);
        assert_eq!(missing(Kind::Serving, &distorted), ["median_e2el_ms", "mean_e2el_ms"]);
    }

    fn missing(kind: Kind, text: &str) -> Vec<String> {
        match parse(kind, text).unwrap() {
            Outcome::Measured(measurement) => measurement.missing,
            Outcome::Failed(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn a_primary_metric_without_a_value_is_missing_and_the_others_are_measured() {
        let whole = metrics(Kind::Serving, SERVING);
        for value in ["NaN", "Infinity", "-Infinity", "null", r#""fast""#, "[]"] {
            let text = SERVING.replace(r#""p99_ttft_ms": 74.65715907999311"#, &format!(r#""p99_ttft_ms": {value}"#));
            assert_eq!(missing(Kind::Serving, &text), ["p99_ttft_ms"], "{value}");
            assert_eq!(metrics(Kind::Serving, &text).len(), whole.len() - 1, "{value}");
        }
        assert_eq!(missing(Kind::Serving, &SERVING.replace("p99_tpot_ms", "x")), ["p99_tpot_ms"]);
        let text = THROUGHPUT.replace("142.631869878125", "-Infinity");
        assert_eq!(metrics(Kind::Throughput, &text).len(), 1);
        assert_eq!(missing(Kind::Serving, SERVING), [""; 0]);
    }

    #[test]
    fn a_value_that_no_row_uses_loses_nothing() {
        let whole = metrics(Kind::Serving, SERVING);
        let first = |more: &str| SERVING.replacen('{', &format!("{{{more}, "), 1);
        for text in [
            first(r#""rtfx_of_tomorrow": NaN"#),
            first(r#""failures": null"#),
            first(r#""warnings": null"#),
            SERVING.replacen("\"num_prompts\": 60", "\"num_prompts\": null", 1),
            SERVING.replacen("\"num_prompts\": 60", "\"num_prompts\": 60.0", 1),
            first(r#""itls": [[0.1, NaN], [Infinity]]"#),
        ] {
            assert_eq!(metrics(Kind::Serving, &text), whole);
            assert_eq!(missing(Kind::Serving, &text), [""; 0]);
        }
        let spoilt = LATENCY.replacen('[', "[NaN, null, ", 1);
        assert_eq!(metrics(Kind::Latency, &spoilt), metrics(Kind::Latency, LATENCY));
    }

    #[test]
    fn a_text_that_is_not_a_result_is_an_error_with_its_position() {
        let error = format!("{:#}", parse(Kind::Latency, &LATENCY[..40]).unwrap_err());
        assert_eq!(error, "cannot read the result as one of `latency`: EOF while parsing a value at line 3 column 1");
    }
}
