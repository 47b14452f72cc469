//! The rule on real repetitions of real vLLM: `run<NN>_A` as is, `run<NN>_B` with `--max-num-seqs 4`.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its data fails")]

use std::path::{Path, PathBuf};

use vllm_perf::report::terminal;
use vllm_perf::result;
use vllm_perf::result::case_files::Folder;
use vllm_perf::system::results_folder;
use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::metric::Direction;
use vllm_verdict::noise::{AaRun, Noise};
use vllm_verdict::repetition::Outcome;
use vllm_verdict::statistics::{self, Prior};
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::{Comparison, Counts, Device, DeviceName, Look, Row, Subject, Verdict};
use vllm_verdict::{self, Input};

const A: [&str; 5] = ["run00_A", "run02_A", "run04_A", "run06_A", "run08_A"];
const B: [&str; 5] = ["run01_B", "run03_B", "run05_B", "run07_B", "run09_B"];

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/results").join(path)
}

fn folders(runs: &[&str]) -> Vec<Folder> {
    read("repeats", runs)
}

fn read(set: &str, runs: &[&str]) -> Vec<Folder> {
    runs.iter().map(|run| results_folder::read_folder(&data(set).join(run)).unwrap()).collect()
}

fn input(base: &[Folder], head: &[Folder]) -> Input {
    Input {
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
    }
}

fn compared(base: &[Folder], head: &[Folder]) -> Comparison {
    vllm_verdict::compare(input(base, head))
}

/// The noise of pairs of runs of one build, where each pair is an A/A run.
fn noise(pairs: &[(usize, usize)], runs: &[Folder]) -> Noise {
    Noise::of(pairs.iter().map(|&(base, head)| {
        let mut input = input(&runs[base..=base], &runs[head..=head]);
        input.subject.started = Some("2026-11-24T12:49:00Z".into());
        input.subject.device = Some(Device {
            name: DeviceName::Cpu,
            device_type: "Intel_Xeon_2c".into(),
            count: 1,
            image_suffix: "-cpu".into(),
        });
        AaRun::of(&input.subject, &input.cases, &input.base, &input.head).unwrap()
    }))
}

/// All ten pairs of five runs.
fn all_pairs() -> Vec<(usize, usize)> {
    (0..5).flat_map(|head| (0..head).map(move |base| (base, head))).collect()
}

/// Every split of five runs in which neighbours in time are on different sides: each run left out once, each order
/// inside each of the two pairs.
fn splits(runs: [&'static str; 5]) -> Vec<[Vec<&'static str>; 2]> {
    let of_four = |left_out: usize| {
        let four: Vec<&str> = (0..5).filter(|at| *at != left_out).map(|at| runs[at]).collect();
        (0..4).map(move |order| {
            let pair = |first: usize, swapped: bool| {
                if swapped { [four[first + 1], four[first]] } else { [four[first], four[first + 1]] }
            };
            let pairs = [pair(0, order & 1 == 1), pair(2, order & 2 == 2)];
            [0, 1].map(|side| pairs.map(|pair| pair[side]).to_vec())
        })
    };
    (0..5).flat_map(of_four).collect()
}

fn row<'a>(comparison: &'a Comparison, case: &str, metric: &str) -> &'a Row {
    comparison.rows.iter().find(|row| row.metric == metric && row.case.raw().ends_with(case)).unwrap()
}

/// The primary rows, one in each line.
fn listed(comparison: &Comparison) -> String {
    let line = |row: &&Row| {
        let case =
            row.case.raw().trim_start_matches("serving_tinyllama_tp1_random_").replace("_qps_inf_concurrency_", " c=");
        format!("{case} {}: {:?}, {}", row.label.raw(), row.verdict, row.why.raw())
    };
    comparison.rows.iter().filter(|row| row.primary).map(|row| line(&row)).collect::<Vec<_>>().join("\n")
}

