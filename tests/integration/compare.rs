//! `vllm-perf compare` on results of real runs: folders of repetitions, upstream's tables, and noise from a store.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use vllm_verdict::case::MeasuredBy;
use vllm_verdict::noise::{AaRow, AaRun, MeasuredOn, SCHEMA};
use vllm_verdict::v1::{Comparison, DeviceName, Verdict};

use super::run::{program, text};
use super::store::keep;

const TTFT: (&str, &str) = ("serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8", "median_ttft_ms");

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/results").join(path)
}

/// `A/01 ... B/05` of the real repetitions.
fn repetitions(folder: &Path) -> [PathBuf; 2] {
    ["A", "B"].map(|side| {
        let dir = folder.join(side);
        fs::create_dir(&dir).unwrap();
        for number in 0..5 {
            let run = format!("run{:02}_{side}", 2 * number + usize::from(side == "B"));
            symlink(data("repeats").join(run), dir.join(format!("{:02}", number + 1))).unwrap();
        }
        dir
    })
}

fn compare(paths: &[&Path], more: &[&str]) -> Output {
    // No external store: nothing listens at this port.
    let store =
        [("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_ALLOW_HTTP", "true"), ("AWS_SKIP_SIGNATURE", "true")];
    program(&["compare"]).args(paths).args(more).envs(store).output().unwrap()
}

fn json(output: &Output) -> Comparison {
    assert_eq!(output.status.code(), Some(0), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A store with twelve A/A pairs of one row, whose noise is 1 %.
fn store(folder: &Path) -> String {
    let ratios = (0..12).map(|at| if at % 2 == 0 { 0.01 } else { -0.01 }).collect();
    let run = AaRun {
        schema: SCHEMA.into(),
        version: "0.1.0".into(),
        run: None,
        device: MeasuredOn { name: DeviceName::Cpu, device_type: "Intel_Xeon_2c".into(), simulated: false },
        started: "2026-11-24T12:49:00Z".into(),
        rows: vec![AaRow { case: TTFT.0.into(), metric: TTFT.1.into(), client: MeasuredBy::Vllm, ratios }],
    };
    keep(folder, &run);
    format!("file://{}", folder.display())
}

#[test]
fn numbered_folders_are_pairs_and_a_store_calibrates_their_rows() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = repetitions(folder.path());
    let store = store(&folder.path().join("store"));
    let device = ["--device", "cpu", "--device-type", "Intel_Xeon_2c"];
    let of = |more: &[&str]| {
        let comparison = json(&compare(&[&a, &b], &[more, &["--format", "json"]].concat()));
        comparison.rows.into_iter().find(|row| (row.case.raw(), row.metric.raw()) == TTFT).unwrap()
    };
    let (alone, known) = (of(&[]), of(&[&["--noise", &store], device.as_slice()].concat()));
    assert_eq!((alone.verdict, alone.base.len(), alone.calibrated), (Verdict::Regressed, 5, false));
    assert_eq!((known.verdict, known.aa_pairs, known.calibrated), (Verdict::Regressed, 12, true));
    assert!(known.deviation < alone.deviation);

    let words = text(&compare(&[&a, &b], &[&["--noise", &store], device.as_slice()].concat()));
    assert!(words.contains("Noise: 1 row calibrated with at least 12 A/A pairs each; "), "{words}");
}

#[test]
fn repetitions_are_pairs_by_their_number_and_those_without_a_counterpart_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = repetitions(folder.path());
    let b_path = b.as_path();
    fs::rename(b_path.join("02"), b_path.join("07")).unwrap();
    let words = text(&compare(&[&a, &b], &[]));
    assert!(words.contains("No pair, and not compared: repetition 02 of base; repetition 07 of head"), "{words}");
    let compared = json(&compare(&[&a, &b], &["--format", "json"]));
    assert_eq!((compared.method.pairs, compared.rows[0].base.len()), (4, 4));

    for number in ["01", "03", "04", "05"] {
        fs::rename(b_path.join(number), b_path.join(format!("1{number}"))).unwrap();
    }
    let words = text(&compare(&[&a, &b], &[]));
    assert!(words.contains("No repetition of base has the number of one of head"), "{words}");
    let compared = json(&compare(&[&a, &b], &["--format", "json"]));
    assert!(compared.rows.iter().all(|row| row.verdict == Verdict::Inconclusive), "{words}");
}

