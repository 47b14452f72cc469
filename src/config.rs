//! The settings in force. `vllm-perf.yml` is optional: the defaults are vLLM's own.

use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;

use crate::device::DeviceName;

/// Everything that a config file can say.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// When to benchmark.
    pub trigger: TriggerConfig,
    /// The devices of the matrix.
    pub devices: IndexMap<DeviceName, DeviceConfig>,
    /// Where images are.
    pub images: ImagesConfig,
    /// Folder of the test files.
    pub suite: PathBuf,
    /// When a change is called one.
    pub verdict: VerdictConfig,
    /// Where records and results of main are kept.
    pub store: Option<String>,
}

/// When to benchmark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerConfig {
    /// Labels that a pull request must all have, exact names.
    pub labels: Vec<String>,
    /// Branches where a push runs without labels.
    pub branches: Vec<String>,
}

/// One device of the matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Suffix of the image tag.
    pub image_suffix: String,
    /// Label that narrows a pull request's run to this device.
    pub label: Option<String>,
}

/// Where images are, without tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagesConfig {
    /// Repository of pull requests' images.
    pub pull_request: String,
    /// Repository of main's images.
    pub main: String,
    /// Repository of ROCm images, of both.
    pub rocm: String,
    /// How long to wait for an image that is not there yet.
    pub wait: Duration,
}

/// When a change is called one.
#[derive(Debug, Clone, PartialEq)]
pub struct VerdictConfig {
    /// Relative changes (0.02 is 2 %) below which nothing is called a change.
    pub min_effect: MinEffect,
    /// False discovery rate over the primary rows of a report.
    pub fdr: f64,
}

/// Smallest relative change that is worth a verdict, by the family of the metric.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinEffect {
    /// Rates.
    pub throughput: f64,
    /// Medians, means and start-up times.
    pub median: f64,
    /// 99th percentiles.
    pub p99: f64,
}
