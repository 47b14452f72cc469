//! Dashboard records: one metric of one case, as the PyTorch benchmark database reads it (schema v3). Pure. A record holds
//! what the dashboard needs and nothing else of a command: the store is public, and commands carry headers and keys.

pub mod collisions;
pub mod data_js;
pub mod record_identity;
pub mod record_parameters;

use crate::plan::config::record_rules::Rules;
use anyhow::{Context, Result, ensure};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use vllm_verdict::repetition::Outcome;

use crate::result::Document;
use crate::result::case_files::CaseFiles;
use crate::system::store::object_key::RecordKey;

pub use crate::plan::config::record_rules::Choice;
pub use collisions::Collision;
pub use data_js::import;
pub use record_identity::{Identity, Runner};
pub use record_parameters::Parameters;

/// The version of the schema.
pub const SCHEMA: &str = "v3";

/// What the dashboard knows vLLM's benchmarks as; any other name is another dashboard.
const BENCHMARK: &str = "vLLM benchmark";

/// Longest name of a model that is published, in characters.
const NAME_LENGTH: usize = 200;

/// One row of the benchmark database: one metric of one case. A type that differs from these loses the whole file there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The commit's date, in seconds since 1970.
    pub timestamp: u64,
    /// Always [`SCHEMA`].
    pub schema_version: String,
    /// What is benchmarked.
    pub name: String,
    /// `owner/name`.
    pub repo: String,
    /// Branch of the commit.
    pub head_branch: String,
    /// Full hash of the commit.
    pub head_sha: String,
    /// The CI run, a number that grows.
    pub workflow_id: u64,
    /// Which try of that run.
    pub run_attempt: u32,
    /// The job of that run.
    pub job_id: u64,
    /// What measured; one.
    pub runners: Vec<Runner>,
    /// What was run.
    pub benchmark: Benchmark,
    /// What was served.
    pub model: Model,
    /// What came of it.
    pub metric: Metric,
}

/// What was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Benchmark {
    /// Always the same.
    pub name: String,
    /// How it was run.
    pub extra_info: BenchmarkInfo,
}

/// How a benchmark was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkInfo {
    /// The parameters.
    pub args: Parameters,
    /// Compilation mode; empty where the command does not say.
    #[serde(rename = "compilation_config.mode")]
    pub compilation_mode: String,
    /// Optimization level; empty where the command does not say.
    pub optimization_level: String,
    /// Whether the model was compiled, by upstream's rule.
    pub use_compile: bool,
}

/// What was served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Name, as the commands give it.
    pub name: String,
}

/// A metric of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Upstream's name of it, unit included.
    pub name: String,
    /// Its values; all iterations of a latency test, else one.
    pub benchmark_values: Vec<f64>,
    /// Facts of the case that are no metric of the dashboard.
    pub extra_info: IndexMap<String, Fact>,
}

/// A fact beside a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fact {
    /// A count.
    Count(u64),
    /// A number.
    Number(f64),
    /// Words.
    Text(String),
}

/// What a results folder gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    /// What may be published, in the order of the cases.
    pub records: Vec<Record>,
    /// Cases that may not, and why.
    pub refused: Vec<(String, String)>,
    /// Cases that the dashboard cannot tell apart.
    pub collisions: Vec<Collision>,
}

/// The records of the cases of one repetition.
///
/// # Errors
/// The identity lacks something that the database needs: nothing can be published of any case.
pub fn records(identity: &Identity, cases: &IndexMap<String, CaseFiles>, rules: Rules) -> Result<Records> {
    identity.check()?;
    let mut records = Records::default();
    let mut points = Vec::new();
    for (name, files) in cases {
        match Point::of(name, files, rules.failed_share) {
            Ok(point) => points.push(point),
            Err(error) => records.refused.push((name.clone(), format!("{error:#}"))),
        }
    }
    records.keep(points, identity, rules.collision);
    Ok(records)
}

