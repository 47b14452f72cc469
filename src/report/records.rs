//! Dashboard records, in the schema of the PyTorch benchmark database (v3). Of a command, a record contains only the
//! parameters that the dashboard needs: the store is public, and commands may contain headers and keys.

mod collisions;
mod compilation;
mod data_js;
mod record_identity;
mod record_parameters;
mod record_point;
mod record_set;
mod record_v3;

use anyhow::{Context, Result};
use indexmap::IndexMap;
use vllm_verdict::repetition::Outcome;

use crate::plan::config::record_rules::{KeyCase, Rules};
use crate::result::case_files::CaseFiles;
use crate::system::store::object_key::RecordKey;
use record_point::Point;

pub use collisions::Collision;
pub use data_js::import;
pub use record_identity::{Identity, Runner};
pub use record_parameters::{BenchmarkInfo, Parameters};
pub use record_set::Records;
pub use record_v3::{Benchmark, Fact, Metric, Model, Record, SCHEMA};

/// The records of the cases of one repetition.
///
/// # Errors
/// The identity is incomplete, so no case can be published.
pub fn records(identity: &Identity, cases: &IndexMap<String, CaseFiles>, rules: Rules) -> Result<Records> {
    identity.check()?;
    let mut records = Records::default();
    let mut points = Vec::new();
    for (name, files) in cases {
        match Point::of(name, files, rules.failed_share) {
            Ok(point) => {
                points.push(point);
                if let Outcome::Measured(measurement) = &files.outcome {
                    let lacking = measurement.missing.iter().map(|metric| format!("`{metric}` has no value"));
                    records.refused.extend(lacking.map(|reason| (name.clone(), reason)));
                }
            }
            Err(error) => records.refused.push((name.clone(), format!("{error:#}"))),
        }
    }
    records.add(points, identity, rules.collision);
    Ok(records)
}

