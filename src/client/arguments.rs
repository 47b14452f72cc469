//! The command line of `vllm bench serve`, as far as the native client can run it. What it cannot run is refused by name
//! and never ignored.

use std::fmt;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use serde_json::{Map, Value};
use url::Url;

use super::dataset::Shape;
use super::request::{Api, Sampling};
use super::schedule::LOWEST_RATE;

/// The flags of `vllm bench serve` that are supported, with its defaults.
#[derive(Debug, Clone, PartialEq, Parser)]
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
    pub base_url: Option<Url>,
    /// Host of the server.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the server.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Header sent with every request, KEY=VALUE.
    #[arg(long, num_args = 0.., value_name = "KEY=VALUE", value_parser = pair)]
    pub header: Vec<(String, String)>,
    /// Model, as results name it; also where the tokenizer is looked for.
    #[arg(long)]
    pub model: String,
    /// Model, as the server names it.
    #[arg(long)]
    pub served_model_name: Option<String>,
    /// Folder or name of the tokenizer, where it is not the model's.
    #[arg(long)]
    pub tokenizer: Option<String>,
    /// No effect here: a tokenizer is a file that is read, never code that is run.
    #[arg(long)]
    pub trust_remote_code: bool,
    /// Data set.
    #[arg(long, default_value = "random", value_parser = PossibleValuesParser::new(["random"]))]
    pub dataset_name: String,
    /// Tokens of every prompt.
    #[arg(long, default_value_t = 1024, value_name = "TOKENS")]
    pub random_input_len: usize,
    /// Tokens of every answer.
    #[arg(long, default_value_t = 128, value_name = "TOKENS")]
    pub random_output_len: usize,
    /// Relative range of both lengths; only 0 is supported.
    #[arg(long, default_value_t = 0.0)]
    pub random_range_ratio: f64,
    /// Tokens that all prompts begin with; only 0 is supported.
    #[arg(long, default_value_t = 0, value_name = "TOKENS")]
    pub random_prefix_len: usize,
    /// Number of requests.
    #[arg(long, default_value_t = 1000)]
    pub num_prompts: usize,
    /// Requests a second, or inf for all at once.
    #[arg(long, default_value_t = f64::INFINITY, value_name = "PER_SECOND")]
    pub request_rate: f64,
    /// Shape of the gaps between requests: 1 is a Poisson process, less is burstier.
    #[arg(long, default_value_t = 1.0)]
    pub burstiness: f64,
    /// Most requests under way at once.
    #[arg(long)]
    pub max_concurrency: Option<usize>,
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
    /// JSON object whose fields every request carries.
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub extra_body: Option<Map<String, Value>>,
    /// Seed of prompts and arrivals.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Requests before the measurement.
    #[arg(long, default_value_t = 0)]
    pub num_warmups: usize,
    /// How long the first request may be tried again until the server answers, in seconds.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub ready_check_timeout_sec: u64,
    /// How long an answer may be silent before its request has failed, in seconds; vLLM's own client has no such flag.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub stall_timeout_sec: u64,
    /// Metrics that get statistics.
    #[arg(long, value_delimiter = ',', default_value = "ttft,tpot,itl")]
    pub percentile_metrics: Vec<Timing>,
    /// Percentiles of those metrics.
    #[arg(long, value_delimiter = ',', default_value = "99")]
    pub metric_percentiles: Vec<f64>,
    /// Entry of the result, KEY=VALUE.
    #[arg(long, num_args = 0.., value_name = "KEY=VALUE", value_parser = pair)]
    pub metadata: Vec<(String, String)>,
    /// Label of the result.
    #[arg(long)]
    pub label: Option<String>,
    /// Write the result to a file.
    #[arg(long)]
    pub save_result: bool,
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

/// Interfaces, as upstream names its backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// Completions.
    Vllm,
    /// Completions.
    Openai,
    /// Chat completions.
    OpenaiChat,
}

impl Backend {
    /// Upstream's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Openai => "openai",
            Self::OpenaiChat => "openai-chat",
        }
    }

    /// The interface that it stands for.
    pub fn api(self) -> Api {
        match self {
            Self::Vllm | Self::Openai => Api::Completions,
            Self::OpenaiChat => Api::Chat,
        }
    }
}

/// Times of a request that get statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Timing {
    /// Time to first token.
    Ttft,
    /// Time per output token after the first.
    Tpot,
    /// Inter-token latency.
    Itl,
    /// End-to-end latency.
    E2el,
}

