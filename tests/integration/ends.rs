//! How runs end: two in one folder, a store that refuses, a server that crashes or hangs, a signal while something hangs, a
//! finished run that is resumed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use vllm_verdict::side::Side;
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::Comparison;

use super::fake_github::{ACTIONS_TOKEN, FakeGithub};
use super::run::{BUSY, SUITE, TWO_CASES, comparison, journal, program, run, text, vllm, wait_until};
use super::store::noise_objects;

fn code(output: &Output, expected: i32) {
    assert_eq!(output.status.code(), Some(expected), "{}", text(output));
}

/// An executable script.
fn script(path: &Path, lines: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_folder_in_use_is_left_as_it_is_by_every_other_command() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let start = |more: &[&str]| run(&out, "sim:itl=9ms", "sim:itl=9ms", &[&["--only", TWO_CASES], more].concat());
    code(&start(&["--pairs", "3", "--budget", "1ms"]).output().unwrap(), 0);
    let before = journal(&out).len();
    let mut resumed = start(&["--pairs", "3", "--resume"]);
    let mut resumed = resumed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the resumed run measures", || journal(&out).len() > before);
    let path = out.to_str().unwrap();
    for mut other in [
        start(&["--pairs", "1"]),
        start(&["--pairs", "3", "--resume"]),
        program(&["publish", path]),
        program(&["verdict", path]),
    ] {
        let refused = other.output().unwrap();
        code(&refused, 2);
        assert!(text(&refused).contains(path) && text(&refused).contains("wait"), "{}", text(&refused));
    }
    assert!(resumed.wait().unwrap().success());
    assert_eq!(comparison(&out).method.pairs, 3);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was moved aside");
}

#[test]
fn a_folder_that_cannot_be_moved_aside_is_a_mistake_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("out/inside");
    fs::create_dir_all(&inside).unwrap();
    for (current, out) in [(inside.parent().unwrap(), "."), (&inside, "..")] {
        let start = || {
            let mut command = run(Path::new(out), "none", "sim:itl=1ms", &["--pairs", "1", "--only", TWO_CASES]);
            command.current_dir(current).output().unwrap()
        };
        if out == "." {
            code(&start(), 0);
        }
        let refused = start();
        code(&refused, 2);
        assert!(text(&refused).contains("give another --out"), "{}", text(&refused));
        assert!(inside.parent().unwrap().join("comparison.json").is_file(), "it is where it was");
    }
}

#[test]
fn noise_that_a_store_refuses_costs_no_report_and_is_added_once_by_resuming() {
    let folder = tempfile::tempdir().unwrap();
    let (out, store) = (folder.path().join("out"), folder.path().join("store"));
    let start = |store: &str, more: &[&str]| {
        let flags = ["--only", TWO_CASES, "--pairs", "2", "--store", store];
        run(&out, "sim:itl=1ms", "sim:itl=1ms", &[&flags, more].concat()).output().unwrap()
    };
    let (file, below) = (folder.path().join("file"), folder.path().join("file/store"));
    fs::write(&file, "not a store").unwrap();
    for (number, place) in ["/proc/no-store", file.to_str().unwrap(), below.to_str().unwrap()].into_iter().enumerate() {
        let refused = start(place, if number == 0 { &[] } else { &["--resume"] });
        code(&refused, 4);
        assert!(text(&refused).contains("--resume with the same flags adds it"), "{place}: {}", text(&refused));
        assert!(out.join("comment.md").is_file());
    }
    let report = comparison(&out);
    for _ in 0..2 {
        code(&start(store.to_str().unwrap(), &["--resume"]), 0);
        assert_eq!(noise_objects(&store), 1);
    }
    assert_eq!(comparison(&out).rows, report.rows, "a run is not compared with its own noise");
}

#[test]
fn a_finished_run_that_is_resumed_keeps_its_report() {
    let folder = tempfile::tempdir().unwrap();
    for strategy in ["paired", "single", "screen"] {
        let out = folder.path().join(strategy);
        let start = |more: &[&str]| {
            let flags = ["--only", TWO_CASES, "--pairs", "2", "--strategy", strategy];
            run(&out, "sim:itl=1ms", "sim:itl=2ms", &[&flags, more].concat()).output().unwrap()
        };
        code(&start(&[]), 0);
        let first = comparison(&out);
        std::thread::sleep(Duration::from_millis(1100));
        code(&start(&["--resume"]), 0);
        let again = comparison(&out);
        assert!(first.subject.head.as_ref().unwrap().vllm_version.is_some());
        let all = |comparison: &Comparison| serde_json::to_value(comparison).unwrap();
        assert_eq!(all(&first), all(&again), "{strategy}");
    }
}

