//! Rules for several flags together, which are those of vLLM.

use vllm_load::{Api, LOWEST_RATE};

use super::flag_definitions::Arguments;
use super::flag_values::DatasetName;

/// Sets the flags that another flag implies, as in `vllm bench serve`.
pub(super) fn imply(arguments: &mut Arguments) {
    if let Some(length) = arguments.lengths.input_len {
        arguments.lengths.random_input_len = length;
        arguments.lengths.sonnet_input_len = length;
    }
    if let Some(length) = arguments.lengths.output_len {
        arguments.lengths.random_output_len = length;
        arguments.lengths.sharegpt_output_len = Some(length);
        arguments.lengths.custom_output_len = i64::try_from(length).unwrap_or(i64::MAX);
        arguments.lengths.sonnet_output_len = length;
    }
    // Random prompts have no meaning: a model could end its answer at any token.
    let generates = arguments.server.backend.api().generates();
    arguments.sampling.ignore_eos |= generates && arguments.dataset.dataset_name == DatasetName::Random;
}

/// Checks the command.
///
/// # Errors
/// Why neither client can run it.
pub(super) fn check(arguments: &Arguments) -> Result<(), String> {
    traffic(arguments)?;
    if let Some(percentile) = arguments.result.metric_percentiles.iter().find(|p| !(0.0..=100.0).contains(*p)) {
        return Err(format!("`--metric-percentiles {percentile}` is not between 0 and 100"));
    }
    let every_line = arguments.dataset.dataset_name == DatasetName::Custom && arguments.dataset.num_prompts == 0;
    let counts = [
        ("--num-prompts", arguments.dataset.num_prompts + usize::from(every_line)),
        ("--random-input-len", arguments.lengths.random_input_len),
        ("--random-output-len", arguments.lengths.random_output_len),
        ("--sharegpt-output-len", arguments.lengths.sharegpt_output_len.unwrap_or(1)),
        ("--sonnet-output-len", arguments.lengths.sonnet_output_len),
        ("--max-concurrency", arguments.load.max_concurrency.unwrap_or(1)),
    ];
    if let Some((flag, _)) = counts.iter().find(|(_, count)| *count == 0) {
        return Err(format!("`{flag} 0` measures nothing: expected at least 1"));
    }
    if arguments.lengths.custom_output_len < 1 && arguments.lengths.custom_output_len != -1 {
        let length = arguments.lengths.custom_output_len;
        return Err(format!("`--custom-output-len {length}` is neither -1 (the lengths of the file) nor at least 1"));
    }
    match (arguments.dataset.dataset_name, &arguments.dataset.dataset_path) {
        (DatasetName::Random, Some(path)) => {
            let path = path.display();
            return Err(format!("`--dataset-path {path}` has no effect on random prompts: give --dataset-name too"));
        }
        (DatasetName::Sharegpt | DatasetName::Custom | DatasetName::Sonnet, None) => {
            return Err(format!(
                "`--dataset-name {}` needs --dataset-path FILE",
                arguments.dataset.dataset_name.as_str()
            ));
        }
        _ => {}
    }
    let suffix = match arguments.server.backend.api() {
        Api::Completions => "completions",
        Api::Chat => "chat/completions",
        Api::Embeddings => "embeddings",
        Api::Pooling => "pooling",
    };
    let extra_body = arguments.sampling.extra_body.as_ref();
    if let Some(value) = extra_body.and_then(|body| body.get("stream")).filter(|value| *value != true) {
        return Err(format!("`--extra-body` sets `stream` to {value}: the times of an answer are those of its stream"));
    }
    if !arguments.server.backend.api().generates()
        && let Some(format) = extra_body.and_then(|body| body.get("encoding_format")?.as_str())
        && format.starts_with("bytes")
    {
        return Err(format!("`--extra-body` sets `encoding_format` to {format}: the native client reads JSON alone"));
    }
    arguments.server.url()?;
    if !arguments.server.endpoint.ends_with(suffix) {
        let backend = arguments.server.backend.as_str();
        return Err(format!("`--endpoint {}` must end in `{suffix}` for backend {backend}", arguments.server.endpoint));
    }
    sizes(arguments)
}

/// Most tokens of a prompt or of an answer: more than every model takes.
const MOST_TOKENS: usize = 16 << 20;

/// Most requests of a case.
const MOST_REQUESTS: usize = 10_000_000;

/// Prompts are made in memory before they are sent.
fn sizes(arguments: &Arguments) -> Result<(), String> {
    let lengths = &arguments.lengths;
    let sizes = [
        ("--num-prompts", arguments.dataset.num_prompts, MOST_REQUESTS),
        ("--num-warmups", arguments.load.num_warmups, MOST_REQUESTS),
        ("--random-input-len", lengths.random_input_len, MOST_TOKENS),
        ("--random-output-len", lengths.random_output_len, MOST_TOKENS),
        ("--random-prefix-len", lengths.random_prefix_len, MOST_TOKENS),
        ("--sharegpt-output-len", lengths.sharegpt_output_len.unwrap_or_default(), MOST_TOKENS),
        ("--custom-output-len", lengths.custom_output_len().unwrap_or_default(), MOST_TOKENS),
        ("--sonnet-input-len", lengths.sonnet_input_len, MOST_TOKENS),
        ("--sonnet-output-len", lengths.sonnet_output_len, MOST_TOKENS),
        ("--sonnet-prefix-len", lengths.sonnet_prefix_len, MOST_TOKENS),
    ];
    match sizes.iter().find(|(_, size, most)| size > most) {
        Some((flag, size, most)) => Err(format!("`{flag} {size}` is more than {most}")),
        None => Ok(()),
    }
}

fn traffic(arguments: &Arguments) -> Result<(), String> {
    let rate = arguments.load.request_rate;
    if rate.is_nan() || rate < LOWEST_RATE {
        return Err(format!("`--request-rate {rate}` is less than {LOWEST_RATE} a second"));
    }
    if arguments.load.burstiness.is_nan() || arguments.load.burstiness <= 0.0 {
        return Err(format!("`--burstiness {}` is not greater than 0", arguments.load.burstiness));
    }
    if arguments.load.ramp_up_strategy.is_none() {
        return Ok(());
    }
    if rate.is_finite() {
        return Err(format!("`--request-rate {rate}` and --ramp-up-strategy exclude each other"));
    }
    let (Some(start), Some(end)) = (arguments.load.ramp_up_start_rps, arguments.load.ramp_up_end_rps) else {
        return Err("--ramp-up-strategy needs --ramp-up-start-rps and --ramp-up-end-rps".to_owned());
    };
    if start > end {
        return Err(format!("`--ramp-up-start-rps {start}` is more than `--ramp-up-end-rps {end}`"));
    }
    if start == 0 {
        return Err("`--ramp-up-start-rps 0` would never send the first request: expected at least 1".to_owned());
    }
    Ok(())
}
