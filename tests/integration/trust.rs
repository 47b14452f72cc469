//! What a pull request decides, and what it does not: settings, base and consent, with a fake GitHub and real repositories.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use vllm_perf::plan::Plan;

use super::base::git;
use super::fake_github::{ACTIONS_TOKEN, FakeGithub};
use super::run::{SUITE, program, text};

const REPOSITORY: &str = "octo-org/octo-repo";
const BASE: &str = "1111111111111111111111111111111111111111";
const HEAD: &str = "2222222222222222222222222222222222222222";
const STRICT: &str = "trigger: {labels: [bench]}\n";
const LAX: &str = "trigger: {labels: []}\n";

/// A pull request of a fork, without labels.
fn payload(base: &str, head: &str) -> Value {
    json!({
        "action": "synchronize", "number": 42, "repository": {"full_name": REPOSITORY},
        "sender": {"login": "stranger", "type": "User"},
        "pull_request": {
            "number": 42, "labels": [], "user": {"login": "stranger", "type": "User"}, "updated_at": "2026-01-01T12:00:00Z",
            "head": {"sha": head, "ref": "x", "repo": {"full_name": "stranger/octo-repo"}},
            "base": {"sha": base, "ref": "main", "repo": {"full_name": REPOSITORY}},
        },
    })
}

fn command(folder: &Path, event: &Value, words: &[&str]) -> Command {
    let path = folder.parent().unwrap().join("event.json");
    fs::write(&path, event.to_string()).unwrap();
    let mut asked = program(&["plan", "--device", "cpu", "--suite", SUITE, "--format", "json"]);
    asked.env("GITHUB_ACTIONS", "true").env("GITHUB_EVENT_NAME", "pull_request").env("GITHUB_EVENT_PATH", path);
    asked.env("GITHUB_REPOSITORY", REPOSITORY).env("GIT_CONFIG_GLOBAL", "/dev/null").args(words).current_dir(folder);
    asked
}

/// Whether it runs, and its first notice.
fn planned(asked: &mut Command) -> (bool, String) {
    let output = asked.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let plan: Plan = serde_json::from_slice(&output.stdout).unwrap();
    (plan.trigger.run, plan.notices.first().cloned().unwrap_or_default())
}

const SIDES: [&str; 4] = ["--base", "none", "--head", "sim"];

/// A repository in `folder/pr`, of which the first commit has `vllm-perf.yml`.
fn repository(folder: &Path) -> (std::path::PathBuf, String) {
    let root = folder.join("pr");
    fs::create_dir(&root).unwrap();
    git(&root, &["init", "--quiet"]);
    fs::write(root.join("vllm-perf.yml"), STRICT).unwrap();
    (root.clone(), commit(&root))
}

fn commit(root: &Path) -> String {
    git(root, &["add", "--all"]);
    git(root, &["commit", "--quiet", "--allow-empty", "--message", "x"]);
    git(root, &["rev-parse", "HEAD"])
}

#[test]
fn no_file_or_link_of_the_head_decides() {
    let attacks: [fn(&Path); 6] = [
        |root| fs::write(root.join("vllm-perf.yml"), LAX).unwrap(),
        |root| {
            fs::remove_file(root.join("vllm-perf.yml")).unwrap();
            fs::create_dir(root.join(".github")).unwrap();
            fs::write(root.join(".github/vllm-perf.yml"), LAX).unwrap();
        },
        |root| {
            fs::remove_file(root.join("vllm-perf.yml")).unwrap();
            fs::create_dir(root.join("bk")).unwrap();
            fs::write(root.join("bk/vllm-perf.yml"), LAX).unwrap();
            symlink("bk", root.join(".buildkite")).unwrap();
        },
        |root| {
            fs::remove_file(root.join("vllm-perf.yml")).unwrap();
            fs::write(root.join("lax.yml"), LAX).unwrap();
            symlink("lax.yml", root.join("vllm-perf.yml")).unwrap();
        },
        // Two files, which is a mistake outside a pull request.
        |root| {
            fs::create_dir(root.join(".github")).unwrap();
            fs::write(root.join(".github/vllm-perf.yml"), LAX).unwrap();
        },
        |root| {
            fs::remove_file(root.join("vllm-perf.yml")).unwrap();
            symlink("/dev/zero", root.join("vllm-perf.yml")).unwrap();
        },
    ];
    for (number, attack) in attacks.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let (root, base) = repository(folder.path());
        attack(&root);
        let event = payload(&base, &commit(&root));
        let (runs, _) = planned(command(&root, &event, &SIDES).arg("--config").arg("vllm-perf.yml"));
        assert!(!runs, "attack {number}");
        let (runs, notice) = planned(&mut command(&root, &event, &SIDES));
        assert!(!runs && !notice.is_empty(), "attack {number}: {notice}");
    }
}

