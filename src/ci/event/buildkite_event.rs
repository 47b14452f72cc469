//! Buildkite's builds: the `BUILDKITE_*` variables become an [`Event`] with GitHub's names and a [`CiRun`].

use url::Url;
use vllm_verdict::v1::{Event, LabelsSource, Provider};

use super::{CiRun, Proposal};
use crate::environment::Environment;
use crate::names;

/// The event and the current build.
///
/// A build of a merge queue is a `merge_group`, a build of a pull request a `pull_request`. Any other build has the event of
/// its source: `schedule` is a `schedule`, `ui` and `api` are a `workflow_dispatch`, a webhook or another pipeline is a
/// `push`. Labels are those at the creation of the build: a rebuild repeats them. A label with a comma is read as two.
pub fn parse(env: &Environment) -> (Event, CiRun) {
    let repository = env.get("BUILDKITE_REPO").and_then(Remote::parse);
    let branch = env.get("BUILDKITE_BRANCH");
    let queue_base = env.get("BUILDKITE_MERGE_QUEUE_BASE_BRANCH");
    // "false" if there is none.
    let number = env.get("BUILDKITE_PULL_REQUEST").and_then(|number| number.parse().ok());
    let run = ci_run(env, repository.as_ref());
    let event = Event {
        provider: Provider::Buildkite,
        name: name(env, number).to_owned(),
        action: env.get("BUILDKITE_GITHUB_ACTION").map(str::to_owned),
        changed_label: None,
        repository: repository.as_ref().and_then(|remote| super::repository(&remote.path)),
        branch: match (env.get("BUILDKITE_TAG"), number) {
            (Some(_), _) => None,
            // A fork's branch may be `user:branch`. Outside a pull request it must not be taken for a branch of the repository.
            (None, Some(_)) => branch.map(|branch| branch.split_once(':').map_or(branch, |(_, name)| name)),
            (None, None) => branch,
        }
        .and_then(names::branch),
        // May be `HEAD`: what is checked out, which git knows.
        head_sha: env.get("BUILDKITE_COMMIT").and_then(super::commit),
        base_sha: env.get("BUILDKITE_MERGE_QUEUE_BASE_COMMIT").and_then(super::commit),
        base_branch: queue_base
            .or_else(|| env.get("BUILDKITE_PULL_REQUEST_BASE_BRANCH"))
            .and_then(crate::names::branch),
        pull_request: number.or_else(|| branch.and_then(crate::ci::event::queued_pull_request)),
        labels: crate::ci::event::labels(labels(env)),
        labels_source: LabelsSource::Payload,
        configuration: None,
        fork: number.is_some() && !same(&env.get("BUILDKITE_PULL_REQUEST_REPO").and_then(Remote::parse), &repository),
    };
    (event, run)
}

fn name(env: &Environment, pull_request: Option<u64>) -> &'static str {
    if env.get("BUILDKITE_MERGE_QUEUE_BASE_BRANCH").is_some() {
        return "merge_group";
    }
    if pull_request.is_some() {
        return "pull_request";
    }
    match env.get("BUILDKITE_SOURCE") {
        Some("schedule") => "schedule",
        Some("ui" | "api") => "workflow_dispatch",
        _ => "push",
    }
}

fn labels(env: &Environment) -> impl Iterator<Item = &str> {
    env.get("BUILDKITE_PULL_REQUEST_LABELS").unwrap_or_default().split(',').map(str::trim)
}

fn ci_run(env: &Environment, repository: Option<&Remote>) -> CiRun {
    let owned = |name: &str| env.get(name).map(str::to_owned);
    let base_url = |name: &str| env.get(name).map(|url| url.trim_end_matches('/').to_owned());
    CiRun {
        run_url: env.get("BUILDKITE_BUILD_URL").map(|build| match env.get("BUILDKITE_JOB_ID") {
            Some(job) => format!("{build}#{job}"),
            None => build.to_owned(),
        }),
        server_url: base_url("GITHUB_SERVER_URL").or_else(|| Some(format!("https://{}", repository?.host))),
        api_url: base_url("GITHUB_API_URL").or_else(|| repository?.api_url()),
        workflow: owned("BUILDKITE_PIPELINE_SLUG"),
        job: owned("BUILDKITE_STEP_KEY").or_else(|| owned("BUILDKITE_LABEL")),
        step_summary: None,
        output: None,
        completed_run: None,
        number: env.get("BUILDKITE_BUILD_NUMBER").and_then(|number| number.parse().ok()),
        proposal: Proposal::default(),
    }
}

