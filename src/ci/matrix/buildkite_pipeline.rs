//! The matrix as a pipeline for `buildkite-agent pipeline upload --no-interpolation`. Its steps have no command: the text of
//! a test file is only a plugin option or an environment variable, never part of a shell command.

use anyhow::{Context, ensure};
use indexmap::IndexMap;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::MatrixJob;
use crate::exit::Classify;

/// Most steps of one upload to Buildkite.
const LIMIT: usize = 500;

/// What all steps have in common.
#[derive(Debug, Clone)]
pub struct StepTemplate {
    /// The plugin and its version: `vllm-project/vllm-perf#v1.0.0`.
    pub plugin: String,
    /// Options of the plugin in every step.
    pub options: IndexMap<String, OptionValue>,
}

/// The value of an option of the plugin, whose schema distinguishes numbers and texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum OptionValue {
    Number(u64),
    Text(String),
}

impl From<String> for OptionValue {
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
    plugins: [IndexMap<String, IndexMap<String, OptionValue>>; 1],
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

/// The pipeline as JSON, which is also YAML. Runners are queues.
///
/// # Errors
/// The user's mistake: more steps than Buildkite allows.
pub fn text(jobs: &[MatrixJob], template: &StepTemplate) -> anyhow::Result<String> {
    let check = || {
        let count = jobs.len();
        ensure!(
            count <= LIMIT,
            "{count} steps, but Buildkite allows {LIMIT} per upload: select with --model or --runner"
        );
        Ok(())
    };
    check().mistake()?;
    let pipeline = Pipeline { steps: jobs.iter().map(|job| step(job, template)).collect() };
    serde_json::to_string_pretty(&pipeline).context("cannot print the pipeline")
}

fn step(job: &MatrixJob, template: &StepTemplate) -> Step {
    let mut options = template.options.clone();
    options.insert("device".to_owned(), OptionValue::Text(job.device.to_string()));
    options.extend(job.device_type.clone().map(|text| ("device-type".to_owned(), OptionValue::Text(text))));
    options.extend(job.commit.clone().map(|commit| ("head".to_owned(), OptionValue::Text(commit))));
    Step {
        label: format!("{} on {}", job.model, job.runner),
        key: key(job),
        agents: Agents { queue: job.runner.clone() },
        env: Env { model: job.model.clone() },
        plugins: [IndexMap::from([(template.plugin.clone(), options)])],
    }
}

/// A key may contain letters, digits and `_-:`, and must not look like a UUID. The hash keeps keys distinct whose names
/// differ only in other characters.
fn key(job: &MatrixJob) -> String {
    let slug = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(60).collect()
    };
    let hash = Sha256::digest(format!("{}\n{}", job.model, job.runner));
    let hash: String = hash.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
    format!("perf-{}-{}-{hash}", slug(&job.model), slug(&job.runner))
}

#[cfg(test)]
mod tests {
    use vllm_verdict::v1::DeviceName;

    use super::*;

    fn job(model: &str) -> MatrixJob {
        MatrixJob {
            runner: "perf-h100".to_owned(),
            device: DeviceName::Cuda,
            device_type: Some("NVIDIA H100".to_owned()),
            model: model.to_owned(),
            commit: Some("1da94e673c257373280026f75ceb4effac80e892".to_owned()),
        }
    }

    fn template() -> StepTemplate {
        let options = IndexMap::from([("pairs".to_owned(), OptionValue::from("3".to_owned()))]);
        StepTemplate { plugin: "vllm-project/vllm-perf#v1.0.0".to_owned(), options }
    }

    #[test]
    fn the_text_of_a_test_file_is_never_part_of_a_command() {
        insta::assert_snapshot!(text(&[job("a/$(reboot)")], &template()).unwrap(), @r#"
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
    fn models_with_similar_names_have_different_keys() {
        assert_ne!(key(&job("a/b")), key(&job("a-b")));
        assert_eq!(key(&job("a/b")), key(&job("a/b")));
    }

    #[test]
    fn more_steps_than_buildkite_allows_are_rejected() {
        let error = text(&vec![job("a"); 501], &template()).unwrap_err().to_string();
        assert!(error.starts_with("501 steps, but Buildkite allows 500 per upload"), "{error}");
    }
}
