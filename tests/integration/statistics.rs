//! The rule on real repetitions of real vLLM: `run<NN>_A` as is, `run<NN>_B` with `--max-num-seqs 4`.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its data should stop there")]

use std::path::{Path, PathBuf};

use vllm_perf::compare::{self, Comparison, Input, Row, Strategy, Subject, Verdict};
use vllm_perf::config::VerdictConfig;
use vllm_perf::noise::Noise;
use vllm_perf::result::{self, Folder, Outcome};

const A: [&str; 5] = ["run00_A", "run02_A", "run04_A", "run06_A", "run08_A"];
const B: [&str; 5] = ["run01_B", "run03_B", "run05_B", "run07_B", "run09_B"];

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/results").join(path)
}

fn folders(runs: &[&str]) -> Vec<Folder> {
    runs.iter().map(|run| result::read_folder(&data("repeats").join(run)).unwrap()).collect()
}

fn compared(base: &[Folder], head: &[Folder]) -> Comparison {
    compare::compare(Input {
        subject: Subject { version: "0.1.0".into(), ..Subject::default() },
        cases: result::facts(base.iter().chain(head)),
        base: base.iter().map(Folder::repetition).collect(),
        head: head.iter().map(Folder::repetition).collect(),
        skipped: Vec::new(),
        planned_pairs: base.len() as u32,
        seed: 1,
        verdict: VerdictConfig::default(),
        noise: Noise::default(),
        looks: Vec::new(),
    })
}

/// The primary rows as lines: what a person would want to see of them.
fn told(comparison: &Comparison) -> String {
    let line = |row: &&Row| {
        let case = row.case.trim_start_matches("serving_tinyllama_tp1_random_").replace("_qps_inf_concurrency_", " c=");
        format!("{case} {}: {:?}, {}", row.label, row.verdict, row.why)
    };
    comparison.rows.iter().filter(|row| row.primary).map(|row| line(&row)).collect::<Vec<_>>().join("\n")
}

