//! The text of `vllm-perf.yml`, read strictly: an unknown key, a wrong type or a bad value is an error with file, line
//! and column. Pure. Nothing that a stranger writes into it costs more than its own length.

use crate::names;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use url::Url;
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::DeviceName;

use super::matrix_keys::MatrixFile;
use super::record_keys::RecordsFile;
use super::verdict_keys::VerdictFile;
use super::{Config, DeviceConfig, EnvironmentConfig, ImagesConfig, TriggerConfig};
use crate::duration;
use crate::exit::Classify;

/// Longest config file that is read, in bytes: thirty times a full one. The YAML parser takes time by the square of
/// the nesting, which this length keeps below a second.
pub const LONGEST_FILE: usize = 32 * 1024;

/// Longest message, in characters: a hostile file must not fill a log.
const LONGEST_MESSAGE: usize = 800;

/// Longest part of the file that a message quotes, in characters.
const LONGEST_QUOTE: usize = 80;

/// The settings of a config file's text over the defaults; `file` is its name for messages.
///
/// # Errors
/// The user's mistake, as `file:line:column: key: what is wrong`; for an unknown key with the nearest valid one.
pub fn parse(text: &str, file: &str) -> anyhow::Result<Config> {
    ConfigFile::read(text, file).map(ConfigFile::over_defaults)
}

/// What a config file says; what it leaves out is `None`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping with keys such as `trigger`")]
pub(super) struct ConfigFile {
    pub(super) trigger: TriggerFile,
    #[serde(deserialize_with = "devices")]
    pub(super) devices: Option<IndexMap<DeviceName, DeviceFile>>,
    pub(super) images: ImagesFile,
    #[serde(deserialize_with = "suite")]
    pub(super) suite: Option<PathBuf>,
    #[serde(deserialize_with = "strategy")]
    pub(super) strategy: Option<Strategy>,
    pub(super) environment: EnvironmentFile,
    pub(super) verdict: VerdictFile,
    #[serde(deserialize_with = "store")]
    pub(super) store: Option<String>,
    pub(super) records: RecordsFile,
    pub(super) matrix: MatrixFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping with `labels` or `branches`")]
pub(super) struct TriggerFile {
    #[serde(deserialize_with = "labels")]
    pub(super) labels: Option<Vec<String>>,
    #[serde(deserialize_with = "branches")]
    pub(super) branches: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping with `image_suffix` or `label`")]
pub(super) struct DeviceFile {
    #[serde(deserialize_with = "suffix")]
    pub(super) image_suffix: Option<String>,
    #[serde(deserialize_with = "label")]
    pub(super) label: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping with keys such as `main` or `wait`")]
pub(super) struct ImagesFile {
    #[serde(deserialize_with = "image")]
    pub(super) pull_request: Option<String>,
    #[serde(deserialize_with = "image")]
    pub(super) main: Option<String>,
    #[serde(deserialize_with = "image")]
    pub(super) rocm: Option<String>,
    #[serde(deserialize_with = "wait")]
    pub(super) wait: Option<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping with `max_outside_load`")]
pub(super) struct EnvironmentFile {
    #[serde(deserialize_with = "share")]
    pub(super) max_outside_load: Option<f64>,
}

impl ConfigFile {
    pub(super) fn read(text: &str, file: &str) -> anyhow::Result<Self> {
        if text.len() > LONGEST_FILE {
            return Err(anyhow!("{file}: a config file has at most {} KiB", LONGEST_FILE / 1024)).mistake();
        }
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        serde_yaml::from_str(text).map_err(|error| explained(&error, file)).mistake()
    }

