//! The rule on real repetitions of real vLLM: `run<NN>_A` as is, `run<NN>_B` with `--max-num-seqs 4`.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its data fails")]

use std::path::{Path, PathBuf};

use vllm_perf::report::terminal;
use vllm_perf::result;
use vllm_perf::result::case_files::Folder;
use vllm_perf::system::results_folder;
use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::looks;
use vllm_verdict::noise::{AaRun, Noise};
use vllm_verdict::repetition::Outcome;
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::{Comparison, Counts, Device, DeviceName, Row, Subject, Verdict};
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
    insta::assert_snapshot!(listed(&comparison), @"
    256_16 c=1 Output throughput: Inconclusive, −0.9 % (95 % interval −15.7 % to +16.5 %), q = 1.00: to detect 3 % would need about 555 pairs
    256_16 c=1 Median TTFT: Inconclusive, −8.4 % (95 % interval −52.6 % to +76.8 %), q = 1.00: to detect 4.5 % would need more than 1000 pairs
    256_16 c=1 P99 TTFT: Inconclusive, −48.8 % (95 % interval −79.6 % to +28.4 %), q = 0.76: to detect 12 % would need more than 1000 pairs
    256_16 c=1 Median TPOT: Inconclusive, +3.2 % (95 % interval −95.1 % to +2,068 %), q = 1.00: to detect 4.5 % would need more than 1000 pairs
    256_16 c=1 P99 TPOT: Inconclusive, −11.5 % (95 % interval −30.1 % to +12.2 %), q = 1.00: to detect 12 % would need about 93 pairs
    256_16 c=4 Output throughput: Inconclusive, −0.6 % (95 % interval −35.3 % to +52.8 %), q = 1.00: to detect 3 % would need more than 1000 pairs
    256_16 c=4 Median TTFT: Inconclusive, −14.2 % (95 % interval −56.8 % to +70.6 %), q = 1.00: to detect 4.5 % would need more than 1000 pairs
    256_16 c=4 P99 TTFT: Inconclusive, −12.0 % (95 % interval −76.7 % to +232 %), q = 1.00: to detect 12 % would need more than 1000 pairs
    256_16 c=4 Median TPOT: Inconclusive, +3.3 % (95 % interval −95.5 % to +2,286 %), q = 1.00: to detect 4.5 % would need more than 1000 pairs
    256_16 c=4 P99 TPOT: Inconclusive, −6.7 % (95 % interval −33.8 % to +31.6 %), q = 1.00: to detect 12 % would need about 193 pairs
    256_16 c=8 Output throughput: Inconclusive, −22.3 % (95 % interval −48.0 % to +16.0 %), q = 0.90: to detect 3 % would need more than 1000 pairs
    256_16 c=8 Median TTFT: Inconclusive, +170 % (95 % interval +26.2 % to +477 %), q = 0.21: to detect 4.5 % would need more than 1000 pairs
    256_16 c=8 P99 TTFT: Inconclusive, +108 % (95 % interval −26.9 % to +492 %), q = 0.76: to detect 12 % would need more than 1000 pairs
    256_16 c=8 Median TPOT: Inconclusive, −31.4 % (95 % interval −96.7 % to +1,328 %), q = 1.00: to detect 4.5 % would need more than 1000 pairs
    256_16 c=8 P99 TPOT: Inconclusive, −23.2 % (95 % interval −37.0 % to −6.2 %), q = 0.21: to detect 12 % would need about 66 pairs
    64_32 c=1 Output throughput: Inconclusive, +5.6 % (95 % interval −16.0 % to +32.8 %), q = 1.00: to detect 3 % would need more than 1000 pairs
    64_32 c=1 Median TTFT: Inconclusive, −25.4 % (95 % interval −64.7 % to +57.5 %), q = 1.00: to detect 4.5 % would need more than 1000 pairs
    64_32 c=1 P99 TTFT: Inconclusive, −15.6 % (95 % interval −69.1 % to +131 %), q = 1.00: to detect 12 % would need more than 1000 pairs
    64_32 c=1 Median TPOT: Inconclusive, −0.5 % (95 % interval −36.1 % to +55.1 %), q = 1.00: to detect 4.5 % would need more than 1000 pairs
    64_32 c=1 P99 TPOT: Inconclusive, −13.1 % (95 % interval −33.3 % to +13.1 %), q = 1.00: to detect 12 % would need about 114 pairs
    64_32 c=4 Output throughput: Inconclusive, +7.4 % (95 % interval −24.2 % to +52.2 %), q = 1.00: to detect 3 % would need more than 1000 pairs
    64_32 c=4 Median TTFT: Inconclusive, −18.2 % (95 % interval −83.8 % to +314 %), q = 1.00: to detect 4.5 % would need more than 1000 pairs
    64_32 c=4 P99 TTFT: Inconclusive, −19.6 % (95 % interval −64.1 % to +80.1 %), q = 1.00: to detect 12 % would need more than 1000 pairs
    64_32 c=4 Median TPOT: Inconclusive, +6.1 % (95 % interval −98.1 % to +5,867 %), q = 1.00: to detect 4.5 % would need more than 1000 pairs
    64_32 c=4 P99 TPOT: Inconclusive, +8.5 % (95 % interval −17.6 % to +43.0 %), q = 1.00: to detect 12 % would need about 125 pairs
    64_32 c=8 Output throughput: Inconclusive, −43.3 % (95 % interval −59.6 % to −20.4 %), q = 0.10: to detect 3 % would need more than 1000 pairs
    64_32 c=8 Median TTFT: Regressed, +429 % (95 % interval +166 % to +955 %): worse, q = 0.012, at least the minimum effect of 3 %
    64_32 c=8 P99 TTFT: Inconclusive, +328 % (95 % interval +10.8 % to +1,553 %), q = 0.32: to detect 12 % would need more than 1000 pairs
    64_32 c=8 Median TPOT: Inconclusive, −10.7 % (95 % interval −95.9 % to +1,833 %), q = 1.00: to detect 4.5 % would need more than 1000 pairs
    64_32 c=8 P99 TPOT: Inconclusive, +15.8 % (95 % interval −9.6 % to +48.3 %), q = 0.95: to detect 12 % would need about 101 pairs
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
        [of(Noise::default()), of(noise(&neighbours, &a)), of(noise(&all_pairs(), &a))].join("\n"), @"
    Inconclusive, s0 = 0.3185, 0 A/A pairs: −43.3 % (95 % interval −59.6 % to −20.4 %), q = 0.10: to detect 3 % would need more than 1000 pairs
    Inconclusive, s0 = 0.3185, 4 A/A pairs: −43.3 % (95 % interval −59.6 % to −20.4 %), q = 0.10: to detect 3 % would need more than 1000 pairs
    Regressed, s0 = 0.2024, 10 A/A pairs: −43.3 % (95 % interval −57.1 % to −25.1 %): worse, q = 0.016, at least the minimum effect of 2 %
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
    insta::assert_snapshot!(text.lines().find(|line| line.starts_with("Smallest detectable change")).unwrap(), @"Smallest detectable change, median row (80 % power): Output throughput more than 1,000 % (all cases 193.4 %), Median TTFT more than 1,000 % (all cases more than 1,000 %), P99 TTFT more than 1,000 % (all cases more than 1,000 %), Median TPOT more than 1,000 % (all cases more than 1,000 %), P99 TPOT more than 1,000 % (all cases 276 %).");
}

