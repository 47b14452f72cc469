//! The settings. `vllm-perf.yml` is optional: the defaults are those of vLLM's CI. Each section of the file is a struct
//! whose `Section` implementation declares its keys; see `config/section.rs`.

pub mod config_schema;
pub mod config_text;
pub mod container_config;
pub mod device_config;
pub mod image_template;
pub mod images_config;
pub mod matrix_config;
pub mod record_rules;
pub mod records_config;
mod scalar;
mod section;
pub mod settings_table;
pub mod trigger_config;
mod value_kinds;
mod verdict_keys;

use std::path::PathBuf;

use indexmap::IndexMap;
use url::Url;
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::DeviceName;

use device_config::DEVICE;
use scalar::{SHARE, Scalar, Schema, one_of, valid};
use section::{Keys, Section, Walk};
use value_kinds::{ListOf, MapOf, Optional};

pub use config_schema::schema;
pub use config_text::{LONGEST_FILE, LoadedConfig, parse};
pub use container_config::ContainerConfig;
pub use device_config::DeviceConfig;
pub use image_template::ImageTemplate;
pub use images_config::ImagesConfig;
pub use matrix_config::{MatrixConfig, Sizes};
pub use records_config::RecordsConfig;
pub use settings_table::{Setting, Source, settings};
pub use trigger_config::{Forks, TriggerConfig};
pub use vllm_verdict::criteria::{CasePattern, MinEffect, Primary, VerdictConfig};

/// All settings of the config file.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub trigger: TriggerConfig,
    pub devices: IndexMap<DeviceName, DeviceConfig>,
    pub images: ImagesConfig,
    pub container: ContainerConfig,
    pub suite: PathBuf,
    pub allowed_folders: Vec<PathBuf>,
    pub strategy: Option<Strategy>,
    pub environment: EnvironmentConfig,
    pub verdict: VerdictConfig,
    pub store: Option<String>,
    pub records: RecordsConfig,
    pub matrix: MatrixConfig,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EnvironmentConfig {
    pub max_outside_load: f64,
    pub max_distortion: f64,
}

impl Default for EnvironmentConfig {
    fn default() -> Self {
        Self { max_outside_load: 0.2, max_distortion: 0.05 }
    }
}

impl Default for Config {
    fn default() -> Self {
        let devices = [DeviceName::Cpu, DeviceName::Arm64Cpu, DeviceName::Cuda];
        Self {
            trigger: TriggerConfig::default(),
            devices: devices.into_iter().map(|name| (name, DeviceConfig::of(name))).collect(),
            images: ImagesConfig::default(),
            container: ContainerConfig::default(),
            suite: PathBuf::from(".buildkite/performance-benchmarks/tests"),
            allowed_folders: Vec::new(),
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
    /// The settings of a device, or its default where the config does not list it.
    pub fn device(&self, name: DeviceName) -> DeviceConfig {
        self.devices.get(&name).cloned().unwrap_or_else(|| DeviceConfig::of(name))
    }
}

impl Section for Config {
    fn keys(&mut self, walk: &mut impl Walk) {
        walk.section("trigger", "When to benchmark.", &mut self.trigger);
        walk.key(
            "devices",
            "The devices that are measured. The label of a device restricts the run of a pull request to it.",
            &mut self.devices,
            MapOf {
                key: DEVICE,
                value: Keys::default(),
                default: |name| DeviceConfig::of(*name),
                item: Some("device"),
            },
        );
        walk.section("images", "Where images are, and how their tags are made.", &mut self.images);
        walk.section("container", "What a container may use of this machine.", &mut self.container);
        walk.key("suite", "Folder of the test files.", &mut self.suite, FOLDER);
        walk.key(
            "allowed_folders",
            "Folders outside the checkout whose models and data sets the suite of a pull request may name.",
            &mut self.allowed_folders,
            ListOf { of: FOLDER, item: None },
        );
        walk.key(
            "strategy",
            "How the runs are arranged; by default `paired`, or `single` without a base.",
            &mut self.strategy,
            Optional { value: STRATEGY, none: "paired, or single without a base" },
        );
        walk.section("environment", "Limits on other programs during a measurement.", &mut self.environment);
        walk.section("verdict", "When a difference is reported as a change.", &mut self.verdict);
        walk.key(
            "store",
            "Where records and results of main are kept: `s3://`, `gs://` or `az://` and a bucket, or `file:///FOLDER`.",
            &mut self.store,
            Optional { value: STORE, none: "none" },
        );
        walk.section("records", "Which results become dashboard records, and where those go.", &mut self.records);
        walk.section(
            "matrix",
            "On which runners the models of the suite are measured; read by `vllm-perf matrix`.",
            &mut self.matrix,
        );
    }
}

impl Section for EnvironmentConfig {
    fn keys(&mut self, walk: &mut impl Walk) {
        walk.key(
            "max_outside_load",
            "Share of the processors that other programs may use during a repetition. Above it, the repetition is run again, at most twice.",
            &mut self.max_outside_load,
            SHARE,
        );
        walk.key(
            "max_distortion",
            "Share by which the load client may change a metric because it was late. Above it, the repetition is run again, at most twice, and then the metric is not measured. 99% or more: never.",
            &mut self.max_distortion,
            SHARE,
        );
    }
}

const FOLDER: Scalar<PathBuf> = Scalar {
    expecting: "a folder",
    numbers: false,
    schema: Schema::Pattern(r"\S"),
    read: |text| {
        let folder = !text.trim().is_empty() && !text.contains(char::is_control);
        valid(folder, text, "a folder: expected a path").map(PathBuf::from)
    },
    show: |folder| folder.display().to_string(),
};

const STRATEGY: Scalar<Strategy> = Scalar {
    expecting: "a strategy",
    numbers: false,
    schema: Schema::OneOf(|| Strategy::ALL.map(Strategy::as_str).to_vec()),
    read: |text| one_of(text, "a strategy", &Strategy::ALL, Strategy::as_str),
    show: |strategy| strategy.as_str().to_owned(),
};

const STORE: Scalar<String> = Scalar::text("a URL", "^((s3|gs|az)://|file:///).+$", |text| {
    let store = Url::parse(text).is_ok_and(|url| match url.scheme() {
        "s3" | "gs" | "az" => url.host_str().is_some_and(|bucket| !bucket.is_empty()),
        "file" => text.starts_with("file:///") && url.path() != "/",
        _ => false,
    });
    valid(store, text, "a store: expected `s3://`, `gs://` or `az://` and a bucket, or `file:///FOLDER`")
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_the_config_does_not_list_has_its_default() {
        let mut config = Config::default();
        assert_eq!(config.device(DeviceName::Hpu).image_suffix, "-hpu");
        let own = DeviceConfig { image_suffix: "-mine".to_owned(), label: None };
        config.devices.insert(DeviceName::Cpu, own.clone());
        assert_eq!(config.device(DeviceName::Cpu), own);
    }
}
