//! Import of github-action-benchmark's `data.js`, so that a project keeps its history. Benchmarks in it have free names and
//! units: those whose name contains a metric of the dashboard become records, the others are refused with the reason.

use anyhow::{Context, Result, ensure};
use indexmap::IndexMap;
use regex::Regex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vllm_verdict::case::Kind;

use super::record_identity::{Identity, NAME_LENGTH, check_name};
use super::record_parameters::{self, BenchmarkInfo};
use super::record_point::Point;
use super::record_set::Records;
use super::record_v3::Fact;
use crate::plan::config::record_rules::Choice;

/// The variable that the file assigns.
const VARIABLE: &str = "window.BENCHMARK_DATA";
/// Longest name in a message, in characters.
const SHOWN: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    #[serde(default)]
    repo_url: String,
    /// The measurements of each suite, untyped: one that cannot be read is left out alone.
    entries: IndexMap<String, Value>,
}

impl Data {
    /// `owner/name` from the URL of the repository.
    fn repository(&self) -> String {
        let path = self.repo_url.trim_end_matches('/').rsplit('/').take(2).collect::<Vec<_>>();
        path.into_iter().rev().collect::<Vec<_>>().join("/")
    }
}

#[derive(Deserialize)]
struct Measured {
    commit: Commit,
    /// Milliseconds since 1970.
    date: u64,
    /// Untyped, for the same reason.
    benches: Vec<Value>,
}

impl Measured {
    /// `base` with the commit, the date and the run number of this measurement.
    fn identity(&self, base: &Identity) -> Identity {
        let seconds = self.date / 1000;
        let date = self.commit.timestamp.as_ref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let timestamp = date.and_then(|date| u64::try_from(date.as_second()).ok()).unwrap_or(seconds);
        let commit = self.commit.id.to_lowercase();
        Identity { commit, timestamp, workflow_id: seconds, job_id: seconds, ..base.clone() }
    }
}