#[test]
fn a_named_file_counts_outside_the_checkout_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (root, base) = repository(folder.path());
    fs::write(root.join("lax.yml"), LAX).unwrap();
    fs::write(folder.path().join("operator.yml"), LAX).unwrap();
    symlink(root.join("lax.yml"), folder.path().join("leads-back.yml")).unwrap();
    symlink("../operator.yml", root.join("leads-out.yml")).unwrap();
    let event = payload(&base, &commit(&root));
    let with = |path: &str| command(&root, &event, &SIDES).args(["--config", path]).output().unwrap();
    let runs = |path: &str| serde_json::from_slice::<Plan>(&with(path).stdout).is_ok_and(|plan| plan.trigger.run);
    assert!(runs("../operator.yml"), "{}", text(&with("../operator.yml")));
    for path in ["lax.yml", "./lax.yml", "../pr/lax.yml", "leads-out.yml", "../leads-back.yml"] {
        assert!(!runs(path), "{path}");
    }
    let absolute = root.join("lax.yml").display().to_string();
    assert!(!runs(&absolute));
    // Another checkout of the same head.
    git(folder.path(), &["clone", "--quiet", "pr", "again"]);
    assert_eq!(with("../again/lax.yml").status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_base_is_not_in_the_clone_the_api_tells_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("pr");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("vllm-perf.yml"), LAX).unwrap();
    let fake = FakeGithub::start().await;
    let asked = |event: &Value, token: &str| {
        let mut asked = command(&root, event, &SIDES);
        planned(asked.env("GITHUB_API_URL", &fake.url).env("GITHUB_TOKEN", token))
    };
    let event = payload(BASE, HEAD);
    let put = |path: &str, kind: &'static str, text: &str| {
        fake.world(|world| {
            world.files.clear();
            world.files.insert((BASE.to_owned(), path.to_owned()), (kind, text.to_owned()));
        });
    };
    let unknown = "The settings of the base (1111111) are not known";
    assert!(asked(&event, ACTIONS_TOKEN).1.starts_with(unknown), "the token sees no such commit");
    assert!(asked(&event, "").1.starts_with(unknown), "there is no token");
    assert!(asked(&event, "ghs_revoked0123456789").1.starts_with(unknown), "the token is refused");
    put(".github/vllm-perf.yml", "link", LAX);
    assert!(asked(&event, ACTIONS_TOKEN).1.starts_with(unknown), "a link is not followed");
    put("README.md", "file", "");
    let (runs, notice) = asked(&event, ACTIONS_TOKEN);
    assert!(!runs && notice.starts_with("The pull request adds settings"), "{notice}");
    put(".buildkite/vllm-perf.yml", "file", "trigger: {labels: [], forks: never}\n");
    assert!(!asked(&event, ACTIONS_TOKEN).0, "forks are skipped, as base says");
    put(".buildkite/vllm-perf.yml", "file", LAX);
    assert!(asked(&event, ACTIONS_TOKEN).0, "base asks for no label");
    assert_eq!(fake.violations(), Vec::<String>::new());
}

#[test]
fn a_name_of_base_is_a_branch_and_recorded_results_are_none_of_the_pull_request() {
    let folder = tempfile::tempdir().unwrap();
    let (root, base) = repository(folder.path());
    let results = |at: &Path| {
        fs::create_dir_all(at.join("head/01")).unwrap();
        fs::write(at.join("plan.json"), "{}").unwrap();
    };
    results(&root.join("main"));
    results(&folder.path().join("earlier"));
    symlink(folder.path().join("earlier"), root.join("linked")).unwrap();
    // The branch of the pull request is called as the workflow's base.
    git(&root, &["branch", "--move", "release"]);
    let event = payload(&base, &commit(&root));
    results(&root.join("downloaded"));
    let with = |name: &str| {
        let output = command(&root, &event, &["--base", name, "--head", "sim"]).output().unwrap();
        let plan: Option<Plan> = serde_json::from_slice(&output.stdout).ok();
        (plan.and_then(|plan| plan.recorded_base), text(&output))
    };
    let (recorded, shown) = with("main");
    assert_eq!(recorded, None, "{shown}");
    for name in ["results:main", "results:./main", "results:linked", "results:../pr/main", "results:missing", "release"]
    {
        let (recorded, shown) = with(name);
        assert!(recorded.is_none() && !shown.contains("panicked"), "{name}: {shown}");
    }
    for name in ["results:../earlier", "results:downloaded"] {
        let (recorded, shown) = with(name);
        assert!(recorded.is_some(), "{name}: {shown}");
    }
}

