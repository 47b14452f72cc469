//! The settings in force. `vllm-perf.yml` is optional: the defaults are vLLM's own. `config/` finds the file, reads it
//! strictly, describes it as JSON Schema, and tells where each setting came from.

pub mod config_schema;
pub mod config_text;
pub mod matrix_keys;
pub mod record_keys;
pub mod record_rules;
pub mod settings_table;
pub mod verdict_keys;

use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::DeviceName;

pub use config_schema::schema;
pub use config_text::{LONGEST_FILE, parse};
pub use matrix_keys::{MatrixConfig, Sizes};
pub use record_keys::RecordsConfig;
pub use settings_table::{Setting, Source, settings};
pub use vllm_verdict::criteria::{CasePattern, MinEffect, Primary, VerdictConfig};

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
    /// How the runs are arranged; where nobody says, in pairs if there is a base.
    pub strategy: Option<Strategy>,
    /// What else may go on while something is measured.
    pub environment: EnvironmentConfig,
    /// When a change is called one.
    pub verdict: VerdictConfig,
    /// Where records and results of main are kept.
    pub store: Option<String>,
    /// What becomes of records.
    pub records: RecordsConfig,
    /// Where the models of the suite are measured.
    pub matrix: MatrixConfig,
}

/// When to benchmark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerConfig {
    /// Labels that a pull request must all have, exact names. With none, every pull request runs.
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

/// What else may go on while something is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EnvironmentConfig {
    /// Share of the processors that other programs may take during a repetition; above it, it is repeated.
    pub max_outside_load: f64,
}

impl Default for EnvironmentConfig {
    fn default() -> Self {
        Self { max_outside_load: 0.2 }
    }
}

impl Default for Config {
    fn default() -> Self {
        let devices = [DeviceName::Cpu, DeviceName::Arm64Cpu, DeviceName::Cuda];
        Self {
            trigger: TriggerConfig::default(),
            devices: devices.into_iter().map(|name| (name, DeviceConfig::of(name))).collect(),
            images: ImagesConfig::default(),
            suite: PathBuf::from(".buildkite/performance-benchmarks/tests"),
            strategy: None,
            environment: EnvironmentConfig::default(),
            verdict: VerdictConfig::default(),
            store: None,
            records: RecordsConfig::default(),
            matrix: MatrixConfig::default(),
        }
    }
}

impl Config {
    /// What is configured for `name`, or its default where it is not in the matrix.
    pub fn device(&self, name: DeviceName) -> DeviceConfig {
        self.devices.get(&name).cloned().unwrap_or_else(|| DeviceConfig::of(name))
    }
}

impl Default for TriggerConfig {
    fn default() -> Self {
        Self { labels: vec!["perf-benchmarks".to_owned(), "ready".to_owned()], branches: vec!["main".to_owned()] }
    }
}

impl DeviceConfig {
    /// The default: the suffix under which vLLM's CI publishes the image, and a label where vLLM's matrix has the device.
    pub fn of(name: DeviceName) -> Self {
        let (image_suffix, label) = match name {
            DeviceName::Cuda => ("", Some("perf-gpu")),
            DeviceName::Rocm => ("", None),
            DeviceName::Hpu => ("-hpu", None),
            DeviceName::Xpu => ("-xpu", None),
            DeviceName::Cpu => ("-cpu", Some("perf-cpu")),
            DeviceName::Arm64Cpu => ("-arm64-cpu", Some("perf-arm64")),
        };
        Self { image_suffix: image_suffix.to_owned(), label: label.map(str::to_owned) }
    }
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            pull_request: "public.ecr.aws/q9t5s3a7/vllm-ci-test-repo".to_owned(),
            main: "public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo".to_owned(),
            rocm: "docker.io/rocm/vllm-ci".to_owned(),
            wait: Duration::from_secs(90 * 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_outside_the_matrix_has_its_default() {
        let mut config = Config::default();
        assert_eq!(config.device(DeviceName::Hpu).image_suffix, "-hpu");
        let own = DeviceConfig { image_suffix: "-mine".to_owned(), label: None };
        config.devices.insert(DeviceName::Cpu, own.clone());
        assert_eq!(config.device(DeviceName::Cpu), own);
    }
}