impl Records {
    fn keep(&mut self, points: Vec<Point>, identity: &Identity, choice: Choice) {
        let (kept, collisions) = collisions::choose(points, choice);
        self.collisions.extend(collisions);
        self.records.extend(kept.into_iter().flat_map(|point| point.into_records(identity)));
    }
}

impl Record {
    /// Whether it may be published: what [`records`] makes passes, what a folder holds may be another's.
    ///
    /// # Errors
    /// What the database would not take, or its pages could not show.
    pub fn check(&self) -> Result<()> {
        ensure!(self.schema_version == SCHEMA, "its schema is `{}`", self.schema_version);
        ensure!(self.name == BENCHMARK && self.benchmark.name == BENCHMARK, "its benchmark is not `{BENCHMARK}`");
        let [runner] = self.runners.as_slice() else { anyhow::bail!("it has {} runners", self.runners.len()) };
        let identity = Identity {
            repository: self.repo.clone(),
            branch: self.head_branch.clone(),
            commit: self.head_sha.clone(),
            timestamp: self.timestamp,
            workflow_id: self.workflow_id,
            job_id: self.job_id,
            run_attempt: self.run_attempt,
            runner: runner.clone(),
        };
        identity.check()?;
        check_name(&self.model.name)?;
        check_values(&self.metric.name, &self.metric.benchmark_values)
    }

    /// Where it goes in a store.
    pub fn key(&self) -> RecordKey {
        let device_type = self.runners.first().map_or("", |runner| &runner.device_type);
        RecordKey::new(&self.repo, &self.head_branch, &self.head_sha, device_type, &self.model.name)
    }
}

/// The objects that hold the records in a store, one a line. Models whose names are one in a key share an object.
///
/// # Errors
/// Never for our own records.
pub fn objects(records: &[Record]) -> Result<IndexMap<RecordKey, String>> {
    let mut objects = IndexMap::<RecordKey, String>::new();
    for record in records {
        let lines = objects.entry(record.key()).or_default();
        *lines += &serde_json::to_string(record).context("cannot write a record as JSON")?;
        lines.push('\n');
    }
    Ok(objects)
}

/// A case, on its way into records.
#[derive(Debug, Clone, PartialEq)]
struct Point {
    case: String,
    model: String,
    info: BenchmarkInfo,
    metrics: Vec<(String, Vec<f64>)>,
    facts: IndexMap<String, Fact>,
}

impl Point {
    fn of(case: &str, files: &CaseFiles, failed_share: f64) -> Result<Self> {
        let document = files.text.as_deref().map(|text| Document::read(files.kind, text));
        if let Outcome::Failed(reason) = &files.outcome
            && !document
                .as_ref()
                .is_some_and(|document| document.as_ref().is_ok_and(|it| it.failed_share_is(failed_share)))
        {
            anyhow::bail!("{reason}");
        }
        let document = document.context("the benchmark left no result file")??;
        let model = files.commands.model().or_else(|| document.model().map(str::to_owned));
        let model = model.context("neither the result nor its commands name the model")?;
        check_name(&model)?;
        let metrics = metrics(&document);
        for (name, values) in &metrics {
            check_values(name, values)?;
        }
        // Compilation takes no time where nothing is compiled; a case of nothing but zeros measured nothing.
        ensure!(metrics.iter().any(|(_, values)| values.iter().any(|value| *value > 0.0)), "every metric is 0");
        let mut facts = facts(&document);
        facts.insert("case".to_owned(), Fact::Text(case.to_owned()));
        Ok(Self { case: case.to_owned(), model, info: record_parameters::info(case, files), metrics, facts })
    }