#[test]
fn four_sequences_at_once_regress_ttft_at_concurrency_8_and_nothing_at_1() {
    let comparison = compared(&folders(&A), &folders(&B));
    assert_eq!(comparison.method.strategy, Strategy::Paired);
    let ttft = comparison
        .rows
        .iter()
        .find(|row| row.metric == "median_ttft_ms" && row.case.ends_with("64_32_qps_inf_concurrency_8"))
        .unwrap();
    assert_eq!(ttft.verdict, Verdict::Regressed, "{}", ttft.why);
    assert_eq!(comparison.verdict, Verdict::Regressed);
    let alarms = |row: &&Row| matches!(row.verdict, Verdict::Regressed | Verdict::Improved);
    assert!(comparison.rows.iter().filter(alarms).all(|row| row.case.ends_with("concurrency_8")));
    insta::assert_snapshot!(told(&comparison), @r"
    256_16 c=1 Output throughput: Inconclusive, −0.9 % (95 % interval −15.7 % to +16.5 %), q = 0.98: about 374 pairs would tell a change of 2 %
    256_16 c=1 Median TTFT: Inconclusive, −8.4 % (95 % interval −50.8 % to +70.4 %), q = 0.98: more than 1000 pairs would tell a change of 3 %
    256_16 c=1 P99 TTFT: Inconclusive, −48.8 % (95 % interval −79.1 % to +25.3 %), q = 0.61: about 757 pairs would tell a change of 8 %
    256_16 c=1 Median TPOT: Inconclusive, +3.2 % (95 % interval −96.0 % to +2,541 %), q = 0.98: more than 1000 pairs would tell a change of 3 %
    256_16 c=1 P99 TPOT: Inconclusive, −11.5 % (95 % interval −30.3 % to +12.4 %), q = 0.77: about 55 pairs would tell a change of 8 %
    256_16 c=4 Output throughput: Inconclusive, −0.6 % (95 % interval −39.9 % to +64.6 %), q = 0.98: more than 1000 pairs would tell a change of 2 %
    256_16 c=4 Median TTFT: Inconclusive, −14.2 % (95 % interval −56.2 % to +68.2 %), q = 0.98: more than 1000 pairs would tell a change of 3 %
    256_16 c=4 P99 TTFT: Inconclusive, −12.0 % (95 % interval −81.0 % to +306 %), q = 0.98: more than 1000 pairs would tell a change of 8 %
    256_16 c=4 Median TPOT: Inconclusive, +3.3 % (95 % interval −96.5 % to +2,967 %), q = 0.98: more than 1000 pairs would tell a change of 3 %
    256_16 c=4 P99 TPOT: Inconclusive, −6.7 % (95 % interval −37.6 % to +39.5 %), q = 0.98: about 154 pairs would tell a change of 8 %
    256_16 c=8 Output throughput: Inconclusive, −22.3 % (95 % interval −51.1 % to +23.4 %), q = 0.77: more than 1000 pairs would tell a change of 2 %
    256_16 c=8 Median TTFT: Inconclusive, +170 % (95 % interval +22.0 % to +497 %), q = 0.15: more than 1000 pairs would tell a change of 3 %
    256_16 c=8 P99 TTFT: Inconclusive, +108 % (95 % interval −31.0 % to +527 %), q = 0.70: more than 1000 pairs would tell a change of 8 %
    256_16 c=8 Median TPOT: Inconclusive, −31.4 % (95 % interval −97.3 % to +1,631 %), q = 0.98: more than 1000 pairs would tell a change of 3 %
    256_16 c=8 P99 TPOT: Inconclusive, −23.2 % (95 % interval −35.3 % to −8.7 %), q = 0.078: about 29 pairs would tell a change of 8 %
    64_32 c=1 Output throughput: Inconclusive, +5.6 % (95 % interval −11.7 % to +26.3 %), q = 0.98: about 458 pairs would tell a change of 2 %
    64_32 c=1 Median TTFT: Inconclusive, −25.4 % (95 % interval −65.5 % to +61.6 %), q = 0.98: more than 1000 pairs would tell a change of 3 %
    64_32 c=1 P99 TTFT: Inconclusive, −15.6 % (95 % interval −70.2 % to +139 %), q = 0.98: more than 1000 pairs would tell a change of 8 %
    64_32 c=1 Median TPOT: Inconclusive, −0.5 % (95 % interval −36.1 % to +55.1 %), q = 0.98: more than 1000 pairs would tell a change of 3 %
    64_32 c=1 P99 TPOT: Inconclusive, −13.1 % (95 % interval −34.5 % to +15.2 %), q = 0.77: about 77 pairs would tell a change of 8 %
    64_32 c=4 Output throughput: Inconclusive, +7.4 % (95 % interval −26.9 % to +57.8 %), q = 0.98: more than 1000 pairs would tell a change of 2 %
    64_32 c=4 Median TTFT: Inconclusive, −18.2 % (95 % interval −83.8 % to +314 %), q = 0.98: more than 1000 pairs would tell a change of 3 %
    64_32 c=4 P99 TTFT: Inconclusive, −19.6 % (95 % interval −59.6 % to +60.0 %), q = 0.98: about 448 pairs would tell a change of 8 %
    64_32 c=4 Median TPOT: Inconclusive, +6.1 % (95 % interval −99.0 % to +11,722 %), q = 0.98: more than 1000 pairs would tell a change of 3 %
    64_32 c=4 P99 TPOT: Inconclusive, +8.5 % (95 % interval −19.7 % to +46.7 %), q = 0.98: about 87 pairs would tell a change of 8 %
    64_32 c=8 Output throughput: Inconclusive, −43.3 % (95 % interval −60.9 % to −17.8 %), q = 0.078: more than 1000 pairs would tell a change of 2 %
    64_32 c=8 Median TTFT: Regressed, +429 % (95 % interval +169 % to +941 %) is worse, q = 0.014, and at least 3 %
    64_32 c=8 P99 TTFT: Inconclusive, +328 % (95 % interval −10.5 % to +1,946 %), q = 0.39: more than 1000 pairs would tell a change of 8 %
    64_32 c=8 Median TPOT: Inconclusive, −10.7 % (95 % interval −96.7 % to +2,296 %), q = 0.98: more than 1000 pairs would tell a change of 3 %
    64_32 c=8 P99 TPOT: Inconclusive, +15.8 % (95 % interval −10.4 % to +49.7 %), q = 0.77: about 63 pairs would tell a change of 8 %
    ");
}

#[test]
fn runs_of_the_same_build_raise_no_alarm() {
    for runs in [A, B] {
        let base = folders(&[runs[0], runs[2]]);
        let head = folders(&[runs[1], runs[3]]);
        let counts = compared(&base, &head).counts;
        assert_eq!((counts.regressed, counts.improved), (0, 0));
    }
}

#[test]
fn swapping_base_and_head_turns_every_regression_into_an_improvement_and_nothing_else() {
    let (a, b) = (folders(&A), folders(&B));
    let (forth, back) = (compared(&a, &b), compared(&b, &a));
    assert_eq!(forth.rows.len(), back.rows.len());
    for (forth, back) in forth.rows.iter().zip(&back.rows) {
        let swapped = match forth.verdict {
            Verdict::Regressed => Verdict::Improved,
            Verdict::Improved => Verdict::Regressed,
            other => other,
        };
        assert_eq!(back.verdict, swapped, "{} {}", forth.case, forth.metric);
        let product = (1.0 + forth.estimate.unwrap()) * (1.0 + back.estimate.unwrap());
        assert!((product - 1.0).abs() < 1e-9, "{product}");
    }
}

#[test]
fn a_comparison_reads_back_as_it_was_printed() {
    let comparison = compared(&folders(&A), &folders(&B));
    let text = serde_json::to_string(&comparison).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&text).unwrap(), comparison);
    assert!(comparison.rows.iter().all(|row| row.low.is_some() && row.detectable.is_some()));
}

#[test]
fn a_case_that_one_side_lost_is_a_hole_with_its_reason() {
    let (a, mut b) = (folders(&A), folders(&B));
    for folder in &mut b {
        let case = folder.cases.get_mut("serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_1").unwrap();
        case.outcome = Outcome::Failed("the client stopped with exit code 1".into());
    }
    let comparison = compared(&a, &b);
    assert_eq!((comparison.verdict, comparison.counts.not_measured), (Verdict::Regressed, 5));
    let hole = comparison.rows.iter().find(|row| row.verdict == Verdict::NotMeasured).unwrap();
    assert_eq!(hole.why, "head has no value: the client stopped with exit code 1 (repetition 1)");
    let case = comparison.cases.iter().find(|case| case.name == hole.case).unwrap();
    assert_eq!(case.problems.len(), 5);
}

#[test]
fn repetitions_merge_into_one_folder_that_upstreams_table_can_show() {
    let merged = result::merge(&folders(&A));
    let case = &merged.cases["serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8"];
    let Outcome::Measured(measurement) = &case.outcome else { panic!("{:?}", case.outcome) };
    // np.median over run00_A, run02_A, ... of median_ttft_ms
    assert_eq!(measurement.metrics["median_ttft_ms"], 36.20940849987164);
    assert_eq!(merged.cases.len(), 6);
}
