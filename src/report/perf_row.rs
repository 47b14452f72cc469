//! The row of a serving case in the table of perf-eval's dashboard. Its keys and its constants are those that perf-eval writes,
//! so that a row continues an existing series.

use anyhow::{Context, Result, ensure};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vllm_verdict::case::Kind;
use vllm_verdict::repetition::Outcome;

use crate::result::case_files::CaseFiles;
use crate::result::python_json::plain;
use crate::result::{flags, parallel_sizes};

/// Words in the names of models that name their precision.
const PRECISIONS: [&str; 6] = ["fp4", "fp8", "int4", "int8", "bf16", "fp16"];

/// What the rows of a run share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFacts {
    /// `YYYY-MM-DD HH:MM:SS`, UTC.
    pub date: String,
    /// In lower case: `h200`.
    pub device: String,
    /// What was measured: the reference of an image, or another target.
    pub image: String,
    /// Whether the run is a nightly one.
    pub nightly: bool,
}

/// A row. Rates are per second and device, times are in seconds.
// 20 fields: the columns of the dashboard's table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerfRow {
    pub date: String,
    pub device: String,
    /// The concurrency.
    pub conc: u64,
    pub image: String,
    pub model: String,
    /// Always `vllm`.
    pub framework: String,
    /// By the name of the model; `bf16` where it names none.
    pub precision: String,
    /// Always `false`, as perf-eval writes it for every server.
    pub spec_decoding: String,
    /// Always `false`.
    pub disagg: String,
    /// Tokens of a prompt.
    pub isl: u64,
    /// Tokens of an answer.
    pub osl: u64,
    /// Always `false`.
    pub is_multinode: String,
    /// Tensor times data parallel size: the devices that the rates are divided by.
    pub tp: u64,
    /// Always 1.
    pub ep: u64,
    /// Always `false`.
    pub dp_attention: String,
    pub tput_per_gpu: f64,
    pub output_tput_per_gpu: f64,
    pub input_tput_per_gpu: f64,
    /// Absent where it is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nightly: bool,
    /// Every time of the result without `_ms`, and for those of TPOT the interactivity (`intvty`), tokens per second.
    #[serde(flatten)]
    pub times: IndexMap<String, f64>,
}

impl PerfRow {
    /// The row of a case.
    ///
    /// # Errors
    /// The case has no row: why.
    pub fn of(files: &CaseFiles, facts: &RowFacts) -> Result<Self> {
        ensure!(files.kind == Kind::Serving, "only serving cases have rows");
        if let Outcome::Failed(reason) = &files.outcome {
            anyhow::bail!("{reason}");
        }
        let text = files.text.as_deref().context("the benchmark wrote no result file")?;
        // Any key of any version of vLLM may be a time.
        let result: Map<String, Value> = serde_json::from_str(&plain(text)).context("the result cannot be read")?;
        let client = flags(files.commands.client_command.as_deref().context("its command is not known")?);
        let count = |flag: &str| client.get(flag).and_then(|value| value.parse::<u64>().ok());
        let rate = |key: &str| {
            let value = result.get(key).and_then(Value::as_f64).filter(|value| value.is_finite() && *value > 0.0);
            value.with_context(|| format!("`{key}` has no value"))
        };
        let (total, output) = (rate("total_token_throughput")?, rate("output_throughput")?);
        let model = result.get("model_id").and_then(Value::as_str).map(str::to_owned);
        let model =
            model.or_else(|| files.commands.model()).context("neither the result nor its command names the model")?;
        let sizes = parallel_sizes(files.commands.server_command.as_deref().unwrap_or_default());
        let devices = sizes.tensor_or_default().saturating_mul(sizes.data.unwrap_or(1));
        let per_device = |rate: f64| rate / devices as f64;
        let never = || "false".to_owned();
        let concurrency = result.get("max_concurrency").and_then(Value::as_u64).or_else(|| count("--max-concurrency"));
        let row = Self {
            date: facts.date.clone(),
            device: facts.device.clone(),
            conc: concurrency.context("it has no limit of concurrency")?,
            image: facts.image.clone(),
            precision: precision(&model).to_owned(),
            model,
            framework: "vllm".to_owned(),
            spec_decoding: never(),
            disagg: never(),
            isl: count("--random-input-len").context("its command has no `--random-input-len`")?,
            osl: count("--random-output-len").context("its command has no `--random-output-len`")?,
            is_multinode: never(),
            tp: devices,
            ep: 1,
            dp_attention: never(),
            tput_per_gpu: per_device(total),
            output_tput_per_gpu: per_device(output),
            input_tput_per_gpu: per_device(total - output),
            nightly: facts.nightly,
            times: times(&result),
        };
        row.check()?;
        Ok(row)
    }

    /// Checks a row of a folder.
    ///
    /// # Errors
    /// A number that cannot be measured.
    pub fn check(&self) -> Result<()> {
        let rates = [self.tput_per_gpu, self.output_tput_per_gpu, self.input_tput_per_gpu];
        let numbers = rates.into_iter().chain(self.times.values().copied());
        ensure!(
            numbers.into_iter().all(|number| number.is_finite() && number >= 0.0),
            "a number is negative or missing"
        );
        ensure!(self.tp > 0 && self.conc > 0, "it has no devices or no concurrency");
        Ok(())
    }
}

