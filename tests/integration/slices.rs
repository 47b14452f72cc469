//! Slices on the simulated vLLM with a slow start: how many there are, where they are kept, and what a resumed or a repeated
//! repetition measures again.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use vllm_perf::run::journal::{Choice, Entry, Journal};
use vllm_verdict::side::Side;
use vllm_verdict::v1::{Comparison, RepetitionValue, ServerSlices};

use super::run::{TWO_CASES, comparison, journal, program, run, text, vllm, wait_until};

/// The choices in a journal.
fn choices(out: &Path) -> Vec<Choice> {
    journal(out).iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn entries(out: &Path) -> Vec<Entry> {
    Journal::read(&out.join("journal.jsonl")).unwrap()
}

/// How many slices every case has in every repetition of a side.
fn slices_of(out: &Path, side: Side, repetitions: u32) -> Vec<usize> {
    let entries = entries(out);
    let mut counts: Vec<usize> = Vec::new();
    for repetition in 1..=repetitions {
        let of = entries.iter().filter(|entry| (entry.side, entry.repetition) == (side, repetition));
        let mut slices: Vec<(&str, u32)> = of.map(|entry| (entry.case.as_str(), entry.slice)).collect();
        slices.sort_unstable();
        slices.dedup();
        counts.extend(slices.chunk_by(|one, other| one.0 == other.0).map(<[_]>::len));
    }
    counts
}

#[test]
fn a_restart_of_three_slices_is_worth_two_slices_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let target = "sim:ttft=30ms,itl=2ms,startup=1500ms";
    let output = run(&out, target, target, &["--pairs", "5", "--only", TWO_CASES]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let [choice] = &choices(&out)[..] else { panic!("{:?}", choices(&out)) };
    let ratio = choice.restart_seconds / choice.slice_seconds;
    assert!((choice.server, choice.slices) == (1, 2) && ratio > 2.0 && ratio < 5.0, "{choice:?}");
    for side in [Side::Base, Side::Head] {
        assert_eq!(slices_of(&out, side, 5), [2; 10]);
    }
    // All cases once and then again, in the same order on both sides.
    let orders = |side| entries(&out).into_iter().filter(|it| it.side == side).map(|it| (it.case, it.slice)).collect();
    let (base, head): (Vec<_>, Vec<_>) = (orders(Side::Base), orders(Side::Head));
    assert_eq!(base, head);
    assert_eq!(base.iter().take(4).map(|(_, slice)| *slice).collect::<Vec<_>>(), [1, 1, 2, 2]);
    let file =
        |side: &str| out.join(side).join("03/slice-2/serving_tinyllama_tp1_random_64_16_qps_inf_concurrency_4.json");
    assert!(file("base").is_file() && file("head").is_file());
    assert!(!out.join("head/03/slice-2/server-1.log").exists(), "a slice has no server of its own");

    let compared = comparison(&out);
    let ServerSlices { cases, slices, .. } = compared.conduct.slices[0];
    assert_eq!((compared.conduct.slices.len(), cases, slices), (1, 2, 2));
    let is_sliced =
        |value: &Option<RepetitionValue>| matches!(value, Some(RepetitionValue::Slices(of)) if of.len() == 2);
    assert!(compared.rows.iter().all(|row| row.base.iter().chain(&row.head).all(is_sliced)), "{:?}", compared.rows[0]);
    let printed = text(&output);
    assert!(printed.contains("server 1: 2 slices in each repetition, because it took "), "{printed}");
    assert!(printed.contains(" head 2 slice 2: serving_"), "{printed}");
    assert!(printed.contains("2 slices of 2 cases in each repetition, whose server took "), "{printed}");
    let verdict = program(&["verdict"]).arg(&out).output().unwrap();
    assert_eq!(verdict.status.code(), Some(0), "the recheck agrees: {}", text(&verdict));

    let again = program(&["compare", "--format", "json"]).arg(out.join("base")).arg(out.join("head")).output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    assert_eq!(serde_json::from_slice::<Comparison>(&again.stdout).unwrap().rows, compared.rows);
}

#[test]
fn a_restart_that_takes_no_longer_than_a_slice_is_worth_no_slices() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = run(&out, "none", "sim:ttft=50ms,itl=10ms", &["--pairs", "5", "--only", TWO_CASES]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(choices(&out).iter().map(|choice| choice.slices).collect::<Vec<_>>(), [1]);
    assert_eq!(slices_of(&out, Side::Head, 5), [1; 10]);
    assert!(
        comparison(&out).rows.iter().flat_map(|row| &row.head).all(|it| matches!(it, Some(RepetitionValue::One(_))))
    );
}

#[test]
fn a_run_that_is_killed_in_a_slice_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let command = || run(&out, "none", "sim:ttft=10ms,itl=1ms,startup=3s", &["--pairs", "5", "--only", TWO_CASES]);
    let mut child = command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The first case of the second slice of the second repetition.
    let is_there = |line: &String| line.contains("\"repetition\":2") && line.contains("\"slice\":2");
    wait_until("a second slice", || journal(&out).iter().any(is_there));
    child.kill().unwrap();
    child.wait().unwrap();
    let before = journal(&out);
    assert_eq!(choices(&out).iter().map(|choice| choice.slices).collect::<Vec<_>>(), [4], "{before:?}");
    let resumed = command().arg("--resume").output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed));
    let after = journal(&out);
    assert_eq!(after[..before.len()], before[..], "nothing is measured again");
    assert_eq!((after.len(), choices(&out).len()), (5 * 4 * 2 + 1, 1));
    assert_eq!(slices_of(&out, Side::Head, 5), [4; 10]);
    assert!(comparison(&out).rows.iter().flat_map(|row| &row.head).flatten().all(|value| value.slices() == 4));
    let merged = fs::read_to_string(out.join("results/benchmark_results.json")).unwrap();
    assert!(merged.contains("_concurrency_4"), "{merged}");
}

