//! The CI event as one value for all CI systems. `event/` parses it, `trigger` decides what to do.

pub mod buildkite_event;
pub mod github_event;
pub mod local_event;

use std::path::PathBuf;

use jiff::Timestamp;
use vllm_verdict::v1::{Event, Provider};

use crate::environment::Environment;
use crate::names::{Commit, Repository, is_label};

/// The current CI run: what to link to and where to write. It is never part of an output folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CiRun {
    /// Page of this run.
    pub run_url: Option<String>,
    /// Base URL of pages on GitHub, without a trailing slash (`https://github.com`).
    pub server_url: Option<String>,
    /// Base URL of GitHub's API, without a trailing slash.
    pub api_url: Option<String>,
    /// Workflow or pipeline. Together with `job` it identifies the comment of a configuration.
    pub workflow: Option<String>,
    /// The job within the workflow, or the step of the pipeline.
    pub job: Option<String>,
    /// File whose content GitHub shows as the job summary.
    pub step_summary: Option<PathBuf>,
    /// File to which the outputs of the step are appended.
    pub output: Option<PathBuf>,
    /// The run that a `workflow_run` event is about.
    pub completed_run: Option<CompletedRun>,
    /// The number of this run, which grows.
    pub number: Option<u64>,
    pub proposal: Proposal,
}

/// Who did what to the pull request, as the event says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proposal {
    /// Login of the author.
    pub author: Option<String>,
    /// Who caused the event, such as a new label.
    pub sender: Option<Person>,
    /// When the pull request had this head, by GitHub's clock.
    pub at: Option<Timestamp>,
}

/// An account on GitHub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub login: String,
    /// Whether it is a program.
    pub is_bot: bool,
}

/// The completed run of a `workflow_run` event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedRun {
    /// The event that started it.
    pub event: String,
    /// `success`, `failure`, `cancelled`, ...
    pub conclusion: Option<String>,
    pub head_sha: String,
    pub head_branch: String,
    /// `owner/name` of the head branch; `None` if it was deleted.
    pub head_repository: Option<String>,
    /// Pull requests that GitHub lists; always empty for forks.
    pub pull_requests: Vec<u64>,
    /// Page of that run.
    pub url: Option<String>,
    /// Its number, which grows.
    pub number: Option<u64>,
}

/// Most labels of one pull request: GitHub's own limit.
const LABELS: usize = 100;

/// The CI system of an environment, identified by `GITHUB_ACTIONS=true` or `BUILDKITE=true`.
pub fn detect(env: &Environment) -> Provider {
    if env.get("GITHUB_ACTIONS") == Some("true") {
        Provider::Github
    } else if env.get("BUILDKITE") == Some("true") {
        Provider::Buildkite
    } else {
        Provider::Local
    }
}

/// Whether what is checked out is a proposal: it does not decide how it is judged.
pub fn is_proposal(event: &Event) -> bool {
    let accepted = ["push", "schedule", "workflow_dispatch"].contains(&event.name.as_str());
    event.pull_request.is_some() || !(accepted || event.provider == Provider::Local)
}

/// The valid labels among `names`. No configured label can equal another one.
fn labels<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().filter(|name| is_label(name)).take(LABELS).map(str::to_owned).collect()
}

/// A full commit hash, as an event holds it; see [`Commit::of_event`].
fn commit(text: &str) -> Option<String> {
    Commit::of_event(text).map(String::from)
}

/// `owner/name`, as an event holds it.
fn repository(text: &str) -> Option<String> {
    text.parse::<Repository>().ok().map(String::from)
}

/// The pull request that a merge queue tests, out of its branch `gh-readonly-queue/<base>/pr-<number>-<commit>`.
fn queued_pull_request(branch: &str) -> Option<u64> {
    let (_, last) = branch.strip_prefix("gh-readonly-queue/")?.rsplit_once('/')?;
    let (number, tip) = last.strip_prefix("pr-")?.split_once('-')?;
    commit(tip)?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ci_system_is_detected_and_anything_else_is_a_local_machine() {
        for (variables, provider) in [
            (vec![("GITHUB_ACTIONS", "true")], Provider::Github),
            (vec![("BUILDKITE", "true")], Provider::Buildkite),
            (vec![("GITHUB_ACTIONS", "false"), ("CI", "true")], Provider::Local),
            (vec![], Provider::Local),
        ] {
            assert_eq!(detect(&variables.into_iter().collect()), provider);
        }
    }

    #[test]
    fn an_invalid_label_is_left_out() {
        let long = "x".repeat(51);
        let names = ["ready", "", "`rm -rf`", "🐛 bug", "a, b", &long, "perf: cpu/arm64", "<!-- -->", "a\nb"];
        assert_eq!(labels(names), ["ready", "perf: cpu/arm64"]);
    }

    #[test]
    fn a_merge_queue_branch_names_its_pull_request() {
        let sha = "929f8209d40f77f4abc622a499c93a83babdbe64";
        assert_eq!(queued_pull_request(&format!("gh-readonly-queue/main/pr-104-{sha}")), Some(104));
        assert_eq!(queued_pull_request(&format!("gh-readonly-queue/release/v1/pr-7-{sha}")), Some(7));
        assert_eq!(queued_pull_request("gh-readonly-queue/main/pr-104-929f82"), None);
        assert_eq!(queued_pull_request("main"), None);
    }
}
