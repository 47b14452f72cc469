//! Parses the records of one object of a store into points of series. Objects are untrusted: invalid records are skipped and
//! reported.

use std::borrow::Cow;
use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::names;
use crate::report::records;

/// Longest name of a model, device or metric, in characters.
const NAME_LENGTH: usize = 20_000;

/// The parameters that distinguish cases. Upstream's records contain every argument of a command.
const PARAMETERS: [&str; 11] = [
    "request_rate",
    "max_concurrency",
    "tensor_parallel_size",
    "random_input_len",
    "random_output_len",
    "input_len",
    "output_len",
    "num_prompts",
    "batch_size",
    "dataset_name",
    "dtype",
];

/// Metrics that the public dashboard does not have, which are in `extra_info` of the other metrics of their case.
const EXTRA_METRICS: [&str; 3] = ["output_throughput", "request_throughput", "total_token_throughput"];

/// The content of an object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Distinct runs.
    pub runs: Vec<Run>,
    /// Distinct series.
    pub series: Vec<SeriesName>,
    /// Index of the run, index of the series, value.
    pub points: Vec<(u32, u32, f64)>,
    /// Skipped records, with the reason.
    pub problems: Vec<String>,
}

/// A measured commit and its CI run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Run {
    /// Full hash of the commit.
    pub commit: String,
    /// The commit's date, in seconds since 1970.
    pub timestamp: u64,
    /// CI run, attempt and job; later ones are larger.
    pub attempt: (u64, u32, u64),
}

/// The unique name of a series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SeriesName {
    pub model: String,
    /// `cuda`, `cpu`, ...
    pub device: String,
    pub device_type: String,
    /// Name of the metric in its records.
    pub metric: String,
    /// In the order of [`PARAMETERS`], followed by those of the compilation and the client.
    pub parameters: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct RecordLine<'a> {
    timestamp: u64,
    #[serde(borrow)]
    schema_version: Cow<'a, str>,
    #[serde(borrow)]
    repo: Cow<'a, str>,
    #[serde(borrow)]
    head_branch: Cow<'a, str>,
    #[serde(borrow)]
    head_sha: Cow<'a, str>,
    workflow_id: u64,
    run_attempt: u32,
    job_id: u64,
    #[serde(borrow)]
    runners: Vec<Runner<'a>>,
    #[serde(borrow)]
    benchmark: Benchmark<'a>,
    #[serde(borrow)]
    model: Named<'a>,
    #[serde(borrow)]
    metric: Metric<'a>,
}

#[derive(Deserialize)]
struct Runner<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    device_type: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Benchmark<'a> {
    #[serde(borrow)]
    extra_info: &'a RawValue,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Metric<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    benchmark_values: Vec<f64>,
    #[serde(default)]
    extra_info: ExtraMetrics,
}

/// The metrics of [`EXTRA_METRICS`].
#[derive(Default, Deserialize)]
struct ExtraMetrics {
    output_throughput: Option<f64>,
    request_throughput: Option<f64>,
    total_token_throughput: Option<f64>,
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    args: IndexMap<String, Scalar>,
    #[serde(default, rename = "compilation_config.mode")]
    compilation_mode: Option<Scalar>,
    #[serde(default)]
    optimization_level: Option<Scalar>,
    #[serde(default)]
    use_compile: Option<Scalar>,
    #[serde(default)]
    measured_by: Option<Scalar>,
}

/// A value of a parameter. Upstream writes some numbers as strings.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    /// Lists, maps and nulls do not distinguish cases.
    Other(serde::de::IgnoredAny),
}

impl Scalar {
    /// As text, where 4 and 4.0 are equal.
    fn text(&self) -> Option<String> {
        match self {
            Self::Bool(it) => Some(it.to_string()),
            Self::Integer(it) => Some(it.to_string()),
            Self::Float(it) => Some(it.to_string()),
            Self::Text(it) => {
                let number = it.parse::<f64>().ok().filter(|number| number.is_finite());
                Some(number.map_or_else(|| it.clone(), |number| number.to_string())).filter(|text| !text.is_empty())
            }
            Self::Other(_) => None,
        }
    }
}

/// Parses an object: one JSON object in each line, or an array of them. `repository` and `branch` come from its key.
pub fn read(content: &[u8], repository: &str, branch: &str) -> Object {
    let mut reading = Reading { repository, branch, ..Reading::default() };
    if content.trim_ascii_start().starts_with(b"[") {
        match serde_json::from_slice::<Vec<&RawValue>>(content) {
            Ok(rows) => rows.iter().enumerate().for_each(|(at, row)| reading.take(at, row.get().as_bytes())),
            Err(error) => reading.object.problems.push(format!("it is not JSON: {error}")),
        }
    } else {
        let lines = content.split(|byte| *byte == b'\n').enumerate();
        lines.filter(|(_, line)| !line.trim_ascii().is_empty()).for_each(|(at, line)| reading.take(at, line));
    }
    reading.object
}

