//! The `.pytorch.json` that `vllm bench serve` writes with `SAVE_TO_PYTORCH_BENCHMARK_FORMAT`: one record for each metric,
//! with the same keys and types.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use super::serving_metrics::ServingResult;

/// The arguments of `vllm bench serve` 0.32 with their defaults, also those that the native client does not support.
const DEFAULTS: &str = include_str!("arguments.json");

/// The metrics with a record, in vLLM's order.
const METRICS: [&str; 12] = [
    "median_ttft_ms",
    "mean_ttft_ms",
    "std_ttft_ms",
    "p99_ttft_ms",
    "mean_tpot_ms",
    "median_tpot_ms",
    "std_tpot_ms",
    "p99_tpot_ms",
    "median_itl_ms",
    "mean_itl_ms",
    "std_itl_ms",
    "p99_itl_ms",
];

/// Keys of the result that are not in records.
const LEFT_OUT: [&str; 4] = ["ttfts", "itls", "generated_texts", "errors"];

#[derive(Serialize)]
struct Record<'a> {
    benchmark: Benchmark<'a>,
    model: Model<'a>,
    metric: Metric<'a>,
}

#[derive(Serialize)]
struct Benchmark<'a> {
    name: &'static str,
    extra_info: ExtraInfo<'a>,
}

#[derive(Serialize)]
struct ExtraInfo<'a> {
    args: &'a Map<String, Value>,
    #[serde(rename = "compilation_config.mode")]
    compilation_mode: &'a Value,
    optimization_level: &'a Value,
    use_compile: bool,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Metric<'a> {
    name: &'static str,
    benchmark_values: [&'a Value; 1],
    extra_info: &'a Map<String, Value>,
}

/// The records of a result, as the text of the file; none where it has no metric of them, as vLLM writes no file then. Headers
/// are hidden.
///
/// # Errors
/// They cannot be serialized as JSON.
pub fn records(result: &ServingResult) -> Result<Option<String>> {
    let arguments = &result.arguments;
    let all = result.to_map(arguments.result.save_detailed);
    let mut args = args(result)?;
    let extra_info: Map<String, Value> = all
        .iter()
        .filter(|(key, _)| !METRICS.contains(&key.as_str()) && !LEFT_OUT.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if let Some(size) = extra_info.get("tensor_parallel_size") {
        args.insert("tensor_parallel_size".to_owned(), size.clone());
    }
    let none = Value::from("");
    let value = |key| extra_info.get(key).unwrap_or(&none);
    let file = arguments.result.result_filename.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let compilation_mode = value("compilation_config.mode");
    let records = METRICS.into_iter().filter_map(|name| {
        let measured = all.get(name)?;
        Some(Record {
            benchmark: Benchmark {
                name: "vLLM benchmark",
                extra_info: ExtraInfo {
                    args: &args,
                    compilation_mode,
                    optimization_level: value("optimization_level"),
                    use_compile: compilation_mode != "0" && !file.contains("eager"),
                },
            },
            model: Model { name: &arguments.model.model },
            metric: Metric { name, benchmark_values: [measured], extra_info: &extra_info },
        })
    });
    let records: Vec<Record<'_>> = records.collect();
    if records.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(&records).context("cannot serialize records").map(Some)
}

/// Every argument of `vllm bench serve`, in its order.
fn args(result: &ServingResult) -> Result<Map<String, Value>> {
    let cannot = "cannot list the arguments of a result";
    let mut args: Map<String, Value> = serde_json::from_str(DEFAULTS).context(cannot)?;
    if let Value::Object(given) = serde_json::to_value(&result.arguments).context(cannot)? {
        args.extend(given);
    }
    // The general length also applies to data sets that only vLLM has.
    if let Some(length) = result.arguments.lengths.output_len {
        for other in ["hf_output_len", "spec_bench_output_len", "prefix_repetition_output_len"] {
            args.insert(other.to_owned(), length.into());
        }
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use vllm_load::Answer;

    use super::*;
    use crate::plan::serve_flags;
    use crate::run::native_client::serving_metrics::tests::arrivals;

    /// Written by vLLM 0.32 with a command of its benchmark suite; lists are shortened to two entries.
    const REAL: &str = include_str!("../../../tests/data/results/options/records.pytorch.json");

    fn ours(more: &str) -> String {
        let command = format!(
            "--save-result --result-dir results/ \
             --result-filename serving_tinyllama_tp1_random_256_16_qps_inf_concurrency_8.json --request-rate inf \
             --max-concurrency 8 --metadata tensor_parallel_size=1 compilation_config.mode= optimization_level= \
             --model models/tiny-llama --backend vllm --ignore-eos --temperature 0 --num-prompts 60 \
             --dataset-name random --random-input-len 256 --random-output-len 16 {more}"
        );
        let arguments = serve_flags::parse(&shell_words::split(&command).unwrap()).unwrap();
        let answer = Answer { tokens: arrivals(0.1, &[0.2]), output_tokens: Some(2), ..Answer::default() };
        let ended = "2026-11-24T11:19:33Z".parse().unwrap();
        records(&ServingResult::new(arguments, ended, vec![answer], 1.0)).unwrap().unwrap()
    }

    /// Keys in order, with the type of each value; of arrays that of the first entry.
    fn type_text(value: &Value) -> String {
        match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if number.is_f64() => "float".to_owned(),
            Value::Number(_) => "int".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(values) => format!("[{}]", values.first().map(type_text).unwrap_or_default()),
            Value::Object(map) => {
                format!(
                    "{{{}}}",
                    map.iter().map(|(key, value)| format!("{key}: {}\n", type_text(value))).collect::<String>()
                )
            }
        }
    }

    #[test]
    fn records_have_the_keys_order_and_types_of_vllms() {
        let theirs: Vec<Value> = serde_json::from_str(REAL).unwrap();
        let ours: Vec<Value> = serde_json::from_str(&ours("")).unwrap();
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours["metric"]["name"], theirs["metric"]["name"]);
            assert_eq!(type_text(ours), type_text(theirs));
        }
    }

    #[test]
    fn the_arguments_of_one_command_are_those_that_vllm_lists() {
        let theirs: Vec<Value> = serde_json::from_str(REAL).unwrap();
        let ours: Vec<Value> = serde_json::from_str(&ours("")).unwrap();
        let args = |record: &Value| {
            let mut args = record["benchmark"]["extra_info"]["args"].clone();
            args["request_id_prefix"] = Value::Null;
            args
        };
        assert_eq!(args(&ours[0]), args(&theirs[0]));
    }

    #[test]
    fn headers_are_hidden_and_an_eager_case_is_not_compiled() {
        let text = ours("--header authorization=secret --goodput ttft:5 --result-filename eager.json --output-len 9");
        assert!(!text.contains("secret"));
        let records: Vec<Value> = serde_json::from_str(&text).unwrap();
        let conditions = &records[0]["benchmark"]["extra_info"];
        assert_eq!(conditions["args"]["header"], "***");
        assert_eq!(conditions["args"]["goodput"], serde_json::json!(["ttft:5"]));
        assert_eq!(conditions["args"]["hf_output_len"], 9);
        assert_eq!(conditions["use_compile"], false);
    }
}
