//! The trigger: the decision to benchmark an event, or to skip it with a reason that states what would start a run.

use anyhow::bail;
use indexmap::IndexMap;
use vllm_verdict::v1::{DeviceName, Event, Provider};

use crate::exit::Classify;
use crate::plan::Trigger;
use crate::plan::config::{DeviceConfig, TriggerConfig};

/// Decides whether to benchmark an event. The reason is one or two sentences, the first without a capital letter, so that
/// it can follow "Not benchmarked: "; names are in backquotes.
///
/// A pull request runs if it has all labels of `config`, compared exactly. A push, a schedule and a manual run are
/// benchmarked on the branches of `config`. A local run is always benchmarked. Everything else is skipped.
///
/// # Errors
/// The user's mistake: the event is `pull_request_target`, which would run untrusted code with the repository's
/// permissions.
pub fn decide(
    event: &Event,
    config: &TriggerConfig,
    devices: &IndexMap<DeviceName, DeviceConfig>,
    tier_labels: &[&str],
) -> anyhow::Result<Trigger> {
    if event.provider == Provider::Local {
        return Ok(run("it is a local run.".to_owned()));
    }
    match event.name.as_str() {
        "pull_request" => Ok(pull_request(event, config, devices, tier_labels)),
        "pull_request_target" => refuse_pull_request_target(),
        "push" => Ok(push(event, config)),
        "schedule" => Ok(requested(event, config, "a schedule")),
        "workflow_dispatch" => Ok(requested(event, config, "a manual run")),
        name => Ok(skip(format!("`{name}` events are not benchmarked. {}", how_to_run(config)))),
    }
}

/// The devices that this event is measured on, in the order of `devices`: those whose label the pull request has, or all
/// of them if it has none of their labels.
pub fn narrowed(event: &Event, devices: &IndexMap<DeviceName, DeviceConfig>) -> Vec<DeviceName> {
    let labelled = |device: &DeviceConfig| device.label.as_ref().is_some_and(|label| event.labels.contains(label));
    let chosen: Vec<_> = devices.iter().filter(|(_, device)| labelled(device)).map(|(name, _)| *name).collect();
    if chosen.is_empty() { devices.keys().copied().collect() } else { chosen }
}

fn pull_request(
    event: &Event,
    config: &TriggerConfig,
    devices: &IndexMap<DeviceName, DeviceConfig>,
    tier_labels: &[&str],
) -> Trigger {
    let action = event.action.as_deref();
    if action == Some("closed") {
        return skip("the pull request is closed. Reopen it to run it.".to_owned());
    }
    let (present, missing): (Vec<&str>, Vec<&str>) =
        config.labels.iter().map(String::as_str).partition(|label| event.labels.iter().any(|has| has == label));
    if !missing.is_empty() {
        return skip(format!(
            "{} Add {} to run it.{}",
            missing_labels(&present, &missing),
            names(&missing),
            similar_label(event, &missing)
        ));
    }
    let changed = event.changed_label.as_deref();
    let starts = |label: &str| {
        let of_devices = devices.values().filter_map(|device| device.label.as_ref());
        config.labels.iter().chain(of_devices).any(|known| known == label) || tier_labels.contains(&label)
    };
    match (action, changed) {
        (Some("unlabeled"), _) => {
            let label = changed.map_or("a label".to_owned(), |label| format!("the label `{label}`"));
            skip(format!("{label} was removed, which does not start a benchmark. Push a commit to run it."))
        }
        (Some("labeled"), Some(label)) if !starts(label) => skip(format!(
            "the label `{label}` was added, which is neither a trigger label nor the label of a device or of a tier. Push a commit to run it."
        )),
        _ if present.is_empty() => run("pull requests need no label in this repository.".to_owned()),
        _ => run(format!("the pull request has {}.", names(&present))),
    }
}

fn missing_labels(present: &[&str], missing: &[&str]) -> String {
    match (present, missing) {
        ([], [one]) => format!("the pull request does not have `{one}`."),
        ([], [one, other]) => format!("the pull request has neither `{one}` nor `{other}`."),
        ([], _) => format!("the pull request has none of {}.", names(missing)),
        (_, [one]) => format!("the pull request has {} but not `{one}`.", names(present)),
        _ => format!("the pull request has {} but not {}.", names(present), names(missing)),
    }
}

/// A sentence on a label that differs only in case. GitHub does not allow both, so the missing one cannot be added.
fn similar_label(event: &Event, missing: &[&str]) -> String {
    let other = |label: &str| event.labels.iter().find(|has| has.eq_ignore_ascii_case(label));
    missing.iter().find_map(|label| other(label)).map_or_else(String::new, |label| {
        format!(" Its `{label}` is spelled differently: labels are compared exactly.")
    })
}