#[test]
fn four_sequences_at_once_regress_ttft_at_concurrency_8_and_nothing_at_1() {
    let comparison = compared(&folders(&A), &folders(&B));
    assert_eq!(comparison.method.strategy, Strategy::Paired);
    let ttft = row(&comparison, "64_32_qps_inf_concurrency_8", "median_ttft_ms");
    assert_eq!(ttft.verdict, Verdict::Regressed, "{}", ttft.why.raw());
    assert_eq!(comparison.verdict, Verdict::Regressed);
    let alarms = |row: &&Row| matches!(row.verdict, Verdict::Regressed | Verdict::Improved);
    assert!(comparison.rows.iter().filter(alarms).all(|row| row.case.raw().ends_with("concurrency_8")));
    insta::assert_snapshot!(listed(&comparison), @r"
    256_16 c=1 Output throughput: Inconclusive, −0.9 % (95 % interval −26.0 % to +32.9 %), q = 1.00: more than 1000 pairs are needed to detect a change of 2 %
    256_16 c=1 Median TTFT: Inconclusive, −8.4 % (95 % interval −57.2 % to +96.1 %), q = 1.00: more than 1000 pairs are needed to detect a change of 3 %
    256_16 c=1 P99 TTFT: Inconclusive, −48.8 % (95 % interval −83.4 % to +58.2 %), q = 0.80: more than 1000 pairs are needed to detect a change of 8 %
    256_16 c=1 Median TPOT: Inconclusive, +3.2 % (95 % interval −96.6 % to +3,006 %), q = 1.00: more than 1000 pairs are needed to detect a change of 3 %
    256_16 c=1 P99 TPOT: Inconclusive, −11.5 % (95 % interval −30.8 % to +13.4 %), q = 0.85: about 69 pairs are needed to detect a change of 8 %
    256_16 c=4 Output throughput: Inconclusive, −0.6 % (95 % interval −35.1 % to +52.4 %), q = 1.00: more than 1000 pairs are needed to detect a change of 2 %
    256_16 c=4 Median TTFT: Inconclusive, −14.2 % (95 % interval −60.6 % to +87.2 %), q = 1.00: more than 1000 pairs are needed to detect a change of 3 %
    256_16 c=4 P99 TTFT: Inconclusive, −12.0 % (95 % interval −78.0 % to +252 %), q = 1.00: more than 1000 pairs are needed to detect a change of 8 %
    256_16 c=4 Median TPOT: Inconclusive, +3.3 % (95 % interval −96.8 % to +3,204 %), q = 1.00: more than 1000 pairs are needed to detect a change of 3 %
    256_16 c=4 P99 TPOT: Inconclusive, −6.7 % (95 % interval −32.5 % to +29.1 %), q = 1.00: about 119 pairs are needed to detect a change of 8 %
    256_16 c=8 Output throughput: Inconclusive, −22.3 % (95 % interval −48.3 % to +16.6 %), q = 0.80: more than 1000 pairs are needed to detect a change of 2 %
    256_16 c=8 Median TTFT: Inconclusive, +170 % (95 % interval +18.1 % to +517 %), q = 0.17: more than 1000 pairs are needed to detect a change of 3 %
    256_16 c=8 P99 TTFT: Inconclusive, +108 % (95 % interval −37.5 % to +594 %), q = 0.80: more than 1000 pairs are needed to detect a change of 8 %
    256_16 c=8 Median TPOT: Inconclusive, −31.4 % (95 % interval −97.7 % to +1,953 %), q = 1.00: more than 1000 pairs are needed to detect a change of 3 %
    256_16 c=8 P99 TPOT: Inconclusive, −23.2 % (95 % interval −38.5 % to −4.0 %), q = 0.17: about 56 pairs are needed to detect a change of 8 %
    64_32 c=1 Output throughput: Inconclusive, +5.6 % (95 % interval −21.6 % to +42.1 %), q = 1.00: more than 1000 pairs are needed to detect a change of 2 %
    64_32 c=1 Median TTFT: Inconclusive, −25.4 % (95 % interval −67.1 % to +69.1 %), q = 1.00: more than 1000 pairs are needed to detect a change of 3 %
    64_32 c=1 P99 TTFT: Inconclusive, −15.6 % (95 % interval −74.0 % to +175 %), q = 1.00: more than 1000 pairs are needed to detect a change of 8 %
    64_32 c=1 Median TPOT: Inconclusive, −0.5 % (95 % interval −93.2 % to +1,366 %), q = 1.00: more than 1000 pairs are needed to detect a change of 3 %
    64_32 c=1 P99 TPOT: Inconclusive, −13.1 % (95 % interval −33.4 % to +13.3 %), q = 0.83: about 80 pairs are needed to detect a change of 8 %
    64_32 c=4 Output throughput: Inconclusive, +7.4 % (95 % interval −25.8 % to +55.6 %), q = 1.00: more than 1000 pairs are needed to detect a change of 2 %
    64_32 c=4 Median TTFT: Inconclusive, −18.2 % (95 % interval −76.2 % to +182 %), q = 1.00: more than 1000 pairs are needed to detect a change of 3 %
    64_32 c=4 P99 TTFT: Inconclusive, −19.6 % (95 % interval −72.3 % to +133 %), q = 1.00: more than 1000 pairs are needed to detect a change of 8 %
    64_32 c=4 Median TPOT: Inconclusive, +6.1 % (95 % interval −98.2 % to +6,093 %), q = 1.00: more than 1000 pairs are needed to detect a change of 3 %
    64_32 c=4 P99 TPOT: Inconclusive, +8.5 % (95 % interval −17.5 % to +42.8 %), q = 1.00: about 85 pairs are needed to detect a change of 8 %
    64_32 c=8 Output throughput: Inconclusive, −43.3 % (95 % interval −60.6 % to −18.4 %), q = 0.068: more than 1000 pairs are needed to detect a change of 2 %
    64_32 c=8 Median TTFT: Regressed, +429 % (95 % interval +142 % to +1,056 %): worse, q = 0.010, at least the minimum effect of 3 %
    64_32 c=8 P99 TTFT: Inconclusive, +328 % (95 % interval +5.2 % to +1,641 %), q = 0.26: more than 1000 pairs are needed to detect a change of 8 %
    64_32 c=8 Median TPOT: Inconclusive, −10.7 % (95 % interval −97.1 % to +2,641 %), q = 1.00: more than 1000 pairs are needed to detect a change of 3 %
    64_32 c=8 P99 TPOT: Inconclusive, +15.8 % (95 % interval −10.2 % to +49.4 %), q = 0.80: about 74 pairs are needed to detect a change of 8 %
    ");
}

#[test]
fn interleaved_splits_of_runs_of_one_build_have_no_changes() {
    for runs in [A, B] {
        let calibrated = noise(&all_pairs(), &folders(&runs));
        for [base, head] in splits(runs) {
            for noise in [Noise::default(), calibrated.clone()] {
                let comparison = vllm_verdict::compare(Input { noise, ..input(&folders(&base), &folders(&head)) });
                let Counts { regressed, improved, inconclusive, .. } = comparison.counts;
                assert_eq!((regressed, improved), (0, 0), "{base:?} against {head:?}: {}", listed(&comparison));
                assert!(inconclusive > 0, "two pairs of a noisy host are not enough for every row");
            }
        }
    }
}

#[test]
fn the_verdict_of_throughput_depends_on_its_noise_estimate() {
    let (a, b) = (folders(&A), folders(&B));
    let neighbours = [(0, 1), (1, 2), (2, 3), (3, 4)];
    let of = |noise: Noise| {
        let comparison = vllm_verdict::compare(Input { noise, ..input(&a, &b) });
        let alarms = comparison.rows.iter().filter(|row| matches!(row.verdict, Verdict::Regressed | Verdict::Improved));
        assert!(alarms.clone().count() > 0 && alarms.clone().all(|row| row.case.raw().ends_with("concurrency_8")));
        let row = row(&comparison, "64_32_qps_inf_concurrency_8", "output_throughput");
        format!("{:?}, s0 = {:.4}, {} A/A pairs: {}", row.verdict, row.s0.unwrap(), row.aa_pairs, row.why.raw())
    };
    insta::assert_snapshot!(
        [of(Noise::default()), of(noise(&neighbours, &a)), of(noise(&all_pairs(), &a))].join("\n"), @r"
    Inconclusive, s0 = 0.4001, 0 A/A pairs: −43.3 % (95 % interval −60.6 % to −18.4 %), q = 0.068: more than 1000 pairs are needed to detect a change of 2 %
    Inconclusive, s0 = 0.3994, 24 A/A pairs: −43.3 % (95 % interval −60.6 % to −18.4 %), q = 0.068: more than 1000 pairs are needed to detect a change of 2 %
    Regressed, s0 = 0.2024, 10 A/A pairs: −43.3 % (95 % interval −57.1 % to −25.1 %): worse, q = 0.008, at least the minimum effect of 2 %
    "
    );
}

#[test]
fn on_a_disturbed_host_nothing_is_a_change_and_the_report_states_its_sensitivity() {
    let of = |base: &[&str], head: &[&str]| compared(&read("repeats-noisy", base), &read("repeats-noisy", head));
    let a_against_b = of(&["run00_A", "run03_A"], &["run01_B", "run04_B"]);
    let a_against_a = of(&["run00_A", "run03_A"], &["run02_A", "run05_A"]);
    for comparison in [&a_against_b, &a_against_a] {
        assert_eq!((comparison.counts.regressed, comparison.counts.improved), (0, 0), "{}", listed(comparison));
    }
    let text = terminal::table(&a_against_b, 100);
    insta::assert_snapshot!(text.lines().find(|line| line.starts_with("Smallest detectable change")).unwrap(), @"Smallest detectable change, median row (80 % power): Output throughput 774 %, Median TTFT more than 1,000 %, P99 TTFT more than 1,000 %, Median TPOT more than 1,000 %, P99 TPOT 502.6 %.");
}

/// The verdict of a row, recomputed from the content of `comparison.json`.
fn recomputed(row: &Row, comparison: &Comparison) -> Verdict {
    let prior = |row: &Row| row.s0.map(|s0| Prior { n0: row.n0, s0 });
    let p = |row: &Row| {
        statistics::shift(&statistics::logs(&row.base), &statistics::logs(&row.head), prior(row)).unwrap().p()
    };
    let primary: Vec<&Row> = comparison.rows.iter().filter(|row| row.primary).collect();
    let adjusted = statistics::benjamini_hochberg(&primary.iter().map(|row| p(row)).collect::<Vec<f64>>());
    let q = primary.iter().position(|other| std::ptr::eq(*other, row)).map(|at| adjusted[at]);
    let shift = statistics::shift(&statistics::logs(&row.base), &statistics::logs(&row.head), prior(row)).unwrap();
    let fdr = comparison.method.looks[row.look as usize - 1].fdr;
    let (low, high) = shift.interval(0.90);
    if q.is_some_and(|q| q <= fdr) && shift.estimate.abs() >= row.min_effect.ln_1p() {
        let worse = (shift.estimate > 0.0) == (row.direction == Direction::Lower);
        return if worse { Verdict::Regressed } else { Verdict::Improved };
    }
    let inside = low > -0.05_f64.ln_1p() && high < 0.05_f64.ln_1p();
    if inside { Verdict::Unchanged } else { Verdict::Inconclusive }
}

#[test]
fn every_verdict_can_be_recomputed_from_the_comparison_alone() {
    let (a, b) = (folders(&A), folders(&B));
    let mut verdicts = Vec::new();
    for noise in [Noise::default(), noise(&all_pairs(), &a)] {
        let text = serde_json::to_string(&vllm_verdict::compare(Input { noise, ..input(&a, &b) })).unwrap();
        let comparison: Comparison = serde_json::from_str(&text).unwrap();
        for row in &comparison.rows {
            assert_eq!(recomputed(row, &comparison), row.verdict, "{} {}", row.case.raw(), row.metric.raw());
            verdicts.push(row.verdict);
        }
    }
    assert!(verdicts.contains(&Verdict::Regressed) && verdicts.contains(&Verdict::Inconclusive));
}

#[test]
fn a_case_that_the_first_look_decides_is_finished_and_the_others_continue() {
    let (a, b) = (folders(&A), folders(&B));
    let case = "serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8";
    let looks = vec![Look { pairs: 3, fdr: 0.5 }, Look { pairs: 5, fdr: 0.04 }];
    let noise = noise(&all_pairs(), &a);
    let first = vllm_verdict::compare(Input { noise: noise.clone(), looks: looks.clone(), ..input(&a[..3], &b[..3]) });
    assert_eq!((first.method.strategy, first.method.looks.len()), (Strategy::Paired, 1));
    let open = vllm_verdict::undecided(&first);
    assert!(!open.contains(&case) && !open.is_empty(), "{open:?}");

    let mut later = input(&a, &b);
    for repetition in later.base[3..].iter_mut().chain(&mut later.head[3..]) {
        repetition.retain(|name, _| open.contains(&name.as_str()));
    }
    let comparison = vllm_verdict::compare(Input { noise, looks, ..later });
    assert_eq!((comparison.method.strategy, comparison.counts.not_measured), (Strategy::Sequential, 0));
    for row in &comparison.rows {
        let (look, values) = if open.contains(&row.case.raw()) { (2, 5) } else { (1, 3) };
        assert_eq!((row.look, row.base.len()), (look, values), "{}", row.case.raw());
    }
    assert_eq!(row(&comparison, case, "median_ttft_ms").verdict, Verdict::Regressed);
    assert!(comparison.cases.iter().all(|case| case.problems.is_empty()), "a decided case needs no more repetitions");
}

#[test]
fn swapping_base_and_head_only_swaps_regressions_and_improvements() {
    let (a, b) = (folders(&A), folders(&B));
    let looks = vec![Look { pairs: 3, fdr: 0.5 }, Look { pairs: 5, fdr: 0.04 }];
    for (noise, looks) in
        [(Noise::default(), Vec::new()), (noise(&all_pairs(), &a), Vec::new()), (Noise::default(), looks)]
    {
        let of = |base, head| {
            vllm_verdict::compare(Input { noise: noise.clone(), looks: looks.clone(), ..input(base, head) })
        };
        let (forth, back) = (of(&a, &b), of(&b, &a));
        assert_eq!(forth.rows.len(), back.rows.len());
        assert!(forth.counts.regressed > 0);
        for (forth, back) in forth.rows.iter().zip(&back.rows) {
            let swapped = match forth.verdict {
                Verdict::Regressed => Verdict::Improved,
                Verdict::Improved => Verdict::Regressed,
                other => other,
            };
            assert_eq!((back.verdict, back.look), (swapped, forth.look), "{} {}", forth.case.raw(), forth.metric.raw());
            let product = (1.0 + forth.estimate.unwrap()) * (1.0 + back.estimate.unwrap());
            assert!((product - 1.0).abs() < 1e-9, "{product}");
        }
    }
}

#[test]
fn a_comparison_is_read_back_unchanged() {
    let comparison = compared(&folders(&A), &folders(&B));
    let text = serde_json::to_string(&comparison).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&text).unwrap(), comparison);
    assert!(comparison.rows.iter().all(|row| row.low.is_some() && row.detectable.is_some() == row.primary));
}

