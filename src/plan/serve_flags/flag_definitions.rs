//! The flags of `vllm bench serve` that the native client has, with vLLM 0.32's names and defaults.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Parser};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use url::Url;
use vllm_load::prompts::RangeRatio;
use vllm_load::ramp::RampUpStrategy;

use super::flag_values::{Backend, DatasetName, Objective, Timing};

/// The command. It serialises as upstream's own list of arguments in `.pytorch.json`: headers are hidden, infinity is
/// `inf`.
#[derive(Debug, Clone, PartialEq, Parser, Serialize)]
#[command(name = "bench serve", no_binary_name = true, args_override_self = true)]
pub struct Arguments {
    /// Interface: vllm and openai are completions, openai-chat is chat completions.
    #[arg(long, default_value = "openai")]
    pub backend: Backend,
    /// Path of the interface on the server.
    #[arg(long, default_value = "/v1/completions")]
    pub endpoint: String,
    /// URL of the server, instead of --host and --port.
    #[arg(long, value_name = "URL")]
    #[serde(serialize_with = "url")]
    pub base_url: Option<Url>,
    /// Host of the server.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the server.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Header sent with every request, KEY=VALUE.
    #[arg(long, action = ArgAction::Set, num_args = 0.., value_name = "KEY=VALUE", value_parser = pair)]
    #[serde(serialize_with = "hidden")]
    pub header: Vec<(String, String)>,
    /// Beginning of the `x-request-id` of every request; its number follows. Without it requests have none.
    #[arg(long, value_name = "TEXT")]
    #[serde(serialize_with = "text_or_empty")]
    pub request_id_prefix: Option<String>,
    /// Model, as results name it; also where the tokenizer is looked for.
    #[arg(long)]
    pub model: String,
    /// Model, as the server names it.
    #[arg(long)]
    pub served_model_name: Option<String>,
    /// Folder or name of the tokenizer, where it is not the model's.
    #[arg(long)]
    pub tokenizer: Option<String>,
    /// Kind of the tokenizer.
    #[arg(long, default_value = "auto", value_parser = PossibleValuesParser::new(["auto", "hf"]))]
    pub tokenizer_mode: String,
    /// No effect here: a tokenizer is a file that is read, never code that is run.
    #[arg(long)]
    pub trust_remote_code: bool,

    /// Data set.
    #[arg(long, default_value = "random")]
    pub dataset_name: DatasetName,
    /// File of the data set.
    #[arg(long, value_name = "FILE")]
    pub dataset_path: Option<PathBuf>,
    /// Number of requests; 0 is every line of a custom data set.
    #[arg(long, default_value_t = 1000)]
    pub num_prompts: usize,
    /// Seed of prompts and arrivals.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Fewer requests where the file has fewer prompts, instead of some twice.
    #[arg(long)]
    pub no_oversample: bool,
    /// Prompts in the order of the file.
    #[arg(long)]
    pub disable_shuffle: bool,
    /// No effect here: files are read whole.
    #[arg(long)]
    pub no_stream: bool,
    /// Prompts of a custom data set as they stand in the file.
    #[arg(long)]
    pub skip_chat_template: bool,
    /// JSON object of variables for the chat template of a custom data set.
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// Tokens of every prompt, whatever the data set calls it.
    #[arg(long, value_name = "TOKENS")]
    pub input_len: Option<usize>,
    /// Tokens of every answer, whatever the data set calls it.
    #[arg(long, value_name = "TOKENS")]
    pub output_len: Option<usize>,
    /// Tokens of a random prompt after its prefix.
    #[arg(long, default_value_t = 1024, value_name = "TOKENS")]
    pub random_input_len: usize,
    /// Tokens of the answer to a random prompt.
    #[arg(long, default_value_t = 128, value_name = "TOKENS")]
    pub random_output_len: usize,
    /// How far both stray, a number or JSON: 0.1 is from 90 % to 110 %.
    #[arg(long, default_value = "0.0", value_name = "RATIO")]
    pub random_range_ratio: RangeRatio,
    /// Tokens that all random prompts begin with.
    #[arg(long, default_value_t = 0, value_name = "TOKENS")]
    pub random_prefix_len: usize,
    /// Tokens of every answer, instead of those in the file.
    #[arg(long, value_name = "TOKENS")]
    pub sharegpt_output_len: Option<usize>,
    /// Tokens of every answer; -1 is the `output_tokens` of each line.
    #[arg(long, default_value_t = 256, allow_negative_numbers = true, value_name = "TOKENS")]
    pub custom_output_len: i64,
    /// Most tokens of a prompt of lines.
    #[arg(long, default_value_t = 550, value_name = "TOKENS")]
    #[serde(skip)]
    pub sonnet_input_len: usize,
    /// Tokens of every answer.
    #[arg(long, default_value_t = 150, value_name = "TOKENS")]
    #[serde(skip)]
    pub sonnet_output_len: usize,
    /// Tokens of the lines that all prompts begin with.
    #[arg(long, default_value_t = 200, value_name = "TOKENS")]
    #[serde(skip)]
    pub sonnet_prefix_len: usize,

