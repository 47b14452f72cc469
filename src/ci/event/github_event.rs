//! GitHub's events: the payload of `GITHUB_EVENT_PATH` and the `GITHUB_*` variables become an [`Event`] and a [`CiRun`].
//! Every field of a payload is optional, because a missing field must not prevent the decision.

use std::path::PathBuf;

use anyhow::Context;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use vllm_verdict::v1::{Event, LabelsSource, Provider};

use super::{CiRun, CompletedRun, Person, Proposal};
use crate::environment::Environment;
use crate::exit::Classify;
use crate::names;

/// The event and the current run. `name` is `GITHUB_EVENT_NAME`, `payload` the text of the file
/// `GITHUB_EVENT_PATH`. An unknown event has no pull request and is not an error.
///
/// # Errors
/// The user's mistake: `payload` is not the JSON of an event `name`.
pub fn parse(name: &str, payload: &str, env: &Environment) -> anyhow::Result<(Event, CiRun)> {
    let mut run = ci_run(env);
    let event = Event {
        provider: Provider::Github,
        name: name.to_owned(),
        action: None,
        changed_label: None,
        repository: env.get("GITHUB_REPOSITORY").and_then(super::repository),
        branch: env.get("GITHUB_REF").and_then(crate::names::branch),
        head_sha: env.get("GITHUB_SHA").and_then(super::commit),
        base_sha: None,
        base_branch: None,
        pull_request: None,
        labels: Vec::new(),
        labels_source: LabelsSource::Payload,
        configuration: None,
        fork: false,
    };
    let event = match name {
        "pull_request" | "pull_request_target" => {
            let payload: PullRequestPayload = read(name, payload, env)?;
            run.proposal = proposal(&payload);
            pull_request(payload, event)
        }
        "push" => push(read(name, payload, env)?, event),
        "merge_group" => merge_group(read(name, payload, env)?, event),
        "workflow_run" => {
            let payload: WorkflowRunPayload = read(name, payload, env)?;
            run.completed_run =
                payload.workflow_run.and_then(|completed| completed_run(completed, &payload.repository));
            Event { action: payload.action, ..in_repository(payload.repository, event) }
        }
        _ => {
            read::<IgnoredAny>(name, payload, env)?;
            event
        }
    };
    Ok((event, run))
}

fn read<T: DeserializeOwned>(name: &str, payload: &str, env: &Environment) -> anyhow::Result<T> {
    serde_json::from_str(payload)
        .with_context(|| {
            let path = env.get("GITHUB_EVENT_PATH").unwrap_or("not set");
            format!("cannot read the payload in GITHUB_EVENT_PATH ({path}) as the JSON of a `{name}` event")
        })
        .mistake()
}

fn in_repository(repository: Option<Repository>, event: Event) -> Event {
    Event { repository: full_name(&repository).or(event.repository), ..event }
}

fn proposal(payload: &PullRequestPayload) -> Proposal {
    let pull = payload.pull_request.as_ref();
    Proposal {
        author: pull.and_then(|pull| pull.user.as_ref()?.login.clone()),
        sender: payload.sender.as_ref().and_then(|sender| {
            let login = sender.login.clone()?;
            Some(Person { is_bot: sender.kind.as_deref() != Some("User"), login })
        }),
        at: pull.and_then(|pull| pull.updated_at.as_deref()?.parse().ok()),
    }
}

