//! `verdict` in the config file: which changes are reported, and where. The values are those of `vllm-verdict`.

use serde_json::json;
use vllm_verdict::criteria::{CasePattern, MinEffect, Primary, VerdictConfig};
use vllm_verdict::metric::{self, Direction};

use super::scalar::{SHARE, Scalar, Schema, known_key, nearest, not, one_of};
use super::section::{Section, Walk};
use super::value_kinds::{Entry, ListOf, MapOf, Optional};

impl Section for VerdictConfig {
    fn keys(&mut self, walk: &mut impl Walk) {
        walk.section(
            "min_effect",
            "Smallest relative change that is reported as a change, by family of metrics or by metric.",
            &mut self.min_effect,
        );
        walk.key(
            "direction",
            "For a metric, which direction is better, in place of the default.",
            &mut self.direction,
            MapOf { key: METRIC_KEY, value: DIRECTION, default: |_| Direction::Higher, item: None },
        );
        walk.section(
            "primary",
            "Which rows can change the verdict: those of these metrics in these cases.",
            &mut self.primary,
        );
        walk.key(
            "fdr",
            "False discovery rate over the primary rows of a report: 5 %, or 1 % where a verdict blocks a merge.",
            &mut self.fdr,
            // Shown as a number, as in the report's method section.
            Scalar { show: f64::to_string, ..SHARE },
        );
    }
}

impl Section for MinEffect {
    fn keys(&mut self, walk: &mut impl Walk) {
        walk.key("throughput", "Rates.", &mut self.throughput, SHARE);
        walk.key("median", "Medians, means and start-up times.", &mut self.median, SHARE);
        walk.key("p99", "99th percentiles.", &mut self.p99, SHARE);
        for metric in metric::ALL {
            let label = format!("{}.", metric.label);
            walk.key(metric.id, &label, &mut self.metrics, Entry { key: metric.id, value: SHARE });
        }
    }
}

impl Section for Primary {
    fn keys(&mut self, walk: &mut impl Walk) {
        let metrics = ListOf { of: METRIC, item: Some("metric") };
        walk.key("metrics", "Metrics by id.", &mut self.metrics, metrics);
        walk.key(
            "cases",
            "A regular expression that matches the names of the cases; every case without it.",
            &mut self.cases,
            Optional { value: CASES, none: "all" },
        );
    }
}

/// The id of a metric.
const METRIC: Scalar<&'static str> = Scalar {
    expecting: "a metric",
    numbers: false,
    schema: Schema::OneOf(metric_ids),
    read: |text| {
        let ids = metric_ids();
        let known = ids.iter().copied().find(|id| *id == text);
        known.ok_or_else(|| not(text, &format!("a metric: did you mean `{}`?", nearest(text, &ids))))
    },
    show: |id| (*id).to_owned(),
};

const METRIC_KEY: Scalar<&'static str> = Scalar { read: |text| known_key(text, &metric_ids()), ..METRIC };

fn metric_ids() -> Vec<&'static str> {
    metric::ALL.iter().map(|metric| metric.id).collect()
}

const DIRECTION: Scalar<Direction> = Scalar {
    expecting: "`higher` or `lower`",
    numbers: false,
    schema: Schema::OneOf(|| DIRECTIONS.map(Direction::as_str).to_vec()),
    read: |text| one_of(text, "a direction", &DIRECTIONS, Direction::as_str),
    show: |direction| direction.as_str().to_owned(),
};

const DIRECTIONS: [Direction; 2] = [Direction::Higher, Direction::Lower];

const CASES: Scalar<CasePattern> = Scalar {
    expecting: "a regular expression",
    numbers: false,
    schema: Schema::Other(|| json!({"type": "string", "format": "regex"})),
    read: |text| {
        CasePattern::new(text).map_err(|error| {
            // The last line has the cause; the lines before it draw the pattern.
            let text_of_error = error.to_string();
            let cause = text_of_error.lines().last().unwrap_or_default();
            not(text, &format!("a regular expression: {cause}"))
        })
    },
    show: |cases| cases.as_str().to_owned(),
};