    /// Requests a second, or inf for all at once.
    #[arg(long, default_value_t = f64::INFINITY, value_name = "PER_SECOND")]
    #[serde(serialize_with = "number")]
    pub request_rate: f64,
    /// Shape of the gaps between requests: 1 is a Poisson process, less is burstier.
    #[arg(long, default_value_t = 1.0)]
    #[serde(serialize_with = "number")]
    pub burstiness: f64,
    /// The request rate grows from a first to a last one, instead of --request-rate.
    #[arg(long, value_parser = ramp_up_strategies())]
    pub ramp_up_strategy: Option<RampUpStrategy>,
    /// Requests a second at the beginning.
    #[arg(long, value_name = "PER_SECOND")]
    pub ramp_up_start_rps: Option<u32>,
    /// Requests a second at the end.
    #[arg(long, value_name = "PER_SECOND")]
    pub ramp_up_end_rps: Option<u32>,
    /// Most requests under way at once.
    #[arg(long)]
    pub max_concurrency: Option<usize>,
    /// Requests before the measurement.
    #[arg(long, default_value_t = 0)]
    pub num_warmups: usize,
    /// How long the first request may be tried again until the server answers, in seconds.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub ready_check_timeout_sec: u64,
    /// How long an answer may be silent before its request has failed, in seconds; vLLM's own client has no such flag.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    #[serde(skip)]
    pub stall_timeout_sec: u64,

    /// Answers run to their full length; always so with random prompts.
    #[arg(long)]
    pub ignore_eos: bool,
    /// Sampling temperature.
    #[arg(long)]
    pub temperature: Option<f64>,
    /// Top-p sampling.
    #[arg(long)]
    pub top_p: Option<f64>,
    /// Top-k sampling.
    #[arg(long, allow_negative_numbers = true)]
    pub top_k: Option<i64>,
    /// Min-p sampling.
    #[arg(long)]
    pub min_p: Option<f64>,
    /// Penalty of tokens by how often they came.
    #[arg(long, allow_negative_numbers = true)]
    pub frequency_penalty: Option<f64>,
    /// Penalty of tokens that came.
    #[arg(long, allow_negative_numbers = true)]
    pub presence_penalty: Option<f64>,
    /// Factor against repetition.
    #[arg(long)]
    pub repetition_penalty: Option<f64>,
    /// Log-probabilities a token; completions only.
    #[arg(long)]
    pub logprobs: Option<u32>,
    /// JSON object whose fields every request carries.
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub extra_body: Option<Map<String, Value>>,

    /// Metrics that get statistics, without it ttft, tpot and itl.
    #[arg(long, value_delimiter = ',')]
    #[serde(serialize_with = "timings")]
    pub percentile_metrics: Option<Vec<Timing>>,
    /// Percentiles of those metrics.
    #[arg(long, value_delimiter = ',', default_value = "99")]
    #[serde(serialize_with = "joined")]
    pub metric_percentiles: Vec<f64>,
    /// Times that a good request keeps, in milliseconds, such as ttft:200 tpot:50 e2el:2000.
    #[arg(long, action = ArgAction::Set, num_args = 1.., value_name = "METRIC:MS")]
    #[serde(serialize_with = "objectives")]
    pub goodput: Vec<Objective>,
    /// Entry of the result, KEY=VALUE.
    #[arg(long, action = ArgAction::Set, num_args = 0.., value_name = "KEY=VALUE", value_parser = pair)]
    #[serde(serialize_with = "pairs")]
    pub metadata: Vec<(String, String)>,
    /// Label of the result.
    #[arg(long)]
    pub label: Option<String>,
    /// Write the result to a file.
    #[arg(long)]
    pub save_result: bool,
    /// Add the result to the file, on a line of its own.
    #[arg(long)]
    pub append_result: bool,
    /// Write every request's own numbers too.
    #[arg(long)]
    pub save_detailed: bool,
    /// Folder of the result file.
    #[arg(long, value_name = "DIR")]
    pub result_dir: Option<PathBuf>,
    /// Name of the result file.
    #[arg(long, value_name = "FILE")]
    pub result_filename: Option<PathBuf>,
    /// No progress bar.
    #[arg(long)]
    pub disable_tqdm: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))
}

// What upstream's encoder makes of its values; nothing given is null.

fn number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.is_infinite() { serializer.serialize_str("inf") } else { serializer.serialize_f64(*number) }
}

fn url<S: Serializer>(url: &Option<Url>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_ref().map(|url| url.as_str().trim_end_matches('/')).serialize(serializer)
}

fn hidden<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    (!pairs.is_empty()).then_some("***").serialize(serializer)
}

fn text_or_empty<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text.as_deref().unwrap_or_default())
}

fn timings<S: Serializer>(timings: &Option<Vec<Timing>>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = |timings: &Vec<Timing>| timings.iter().map(|timing| timing.as_str()).collect::<Vec<_>>().join(",");
    timings.as_ref().map(text).serialize(serializer)
}

fn joined<S: Serializer>(numbers: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(",").serialize(serializer)
}

fn objectives<S: Serializer>(objectives: &[Objective], serializer: S) -> Result<S::Ok, S::Error> {
    let texts: Vec<String> = objectives.iter().map(Objective::to_string).collect();
    (!texts.is_empty()).then_some(texts).serialize(serializer)
}

fn pairs<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let texts: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (!texts.is_empty()).then_some(texts).serialize(serializer)
}

fn ramp_up_strategies() -> impl TypedValueParser<Value = RampUpStrategy> {
    let named = |text: String| RampUpStrategy::ALL.into_iter().find(|strategy| strategy.as_str() == text);
    PossibleValuesParser::new(RampUpStrategy::ALL.map(RampUpStrategy::as_str))
        .try_map(move |text| named(text).ok_or("not a strategy"))
}