/// Why the native client does not run a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsupported {
    /// A flag that only `vllm bench serve` has.
    Flag(String),
    /// A value (backend, data set, metric, ...) that only `vllm bench serve` has.
    Value {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
        /// What is supported.
        supported: String,
    },
    /// A command that `vllm bench serve` would refuse too, and why.
    Invalid(String),
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "`{flag}` is a flag of `vllm bench serve` that the native client lacks"),
            Self::Value { flag, value, supported } => {
                write!(f, "`{flag} {value}` is not supported by the native client: it has {supported}")
            }
            Self::Invalid(why) => write!(f, "not a command of bench serve: {why}"),
        }
    }
}

impl std::error::Error for Unsupported {}

/// Reads what follows `bench serve`. Flags may be spelled with `-` or `_`.
///
/// # Errors
/// The first thing that the native client cannot do.
pub fn parse(argv: &[String]) -> Result<Arguments, Unsupported> {
    let matches = Arguments::command()
        .disable_help_flag(true)
        .try_get_matches_from(argv.iter().map(|word| dashed(word)))
        .map_err(|error| refusal(&error))?;
    let arguments = Arguments::from_arg_matches(&matches).map_err(|error| refusal(&error))?;
    check(&arguments)?;
    Ok(arguments)
}

fn dashed(word: &str) -> String {
    match word.split_once('=') {
        _ if !word.starts_with("--") => word.to_owned(),
        None => word.replace('_', "-"),
        Some((name, value)) => format!("{}={value}", name.replace('_', "-")),
    }
}

fn refusal(error: &clap::Error) -> Unsupported {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    let flag = context(ContextKind::InvalidArg);
    let name = flag.split_whitespace().next().unwrap_or_default().to_owned();
    match error.kind() {
        ErrorKind::UnknownArgument => Unsupported::Flag(name),
        ErrorKind::InvalidValue if !context(ContextKind::InvalidValue).is_empty() => Unsupported::Value {
            flag: name,
            value: context(ContextKind::InvalidValue),
            supported: context(ContextKind::ValidValue),
        },
        _ => {
            let text = error.to_string();
            let first = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
            Unsupported::Invalid(first.trim_start_matches("error: ").to_owned())
        }
    }
}

fn check(arguments: &Arguments) -> Result<(), Unsupported> {
    let only_zero =
        |flag: &str, value: String| Err(Unsupported::Value { flag: flag.to_owned(), value, supported: "0".to_owned() });
    let invalid = |why: String| Err(Unsupported::Invalid(why));
    if arguments.random_range_ratio != 0.0 {
        return only_zero("--random-range-ratio", arguments.random_range_ratio.to_string());
    }
    if arguments.random_prefix_len != 0 {
        return only_zero("--random-prefix-len", arguments.random_prefix_len.to_string());
    }
    if arguments.request_rate.is_nan() || arguments.request_rate < LOWEST_RATE {
        return invalid(format!("`--request-rate {}` is less than {LOWEST_RATE} a second", arguments.request_rate));
    }
    if arguments.burstiness.is_nan() || arguments.burstiness <= 0.0 {
        return invalid(format!("`--burstiness {}` is not greater than 0", arguments.burstiness));
    }
    if let Some(percentile) = arguments.metric_percentiles.iter().find(|p| !(0.0..=100.0).contains(*p)) {
        return invalid(format!("`--metric-percentiles {percentile}` is not between 0 and 100"));
    }
    let counts = [
        ("--num-prompts", arguments.num_prompts),
        ("--random-input-len", arguments.random_input_len),
        ("--random-output-len", arguments.random_output_len),
        ("--max-concurrency", arguments.max_concurrency.unwrap_or(1)),
    ];
    if let Some((flag, _)) = counts.iter().find(|(_, count)| *count == 0) {
        return invalid(format!("`{flag} 0` measures nothing: expected at least 1"));
    }
    let suffix = match arguments.backend.api() {
        Api::Completions => "completions",
        Api::Chat => "chat/completions",
    };
    if !arguments.endpoint.ends_with(suffix) {
        let backend = arguments.backend.as_str();
        return invalid(format!("`--endpoint {}` must end in `{suffix}` for backend {backend}", arguments.endpoint));
    }
    Ok(())
}