#[test]
fn a_disturbed_repetition_is_repeated_with_all_its_slices() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let config = folder.path().join("quiet.yml");
    fs::write(&config, "environment: {max_outside_load: 0.01%, max_distortion: 99.9%}\n").unwrap();
    let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let only = ["--pairs", "5", "--only", "_64_16_.*_4$"];
    let output = run(&out, "none", "sim:ttft=120ms,itl=10ms,startup=2s", &only)
        .env("VLLM_PERF_CONFIG", &config)
        .output()
        .unwrap();
    busy.kill().unwrap();
    busy.wait().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    // The first measurement and two repeats of every repetition.
    assert_eq!(choices(&out).iter().map(|choice| choice.slices).collect::<Vec<_>>(), [2]);
    assert_eq!(entries(&out).len(), 5 * 3 * 2);
    assert_eq!(slices_of(&out, Side::Head, 5), [2; 5]);
    assert!(out.join("void/pairs-head-02-1/slice-2").is_dir());
    assert!(comparison(&out).rows.iter().flat_map(|row| &row.head).flatten().all(|value| value.slices() == 2));
}

#[test]
fn a_failed_slice_loses_only_itself_and_a_resumed_run_measures_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    // A slice has nine requests: the fourteenth is in the second one.
    let server = format!(
        "[ \"$1\" = serve ] && exec {} sim-server --port \"$(printf '%s\\n' \"$@\" | sed -n '/^--port$/{{n;p}}')\" \
         --model models/tiny-llama --pace ttft=10ms,itl=1ms,startup=3s --fault status-503@14",
        env!("CARGO_BIN_EXE_vllm-perf")
    );
    let head = vllm(folder.path(), &server);
    let command = || run(&out, "none", &head, &["--pairs", "5", "--only", "_64_16_.*_4$"]);
    let output = command().output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("5 of 20 case runs failed"), "{}", text(&output));
    let of_second = |value: &Option<RepetitionValue>| match value {
        Some(RepetitionValue::Slices(slices)) => slices.iter().map(Option::is_some).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let compared = comparison(&out);
    assert!(compared.rows.iter().flat_map(|row| &row.head).all(|it| of_second(it) == [true, false, true, true]));
    let warning = compared.cases[0].warnings[0].reason.raw();
    assert!(warning.starts_with("slice 2 of 4 failed: 1 of 8 requests failed"), "{warning}");

    let before = journal(&out);
    let resumed = command().arg("--resume").output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed));
    let again: Vec<u32> = entries(&out)[20..].iter().map(|entry| entry.slice).collect();
    assert_eq!((journal(&out).len(), again), (before.len() + 5, vec![2; 5]));
    assert!(comparison(&out).rows.iter().flat_map(|row| &row.head).all(|it| of_second(it) == [true; 4]));
}
