//! When a change is called one: `verdict` in the config file. Pure.

use std::fmt;
use std::sync::LazyLock;

use anyhow::anyhow;
use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use vllm_verdict::criteria::{CasePattern, MinEffect, Primary, VerdictConfig};
use vllm_verdict::metric::{self, Direction};

use super::config_text::{List, Scalar, not, share};

/// What a config file says of it; what it leaves out is `None`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping with keys such as `min_effect` or `fdr`")]
pub(super) struct VerdictFile {
    #[serde(deserialize_with = "min_effect")]
    pub(super) min_effect: IndexMap<&'static str, f64>,
    #[serde(deserialize_with = "direction")]
    pub(super) direction: IndexMap<&'static str, Direction>,
    pub(super) primary: PrimaryFile,
    #[serde(deserialize_with = "share")]
    pub(super) fdr: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping with `metrics` or `cases`")]
pub(super) struct PrimaryFile {
    #[serde(deserialize_with = "metrics")]
    pub(super) metrics: Option<Vec<&'static str>>,
    #[serde(deserialize_with = "cases")]
    pub(super) cases: Option<CasePattern>,
}

impl VerdictFile {
    pub(super) fn over_defaults(self) -> VerdictConfig {
        let VerdictConfig { min_effect: default, primary, fdr, .. } = VerdictConfig::default();
        let mut sizes = self.min_effect;
        let mut family = |name: &str, default: f64| sizes.shift_remove(name).unwrap_or(default);
        VerdictConfig {
            min_effect: MinEffect {
                throughput: family("throughput", default.throughput),
                median: family("median", default.median),
                p99: family("p99", default.p99),
                metrics: sizes,
            },
            direction: self.direction,
            primary: Primary { metrics: self.primary.metrics.unwrap_or(primary.metrics), cases: self.primary.cases },
            fdr: self.fdr.unwrap_or(fdr),
        }
    }
}

/// Families of metrics, as keys of `min_effect`.
pub(super) const FAMILIES: [(&str, &str); 3] =
    [("throughput", "Rates."), ("median", "Medians, means and start-up times."), ("p99", "99th percentiles.")];

/// The ids of all metrics.
pub(super) static METRICS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| metric::ALL.iter().map(|metric| metric.id).collect());

static SIZES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| FAMILIES.iter().map(|(name, _)| *name).chain(METRICS.iter().copied()).collect());

/// Values by key, of a few known keys.
struct ByKey<T> {
    keys: &'static [&'static str],
    expecting: &'static str,
    value: Scalar<T>,
}

impl<'de, T: Copy> Visitor<'de> for ByKey<T> {
    type Value = IndexMap<&'static str, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = IndexMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let Some(known) = self.keys.iter().copied().find(|known| *known == key) else {
                return Err(A::Error::unknown_field(&key, self.keys));
            };
            if values.insert(known, map.next_value_seed(self.value)?).is_some() {
                return Err(A::Error::custom(format_args!("`{known}` stands twice")));
            }
        }
        Ok(values)
    }
}

type Map<T, E> = Result<IndexMap<&'static str, T>, E>;

fn min_effect<'de, D: Deserializer<'de>>(deserializer: D) -> Map<f64, D::Error> {
    let expecting = "a mapping with `throughput`, `median`, `p99` or a metric";
    deserializer.deserialize_any(ByKey { keys: &SIZES, expecting, value: crate::plan::config::config_text::SHARE })
}

fn direction<'de, D: Deserializer<'de>>(deserializer: D) -> Map<Direction, D::Error> {
    const DIRECTION: Scalar<Direction> = Scalar::text("`higher` or `lower`", |text| {
        let read: Result<Direction, serde::de::value::Error> = Direction::deserialize(text.into_deserializer());
        read.map_err(|_| not(text, "a direction: expected `higher` or `lower`, whichever is better"))
    });
    let expecting = "a mapping from a metric to `higher` or `lower`";
    deserializer.deserialize_any(ByKey { keys: &METRICS, expecting, value: DIRECTION })
}