#[test]
fn every_number_and_verdict_follows_from_the_comparison_alone() {
    let (a, b) = (folders(&A), folders(&B));
    for noise in [Noise::default(), noise(&all_pairs(), &a)] {
        let text = serde_json::to_string(&vllm_verdict::compare(Input { noise, ..input(&a, &b) })).unwrap();
        let comparison: Comparison = serde_json::from_str(&text).unwrap();
        vllm_verdict::recheck(&comparison).unwrap();
        let verdicts: Vec<Verdict> = comparison.rows.iter().map(|row| row.verdict).collect();
        assert!(verdicts.contains(&Verdict::Regressed) && verdicts.contains(&Verdict::Inconclusive));
        let mut tampered = comparison;
        tampered.rows[3].base.swap(0, 1);
        tampered.rows[3].base[0] = None;
        assert!(vllm_verdict::recheck(&tampered).is_err());
    }
}

#[test]
fn the_last_look_gives_the_verdicts_of_all_rows_at_its_rate() {
    let (a, b) = (folders(&A), folders(&B));
    let looks = looks::looks(Strategy::Sequential, 10, 0.02);
    let at = |pairs: usize| vllm_verdict::compare(Input { looks: looks.clone(), ..input(&a[..pairs], &b[..pairs]) });
    let rates = |comparison: &Comparison| {
        comparison.method.looks.iter().map(|look| (look.pairs, (look.fdr * 1e6).round())).collect::<Vec<_>>()
    };
    let (first, second) = (at(3), at(5));
    assert_eq!(rates(&first), [(3, 1000.0)]);
    assert_eq!(rates(&second), [(3, 1000.0), (5, 6000.0)]);
    assert_eq!(rates(&at(4)), [(3, 1000.0), (4, 6000.0)], "the budget ended it");
    assert_eq!(looks::ends(&first), None, "{}", listed(&first));
    assert_eq!(looks::ends(&second), None, "{}", listed(&second));
    let at_once = vllm_verdict::compare(input(&a, &b));
    assert_eq!(looks::ends(&at_once), Some(looks::End::Finding), "at the whole rate");
    assert!(second.rows.iter().all(|row| row.look == 2 && row.base.len() == 5));
    let reversed: Vec<&str> = A.into_iter().rev().collect();
    let of_one = vllm_verdict::compare(Input { looks: looks.clone(), ..input(&a, &folders(&reversed)) });
    assert_eq!(looks::ends(&of_one), Some(looks::End::Futile), "no row is near a finding");
}

