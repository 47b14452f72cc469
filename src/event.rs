//! What CI says happened, as one neutral value. Parsing lives in `event/`; the decision what to do about it in `trigger`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who told us about the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// GitHub Actions: `GITHUB_*` and the payload file.
    Github,
    /// Buildkite: `BUILDKITE_*`.
    Buildkite,
    /// A person's machine: flags alone.
    Local,
}

/// Where the labels were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelsSource {
    /// GitHub's API, now.
    Api,
    /// The event's payload or the build's environment: frozen when the event happened.
    Payload,
    /// `--label` flags.
    Flag,
}

/// An event, the same for every CI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Who told us.
    pub provider: Provider,
    /// GitHub's event name (`pull_request`, `push`, ...), also for Buildkite builds; `local` on a person's machine.
    pub name: String,
    /// What happened to the pull request (`labeled`, `synchronize`, ...).
    pub action: Option<String>,
    /// The label that was just added or removed.
    pub changed_label: Option<String>,
    /// `owner/name` of the repository that the event belongs to.
    pub repository: Option<String>,
    /// The branch that was pushed, or the pull request's head branch.
    pub branch: Option<String>,
    /// Full hash of the commit to measure.
    pub head_sha: Option<String>,
    /// Full hash of the tip of the target branch, as the event knew it. Not yet the merge base.
    pub base_sha: Option<String>,
    /// The target branch of the pull request or merge group.
    pub base_branch: Option<String>,
    /// The pull request's number.
    pub pull_request: Option<u64>,
    /// Names of the labels on the pull request.
    pub labels: Vec<String>,
    /// Where `labels` was read.
    pub labels_source: LabelsSource,
    /// Whether the head commit lives in another repository than the pull request's target.
    pub fork: bool,
}

/// The CI run that we are in: where to link and where to write. Never part of an output folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CiRun {
    /// Page of this run.
    pub run_url: Option<String>,
    /// Base URL of pages on GitHub, without a trailing slash (`https://github.com`).
    pub server_url: Option<String>,
    /// Base URL of GitHub's API, without a trailing slash.
    pub api_url: Option<String>,
    /// Workflow or pipeline, and job or step: they tell one configuration's comment from another's.
    pub workflow: Option<String>,
    /// The job within the workflow, or the step of the pipeline.
    pub job: Option<String>,
    /// File that GitHub shows as the job summary.
    pub step_summary: Option<PathBuf>,
    /// File that takes the step's outputs.
    pub output: Option<PathBuf>,
    /// The run that a `workflow_run` event tells about.
    pub completed_run: Option<CompletedRun>,
}

/// The run that ended, as a `workflow_run` event tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedRun {
    /// Event that had started it.
    pub event: String,
    /// How it ended: `success`, `failure`, `cancelled`, ...
    pub conclusion: Option<String>,
    /// Head commit of it.
    pub head_sha: String,
    /// Head branch of it.
    pub head_branch: String,
    /// `owner/name` that holds the head branch; `None` where it was deleted.
    pub head_repository: Option<String>,
    /// Pull requests that GitHub names; always empty for forks.
    pub pull_requests: Vec<u64>,
    /// Page of that run.
    pub url: Option<String>,
}