fn precision(model: &str) -> &'static str {
    let name = model.to_lowercase();
    PRECISIONS.into_iter().find(|word| name.contains(word)).unwrap_or("bf16")
}

fn times(result: &Map<String, Value>) -> IndexMap<String, f64> {
    let mut times = IndexMap::new();
    for (key, value) in result {
        let Some(name) = key.strip_suffix("_ms") else { continue };
        let Some(milliseconds) = value.as_f64().filter(|value| value.is_finite()) else { continue };
        times.insert(name.to_owned(), milliseconds / 1000.0);
        if name.contains("tpot") {
            let rate = if milliseconds > 0.0 { 1000.0 / milliseconds } else { 0.0 };
            times.insert(name.replace("tpot", "intvty"), rate);
        }
    }
    times
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::result::{Commands, parse};

    pub(crate) fn facts() -> RowFacts {
        RowFacts {
            date: "2026-11-27 03:00:00".into(),
            device: "h200".into(),
            image: "vllm/vllm-openai:nightly".into(),
            nightly: true,
        }
    }

    fn files(text: &str, server: &str, client: &str) -> CaseFiles {
        let commands = Commands {
            server_command: Some(server.to_owned()),
            client_command: Some(client.to_owned()),
            ..Commands::default()
        };
        let outcome = parse(Kind::Serving, text).unwrap();
        CaseFiles { kind: Kind::Serving, text: Some(text.to_owned()), commands, outcome }
    }

    const RESULT: &str = r#"{"model_id": "org/Tiny-FP8", "num_prompts": 4, "max_concurrency": 64, "completed": 4, "failed": 0,
        "duration": 2.0, "total_input_tokens": 32, "total_output_tokens": 16, "request_throughput": 2.0,
        "output_throughput": 800.0, "total_token_throughput": 2400.0, "mean_ttft_ms": 50.0, "median_ttft_ms": 40.0,
        "p99_ttft_ms": 90.0, "mean_tpot_ms": 8.0, "median_tpot_ms": 0.0, "p99_tpot_ms": 12.5, "median_itl_ms": NaN,
        "p99_e2el_ms": 120.0, "note_ms": "none"}"#;
    const CLIENT: &str = "vllm bench serve --random-input-len 1024 --random-output-len 512 --max-concurrency 64";

    #[test]
    fn a_row_has_the_columns_of_perf_eval_a_device_and_in_seconds() {
        let row = PerfRow::of(&files(RESULT, "vllm serve org/Tiny-FP8 -tp 2 -dp 4 -pp 3", CLIENT), &facts()).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&row).unwrap(), @r#"
        {
          "date": "2026-11-27 03:00:00",
          "device": "h200",
          "conc": 64,
          "image": "vllm/vllm-openai:nightly",
          "model": "org/Tiny-FP8",
          "framework": "vllm",
          "precision": "fp8",
          "spec_decoding": "false",
          "disagg": "false",
          "isl": 1024,
          "osl": 512,
          "is_multinode": "false",
          "tp": 8,
          "ep": 1,
          "dp_attention": "false",
          "tput_per_gpu": 300.0,
          "output_tput_per_gpu": 100.0,
          "input_tput_per_gpu": 200.0,
          "nightly": true,
          "mean_ttft": 0.05,
          "median_ttft": 0.04,
          "p99_ttft": 0.09,
          "mean_tpot": 0.008,
          "mean_intvty": 125.0,
          "median_tpot": 0.0,
          "median_intvty": 0.0,
          "p99_tpot": 0.0125,
          "p99_intvty": 80.0,
          "p99_e2el": 0.12
        }
        "#);
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<PerfRow>(&text).unwrap(), row);
        let other =
            PerfRow::of(&files(RESULT, "vllm serve m", CLIENT), &RowFacts { nightly: false, ..facts() }).unwrap();
        assert!(!serde_json::to_string(&other).unwrap().contains("nightly\":"));
        assert_eq!(other.tp, 1);
    }

    #[test]
    fn the_precision_is_the_word_in_the_name_of_the_model() {
        let of = ["nvidia/X-NVFP4", "a/b-FP8-dynamic", "a/b-int4", "a/b", "a/B-FP16"].map(precision);
        assert_eq!(of, ["fp4", "fp8", "int4", "bf16", "fp16"]);
    }

    #[test]
    fn a_case_without_a_row_says_why() {
        let reason = |text: &str, client: &str| {
            let error = PerfRow::of(&files(text, "vllm serve m", client), &facts()).unwrap_err();
            format!("{error:#}")
        };
        assert!(reason(&RESULT.replace("\"failed\": 0", "\"failed\": 1"), CLIENT).contains("failed"));
        assert_eq!(reason(RESULT, "vllm bench serve"), "its command has no `--random-input-len`");
        let missing = RESULT.replace("\"total_token_throughput\": 2400.0", "\"total_token_throughput\": null");
        assert_eq!(reason(&missing, CLIENT), "`total_token_throughput` has no value");
    }
}