#[test]
fn an_unusable_store_is_an_error_on_the_command_line_and_ignored_in_the_config() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = repetitions(folder.path());
    let refused = |more: &[&str]| {
        let output = compare(&[&a, &b], more);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        text(&output)
    };
    let device = ["--device", "cpu", "--device-type", "x"];
    assert!(refused(&[&["--noise", "ftp://host"], device.as_slice()].concat()).contains("`ftp://` is not a store"));
    assert!(refused(&[&["--noise", "none"], device.as_slice()].concat()).contains("`none` is not a folder"));
    let known = store(&folder.path().join("store"));
    assert!(refused(&["--noise", &known]).contains("the device is not known"));
    assert!(
        refused(&["--noise", &known, "--device", "cpu"]).contains("--device and --device-type must be given together")
    );

    let config = folder.path().join("config.yml");
    fs::write(&config, "store: s3://bucket\n").unwrap();
    let output = compare(&[&a, &b], &[&["--config", config.to_str().unwrap()], device.as_slice()].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("uncalibrated: cannot read the noise of A/A runs"), "{}", text(&output));
}

#[test]
fn the_largest_concurrency_within_limits_is_reported_for_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = repetitions(folder.path());
    let limits = ["--ttft-max-ms", "60", "--tpot-max-ms", "20", "--sla-statistic", "median"];
    let words = text(&compare(&[&a, &b], &limits));
    let (_, table) = words.split_once("Largest concurrency within the limits").unwrap();
    insta::assert_snapshot!(table.trim_end(), @"


      within  side  concurrency       output      TTFT      TPOT
    serving_tinyllama_tp1_random_256_16
      ttft    base            8  805.9 tok/s  45.01 ms  7.200 ms
      ttft    head            4  537.8 tok/s  25.23 ms  5.877 ms
      tpot    base            8  805.9 tok/s  45.01 ms  7.200 ms
      tpot    head            8  647.8 tok/s  109.7 ms  5.150 ms
      both    base            8  805.9 tok/s  45.01 ms  7.200 ms
      both    head            4  537.8 tok/s  25.23 ms  5.877 ms
    serving_tinyllama_tp1_random_64_32
      ttft    base            8  980.5 tok/s  39.89 ms  5.733 ms
      ttft    head            4  461.8 tok/s  27.08 ms  5.170 ms
      tpot    base            8  980.5 tok/s  39.89 ms  5.733 ms
      tpot    head            8  563.2 tok/s  196.7 ms  4.983 ms
      both    base            8  980.5 tok/s  39.89 ms  5.733 ms
      both    head            4  461.8 tok/s  27.08 ms  5.170 ms
    ");
    let output = compare(&[&a, &b], &[limits.as_slice(), &["--format", "json"]].concat());
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let capacities = answer["capacity"].as_array().unwrap();
    assert_eq!((capacities.len(), &answer["schema"]), (6, &"vllm-perf/comparison/v1".into()));
    assert_eq!(capacities[0]["within"], "ttft");
}

#[test]
fn one_table_is_split_by_parallel_layout_and_two_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let golden = data("upstream-run/golden/benchmark_results.json");
    let one = fs::read_to_string(&golden).unwrap();
    let two = one.replace(r#""TP Size": 1"#, r#""TP Size": 2"#);
    let both = folder.path().join("both.json");
    let rows = |text: &str| text.trim().trim_matches(['[', ']']).to_owned();
    fs::write(&both, format!("[{},{}]", rows(&one), rows(&two))).unwrap();
    let output = compare(&[&both], &["--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let split: Vec<Comparison> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((split.len(), split[0].cases.len()), (1, 6));
    assert!(text(&compare(&[&both], &[])).contains("(TP 2 x PP 1) against base"), "{}", text(&output));

    let output = compare(&[&golden], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("every row has the layout TP 1 x PP 1"), "{}", text(&output));
    assert_eq!(json(&compare(&[&golden, &golden], &["--format", "json"])).counts.regressed, 0);
}
