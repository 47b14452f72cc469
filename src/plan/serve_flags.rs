//! The command line of `vllm bench serve`, as far as the native client supports it. Any other flag or value is an error that
//! names it; none is ignored.

mod flag_checks;
mod flag_definitions;
pub mod flag_names;
mod flag_values;
mod load_flags;
pub mod needed_metrics;
mod prompt_flags;
mod result_flags;
mod server_flags;

use std::cell::RefCell;
use std::fmt;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, FromArgMatches};

pub use flag_definitions::Arguments;
pub use flag_values::{Backend, DatasetName, Objective, Timing};
pub use load_flags::{LoadFlags, SamplingFlags};
pub use prompt_flags::{DatasetFlags, LengthFlags};
pub use result_flags::ResultFlags;
pub use server_flags::{ModelFlags, ServerFlags};

thread_local! {
    /// The definition is built once for each thread: that takes as long as ten parses, and a plan parses all its cases.
    static DEFINITION: RefCell<Command> = RefCell::new(Arguments::command().disable_help_flag(true));
}

/// Why the native client cannot run a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsupported {
    /// A flag that only `vllm bench serve` supports.
    Flag(String),
    /// A value (backend, data set, metric, ...) that only `vllm bench serve` supports.
    Value {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
        /// The supported values.
        supported: String,
    },
    /// Why a command is not valid for `vllm bench serve` either.
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

