//! What the config file says of the CI matrix. Pure.

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use vllm_verdict::v1::DeviceName;

use super::config_text::{List, Read, Scalar, not, owned_if};

/// Runners by tensor-parallel size.
pub type Sizes = IndexMap<u64, Vec<String>>;

/// Where the models of a suite are measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixConfig {
    /// The runners of each device that have room for a tensor-parallel size.
    pub runners: IndexMap<DeviceName, Sizes>,
    /// Models, and the parts of names of runners that they are not measured on.
    pub skip: IndexMap<String, Vec<String>>,
    /// Device types of runners, as records carry them.
    pub types: IndexMap<String, String>,
    /// Tensor-parallel size of a model whose test names none.
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

    /// Whether a model is not measured on a runner.
    pub fn skips(&self, model: &str, runner: &str) -> bool {
        let of_model = self.skip.iter().filter(|(name, _)| name.eq_ignore_ascii_case(model));
        of_model.flat_map(|(_, parts)| parts).any(|part| runner.contains(part.as_str()))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping with keys such as `runners` or `skip`")]
pub(super) struct MatrixFile {
    #[serde(deserialize_with = "runners")]
    pub(super) runners: Option<IndexMap<DeviceName, Sizes>>,
    #[serde(deserialize_with = "skip")]
    pub(super) skip: Option<IndexMap<String, Vec<String>>>,
    #[serde(deserialize_with = "types")]
    pub(super) types: Option<IndexMap<String, String>>,
    #[serde(deserialize_with = "size")]
    pub(super) default_size: Option<u64>,
}

impl MatrixFile {
    pub(super) fn over_defaults(self) -> MatrixConfig {
        let default = MatrixConfig::default();
        MatrixConfig {
            runners: self.runners.unwrap_or(default.runners),
            skip: self.skip.unwrap_or(default.skip),
            types: self.types.unwrap_or(default.types),
            default_size: self.default_size.unwrap_or(default.default_size),
        }
    }
}

const RUNNER: Scalar<String> = Scalar::text("the name of a runner", |text| {
    let letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let plain = (1..=100).contains(&text.len()) && text.chars().all(letter);
    owned_if(plain, text, "the name of a runner: expected 1 to 100 of the characters A-Z a-z 0-9 and ._-")
});

const MODEL: Scalar<String> = Scalar::text("the name of a model", |text| {
    let plain = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    owned_if(plain, text, "the name of a model")
});

const TYPE: Scalar<String> = Scalar::text("a device type", |text| {
    let plain = !text.trim().is_empty() && text.len() <= 200 && !text.contains(char::is_control);
    owned_if(plain, text, "a device type: expected a text such as `NVIDIA H100 80GB HBM3`")
});

const SIZE: Scalar<u64> =
    Scalar { expecting: "a tensor-parallel size: a whole number from 1", numbers: true, read: tensor_parallel };

fn tensor_parallel(text: &str) -> anyhow::Result<u64> {
    match text.parse() {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(not(text, "a tensor-parallel size: expected a whole number from 1")),
    }
}

/// A mapping, in the order of the file.
struct Mapping<K, V>(K, V);

impl<'de, K, V> Visitor<'de> for Mapping<K, V>
where
    K: DeserializeSeed<'de> + Copy,
    V: DeserializeSeed<'de> + Copy,
    K::Value: std::hash::Hash + Eq + std::fmt::Display,
{
    type Value = IndexMap<K::Value, V::Value>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut read = IndexMap::new();
        while let Some(key) = map.next_key_seed(self.0)? {
            let twice = format!("`{key}` stands twice");
            if read.insert(key, map.next_value_seed(self.1)?).is_some() {
                return Err(A::Error::custom(twice));
            }
        }
        Ok(read)
    }
}

impl<'de, K, V> DeserializeSeed<'de> for Mapping<K, V>
where
    Self: Visitor<'de>,
{
    type Value = <Self as Visitor<'de>>::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

/// A list of names of runners, or parts of them.
#[derive(Clone, Copy)]
struct Runners;

impl<'de> DeserializeSeed<'de> for Runners {
    type Value = Vec<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<String>, D::Error> {
        deserializer.deserialize_any(List(RUNNER))
    }
}

/// Runners by tensor-parallel size.
#[derive(Clone, Copy)]
struct BySize;

impl<'de> DeserializeSeed<'de> for BySize {
    type Value = Sizes;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Sizes, D::Error> {
        Mapping(SIZE, Runners).deserialize(deserializer)
    }
}

fn runners<'de, D: Deserializer<'de>>(deserializer: D) -> Read<IndexMap<DeviceName, Sizes>, D::Error> {
    Mapping(std::marker::PhantomData::<DeviceName>, BySize).deserialize(deserializer).map(Some)
}

fn skip<'de, D: Deserializer<'de>>(deserializer: D) -> Read<IndexMap<String, Vec<String>>, D::Error> {
    Mapping(MODEL, Runners).deserialize(deserializer).map(Some)
}

fn types<'de, D: Deserializer<'de>>(deserializer: D) -> Read<IndexMap<String, String>, D::Error> {
    Mapping(RUNNER, TYPE).deserialize(deserializer).map(Some)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Read<u64, D::Error> {
    SIZE.deserialize(deserializer).map(Some)
}
