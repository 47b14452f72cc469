//! The published parameters of a case: those of its command that the dashboard reads, and a few more for context.

use serde::{Deserialize, Serialize};
use vllm_verdict::case::{Kind, MeasuredBy};

use super::compilation::{self, Compilation};
use crate::result::case_files::CaseFiles;
use crate::result::{Commands, Document, flags, parallel_sizes};

/// How a benchmark was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkInfo {
    pub args: Parameters,
    /// Compilation mode; empty if no command sets it.
    #[serde(rename = "compilation_config.mode")]
    pub compilation_mode: String,
    /// Optimization level; empty if no command sets it.
    pub optimization_level: String,
    /// Whether the model was compiled: the dashboard keys by it.
    pub use_compile: bool,
    /// The client of a serving case: two clients are two series. Absent in records of other programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_by: Option<MeasuredBy>,
}

/// Parameters of a case. Parameters that its kind of benchmark does not have are absent; defaults are upstream's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor_parallel_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_input_len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_output_len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_len: Option<u64>,
    /// Not part of the dashboard's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u64>,
    /// Not part of the dashboard's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_prompts: Option<u64>,
    /// Not part of the dashboard's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<u64>,
    /// Not part of the dashboard's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset_name: Option<String>,
    /// Not part of the dashboard's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
}

/// Requests per second. JSON has no infinity, so `inf` is a string.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rate {
    PerSecond(f64),
    /// Always `inf`.
    Unlimited(String),
}

impl BenchmarkInfo {
    /// The key by which records of a model are distinct points: what the dashboard keys by, and the optimization level, which
    /// its table shows.
    pub fn key(&self) -> impl PartialEq + use<'_> {
        let args = &self.args;
        (
            &args.request_rate,
            args.tensor_parallel_size,
            (args.random_input_len, args.random_output_len),
            (args.input_len, args.output_len),
            (self.use_compile, &self.optimization_level),
        )
    }
}

/// How a case was run, from its commands.
pub(super) fn info(case: &str, files: &CaseFiles) -> BenchmarkInfo {
    let commands = &files.commands;
    let command = match files.kind {
        Kind::Serving => &commands.client_command,
        Kind::Latency => &commands.latency_command,
        Kind::Startup => &commands.startup_command,
        Kind::Throughput => &commands.throughput_command,
    };
    let command = command.as_deref().unwrap_or_default();
    let Compilation { mode, optimization_level, use_compile } = compilation::compilation(case, files);
    BenchmarkInfo {
        use_compile,
        optimization_level,
        compilation_mode: mode,
        args: parameters(files.kind, command, commands),
        measured_by: measured_by(files),
    }
}

/// The client of a serving case.
fn measured_by(files: &CaseFiles) -> Option<MeasuredBy> {
    let Document::Serving(result) = Document::read(files.kind, files.text.as_deref()?).ok()? else { return None };
    Some(result.measured_by())
}

/// A value of `--metadata key=value ...`. [`flags`] keeps only the first value, so the words are read again.
fn metadata(command: &str, key: &str) -> Option<String> {
    command.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned)
}

fn parameters(kind: Kind, command: &str, commands: &Commands) -> Parameters {
    let flags = flags(command);
    let text = |flag: &str| flags.get(flag).filter(|value| !value.is_empty()).cloned();
    let count = |flag: &str| text(flag).and_then(|value| value.parse::<u64>().ok());
    let tensor = |command: &str| u32::try_from(parallel_sizes(command).tensor_or_default()).ok();
    match kind {
        Kind::Serving => Parameters {
            request_rate: Some(rate(text("--request-rate").as_deref())),
            // Upstream's script writes `null` for a spelling that it does not know.
            tensor_parallel_size: metadata(command, "tensor_parallel_size")
                .and_then(|value| value.parse().ok())
                .or_else(|| tensor(commands.server_command.as_deref()?)),
            random_input_len: Some(count("--random-input-len").unwrap_or(1024)),
            random_output_len: Some(count("--random-output-len").unwrap_or(128)),
            max_concurrency: count("--max-concurrency"),
            num_prompts: Some(count("--num-prompts").unwrap_or(1000)),
            dataset_name: Some(text("--dataset-name").unwrap_or_else(|| "random".to_owned())),
            ..Parameters::default()
        },
        Kind::Latency => Parameters {
            tensor_parallel_size: tensor(command),
            input_len: Some(count("--input-len").unwrap_or(32)),
            output_len: Some(count("--output-len").unwrap_or(128)),
            batch_size: Some(count("--batch-size").unwrap_or(8)),
            dtype: text("--dtype"),
            ..Parameters::default()
        },
        Kind::Throughput => Parameters {
            tensor_parallel_size: tensor(command),
            random_input_len: Some(count("--random-input-len").unwrap_or(1024)),
            random_output_len: Some(count("--random-output-len").unwrap_or(128)),
            input_len: count("--input-len"),
            output_len: count("--output-len"),
            num_prompts: Some(count("--num-prompts").unwrap_or(1000)),
            dataset_name: text("--dataset-name"),
            dtype: text("--dtype"),
            ..Parameters::default()
        },
        Kind::Startup => {
            Parameters { tensor_parallel_size: tensor(command), dtype: text("--dtype"), ..Parameters::default() }
        }
    }
}

pub(super) fn rate(text: Option<&str>) -> Rate {
    match text.and_then(|text| text.parse::<f64>().ok()).filter(|rate| rate.is_finite()) {
        Some(rate) => Rate::PerSecond(rate),
        None => Rate::Unlimited("inf".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use vllm_verdict::repetition::Outcome;

    use super::*;
    use crate::result::Commands;

    fn serving(client: &str) -> BenchmarkInfo {
        let commands = Commands { client_command: Some(client.to_owned()), ..Commands::default() };
        let files = CaseFiles { kind: Kind::Serving, text: None, commands, outcome: Outcome::Failed(String::new()) };
        info("serving_a_qps_1_concurrency_2", &files)
    }

    #[test]
    fn parameters_have_upstreams_defaults_and_a_rate_is_a_number_or_inf() {
        let info = serving(
            "vllm bench serve --model m --request-rate 4 --metadata tensor_parallel_size=2 compilation_config.mode=0",
        );
        assert_eq!(
            serde_json::to_string(&info.args).unwrap(),
            r#"{"request_rate":4.0,"tensor_parallel_size":2,"random_input_len":1024,"random_output_len":128,"num_prompts":1000,"dataset_name":"random"}"#
        );
        assert!(!info.use_compile);
        assert_eq!(serving("vllm bench serve").args.request_rate, Some(Rate::Unlimited("inf".into())));
    }

    #[test]
    fn a_serving_case_has_its_client() {
        let of = |text: &str| {
            let text = Some(text.to_owned());
            let outcome = Outcome::Failed(String::new());
            info("serving_a", &CaseFiles { kind: Kind::Serving, text, commands: Commands::default(), outcome })
                .measured_by
        };
        assert_eq!(of(r#"{"completed": 1, "client_cpu_share": 0.1}"#), Some(MeasuredBy::Native));
        assert_eq!(of(r#"{"completed": 1}"#), Some(MeasuredBy::Vllm));
        assert_eq!(of(r#"{"completed": 1, "steady_state": null}"#), Some(MeasuredBy::VllmRs));
        assert_eq!(of("no result"), None);
    }

    #[test]
    fn parameters_never_contain_a_secret_of_the_command() {
        let info = serving("vllm bench serve --header 'Authorization=Bearer hf_secret' --model m");
        assert!(!serde_json::to_string(&info).unwrap().contains("secret"));
    }
}
