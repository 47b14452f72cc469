//! Reads the text of `vllm-perf.yml` strictly: an unknown key, a wrong type or a bad value is an error with file, line and
//! column. The file may be untrusted: reading it takes time and memory in proportion to its length.

use std::collections::BTreeSet;

use anyhow::anyhow;
use serde::de::DeserializeSeed;

use super::section::{Keys, Place, ValueSeed};
use super::{Config, DeviceConfig};
use crate::exit::Classify;

/// Longest config file that is read, in bytes: thirty times a full one. The YAML parser's time is quadratic in the
/// nesting, and this length keeps it below a second.
pub const LONGEST_FILE: usize = 32 * 1024;

/// Longest message, in characters: an untrusted file must not fill a log.
const LONGEST_MESSAGE: usize = 800;

/// The settings of a config file over the defaults.
///
/// # Errors
/// Those of [`LoadedConfig::read`].
pub fn parse(text: &str, file: &str) -> anyhow::Result<Config> {
    LoadedConfig::read(text, file).map(|loaded| loaded.config)
}

/// The settings in force and where they came from. The default has no file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadedConfig {
    pub config: Config,
    /// Name of the file, for messages.
    pub file: Option<String>,
    /// Paths of the keys that the file sets, such as `verdict.fdr`.
    pub(super) keys: BTreeSet<String>,
}

impl LoadedConfig {
    /// The settings of a config file's text over the defaults; `file` is its name for messages.
    ///
    /// # Errors
    /// The user's mistake, as `file:line:column: key: what is wrong`; for an unknown key with the nearest valid one.
    pub fn read(text: &str, file: &str) -> anyhow::Result<Self> {
        // The text can come from git, with the byte order mark that some editors write.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.len() > LONGEST_FILE {
            return Err(anyhow!("{file}: a config file has at most {} KiB", LONGEST_FILE / 1024)).mistake();
        }
        let (mut config, mut keys) = (Config::default(), BTreeSet::new());
        if !text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            let seed = ValueSeed { kind: &Keys::default(), value: &mut config, place: Place::root(&mut keys) };
            seed.deserialize(serde_yaml::Deserializer::from_str(text))
                .map_err(|error| explained(&error, file))
                .mistake()?;
        }
        // Without `devices` in the file, the devices that have runners are measured, too.
        if !keys.contains("devices") {
            for name in config.matrix.runners.keys() {
                config.devices.entry(*name).or_insert_with(|| DeviceConfig::of(*name));
            }
        }
        Ok(Self { config, file: Some(file.to_owned()), keys })
    }
}

/// The error as `file:line:column: message`.
fn explained(error: &serde_yaml::Error, file: &str) -> anyhow::Error {
    let message = error.to_string();
    let (place, message) = match error.location() {
        Some(at) => {
            let (line, column) = (at.line(), at.column());
            (format!("{file}:{line}:{column}"), message.replacen(&format!(" at line {line} column {column}"), "", 1))
        }
        None => (file.to_owned(), message),
    };
    let message = message.replace("unit value", "nothing");
    let shown: String = message.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE).collect();
    anyhow!("{place}: {shown}")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::time::Duration;

    use indexmap::IndexMap;
    use vllm_verdict::criteria::{MinEffect, Primary, VerdictConfig};
    use vllm_verdict::metric::Direction;
    use vllm_verdict::strategy::Strategy;
    use vllm_verdict::v1::DeviceName;

    use super::*;
    use crate::exit::{self, Exit};
    use crate::plan::config::Forks;
    use crate::plan::config::datasets_config::{DatasetFile, DatasetsConfig};
    use crate::plan::config::record_rules::{Choice, KeyCase, Rules, Spelling};
    use crate::plan::config::{
        CommitSides, ContainerConfig, EnvironmentConfig, ImagesConfig, MatrixConfig, RecordsConfig, TierConfig,
        TiersConfig, TriggerConfig, WheelsConfig,
    };

    /// Every key, each with a value that is not the default.
    const EVERY_KEY: &str = r#"
trigger:
  labels: [bench, go]
  branches: [main, releases/v1]
  forks: approved
  require_label_after_push: false