#[test]
fn a_store_in_the_checkout_is_not_read_for_a_pull_request() {
    let folder = tempfile::tempdir().unwrap();
    let (root, base) = repository(folder.path());
    let event = payload(&base, &commit(&root));
    for (store, read) in [("noise", false), ("../pr/noise", false), ("../noise", true), ("s3://bucket", true)] {
        let (_, notice) = planned(command(&root, &event, &SIDES).args(["--store", store]));
        assert_eq!(notice.is_empty(), read, "{store}: {notice}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_of_a_fork_counts_for_the_commit_that_it_was_set_on() {
    let folder = tempfile::tempdir().unwrap();
    let (root, base) = repository(folder.path());
    let mut event = payload(&base, &commit(&root));
    event["pull_request"]["labels"] = json!([{"name": "bench"}]);
    let fake = FakeGithub::start().await;
    fake.world(|world| {
        let mut pull = super::publish::pull("stranger/octo-repo");
        pull.labels = vec!["bench".to_owned()];
        world.pulls.insert(42, pull);
    });
    // The image of the event's commit: the code of the pull request.
    let asked = |event: &Value, token: &str| {
        let mut asked = command(&root, event, &["--base", "none"]);
        planned(asked.env("GITHUB_API_URL", &fake.url).env("GITHUB_TOKEN", token)).0
    };
    let labelled = |by: &str, kind: &str, at: &str| {
        let entry = json!({"event": "labeled", "label": {"name": "bench"}, "actor": {"login": by, "type": kind}, "created_at": at});
        fake.world(|world| world.timeline = vec![entry]);
    };
    let (before, after) = ("2026-01-01T11:59:59Z", "2026-01-01T12:00:01Z");
    assert!(!asked(&event, ""), "without a token nobody knows");
    for (by, kind, at) in [
        ("maintainer", "User", before),
        ("maintainer", "User", "2026-01-01T12:00:00Z"),
        ("Stranger", "User", after),
        ("labeler[bot]", "Bot", after),
    ] {
        labelled(by, kind, at);
        assert!(!asked(&event, ACTIONS_TOKEN), "{by} {at}");
    }
    labelled("maintainer", "User", after);
    assert!(asked(&event, ACTIONS_TOKEN));

    // The event itself says who set the label on this commit.
    (event["action"], event["label"]) = (json!("labeled"), json!({"name": "bench"}));
    event["sender"]["login"] = json!("maintainer");
    assert!(asked(&event, ""));
    event["sender"]["login"] = json!("stranger");
    assert!(!asked(&event, ""), "the author set it");
    event["sender"] = json!({"login": "labeler", "type": "Bot"});
    assert!(!asked(&event, ""), "a program set it");
    event["pull_request"]["head"]["repo"]["full_name"] = json!(REPOSITORY);
    assert!(asked(&event, ""), "not a fork");
    assert_eq!(fake.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_forks_need_an_approval_it_is_one_of_this_commit_by_a_member() {
    let folder = tempfile::tempdir().unwrap();
    let (root, _) = repository(folder.path());
    fs::write(root.join("vllm-perf.yml"), "trigger: {labels: [], forks: approved}\n").unwrap();
    let base = commit(&root);
    let head = commit(&root);
    let fake = FakeGithub::start().await;
    let asked = |token: &str| {
        let mut asked = command(&root, &payload(&base, &head), &["--base", "none"]);
        planned(asked.env("GITHUB_API_URL", &fake.url).env("GITHUB_TOKEN", token)).0
    };
    assert!(!asked(""));
    for (by, of, relation, state, runs) in [
        ("maintainer", head.as_str(), "MEMBER", "APPROVED", true),
        ("maintainer", base.as_str(), "MEMBER", "APPROVED", false),
        ("maintainer", head.as_str(), "MEMBER", "DISMISSED", false),
        ("passer-by", head.as_str(), "CONTRIBUTOR", "APPROVED", false),
        ("stranger", head.as_str(), "COLLABORATOR", "APPROVED", false),
    ] {
        let user = json!({"login": by, "type": "User"});
        let review = json!({"id": 1, "user": user, "commit_id": of, "author_association": relation, "state": state});
        fake.world(|world| world.reviews = vec![review]);
        assert_eq!(asked(ACTIONS_TOKEN), runs, "{by} {relation} {state}");
    }
}

#[test]
fn a_folder_that_looks_like_a_bare_repository_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (root, base) = repository(folder.path());
    let (bare, canary) = (root.join("perf"), folder.path().join("canary"));
    for part in ["objects", "refs"] {
        fs::create_dir_all(bare.join(part)).unwrap();
        fs::write(bare.join(part).join("keep"), "").unwrap();
    }
    fs::write(bare.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    let run = format!("url = \"ext::touch {}\"\n", canary.display());
    let settings = "[core]\nrepositoryformatversion = 1\nbare = true\nfsmonitor = touch canary\n[extensions]\npartialClone = origin\n\
                    [protocol \"ext\"]\nallow = always\n[remote \"origin\"]\npromisor = true\nfetch = +refs/*:refs/*\n";
    fs::write(bare.join("config"), format!("{settings}{run}")).unwrap();
    let head = commit(&root);
    // git itself takes the folder for a repository, and runs the program.
    let missing = format!("{}^{{commit}}", "3".repeat(40));
    let _ = Command::new("git").args(["rev-parse", "--verify", &missing]).current_dir(&bare).output().unwrap();
    assert!(canary.exists(), "the attack does nothing here");
    fs::remove_file(&canary).unwrap();
    let mut asked = command(&bare, &payload(&base, &head), &["--head", "sim"]);
    let output = asked.env("GITHUB_EVENT_PATH", root.join("event.json")).output().unwrap();
    assert!(output.status.code().is_some());
    assert!(!canary.exists(), "{}", text(&output));
}
