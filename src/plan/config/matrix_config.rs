//! `matrix` in the config file: on which runners the models of the suite are measured.

use indexmap::IndexMap;
use serde_json::json;
use vllm_verdict::v1::DeviceName;

use super::device_config::DEVICE;
use super::scalar::{Scalar, Schema, not, valid};
use super::section::{Section, Walk};
use super::value_kinds::{ListOf, MapOf};

/// Runners by tensor-parallel size.
pub type Sizes = IndexMap<u64, Vec<String>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixConfig {
    pub runners: IndexMap<DeviceName, Sizes>,
    pub skip: IndexMap<String, Vec<String>>,
    pub types: IndexMap<String, String>,
    pub default_size: u64,
}

impl Default for MatrixConfig {
    fn default() -> Self {
        Self { runners: IndexMap::new(), skip: IndexMap::new(), types: IndexMap::new(), default_size: 1 }
    }
}

impl MatrixConfig {
    /// The runners of a device that have room for a tensor-parallel size.
    pub fn runners_of(&self, device: DeviceName, size: u64) -> &[String] {
        self.runners.get(&device).and_then(|sizes| sizes.get(&size)).map_or(&[], Vec::as_slice)
    }

    /// Whether the config excludes a model from a runner.
    pub fn skips(&self, model: &str, runner: &str) -> bool {
        let of_model = self.skip.iter().filter(|(name, _)| name.eq_ignore_ascii_case(model));
        of_model.flat_map(|(_, parts)| parts).any(|part| runner.contains(part.as_str()))
    }
}

impl Section for MatrixConfig {
    fn keys(&mut self, walk: &mut impl Walk) {
        let by_size = MapOf { key: SIZE_KEY, value: RUNNERS, default: |_| Vec::new(), item: None };
        walk.key(
            "runners",
            "For each device and tensor-parallel size, the runners that can serve a model of that size.",
            &mut self.runners,
            MapOf { key: DEVICE, value: by_size, default: |_| IndexMap::new(), item: None },
        );
        walk.key(
            "skip",
            "For a model, the runners that it is not measured on, each by a part of its name.",
            &mut self.skip,
            MapOf { key: MODEL, value: RUNNERS, default: |_| Vec::new(), item: None },
        );
        walk.key(
            "types",
            "Device types of runners, as in records.",
            &mut self.types,
            MapOf { key: RUNNER, value: TYPE, default: |_| String::new(), item: None },
        );
        walk.key(
            "default_size",
            "Tensor-parallel size of a model whose test does not set one.",
            &mut self.default_size,
            SIZE,
        );
    }
}

const RUNNERS: ListOf<String> = ListOf { of: RUNNER, item: None };

const RUNNER: Scalar<String> = Scalar::text("the name of a runner", "^[A-Za-z0-9._-]{1,100}$", |text| {
    let letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let plain = (1..=100).contains(&text.len()) && text.chars().all(letter);
    valid(plain, text, "the name of a runner: expected 1 to 100 of the characters A-Z a-z 0-9 and ._-")
});

const MODEL: Scalar<String> = Scalar::text("the name of a model", r"^\S+$", |text| {
    let plain = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    valid(plain, text, "the name of a model")
});

const TYPE: Scalar<String> = Scalar {
    schema: Schema::Other(|| json!({"type": "string", "pattern": r"\S", "maxLength": 200})),
    ..Scalar::text("a device type", "", |text| {
        let plain = !text.trim().is_empty() && text.len() <= 200 && !text.contains(char::is_control);
        valid(plain, text, "a device type: expected a text such as `NVIDIA H100 80GB HBM3`")
    })
};

const SIZE: Scalar<u64> = Scalar {
    expecting: "a tensor-parallel size: a whole number from 1",
    numbers: true,
    schema: Schema::Other(|| json!({"type": "integer", "minimum": 1})),
    read: |text| match text.parse() {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(not(text, "a tensor-parallel size: expected a whole number from 1")),
    },
    show: u64::to_string,
};

/// A size as a key, which JSON Schema takes as a text.
const SIZE_KEY: Scalar<u64> = Scalar { schema: Schema::Pattern("^0*[1-9][0-9]*$"), ..SIZE };
