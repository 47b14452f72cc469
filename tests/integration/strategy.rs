//! The strategies of `run` on the simulated vLLM: which cases run in which pairs, what the report states, and which times
//! and surroundings are recorded.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use vllm_perf::plan::concurrency_search::Summary;
use vllm_perf::run::fingerprint::Surroundings;
use vllm_perf::run::journal::{Entry, Journal};
use vllm_perf::run::time_spent::Times;
use vllm_verdict::case::MeasuredBy;
use vllm_verdict::noise::{self, AaRow, AaRun, MeasuredOn};
use vllm_verdict::strategy::{Phase, Strategy};
use vllm_verdict::v1::{Comparison, Device, DeviceName, Verdict};

use super::run::{BUSY, SUITE, TWO_CASES, comparison, journal, program, run, text, wait_until};
use super::store::{keep, known};

const ONE: &str = "serving_tinyllama_tp1_random_64_16_qps_inf_concurrency_1";
const FOUR: &str = "serving_tinyllama_tp1_random_64_16_qps_inf_concurrency_4";
/// A server that runs one request at a time: with four, three wait.
const NARROW: &str = "sim:itl=4ms,max-num-seqs=1";

/// A store with the noise of both cases: at concurrency 1 it is larger than any change on this machine, at 4 a factor of
/// three is a change.
fn noisy_store(folder: &Path) -> String {
    let rows = [(ONE, 3.0), (FOUR, 0.3)].iter().flat_map(|(case, noise)| {
        let primary = ["output_throughput", "median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms"];
        primary.map(|metric| AaRow {
            case: (*case).to_owned(),
            metric: metric.to_owned(),
            client: MeasuredBy::Native,
            ratios: [*noise, -noise].repeat(6),
        })
    });
    let run = AaRun {
        schema: noise::SCHEMA.to_owned(),
        version: "0.1.0".to_owned(),
        run: None,
        device: MeasuredOn { name: DeviceName::Cpu, device_type: "bench".to_owned(), simulated: true },
        started: "2026-01-02T03:04:05Z".to_owned(),
        rows: rows.collect(),
    };
    keep(folder, &run);
    folder.display().to_string()
}

fn entries(out: &Path) -> Vec<Entry> {
    Journal::read(&out.join("journal.jsonl")).unwrap()
}

fn ran(out: &Path, phase: Phase, case: &str) -> usize {
    entries(out).iter().filter(|entry| entry.phase == phase && entry.case == case).count()
}

fn screen(out: &Path, store: &str) -> Command {
    let more =
        ["--only", TWO_CASES, "--strategy", "screen", "--pairs", "2", "--device-type", "bench", "--store", store];
    run(out, "sim:itl=4ms", NARROW, &more)
}

fn check_screen(out: &Path) {
    let count = |phase| [ran(out, phase, ONE), ran(out, phase, FOUR)];
    assert_eq!((count(Phase::Screen), count(Phase::Pairs)), ([2, 2], [0, 4]));
    let comparison = comparison(out);
    assert_eq!(comparison.method.strategy, Strategy::Screen);
    assert_eq!(comparison.conduct.screened, [ONE]);
    let row =
        |case: &str| comparison.rows.iter().find(|row| row.case == case && row.metric == "median_ttft_ms").unwrap();
    assert_eq!((row(ONE).base.len(), row(ONE).verdict), (1, Verdict::Inconclusive));
    assert_eq!(row(ONE).why, "not repeated: the screening pass saw no change");
    assert_eq!((row(FOUR).base.len(), row(FOUR).head.len()), (2, 2), "the fresh pairs alone");
    assert_eq!(comparison.counts.screened, 5);
    assert!(out.join(format!("screen/head/{ONE}.json")).is_file());
    assert!(out.join(format!("results/{ONE}.json")).is_file(), "what only the screen ran is a result too");
    assert!(fs::read_to_string(out.join("comment.md")).unwrap().contains("5 not repeated (screening saw no change)"));
}

