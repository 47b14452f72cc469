//! Throughput and TTFT over concurrency: the curves of a comparison, and Mermaid charts of them.

use std::collections::HashMap;

use indexmap::IndexMap;
use vllm_verdict::Untrusted;
use vllm_verdict::side::Side;
use vllm_verdict::v1::{CaseFacts, Comparison, Row, Verdict};

use super::label::Labels;
use super::number;
use crate::escape;

/// The metrics with charts, and the labels of their axes.
const METRICS: [(&str, &str); 2] = [("output_throughput", "output throughput"), ("median_ttft_ms", "median TTFT")];

/// One metric of one test at one request rate, base and head over concurrency.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Label of the test, with its request rate if it is finite.
    pub test: Untrusted,
    /// Label of the metric.
    pub metric: &'static str,
    /// Unit of the values.
    pub unit: Untrusted,
    /// At least two, by increasing concurrency.
    pub points: Vec<Point>,
}

/// The values of both sides at one concurrency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub concurrency: u64,
    pub base: f64,
    pub head: f64,
}

/// The curves of a comparison: tests with a regressed row first, otherwise in the order of the plan.
pub fn curves(comparison: &Comparison, labels: &Labels) -> Vec<Curve> {
    let rows: HashMap<(&str, &str), &Row> =
        comparison.rows.iter().map(|row| ((row.case.raw(), row.metric.raw()), row)).collect();
    let mut groups: IndexMap<(&Untrusted, Option<&Untrusted>), Vec<&CaseFacts>> = IndexMap::new();
    for case in comparison.cases.iter().filter(|case| case.max_concurrency.is_some()) {
        groups.entry((&case.test, case.request_rate.as_ref())).or_default().push(case);
    }
    let mut groups: Vec<Vec<&CaseFacts>> = groups.into_values().collect();
    let regressed = |group: &Vec<&CaseFacts>| {
        let metrics = |case: &CaseFacts| METRICS.map(|(metric, _)| rows.get(&(case.name.raw(), metric)).copied());
        group.iter().flat_map(|case| metrics(case)).flatten().any(|row| row.verdict == Verdict::Regressed)
    };
    groups.sort_by_key(|group| !regressed(group));
    groups.iter().flat_map(|group| METRICS.map(|metric| curve(group, metric, &rows, labels))).flatten().collect()
}

fn curve(
    group: &[&CaseFacts],
    (metric, words): (&'static str, &'static str),
    rows: &HashMap<(&str, &str), &Row>,
    labels: &Labels,
) -> Option<Curve> {
    let mut unit = None;
    let mut points = Vec::new();
    for case in group {
        let Some(row) = rows.get(&(case.name.raw(), metric)) else { continue };
        let values = row.centre(Side::Base).zip(row.centre(Side::Head));
        let Some(((base, head), concurrency)) = values.zip(case.max_concurrency) else { continue };
        unit = Some(&row.unit);
        points.push(Point { concurrency, base, head });
    }
    points.sort_by_key(|point: &Point| point.concurrency);
    points.dedup_by_key(|point| point.concurrency);
    let test = labels.of(&group[0].name).test;
    let rate = group[0].request_rate.as_ref().filter(|&rate| rate != "inf");
    let test = rate.map_or(test.clone(), |rate| format!("{}, {} req/s", test.raw(), escape::name(rate)).into());
    (points.len() > 1).then(|| Curve {
        test,
        metric: words,
        unit: unit.map(escape::name).unwrap_or_default().into(),
        points,
    })
}

impl Curve {
    /// The top of the vertical axis: a round number above every value.
    pub fn ceiling(&self) -> f64 {
        let largest = self.points.iter().map(|point| point.base.max(point.head)).fold(0.0, f64::max);
        if largest <= 0.0 {
            return 1.0;
        }
        let power = 10_f64.powf(largest.log10().floor());
        let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 5.0, 6.0, 8.0, 10.0];
        steps.into_iter().map(|step| step * power).find(|&step| step >= largest).unwrap_or(10.0 * power)
    }

    /// A fenced Mermaid chart. Mermaid charts have no legend, so the title names the colours.
    pub fn mermaid(&self) -> String {
        let join = |values: Vec<String>| values.join(", ");
        let line = |of: fn(&Point) -> f64| join(self.points.iter().map(|point| plain(of(point))).collect());
        format!(
            concat!(
                "```mermaid\n",
                "%%{{init: {{\"themeVariables\": {{\"xyChart\": {{\"plotColorPalette\": \"#8b949e, #1f6feb\"}}}}}}}}%%\n",
                "xychart-beta\n",
                "  title \"{test}: {metric} (base grey, head blue)\"\n",
                "  x-axis \"concurrency\" [{concurrency}]\n",
                "  y-axis \"{unit}\" 0 --> {ceiling}\n",
                "  line [{base}]\n",
                "  line [{head}]\n",
                "```\n"
            ),
            test = escape::mermaid(&self.test),
            metric = self.metric,
            concurrency = join(self.points.iter().map(|point| point.concurrency.to_string()).collect()),
            unit = escape::mermaid(&self.unit),
            ceiling = plain(self.ceiling()),
            base = line(|point| point.base),
            head = line(|point| point.head),
        )
    }
}

/// A number for Mermaid: four significant digits, no separators.
fn plain(value: f64) -> String {
    number::trimmed(&format!("{value:.decimals$}", decimals = number::decimals([value]))).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn a_test_with_several_concurrencies_is_two_charts_and_the_regressed_test_is_first() {
        let comparison = example::comparison();
        let labels = Labels::new(&comparison.cases);
        let curves = curves(&comparison, &labels);
        let names: Vec<_> = curves.iter().map(|curve| format!("{}: {}", curve.test.raw(), curve.metric)).collect();
        insta::assert_snapshot!(names.join("\n"), @r"
        llama8B tp1, random 128/2048: output throughput
        llama8B tp1, random 128/2048: median TTFT
        gemma3-4b tp1, random 128/128: output throughput
        gemma3-4b tp1, random 128/128: median TTFT
        ");
        insta::assert_snapshot!(curves[0].mermaid(), @r##"
        ```mermaid
        %%{init: {"themeVariables": {"xyChart": {"plotColorPalette": "#8b949e, #1f6feb"}}}}%%
        xychart-beta
          title "llama8B tp1, random 128/2048: output throughput (base grey, head blue)"
          x-axis "concurrency" [12, 16, 32, 64]
          y-axis "tok/s" 0 --> 500
          line [128.4, 167.2, 301.3, 412.3]
          line [129.2, 168.2, 303.1, 372.6]
        ```
        "##);
    }

    #[test]
    fn the_axis_ends_at_a_round_number_above_every_value() {
        let curve = |largest| Curve {
            test: Untrusted::default(),
            metric: "",
            unit: Untrusted::default(),
            points: vec![Point { concurrency: 1, base: largest, head: 0.0 }],
        };
        assert_eq!([412.0, 0.031, 1000.0, 0.0].map(|largest| curve(largest).ceiling()), [500.0, 0.032, 1000.0, 1.0]);
    }
}