/// The host and path of a repository, from any form of its URL.
struct Remote {
    host: String,
    path: String,
}

impl Remote {
    /// Reads `https://`, `git://` and `ssh://` URLs, and git's short form `user@host:path`.
    fn parse(text: &str) -> Option<Self> {
        let (host, path) = if text.contains("://") {
            let url = Url::parse(text).ok()?;
            (url.host_str()?.to_owned(), url.path().to_owned())
        } else {
            let (host, path) = text.split_once(':')?;
            (host.rsplit('@').next()?.to_owned(), path.to_owned())
        };
        let path = path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let host = match host.to_ascii_lowercase() {
            // GitHub serves ssh on port 443 under this name.
            host if host == "ssh.github.com" => "github.com".to_owned(),
            host => host,
        };
        (!host.is_empty() && !path.is_empty()).then(|| Self { host, path: path.to_owned() })
    }

    /// GitHub's API for this host. A token is sent there, so any other host must be set with `GITHUB_API_URL`.
    fn api_url(&self) -> Option<String> {
        let is_github = self.host == "github.com" || self.host.ends_with(".ghe.com");
        is_github.then(|| format!("https://api.{}", self.host))
    }
}

/// Whether both are known and the same repository: GitHub's names ignore case.
fn same(one: &Option<Remote>, other: &Option<Remote>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one.host == other.host && one.path.eq_ignore_ascii_case(&other.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";

    fn build(variables: &[(&str, &str)]) -> (Event, CiRun) {
        let common = [
            ("BUILDKITE", "true"),
            ("BUILDKITE_REPO", "git@github.com:vllm-project/vllm.git"),
            ("BUILDKITE_PULL_REQUEST", "false"),
            ("BUILDKITE_COMMIT", COMMIT),
            ("BUILDKITE_BRANCH", "main"),
            ("BUILDKITE_SOURCE", "webhook"),
        ];
        parse(&common.into_iter().chain(variables.iter().copied()).collect())
    }

    #[test]
    fn a_build_of_a_pull_request_becomes_the_event_of_github() {
        let (event, run) = build(&[
            ("BUILDKITE_PULL_REQUEST", "31415"),
            ("BUILDKITE_PULL_REQUEST_REPO", "https://github.com/vllm-project/vllm.git"),
            ("BUILDKITE_PULL_REQUEST_BASE_BRANCH", "main"),
            ("BUILDKITE_PULL_REQUEST_LABELS", "perf-benchmarks, ready,`x`,,perf-cpu"),
            ("BUILDKITE_BRANCH", "faster"),
            ("BUILDKITE_GITHUB_ACTION", "labeled"),
            ("BUILDKITE_BUILD_URL", "https://buildkite.com/vllm/ci/builds/9"),
            ("BUILDKITE_JOB_ID", "0190-ab"),
            ("BUILDKITE_PIPELINE_SLUG", "ci"),
            ("BUILDKITE_STEP_KEY", "perf-cpu"),
            ("BUILDKITE_LABEL", ":rocket: perf"),
        ]);
        let expected = Event {
            provider: Provider::Buildkite,
            name: "pull_request".into(),
            action: Some("labeled".into()),
            changed_label: None,
            repository: Some("vllm-project/vllm".into()),
            branch: Some("faster".into()),
            head_sha: Some(COMMIT.into()),
            base_sha: None,
            base_branch: Some("main".into()),
            pull_request: Some(31415),
            labels: vec!["perf-benchmarks".into(), "ready".into(), "perf-cpu".into()],
            labels_source: LabelsSource::Payload,
            configuration: None,
            fork: false,
        };
        assert_eq!(event, expected);
        assert_eq!(run.run_url.as_deref(), Some("https://buildkite.com/vllm/ci/builds/9#0190-ab"));
        assert_eq!((run.workflow.as_deref(), run.job.as_deref()), (Some("ci"), Some("perf-cpu")));
        assert_eq!(run.server_url.as_deref(), Some("https://github.com"));
        assert_eq!(run.api_url.as_deref(), Some("https://api.github.com"));
    }

    #[test]
    fn the_source_of_a_build_without_a_pull_request_names_the_event() {
        for (source, name) in [
            ("webhook", "push"),
            ("trigger_job", "push"),
            ("schedule", "schedule"),
            ("ui", "workflow_dispatch"),
            ("api", "workflow_dispatch"),
        ] {
            let (event, _) = build(&[("BUILDKITE_SOURCE", source)]);
            assert_eq!((event.name.as_str(), event.pull_request, event.fork), (name, None, false), "{source}");
        }
    }

    #[test]
    fn a_build_of_a_merge_queue_names_its_base_and_its_pull_request() {
        let (event, _) = build(&[
            ("BUILDKITE_BRANCH", "gh-readonly-queue/main/pr-104-929f8209d40f77f4abc622a499c93a83babdbe64"),
            ("BUILDKITE_MERGE_QUEUE_BASE_BRANCH", "main"),
            ("BUILDKITE_MERGE_QUEUE_BASE_COMMIT", "380387fbc80638b734a49e1be1c4dfec1c01b33c"),
        ]);
        assert_eq!((event.name.as_str(), event.pull_request), ("merge_group", Some(104)));
        assert_eq!(event.base_branch.as_deref(), Some("main"));
        assert_eq!(event.base_sha.as_deref(), Some("380387fbc80638b734a49e1be1c4dfec1c01b33c"));
    }

    #[test]
    fn a_fork_is_another_repository_in_any_form_of_its_url() {
        for (remote, fork) in [
            ("git://github.com/vllm-project/vllm.git", false),
            ("https://github.com/vllm-project/vllm", false),
            ("ssh://git@github.com/vllm-project/vllm.git", false),
            ("ssh://git@ssh.github.com:443/vllm-project/vllm.git", false),
            ("git@github.com:VLLM-project/vLLM", false),
            ("https://x-access-token:secret@github.com/vllm-project/vllm.git/", false),
            ("https://github.com/other/vllm.git", true),
            ("https://gitlab.com/vllm-project/vllm.git", true),
            ("", true),
        ] {
            let (event, _) = build(&[("BUILDKITE_PULL_REQUEST", "7"), ("BUILDKITE_PULL_REQUEST_REPO", remote)]);
            assert_eq!(event.fork, fork, "{remote}");
        }
    }

    #[test]
    fn a_commit_that_is_not_a_hash_is_no_commit() {
        for resolved in ["", "true", COMMIT] {
            let (event, _) = build(&[("BUILDKITE_COMMIT", "HEAD"), ("BUILDKITE_COMMIT_RESOLVED", resolved)]);
            assert_eq!(event.head_sha, None, "the second variable is a flag: {resolved}");
        }
    }

    #[test]
    fn the_user_of_a_forks_branch_is_removed_only_in_a_pull_request() {
        let (pushed, _) = build(&[("BUILDKITE_BRANCH", "other:main")]);
        assert_eq!(pushed.branch.as_deref(), Some("other:main"));
        let (proposed, _) = build(&[("BUILDKITE_BRANCH", "other:main"), ("BUILDKITE_PULL_REQUEST", "7")]);
        assert_eq!(proposed.branch.as_deref(), Some("main"));
    }

    #[test]
    fn a_tag_has_no_branch() {
        assert_eq!(build(&[("BUILDKITE_TAG", "v1"), ("BUILDKITE_BRANCH", "v1")]).0.branch, None);
    }

    #[test]
    fn a_host_that_is_not_githubs_gets_no_token() {
        let (_, run) = build(&[("BUILDKITE_REPO", "https://git.example.org/vllm-project/vllm.git")]);
        assert_eq!(run.server_url.as_deref(), Some("https://git.example.org"));
        assert_eq!(run.api_url, None);
        let (_, run) = build(&[("GITHUB_API_URL", "https://git.example.org/api/v3/")]);
        assert_eq!(run.api_url.as_deref(), Some("https://git.example.org/api/v3"));
    }
}