impl Arguments {
    /// Where requests go.
    ///
    /// # Errors
    /// Host or endpoint do not make a URL.
    pub fn url(&self) -> Result<Url, url::ParseError> {
        let base = match &self.base_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None if self.host.contains(':') && !self.host.starts_with('[') => {
                format!("http://[{}]:{}", self.host, self.port)
            }
            None => format!("http://{}:{}", self.host, self.port),
        };
        Url::parse(&format!("{base}{}", self.endpoint))
    }

    /// Where the tokenizer is looked for.
    pub fn tokenizer_id(&self) -> &str {
        self.tokenizer.as_deref().unwrap_or(&self.model)
    }

    /// The model, as the server names it.
    pub fn model_name(&self) -> &str {
        self.served_model_name.as_deref().unwrap_or(&self.model)
    }

    /// The prompts that are asked for.
    pub fn shape(&self) -> Shape {
        Shape {
            prompts: self.num_prompts,
            input_len: self.random_input_len,
            output_len: self.random_output_len,
            seed: self.seed,
        }
    }

    /// Sampling parameters, then the extra fields, which win.
    pub fn sampling(&self) -> Sampling {
        let set = [
            ("top_p", self.top_p.map(Value::from)),
            ("top_k", self.top_k.map(Value::from)),
            ("temperature", self.temperature.map(Value::from)),
        ];
        let set = set.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)));
        set.chain(self.extra_body.clone().unwrap_or_default()).collect()
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        shell_words::split(text).unwrap()
    }

    fn refused(text: &str) -> String {
        parse(&words(&format!("--model m {text}"))).unwrap_err().to_string()
    }

    /// The client command of a real run of upstream's suite.
    const UPSTREAM: &str = "--save-result --result-dir results/ --result-filename case.json --request-rate inf \
        --max-concurrency 8 --metadata tensor_parallel_size=1 compilation_config.mode= optimization_level= \
        --model models/tiny-llama --backend vllm --ignore-eos --temperature 0 --num-prompts 60 \
        --dataset-name random --random-input-len 256 --random-output-len 16";

    #[test]
    fn the_command_of_upstreams_suite_is_understood() {
        let arguments = parse(&words(UPSTREAM)).unwrap();
        assert_eq!(arguments.backend, Backend::Vllm);
        assert_eq!(arguments.request_rate, f64::INFINITY);
        assert_eq!(arguments.max_concurrency, Some(8));
        assert_eq!(arguments.shape(), Shape { prompts: 60, input_len: 256, output_len: 16, seed: 0 });
        assert_eq!(arguments.metadata[1], ("compilation_config.mode".to_owned(), String::new()));
        assert_eq!(arguments.percentile_metrics, [Timing::Ttft, Timing::Tpot, Timing::Itl]);
        assert_eq!(arguments.url().unwrap().as_str(), "http://127.0.0.1:8000/v1/completions");
        assert_eq!(Value::from(arguments.sampling()).to_string(), r#"{"temperature":0.0}"#);
    }

    #[test]
    fn both_spellings_are_one_flag_and_values_are_left_alone() {
        let arguments = parse(&words("--model a_b --num_prompts=7 --served_model_name=c_d --top-k -1")).unwrap();
        assert_eq!((arguments.num_prompts, arguments.model.as_str(), arguments.model_name()), (7, "a_b", "c_d"));
        assert_eq!(arguments.top_k, Some(-1));
    }

    #[test]
    fn what_only_vllm_can_do_is_refused_by_name() {
        insta::assert_snapshot!(refused("--goodput ttft:100"), @"`--goodput` is a flag of `vllm bench serve` that the native client lacks");
        insta::assert_snapshot!(refused("--dataset_path=x.json"), @"`--dataset-path` is a flag of `vllm bench serve` that the native client lacks");
        insta::assert_snapshot!(refused("--dataset-name sharegpt"), @"`--dataset-name sharegpt` is not supported by the native client: it has random");
        insta::assert_snapshot!(refused("--backend tgi"), @"`--backend tgi` is not supported by the native client: it has vllm, openai, openai-chat");
        insta::assert_snapshot!(refused("--percentile-metrics client_queue_time"), @"`--percentile-metrics client_queue_time` is not supported by the native client: it has ttft, tpot, itl, e2el");
        insta::assert_snapshot!(refused("--random-range-ratio 0.5"), @"`--random-range-ratio 0.5` is not supported by the native client: it has 0");
    }

    #[test]
    fn a_wrong_value_says_which() {
        insta::assert_snapshot!(refused("--num-prompts many"), @"not a command of bench serve: invalid value 'many' for '--num-prompts <NUM_PROMPTS>': invalid digit found in string");
        insta::assert_snapshot!(refused("--request-rate 0"), @"not a command of bench serve: `--request-rate 0` is less than 0.000001 a second");
        insta::assert_snapshot!(refused("--max-concurrency 0"), @"not a command of bench serve: `--max-concurrency 0` measures nothing: expected at least 1");
        insta::assert_snapshot!(refused("--backend openai-chat"), @"not a command of bench serve: `--endpoint /v1/completions` must end in `chat/completions` for backend openai-chat");
        insta::assert_snapshot!(parse(&[]).unwrap_err(), @"not a command of bench serve: the following required arguments were not provided: --model <MODEL>");
    }
}