#[derive(Default)]
struct Reading<'a> {
    repository: &'a str,
    branch: &'a str,
    object: Object,
    runs: HashMap<Run, u32>,
    series: HashMap<SeriesName, u32>,
    /// Parsed parameters by their text: most records of an object share a few texts.
    parameters: HashMap<String, Vec<(String, String)>>,
}

impl Reading<'_> {
    fn take(&mut self, at: usize, row: &[u8]) {
        // A file of another kind has a problem in every line: only the first ones are reported.
        const REPORTED: usize = 5;
        if let Err(error) = self.row(row) {
            match self.object.problems.len() {
                0..REPORTED => self.object.problems.push(format!("record {}: {error:#}", at + 1)),
                REPORTED => self.object.problems.push("and more records".to_owned()),
                _ => {}
            }
        }
    }

    fn row(&mut self, row: &[u8]) -> Result<()> {
        let row: RecordLine = serde_json::from_slice(row).context("it is not a record")?;
        let value = self.check(&row)?;
        let runner = row.runners.first().context("it has no runner")?;
        let parameters = self.parameters(row.benchmark.extra_info.get())?;
        let run = Run {
            commit: row.head_sha.to_ascii_lowercase(),
            timestamp: row.timestamp,
            attempt: (row.workflow_id, row.run_attempt, row.job_id),
        };
        let run = number(&mut self.runs, &mut self.object.runs, run);
        let name = SeriesName {
            model: row.model.name.into_owned(),
            device: runner.name.clone().into_owned(),
            device_type: runner.device_type.clone().into_owned(),
            metric: row.metric.name.into_owned(),
            parameters,
        };
        // Every record of a case has the same extra metrics; they are read from one of them.
        if name.metric == "median_ttft_ms" {
            let extra = &row.metric.extra_info;
            let values = [extra.output_throughput, extra.request_throughput, extra.total_token_throughput];
            for (metric, value) in EXTRA_METRICS.into_iter().zip(values) {
                if let Some(value) = value.filter(|value| value.is_finite() && *value >= 0.0) {
                    self.point(run, SeriesName { metric: metric.to_owned(), ..name.clone() }, value);
                }
            }
        }
        self.point(run, name, value);
        Ok(())
    }

    /// Checks a record and returns its value, the mean of its values.
    fn check(&self, row: &RecordLine) -> Result<f64> {
        let shown = |text: &str| text.chars().take(60).collect::<String>();
        ensure!(row.schema_version == records::SCHEMA, "its schema is `{}`", shown(&row.schema_version));
        ensure!(row.repo == self.repository, "it is of the repository `{}`", shown(&row.repo));
        ensure!(
            names::plain_branch(&row.head_branch) == self.branch,
            "it is of the branch `{}`",
            shown(&row.head_branch)
        );
        ensure!(names::Commit::is_full(&row.head_sha), "`{}` is not a full commit hash", shown(&row.head_sha));
        ensure!(
            row.timestamp > 0 && date(row.timestamp).is_some(),
            "its timestamp {} is not a valid date",
            row.timestamp
        );
        let runner = row.runners.first().context("it has no runner")?;
        for (what, name) in [
            ("model", &row.model.name),
            ("device", &runner.name),
            ("device type", &runner.device_type),
            ("metric", &row.metric.name),
        ] {
            let length = name.chars().count();
            ensure!((1..=NAME_LENGTH).contains(&length), "its {what} has a name of {length} characters");
        }
        let values = &row.metric.benchmark_values;
        let value = values.iter().sum::<f64>() / values.len() as f64;
        ensure!(value.is_finite() && values.iter().all(|value| *value >= 0.0), "its values are not a measurement");
        Ok(value)
    }

    fn parameters(&mut self, text: &str) -> Result<Vec<(String, String)>> {
        if let Some(known) = self.parameters.get(text) {
            return Ok(known.clone());
        }
        let parameters = parameters(text)?;
        self.parameters.insert(text.to_owned(), parameters.clone());
        Ok(parameters)
    }

    fn point(&mut self, run: u32, name: SeriesName, value: f64) {
        let series = number(&mut self.series, &mut self.object.series, name);
        self.object.points.push((run, series, value));
    }
}

/// The index of a value in a list, to which new values are appended.
fn number<T: Clone + Eq + std::hash::Hash>(numbers: &mut HashMap<T, u32>, list: &mut Vec<T>, thing: T) -> u32 {
    *numbers.entry(thing).or_insert_with_key(|thing| {
        list.push(thing.clone());
        list.len() as u32 - 1
    })
}

fn parameters(info: &str) -> Result<Vec<(String, String)>> {
    let info: Info = serde_json::from_str(info).context("its parameters cannot be read")?;
    let named = PARAMETERS.iter().filter_map(|name| Some(((*name).to_owned(), info.args.get(*name)?.text()?)));
    let others = [
        ("use_compile", &info.use_compile),
        ("compilation_config.mode", &info.compilation_mode),
        ("optimization_level", &info.optimization_level),
        ("measured_by", &info.measured_by),
    ];
    let others = others.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.as_ref()?.text()?)));
    Ok(named.chain(others).collect())
}

