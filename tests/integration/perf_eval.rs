//! Recipes and artefacts of perf-eval, as it has them.

use std::fs;
use std::path::{Path, PathBuf};

use vllm_verdict::v1::{Comparison, RepetitionValue, Row, Verdict};

use super::run::{BUSY, program, text};

const RECIPE: &str = "\
name: tiny-h200
gpu: H200
num_gpus: 1
nightly: true
timeout_in_minutes: 30
vllm:
  model: models/tiny-llama
  image: vllm/vllm-openai:nightly
  env: {VLLM_USE_X: 1}
  serve_args: --load-format dummy --trust-remote-code
lm_eval:
  tasks: [{name: gsm8k}]
vllm_bench:
  configs:
    - name: 64-in-16-out
      backend: openai
      dataset: random
      input_len: 64
      output_len: 16
      num_prompts: [4, 8]
      max_concurrency: [1, 4]
      repetitions: 3
      args: {num_warmups: 1, temperature: 0}
    - name: bad
      input_len: 64
      output_len: 16
      num_prompts: [4, 8]
      max_concurrency: 4
";

fn recipe(folder: &Path) -> PathBuf {
    let path = folder.join("workloads/tiny.yaml");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, RECIPE).unwrap();
    path
}

#[test]
fn a_recipe_is_planned_and_measured_and_a_bad_config_loses_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (recipe(folder.path()), folder.path().join("out"));
    let suite = path.to_str().unwrap();
    let planned = program(&["plan", "--suite", suite, "--device", "cpu", "--base", "none", "--head", "sim"])
        .args(["--format", "json"])
        .output()
        .unwrap();
    let plan = text(&planned);
    for words in [
        r#""name": "64-in-16-out-conc-1""#,
        r#""slices": 3"#,
        "tiny-h200 lm_eval",
        "The image that a recipe names is not used",
        "tiny.yaml:24:7: vllm_bench.configs[1]: `num_prompts` may be a list only where `max_concurrency` is one",
    ] {
        assert!(plan.contains(words), "{words}\n{plan}");
    }
    // A folder of recipes is a suite, too.
    let run = program(&["run", "--device", "cpu", "--base", "none", "--head", "sim:itl=1ms", "--pairs", "1"])
        .args(["--suite", path.parent().unwrap().to_str().unwrap(), "--out", out.to_str().unwrap(), "--config", BUSY])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(3), "{}", text(&run));
    for case in ["64-in-16-out-conc-1", "64-in-16-out-conc-4"] {
        // Its three repetitions on one server are the slices of a repetition.
        for slice in ["", "slice-2", "slice-3"] {
            let file = out.join("head/01").join(slice).join(format!("{case}.json"));
            assert!(file.exists(), "{}: {}", file.display(), text(&run));
        }
        assert!(out.join("results").join(format!("{case}.json")).exists());
    }
    // What was measured can be compared by name with what perf-eval measured.
    let theirs = folder.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    for case in ["64-in-16-out-conc-1", "64-in-16-out-conc-4"] {
        let from = out.join("results").join(format!("{case}.json"));
        fs::copy(from, theirs.join(format!("bench-{case}.json"))).unwrap();
    }
    let compared = program(&["compare", theirs.to_str().unwrap(), out.to_str().unwrap(), "--format", "json"]);
    let compared = comparison(compared);
    let cases: Vec<&str> = compared.cases.iter().map(|case| case.name.raw()).collect();
    assert_eq!(cases, ["64-in-16-out-conc-1", "64-in-16-out-conc-4"]);
    assert!(compared.rows.iter().all(|row| row.base.len() == 1 && row.head.len() == 1));
}

fn comparison(mut command: std::process::Command) -> Comparison {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A result of `vllm bench serve` with this throughput.
fn result(throughput: f64) -> String {
    format!(
        r#"{{"model_id": "org/m", "num_prompts": 512, "max_concurrency": 128, "completed": 512, "failed": 0,
        "duration": 60.0, "total_input_tokens": 524288, "total_output_tokens": 65536, "request_throughput": 8.5,
        "output_throughput": {throughput}, "total_token_throughput": 9830.4, "mean_ttft_ms": 41.5, "median_ttft_ms": 40.25,
        "p99_ttft_ms": 90.5, "mean_tpot_ms": 8.125, "median_tpot_ms": {}, "p99_tpot_ms": 12.5}}"#,
        10_000.0 / throughput
    )
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The throughput of one measurement; head is a fifth slower.
fn throughput(side: &str, repetition: u32, slice: u32) -> f64 {
    let noise = f64::from((repetition * 7 + slice * 3) % 5) / 100.0;
    if side == "base" { 1000.0 * (1.0 + noise) } else { 800.0 * (1.0 + noise) }
}