#[derive(Deserialize)]
struct Commit {
    id: String,
    timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Bench {
    name: String,
    /// `null` where a benchmark gave NaN or Infinity.
    value: Option<f64>,
    #[serde(default)]
    unit: String,
}

/// Why something is left out: its name and the reason, with the number of times.
type Refused = IndexMap<(String, String), usize>;

fn refuse(refused: &mut Refused, name: &str, reason: &anyhow::Error) {
    *refused.entry((shown(name), format!("{reason:#}"))).or_default() += 1;
}

/// An item of a list. The reason names its position where it cannot be read.
fn item<T: DeserializeOwned>(value: &Value, number: usize) -> Result<T> {
    T::deserialize(value).with_context(|| format!("number {number} in its list cannot be read"))
}

/// The records of every commit of a `data.js`. `base` has what the file lacks: branch, device, and the repository if it
/// differs from the file's. The model is `model`, or the name of each suite in the file. The run number is the date of the
/// measurement in seconds, which is smaller than GitHub's current run ids.
///
/// # Errors
/// The text is not such a file, or `base` is incomplete.
pub fn import(text: &str, base: &Identity, model: Option<&str>, choice: Choice) -> Result<Records> {
    let data = parse(text)?;
    let patterns = NamePatterns::new()?;
    let mut base = base.clone();
    if base.repository.is_empty() {
        base.repository = data.repository();
    }
    let mut runs = Runs::new();
    let mut refused = Refused::new();
    for (suite, measurements) in &data.entries {
        let model = model.unwrap_or(suite);
        let measurements =
            check_name("model", model).and_then(|()| measurements.as_array().context("it is not a list"));
        let measurements = match measurements {
            Ok(measurements) => measurements,
            Err(error) => {
                refuse(&mut refused, suite, &error);
                continue;
            }
        };
        for (number, measured) in (1..).zip(measurements) {
            match item::<Measured>(measured, number) {
                Ok(measured) => add(&measured, model, &base, &patterns, (&mut runs, &mut refused))?,
                Err(error) => refuse(&mut refused, suite, &error),
            }
        }
    }
    let mut records = Records::default();
    for (identity, points) in runs.into_values() {
        records.add(points, &identity, choice);
    }
    let mut distinct = Vec::new();
    for collision in std::mem::take(&mut records.collisions) {
        if !distinct.contains(&collision) {
            distinct.push(collision);
        }
    }
    records.collisions = distinct;
    let times = |number: usize| if number == 1 { String::new() } else { format!(" ({number} times)") };
    records.refused =
        refused.into_iter().map(|((name, why), number)| (name, format!("{why}{}", times(number)))).collect();
    Ok(records)
}

/// The points of each commit.
type Runs = IndexMap<String, (Identity, Vec<Point>)>;

/// Adds the benchmarks of one measurement.
fn add(
    measured: &Measured,
    model: &str,
    base: &Identity,
    patterns: &NamePatterns,
    (runs, refused): (&mut Runs, &mut Refused),
) -> Result<()> {
    let ids = measured.identity(base);
    if let Err(error) = ids.check() {
        // Other errors are in `base`, which the user has to complete.
        ensure!(!crate::names::Commit::is_full(&ids.commit) || ids.workflow_id == 0, error);
        refuse(refused, &measured.commit.id, &error);
        return Ok(());
    }
    let (identity, points) = runs.entry(ids.commit.clone()).or_insert_with(|| (ids.clone(), Vec::new()));
    *identity = ids;
    for (number, bench) in (1..).zip(&measured.benches) {
        let name = bench.get("name").and_then(Value::as_str).unwrap_or(&measured.commit.id);
        match item::<Bench>(bench, number).and_then(|bench| patterns.point(model, &bench)) {
            Ok(point) => {
                // The last measurement of a commit counts.
                points.retain(|it| {
                    (&it.model, &it.case, &it.metrics[0].0) != (&point.model, &point.case, &point.metrics[0].0)
                });
                points.push(point);
            }
            Err(error) => refuse(refused, name, &error),
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<Data> {
    let assigned = text.trim_start_matches('\u{feff}').trim().strip_prefix(VARIABLE).map(str::trim_start);
    let json = assigned
        .and_then(|rest| rest.strip_prefix('='))
        .with_context(|| format!("it does not begin with `{VARIABLE} =`"))?;
    serde_json::from_str(json.trim().trim_end_matches(';')).context("its data cannot be read")
}

fn shown(name: &str) -> String {
    name.chars().filter(|character| !character.is_control()).take(SHOWN).collect()
}

/// Patterns for the parameters in a benchmark's name, which follow vLLM's names of cases.
struct NamePatterns {
    rate: Regex,
    concurrency: Regex,
    tensor_parallel: Regex,
    lengths: Regex,
}

impl NamePatterns {
    fn new() -> Result<Self> {
        Ok(Self {
            rate: Regex::new(r"(?i)(?:^|[^a-z0-9])qps[_= :-]*(inf|[0-9]+(?:\.[0-9]+)?)")?,
            concurrency: Regex::new(r"(?i)concurrency[_= :-]*([0-9]{1,9})")?,
            tensor_parallel: Regex::new(r"(?i)(?:^|[^a-z0-9])tp[_= :-]*([0-9]{1,4})")?,
            lengths: Regex::new(r"(?i)random[_= :-]+([0-9]{1,9})[_x/-]([0-9]{1,9})")?,
        })
    }

    fn point(&self, model: &str, bench: &Bench) -> Result<Point> {
        let (metric, kind, case) = metric(&bench.name).context("its name contains no metric of the dashboard")?;
        let written = bench.value.context("its value is null: it was NaN or Infinity")?;
        let value = written * scale(&metric, kind, &bench.unit)?;
        ensure!(value.is_finite() && value > 0.0, "its value is {written}");
        let found = |pattern: &Regex, at: usize| Some(pattern.captures(&bench.name)?.get(at)?.as_str().to_owned());
        let number = |pattern: &Regex, at| found(pattern, at).and_then(|text| text.parse::<u64>().ok());
        let mut args = record_parameters::Parameters {
            tensor_parallel_size: found(&self.tensor_parallel, 1).and_then(|text| text.parse().ok()),
            max_concurrency: number(&self.concurrency, 1),
            ..Default::default()
        };
        let (input, output) = (number(&self.lengths, 1), number(&self.lengths, 2));
        match kind {
            Kind::Latency => (args.input_len, args.output_len) = (input, output),
            _ => (args.random_input_len, args.random_output_len) = (input, output),
        }
        if kind == Kind::Serving {
            args.request_rate = found(&self.rate, 1).map(|text| record_parameters::rate(Some(&text)));
        }
        let info = BenchmarkInfo {
            args,
            compilation_mode: String::new(),
            optimization_level: String::new(),
            use_compile: !case.contains("eager"),
            measured_by: None,
        };
        let facts = [("case", case.clone()), ("imported", "github-action-benchmark".to_owned())];
        let facts = facts.into_iter().map(|(name, text)| (name.to_owned(), Fact::Text(text))).collect();
        Ok(Point { case, model: model.to_owned(), info, metrics: vec![(metric, vec![value])], facts })
    }
}

/// The metric in a name, its kind, and the rest of the name as the case.
fn metric(name: &str) -> Option<(String, Kind, String)> {
    let lower = name.chars().take(NAME_LENGTH).collect::<String>().to_lowercase();
    let mut words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let mut take = |wanted: &[&str]| {
        let at = words.windows(wanted.len()).rposition(|window| window == wanted)?;
        Some(words.drain(at..at + wanted.len()).count())
    };
    let statistics =
        [("median", "median"), ("p50", "median"), ("mean", "mean"), ("avg", "mean"), ("std", "std"), ("p99", "p99")];
    let latencies = ["ttft", "tpot", "itl"];
    let (metric, kind) = if let Some(latency) = latencies.into_iter().find(|word| take(&[word]).is_some()) {
        let (_, statistic) = statistics.into_iter().find(|(word, _)| take(&[word]).is_some())?;
        take(&["ms"]);
        (format!("{statistic}_{latency}_ms"), Kind::Serving)
    } else {
        let named: [(&[&str], &str, Kind); 12] = [
            (&["avg", "cold", "startup", "time"], "avg_cold_startup_time", Kind::Startup),
            (&["avg", "warm", "startup", "time"], "avg_warm_startup_time", Kind::Startup),
            (&["avg", "cold", "compilation", "time"], "avg_cold_compilation_time", Kind::Startup),
            (&["avg", "warm", "compilation", "time"], "avg_warm_compilation_time", Kind::Startup),
            (&["tokens", "per", "second"], "tokens_per_second", Kind::Throughput),
            (&["tok", "s"], "tokens_per_second", Kind::Throughput),
            (&["tokens", "s"], "tokens_per_second", Kind::Throughput),
            (&["requests", "per", "second"], "requests_per_second", Kind::Throughput),
            (&["req", "s"], "requests_per_second", Kind::Throughput),
            (&["avg", "latency"], "latency", Kind::Latency),
            (&["mean", "latency"], "latency", Kind::Latency),
            (&["latency"], "latency", Kind::Latency),
        ];
        let (wanted, metric, kind) = named.into_iter().find(|(wanted, _, _)| take(wanted).is_some())?;
        // The dashboard's `latency` is the mean, not a percentile.
        if wanted == ["latency"] && words.iter().any(|word| word.starts_with('p') || ["median", "std"].contains(word)) {
            return None;
        }
        (metric.to_owned(), kind)
    };
    let case = if words.is_empty() { kind.as_str().to_owned() } else { words.join("_") };
    Some((metric, kind, case))
}

/// The factor from this unit to the unit of the metric: milliseconds, seconds, or a rate.
fn scale(metric: &str, kind: Kind, unit: &str) -> Result<f64> {
    let unit = unit.trim().to_lowercase();
    if kind == Kind::Throughput {
        let rate = unit.is_empty() || unit.contains("/s") || unit.contains("per s");
        ensure!(rate, "its unit `{}` is not a rate per second", shown(&unit));
        return Ok(1.0);
    }
    let is_milliseconds = metric.ends_with("_ms");
    let seconds = match unit.as_str() {
        "" => return Ok(1.0),
        "s" | "sec" | "second" | "seconds" => 1.0,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "us" | "µs" | "μs" | "microseconds" => 1e-6,
        "ns" | "nanoseconds" => 1e-9,
        _ => anyhow::bail!("its unit `{}` is not a unit of time", shown(&unit)),
    };
    Ok(if is_milliseconds { seconds * 1e3 } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::records::record_identity::tests::identity;

    /// The format of github-action-benchmark, with the fields of its README.
    const DATA: &str = r#"window.BENCHMARK_DATA = {
  "lastUpdate": 1790000100000,
  "repoUrl": "https://github.com/vllm-project/vllm",
  "entries": {
    "opt-125m": [
      {
        "commit": {"author": {"email": "a@b"}, "distinct": true, "id": "0123456789abcdef0123456789abcdef01234567",
          "message": "<script>", "timestamp": "2026-09-21T22:13:20+09:00", "url": "https://github.com/vllm-project/vllm/commit/0"},
        "date": 1790000000000,
        "tool": "customSmallerIsBetter",
        "benches": [
          {"name": "serving_opt_tp2_random_128_16_qps_0.5_concurrency_8 / Median TTFT", "value": 0.0417, "unit": "s"},
          {"name": "serving_opt_tp2_random_128_16_qps_0.5_concurrency_8 / p99_tpot_ms", "value": 12.5, "unit": "ms", "range": "± 1"},
          {"name": "latency_opt_tp1", "value": 1.25, "unit": "s", "extra": "10 iterations"},
          {"name": "throughput_opt tokens_per_second", "value": 2180, "unit": "tokens/s"},
          {"name": "wheel size", "value": 300, "unit": "MB"},
          {"name": "p99 latency", "value": 2, "unit": "s"},
          {"name": "mean ITL", "value": 2, "unit": "furlongs"}
        ]
      },
      {"commit": {"id": "short"}, "date": 1790000050000, "tool": "x", "benches": []}
    ]
  }
};"#;

    fn imported(text: &str) -> Records {
        import(text, &Identity { workflow_id: 0, job_id: 0, ..identity() }, None, Choice::default()).unwrap()
    }

    #[test]
    fn benches_that_name_a_metric_become_records_and_the_others_are_named() {
        let records = imported(DATA);
        let shown: Vec<String> = (records.records.iter())
            .map(|it| {
                let args = serde_json::to_string(&it.benchmark.extra_info.args).unwrap();
                format!("{} {:?} {args}", it.metric.name, it.metric.benchmark_values)
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        median_ttft_ms [41.7] {"request_rate":0.5,"tensor_parallel_size":2,"random_input_len":128,"random_output_len":16,"max_concurrency":8}
        p99_tpot_ms [12.5] {"request_rate":0.5,"tensor_parallel_size":2,"random_input_len":128,"random_output_len":16,"max_concurrency":8}
        latency [1.25] {"tensor_parallel_size":1}
        tokens_per_second [2180.0] {}
        "#);
        let refused: Vec<String> = records.refused.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        insta::assert_snapshot!(refused.join("\n"), @r"
        wheel size: its name contains no metric of the dashboard
        p99 latency: its name contains no metric of the dashboard
        mean ITL: its unit `furlongs` is not a unit of time
        short: `short` is not a full commit hash: --commit with 40 hexadecimal digits
        ");
        let first = &records.records[0];
        assert_eq!((first.timestamp, first.workflow_id, first.job_id), (1_789_996_400, 1_790_000_000, 1_790_000_000));
    }

    #[test]
    fn one_bad_item_loses_only_itself_and_is_named() {
        let good = r#"{"name": "a p99_ttft_ms", "value": 50, "unit": "ms"}"#;
        for (bad, why) in [
            (r#"{"name": "a median_ttft_ms", "value": null, "unit": "ms"}"#, "a median_ttft_ms: its value is null"),
            (
                r#"{"name": "a median_ttft_ms", "value": "fast"}"#,
                "a median_ttft_ms: number 1 in its list cannot be read",
            ),
            (r#"{"name": "a median_ttft_ms", "value": 0}"#, "a median_ttft_ms: its value is 0"),
            (r#"{"value": 5}"#, "0123456789abcdef0123456789abcdef01234567: number 1 in its list"),
            ("null", "0123456789abcdef0123456789abcdef01234567: number 1 in its list"),
        ] {
            let records = imported(&DATA.replacen(
                r#"{"name": "serving_opt_tp2_random_128_16_qps_0.5_concurrency_8 / Median TTFT", "value": 0.0417, "unit": "s"}"#,
                &format!("{bad}, {good}"),
                1,
            ));
            assert!(records.records.iter().any(|it| it.metric.name == "p99_ttft_ms"), "{bad}");
            let named = records.refused.iter().any(|(name, reason)| format!("{name}: {reason}").starts_with(why));
            assert!(named, "{bad}: {:?}", records.refused);
        }
        for (bad, why) in [
            ("null", "opt-125m: number 1 in its list cannot be read"),
            (r#"{"commit": {"id": "x"}, "date": "today", "benches": []}"#, "opt-125m: number 1 in its list"),
        ] {
            let records =
                imported(&DATA.replacen(r#""opt-125m": ["#, &format!(r#""other": 7, "opt-125m": [{bad}, "#), 1));
            assert_eq!(records.records.len(), 4, "{bad}");
            let refused: Vec<String> = records.refused.iter().map(|(name, why)| format!("{name}: {why}")).collect();
            assert_eq!(refused[0], "other: it is not a list");
            assert!(refused[1].starts_with(why), "{refused:?}");
        }
    }

    #[test]
    fn a_commit_that_was_measured_again_has_its_later_value() {
        let entry = |value: u32| {
            format!(
                r#"{{"commit": {{"id": "{}"}}, "date": 1790000000000, "benches": [{{"name": "latency", "value": {value}, "unit": "s"}}]}}"#,
                "a".repeat(40)
            )
        };
        let text = format!(r#"window.BENCHMARK_DATA={{"entries": {{"m": [{}, {}]}}}}"#, entry(1), entry(2));
        let records = imported(&text);
        assert_eq!(records.records.len(), 1);
        assert_eq!(records.records[0].metric.benchmark_values, [2.0]);
    }

    #[test]
    fn other_files_are_refused() {
        for text in ["", "{}", "window.BENCHMARK_DATA = [", "window.BENCHMARK_DATA = {\"entries\": []}"] {
            assert!(import(text, &identity(), None, Choice::default()).is_err(), "{text}");
        }
        let hostile = DATA.replace("opt-125m", "<script>");
        let records = imported(&hostile);
        assert!(records.records.is_empty() && records.refused.len() == 1, "{:?}", records.refused);
        let unknown = Identity { branch: String::new(), ..identity() };
        let error = import(DATA, &unknown, None, Choice::default()).unwrap_err();
        assert!(format!("{error:#}").contains("--branch"), "{error:#}");
    }
}