#[test]
fn a_screen_repeats_only_suspicious_cases() {
    let folder = tempfile::tempdir().unwrap();
    let (out, store) = (folder.path().join("out"), noisy_store(&folder.path().join("store")));
    let output = screen(&out, &store).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    check_screen(&out);
    let printed = text(&output);
    assert!(printed.contains("; 1 case to repeat in pairs"), "{printed}");
    assert!(printed.contains("Phases (screen strategy): warm-up "), "{printed}");
    assert!(printed.contains(" without the screen."), "{printed}");
    assert!(printed.contains("Time on base, without the warm-up: measuring "), "{printed}");
}

#[test]
fn a_killed_screen_can_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let (out, store) = (folder.path().join("out"), noisy_store(&folder.path().join("store")));
    let mut child = screen(&out, &store).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("a finished case of the screen", || !journal(&out).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    let before = journal(&out);
    let resumed = screen(&out, &store).arg("--resume").output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed));
    assert_eq!(journal(&out)[..before.len()], before[..]);
    check_screen(&out);
}

#[test]
fn a_sequential_run_looks_after_three_pairs_and_goes_on_where_nothing_is_decided() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    // A change of 10 % is not `unchanged`, and no run is certain enough for this false discovery rate.
    let config = folder.path().join("strict.yml");
    let strict = fs::read_to_string(BUSY).unwrap() + "verdict: {fdr: 0.0000000001%}\n";
    fs::write(&config, strict).unwrap();
    let more = ["--only", "_64_16_.*_1$", "--strategy", "sequential", "--pairs", "4"];
    let mut sequential = run(&out, "sim:itl=2ms", "sim:itl=2.2ms", &more);
    let output = sequential.env("VLLM_PERF_CONFIG", &config).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!((ran(&out, Phase::Pairs, ONE), ran(&out, Phase::MorePairs, ONE)), (6, 2));
    assert!(text(&output).contains("look after 3 pairs: not decided yet"), "{}", text(&output));
    let Comparison { method, rows, .. } = comparison(&out);
    let looks: Vec<_> = method.looks.iter().map(|look| look.pairs).collect();
    assert_eq!((method.strategy, method.pairs, &looks[..]), (Strategy::Sequential, 4, &[3, 4][..]));
    assert!(rows.iter().all(|row| row.base.len() == 4 && row.look == 2));

    let out = folder.path().join("found");
    let more = ["--only", "_64_16_.*_1$", "--strategy", "sequential"];
    let output = run(&out, "sim:itl=2ms", "sim:itl=4ms", &more).env("VLLM_PERF_CONFIG", BUSY).output().unwrap();
    assert!(text(&output).contains("look after 3 pairs: there is a finding; the run ends here"), "{}", text(&output));
    let found = comparison(&out);
    assert_eq!((found.verdict, found.method.pairs, found.method.planned_pairs), (Verdict::Regressed, 3, 10));
}

#[test]
fn a_single_strategy_shows_values_without_a_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let more = ["--only", "_64_16_.*_1$", "--strategy", "single", "--pairs", "2"];
    let output = run(&out, "sim:itl=1ms", "sim:itl=9ms", &more).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let comparison = comparison(&out);
    assert_eq!((comparison.verdict, comparison.method.strategy), (Verdict::Inconclusive, Strategy::Single));
    let tpot = comparison.rows.iter().find(|row| row.metric == "median_tpot_ms").unwrap();
    assert!(tpot.estimate.unwrap() > 1.0 && tpot.why.raw().contains("the strategy is `single`"), "{tpot:?}");
}

#[test]
fn a_budget_leaves_out_pairs_with_a_notice() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let more = ["--only", "_64_16_.*_1$", "--pairs", "4", "--budget", "10ms"];
    let output = run(&out, "sim:itl=2ms", "sim:itl=2ms", &more).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let comparison = comparison(&out);
    assert_eq!((comparison.method.pairs, comparison.method.planned_pairs), (1, 4));
    assert_eq!(comparison.conduct.notices, ["The budget of 10 ms left out 3 of 4 pairs of 1 case."]);
}

