//! Flags and values that several commands take.

use std::time::Duration;

use clap::{Args, ValueEnum};
use vllm_verdict::v1::DeviceName;

use crate::duration;

/// How a value is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// A time such as `45s`, as clap's value parsers return it.
///
/// # Errors
/// The text of [`duration::parse`].
pub fn span(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| format!("{error:#}"))
}

/// A time limit, as [`span`], which is above 0.
///
/// # Errors
/// The text of [`duration::parse`], or that it is 0.
pub fn limit(text: &str) -> Result<Duration, String> {
    match span(text)? {
        Duration::ZERO => Err("a limit must be above 0, such as `90s`".to_owned()),
        limit => Ok(limit),
    }
}

/// The device of `--device`; `None` is `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceChoice(pub Option<DeviceName>);

/// Reads `--device`.
///
/// # Errors
/// The text that names the devices.
pub fn device_choice(text: &str) -> Result<DeviceChoice, String> {
    let name = if text == "auto" { Ok(None) } else { text.parse().map(Some) };
    name.map(DeviceChoice).map_err(|error: anyhow::Error| format!("{error:#}"))
}

/// The device to measure on.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// auto, cuda, rocm, hpu, xpu, cpu or arm64-cpu
    #[arg(long = "device", env = "VLLM_PERF_DEVICE", value_name = "NAME", default_value = "auto", value_parser = device_choice)]
    pub name: DeviceChoice,
    /// Device type, e.g. `NVIDIA H100`, instead of the detected one
    #[arg(long, env = "VLLM_PERF_DEVICE_TYPE", value_name = "TYPE")]
    pub device_type: Option<String>,
    /// Number of GPUs or NUMA nodes, instead of the detected one
    #[arg(hide_short_help = true, long, env = "VLLM_PERF_DEVICE_COUNT", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub device_count: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_above_0() {
        for text in ["0s", "0ms", "0h 0m", "0.0s", "0.0000000001s"] {
            assert!(limit(text).unwrap_err().starts_with("a limit must be above 0"), "{text}");
            assert_eq!(span(text), Ok(Duration::ZERO));
        }
        assert_eq!(limit("1ms"), Ok(Duration::from_millis(1)));
        assert!(limit("0").unwrap_err().contains("a number needs a unit"));
    }
}