    fn into_records(self, identity: &Identity) -> Vec<Record> {
        let Self { model, info, metrics, facts, .. } = self;
        metrics
            .into_iter()
            .map(|(name, benchmark_values)| Record {
                timestamp: identity.timestamp,
                schema_version: SCHEMA.to_owned(),
                name: BENCHMARK.to_owned(),
                repo: identity.repository.clone(),
                head_branch: identity.branch.clone(),
                head_sha: identity.commit.clone(),
                workflow_id: identity.workflow_id,
                run_attempt: identity.run_attempt,
                job_id: identity.job_id,
                runners: vec![identity.runner.clone()],
                benchmark: Benchmark { name: BENCHMARK.to_owned(), extra_info: info.clone() },
                model: Model { name: model.clone() },
                metric: Metric { name, benchmark_values, extra_info: facts.clone() },
            })
            .collect()
    }
}

fn check_values(name: &str, values: &[f64]) -> Result<()> {
    ensure!(!values.is_empty() && values.iter().all(|value| value.is_finite()), "`{name}` has no value");
    ensure!(values.iter().all(|value| *value >= 0.0), "`{name}` is negative");
    Ok(())
}

/// Names that the dashboard's pages cannot show, or that no model has.
fn check_name(model: &str) -> Result<()> {
    let shown: String = model.chars().take(60).collect();
    ensure!(
        !model.is_empty() && model.chars().count() <= NAME_LENGTH,
        "the model's name `{shown}` is too long or empty"
    );
    let bad = model
        .chars()
        .find(|character| matches!(character, ';' | '+' | '<' | '>' | '"' | '\\') || character.is_control());
    match bad {
        Some(bad) => anyhow::bail!("the model's name `{shown}` has {bad:?}, which breaks the dashboard's pages"),
        None => Ok(()),
    }
}

