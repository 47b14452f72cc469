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
    #[arg(long, env = "VLLM_PERF_DEVICE_COUNT", value_name = "N")]
    pub device_count: Option<u32>,
}
