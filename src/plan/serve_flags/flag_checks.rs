//! What flags must be together, after each is well by itself: vLLM's own rules.

use vllm_load::Api;
use vllm_load::arrivals::LOWEST_RATE;

use super::flag_definitions::Arguments;
use super::flag_values::DatasetName;

/// Sets what one flag implies for others, as `vllm bench serve` does.
pub(super) fn imply(arguments: &mut Arguments) {
    if let Some(length) = arguments.input_len {
        arguments.random_input_len = length;
        arguments.sonnet_input_len = length;
    }
    if let Some(length) = arguments.output_len {
        arguments.random_output_len = length;
        arguments.sharegpt_output_len = Some(length);
        arguments.custom_output_len = i64::try_from(length).unwrap_or(i64::MAX);
        arguments.sonnet_output_len = length;
    }
    // Random prompts mean nothing to a model: it may end its answer at any token.
    arguments.ignore_eos |= arguments.dataset_name == DatasetName::Random;
}

/// Why the command cannot be run by any client, if so.
pub(super) fn check(arguments: &Arguments) -> Result<(), String> {
    traffic(arguments)?;
    if let Some(percentile) = arguments.metric_percentiles.iter().find(|p| !(0.0..=100.0).contains(*p)) {
        return Err(format!("`--metric-percentiles {percentile}` is not between 0 and 100"));
    }
    let every_line = arguments.dataset_name == DatasetName::Custom && arguments.num_prompts == 0;
    let counts = [
        ("--num-prompts", arguments.num_prompts + usize::from(every_line)),
        ("--random-input-len", arguments.random_input_len),
        ("--random-output-len", arguments.random_output_len),
        ("--sharegpt-output-len", arguments.sharegpt_output_len.unwrap_or(1)),
        ("--sonnet-output-len", arguments.sonnet_output_len),
        ("--max-concurrency", arguments.max_concurrency.unwrap_or(1)),
    ];
    if let Some((flag, _)) = counts.iter().find(|(_, count)| *count == 0) {
        return Err(format!("`{flag} 0` measures nothing: expected at least 1"));
    }
    if arguments.custom_output_len < 1 && arguments.custom_output_len != -1 {
        let length = arguments.custom_output_len;
        return Err(format!("`--custom-output-len {length}` is neither -1, the file's own lengths, nor at least 1"));
    }
    match (arguments.dataset_name, &arguments.dataset_path) {
        (DatasetName::Random, Some(path)) => {
            let path = path.display();
            return Err(format!("`--dataset-path {path}` is of no use to random prompts: give --dataset-name too"));
        }
        (DatasetName::Sharegpt | DatasetName::Custom | DatasetName::Sonnet, None) => {
            return Err(format!("`--dataset-name {}` needs --dataset-path FILE", arguments.dataset_name.as_str()));
        }
        _ => {}
    }
    let suffix = match arguments.backend.api() {
        Api::Completions => "completions",
        Api::Chat => "chat/completions",
    };
    if !arguments.endpoint.ends_with(suffix) {
        let backend = arguments.backend.as_str();
        return Err(format!("`--endpoint {}` must end in `{suffix}` for backend {backend}", arguments.endpoint));
    }
    Ok(())
}

fn traffic(arguments: &Arguments) -> Result<(), String> {
    let rate = arguments.request_rate;
    if rate.is_nan() || rate < LOWEST_RATE {
        return Err(format!("`--request-rate {rate}` is less than {LOWEST_RATE} a second"));
    }
    if arguments.burstiness.is_nan() || arguments.burstiness <= 0.0 {
        return Err(format!("`--burstiness {}` is not greater than 0", arguments.burstiness));
    }
    if arguments.ramp_up_strategy.is_none() {
        return Ok(());
    }
    if rate.is_finite() {
        return Err(format!("`--request-rate {rate}` and --ramp-up-strategy exclude each other"));
    }
    let (Some(start), Some(end)) = (arguments.ramp_up_start_rps, arguments.ramp_up_end_rps) else {
        return Err("--ramp-up-strategy needs --ramp-up-start-rps and --ramp-up-end-rps".to_owned());
    };
    if start > end {
        return Err(format!("`--ramp-up-start-rps {start}` is more than `--ramp-up-end-rps {end}`"));
    }
    if start == 0 {
        return Err("`--ramp-up-start-rps 0` would never send its first request: expected at least 1".to_owned());
    }
    Ok(())
}