/// Compares five repetitions a side; `place` writes the files of one.
fn compared(folder: &Path, place: impl Fn(&Path, &str, u32)) -> Comparison {
    for side in ["base", "head"] {
        for repetition in 1..=5 {
            place(&folder.join(side).join(format!("{repetition:02}")), side, repetition);
        }
    }
    let [base, head] = ["base", "head"].map(|side| folder.join(side).display().to_string());
    comparison(program(&["compare", &base, &head, "--format", "json"]))
}

#[test]
fn artefacts_of_perf_eval_compare_as_the_same_values_in_upstreams_form_do() {
    let folder = tempfile::tempdir().unwrap();
    let of_files = |name: &str| {
        compared(&folder.path().join(name), |dir, side, repetition| {
            write(&dir.join(format!("{name}.json")), &result(throughput(side, repetition, 1)));
        })
    };
    let theirs = of_files("bench-8k-in-1k-out-conc-128");
    let upstreams = of_files("serving_8k_in_1k_out_qps_inf_concurrency_128");
    let case = &theirs.cases[0];
    let facts = (case.name.raw(), case.test.raw(), case.max_concurrency);
    assert_eq!(facts, ("8k-in-1k-out-conc-128", "8k-in-1k-out", Some(128)));
    assert_eq!((theirs.verdict, theirs.rows.len()), (upstreams.verdict, upstreams.rows.len()));
    for (one, other) in theirs.rows.iter().zip(upstreams.rows) {
        assert_eq!(*one, Row { case: one.case.clone(), ..other });
    }
    let row = theirs.rows.iter().find(|row| row.metric == "output_throughput").unwrap();
    assert_eq!((row.verdict, row.base.len()), (Verdict::Regressed, 5));
}

#[test]
fn measurements_on_one_server_are_slices_of_a_repetition() {
    let folder = tempfile::tempdir().unwrap();
    let compared = compared(folder.path(), |dir, side, repetition| {
        for slice in 1..=3 {
            let name = format!("bench-8k-in-1k-out-conc-128-run-{slice}.json");
            write(&dir.join(name), &result(throughput(side, repetition, slice)));
        }
        // The file of medians is no fourth measurement.
        write(&dir.join("bench-8k-in-1k-out-conc-128.json"), &result(1.0));
    });
    assert_eq!(compared.cases.len(), 1);
    let row = compared.rows.iter().find(|row| row.metric == "output_throughput").unwrap();
    for (side, values) in [("base", &row.base), ("head", &row.head)] {
        let slices =
            |repetition| (1..=3).map(|slice| Some(throughput(side, repetition, slice))).collect::<Vec<Option<f64>>>();
        let expected: Vec<_> = (1..=5).map(|repetition| Some(RepetitionValue::Slices(slices(repetition)))).collect();
        assert_eq!(*values, expected);
    }
    assert_eq!(row.verdict, Verdict::Regressed);
}

#[test]
fn a_folder_of_perf_eval_is_a_repetition_and_has_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("results/qwen-h200");
    for conc in [1, 128] {
        write(&dir.join(format!("bench-8k-in-1k-out-conc-{conc}.json")), &result(900.0 + f64::from(conc)));
    }
    write(&dir.join("gsm8k/results_2026.json"), "{}");
    let report = program(&["report", dir.to_str().unwrap()]).output().unwrap();
    assert_eq!(report.status.code(), Some(0), "{}", text(&report));
    let table = fs::read_to_string(dir.join("benchmark_results.json")).unwrap();
    assert!(table.contains("8k-in-1k-out-conc-128"), "{table}");
    let compared = comparison(program(&["compare", dir.to_str().unwrap(), dir.to_str().unwrap(), "--format", "json"]));
    assert_eq!(compared.cases.len(), 2);
}