fn push(event: &Event, config: &TriggerConfig) -> Trigger {
    match event.branch.as_deref() {
        _ if event.action.as_deref() == Some("deleted") => {
            skip(format!("the push deleted its branch. {}", how_to_run(config)))
        }
        None => skip(format!("a pushed tag is not benchmarked. {}", how_to_run(config))),
        Some(branch) if config.branches.iter().any(|name| name == branch) => run(format!("`{branch}` was pushed.")),
        Some(branch) => skip(format!("pushes to `{branch}` are not benchmarked. {}", how_to_run(config))),
    }
}

/// A run of `kind` that was not started by a change, on a branch.
fn requested(event: &Event, config: &TriggerConfig, kind: &str) -> Trigger {
    match event.branch.as_deref() {
        Some(branch) if config.branches.iter().any(|name| name == branch) => {
            run(format!("it is {kind} on `{branch}`."))
        }
        Some(branch) => skip(format!("{kind} on `{branch}` is not benchmarked. {}", how_to_run(config))),
        None => skip(format!("{kind} without a branch is not benchmarked. {}", how_to_run(config))),
    }
}

fn refuse_pull_request_target() -> anyhow::Result<Trigger> {
    let refuse = || -> anyhow::Result<Trigger> {
        bail!(
            "`pull_request_target` is refused: the pull request's code would run with the repository's token and \
             secrets; use `on: pull_request`, and comment on forks from a `workflow_run` workflow"
        )
    };
    refuse().mistake()
}

/// How to start a benchmark.
fn how_to_run(config: &TriggerConfig) -> String {
    let branches: Vec<&str> = config.branches.iter().map(String::as_str).collect();
    let labels: Vec<&str> = config.labels.iter().map(String::as_str).collect();
    let with = if labels.is_empty() { String::new() } else { format!(" with {}", names(&labels)) };
    let rest = format!("pen a pull request{with}, or run with `--provider local`.");
    if branches.is_empty() { format!("O{rest}") } else { format!("Push to {}, o{rest}", listed(&branches, "or")) }
}

fn names(labels: &[&str]) -> String {
    listed(labels, "and")
}

fn listed(labels: &[&str], word: &str) -> String {
    match labels {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first @ .., last] => format!("`{}` {word} `{last}`", first.join("`, `")),
    }
}

fn run(reason: String) -> Trigger {
    Trigger { run: true, reason }
}