devices:
  rocm: {image_suffix: "-amd", label: perf-amd}
  cpu: {}
images:
  pull_request: localhost:5000/pr
  main: registry.example.org/team/main_repo
  rocm: rocm
  wait: 1h30m
container:
  memory: 64g
  shm_size: 8g
  pids: 4096
  volumes: [/data:/data, "/cache:/c:rw"]
  devices: [/dev/infiniband]
  environment: {NCCL_DEBUG: INFO, N: 1}
  options: [--ulimit=memlock=-1]
suite: my/tests
datasets:
  folders: [/data]
  files: {a.jsonl: {repository: me/sets, sha256: "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"}}
tiers:
  pr: {only: "^serving_", strategy: paired, pairs: 4, budget: 30m, label: perf-pr}
  full: {label: perf-all}
strategy: screen
environment: {max_outside_load: 35%, max_distortion: 10%}
verdict:
  min_effect: {throughput: 1.5%, median: 0.04, p99: 10 %, mean_itl_ms: 20%}
  direction: {tokens_per_second: lower}
  primary: {metrics: [median_ttft_ms, p99_ttft_ms]}
  fdr: 1%
sides: wheel
wheels: {index: https://wheels.example.org/main}
store: file:///srv/vllm-perf
records:
  benchmark: PyTorch x vLLM benchmark
  branch: "{branch}(refs/heads/{branch})"
  model_key: lower
  collision: lowest
  failed_share: 1%
  build_number_offset: 30000000000
  uploader: https://uploader.example.org/records
  rows: https://ingest.example.org/
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
    fn a_file_without_settings_gives_the_defaults() {
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
                forks: Forks::Approved,
                require_label_after_push: Some(false),
            },
            devices: IndexMap::from([
                (DeviceName::Rocm, device("-amd", "perf-amd")),
                (DeviceName::Cpu, device("-cpu", "perf-cpu")),
            ]),
            images: ImagesConfig {
                pull_request: "localhost:5000/pr".parse().unwrap(),
                main: "registry.example.org/team/main_repo".parse().unwrap(),
                rocm: "rocm".parse().unwrap(),
                wait: Duration::from_secs(5400),
            },
            sides: CommitSides::Wheel,
            wheels: WheelsConfig { index: "https://wheels.example.org/main".into() },
            container: ContainerConfig {
                memory: Some("64g".into()),
                shm_size: "8g".into(),
                pids: 4096,
                volumes: vec!["/data:/data:ro".into(), "/cache:/c:rw".into()],
                devices: vec!["/dev/infiniband".into()],
                environment: IndexMap::from([("NCCL_DEBUG".into(), "INFO".into()), ("N".into(), "1".into())]),
                options: vec!["--ulimit=memlock=-1".into()],
            },
            suite: "my/tests".into(),
            allowed_folders: Vec::new(),
            tiers: TiersConfig {
                pr: TierConfig {
                    only: Some("^serving_".into()),
                    strategy: Some(Strategy::Paired),
                    pairs: Some(4),
                    budget: Some(Duration::from_secs(1800)),
                    label: Some("perf-pr".into()),
                },
                full: TierConfig { label: Some("perf-all".into()), ..TierConfig::default() },
            },
            datasets: DatasetsConfig {
                folders: vec!["/data".into()],
                files: IndexMap::from([(
                    "a.jsonl".into(),
                    DatasetFile { repository: Some("me/sets".into()), sha256: Some("0a".repeat(32)) },
                )]),
            },
            strategy: Some(Strategy::Screen),
            environment: EnvironmentConfig { max_outside_load: 0.35, max_distortion: 0.1 },
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
                benchmark: "PyTorch x vLLM benchmark".into(),
                spelling: Spelling { branch: "{branch}(refs/heads/{branch})", model_key: KeyCase::Lower },
                rules: Rules { collision: Choice::Lowest, failed_share: 0.01 },
                build_number_offset: Some(30_000_000_000),
                uploader: Some("https://uploader.example.org/records".into()),
                rows: Some("https://ingest.example.org/".into()),
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
    fn a_key_that_is_not_in_the_file_keeps_its_default() {
        let config = parse("verdict: {min_effect: {p99: 5%}}", "vllm-perf.yml").unwrap();
        let min_effect = MinEffect { p99: 0.05, ..MinEffect::default() };
        let verdict = VerdictConfig { min_effect, ..VerdictConfig::default() };
        assert_eq!(config, Config { verdict, ..Config::default() });
    }

    #[test]
    fn every_error_names_its_place_and_what_was_expected() {
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
        vllm-perf.yml:2:3: trigger: unknown key `labls`, did you mean `labels`? Valid here: labels, branches, forks, require_label_after_push
        vllm-perf.yml:1:1: unknown key `triger`, did you mean `trigger`? Valid here: trigger, devices, images, sides, wheels, container, suite, allowed_folders, datasets, tiers, strategy, environment, verdict, store, records, matrix
        vllm-perf.yml:2:9: devices.cpu: unknown key `suffix`, did you mean `image_suffix`? Valid here: image_suffix, label
        vllm-perf.yml:2:3: devices: unknown key `gpu`, did you mean `hpu`? Valid here: cuda, rocm, hpu, xpu, cpu, arm64-cpu
        vllm-perf.yml:2:9: images.wait: invalid type: integer `90`, expected a duration such as `90m`
        vllm-perf.yml:2:9: images.wait: `90 minutes` is not a duration: expected e.g. `90m`, `1h30m` or `45s`: the units are `h`, `m`, `s` and `ms`, not `minutes`
        vllm-perf.yml:2:9: images.main: `docker.io/rocm/vllm-ci:latest` cannot name an image: its tag `latest` is the same for every commit: put `{commit}` into it, as in `nightly-{commit}`, or leave the tag out
        vllm-perf.yml:2:8: verdict.fdr: `5` is not a share: expected more than 0 and less than 100 %, such as `2%` or `0.02`
        vllm-perf.yml:2:21: verdict.min_effect.p99: `120%` is not a share: expected more than 0 and less than 100 %, such as `2%` or `0.02`
        vllm-perf.yml:2:21: verdict.min_effect.p99: `NaN` is not a share: expected more than 0 and less than 100 %, such as `2%` or `0.02`
        vllm-perf.yml:2:15: verdict.min_effect: invalid type: string "2%", expected a mapping with keys such as `throughput` or `median`
        vllm-perf.yml:2:11: trigger.labels: invalid type: string "ready", expected a list, each a label
        vllm-perf.yml:2:10: trigger.labels: invalid type: nothing, expected a list, each a label
        vllm-perf.yml:4:5: trigger.labels[1]: invalid type: boolean `true`, expected a label
        vllm-perf.yml:2:19: trigger.labels[1]: ``x`` is not a label: expected 1 to 50 of the characters A-Z a-z 0-9, space and ._:/+-
        vllm-perf.yml:2:14: trigger.branches[0]: `release/*` is not a branch: expected an exact name such as `main`
        vllm-perf.yml:1:10: devices: at least one device is needed: leave `devices` out for the default
        vllm-perf.yml:2:3: devices: duplicate key `cpu`
        vllm-perf.yml:1:8: suite: invalid type: sequence, expected a folder
        vllm-perf.yml:1:1: duplicate key `suite`
        vllm-perf.yml:1:8: store: `https://example.org/` is not a store: expected `s3://`, `gs://` or `az://` and a bucket, or `file:///FOLDER`
        vllm-perf.yml:1:8: store: invalid type: nothing, expected a URL
        vllm-perf.yml:1:22: records.collision: `first` is not a choice of concurrency: expected `highest` or `lowest`
        vllm-perf.yml:1:32: records.build_number_offset: `-1` is not a whole number
        vllm-perf.yml:1:21: records.uploader: `http://example.org/` is not an upload API: expected `https://HOST/PATH`, without a password in it
        vllm-perf.yml:1:10: trigger: invalid type: sequence, expected a mapping with keys such as `labels` or `branches`
        vllm-perf.yml:1:1: invalid type: sequence, expected a mapping with keys such as `trigger` or `devices`
        vllm-perf.yml:2:1: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 19
        vllm-perf.yml: deserializing from YAML containing more than one document is not supported
        "#);
    }

    #[test]
    fn a_malicious_file_is_rejected_quickly() {
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