#[test]
fn swapping_base_and_head_only_swaps_regressions_and_improvements() {
    let (a, b) = (folders(&A), folders(&B));
    let looks = looks::looks(Strategy::Sequential, 5, 0.02);
    for (noise, looks) in
        [(Noise::default(), Vec::new()), (noise(&all_pairs(), &a), Vec::new()), (Noise::default(), looks)]
    {
        let of = |base, head| {
            vllm_verdict::compare(Input { noise: noise.clone(), looks: looks.clone(), ..input(base, head) })
        };
        let (forth, back) = (of(&a, &b), of(&b, &a));
        assert_eq!(forth.rows.len(), back.rows.len());
        assert!(forth.method.looks.len() > 1 || forth.counts.regressed > 0);
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
fn a_case_that_head_alone_fails_is_a_finding_and_one_that_base_fails_is_not_measured() {
    let (a, mut b) = (folders(&A), folders(&B));
    for folder in &mut b {
        let case = folder.cases.get_mut("serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_1").unwrap();
        case.outcome = Outcome::Failed("the client stopped with exit code 1".into());
    }
    let comparison = compared(&a, &b);
    let Counts { failing, not_measured, .. } = comparison.counts;
    assert_eq!((comparison.verdict, failing, not_measured), (Verdict::Regressed, 5, 0));
    let lost = comparison.rows.iter().find(|row| row.verdict == Verdict::Failing).unwrap();
    let why = "head failed in 5 of 5 repetitions, base in none: the client stopped with exit code 1";
    assert_eq!((lost.why.raw(), lost.failed.head), (why, 5));
    let case = comparison.cases.iter().find(|case| case.name == lost.case).unwrap();
    assert_eq!(case.problems.len(), 5);

    let swapped = compared(&b, &a);
    assert_eq!((swapped.counts.failing, swapped.counts.not_measured), (0, 5));
    let missing = swapped.rows.iter().find(|row| row.verdict == Verdict::NotMeasured).unwrap();
    assert_eq!(missing.why, "base has no value: the client stopped with exit code 1 (repetition 1)");
    vllm_verdict::recheck(&swapped).unwrap();
}

#[test]
fn survivors_of_failed_repetitions_are_no_sample() {
    let (a, mut b) = (folders(&A), folders(&A));
    let name = "serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_1";
    let verdict = |failures: usize, b: &mut [Folder]| {
        for folder in &mut b[..failures] {
            folder.cases.get_mut(name).unwrap().outcome = Outcome::Failed("out of memory".into());
        }
        let comparison = compared(&a, b);
        vllm_verdict::recheck(&comparison).unwrap();
        comparison.rows.into_iter().filter(|row| row.case == name && row.primary).map(|row| row.verdict).collect()
    };
    let verdicts: Vec<Verdict> = verdict(1, &mut b);
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Inconclusive), "{verdicts:?}");
    let verdicts: Vec<Verdict> = verdict(3, &mut b);
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Failing), "{verdicts:?}");
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