fn skip(reason: String) -> Trigger {
    Trigger { run: false, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ci::event::{github_event, local_event};
    use crate::environment::Environment;
    use crate::exit::{self, Exit};
    use crate::plan::config::Config;

    const LABELED: &str = include_str!("../../tests/data/github/events/pull_request.labeled.json");

    fn github(name: &str, payload: &str) -> Event {
        github_event::parse(name, payload, &Environment::default()).unwrap().0
    }

    /// GitHub's example of a labeled pull request, with other labels.
    fn labeled(labels: &[&str], added: &str) -> Event {
        let mut payload: serde_json::Value = serde_json::from_str(LABELED).unwrap();
        payload["pull_request"]["labels"] = labels.iter().map(|name| serde_json::json!({"name": name})).collect();
        payload["label"]["name"] = added.into();
        github("pull_request", &payload.to_string())
    }

    fn decided(event: &Event) -> String {
        let config = Config::default();
        let trigger = decide(event, &config.trigger, &config.devices, &["perf-full"]).unwrap();
        format!("{}: {}", if trigger.run { "run" } else { "skip" }, trigger.reason)
    }

    #[test]
    fn a_pull_request_runs_with_all_the_labels() {
        let event = labeled(&["ready", "bug", "perf-benchmarks"], "ready");
        assert_eq!(decided(&event), "run: the pull request has `perf-benchmarks` and `ready`.");
    }

    #[test]
    fn a_pull_request_without_all_the_labels_is_skipped_with_those_to_add() {
        for (labels, expected) in [
            (
                &["perf-benchmarks"][..],
                "skip: the pull request has `perf-benchmarks` but not `ready`. Add `ready` to run it.",
            ),
            (
                &["bug"],
                "skip: the pull request has neither `perf-benchmarks` nor `ready`. Add `perf-benchmarks` and `ready` to run it.",
            ),
            (
                &["ready", "Perf-Benchmarks"],
                "skip: the pull request has `ready` but not `perf-benchmarks`. Add `perf-benchmarks` to run it. \
                 Its `Perf-Benchmarks` is spelled differently: labels are compared exactly.",
            ),
            (
                &["ready", "perf-benchmarks-extra"],
                "skip: the pull request has `ready` but not `perf-benchmarks`. Add `perf-benchmarks` to run it.",
            ),
        ] {
            assert_eq!(decided(&labeled(labels, "perf-benchmarks")), expected);
        }
    }

    #[test]
    fn an_unrelated_label_starts_nothing() {
        let all = ["perf-benchmarks", "ready", "perf-cpu", "bug"];
        let unrelated = "was added, which is neither a trigger label nor the label of a device or of a tier. Push a commit to run it.";
        assert_eq!(decided(&labeled(&all, "bug")), format!("skip: the label `bug` {unrelated}"));
        assert_eq!(decided(&labeled(&all, "🐛 bug")), format!("skip: the label `? bug` {unrelated}"));
        for label in ["perf-cpu", "perf-full"] {
            assert!(decided(&labeled(&all, label)).starts_with("run: "), "{label}");
        }
    }

    #[test]
    fn a_removed_label_and_a_closed_pull_request_start_nothing() {
        let mut event = labeled(&["perf-benchmarks", "ready"], "bug");
        event.action = Some("unlabeled".to_owned());
        let reason = "skip: the label `bug` was removed, which does not start a benchmark. Push a commit to run it.";
        assert_eq!(decided(&event), reason);
        event.action = Some("closed".to_owned());
        assert_eq!(decided(&event), "skip: the pull request is closed. Reopen it to run it.");
    }

    #[test]
    fn a_new_commit_runs_whatever_label_was_added_last() {
        let mut event = labeled(&["perf-benchmarks", "ready"], "bug");
        (event.action, event.changed_label) = (Some("synchronize".to_owned()), None);
        assert!(decided(&event).starts_with("run: "));
    }

    #[test]
    fn a_push_runs_on_the_branches_of_the_config_alone() {
        let sha = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";
        let push = |reference: &str, rest: &str| {
            decided(&github("push", &format!(r#"{{"ref": "{reference}", "after": "{sha}"{rest}}}"#)))
        };
        let way =
            "Push to `main`, open a pull request with `perf-benchmarks` and `ready`, or run with `--provider local`.";
        assert_eq!(push("refs/heads/main", ""), "run: `main` was pushed.");
        assert_eq!(push("refs/heads/main2", ""), format!("skip: pushes to `main2` are not benchmarked. {way}"));
        assert_eq!(push("refs/tags/main", ""), format!("skip: a pushed tag is not benchmarked. {way}"));
        let deleted = format!("skip: the push deleted its branch. {way}");
        assert_eq!(push("refs/heads/main", r#", "deleted": true"#), deleted);
    }

    #[test]
    fn a_schedule_and_a_manual_run_are_benchmarked_on_the_branches_of_the_config_alone() {
        let on = |name: &str, reference: &str| {
            let environment: Environment = [("GITHUB_REF", reference)].into_iter().collect();
            decided(&github_event::parse(name, "{}", &environment).unwrap().0)
        };
        assert_eq!(on("schedule", "refs/heads/main"), "run: it is a schedule on `main`.");
        assert_eq!(on("workflow_dispatch", "refs/heads/main"), "run: it is a manual run on `main`.");
        let other = on("workflow_dispatch", "refs/heads/x");
        assert!(other.starts_with("skip: a manual run on `x` is not benchmarked. Push to `main`, "), "{other}");
        assert!(on("schedule", "refs/tags/v1").starts_with("skip: a schedule without a branch is not benchmarked. "));
    }

    #[test]
    fn every_other_event_is_skipped_and_the_reason_states_what_would_run() {
        for name in ["merge_group", "workflow_run", "from_the_future"] {
            let expected = format!(
                "skip: `{name}` events are not benchmarked. Push to `main`, open a pull request with `perf-benchmarks` \
                 and `ready`, or run with `--provider local`."
            );
            assert_eq!(decided(&github(name, "{}")), expected);
        }
    }

    #[test]
    fn a_local_run_is_always_benchmarked() {
        assert_eq!(decided(&local_event::event(&[], None)), "run: it is a local run.");
    }

    #[test]
    fn pull_request_target_is_refused_with_an_explanation() {
        let config = Config::default();
        let event = github("pull_request_target", LABELED);
        let error = decide(&event, &config.trigger, &config.devices, &[]).unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake);
        assert!(error.to_string().contains("use `on: pull_request`"), "{error}");
    }

    #[test]
    fn a_config_without_labels_or_branches_has_grammatical_reasons() {
        let none = TriggerConfig { labels: Vec::new(), branches: Vec::new(), ..TriggerConfig::default() };
        let decide = |event: &Event| decide(event, &none, &IndexMap::new(), &[]).unwrap();
        let opened = github("pull_request", &LABELED.replace("\"labeled\"", "\"opened\""));
        assert_eq!(decide(&opened).reason, "pull requests need no label in this repository.");
        let reason = "`delete` events are not benchmarked. Open a pull request, or run with `--provider local`.";
        assert_eq!(decide(&github("delete", "{}")).reason, reason);
    }

    #[test]
    fn device_labels_restrict_the_devices_and_without_any_all_are_measured() {
        let devices = Config::default().devices;
        assert_eq!(
            narrowed(&labeled(&["ready", "perf-gpu", "perf-cpu"], "ready"), &devices),
            [DeviceName::Cpu, DeviceName::Cuda]
        );
        let all = [DeviceName::Cpu, DeviceName::Arm64Cpu, DeviceName::Cuda];
        assert_eq!(narrowed(&labeled(&["ready", "perf"], "ready"), &devices), all);
    }
}