#[test]
fn a_run_records_its_times_and_surroundings() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let more = ["--only", "_64_16_.*_1$", "--pairs", "2"];
    let output = run(&out, "sim:itl=2ms,startup=300ms", "sim:itl=2ms", &more).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let times = Times::open(&out.join("passes.jsonl"));
    let phases: Vec<_> = times.phases().iter().map(|phase| (phase.phase, phase.passes)).collect();
    assert_eq!(phases, [(Phase::WarmUp, 2), (Phase::Pairs, 4)]);
    let base = &times.sides()[0];
    assert!(base.server_start >= 0.6 && base.measuring > 0.0, "two starts of at least 0.3 s: {base:?}");
    assert_eq!(comparison(&out).conduct.spent, times.sides());
    for side in ["base/01", "head/02"] {
        let text = fs::read_to_string(out.join(side).join("environment.json")).unwrap();
        let surroundings: Surroundings = serde_json::from_str(&text).unwrap();
        assert!(!surroundings.fingerprint.kernel.is_empty(), "{text}");
    }

    // A repetition on another kernel is not comparable.
    let path = out.join("head/02/environment.json");
    let mut moved: Surroundings = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let kernel = std::mem::replace(&mut moved.fingerprint.kernel, "9.9.9".to_owned());
    fs::write(&path, serde_json::to_string(&moved).unwrap()).unwrap();
    fs::remove_file(out.join("comparison.json")).unwrap();
    let resumed = run(&out, "sim:itl=2ms,startup=300ms", "sim:itl=2ms", &more).arg("--resume").output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed));
    let comparison = comparison(&out);
    let why = format!("base 01 and head 02 were measured in different environments (kernel {kernel} and 9.9.9)");
    assert_eq!((comparison.verdict, comparison.conduct.held), (Verdict::Inconclusive, Some(why.into())));
}

#[test]
fn a_disturbed_repetition_is_repeated_twice_and_then_kept() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let config = folder.path().join("vllm-perf.yml");
    fs::write(&config, "environment: {max_outside_load: 0.01%}\n").unwrap();
    let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let more = ["--only", "_64_16_.*_1$", "--pairs", "1"];
    let mut command = run(&out, "none", "sim:ttft=60ms,itl=6ms", &more);
    let output = command.env("VLLM_PERF_CONFIG", &config).output().unwrap();
    busy.kill().unwrap();
    busy.wait().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let notice = &comparison(&out).conduct.notices[0];
    assert!(notice.raw().starts_with("Repeated: head 01 twice, because other programs used "), "{notice:?}");
    let lines = journal(&out);
    assert_eq!(lines.len(), 5, "three measurements and two that were void: {lines:?}");
    assert!(out.join("void/pairs-head-01-2").is_dir() && out.join("head/01").is_dir());
}

#[test]
fn calibrating_continues_until_every_primary_row_has_its_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let (out, store) = (folder.path().join("out"), folder.path().join("store"));
    let calibrate = |more: &[&str]| {
        let mut command =
            program(&["calibrate", "--device", "cpu", "--device-type", "bench", "--only", "_64_16_.*_1$"]);
        command.env("VLLM_PERF_SUITE", SUITE).env("VLLM_PERF_CONFIG", BUSY).arg("--out").arg(&out);
        command.args(["--head", "sim:ttft=2ms,itl=500us", "--precision", "30", "--pairs", "6"]).args(more);
        command.output().unwrap()
    };
    let without = calibrate(&[]);
    assert_eq!(without.status.code(), Some(2));
    assert!(text(&without).contains("--store STORE"), "{}", text(&without));

    let store_flag = ["--store", store.to_str().unwrap()];
    let output = calibrate(&store_flag);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let printed = text(&output);
    assert!(printed.contains("5 of 5 primary rows have the 10 A/A pairs"), "{printed}");
    assert!(printed.contains(": 10 pairs, noise of a pair "), "{printed}");
    let pairs = ["01", "02"].map(|run| comparison(&out.join(run)).method.pairs);
    assert_eq!(pairs, [6, 4], "the second run measures only the missing pairs");
    let device =
        Device { name: DeviceName::Cpu, device_type: "bench".to_owned(), count: 1, image_suffix: String::new() };
    assert_ne!(known(&store, &device), noise::Noise::default());

    let again = calibrate(&store_flag);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    assert!(!out.join("03").exists(), "known noise is not measured again");
}