fn metrics<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<&'static str>>, D::Error> {
    const METRIC: Scalar<&'static str> = Scalar::text("a metric", |text| {
        let nearest = || METRICS.iter().min_by_key(|id| strsim::damerau_levenshtein(id, text)).copied();
        let unknown = || not(text, &format!("a metric: did you mean `{}`?", nearest().unwrap_or_default()));
        METRICS.iter().copied().find(|id| *id == text).ok_or_else(unknown)
    });
    let metrics = deserializer.deserialize_any(List(METRIC))?;
    if metrics.is_empty() {
        return Err(D::Error::custom("at least one metric is needed: leave `metrics` out for the default"));
    }
    Ok(Some(metrics))
}

fn cases<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CasePattern>, D::Error> {
    const CASES: Scalar<CasePattern> = Scalar::text("a regular expression", |text| {
        let cause =
            |error: regex::Error| anyhow!("{}", error.to_string().lines().last().unwrap_or_default().to_owned());
        CasePattern::new(text).map_err(|error| not(text, &format!("a regular expression: {:#}", cause(error))))
    });
    CASES.deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use vllm_verdict::metric::Metric;

    use super::*;
    use crate::plan::config::parse;

    fn metric(id: &str) -> &'static Metric {
        metric::ALL.iter().find(|metric| metric.id == id).unwrap()
    }

    fn config(text: &str) -> VerdictConfig {
        parse(text, "vllm-perf.yml").unwrap().verdict
    }

    #[test]
    fn a_metric_has_the_size_of_its_family_or_its_own() {
        let config = config("verdict: {min_effect: {median: 4%, median_itl_ms: 0.1}}");
        let sizes = ["median_ttft_ms", "median_itl_ms", "p99_ttft_ms"].map(|id| config.min_effect(metric(id)));
        assert_eq!(sizes, [0.04, 0.1, 0.08]);
    }

    #[test]
    fn a_direction_is_that_of_the_table_unless_the_file_says_otherwise() {
        let config = config("verdict: {direction: {tokens_per_second: lower}}");
        let directions = ["tokens_per_second", "requests_per_second"].map(|id| config.direction(metric(id)));
        assert_eq!(directions, [Direction::Lower, Direction::Higher]);
    }

    #[test]
    fn primary_rows_are_those_of_the_listed_metrics_in_the_matching_cases() {
        let config = config("verdict: {primary: {metrics: [mean_ttft_ms], cases: concurrency_8$}}");
        let primary = |case: &str, id: &str| config.is_primary(case, metric(id));
        assert!(primary("serving_a_qps_inf_concurrency_8", "mean_ttft_ms"));
        assert!(!primary("serving_a_qps_inf_concurrency_1", "mean_ttft_ms"));
        assert!(!primary("serving_a_qps_inf_concurrency_8", "median_ttft_ms"));
        assert!(VerdictConfig::default().is_primary("any", metric("median_ttft_ms")));
        assert!(!VerdictConfig::default().is_primary("any", metric("mean_ttft_ms")));
    }

    #[test]
    fn a_mistake_names_the_nearest_metric() {
        let said = |text: &str| format!("{:#}", parse(&format!("verdict: {{{text}}}"), "f.yml").unwrap_err());
        insta::assert_snapshot!([
            said("min_effect: {p98: 1%}").split(" Valid here").next().unwrap().to_owned(),
            said("min_effect: {p99: 1%, p99: 2%}"),
            said("direction: {median_ttft_ms: up}"),
            said("primary: {metrics: [median_ttft]}"),
            said("primary: {metrics: []}"),
            said("primary: {cases: '('}"),
            said("primary: {case: x}"),
        ].join("\n"), @r"
        f.yml:1:23: verdict.min_effect: unknown key `p98`, did you mean `p99`?
        f.yml:1:23: verdict.min_effect: `p99` stands twice
        f.yml:1:39: verdict.direction.median_ttft_ms: `up` is not a direction: expected `higher` or `lower`, whichever is better
        f.yml:1:31: verdict.primary.metrics[0]: `median_ttft` is not a metric: did you mean `median_ttft_ms`?
        f.yml:1:20: verdict.primary: at least one metric is needed: leave `metrics` out for the default
        f.yml:1:28: verdict.primary.cases: `(` is not a regular expression: error: unclosed group
        f.yml:1:21: verdict.primary: unknown key `case`, did you mean `cases`? Valid here: metrics, cases
        ");
    }
}
