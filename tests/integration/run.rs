//! `run` end to end on the simulated vLLM, and its state after a server, a client or the program itself fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use vllm_verdict::side::Side;
use vllm_verdict::v1::{Comparison, Verdict};

const BINARY: &str = env!("CARGO_BIN_EXE_vllm-perf");
pub(super) const SUITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/suite");
/// A config for a machine with a high outside load.
pub(super) const BUSY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/config/busy.yml");
/// Two serving cases of one test.
pub(super) const TWO_CASES: &str = "serving_.*_64_16_.*_(1|4)$";

/// The program in an empty environment.
pub(super) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HF_HUB_OFFLINE", "1");
    // Whether or not this machine has a container engine.
    command.env("VLLM_PERF_SIDES", "image");
    command.args(arguments).stdin(Stdio::null());
    command
}

pub(super) fn run(out: &Path, base: &str, head: &str, more: &[&str]) -> Command {
    let mut command = program(&["run", "--device", "cpu", "--base", base, "--head", head]);
    // A duplicated flag is an error; a flag overrides the variable.
    command.env("VLLM_PERF_SUITE", SUITE).env("VLLM_PERF_CONFIG", BUSY).arg("--out").arg(out).args(more);
    command
}

pub(super) fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(super) fn comparison(out: &Path) -> Comparison {
    serde_json::from_str(&fs::read_to_string(out.join("comparison.json")).unwrap()).unwrap()
}

pub(super) fn journal(out: &Path) -> Vec<String> {
    fs::read_to_string(out.join("journal.jsonl")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A `vllm` for a test: a shell script that may fail, and then the simulated one.
pub(super) fn vllm(folder: &Path, script: &str) -> String {
    let path = folder.join("vllm");
    let text = format!("#!/bin/sh\n{script}\nexec {BINARY} sim-vllm -- \"$@\"\n");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("local:{}", path.display())
}

/// Ids of the other processes that have `word` among their arguments.
fn processes_with(word: &str) -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            *pid != std::process::id() && words.split(|byte| *byte == 0).any(|found| found == word.as_bytes())
        })
        .collect()
}

/// Waits until `done` holds; fails after a minute.
pub(super) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A number that only processes of one test have among their arguments, also when two test runs overlap.
fn marker(test: u32) -> String {
    format!("47110{test}{:08}", std::process::id())
}

/// A run in progress: one case has finished and a server is running. Its servers have the seed `seed`.
fn under_way(out: &Path, seed: &str) -> Child {
    let words = format!("--seed {seed}");
    let arguments = ["--pairs", "3", "--only", TWO_CASES, "--base-server-args", &words, "--head-server-args", &words];
    let child = run(out, "sim:itl=20ms", "sim:itl=20ms", &arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("a finished case", || !journal(out).is_empty() && !processes_with(seed).is_empty());
    child
}

#[test]
fn a_run_leaves_a_whole_output_folder_and_prints_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = run(&out, "sim:itl=4ms", "sim:itl=6ms", &["--pairs", "3", "--only", TWO_CASES]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("\nAll 10 primary rows\n") && !printed.contains("<!--"), "{printed}");

    let comparison = comparison(&out);
    let tpot: Vec<_> = comparison.rows.iter().filter(|row| row.metric == "median_tpot_ms").collect();
    assert_eq!(tpot.iter().map(|row| (row.base.len(), row.head.len())).collect::<Vec<_>>(), [(3, 3), (3, 3)]);
    for file in [
        "plan.json",
        "comment.md",
        "summary.md",
        "annotation.md",
        "report.html",
        "results/benchmark_results.json",
        "results/benchmark_results.md",
        "results/environment.json",
        "base/03/serving_tinyllama_tp1_random_64_16_qps_inf_concurrency_4.json",
        "head/01/serving_tinyllama_tp1_random_64_16_qps_inf_concurrency_1.commands",
        "head/01/serving_tinyllama_tp1_random_64_16_qps_inf_concurrency_1.pytorch.json",
        "head/02/server-1.log",
    ] {
        assert!(out.join(file).is_file(), "{file} is missing");
    }
    let results = fs::read_to_string(out.join("results/benchmark_results.md")).unwrap();
    assert!(results.contains("## Platform Information"), "this machine measured: {results}");
    assert!(!out.join("base/00").exists(), "the results of the warm-up are not kept");
    assert_eq!(journal(&out).len(), 12);
}