#[cfg(test)]
mod tests {
    use vllm_verdict::case::Kind;
    use vllm_verdict::metric::Metric;
    use vllm_verdict::v1::CaseFacts;

    use super::*;
    use crate::plan::config::parse;

    fn metric(id: &str) -> &'static Metric {
        metric::ALL.iter().find(|metric| metric.id == id).unwrap()
    }

    fn config(text: &str) -> VerdictConfig {
        parse(text, "vllm-perf.yml").unwrap().verdict
    }

    #[test]
    fn a_metric_has_the_minimum_effect_of_its_family_or_its_own() {
        let config = config("verdict: {min_effect: {median: 4%, median_itl_ms: 0.1}}");
        let sizes = ["median_ttft_ms", "median_itl_ms", "p99_ttft_ms"].map(|id| config.min_effect(metric(id)));
        assert_eq!(sizes, [0.04, 0.1, 0.08]);
    }

    #[test]
    fn a_direction_is_the_default_unless_the_file_sets_it() {
        let config = config("verdict: {direction: {tokens_per_second: lower}}");
        let directions = ["tokens_per_second", "requests_per_second"].map(|id| config.direction(metric(id)));
        assert_eq!(directions, [Direction::Lower, Direction::Higher]);
    }

    #[test]
    fn primary_rows_are_those_of_the_listed_metrics_in_the_matching_cases() {
        let config = config("verdict: {primary: {metrics: [mean_ttft_ms], cases: concurrency_8$}}");
        let has = |_: &str| true;
        let primary =
            |case: &str, id: &str| config.primary_of(&CaseFacts::named(case, Kind::Serving), has).contains(&id);
        assert!(primary("serving_a_qps_inf_concurrency_8", "mean_ttft_ms"));
        assert!(!primary("serving_a_qps_inf_concurrency_1", "mean_ttft_ms"));
        assert!(!primary("serving_a_qps_inf_concurrency_8", "median_ttft_ms"));
        let any = CaseFacts::named("serving_any", Kind::Serving);
        let of_all = VerdictConfig::default().primary_of(&any, has);
        assert!(of_all.contains(&"median_ttft_ms") && !of_all.contains(&"mean_ttft_ms"));
        // A case of embeddings has no tokens: it is judged by what it has.
        let of_embeddings = VerdictConfig::default().primary_of(&any, |id| id == "median_e2el_ms");
        assert_eq!(of_embeddings, ["total_token_throughput", "median_e2el_ms", "p99_e2el_ms"]);
        assert_eq!(config.primary_of(&any, |id| id == "median_e2el_ms"), [""; 0], "the case does not match");
    }

    #[test]
    fn an_error_names_the_nearest_metric() {
        let error = |text: &str| format!("{:#}", parse(&format!("verdict: {{{text}}}"), "f.yml").unwrap_err());
        insta::assert_snapshot!([
            error("min_effect: {p98: 1%}").split(" Valid here").next().unwrap().to_owned(),
            error("min_effect: {p99: 1%, p99: 2%}"),
            error("direction: {median_ttft_ms: up}"),
            error("primary: {metrics: [median_ttft]}"),
            error("primary: {metrics: []}"),
            error("primary: {cases: '('}"),
            error("primary: {case: x}"),
        ].join("\n"), @r"
        f.yml:1:24: verdict.min_effect: unknown key `p98`, did you mean `p99`?
        f.yml:1:23: verdict.min_effect: duplicate key `p99`
        f.yml:1:39: verdict.direction.median_ttft_ms: `up` is not a direction: expected `higher` or `lower`
        f.yml:1:31: verdict.primary.metrics[0]: `median_ttft` is not a metric: did you mean `median_ttft_ms`?
        f.yml:1:30: verdict.primary.metrics: at least one metric is needed: leave `metrics` out for the default
        f.yml:1:28: verdict.primary.cases: `(` is not a regular expression: error: unclosed group
        f.yml:1:21: verdict.primary: unknown key `case`, did you mean `cases`? Valid here: metrics, cases
        ");
    }
}