/// The head is that of the pull request: `GITHUB_SHA` is a merge commit that GitHub created.
fn pull_request(payload: PullRequestPayload, event: Event) -> Event {
    let event = in_repository(payload.repository, event);
    let Some(PullRequest { number, head, base, labels, .. }) = payload.pull_request else {
        return Event { action: payload.action, head_sha: None, branch: None, ..event };
    };
    let (head, base) = (head.unwrap_or_default(), base.unwrap_or_default());
    let target = full_name(&base.repo).or_else(|| event.repository.clone());
    let source = full_name(&head.repo);
    let labels = labels.unwrap_or_default();
    Event {
        action: payload.action,
        changed_label: payload.label.and_then(|label| label.name).as_deref().map(crate::names::shown_label),
        branch: head.reference.as_deref().and_then(crate::names::branch),
        head_sha: head.sha.as_deref().and_then(super::commit),
        base_sha: base.sha.as_deref().and_then(super::commit),
        base_branch: base.reference.as_deref().and_then(crate::names::branch),
        pull_request: number,
        labels: super::labels(labels.iter().filter_map(|label| label.name.as_deref())),
        // A deleted fork has no repository; `repo.fork` would be wrong for a fork's own pull requests.
        fork: source.is_none() || source != target,
        ..event
    }
}

fn push(payload: PushPayload, event: Event) -> Event {
    let event = in_repository(payload.repository, event);
    let deleted = payload.deleted == Some(true);
    let tip = payload.after.as_deref().map_or(event.head_sha, super::commit);
    Event {
        action: deleted.then(|| "deleted".to_owned()),
        branch: payload.reference.as_deref().map_or(event.branch, names::branch),
        head_sha: tip.filter(|_| !deleted),
        base_sha: payload.before.as_deref().and_then(super::commit),
        ..event
    }
}

fn merge_group(payload: MergeGroupPayload, event: Event) -> Event {
    let event = in_repository(payload.repository, event);
    let group = payload.merge_group.unwrap_or_default();
    let branch = group.head_ref.as_deref().and_then(names::branch).or(event.branch);
    Event {
        action: payload.action,
        head_sha: group.head_sha.as_deref().map_or(event.head_sha, super::commit),
        base_sha: group.base_sha.as_deref().and_then(super::commit),
        base_branch: group.base_ref.as_deref().and_then(crate::names::branch),
        pull_request: branch.as_deref().and_then(crate::ci::event::queued_pull_request),
        branch,
        ..event
    }
}

fn completed_run(run: WorkflowRun, repository: &Option<Repository>) -> Option<CompletedRun> {
    let own = repository.as_ref().and_then(|repository| repository.id);
    let targets_own = |pull_request: &RunPullRequest| {
        let base = pull_request.base.as_ref().and_then(|base| base.repo.as_ref()).and_then(|repo| repo.id);
        base.is_none() || own.is_none() || base == own
    };
    Some(CompletedRun {
        event: run.event?,
        conclusion: run.conclusion,
        head_sha: super::commit(&run.head_sha?)?,
        head_branch: crate::names::branch(&run.head_branch?)?,
        head_repository: full_name(&run.head_repository),
        pull_requests: run
            .pull_requests
            .iter()
            .flatten()
            .filter(|pr| targets_own(pr))
            .filter_map(|pr| pr.number)
            .collect(),
        url: run.html_url,
        number: run.id,
    })
}

fn ci_run(env: &Environment) -> CiRun {
    let owned = |name: &str| env.get(name).map(str::to_owned);
    let base_url = |name: &str| env.get(name).map(|url| url.trim_end_matches('/').to_owned());
    let server_url = base_url("GITHUB_SERVER_URL");
    let run_url = || {
        let (server, id) = (server_url.as_deref()?, env.get("GITHUB_RUN_ID")?);
        let run = format!("{server}/{}/actions/runs/{id}", env.get("GITHUB_REPOSITORY")?);
        Some(match env.get("GITHUB_RUN_ATTEMPT") {
            Some(attempt) => format!("{run}/attempts/{attempt}"),
            None => run,
        })
    };
    CiRun {
        run_url: run_url(),
        api_url: base_url("GITHUB_API_URL"),
        workflow: owned("GITHUB_WORKFLOW"),
        job: owned("GITHUB_JOB"),
        step_summary: env.get("GITHUB_STEP_SUMMARY").map(PathBuf::from),
        output: env.get("GITHUB_OUTPUT").map(PathBuf::from),
        completed_run: None,
        number: env.get("GITHUB_RUN_ID").and_then(|number| number.parse().ok()),
        proposal: Proposal::default(),
        server_url,
    }
}