#[test]
fn the_comment_is_printed_after_the_table_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = run(&folder.path().join("out"), "none", "sim:itl=1ms", &["--pairs", "1", "--only", "^latency"]);
    let output = command.env("VLLM_PERF_PRINT_COMMENT", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let (table, comment) = printed.split_once("<!-- vllm-perf:v1 id=").unwrap();
    assert!(table.contains("These are the values of one run.") && table.contains("Median latency"), "{table}");
    assert!(comment.contains("### vLLM performance"), "{comment}");
}

/// With results of real vLLM, a build and a slower one, so that the load of this machine does not matter.
#[test]
fn the_verdict_of_recorded_runs_exits_by_the_worst_row() {
    let folder = tempfile::tempdir().unwrap();
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/results/repeats");
    for number in 0..10 {
        let (side, build) = if number % 2 == 0 { ("base", "A") } else { ("head", "B") };
        let to = folder.path().join(side).join(format!("{:02}", number / 2 + 1));
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(recorded.join(format!("run{number:02}_{build}"))).unwrap().flatten() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let out = folder.path().join("out");
    let compare = |base: &str, head: &str| {
        let mut command = program(&["compare"]);
        command.arg(folder.path().join(base)).arg(folder.path().join(head)).arg("--out").arg(&out);
        command.output().unwrap()
    };
    let exit = |flag: &str| program(&["verdict", "--fail-on", flag]).arg(&out).output().unwrap().status.code();

    let compared = compare("base", "head");
    assert_eq!(compared.status.code(), Some(0), "{}", text(&compared));
    assert!(text(&compared).contains("1 row regressed"), "{}", text(&compared));
    assert_eq!(["regressed", "inconclusive", "never"].map(exit), [Some(1), Some(1), Some(0)]);
    compare("head", "base");
    assert_eq!(["regressed", "inconclusive", "never"].map(exit), [Some(0), Some(1), Some(0)]);
}

#[test]
fn comparing_the_results_of_a_run_again_gives_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let ran = run(&out, "sim:itl=4ms", "sim:itl=6ms", &["--pairs", "2", "--only", TWO_CASES]).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran));
    let compared =
        program(&["compare", "--format", "json"]).arg(out.join("base")).arg(out.join("head")).output().unwrap();
    assert_eq!(compared.status.code(), Some(0), "{}", text(&compared));
    let again: Comparison = serde_json::from_slice(&compared.stdout).unwrap();
    assert_eq!(again.rows, comparison(&out).rows);
}

#[test]
fn every_kind_of_test_is_measured_and_a_second_run_moves_the_first_aside() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let arguments = ["--pairs", "1", "--only", "_64_16_.*_1$|latency|startup|throughput"];
    for _ in 0..2 {
        let output = run(&out, "none", "sim:ttft=5ms,itl=1ms", &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
    let kinds: Vec<_> = comparison(&out).cases.iter().map(|case| case.kind.as_str()).collect();
    assert_eq!(kinds, ["serving", "latency", "startup", "throughput"]);
    assert!(folder.path().join("out.1/comparison.json").is_file());
}

#[test]
fn a_server_that_does_not_start_fails_only_its_own_cases() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let seconds = marker(0);
    let script = format!(r#"if [ "$1" = serve ]; then echo loading weights; exec sleep {seconds}; fi"#);
    let target = vllm(folder.path(), &script);
    let arguments = ["--pairs", "1", "--only", "_64_16_.*_1$|latency", "--server-timeout", "1s"];
    let output = run(&out, "none", &target, &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("loading weights"), "the log's end is shown: {}", text(&output));
    assert_eq!(processes_with(&seconds), [0; 0]);

    let comparison = comparison(&out);
    assert_eq!(comparison.verdict, Verdict::NotMeasured);
    let latency = comparison.rows.iter().find(|row| row.metric == "median_latency").unwrap();
    assert_eq!(latency.head.len(), 1);
    let serving = &comparison.cases[0];
    let reason = &serving.problems[0].reason;
    assert!(reason.raw().starts_with("server did not start: it did not answer http://127.0.0.1:"), "{reason:?}");
}

#[test]
fn a_client_that_crashes_fails_only_one_case() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let target = vllm(folder.path(), r#"case "$*" in *concurrency_4.json*) echo out of luck >&2; exit 7;; esac"#);
    let arguments = ["--pairs", "2", "--only", TWO_CASES, "--client", "vllm"];
    let output = run(&out, &target, &target, &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let comparison = comparison(&out);
    let values = |concurrency: u64| {
        let case = comparison.cases.iter().find(|case| case.max_concurrency == Some(concurrency)).unwrap();
        let row = comparison.rows.iter().find(|row| row.case == case.name && row.metric == "median_ttft_ms").unwrap();
        let [base, head] = [Side::Base, Side::Head].map(|side| row.numbers(side).len());
        (row.verdict == Verdict::NotMeasured, base, head, case.problems.len())
    };
    assert_eq!(values(1), (false, 2, 2, 0));
    assert_eq!(values(4), (true, 0, 0, 4));
    let log =
        fs::read_to_string(out.join("head/01/serving_tinyllama_tp1_random_64_16_qps_inf_concurrency_4.log")).unwrap();
    assert_eq!(log, "out of luck\n");
}

#[test]
fn a_killed_run_leaves_no_process_and_can_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let seed = marker(1);
    let mut child = under_way(&out, &seed);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("all processes of the killed run are gone", || processes_with(&seed).is_empty());
    let before = journal(&out);
    assert!(!out.join("comparison.json").exists());

    let words = format!("--seed {seed}");
    let flags = ["--pairs", "3", "--only", TWO_CASES, "--base-server-args", &words, "--head-server-args", &words];
    let refused = run(&out, "sim:itl=20ms", "sim:itl=20ms", &flags).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).contains("continue with --resume"), "{}", text(&refused));

    let resumed = run(&out, "sim:itl=20ms", "sim:itl=20ms", &flags).arg("--resume").output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed));
    let after = journal(&out);
    assert_eq!((after.len(), &after[..before.len()]), (12, &before[..]));
    assert_eq!(comparison(&out).method.pairs, 3);
}