#[test]
fn damaged_files_are_measured_again_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let start = |more: &[&str]| {
        let flags = ["--only", TWO_CASES, "--pairs", "2"];
        run(&out, "sim:itl=1ms", "sim:itl=2ms", &[&flags, more].concat()).output().unwrap()
    };
    code(&start(&[]), 0);
    let case = "serving_tinyllama_tp1_random_64_16_qps_inf_concurrency_1";
    for (file, length) in [
        (format!("head/01/{case}.json"), 0),
        (format!("base/02/{case}.json"), 300),
        (format!("base/01/{case}.commands"), 0),
        ("passes.jsonl".to_owned(), 20),
        ("journal.jsonl".to_owned(), 100),
        ("plan.json".to_owned(), 50),
        ("comparison.json".to_owned(), 0),
        ("images.json".to_owned(), 0),
        ("head/02/environment.json".to_owned(), 7),
    ] {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(out.join(&file))
            .unwrap()
            .set_len(length)
            .unwrap();
        let resumed = start(&["--resume"]);
        code(&resumed, 0);
        let is_of_a_result = [".jsonl", "plan.json", "/serving"].iter().any(|part| file.contains(part));
        let name = Path::new(&file).file_name().unwrap().to_str().unwrap();
        assert!(!is_of_a_result || text(&resumed).contains(name), "{file}: {}", text(&resumed));
        assert_eq!(comparison(&out).method.pairs, 2, "{file}");
    }
}

#[test]
fn a_server_that_crashes_under_load_is_explained_with_its_status_and_last_words() {
    let folder = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_vllm-perf");
    let crash = format!(
        "if [ \"$1\" = serve ]; then VLLM_PERF_SIM=ttft=300s {binary} sim-vllm -- \"$@\" & sleep 2; kill -9 $!; \
         echo the engine died: out of memory; exit 137; fi"
    );
    let target = vllm(folder.path(), &crash);
    let out = folder.path().join("out");
    let output = run(&out, "none", &target, &["--pairs", "1", "--only", "serving"]).output().unwrap();
    code(&output, 3);
    let reasons: Vec<String> = comparison(&out)
        .cases
        .iter()
        .flat_map(|case| case.problems.iter().map(|problem| problem.reason.raw().to_owned()))
        .collect();
    let (tried, given_up): (Vec<_>, Vec<_>) = reasons.iter().partition(|reason| !reason.starts_with("not tried"));
    assert_eq!(tried.len(), 2, "{reasons:?}");
    assert!(
        !given_up.is_empty() && given_up.iter().all(|reason| reason.contains("head/01/server-1.log")),
        "{reasons:?}"
    );
    for reason in tried {
        assert!(reason.contains("exit status: 137 (128 + 9, SIGKILL)"), "{reason}");
        assert!(reason.contains("last words: \"the engine died: out of memory\""), "{reason}");
    }
    assert_eq!(text(&output).matches("not measured: head 1").count(), 2, "said once a kind: {}", text(&output));
    assert!(text(&output).contains("more time"), "{}", text(&output));
}

#[test]
fn base_is_not_measured_further_when_head_cannot_start() {
    let folder = tempfile::tempdir().unwrap();
    let target = vllm(folder.path(), "if [ \"$1\" = serve ]; then echo no such model; exit 1; fi");
    for strategy in [Strategy::Paired, Strategy::Screen, Strategy::Sequential] {
        let out = folder.path().join(strategy.as_str());
        let more = ["--pairs", "5", "--only", TWO_CASES, "--strategy", strategy.as_str()];
        let output = run(&out, "sim:itl=1ms", &target, &more).output().unwrap();
        code(&output, 3);
        let of_base = journal(&out).iter().filter(|line| line.contains(r#""side":"base""#)).count();
        assert!(of_base <= 2, "{}: {of_base}", strategy.as_str());
        let comment = fs::read_to_string(out.join("comment.md")).unwrap();
        assert!(comment.contains("2 cases not measured further"), "{comment}");
        assert!(comment.contains("no such model"), "{comment}");
    }
}

#[test]
fn cases_that_all_time_out_end_the_run_early() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let more = ["--pairs", "3", "--only", "serving", "--case-timeout", "1s"];
    let output = run(&out, "none", "sim:ttft=300s", &more).output().unwrap();
    code(&output, 3);
    let timed_out = journal(&out).iter().filter(|line| line.contains("did not end within")).count();
    assert_eq!(timed_out, 2, "{}", text(&output));
}

/// Sends a signal once `begun` holds, and checks that the command ends within 5 s.
fn ends_after(command: &mut Command, signal: &str, expected: i32, begun: impl FnMut() -> bool) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the command waits", begun);
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(expected), "{command:?}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}: {command:?}", asked.elapsed());
}