fn full_name(repository: &Option<Repository>) -> Option<String> {
    repository.as_ref()?.full_name.as_deref().and_then(super::repository)
}

#[derive(Deserialize)]
struct PullRequestPayload {
    action: Option<String>,
    label: Option<Label>,
    pull_request: Option<PullRequest>,
    repository: Option<Repository>,
    sender: Option<User>,
}

#[derive(Deserialize)]
struct User {
    login: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct PullRequest {
    number: Option<u64>,
    head: Option<Tip>,
    base: Option<Tip>,
    labels: Option<Vec<Label>>,
    user: Option<User>,
    updated_at: Option<String>,
}

#[derive(Default, Deserialize)]
struct Tip {
    sha: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    repo: Option<Repository>,
}

#[derive(Deserialize)]
struct Label {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    id: Option<u64>,
    full_name: Option<String>,
}

#[derive(Deserialize)]
struct PushPayload {
    #[serde(rename = "ref")]
    reference: Option<String>,
    before: Option<String>,
    after: Option<String>,
    deleted: Option<bool>,
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct MergeGroupPayload {
    action: Option<String>,
    merge_group: Option<MergeGroup>,
    repository: Option<Repository>,
}

#[derive(Default, Deserialize)]
struct MergeGroup {
    head_sha: Option<String>,
    head_ref: Option<String>,
    base_sha: Option<String>,
    base_ref: Option<String>,
}

#[derive(Deserialize)]
struct WorkflowRunPayload {
    action: Option<String>,
    workflow_run: Option<WorkflowRun>,
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct WorkflowRun {
    id: Option<u64>,
    event: Option<String>,
    conclusion: Option<String>,
    head_sha: Option<String>,
    head_branch: Option<String>,
    head_repository: Option<Repository>,
    pull_requests: Option<Vec<RunPullRequest>>,
    html_url: Option<String>,
}

#[derive(Deserialize)]
struct RunPullRequest {
    number: Option<u64>,
    base: Option<RunBase>,
}

#[derive(Deserialize)]
struct RunBase {
    repo: Option<Repository>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{self, Exit};

    const EVENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/github/events/");
    const HEAD: &str = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";
    const BASE: &str = "f95f852bd8fca8fcc58a9a2d6c842781e32a215e";
    const MERGE: &str = "1111111111111111111111111111111111111111";

    fn example(file: &str) -> String {
        std::fs::read_to_string(format!("{EVENTS}{file}.json")).unwrap()
    }

    fn actions() -> Environment {
        [
            ("GITHUB_EVENT_PATH", "/github/workflow/event.json"),
            ("GITHUB_REPOSITORY", "octo-org/octo-repo"),
            ("GITHUB_REF", "refs/pull/2/merge"),
            ("GITHUB_SHA", MERGE),
            ("GITHUB_SERVER_URL", "https://github.com/"),
            ("GITHUB_API_URL", "https://api.github.com"),
            ("GITHUB_RUN_ID", "1589141559"),
            ("GITHUB_RUN_ATTEMPT", "2"),
            ("GITHUB_WORKFLOW", "Benchmarks"),
            ("GITHUB_JOB", "perf"),
            ("GITHUB_STEP_SUMMARY", "/tmp/summary"),
        ]
        .into_iter()
        .collect()
    }

    fn event(name: &str, payload: &str) -> Event {
        parse(name, payload, &actions()).unwrap().0
    }

