//! The values of `--base`, in a checkout of the test and with a registry on loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::{fs, thread};

use vllm_perf::plan::{Fallback, Plan};

use super::run::{SUITE, program, text};

pub(super) fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A checkout with four commits of main, and a branch that starts at the third: main's commits, and the branch's.
pub(super) fn checkout(folder: &Path) -> (Vec<String>, String) {
    git(folder, &["init", "--quiet"]);
    let commit = |message: &str| {
        git(folder, &["commit", "--quiet", "--allow-empty", "--message", message]);
        git(folder, &["rev-parse", "HEAD"])
    };
    let mut main: Vec<String> = ["one", "two", "three"].map(commit).to_vec();
    git(folder, &["checkout", "--quiet", "-b", "faster"]);
    let head = commit("faster");
    git(folder, &["checkout", "--quiet", "main"]);
    main.push(commit("four"));
    (main, head)
}

/// A registry on loopback that has the manifests of `tags` and no other.
pub(super) fn registry(tags: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let asked = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let found = tags.iter().any(|tag| asked.contains(&format!("/manifests/{tag} ")));
            let status = if found { "200 OK" } else { "404 Not Found" };
            // A manifest of the first schema, without platforms.
            let body = if asked.starts_with("GET ") { r#"{"schemaVersion": 1}"# } else { "" };
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        }
    });
    host
}

fn in_checkout(folder: &Path, command: &str, more: &[&str]) -> Output {
    let mut asked = program(&[command, "--device", "cpu", "--suite", SUITE, "--only", "_64_16_.*_1$"]);
    asked.current_dir(folder).args(more).output().unwrap()
}

#[test]
fn a_branch_as_base_is_its_merge_base_with_head() {
    let folder = tempfile::tempdir().unwrap();
    let (main, head) = checkout(folder.path());
    let base = |more: &[&str]| {
        let output = in_checkout(folder.path(), "plan", &[&["--format", "json"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let plan: Plan = serde_json::from_slice(&output.stdout).unwrap();
        plan.sides.base.unwrap().commit.unwrap()
    };
    assert_eq!(base(&["--base", "main", "--head", &head]), main[2]);
    assert_eq!(base(&["--base", "main", "--head", "sim"]), main[3], "head is not a commit: the tip");
    let unknown = in_checkout(folder.path(), "plan", &["--base", "no-such-branch", "--head", "sim"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown).contains("git does not know it as a branch"), "{}", text(&unknown));
}

#[test]
fn a_missing_base_image_falls_back_only_as_far_as_allowed_and_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (main, _) = checkout(folder.path());
    let host = registry(vec![format!("{}-cpu", main[1])]);
    fs::write(folder.path().join("vllm-perf.yml"), format!("images: {{main: '{host}/vllm', wait: 1ms}}\n")).unwrap();
    let run =
        |most: &str| in_checkout(folder.path(), "run", &["--base", &main[3], "--head", "sim", "--base-fallback", most]);
    let plan = folder.path().join("vllm-perf-out/plan.json");

    let short = run("1");
    assert_eq!(short.status.code(), Some(4), "{}", text(&short));
    assert!(text(&short).contains(&format!("image missing: {host}/vllm:{}-cpu", main[3])), "{}", text(&short));
    assert!(!plan.exists());

    // What follows needs a container engine, which may not be here; the decision is in the plan.
    let output = run("2");
    assert!(text(&output).contains(&format!("base is {}, 2 before it", main[1])), "{}", text(&output));
    let plan: Plan = serde_json::from_str(&fs::read_to_string(plan).unwrap()).unwrap();
    assert_eq!(plan.fallback, Some(Fallback { wanted: main[3].clone(), used: main[1].clone(), behind: 2 }));
    assert_eq!(plan.sides.base.unwrap().commit, Some(main[1].clone()));
}

#[test]
fn the_settings_in_force_for_a_pull_request_are_those_of_its_base() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let write =
        |labels: &str| fs::write(root.join("vllm-perf.yml"), format!("trigger: {{labels: [{labels}]}}\n")).unwrap();
    let commit = |message: &str| {
        git(root, &["add", "--all"]);
        git(root, &["commit", "--quiet", "--allow-empty", "--message", message]);
        git(root, &["rev-parse", "HEAD"])
    };
    git(root, &["init", "--quiet"]);
    let without = commit("nothing");
    write("bench");
    let with = commit("settings");
    // The pull request asks for no label any more.
    write("");
    let head = commit("no label");
    let plan = |base: &str, more: &[&str]| {
        let payload = format!(
            r#"{{"action": "synchronize", "number": 7, "repository": {{"full_name": "o/r"}}, "pull_request": {{"number": 7, "labels": [],
            "head": {{"sha": "{head}", "ref": "x", "repo": {{"full_name": "o/r"}}}},
            "base": {{"sha": "{base}", "ref": "main", "repo": {{"full_name": "o/r"}}}}}}}}"#
        );
        let event = tempfile::NamedTempFile::new().unwrap();
        fs::write(event.path(), payload).unwrap();
        let mut asked = program(&["plan", "--device", "cpu", "--suite", SUITE, "--base", "sim", "--head", "sim"]);
        asked.args(["--format", "json", "--provider", "github", "--event-name", "pull_request", "--event-path"]);
        let output = asked.arg(event.path()).args(more).current_dir(root).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let plan: Plan = serde_json::from_slice(&output.stdout).unwrap();
        (plan.trigger.run, plan.notices.concat())
    };
    let short = &with[..7];
    let changed = format!("The pull request changes `vllm-perf.yml`: the settings of its base ({short}) are in force.");
    assert_eq!(plan(&with, &[]), (false, changed.clone()));
    assert_eq!(plan(&with, &["--config", "vllm-perf.yml"]), (false, changed));
    let added = "The pull request adds settings that its base does not have: the defaults are in force. A file that the job makes counts outside the checkout.";
    assert_eq!(plan(&without, &[]), (false, added.to_owned()));
    assert_eq!(plan(&head, &[]), (true, String::new()), "nothing changed");
    // Which file of the checkout the job made is not known: such a file counts outside of it.
    fs::write(root.join("made.yml"), "trigger: {labels: []}\n").unwrap();
    let made = plan(&with, &["--config", "made.yml"]);
    assert!(!made.0 && made.1.contains("the defaults are in force"), "{made:?}");
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("made.yml"), "trigger: {labels: []}\n").unwrap();
    let operator = outside.path().join("made.yml").display().to_string();
    assert_eq!(plan(&with, &["--config", &operator]), (true, String::new()));
    // A commit that the checkout does not have.
    let (runs, notice) = plan(&"1".repeat(40), &[]);
    assert!(!runs && notice.starts_with("The settings of the base (1111111) are not known"), "{notice}");
}