    fn over_defaults(self) -> Config {
        let Config { trigger, devices, images, suite, strategy, environment, store, .. } = Config::default();
        let configured = |(name, device): (DeviceName, DeviceFile)| {
            let default = DeviceConfig::of(name);
            let image_suffix = device.image_suffix.unwrap_or(default.image_suffix);
            (name, DeviceConfig { image_suffix, label: device.label.or(default.label) })
        };
        let matrix = self.matrix.over_defaults();
        // Where nobody says which devices there are, those with runners are there too.
        let mut devices = devices;
        for name in matrix.runners.keys() {
            devices.entry(*name).or_insert_with(|| DeviceConfig::of(*name));
        }
        Config {
            trigger: TriggerConfig {
                labels: self.trigger.labels.unwrap_or(trigger.labels),
                branches: self.trigger.branches.unwrap_or(trigger.branches),
            },
            devices: self.devices.map_or(devices, |devices| devices.into_iter().map(configured).collect()),
            images: ImagesConfig {
                pull_request: self.images.pull_request.unwrap_or(images.pull_request),
                main: self.images.main.unwrap_or(images.main),
                rocm: self.images.rocm.unwrap_or(images.rocm),
                wait: self.images.wait.unwrap_or(images.wait),
            },
            suite: self.suite.unwrap_or(suite),
            strategy: self.strategy.or(strategy),
            environment: EnvironmentConfig {
                max_outside_load: self.environment.max_outside_load.unwrap_or(environment.max_outside_load),
            },
            verdict: self.verdict.over_defaults(),
            store: self.store.or(store),
            records: self.records.over_defaults(),
            matrix,
        }
    }
}

/// `file:line:column: message`, with the nearest valid key where the key is unknown.
fn explained(error: &serde_yaml::Error, file: &str) -> anyhow::Error {
    let message = error.to_string();
    let (place, message) = match error.location() {
        Some(at) => {
            let (line, column) = (at.line(), at.column());
            (format!("{file}:{line}:{column}"), message.replacen(&format!(" at line {line} column {column}"), "", 1))
        }
        None => (file.to_owned(), message),
    };
    let message = nearest(&message)
        .unwrap_or(message)
        .replace("unit value", "nothing")
        .replace("duplicate field", "duplicate key");
    let shown: String = message.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE).collect();
    anyhow!("{place}: {shown}")
}

/// Serde's text for an unknown key (a device is one too), with the valid keys in backquotes at its end, in our words.
fn nearest(message: &str) -> Option<String> {
    let (path, rest) = message.split_once("unknown field `").or_else(|| message.split_once("unknown variant `"))?;
    let (key, valid) = rest.rsplit_once("`, expected ")?;
    let valid: Vec<&str> = valid.split('`').skip(1).step_by(2).collect();
    let key: String = key.chars().take(LONGEST_QUOTE).collect();
    let nearest = valid.iter().min_by_key(|word| strsim::damerau_levenshtein(word, &key))?;
    Some(format!("{path}unknown key `{key}`, did you mean `{nearest}`? Valid here: {}", valid.join(", ")))
}

/// How one scalar of the file is read.
pub(super) struct Scalar<T> {
    /// What a message says was expected.
    pub(super) expecting: &'static str,
    /// Whether a bare number is the same as its text.
    pub(super) numbers: bool,
    pub(super) read: fn(&str) -> anyhow::Result<T>,
}

impl<T> Clone for Scalar<T> {
    fn clone(&self) -> Self {
        *self
    }
}

// Whether or not its values are.
impl<T> Copy for Scalar<T> {}

impl<T> Scalar<T> {
    pub(super) const fn text(expecting: &'static str, read: fn(&str) -> anyhow::Result<T>) -> Self {
        Self { expecting, numbers: false, read }
    }

    fn number<E: Error>(self, value: f64, found: Unexpected<'_>) -> Result<T, E> {
        if self.numbers { self.visit_str(&value.to_string()) } else { Err(E::invalid_type(found, &self)) }
    }
}

impl<'de, T> DeserializeSeed<'de> for Scalar<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        // Not `deserialize_str`: YAML would give `true` or `5` as their texts, and a label is neither.
        deserializer.deserialize_any(self)
    }
}

impl<'de, T> Visitor<'de> for Scalar<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(|error| E::custom(format_args!("{error:#}")))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        self.number(value, Unexpected::Float(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        self.number(value as f64, Unexpected::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        self.number(value as f64, Unexpected::Signed(value))
    }
}

/// A list of scalars.
pub(super) struct List<T>(pub(super) Scalar<T>);

impl<'de, T> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list, each {}", self.0.expecting)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self.0)? {
            items.push(item);
        }
        Ok(items)
    }
}