    #[test]
    fn every_example_payload_of_github_is_parsed() {
        let labeled = ("pull_request", Some("labeled"), Some(2), false, vec!["bug"], Some(HEAD), Some(BASE));
        let with = |action| ("pull_request", Some(action), labeled.2, false, labeled.4.clone(), labeled.5, labeled.6);
        let opened = ("pull_request", Some("opened"), Some(2), false, vec![], Some(HEAD), Some(BASE));
        let queued = (
            "merge_group",
            Some("checks_requested"),
            Some(104),
            false,
            vec![],
            Some("2ffea6db159f6b6c47a24e778fb9ef40cf6b1c7d"),
            Some("380387fbc80638b734a49e1be1c4dfec1c01b33c"),
        );
        let push = ("push", None, None, false, vec![], Some("6113728f27ae82c7b1a177c8d03f9e96e0adf246"), None);
        let other = |name, action| (name, action, None, false, vec![], Some(MERGE), None);
        let expected = [
            ("merge_group.checks_requested", queued),
            ("pull_request.closed", with("closed")),
            ("pull_request.labeled", labeled.clone()),
            ("pull_request.opened", opened),
            ("pull_request.reopened", with("reopened")),
            ("pull_request.synchronize", with("synchronize")),
            ("pull_request.unlabeled", with("unlabeled")),
            ("push", push),
            ("workflow_dispatch", other("workflow_dispatch", None)),
            ("workflow_run.completed", other("workflow_run", Some("completed"))),
            ("workflow_run.requested", other("workflow_run", Some("requested"))),
        ];
        for (file, (name, action, pull_request, fork, labels, head, base)) in &expected {
            let event = event(name, &example(file));
            assert_eq!(event.action.as_deref(), *action, "{file}");
            assert_eq!(event.pull_request, *pull_request, "{file}");
            assert_eq!(event.fork, *fork, "{file}");
            assert_eq!(event.labels, *labels, "{file}");
            assert_eq!(event.head_sha.as_deref(), *head, "{file}");
            assert_eq!(event.base_sha.as_deref(), *base, "{file}");
        }
        let files = std::fs::read_dir(EVENTS).unwrap().count();
        assert_eq!(files, expected.len(), "an example has no line in this table");
    }

    #[test]
    fn a_labeled_pull_request_has_its_branches_and_the_label_that_was_added() {
        let event = event("pull_request", &example("pull_request.labeled"));
        assert_eq!(event.changed_label.as_deref(), Some("bug"));
        assert_eq!((event.branch.as_deref(), event.base_branch.as_deref()), (Some("changes"), Some("master")));
        assert_eq!(event.repository.as_deref(), Some("Codertocat/Hello-World"));
    }

    #[test]
    fn a_head_repository_that_is_another_or_deleted_is_a_fork() {
        let mut payload: serde_json::Value = serde_json::from_str(&example("pull_request.opened")).unwrap();
        payload["pull_request"]["head"]["repo"]["full_name"] = "other/Hello-World".into();
        assert!(event("pull_request", &payload.to_string()).fork);
        payload["pull_request"]["head"]["repo"] = serde_json::Value::Null;
        assert!(event("pull_request", &payload.to_string()).fork);
    }

    #[test]
    fn a_merge_group_names_its_target_branch() {
        let event = event("merge_group", &example("merge_group.checks_requested"));
        assert_eq!(event.base_branch.as_deref(), Some("main"));
        let branch = "gh-readonly-queue/main/pr-104-929f8209d40f77f4abc622a499c93a83babdbe64";
        assert_eq!(event.branch.as_deref(), Some(branch));
    }