#[test]
fn an_earlier_run_as_base_is_shown_without_a_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let (before, out) = (folder.path().join("before"), folder.path().join("out"));
    let more = ["--only", "_64_16_.*_1$", "--pairs", "2"];
    let first = run(&before, "none", "sim:itl=1ms", &more).output().unwrap();
    assert_eq!(first.status.code(), Some(0), "{}", text(&first));
    let output = run(&out, before.to_str().unwrap(), "sim:itl=9ms", &more).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let comparison = comparison(&out);
    let base = comparison.subject.base.unwrap();
    assert_eq!((comparison.verdict, base.target.raw()), (Verdict::Inconclusive, "sim:itl=1ms"));
    let tpot = comparison.rows.iter().find(|row| row.metric == "median_tpot_ms").unwrap();
    assert_eq!((tpot.base.len(), tpot.head.len()), (2, 2));
    assert!(tpot.estimate.unwrap() > 1.0 && tpot.why.raw().contains("at another time"), "{tpot:?}");

    let paired = run(&out, before.to_str().unwrap(), "sim", &["--strategy", "paired"]).output().unwrap();
    assert_eq!(paired.status.code(), Some(2), "{}", text(&paired));
}

#[test]
fn a_search_finds_the_largest_concurrency_within_the_targets_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    // Three at a time take 200 ms to their first token; the fourth waits for that and its own.
    let more = ["--only", TWO_CASES, "--pairs", "2"];
    let mut command =
        run(&out, "sim:ttft=200ms,itl=1ms,max-num-seqs=3", "sim:ttft=200ms,itl=1ms,max-num-seqs=2", &more);
    command.env("ENABLE_ADAPTIVE_CONCURRENCY", "1").env("SLA_TTFT_MS", "350").env("SLA_TPOT_MS", "1000");
    let output = command.env("ADAPTIVE_MAX_PROBES", "3").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let read = |path: &str| -> Summary { serde_json::from_str(&fs::read_to_string(out.join(path)).unwrap()).unwrap() };
    let name = "serving_tinyllama_tp1_random_64_16_qps_inf_sla_summary.json";
    let (base, head) = (read(&format!("base/01/{name}")), read(&format!("head/01/{name}")));
    assert_eq!((base.static_last_pass, base.static_first_fail), (Some(1), Some(4)));
    assert_eq!((base.final_last_pass, base.final_first_fail), (Some(3), Some(4)));
    assert_eq!((head.final_last_pass, head.final_first_fail), (Some(2), Some(3)));
    let probe = "serving_tinyllama_tp1_random_64_16_qps_inf_concurrency_3.json";
    assert!(out.join("results").join(probe).is_file(), "a probe is a result");
    assert!(fs::read_to_string(out.join("comment.md")).unwrap().contains(": base 3, head 2"));

    // As if the run had been killed in its last search.
    let summary = out.join(format!("head/01/{name}"));
    fs::remove_file(&summary).unwrap();
    fs::remove_file(out.join("comparison.json")).unwrap();
    let resumed = command.arg("--resume").output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed));
    assert_eq!(serde_json::from_str::<Summary>(&fs::read_to_string(summary).unwrap()).unwrap(), head);
}