/// Devices by name, in the order of the file.
struct Devices;

impl<'de> Visitor<'de> for Devices {
    type Value = IndexMap<DeviceName, DeviceFile>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("devices by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut devices = IndexMap::new();
        while let Some((name, device)) = map.next_entry()? {
            if devices.insert(name, device).is_some() {
                return Err(A::Error::custom(format_args!("`{name}` stands twice")));
            }
        }
        if devices.is_empty() {
            return Err(A::Error::custom("at least one device is needed: leave `devices` out for the default"));
        }
        Ok(devices)
    }
}

/// The error for a bad value: what it is not, and what was expected instead.
pub(super) fn not(text: &str, what: &str) -> anyhow::Error {
    let shown: String = text.chars().take(LONGEST_QUOTE).collect();
    anyhow!("`{shown}` is not {what}")
}

pub(super) fn owned_if(right: bool, text: &str, what: &str) -> anyhow::Result<String> {
    if right { Ok(text.to_owned()) } else { Err(not(text, what)) }
}

pub(super) type Read<T, E> = Result<Option<T>, E>;

fn devices<'de, D: Deserializer<'de>>(deserializer: D) -> Read<IndexMap<DeviceName, DeviceFile>, D::Error> {
    deserializer.deserialize_any(Devices).map(Some)
}

const LABEL: Scalar<String> = Scalar::text("a label", |text| {
    let rule = "a label: expected 1 to 50 of the characters A-Z a-z 0-9, space and ._:/+-";
    owned_if(names::is_label(text), text, rule)
});

fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Read<String, D::Error> {
    LABEL.deserialize(deserializer).map(Some)
}

fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Read<Vec<String>, D::Error> {
    deserializer.deserialize_any(List(LABEL)).map(Some)
}

fn branches<'de, D: Deserializer<'de>>(deserializer: D) -> Read<Vec<String>, D::Error> {
    const BRANCH: Scalar<String> = Scalar::text("a branch", |text| {
        let plain =
            !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "*?[\\^~:".contains(c));
        owned_if(plain && !text.starts_with("refs/"), text, "a branch: expected an exact name such as `main`")
    });
    deserializer.deserialize_any(List(BRANCH)).map(Some)
}

fn suffix<'de, D: Deserializer<'de>>(deserializer: D) -> Read<String, D::Error> {
    const SUFFIX: Scalar<String> = Scalar::text("a text", |text| {
        let tag = text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        owned_if(tag, text, "a suffix of an image tag: expected at most 64 of the characters A-Z a-z 0-9 and -_.")
    });
    SUFFIX.deserialize(deserializer).map(Some)
}

fn image<'de, D: Deserializer<'de>>(deserializer: D) -> Read<String, D::Error> {
    const IMAGE: Scalar<String> = Scalar::text("an image repository", |text| {
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
        };
        let (host, path) = text.split_once('/').unwrap_or(("", text));
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        let port = host.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok());
        let repository = port && (host.is_empty() || part(name)) && path.split('/').all(part) && text.len() <= 255;
        owned_if(repository, text, "an image repository: expected `host/path` in lower case, without a tag or digest")
    });
    IMAGE.deserialize(deserializer).map(Some)
}

fn wait<'de, D: Deserializer<'de>>(deserializer: D) -> Read<Duration, D::Error> {
    Scalar::text("a duration such as `90m`", duration::parse).deserialize(deserializer).map(Some)
}

fn suite<'de, D: Deserializer<'de>>(deserializer: D) -> Read<PathBuf, D::Error> {
    const FOLDER: Scalar<PathBuf> = Scalar::text("a folder", |text| {
        let folder = !text.trim().is_empty() && !text.contains(char::is_control);
        owned_if(folder, text, "a folder: expected a path").map(PathBuf::from)
    });
    FOLDER.deserialize(deserializer).map(Some)
}

fn strategy<'de, D: Deserializer<'de>>(deserializer: D) -> Read<Strategy, D::Error> {
    const STRATEGY: Scalar<Strategy> = Scalar::text("a strategy", |text| {
        let named = Strategy::ALL.iter().find(|strategy| strategy.as_str() == text);
        named.copied().ok_or_else(|| not(text, "a strategy: expected `paired`, `screen`, `sequential` or `single`"))
    });
    STRATEGY.deserialize(deserializer).map(Some)
}