/// Seconds since 1970 as a date; `None` if out of range.
pub fn date(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    Some(jiff::Timestamp::from_second(seconds).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

    /// A record with one thing replaced.
    fn row(from: &str, to: &str) -> String {
        let row = format!(
            r#"{{"timestamp":1790000000,"schema_version":"v3","name":"vLLM benchmark","repo":"vllm-project/vllm","head_branch":"main","head_sha":"{SHA}","workflow_id":20362340534,"run_attempt":1,"job_id":5,"runners":[{{"name":"cpu","type":"AMD_EPYC_2c","cpu_count":2}}],"benchmark":{{"name":"vLLM benchmark","extra_info":{{"args":{{"request_rate":"inf","tensor_parallel_size":1,"header":["a"]}},"compilation_config.mode":"","use_compile":true}}}},"model":{{"name":"m"}},"metric":{{"name":"median_ttft_ms","benchmark_values":[41.5,42.5],"extra_info":{{"output_throughput":900.5,"completed":8}}}}}}"#
        );
        assert!(row.contains(from), "{from}");
        row.replacen(from, to, 1)
    }

    fn one(text: &str) -> Object {
        read(text.as_bytes(), "vllm-project/vllm", "main")
    }

    #[test]
    fn a_record_is_a_point_and_its_extra_metrics_are_points() {
        let object = one(&row("", ""));
        assert_eq!(object.problems, [""; 0]);
        assert_eq!(object.runs[0].attempt, (20_362_340_534, 1, 5));
        let points: Vec<(&str, f64)> = object
            .points
            .iter()
            .map(|(_, series, value)| (object.series[*series as usize].metric.as_str(), *value))
            .collect();
        assert_eq!(points, [("output_throughput", 900.5), ("median_ttft_ms", 42.0)]);
        let parameters: Vec<String> =
            object.series[0].parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(parameters, ["request_rate=inf", "tensor_parallel_size=1", "use_compile=true"]);
    }

    #[test]
    fn an_array_is_read_as_lines_are_and_a_number_as_its_text_is() {
        let lines =
            format!("{}\n\n{}\n", row("", ""), row("\"tensor_parallel_size\":1", "\"tensor_parallel_size\":\"1\""));
        let array = format!(" [{},{}]", row("", ""), row("\"inf\"", "4.0"));
        assert_eq!((one(&lines).series.len(), one(&lines).points.len()), (2, 4));
        assert_eq!((one(&array).series.len(), one(&array).problems.len()), (4, 0));
        assert!(one(&array).series[2].parameters.contains(&("request_rate".into(), "4".into())));
    }

    #[test]
    fn invalid_records_are_reported_and_skipped() {
        let long = "x".repeat(30_000);
        for (from, to, problem) in [
            ("\"v3\"", "\"v2\"", "its schema is `v2`"),
            ("\"main\"", "\"release\"", "it is of the branch `release`"),
            ("vllm-project", "someone", "it is of the repository `someone/vllm`"),
            (SHA, "../../etc/passwd", "`../../etc/passwd` is not a full commit hash"),
            ("1790000000", "99999999999999999", "is not a valid date"),
            ("1790000000", "-1", "it is not a record"),
            ("[41.5,42.5]", "[]", "its values are not a measurement"),
            ("[41.5,42.5]", "[NaN]", "it is not a record"),
            ("[41.5,42.5]", "[null]", "it is not a record"),
            ("[41.5,42.5]", "[-1]", "its values are not a measurement"),
            ("\"m\"", "\"\"", "its model has a name of 0 characters"),
            ("\"m\"", &format!("\"{long}\""), "its model has a name of 30000 characters"),
            ("{\"name\":\"cpu\",\"type\":\"AMD_EPYC_2c\",\"cpu_count\":2}", "", "it has no runner"),
        ] {
            let object = one(&format!("{}\n{}", row(from, to), row("", "")));
            assert_eq!(object.problems.len(), 1, "{to}");
            assert!(
                object.problems[0].starts_with("record 1: ") && object.problems[0].contains(problem),
                "{:?}",
                object.problems
            );
            assert_eq!(object.points.len(), 2);
        }
        for text in ["{", "[1, 2", "\u{0}\u{1}", "<html>", "[[[[["] {
            assert_eq!(one(text).problems.len(), 1, "{text}");
        }
        assert_eq!(one(&"{}\n".repeat(100)).problems.len(), 6);
    }

    #[test]
    fn all_forms_of_a_branch_name_are_accepted() {
        for form in ["main", "refs/heads/main", "main(refs/heads/main)", "main(main)"] {
            assert_eq!(one(&row("\"main\"", &format!("\"{form}\""))).problems, [""; 0]);
        }
    }

    #[test]
    fn names_may_contain_any_characters() {
        for name in ["<script>alert(1)</script>", "../../x", "a\\\"b'", "🚀;+", "a\\nb"] {
            let object = one(&row("\"m\"", &format!("\"{name}\"")));
            assert_eq!(object.problems, [""; 0]);
            assert_eq!(format!("\"{name}\""), serde_json::to_string(&object.series[0].model).unwrap());
        }
    }
}
