//! The command line of `vllm bench serve`, as far as the native client can run it. What it cannot run is refused by name
//! and never ignored.

mod flag_checks;
mod flag_definitions;
mod flag_values;

use std::cell::RefCell;
use std::fmt;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, FromArgMatches};
use serde_json::Value;
use url::Url;
use vllm_load::prompts::{Shape, SonnetLengths};
use vllm_load::ramp::RampUp;
use vllm_load::{Api, Sampling};

pub use flag_definitions::Arguments;
pub use flag_values::{Backend, DatasetName, Objective, Timing};
pub use vllm_load::prompts::RangeRatio;
pub use vllm_load::ramp::RampUpStrategy;

thread_local! {
    /// Building the definition costs as much as ten parses, and a plan parses each of its cases.
    static DEFINITION: RefCell<Command> = RefCell::new(Arguments::command().disable_help_flag(true));
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
    let words = argv.iter().map(|word| dashed(word));
    let matches = DEFINITION.with_borrow_mut(|definition| definition.try_get_matches_from_mut(words));
    let matches = matches.map_err(|error| refusal(&error))?;
    let mut arguments = Arguments::from_arg_matches(&matches).map_err(|error| refusal(&error))?;
    flag_checks::imply(&mut arguments);
    flag_checks::check(&arguments).map_err(Unsupported::Invalid)?;
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

    /// The random prompts that are asked for.
    pub fn shape(&self) -> Shape {
        Shape {
            prompts: self.num_prompts,
            input_len: self.random_input_len,
            output_len: self.random_output_len,
            prefix_len: self.random_prefix_len,
            range: self.random_range_ratio,
            seed: self.seed,
        }
    }

    /// Lengths of a sonnet data set.
    pub fn sonnet_lengths(&self) -> SonnetLengths {
        SonnetLengths { input: self.sonnet_input_len, output: self.sonnet_output_len, prefix: self.sonnet_prefix_len }
    }

    /// Tokens of every answer of a custom data set; `None`: those of the file.
    pub fn custom_output_len(&self) -> Option<usize> {
        usize::try_from(self.custom_output_len).ok()
    }

    /// How the request rate grows, if it does.
    pub fn ramp_up(&self) -> Option<RampUp> {
        let (strategy, start, end) = (self.ramp_up_strategy?, self.ramp_up_start_rps?, self.ramp_up_end_rps?);
        Some(RampUp { strategy, start, end })
    }

    /// Metrics that get statistics.
    pub fn timings(&self) -> &[Timing] {
        self.percentile_metrics.as_deref().unwrap_or(&[Timing::Ttft, Timing::Tpot, Timing::Itl])
    }

    /// What a body says beside the prompt: whether answers run to their full length, sampling parameters, then the extra
    /// fields, which win.
    pub fn sampling(&self) -> Sampling {
        let logprobs = self.logprobs.filter(|_| self.backend.api() == Api::Completions);
        let set = [
            ("logprobs", logprobs.map(Value::from)),
            ("ignore_eos", self.ignore_eos.then_some(Value::from(true))),
            ("top_p", self.top_p.map(Value::from)),
            ("top_k", self.top_k.map(Value::from)),
            ("min_p", self.min_p.map(Value::from)),
            ("temperature", self.temperature.map(Value::from)),
            ("frequency_penalty", self.frequency_penalty.map(Value::from)),
            ("presence_penalty", self.presence_penalty.map(Value::from)),
            ("repetition_penalty", self.repetition_penalty.map(Value::from)),
        ];
        let set = set.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)));
        set.chain(self.extra_body.clone().unwrap_or_default()).collect()
    }
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
        assert_eq!(arguments.shape(), Shape { prompts: 60, input_len: 256, output_len: 16, ..Shape::default() });
        assert_eq!(arguments.metadata[1], ("compilation_config.mode".to_owned(), String::new()));
        assert_eq!(arguments.timings(), [Timing::Ttft, Timing::Tpot, Timing::Itl]);
        assert_eq!(arguments.url().unwrap().as_str(), "http://127.0.0.1:8000/v1/completions");
        assert_eq!(Value::from(arguments.sampling()).to_string(), r#"{"ignore_eos":true,"temperature":0.0}"#);
    }

    #[test]
    fn both_spellings_are_one_flag_and_values_are_left_alone() {
        let arguments = parse(&words("--model a_b --num_prompts=7 --served_model_name=c_d --top-k -1")).unwrap();
        assert_eq!((arguments.num_prompts, arguments.model.as_str(), arguments.model_name()), (7, "a_b", "c_d"));
        assert_eq!(arguments.top_k, Some(-1));
    }

    #[test]
    fn every_flag_of_a_long_command_says_what_it_means() {
        let arguments = parse(&words(
            "--model m --num-prompts 4 --ramp-up-strategy exponential --ramp-up-start-rps 1 --ramp-up-end-rps 8 \
             --goodput ttft:200 e2el:1500.5 --min-p 0.1 --frequency-penalty -0.5 --presence-penalty 1 \
             --repetition-penalty 1.1 --logprobs 2 --top-p 0.9 --extra-body '{\"top_p\": 0.5, \"seed\": 7}' \
             --percentile-metrics e2el,client_queue_time --metric-percentiles 50,99.9 --random-prefix-len 8 \
             --random-range-ratio '{\"input\": 0.1, \"output\": 0.2}' --input-len 64 --output-len 9",
        ))
        .unwrap();
        let ramp = RampUp { strategy: RampUpStrategy::Exponential, start: 1, end: 8 };
        assert_eq!(arguments.ramp_up(), Some(ramp));
        assert_eq!(arguments.goodput.len(), 2);
        assert_eq!(arguments.goodput[1], Objective { timing: Timing::E2el, milliseconds: 1500.5 });
        assert_eq!(arguments.timings(), [Timing::E2el, Timing::ClientQueueTime]);
        assert_eq!(arguments.metric_percentiles, [50.0, 99.9]);
        let range = RangeRatio::Each { input: 0.1, output: 0.2 };
        let shape = Shape { prompts: 4, input_len: 64, output_len: 9, prefix_len: 8, range, seed: 0 };
        assert_eq!(arguments.shape(), shape);
        insta::assert_snapshot!(Value::from(arguments.sampling()), @r#"{"logprobs":2,"ignore_eos":true,"top_p":0.5,"min_p":0.1,"frequency_penalty":-0.5,"presence_penalty":1.0,"repetition_penalty":1.1,"seed":7}"#);
    }

    #[test]
    fn a_list_that_is_given_twice_is_the_second_one() {
        let arguments =
            parse(&words("--model m --metadata a=1 b=2 --header --metadata c=3 --goodput ttft:1 --goodput e2el:2"))
                .unwrap();
        assert_eq!(arguments.metadata, [("c".to_owned(), "3".to_owned())]);
        assert_eq!((arguments.header.len(), arguments.goodput.len()), (0, 1));
    }

    #[test]
    fn the_general_lengths_are_those_of_every_data_set() {
        let arguments =
            parse(&words("--model m --output-len 9 --custom-output-len 30 --sharegpt-output-len 40")).unwrap();
        assert_eq!((arguments.custom_output_len(), arguments.sharegpt_output_len), (Some(9), Some(9)));
        let arguments = parse(&words("--model m --dataset-name custom --dataset-path a.jsonl --custom-output-len -1"));
        assert_eq!(arguments.unwrap().custom_output_len(), None);
    }

    #[test]
    fn only_random_prompts_imply_that_answers_run_to_their_full_length() {
        assert!(parse(&words("--model m")).unwrap().ignore_eos);
        let custom = parse(&words("--model m --dataset-name custom --dataset-path a.jsonl")).unwrap();
        assert!(!custom.ignore_eos && custom.sampling().is_empty());
    }

    #[test]
    fn log_probabilities_are_a_field_of_completions_alone() {
        let chat = "--model m --backend openai-chat --endpoint /v1/chat/completions --logprobs 2";
        assert!(!parse(&words(chat)).unwrap().sampling().contains_key("logprobs"));
    }

    #[test]
    fn what_only_vllm_can_do_is_refused_by_name() {
        insta::assert_snapshot!(refused("--lora-modules a b"), @"`--lora-modules` is a flag of `vllm bench serve` that the native client lacks");
        insta::assert_snapshot!(refused("--hf_split=test"), @"`--hf-split` is a flag of `vllm bench serve` that the native client lacks");
        insta::assert_snapshot!(refused("--profile"), @"`--profile` is a flag of `vllm bench serve` that the native client lacks");
        insta::assert_snapshot!(refused("--dataset-name prefix_repetition"), @"`--dataset-name prefix_repetition` is not supported by the native client: it has random, sharegpt, custom, sonnet");
        insta::assert_snapshot!(refused("--backend tgi"), @"`--backend tgi` is not supported by the native client: it has vllm, openai, openai-chat");
        insta::assert_snapshot!(refused("--tokenizer-mode mistral"), @"`--tokenizer-mode mistral` is not supported by the native client: it has auto, hf");
        insta::assert_snapshot!(refused("--percentile-metrics speed"), @"`--percentile-metrics speed` is not supported by the native client: it has ttft, tpot, itl, e2el, client_queue_time, e2el_including_client_queue");
    }

    #[test]
    fn a_wrong_value_says_which() {
        insta::assert_snapshot!(refused("--num-prompts many"), @"not a command of bench serve: invalid value 'many' for '--num-prompts <NUM_PROMPTS>': invalid digit found in string");
        insta::assert_snapshot!(refused("--num-prompts 0"), @"not a command of bench serve: `--num-prompts 0` measures nothing: expected at least 1");
        insta::assert_snapshot!(refused("--request-rate 0"), @"not a command of bench serve: `--request-rate 0` is less than 0.000001 a second");
        insta::assert_snapshot!(refused("--max-concurrency 0"), @"not a command of bench serve: `--max-concurrency 0` measures nothing: expected at least 1");
        insta::assert_snapshot!(refused("--backend openai-chat"), @"not a command of bench serve: `--endpoint /v1/completions` must end in `chat/completions` for backend openai-chat");
        insta::assert_snapshot!(refused("--random-range-ratio 1.5"), @"not a command of bench serve: invalid value '1.5' for '--random-range-ratio <RATIO>': expected at least 0 and less than 1");
        insta::assert_snapshot!(refused("--goodput itl:5"), @"not a command of bench serve: invalid value 'itl:5' for '--goodput <METRIC:MS>...': `itl` is none of ttft, tpot and e2el");
        insta::assert_snapshot!(refused("--dataset-name sharegpt"), @"not a command of bench serve: `--dataset-name sharegpt` needs --dataset-path FILE");
        insta::assert_snapshot!(refused("--dataset-path a.json"), @"not a command of bench serve: `--dataset-path a.json` is of no use to random prompts: give --dataset-name too");
        insta::assert_snapshot!(refused("--custom-output-len 0"), @"not a command of bench serve: `--custom-output-len 0` is neither -1, the file's own lengths, nor at least 1");
        insta::assert_snapshot!(refused("--ramp-up-strategy linear"), @"not a command of bench serve: --ramp-up-strategy needs --ramp-up-start-rps and --ramp-up-end-rps");
        insta::assert_snapshot!(refused("--ramp-up-strategy linear --ramp-up-start-rps 0 --ramp-up-end-rps 5"), @"not a command of bench serve: `--ramp-up-start-rps 0` would never send its first request: expected at least 1");
        insta::assert_snapshot!(refused("--ramp-up-strategy linear --ramp-up-start-rps 6 --ramp-up-end-rps 5"), @"not a command of bench serve: `--ramp-up-start-rps 6` is more than `--ramp-up-end-rps 5`");
        insta::assert_snapshot!(refused("--ramp-up-strategy linear --request-rate 3"), @"not a command of bench serve: `--request-rate 3` and --ramp-up-strategy exclude each other");
        insta::assert_snapshot!(parse(&[]).unwrap_err(), @"not a command of bench serve: the following required arguments were not provided: --model <MODEL>");
    }
}
