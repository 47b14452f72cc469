//! The names of the flags of `vllm bench serve`. Its parser, Python's argparse, takes every unambiguous beginning of a name.

use std::borrow::Cow;
use std::sync::LazyLock;

use clap::CommandFactory;

use super::flag_definitions::Arguments;

/// Flags of vLLM 0.32 that the native client lacks. A beginning that fits one of them is ambiguous, too.
const OTHERS: [&str; 44] = [
    "asr-max-audio-len-sec",
    "asr-min-audio-len-sec",
    "bfcl-categories",
    "blazedit-max-distance",
    "blazedit-min-distance",
    "custom-ensure-client-side-data",
    "enable-multimodal-chat",
    "help",
    "hf-name",
    "hf-output-len",
    "hf-split",
    "hf-subset",
    "log-config-file",
    "lora-assignment",
    "lora-modules",
    "no-reranker",
    "plot-dataset-stats",
    "plot-timeline",
    "prefix-repetition-num-prefixes",
    "prefix-repetition-output-len",
    "prefix-repetition-prefix-len",
    "prefix-repetition-suffix-len",
    "probe-request-rate",
    "profile",
    "random-batch-size",
    "random-mm-base-items-per-request",
    "random-mm-bucket-config",
    "random-mm-limit-mm-per-prompt",
    "random-mm-num-mm-items-range-ratio",
    "self-timed",
    "skip-tokenizer-init",
    "spec-bench-category",
    "spec-bench-output-len",
    "speed-bench-category",
    "speed-bench-dataset-subset",
    "speed-bench-output-len",
    "timed-trace-chunk-hash-size",
    "timed-trace-label-hash-ids",
    "timed-trace-label-input-length",
    "timed-trace-label-output-length",
    "timed-trace-label-timestamp",
    "timed-trace-sec-multiplier",
    "timeline-itl-thresholds",
    "use-beam-search",
];

/// All names, without their hyphens.
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let command = Arguments::command();
    let own = command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned));
    let mut names: Vec<String> = own.chain(OTHERS.map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    names
});

/// A word of the command line with the full name of its flag: `_` is `-`, and a beginning that fits one flag is that flag.
/// Any other word is not changed.
///
/// # Errors
/// The beginning fits several flags; the text lists them.
pub fn full(word: &str) -> Result<Cow<'_, str>, String> {
    let Some(rest) = word.strip_prefix("--").filter(|rest| !rest.is_empty()) else { return Ok(word.into()) };
    let (name, value) = match rest.split_once('=') {
        Some((name, value)) => (name.replace('_', "-"), Some(value)),
        None => (rest.replace('_', "-"), None),
    };
    let fits: Vec<&String> = NAMES.iter().filter(|known| known.starts_with(&name)).collect();
    let full = match fits.as_slice() {
        [only] => only,
        several if several.len() > 1 && !several.iter().any(|known| **known == name) => {
            let several: Vec<String> = several.iter().map(|known| format!("--{known}")).collect();
            return Err(format!("`--{name}` is ambiguous: it can be {}", several.join(", ")));
        }
        _ => &name,
    };
    Ok(match value {
        Some(value) => format!("--{full}={value}").into(),
        None => format!("--{full}").into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_of_a_real_run_of_vllm_is_known() {
        let text = include_str!("../../run/native_client/arguments.json");
        let all: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        let not_flags = ["subparser", "bench_type", "dispatch_function", "logging_config"];
        for key in all.keys().filter(|key| !not_flags.contains(&key.as_str())) {
            assert!(NAMES.contains(&key.replace('_', "-")), "{key}");
        }
    }

    #[test]
    fn a_unique_beginning_is_the_flag() {
        for (typed, meant) in [
            ("--num_prompt", "--num-prompts"),
            ("--num-p=4", "--num-prompts=4"),
            ("--random-input", "--random-input-len"),
            ("--random_out=a_b", "--random-output-len=a_b"),
            ("--max-c", "--max-concurrency"),
            ("--disable-t", "--disable-tqdm"),
            ("--model", "--model"),
            ("--a-flag-of-tomorrow", "--a-flag-of-tomorrow"),
            ("--", "--"),
            ("-O3", "-O3"),
            ("a_b", "a_b"),
        ] {
            assert_eq!(full(typed).unwrap(), meant);
        }
    }

    #[test]
    fn an_exact_name_is_never_a_beginning_of_another() {
        for name in ["--seed", "--label", "--endpoint", "--profile", "--tokenizer", "--goodput", "--header"] {
            assert_eq!(full(name).unwrap(), name);
        }
        assert_eq!(full("--tokenizer=x").unwrap(), "--tokenizer=x");
    }

    #[test]
    fn an_ambiguous_beginning_lists_what_it_can_be() {
        insta::assert_snapshot!(full("--num").unwrap_err(), @"`--num` is ambiguous: it can be --num-prompts, --num-warmups");
        insta::assert_snapshot!(full("--random_in=5").map_err(|_| "").unwrap(), @"--random-input-len=5");
        insta::assert_snapshot!(full("--save").unwrap_err(), @"`--save` is ambiguous: it can be --save-detailed, --save-result");
        insta::assert_snapshot!(full("--pro=1").unwrap_err(), @"`--pro` is ambiguous: it can be --probe-request-rate, --profile");
    }
}