#[test]
fn a_case_that_failed_on_one_side_is_not_measured_with_the_reason() {
    let (a, mut b) = (folders(&A), folders(&B));
    for folder in &mut b {
        let case = folder.cases.get_mut("serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_1").unwrap();
        case.outcome = Outcome::Failed("the client stopped with exit code 1".into());
    }
    let comparison = compared(&a, &b);
    assert_eq!((comparison.verdict, comparison.counts.not_measured), (Verdict::Regressed, 5));
    let missing = comparison.rows.iter().find(|row| row.verdict == Verdict::NotMeasured).unwrap();
    assert_eq!(missing.why, "head has no value: the client stopped with exit code 1 (repetition 1)");
    let case = comparison.cases.iter().find(|case| case.name == missing.case).unwrap();
    assert_eq!(case.problems.len(), 5);
}

#[test]
fn repetitions_are_merged_into_one_folder() {
    let merged = result::merge(&folders(&A));
    let case = &merged.cases["serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8"];
    let Outcome::Measured(measurement) = &case.outcome else { panic!("{:?}", case.outcome) };
    // np.median over run00_A, run02_A, ... of median_ttft_ms
    assert_eq!(measurement.metrics["median_ttft_ms"], 36.20940849987164);
    assert_eq!(merged.cases.len(), 6);
}