/// Parses the words after `bench serve`. Flags may be spelled with `-` or `_`, and by a beginning that fits no other flag.
///
/// # Errors
/// The first flag or value that the native client does not support, or that is not valid.
pub fn parse(argv: &[String]) -> Result<Arguments, Unsupported> {
    let words = argv.iter().map(|word| flag_names::full(word).map(String::from)).collect::<Result<Vec<_>, _>>();
    let words = words.map_err(Unsupported::Invalid)?;
    let matches = DEFINITION.with_borrow_mut(|definition| definition.try_get_matches_from_mut(words));
    let matches = matches.map_err(|error| refusal(&error))?;
    let mut arguments = Arguments::from_arg_matches(&matches).map_err(|error| refusal(&error))?;
    flag_checks::imply(&mut arguments);
    flag_checks::check(&arguments).map_err(Unsupported::Invalid)?;
    Ok(arguments)
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

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use vllm_load::prompts::{RandomPrompts, RangeRatio};
    use vllm_load::{Api, RampUp, RampUpStrategy};

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
    fn the_command_of_upstreams_suite_is_parsed() {
        let arguments = parse(&words(UPSTREAM)).unwrap();
        assert_eq!(arguments.server.backend, Backend::Vllm);
        assert_eq!(arguments.load.request_rate, f64::INFINITY);
        assert_eq!(arguments.load.max_concurrency, Some(8));
        assert_eq!(
            arguments.lengths.random_prompts(&arguments.dataset),
            RandomPrompts { prompts: 60, input_len: 256, output_len: 16, ..RandomPrompts::default() }
        );
        assert_eq!(arguments.result.metadata[1], ("compilation_config.mode".to_owned(), String::new()));
        assert_eq!(arguments.timings(), [Timing::Ttft, Timing::Tpot, Timing::Itl]);
        assert_eq!(arguments.server.url().unwrap().as_str(), "http://127.0.0.1:8000/v1/completions");
        assert_eq!(
            Value::from(arguments.sampling.fields(Api::Completions)).to_string(),
            r#"{"ignore_eos":true,"temperature":0.0}"#
        );
    }

    #[test]
    fn both_spellings_are_the_same_flag_and_values_are_not_changed() {
        let arguments = parse(&words("--model a_b --num_prompts=7 --served_model_name=c_d --top-k -1")).unwrap();
        assert_eq!(
            (arguments.dataset.num_prompts, arguments.model.model.as_str(), arguments.model.model_name()),
            (7, "a_b", "c_d")
        );
        assert_eq!(arguments.sampling.top_k, Some(-1));
    }

    #[test]
    fn a_beginning_that_fits_one_flag_is_that_flag() {
        let arguments =
            parse(&words("--mod m --num_prompt 1 --random-input 8 --random-output=4 --disable-tq")).unwrap();
        let lengths = (arguments.lengths.random_input_len, arguments.lengths.random_output_len);
        assert_eq!((arguments.dataset.num_prompts, lengths), (1, (8, 4)));
        insta::assert_snapshot!(refused("--num 5"), @"not a command of bench serve: `--num` is ambiguous: it can be --num-prompts, --num-warmups");
        insta::assert_snapshot!(refused("--lora-m a"), @"`--lora-modules` is a flag of `vllm bench serve` that the native client lacks");
    }

    #[test]
    fn every_flag_of_a_long_command_is_parsed() {
        let arguments = parse(&words(
            "--model m --num-prompts 4 --ramp-up-strategy exponential --ramp-up-start-rps 1 --ramp-up-end-rps 8 \
             --goodput ttft:200 e2el:1500.5 --min-p 0.1 --frequency-penalty -0.5 --presence-penalty 1 \
             --repetition-penalty 1.1 --logprobs 2 --top-p 0.9 --extra-body '{\"top_p\": 0.5, \"seed\": 7}' \
             --percentile-metrics e2el,client_queue_time --metric-percentiles 50,99.9 --random-prefix-len 8 \
             --random-range-ratio '{\"input\": 0.1, \"output\": 0.2}' --input-len 64 --output-len 9",
        ))
        .unwrap();
        let ramp = RampUp { strategy: RampUpStrategy::Exponential, start: 1, end: 8 };
        assert_eq!(arguments.load.ramp_up(), Some(ramp));
        assert_eq!(arguments.result.goodput.len(), 2);
        assert_eq!(arguments.result.goodput[1], Objective { timing: Timing::E2el, milliseconds: 1500.5 });
        assert_eq!(arguments.timings(), [Timing::E2el, Timing::ClientQueueTime]);
        assert_eq!(arguments.result.metric_percentiles, [50.0, 99.9]);
        let range = RangeRatio::Each { input: 0.1, output: 0.2 };
        let expected = RandomPrompts { prompts: 4, input_len: 64, output_len: 9, prefix_len: 8, range, seed: 0 };
        assert_eq!(arguments.lengths.random_prompts(&arguments.dataset), expected);
        insta::assert_snapshot!(Value::from(arguments.sampling.fields(Api::Completions)), @r#"{"logprobs":2,"ignore_eos":true,"top_p":0.5,"min_p":0.1,"frequency_penalty":-0.5,"presence_penalty":1.0,"repetition_penalty":1.1,"seed":7}"#);
    }

    #[test]
    fn the_last_of_two_lists_is_used() {
        let arguments =
            parse(&words("--model m --metadata a=1 b=2 --header --metadata c=3 --goodput ttft:1 --goodput e2el:2"))
                .unwrap();
        assert_eq!(arguments.result.metadata, [("c".to_owned(), "3".to_owned())]);
        assert_eq!((arguments.server.header.len(), arguments.result.goodput.len()), (0, 1));
    }

    #[test]
    fn the_general_lengths_apply_to_every_data_set() {
        let arguments =
            parse(&words("--model m --output-len 9 --custom-output-len 30 --sharegpt-output-len 40")).unwrap();
        assert_eq!((arguments.lengths.custom_output_len(), arguments.lengths.sharegpt_output_len), (Some(9), Some(9)));
        let arguments = parse(&words("--model m --dataset-name custom --dataset-path a.jsonl --custom-output-len -1"));
        assert_eq!(arguments.unwrap().lengths.custom_output_len(), None);
    }

    #[test]
    fn only_random_prompts_imply_ignore_eos() {
        assert!(parse(&words("--model m")).unwrap().sampling.ignore_eos);
        let custom = parse(&words("--model m --dataset-name custom --dataset-path a.jsonl")).unwrap();
        assert!(!custom.sampling.ignore_eos && custom.sampling.fields(Api::Completions).is_empty());
    }

    #[test]
    fn log_probabilities_are_a_field_of_completions_only() {
        let chat = "--model m --backend openai-chat --endpoint /v1/chat/completions --logprobs 2";
        assert!(!parse(&words(chat)).unwrap().sampling.fields(Api::Chat).contains_key("logprobs"));
    }

    #[test]
    fn what_is_not_generated_has_no_sampling_and_no_times_of_tokens() {
        let of = |text: &str| parse(&words(&format!("--model m {text}"))).unwrap();
        let embeddings = "--backend openai-embeddings --endpoint /v1/embeddings";
        let arguments = of(&format!("{embeddings} --temperature 0 --extra-body '{{\"dimensions\": 64}}'"));
        assert_eq!((arguments.timings(), arguments.sampling.ignore_eos), (vec![Timing::E2el], false));
        assert_eq!(Value::from(arguments.sampling.fields(Api::Embeddings)).to_string(), r#"{"dimensions":64}"#);
        let pooling = of("--backend vllm-pooling --endpoint /pooling --percentile-metrics ttft,e2el,client_queue_time");
        assert_eq!(pooling.timings(), [Timing::E2el, Timing::ClientQueueTime]);
        insta::assert_snapshot!(refused("--backend openai-embeddings"), @"not a command of bench serve: `--endpoint /v1/completions` must end in `embeddings` for backend openai-embeddings");
        insta::assert_snapshot!(refused(&format!("{embeddings} --extra-body '{{\"encoding_format\": \"bytes\"}}'")), @"not a command of bench serve: `--extra-body` sets `encoding_format` to bytes: the native client reads JSON alone");
    }

    #[test]
    fn the_error_of_an_unsupported_flag_or_value_names_it() {
        insta::assert_snapshot!(refused("--lora-modules a b"), @"`--lora-modules` is a flag of `vllm bench serve` that the native client lacks");
        insta::assert_snapshot!(refused("--hf_split=test"), @"`--hf-split` is a flag of `vllm bench serve` that the native client lacks");
        insta::assert_snapshot!(refused("--profile"), @"`--profile` is a flag of `vllm bench serve` that the native client lacks");
        insta::assert_snapshot!(refused("--dataset-name prefix_repetition"), @"`--dataset-name prefix_repetition` is not supported by the native client: it has random, sharegpt, custom, sonnet");
        insta::assert_snapshot!(refused("--backend tgi"), @"`--backend tgi` is not supported by the native client: it has vllm, openai, openai-chat, openai-embeddings, vllm-pooling");
        insta::assert_snapshot!(refused("--tokenizer-mode mistral"), @"`--tokenizer-mode mistral` is not supported by the native client: it has auto, hf");
        insta::assert_snapshot!(refused("--percentile-metrics speed"), @"`--percentile-metrics speed` is not supported by the native client: it has ttft, tpot, itl, e2el, client_queue_time, e2el_including_client_queue");
    }

    #[test]
    fn the_error_of_an_invalid_value_names_it() {
        insta::assert_snapshot!(refused("--num-prompts many"), @"not a command of bench serve: invalid value 'many' for '--num-prompts <NUM_PROMPTS>': invalid digit found in string");
        insta::assert_snapshot!(refused("--num-prompts 0"), @"not a command of bench serve: `--num-prompts 0` measures nothing: expected at least 1");
        insta::assert_snapshot!(refused("--request-rate 0"), @"not a command of bench serve: `--request-rate 0` is less than 0.000001 a second");
        insta::assert_snapshot!(refused("--max-concurrency 0"), @"not a command of bench serve: `--max-concurrency 0` measures nothing: expected at least 1");
        insta::assert_snapshot!(refused("--backend openai-chat"), @"not a command of bench serve: `--endpoint /v1/completions` must end in `chat/completions` for backend openai-chat");
        insta::assert_snapshot!(refused("--random-range-ratio 1.5"), @"not a command of bench serve: invalid value '1.5' for '--random-range-ratio <RATIO>': expected at least 0 and less than 1");
        insta::assert_snapshot!(refused("--goodput itl:5"), @"not a command of bench serve: invalid value 'itl:5' for '--goodput <METRIC:MS>...': `itl` is none of ttft, tpot and e2el");
        insta::assert_snapshot!(refused("--dataset-name sharegpt"), @"not a command of bench serve: `--dataset-name sharegpt` needs --dataset-path FILE");
        insta::assert_snapshot!(refused("--dataset-path a.json"), @"not a command of bench serve: `--dataset-path a.json` has no effect on random prompts: give --dataset-name too");
        insta::assert_snapshot!(refused("--custom-output-len 0"), @"not a command of bench serve: `--custom-output-len 0` is neither -1 (the lengths of the file) nor at least 1");
        insta::assert_snapshot!(refused("--ramp-up-strategy linear"), @"not a command of bench serve: --ramp-up-strategy needs --ramp-up-start-rps and --ramp-up-end-rps");
        insta::assert_snapshot!(refused("--ramp-up-strategy linear --ramp-up-start-rps 0 --ramp-up-end-rps 5"), @"not a command of bench serve: `--ramp-up-start-rps 0` would never send the first request: expected at least 1");
        insta::assert_snapshot!(refused("--ramp-up-strategy linear --ramp-up-start-rps 6 --ramp-up-end-rps 5"), @"not a command of bench serve: `--ramp-up-start-rps 6` is more than `--ramp-up-end-rps 5`");
        insta::assert_snapshot!(refused("--ramp-up-strategy linear --request-rate 3"), @"not a command of bench serve: `--request-rate 3` and --ramp-up-strategy exclude each other");
        insta::assert_snapshot!(parse(&[]).unwrap_err(), @"not a command of bench serve: the following required arguments were not provided: --model <MODEL>");
    }
}