    #[test]
    fn a_push_is_its_branch_and_both_tips() {
        let payload =
            format!(r#"{{"ref": "refs/heads/main", "before": "{BASE}", "after": "{HEAD}", "deleted": false}}"#);
        let event = event("push", &payload);
        assert_eq!(event.branch.as_deref(), Some("main"));
        assert_eq!((event.head_sha.as_deref(), event.base_sha.as_deref()), (Some(HEAD), Some(BASE)));
        assert_eq!(event.repository.as_deref(), Some("octo-org/octo-repo"));
    }

    #[test]
    fn a_push_that_deletes_its_branch_has_no_head() {
        let zeros = "0".repeat(40);
        let payload =
            format!(r#"{{"ref": "refs/heads/main", "before": "{BASE}", "after": "{zeros}", "deleted": true}}"#);
        let event = event("push", &payload);
        assert_eq!((event.action.as_deref(), event.head_sha), (Some("deleted"), None));
    }

    #[test]
    fn a_pushed_tag_has_no_branch() {
        assert_eq!(event("push", &example("push")).branch, None);
    }

    #[test]
    fn the_run_url_names_the_attempt() {
        let (_, run) = parse("push", "{}", &actions()).unwrap();
        let url = "https://github.com/octo-org/octo-repo/actions/runs/1589141559/attempts/2";
        assert_eq!(run.run_url.as_deref(), Some(url));
        assert_eq!((run.workflow.as_deref(), run.job.as_deref()), (Some("Benchmarks"), Some("perf")));
        assert_eq!(run.server_url.as_deref(), Some("https://github.com"));
        assert_eq!(run.api_url.as_deref(), Some("https://api.github.com"));
        assert_eq!(run.step_summary, Some(PathBuf::from("/tmp/summary")));
        assert_eq!(run.output, None);
    }

    #[test]
    fn a_workflow_run_has_the_run_that_completed() {
        let mut payload: serde_json::Value = serde_json::from_str(&example("workflow_run.completed")).unwrap();
        let ours = payload["repository"]["id"].clone();
        payload["workflow_run"]["conclusion"] = "success".into();
        payload["workflow_run"]["pull_requests"] = serde_json::json!([
            {"number": 7, "base": {"repo": {"id": ours}}},
            {"number": 8, "base": {"repo": {"id": 1}}},
        ]);
        let (_, run) = parse("workflow_run", &payload.to_string(), &actions()).unwrap();
        let expected = CompletedRun {
            event: "workflow_dispatch".into(),
            conclusion: Some("success".into()),
            head_sha: "5779607b49aab1200488439f02372c57b4f75444".into(),
            head_branch: "main".into(),
            head_repository: Some("octo-org/octo-repo".into()),
            pull_requests: vec![7],
            url: Some("https://github.com/octo-org/octo-repo/actions/runs/1589141559".into()),
            number: Some(1_589_141_559),
        };
        assert_eq!(run.completed_run, Some(expected));
    }

    #[test]
    fn an_unknown_event_has_no_pull_request_and_is_not_an_error() {
        for (name, payload) in [
            ("schedule", r#"{"schedule": "0 4 * * *"}"#),
            ("issue_comment", r#"{"action": ["odd"], "number": "seven", "pull_request": 3}"#),
            ("from_the_future", "null"),
        ] {
            let event = event(name, payload);
            assert_eq!((event.name.as_str(), event.pull_request, event.fork), (name, None, false));
            assert_eq!(event.head_sha.as_deref(), Some(MERGE));
        }
    }

    #[test]
    fn a_payload_without_its_fields_is_not_an_error() {
        for name in ["pull_request", "pull_request_target", "push", "merge_group", "workflow_run"] {
            assert_eq!(event(name, "{}").pull_request, None, "{name}");
        }
        assert_eq!(event("pull_request", "{}").head_sha, None, "the merge commit is never the head");
        let nulls = r#"{"action": null, "label": null, "pull_request": {"number": 3, "head": null, "labels": null}}"#;
        assert_eq!(event("pull_request", nulls).pull_request, Some(3));
    }

    #[test]
    fn a_payload_that_is_not_json_is_a_mistake_that_names_the_file() {
        for name in ["pull_request", "schedule"] {
            let error = parse(name, "<html>", &actions()).unwrap_err();
            assert_eq!(exit::of(&error), Exit::Mistake);
            let text = format!("{error:#}");
            assert!(text.contains("GITHUB_EVENT_PATH (/github/workflow/event.json)"), "{text}");
        }
    }
}