#[test]
fn a_signal_ends_every_command_within_5_seconds_whatever_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let tools = folder.path().join("bin");
    let asked = folder.path().join("asked");
    let hang = format!("trap '' INT TERM\ntouch {}\nwhile :; do sleep 1; done", asked.display());
    let path = format!("{}:/usr/bin:/bin", tools.display());
    for (signal, expected) in [("INT", 130), ("TERM", 143)] {
        script(&tools.join("nvidia-smi"), &hang);
        for words in [&["plan"][..], &["run"], &["calibrate", "--store", "noise"]] {
            let _ = fs::remove_file(&asked);
            let mut command = program(words);
            command.args(["--suite", SUITE, "--head", "sim"]).env("PATH", &path).current_dir(folder.path());
            ends_after(&mut command, signal, expected, || asked.exists());
        }
        fs::remove_file(tools.join("nvidia-smi")).unwrap();
        let _ = fs::remove_file(&asked);
        script(&tools.join("docker"), &hang);
        let out = folder.path().join(format!("docker-{signal}"));
        let mut command = run(&out, "none", "image:a/b:c", &["--pairs", "1"]);
        ends_after(command.env("PATH", &path), signal, expected, || asked.exists());
        fs::remove_file(tools.join("docker")).unwrap();
        let _ = fs::remove_file(&asked);
        let target = vllm(&tools, &hang);
        let out = folder.path().join(format!("server-{signal}"));
        ends_after(&mut run(&out, "none", &target, &["--pairs", "1"]), signal, expected, || asked.exists());
        assert!(out.join("journal.jsonl").is_file());
    }
}

#[test]
fn another_program_on_the_port_of_a_server_is_named_and_not_measured() {
    let folder = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_vllm-perf");
    let (out, port) = (folder.path().join("out"), folder.path().join("port"));
    // The server only tells its port; the other program is none of its children.
    let wait =
        format!("if [ \"$1\" = serve ]; then for last; do :; done; echo \"$last\" >{}; sleep 60; fi", port.display());
    let target = vllm(folder.path(), &wait);
    let mut ran = run(&out, "none", &target, &["--pairs", "1", "--only", "serving"]);
    let ran = ran.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the port is known", || fs::read_to_string(&port).is_ok_and(|text| text.ends_with('\n')));
    let number = fs::read_to_string(&port).unwrap().trim().to_owned();
    let mut other = Command::new(binary)
        .args(["sim-server", "--port", &number])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = ran.wait_with_output().unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    code(&output, 3);
    let named = format!("used by another program: vllm-perf (process {})", other.id());
    assert!(text(&output).contains(&named), "{}", text(&output));
    assert!(comparison(&out).rows.iter().all(|row| row.lacks(Side::Head)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_note_on_the_pull_request_is_taken_back_when_the_run_ends_without_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeGithub::start().await;
    fake.world(|world| world.pulls.insert(42, super::publish::pull("octo-org/octo-repo")));
    let head = fake.world(|world| world.pulls[&42].head_sha.clone());
    let event = json!({
        "action": "synchronize", "number": 42, "repository": {"full_name": "octo-org/octo-repo"},
        "pull_request": {
            "number": 42, "state": "open", "labels": [{"name": "perf-benchmarks"}, {"name": "ready"}],
            "head": {"sha": head, "ref": "x", "repo": {"full_name": "octo-org/octo-repo"}},
            "base": {"sha": "1111111111111111111111111111111111111111", "ref": "main", "repo": {"full_name": "octo-org/octo-repo"}},
        },
    });
    let payload = folder.path().join("event.json");
    fs::write(&payload, event.to_string()).unwrap();
    let on_github = |command: &mut Command| {
        command.env("GITHUB_ACTIONS", "true").env("GITHUB_EVENT_NAME", "pull_request");
        command.env("GITHUB_EVENT_PATH", &payload).env("GITHUB_REPOSITORY", "octo-org/octo-repo");
        command.env("GITHUB_API_URL", &fake.url).env("GITHUB_TOKEN", ACTIONS_TOKEN).env("GITHUB_RUN_ID", "1");
        command.env("VLLM_PERF_CONFIG", BUSY).current_dir(folder.path()).output().unwrap()
    };
    let start = |out: &Path| {
        let more = ["--pairs", "1", "--only", TWO_CASES, "--strategy", "single"];
        on_github(&mut run(out, "sim:itl=1ms", "sim:itl=1ms", &more))
    };
    let body = || fake.world(|world| world.comments.values().map(|comment| comment.body.clone()).collect::<Vec<_>>());
    let first = folder.path().join("first");
    code(&start(&first), 0);
    code(&on_github(&mut program(&["publish", first.to_str().unwrap()])), 0);
    let before = body();
    assert_eq!(before.len(), 1);
    // What the report needs is a file or a folder that cannot be replaced.
    for (number, name) in (1..).zip(["results", "comparison.json", "comment.md"]) {
        let out = folder.path().join(format!("again-{number}"));
        fs::create_dir(&out).unwrap();
        match name {
            "results" => fs::write(out.join(name), "not a folder").unwrap(),
            _ => fs::create_dir_all(out.join(name).join("in the way")).unwrap(),
        }
        code(&start(&out), 4);
        let edits = fake.world(|world| world.seen.iter().filter(|seen| seen.method == "PATCH").count());
        assert!(edits >= 2 * number, "{name}: the note was there");
        assert_eq!(body(), before, "{name}");
    }
}