fn store<'de, D: Deserializer<'de>>(deserializer: D) -> Read<String, D::Error> {
    const STORE: Scalar<String> = Scalar::text("a URL", |text| {
        let store = Url::parse(text).is_ok_and(|url| match url.scheme() {
            "s3" | "gs" | "az" => url.host_str().is_some_and(|bucket| !bucket.is_empty()),
            "file" => text.starts_with("file:///") && url.path() != "/",
            _ => false,
        });
        owned_if(store, text, "a store: expected `s3://`, `gs://` or `az://` and a bucket, or `file:///FOLDER`")
    });
    STORE.deserialize(deserializer).map(Some)
}

/// A share of one: `2%` or `0.02`, above 0 and below 1.
pub(super) const SHARE: Scalar<f64> = Scalar {
    expecting: "a share such as `2%` or `0.02`",
    numbers: true,
    read: |text| {
        let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
        match number.trim().parse::<f64>() {
            Ok(value) if value > 0.0 && value < scale => Ok(value / scale),
            _ => Err(not(text, "a share: expected more than 0 and less than 100 %, such as `2%` or `0.02`")),
        }
    },
};

pub(super) fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Read<f64, D::Error> {
    SHARE.deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use vllm_verdict::criteria::{MinEffect, Primary, VerdictConfig};
    use vllm_verdict::metric::Direction;

    use super::*;
    use crate::exit::{self, Exit};
    use crate::plan::config::record_rules::{Choice, Rules};
    use crate::plan::config::{MatrixConfig, RecordsConfig};

    /// Every key, each with a value that is not the default.
    const EVERY_KEY: &str = r#"
trigger:
  labels: [bench, go]
  branches: [main, releases/v1]
devices:
  rocm: {image_suffix: "-amd", label: perf-amd}
  cpu: {}
images:
  pull_request: localhost:5000/pr
  main: registry.example.org/team/main_repo
  rocm: rocm
  wait: 1h30m
suite: my/tests
strategy: screen
environment: {max_outside_load: 35%}
verdict:
  min_effect: {throughput: 1.5%, median: 0.04, p99: 10 %, mean_itl_ms: 20%}
  direction: {tokens_per_second: lower}
  primary: {metrics: [median_ttft_ms, p99_ttft_ms]}
  fdr: 1%
store: file:///srv/vllm-perf
records:
  collision: lowest
  failed_share: 1%
  build_number_offset: 30000000000
  uploader: https://uploader.example.org/records
matrix:
  runners: {cpu: {1: [small, large], 2: [large]}}
  skip: {a/B: [small]}
  types: {large: AMD EPYC 9654}
  default_size: 2
"#;

    fn failure(text: &str) -> String {
        let error = parse(text, "vllm-perf.yml").unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake);
        format!("{error:#}")
    }

    #[test]
    fn a_file_that_says_nothing_is_the_defaults() {
        for text in ["", "\n# nothing yet\n", "---\n", "{}", "trigger:\n", "\u{feff}{}"] {
            assert_eq!(parse(text, "vllm-perf.yml").unwrap(), Config::default(), "{text:?}");
        }
    }

    #[test]
    fn every_key_is_read() {
        let device =
            |suffix: &str, label: &str| DeviceConfig { image_suffix: suffix.into(), label: Some(label.into()) };
        let expected = Config {
            trigger: TriggerConfig {
                labels: vec!["bench".into(), "go".into()],
                branches: vec!["main".into(), "releases/v1".into()],
            },
            devices: IndexMap::from([
                (DeviceName::Rocm, device("-amd", "perf-amd")),
                (DeviceName::Cpu, device("-cpu", "perf-cpu")),
            ]),
            images: ImagesConfig {
                pull_request: "localhost:5000/pr".into(),
                main: "registry.example.org/team/main_repo".into(),
                rocm: "rocm".into(),
                wait: Duration::from_secs(5400),
            },
            suite: "my/tests".into(),
            strategy: Some(Strategy::Screen),
            environment: EnvironmentConfig { max_outside_load: 0.35 },
            verdict: VerdictConfig {
                min_effect: MinEffect {
                    throughput: 0.015,
                    median: 0.04,
                    p99: 0.1,
                    metrics: IndexMap::from([("mean_itl_ms", 0.2)]),
                },
                direction: IndexMap::from([("tokens_per_second", Direction::Lower)]),
                primary: Primary { metrics: vec!["median_ttft_ms", "p99_ttft_ms"], ..Primary::default() },
                fdr: 0.01,
            },
            store: Some("file:///srv/vllm-perf".into()),
            records: RecordsConfig {
                rules: Rules { collision: Choice::Lowest, failed_share: 0.01 },
                build_number_offset: Some(30_000_000_000),
                uploader: Some("https://uploader.example.org/records".into()),
            },
            matrix: MatrixConfig {
                runners: IndexMap::from([(
                    DeviceName::Cpu,
                    IndexMap::from([(1, vec!["small".into(), "large".into()]), (2, vec!["large".into()])]),
                )]),
                skip: IndexMap::from([("a/B".into(), vec!["small".into()])]),
                types: IndexMap::from([("large".into(), "AMD EPYC 9654".into())]),
                default_size: 2,
            },
        };
        let read = parse(EVERY_KEY, "vllm-perf.yml").unwrap();
        assert_eq!(read, expected);
        assert_eq!(read.devices.keys().collect::<Vec<_>>(), [&DeviceName::Rocm, &DeviceName::Cpu], "the file's order");
    }

    #[test]
    fn what_the_file_leaves_out_keeps_its_default() {
        let config = parse("verdict: {min_effect: {p99: 5%}}", "vllm-perf.yml").unwrap();
        let min_effect = MinEffect { p99: 0.05, ..MinEffect::default() };
        let verdict = VerdictConfig { min_effect, ..VerdictConfig::default() };
        assert_eq!(config, Config { verdict, ..Config::default() });
    }

    #[test]
    fn every_mistake_names_its_place_and_what_is_right() {
        let mistakes = [
            "trigger:\n  labls: [ready]",
            "triger: {labels: [ready]}",
            "devices:\n  cpu: {suffix: x}",
            "devices:\n  gpu: {}",
            "images:\n  wait: 90",
            "images:\n  wait: 90 minutes",
            "images:\n  main: docker.io/rocm/vllm-ci:latest",
            "verdict:\n  fdr: 5",
            "verdict:\n  min_effect: {p99: 120%}",
            "verdict:\n  min_effect: {p99: .nan}",
            "verdict:\n  min_effect: 2%",
            "trigger:\n  labels: ready",
            "trigger:\n  labels:",
            "trigger:\n  labels:\n  - ready\n  - true",
            "trigger:\n  labels: [ready, \"`x`\"]",
            "trigger:\n  branches: [\"release/*\"]",
            "devices: {}",
            "devices:\n  cpu: {}\n  cpu: {}",
            "suite: [a]",
            "suite: a\nsuite: b",
            "store: https://example.org/",
            "store: null",
            "records: {collision: first}",
            "records: {build_number_offset: -1}",
            "records: {uploader: \"http://example.org/\"}",
            "trigger: [a]",
            "- trigger",
            "trigger: {labels: [ready",
            "suite: a\n---\nsuite: b",
        ];
        let mut shown = String::new();
        for text in mistakes {
            writeln!(shown, "{}", failure(text)).unwrap();
        }
        insta::assert_snapshot!(shown, @r#"
        vllm-perf.yml:2:3: trigger: unknown key `labls`, did you mean `labels`? Valid here: labels, branches
        vllm-perf.yml:1:1: unknown key `triger`, did you mean `trigger`? Valid here: trigger, devices, images, suite, strategy, environment, verdict, store, records, matrix
        vllm-perf.yml:2:9: devices.cpu: unknown key `suffix`, did you mean `image_suffix`? Valid here: image_suffix, label
        vllm-perf.yml:2:3: devices: unknown key `gpu`, did you mean `hpu`? Valid here: cuda, rocm, hpu, xpu, cpu, arm64-cpu
        vllm-perf.yml:2:9: images.wait: invalid type: integer `90`, expected a duration such as `90m`
        vllm-perf.yml:2:9: images.wait: `90 minutes` is not a duration: expected e.g. `90m`, `1h30m` or `45s`: the units are `h`, `m`, `s` and `ms`, not `minutes`
        vllm-perf.yml:2:9: images.main: `docker.io/rocm/vllm-ci:latest` is not an image repository: expected `host/path` in lower case, without a tag or digest
        vllm-perf.yml:2:8: verdict.fdr: `5` is not a share: expected more than 0 and less than 100 %, such as `2%` or `0.02`
        vllm-perf.yml:2:21: verdict.min_effect.p99: `120%` is not a share: expected more than 0 and less than 100 %, such as `2%` or `0.02`
        vllm-perf.yml:2:21: verdict.min_effect.p99: `NaN` is not a share: expected more than 0 and less than 100 %, such as `2%` or `0.02`
        vllm-perf.yml:2:15: verdict.min_effect: invalid type: string "2%", expected a mapping with `throughput`, `median`, `p99` or a metric
        vllm-perf.yml:2:11: trigger.labels: invalid type: string "ready", expected a list, each a label
        vllm-perf.yml:2:10: trigger.labels: invalid type: nothing, expected a list, each a label
        vllm-perf.yml:4:5: trigger.labels[1]: invalid type: boolean `true`, expected a label
        vllm-perf.yml:2:19: trigger.labels[1]: ``x`` is not a label: expected 1 to 50 of the characters A-Z a-z 0-9, space and ._:/+-
        vllm-perf.yml:2:14: trigger.branches[0]: `release/*` is not a branch: expected an exact name such as `main`
        vllm-perf.yml:1:10: devices: at least one device is needed: leave `devices` out for the default
        vllm-perf.yml:2:3: devices: `cpu` stands twice
        vllm-perf.yml:1:8: suite: invalid type: sequence, expected a folder
        vllm-perf.yml:1:1: duplicate key `suite`
        vllm-perf.yml:1:8: store: `https://example.org/` is not a store: expected `s3://`, `gs://` or `az://` and a bucket, or `file:///FOLDER`
        vllm-perf.yml:1:8: store: invalid type: nothing, expected a URL
        vllm-perf.yml:1:22: records.collision: `first` is not a choice: expected `highest` or `lowest` concurrency
        vllm-perf.yml:1:32: records.build_number_offset: `-1` is not a whole number
        vllm-perf.yml:1:21: records.uploader: `http://example.org/` is not an upload API: expected `https://HOST/PATH`, without a password in it
        vllm-perf.yml:1:10: trigger: invalid type: sequence, expected a mapping with `labels` or `branches`
        vllm-perf.yml:1:1: invalid type: sequence, expected a mapping with keys such as `trigger`
        vllm-perf.yml:2:1: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 19
        vllm-perf.yml: deserializing from YAML containing more than one document is not supported
        "#);
    }

    #[test]
    fn a_hostile_file_is_refused_without_effort() {
        assert_eq!(failure(&" ".repeat(10_000_000)), "vllm-perf.yml: a config file has at most 32 KiB");

        let mut laughs = "a: &a [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n".to_owned();
        for (of, name) in ('a'..='y').zip('b'..='z') {
            let nine = vec![format!("*{of}"); 9].join(", ");
            writeln!(laughs, "{name}: &{name} [{nine}]").unwrap();
        }
        assert!(failure(&laughs).starts_with("vllm-perf.yml:1:1: unknown key `a`"));
        let hidden = laughs.replacen("a: &a", "trigger: {labels: &a", 1).replacen("]\n", "]}\n", 1);
        assert!(failure(&hidden).contains("unknown key `b`"));
        assert!(failure("trigger: &t {labels: [*t]}").contains("expected a label"));

        let longest = LONGEST_FILE - 1;
        for filling in ["[", "{a: ", "- ", "? ", "&a ", "!t "] {
            let text = filling.repeat(longest / filling.len());
            assert!(failure(&text).chars().count() < LONGEST_MESSAGE + 50, "{filling}");
        }
        assert!(failure(&format!("{}: 1", "k".repeat(1000))).chars().count() < LONGEST_MESSAGE);
    }
}
