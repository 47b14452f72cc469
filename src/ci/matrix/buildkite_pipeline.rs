//! The matrix as a pipeline for `buildkite-agent pipeline upload --no-interpolation`. Pure. Its steps have no command of
//! their own: what a test file says is data of the plugin and of the environment, never words of a shell.

use anyhow::{Context, ensure};
use indexmap::IndexMap;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Pair;
use crate::exit::Classify;

/// Steps that Buildkite takes in one upload.
const LIMIT: usize = 500;

/// What every step is like.
#[derive(Debug, Clone)]
pub struct Steps {
    /// The plugin and its version: `vllm-project/vllm-perf#v1.0.0`.
    pub plugin: String,
    /// Options that every step gives to the plugin.
    pub options: IndexMap<String, Value>,
}

/// The value of an option: the plugin's schema takes numbers as such.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number.
    Number(u64),
    /// Any other text.
    Text(String),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        text.parse().map_or(Self::Text(text), Self::Number)
    }
}

#[derive(Serialize)]
struct Pipeline {
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    label: String,
    key: String,
    agents: Agents,
    env: Env,
    plugins: [IndexMap<String, IndexMap<String, Value>>; 1],
}

#[derive(Serialize)]
struct Agents {
    queue: String,
}

#[derive(Serialize)]
struct Env {
    #[serde(rename = "MODEL_FILTER")]
    model: String,
}

/// The pipeline as JSON, which Buildkite reads as it reads YAML. The runners are queues.
///
/// # Errors
/// The user's mistake: more steps than Buildkite takes.
pub fn text(pairs: &[Pair], steps: &Steps) -> anyhow::Result<String> {
    let check = || {
        let count = pairs.len();
        ensure!(
            count <= LIMIT,
            "{count} steps, and Buildkite takes {LIMIT} an upload: choose with --model or --runner"
        );
        Ok(())
    };
    check().mistake()?;
    let pipeline = Pipeline { steps: pairs.iter().map(|pair| step(pair, steps)).collect() };
    serde_json::to_string_pretty(&pipeline).context("cannot print the pipeline")
}

fn step(pair: &Pair, steps: &Steps) -> Step {
    let mut options = steps.options.clone();
    options.insert("device".to_owned(), Value::Text(pair.device.to_string()));
    options.extend(pair.device_type.clone().map(|text| ("device-type".to_owned(), Value::Text(text))));
    options.extend(pair.commit.clone().map(|commit| ("head".to_owned(), Value::Text(commit))));
    Step {
        label: format!("{} on {}", pair.model, pair.runner),
        key: key(pair),
        agents: Agents { queue: pair.runner.clone() },
        env: Env { model: pair.model.clone() },
        plugins: [IndexMap::from([(steps.plugin.clone(), options)])],
    }
}

/// A step's key has letters, digits and `_-:`, and must not look like a UUID; a hash tells apart what looks the same then.
fn key(pair: &Pair) -> String {
    let slug = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(60).collect()
    };
    let hash = Sha256::digest(format!("{}\n{}", pair.model, pair.runner));
    let hash: String = hash.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
    format!("perf-{}-{}-{hash}", slug(&pair.model), slug(&pair.runner))
}

#[cfg(test)]
mod tests {
    use vllm_verdict::v1::DeviceName;

    use super::*;

    fn pair(model: &str) -> Pair {
        Pair {
            runner: "perf-h100".to_owned(),
            device: DeviceName::Cuda,
            device_type: Some("NVIDIA H100".to_owned()),
            model: model.to_owned(),
            commit: Some("1da94e673c257373280026f75ceb4effac80e892".to_owned()),
        }
    }

    fn steps() -> Steps {
        let options = IndexMap::from([("pairs".to_owned(), Value::from("3".to_owned()))]);
        Steps { plugin: "vllm-project/vllm-perf#v1.0.0".to_owned(), options }
    }

    #[test]
    fn what_a_test_file_says_is_no_word_of_a_command() {
        insta::assert_snapshot!(text(&[pair("a/$(reboot)")], &steps()).unwrap(), @r#"
        {
          "steps": [
            {
              "label": "a/$(reboot) on perf-h100",
              "key": "perf-a---reboot--perf-h100-a73e0e",
              "agents": {
                "queue": "perf-h100"
              },
              "env": {
                "MODEL_FILTER": "a/$(reboot)"
              },
              "plugins": [
                {
                  "vllm-project/vllm-perf#v1.0.0": {
                    "pairs": 3,
                    "device": "cuda",
                    "device-type": "NVIDIA H100",
                    "head": "1da94e673c257373280026f75ceb4effac80e892"
                  }
                }
              ]
            }
          ]
        }
        "#);
    }

    #[test]
    fn models_whose_names_look_the_same_as_keys_have_different_ones() {
        assert_ne!(key(&pair("a/b")), key(&pair("a-b")));
        assert_eq!(key(&pair("a/b")), key(&pair("a/b")));
    }

    #[test]
    fn more_steps_than_buildkite_takes_are_refused() {
        let error = text(&vec![pair("a"); 501], &steps()).unwrap_err().to_string();
        assert!(error.starts_with("501 steps, and Buildkite takes 500 an upload"), "{error}");
    }
}
