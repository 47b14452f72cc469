//! A case on its way into records: its model, parameters, metrics and facts.

use anyhow::{Context, Result, ensure};
use indexmap::IndexMap;
use vllm_verdict::repetition::Outcome;

use super::record_identity::{Identity, check_name};
use super::record_parameters::{self, BenchmarkInfo};
use super::record_v3::{Benchmark, Fact, Metric, Model, Record, SCHEMA, check_values};
use crate::result::case_files::CaseFiles;
use crate::result::{Document, Serving};

/// A case before it becomes records.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    pub case: String,
    pub model: String,
    pub info: BenchmarkInfo,
    pub metrics: Vec<(String, Vec<f64>)>,
    pub facts: IndexMap<String, Fact>,
}

impl Point {
    pub fn of(case: &str, files: &CaseFiles, failed_share: f64) -> Result<Self> {
        let document = files.text.as_deref().map(|text| Document::read(files.kind, text));
        if let Outcome::Failed(reason) = &files.outcome
            && !document
                .as_ref()
                .is_some_and(|document| document.as_ref().is_ok_and(|it| it.failed_share_is(failed_share)))
        {
            anyhow::bail!("{reason}");
        }
        let document = document.context("the benchmark wrote no result file")??;
        let model = files.commands.model().or_else(|| document.model().map(str::to_owned));
        let model = model.context("neither the result nor its commands name the model")?;
        check_name("model", &model)?;
        let metrics = metrics(&document);
        for (name, values) in &metrics {
            check_values(name, values)?;
        }
        // A compilation time of 0 is valid, but a case in which every metric is 0 was not measured.
        ensure!(metrics.iter().any(|(_, values)| values.iter().any(|value| *value > 0.0)), "every metric is 0");
        let mut facts = facts(&document);
        facts.insert("case".to_owned(), Fact::Text(case.to_owned()));
        Ok(Self { case: case.to_owned(), model, info: record_parameters::info(case, files), metrics, facts })
    }

    pub fn into_records(self, identity: &Identity) -> Vec<Record> {
        let Self { model, info, metrics, facts, .. } = self;
        metrics
            .into_iter()
            .map(|(name, benchmark_values)| Record {
                timestamp: identity.timestamp,
                schema_version: SCHEMA.to_owned(),
                name: identity.benchmark.clone(),
                repo: identity.repository.clone(),
                head_branch: identity.branch.clone(),
                head_sha: identity.commit.clone(),
                workflow_id: identity.workflow_id,
                run_attempt: identity.run_attempt,
                job_id: identity.job_id,
                runners: vec![identity.runner.clone()],
                benchmark: Benchmark { name: identity.benchmark.clone(), extra_info: info.clone() },
                model: Model { name: model.clone() },
                metric: Metric { name, benchmark_values, extra_info: facts.clone() },
            })
            .collect()
    }
}

/// The metrics of the dashboard, by upstream's names.
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
            one("median_e2el_ms", it.median_e2el_ms.filter(|_| generates_nothing(it))),
            one("p99_e2el_ms", it.p99_e2el_ms.filter(|_| generates_nothing(it))),
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

/// Whether it is a result of embeddings or the like. vLLM writes no records of them; E2EL is the only time that they have.
fn generates_nothing(result: &Serving) -> bool {
    result.output_throughput.is_none() && result.median_ttft_ms.is_none()
}

/// Further public numbers of a result.
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