#[test]
fn an_interrupt_terminates_all_processes_and_keeps_the_results() {
    let folder = tempfile::tempdir().unwrap();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let out = folder.path().join(signal);
        let seed = marker(2);
        let mut child = under_way(&out, &seed);
        assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(code), None));
        assert_eq!(processes_with(&seed), [0; 0], "gone before the program ends");
        assert!(!journal(&out).is_empty());
    }
}

#[test]
fn the_output_of_a_server_is_not_a_command_for_github() {
    let folder = tempfile::tempdir().unwrap();
    let event = folder.path().join("event.json");
    let commit = "1da94e673c257373280026f75ceb4effac80e892";
    let payload = format!(r#"{{"ref": "refs/heads/main", "before": "{commit}", "after": "{commit}"}}"#);
    fs::write(&event, payload).unwrap();
    let hostile = ["::error::owned", "##[error]owned", "::add-mask::regressed", "::stop-commands::x", "::x::"];
    let script = format!("printf '%s\\n' {} >&2; exit 3", hostile.map(|line| format!("'{line}'")).join(" "));
    let head = vllm(folder.path(), &script);
    let more = ["--pairs", "1", "--only", TWO_CASES, "--provider", "github"];
    let output = run(&folder.path().join("out"), "sim", &head, &more)
        .envs([("GITHUB_ACTIONS", "true"), ("GITHUB_EVENT_NAME", "push"), ("GITHUB_REPOSITORY", "o/r")])
        .envs([("GITHUB_REF", "refs/heads/main"), ("GITHUB_SHA", commit)])
        .env("GITHUB_EVENT_PATH", &event)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));

    // Each stream as the runner reads it.
    for line in text(&output).lines().map(str::trim_start) {
        assert!(!hostile.contains(&line) && !line.contains("##["), "obeyed: {line}");
    }
    for shown in [": :error::owned", "## [error]owned", ": :add-mask::regressed", ": :stop-commands::x", ": :x::"] {
        assert!(text(&output).contains(shown), "the server's output is not shown: {}", text(&output));
    }
}

#[test]
fn a_run_that_cannot_be_planned_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out: PathBuf = folder.path().join("out");
    for (base, head, more, said) in [
        ("sim", "docker:x", vec![], "is not a target"),
        ("sim:itl=10", "sim", vec![], "itl"),
        ("sim", "sim", vec!["--only", "no_such_case"], "no_such_case"),
        ("sim", "sim", vec!["--suite", "/nowhere"], "/nowhere"),
        ("sim", "sim", vec!["--resume"], "nothing to resume"),
    ] {
        let output = run(&out, base, head, &more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{base} {head} {more:?}: {}", text(&output));
        assert!(text(&output).contains(said), "{said}: {}", text(&output));
        assert!(!out.exists());
    }
}