/// The metrics that the dashboard has, by upstream's names.
fn metrics(document: &Document) -> Vec<(String, Vec<f64>)> {
    let one = |name: &str, value: Option<f64>| value.map(|value| (name.to_owned(), vec![value]));
    match document {
        Document::Serving(it) => [
            one("median_ttft_ms", it.median_ttft_ms),
            one("mean_ttft_ms", it.mean_ttft_ms),
            one("std_ttft_ms", it.std_ttft_ms),
            one("p99_ttft_ms", it.p99_ttft_ms),
            one("mean_tpot_ms", it.mean_tpot_ms),
            one("median_tpot_ms", it.median_tpot_ms),
            one("std_tpot_ms", it.std_tpot_ms),
            one("p99_tpot_ms", it.p99_tpot_ms),
            one("median_itl_ms", it.median_itl_ms),
            one("mean_itl_ms", it.mean_itl_ms),
            one("std_itl_ms", it.std_itl_ms),
            one("p99_itl_ms", it.p99_itl_ms),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Document::Latency(it) => vec![("latency".to_owned(), it.latencies.clone())],
        Document::Throughput(it) => {
            let rates =
                [one("requests_per_second", it.requests_per_second), one("tokens_per_second", it.tokens_per_second)];
            rates.into_iter().flatten().collect()
        }
        Document::Startup(it) => [
            one("avg_cold_startup_time", it.avg_cold_startup_time),
            one("avg_cold_compilation_time", it.avg_cold_compilation_time),
            one("avg_warm_startup_time", it.avg_warm_startup_time),
            one("avg_warm_compilation_time", it.avg_warm_compilation_time),
        ]
        .into_iter()
        .flatten()
        .collect(),
    }
}

/// What else a result tells, and everybody may know.
fn facts(document: &Document) -> IndexMap<String, Fact> {
    let count = |name: &str, value: Option<u64>| value.map(|value| (name.to_owned(), Fact::Count(value)));
    let number = |name: &str, value: Option<f64>| {
        value.filter(|value| value.is_finite()).map(|value| (name.to_owned(), Fact::Number(value)))
    };
    match document {
        Document::Serving(it) => [
            count("num_prompts", it.num_prompts),
            count("max_concurrency", it.max_concurrency),
            number("duration", it.duration),
            count("completed", it.completed),
            count("failed", it.failed),
            count("total_input_tokens", it.total_input_tokens),
            count("total_output_tokens", it.total_output_tokens),
            number("request_throughput", it.request_throughput),
            number("output_throughput", it.output_throughput),
            number("total_token_throughput", it.total_token_throughput),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Document::Latency(it) => number("avg_latency", it.avg_latency).into_iter().collect(),
        Document::Throughput(it) => [
            number("elapsed_time", it.elapsed_time),
            count("num_requests", it.num_requests),
            count("total_num_tokens", it.total_num_tokens),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Document::Startup(_) => IndexMap::new(),
    }
}

/// A record of a model.
#[cfg(test)]
pub(crate) fn example(model: &str) -> Record {
    let info = BenchmarkInfo {
        args: Parameters::default(),
        compilation_mode: String::new(),
        optimization_level: String::new(),
        use_compile: true,
    };
    let metrics = vec![("median_ttft_ms".to_owned(), vec![41.7])];
    let point = Point { case: "serving_a".into(), model: model.into(), info, metrics, facts: IndexMap::new() };
    point.into_records(&record_identity::tests::identity()).remove(0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::system::results_folder::read_folder;

    const UPSTREAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/results/upstream-run");

    fn upstream() -> IndexMap<String, CaseFiles> {
        read_folder(Path::new(UPSTREAM)).unwrap().cases
    }

    fn changed(case: &str, from: &str, to: &str) -> Records {
        let mut cases = upstream();
        let files = cases.get_mut(case).unwrap();
        let text = files.text.take().unwrap();
        assert!(text.contains(from), "{from}");
        let text = text.replace(from, to);
        files.outcome =
            crate::result::parse(files.kind, &text).unwrap_or_else(|error| Outcome::Failed(error.to_string()));
        files.text = Some(text);
        cases.retain(|name, _| name == case);
        records(&record_identity::tests::identity(), &cases, Rules::default()).unwrap()
    }

    #[test]
    fn every_record_has_the_values_and_the_parameters_of_upstreams_own() {
        #[derive(Deserialize)]
        struct Theirs {
            metric: TheirMetric,
            model: Model,
            benchmark: TheirBenchmark,
        }
        #[derive(Deserialize)]
        struct TheirMetric {
            name: String,
            benchmark_values: Vec<f64>,
        }
        #[derive(Deserialize)]
        struct TheirBenchmark {
            extra_info: TheirInfo,
        }
        #[derive(Deserialize)]
        struct TheirInfo {
            args: serde_json::Map<String, serde_json::Value>,
            use_compile: bool,
        }
        let cases = upstream();
        let mut compared = 0;
        for (name, files) in &cases {
            let one = IndexMap::from([(name.clone(), files.clone())]);
            let ours = records(&record_identity::tests::identity(), &one, Rules::default()).unwrap().records;
            let mut theirs: Vec<Theirs> = Vec::new();
            for suffix in ["", ".cold_startup", ".cold_compilation", ".warm_startup", ".warm_compilation"] {
                let path = format!("{UPSTREAM}/{name}{suffix}.pytorch.json");
                if let Ok(text) = std::fs::read_to_string(path) {
                    theirs.extend(serde_json::from_str::<Vec<Theirs>>(&text).unwrap());
                }
            }
            assert_eq!(ours.len(), theirs.len(), "{name}");
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_eq!(
                    (&ours.metric.name, &ours.metric.benchmark_values, &ours.model),
                    (&theirs.metric.name, &theirs.metric.benchmark_values, &theirs.model)
                );
                assert_eq!(ours.benchmark.extra_info.use_compile, theirs.benchmark.extra_info.use_compile);
                let args = serde_json::to_value(&ours.benchmark.extra_info.args).unwrap();
                for (key, value) in args.as_object().unwrap() {
                    // The dashboard reads parameters as text, and upstream's tensor_parallel_size is text for serving.
                    let text = |value: &serde_json::Value| value.to_string().trim_matches('"').to_owned();
                    assert_eq!(text(value), text(&theirs.benchmark.extra_info.args[key]), "{name} {key}");
                }
                compared += 1;
            }
        }
        assert_eq!(compared, 6 * 12 + 1 + 2 + 4);
    }

    #[test]
    fn a_record_holds_nothing_of_the_command_but_its_parameters() {
        let cases = upstream();
        let records = records(&record_identity::tests::identity(), &cases, Rules::default()).unwrap();
        let serving = records.records.iter().find(|record| record.metric.name == "median_ttft_ms").unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(serving).unwrap(), @r#"
        {
          "timestamp": 1790000000,
          "schema_version": "v3",
          "name": "vLLM benchmark",
          "repo": "vllm-project/vllm",
          "head_branch": "main",
          "head_sha": "0123456789abcdef0123456789abcdef01234567",
          "workflow_id": 20362340534,
          "run_attempt": 1,
          "job_id": 58585533990,
          "runners": [
            {
              "name": "cpu",
              "type": "AMD_EPYC_2c",
              "cpu_info": "x86_64",
              "cpu_count": 2,
              "avail_mem_in_gb": 24,
              "gpu_info": "",
              "gpu_count": 0
            }
          ],
          "benchmark": {
            "name": "vLLM benchmark",
            "extra_info": {
              "args": {
                "request_rate": "inf",
                "tensor_parallel_size": 1,
                "random_input_len": 256,
                "random_output_len": 16,
                "max_concurrency": 8,
                "num_prompts": 60,
                "dataset_name": "random"
              },
              "compilation_config.mode": "",
              "optimization_level": "",
              "use_compile": true
            }
          },
          "model": {
            "name": "models/tiny-llama"
          },
          "metric": {
            "name": "median_ttft_ms",
            "benchmark_values": [
              41.26389800001107
            ],
            "extra_info": {
              "num_prompts": 60,
              "max_concurrency": 8,
              "duration": 0.9185065990000112,
              "completed": 60,
              "failed": 0,
              "total_input_tokens": 15373,
              "total_output_tokens": 960,
              "request_throughput": 65.32342834044164,
              "output_throughput": 1045.1748534470662,
              "total_token_throughput": 17782.12591807389,
              "case": "serving_tinyllama_tp1_random_256_16_qps_inf_concurrency_8"
            }
          }
        }
        "#);
    }

    #[test]
    fn what_was_not_measured_is_refused_with_the_reason() {
        let serving = "serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8";
        for (case, from, to, reason) in [
            (serving, "\"failed\": 0", "\"failed\": 3", "3 of 63 requests failed"),
            (serving, "\"completed\": 60", "\"completed\": 0", "no request was completed"),
            (
                serving,
                "\"median_ttft_ms\": ",
                "\"median_ttft_ms\": NaN, \"x\": ",
                "`median_ttft_ms` is NaN in the result",
            ),
            (
                "throughput_tinyllama_tp1",
                "\"tokens_per_second\": ",
                "\"tokens_per_second\": -1, \"x\": ",
                "`tokens_per_second` is negative",
            ),
            ("latency_tinyllama_tp1", "\"latencies\"", "\"none\"", "`latency` has no value"),
        ] {
            let records = changed(case, from, to);
            assert_eq!(records.refused, [(case.to_owned(), reason.to_owned())]);
            assert!(records.records.is_empty());
        }
    }

    #[test]
    fn a_compilation_time_of_zero_is_published_and_a_name_that_breaks_pages_is_not() {
        let startup = upstream()["startup_tinyllama_tp1"].clone();
        let of = |files: CaseFiles| {
            let cases = IndexMap::from([("startup_tinyllama_tp1".to_owned(), files)]);
            records(&record_identity::tests::identity(), &cases, Rules::default()).unwrap()
        };
        assert!(of(startup.clone()).records.iter().any(|record| record.metric.benchmark_values == [0.0]));
        for name in ["a;b", "a+b", "<script>", "", "x\u{7}", &"x".repeat(201)] {
            let mut files = startup.clone();
            files.commands.startup_command = Some(format!("vllm bench startup --model '{name}'"));
            assert_eq!(of(files).refused.len(), 1, "{name}");
        }
    }

    #[test]
    fn forms_that_the_database_rejects_or_reads_wrongly_are_no_records() {
        let records = records(&record_identity::tests::identity(), &upstream(), Rules::default()).unwrap();
        let good = serde_json::to_string(&records.records[0]).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&good).unwrap(), records.records[0]);
        for (from, to) in [
            ("\"timestamp\":1790000000", "\"timestamp\":1790000000.5"),
            ("\"timestamp\":1790000000", "\"timestamp\":\"2026-09-21T14:13:20Z\""),
            ("\"job_id\":58585533990", "\"job_id\":-1"),
            ("\"run_attempt\":1", "\"run_attempt\":4294967296"),
            ("\"workflow_id\":20362340534", "\"workflow_id\":\"0190c9a5-7c1f-4f3a-9d3e-2b1f0c9a57c1\""),
            ("\"benchmark_values\":[", "\"benchmark_values\":1.0,\"x\":["),
            ("\"benchmark_values\":[", "\"benchmark_values\":[null,"),
            ("\"case\":", "\"duration\":NaN,\"case\":"),
            ("\"args\":{", "\"args\":{\"request_rate\":Infinity,"),
        ] {
            assert!(good.contains(from), "{from}");
            assert!(serde_json::from_str::<Record>(&good.replacen(from, to, 1)).is_err(), "{to}");
        }
    }

    #[test]
    fn models_whose_names_are_one_in_a_key_share_an_object_and_none_is_lost() {
        let names = ["org/a", "org_a", "org é", "org/b"];
        let records: Vec<Record> = names.map(example).into_iter().collect();
        let objects = objects(&records).unwrap();
        let told: Vec<(&str, usize)> =
            objects.iter().map(|(key, lines)| (key.model.as_str(), lines.lines().count())).collect();
        assert_eq!(told, [("org_a", 2), ("org__", 1), ("org_b", 1)]);
        let read =
            objects.values().flat_map(|lines| lines.lines()).map(|line| serde_json::from_str::<Record>(line).unwrap());
        assert_eq!(read.map(|record| record.model.name).collect::<Vec<_>>(), ["org/a", "org_a", "org é", "org/b"]);
    }

    #[test]
    fn names_that_the_pages_cannot_show_are_refused_and_the_others_make_a_safe_key() {
        for name in ["<script>", "a;b", "a+b", "a\"b", "a\\b", "a\nb", "", &"x".repeat(10_000)] {
            assert!(example(name).check().is_err(), "{name}");
        }
        for name in ["../../etc/passwd", "🚀", "a'b", "org/model:v1"] {
            let record = example(name);
            record.check().unwrap();
            crate::system::store::object_key::check(&record.key().to_string()).unwrap();
        }
    }

    #[test]
    fn a_share_of_failed_requests_may_be_allowed() {
        let name = upstream().keys().find(|name| name.starts_with("serving")).unwrap().clone();
        let mut cases = upstream();
        cases.retain(|case, _| *case == name);
        let files = cases.get_mut(&name).unwrap();
        let text = files.text.take().unwrap();
        let document = Document::read(files.kind, &text).unwrap();
        let Document::Serving(serving) = document else { panic!() };
        let completed = serving.completed.unwrap();
        let failing = text.replace("\"failed\": 0", "\"failed\": 1");
        assert_ne!(failing, text);
        files.outcome = crate::result::parse(files.kind, &failing).unwrap();
        files.text = Some(failing);
        let of = |failed_share: f64| {
            let rules = Rules { failed_share, ..Rules::default() };
            records(&record_identity::tests::identity(), &cases, rules).unwrap()
        };
        let share = 1.0 / (completed as f64 + 1.0);
        assert_eq!(of(0.0).refused, [(name.clone(), format!("1 of {} requests failed", completed + 1))]);
        assert_eq!(of(share * 0.99).records.len(), 0);
        assert_eq!(of(share).records.len(), 12);
    }
}