/// The objects of the records in a store, with one record in each line. Models whose names are equal in a key share an
/// object.
///
/// # Errors
/// A record cannot be written as JSON.
pub fn objects(records: &[Record], model_key: KeyCase) -> Result<IndexMap<RecordKey, String>> {
    let mut objects = IndexMap::<RecordKey, String>::new();
    for record in records {
        let lines = objects.entry(record.key(model_key)).or_default();
        *lines += &serde_json::to_string(record).context("cannot write a record as JSON")?;
        lines.push('\n');
    }
    Ok(objects)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::record_identity::tests::identity;
    use super::*;
    use crate::plan::config::record_rules::{Choice, Spelling};
    use crate::result::Document;
    use crate::system::results_folder::read_folder;
    use serde::Deserialize;

    const UPSTREAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/results/upstream-run");

    pub(crate) fn example(model: &str) -> Record {
        let info = BenchmarkInfo {
            args: Parameters::default(),
            compilation_mode: String::new(),
            optimization_level: String::new(),
            use_compile: true,
            measured_by: None,
        };
        let metrics = vec![("median_ttft_ms".to_owned(), vec![41.7])];
        let point = Point { case: "serving_a".into(), model: model.into(), info, metrics, facts: IndexMap::new() };
        point.into_records(&identity()).remove(0)
    }

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
        records(&identity(), &cases, Rules::default()).unwrap()
    }

    #[test]
    fn every_record_has_the_values_and_the_parameters_of_upstreams_own() {
        #[derive(Deserialize)]
        struct UpstreamRecord {
            metric: UpstreamMetric,
            model: Model,
            benchmark: UpstreamBenchmark,
        }
        #[derive(Deserialize)]
        struct UpstreamMetric {
            name: String,
            benchmark_values: Vec<f64>,
        }
        #[derive(Deserialize)]
        struct UpstreamBenchmark {
            extra_info: UpstreamInfo,
        }
        #[derive(Deserialize)]
        struct UpstreamInfo {
            args: serde_json::Map<String, serde_json::Value>,
            use_compile: bool,
        }
        let cases = upstream();
        let mut compared = 0;
        for (name, files) in &cases {
            let one = IndexMap::from([(name.clone(), files.clone())]);
            let is_eager = serde_json::to_string(&files.commands).unwrap().contains("--enforce-eager");
            let written = records(&identity(), &one, Rules::default()).unwrap().records;
            let mut upstreams: Vec<UpstreamRecord> = Vec::new();
            for suffix in ["", ".cold_startup", ".cold_compilation", ".warm_startup", ".warm_compilation"] {
                let path = format!("{UPSTREAM}/{name}{suffix}.pytorch.json");
                if let Ok(text) = std::fs::read_to_string(path) {
                    upstreams.extend(serde_json::from_str::<Vec<UpstreamRecord>>(&text).unwrap());
                }
            }
            assert_eq!(written.len(), upstreams.len(), "{name}");
            for (written, upstreams) in written.iter().zip(&upstreams) {
                assert_eq!(
                    (&written.metric.name, &written.metric.benchmark_values, &written.model),
                    (&upstreams.metric.name, &upstreams.metric.benchmark_values, &upstreams.model)
                );
                // vLLM's own record misses an eager server: it reads the mode and the name of the file only.
                assert!(upstreams.benchmark.extra_info.use_compile);
                assert_eq!(written.benchmark.extra_info.use_compile, !is_eager, "{name}");
                let args = serde_json::to_value(&written.benchmark.extra_info.args).unwrap();
                for (key, value) in args.as_object().unwrap() {
                    // The dashboard reads parameters as text, and upstream's tensor_parallel_size is text for serving.
                    let text = |value: &serde_json::Value| value.to_string().trim_matches('"').to_owned();
                    assert_eq!(text(value), text(&upstreams.benchmark.extra_info.args[key]), "{name} {key}");
                }
                compared += 1;
            }
        }
        assert_eq!(compared, 6 * 12 + 1 + 2 + 4);
    }

    #[test]
    fn a_record_contains_only_the_parameters_of_the_command() {
        let cases = upstream();
        let records = records(&identity(), &cases, Rules::default()).unwrap();
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
              "use_compile": false,
              "measured_by": "vllm"
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
    fn a_case_that_was_not_measured_is_refused_with_the_reason() {
        let serving = "serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8";
        for (case, from, to, reason) in [
            (serving, "\"failed\": 0", "\"failed\": 3", "3 of 63 requests failed"),
            (serving, "\"completed\": 60", "\"completed\": 0", "no request was completed"),
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
    fn a_metric_without_a_value_is_named_and_the_others_are_published() {
        let serving = "serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8";
        let whole = changed(serving, "\"failed\": 0", "\"failed\": 0").records.len();
        for value in ["NaN", "null", "Infinity"] {
            let records = changed(serving, "\"median_ttft_ms\": ", &format!("\"median_ttft_ms\": {value}, \"x\": "));
            assert_eq!(records.refused, [(serving.to_owned(), "`median_ttft_ms` has no value".to_owned())]);
            assert_eq!(records.records.len(), whole - 1, "{value}");
        }
    }

    #[test]
    fn a_compilation_time_of_zero_is_published_and_a_name_that_breaks_pages_is_not() {
        let startup = upstream()["startup_tinyllama_tp1"].clone();
        let of = |files: CaseFiles| {
            let cases = IndexMap::from([("startup_tinyllama_tp1".to_owned(), files)]);
            records(&identity(), &cases, Rules::default()).unwrap()
        };
        assert!(of(startup.clone()).records.iter().any(|record| record.metric.benchmark_values == [0.0]));
        for name in ["a;b", "a+b", "<script>", "", "x\u{7}", &"x".repeat(201)] {
            let mut files = startup.clone();
            files.commands.startup_command = Some(format!("vllm bench startup --model '{name}'"));
            assert_eq!(of(files).refused.len(), 1, "{name}");
        }
    }

    #[test]
    fn forms_that_the_database_rejects_or_misreads_are_not_records() {
        let records = records(&identity(), &upstream(), Rules::default()).unwrap();
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
    fn models_whose_names_are_equal_in_a_key_share_an_object_and_none_is_lost() {
        let names = ["org/a", "org_a", "org é", "org/b"];
        let records: Vec<Record> = names.map(example).into_iter().collect();
        let objects = objects(&records, KeyCase::Kept).unwrap();
        let found: Vec<(&str, usize)> =
            objects.iter().map(|(key, lines)| (key.model.as_str(), lines.lines().count())).collect();
        assert_eq!(found, [("org_a", 2), ("org__", 1), ("org_b", 1)]);
        let read =
            objects.values().flat_map(|lines| lines.lines()).map(|line| serde_json::from_str::<Record>(line).unwrap());
        assert_eq!(read.map(|record| record.model.name).collect::<Vec<_>>(), ["org/a", "org_a", "org é", "org/b"]);
    }

    #[test]
    fn names_that_the_pages_cannot_show_are_refused_and_other_names_give_a_safe_key() {
        for name in ["<script>", "a;b", "a+b", "a\"b", "a\\b", "a\nb", "", &"x".repeat(10_000)] {
            assert!(example(name).check().is_err(), "{name}");
        }
        for name in ["../../etc/passwd", "🚀", "a'b", "org/model:v1"] {
            let record = example(name);
            record.check().unwrap();
            crate::system::store::object_key::check(&record.key(KeyCase::Kept).to_string()).unwrap();
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
            records(&identity(), &cases, rules).unwrap()
        };
        let share = 1.0 / (completed as f64 + 1.0);
        assert_eq!(of(0.0).refused, [(name.clone(), format!("1 of {} requests failed", completed + 1))]);
        assert_eq!(of(share * 0.99).records.len(), 0);
        assert_eq!(of(share).records.len(), 12);
    }

    #[test]
    fn of_the_concurrencies_of_a_test_one_is_published_and_the_others_are_named() {
        let cases = upstream();
        for (choice, kept) in [(Choice::Highest, 8), (Choice::Lowest, 1)] {
            let records = super::records(&identity(), &cases, Rules { collision: choice, ..Rules::default() }).unwrap();
            assert_eq!(records.refused, []);
            // Two serving tests, latency, startup and throughput.
            assert_eq!(records.records.len(), 2 * 12 + 1 + 4 + 2);
            let collisions: Vec<(&str, usize)> =
                records.collisions.iter().map(|it| (it.kept.as_str(), it.dropped.len())).collect();
            let name = |lengths: &str| format!("serving_tinyllama_tp1_random_{lengths}_qps_inf_concurrency_{kept}");
            assert_eq!(collisions, [(name("256_16").as_str(), 2), (name("64_32").as_str(), 2)]);
        }
    }

    /// What the HUD's v3 pages of vLLM key a line by: two records with one key are one line, and the last one wins. It takes
    /// an absent `use_compile` as true, and the random lengths where there are no others.
    fn hud_key(record: &Record) -> String {
        let info = &record.benchmark.extra_info;
        let args = &info.args;
        let runner = &record.runners[0];
        let rate = serde_json::to_string(&args.request_rate).unwrap();
        let lengths = (args.input_len.or(args.random_input_len), args.output_len.or(args.random_output_len));
        format!(
            "{} {} {} {} {} {} compile={} rate={rate} tp={:?} {lengths:?} {}",
            record.repo,
            record.benchmark.name,
            record.head_branch,
            runner.name,
            runner.device_type,
            record.model.name,
            info.use_compile,
            args.tensor_parallel_size,
            record.metric.name
        )
    }

    /// A serving case of upstream under other names, each with the words that its server has more.
    fn variants(names: &[(&str, &str)]) -> IndexMap<String, CaseFiles> {
        let files = &upstream()["serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8"];
        let variant = |(name, words): &(&str, &str)| {
            let mut files = files.clone();
            files.commands.server_command = Some(format!("vllm serve models/tiny-llama {words}"));
            ((*name).to_owned(), files)
        };
        names.iter().map(variant).collect()
    }

    #[test]
    fn eager_and_compiled_runs_of_a_test_are_published_side_by_side() {
        let of = |names: &[(&str, &str)]| {
            let records = records(&identity(), &variants(names), Rules::default()).unwrap();
            assert_eq!((records.refused, records.collisions), (Vec::new(), Vec::new()), "{names:?}");
            records.records
        };
        let both = of(&[("serving_a_qps_inf_concurrency_8", ""), ("serving_a_eager_qps_inf_concurrency_8", "")]);
        let keys: std::collections::HashSet<String> = both.iter().map(hud_key).collect();
        assert_eq!((both.len(), keys.len()), (24, 24), "each has its own line on the HUD");
        let by_flag = of(&[("serving_a_qps_inf_concurrency_8", ""), ("serving_b_qps_inf_concurrency_8", "-O0")]);
        let keys: std::collections::HashSet<String> = by_flag.iter().map(hud_key).collect();
        assert_eq!(keys.len(), 24);
        let levels = of(&[("serving_a_qps_inf_concurrency_8", "-O1"), ("serving_b_qps_inf_concurrency_8", "-O2")]);
        let level = |record: &Record| record.benchmark.extra_info.optimization_level.clone();
        assert_eq!((level(&levels[0]), level(&levels[12])), ("1".into(), "2".into()));
    }

    #[test]
    fn of_tests_with_one_key_the_plain_name_is_published() {
        let cases = variants(&[
            ("serving_a_prefix_cache_qps_inf_concurrency_8", ""),
            ("serving_a_qps_inf_concurrency_8", "--max-num-seqs 8"),
            ("serving_a_prefix_cache_eager_qps_inf_concurrency_8", ""),
        ]);
        let records = records(&identity(), &cases, Rules::default()).unwrap();
        let collision = Collision {
            kept: "serving_a_qps_inf_concurrency_8".into(),
            dropped: vec!["serving_a_prefix_cache_qps_inf_concurrency_8".into()],
        };
        assert_eq!((records.collisions, records.records.len()), (vec![collision], 24));
    }

    #[test]
    fn names_are_spelled_as_the_existing_series_are() {
        let spelling = Spelling { branch: "{branch}(refs/heads/{branch})", model_key: KeyCase::Lower };
        let identity =
            Identity { benchmark: "PyTorch x vLLM benchmark".into(), branch: spelling.of_branch("main"), ..identity() };
        let records = records(&identity, &upstream(), Rules::default()).unwrap().records;
        let mut record = records[0].clone();
        record.model.name = "Qwen/Qwen3-8B".into();
        record.check().unwrap();
        assert_eq!(
            (record.name.as_str(), record.benchmark.name.as_str(), record.head_branch.as_str()),
            ("PyTorch x vLLM benchmark", "PyTorch x vLLM benchmark", "main(refs/heads/main)")
        );
        let key = record.key(spelling.model_key).to_string();
        assert!(key.starts_with("v3/vllm-project/vllm/main/0123"), "{key}");
        assert!(key.ends_with("/benchmark_results_qwen_qwen3-8b.json"), "{key}");
        record.name = "another".into();
        assert!(record.check().unwrap_err().to_string().contains("two benchmarks"));
        for name in ["", "a;b", "x\n"] {
            assert!(Identity { benchmark: name.into(), ..identity.clone() }.check().is_err(), "{name:?}");
        }
    }
}
