//! What a person gets wrong: told in one line before anything starts, and one bad item among many loses only itself.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vllm_verdict::v1::Verdict;

use super::run::{BUSY, comparison, program, text, vllm};

const BINARY: &str = env!("CARGO_BIN_EXE_vllm-perf");
const TINY_LLAMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-llama");

/// A test of one case with these client parameters besides.
fn test(name: &str, client: &Value) -> Value {
    let mut parameters = json!({
        "model": TINY_LLAMA, "backend": "vllm", "dataset_name": "random", "random_input_len": 8,
        "random_output_len": 4, "num_prompts": 2,
    });
    parameters.as_object_mut().unwrap().extend(client.as_object().unwrap().clone());
    json!({
        "test_name": name, "qps_list": ["inf"], "max_concurrency_list": [1],
        "server_parameters": {"model": parameters["model"]}, "client_parameters": parameters,
    })
}

fn suite(folder: &Path, tests: &[Value]) {
    fs::create_dir_all(folder.join("suite")).unwrap();
    fs::write(folder.join("suite/serving-tests-cpu.json"), json!(tests).to_string()).unwrap();
}

/// `run` in the folder, with one repetition of head.
fn run(folder: &Path, head: &str, more: &[&str]) -> Output {
    let words = ["run", "--provider", "local", "--device", "cpu", "--base", "none", "--pairs", "1", "--suite", "suite"];
    let mut command = program(&words);
    command.args(["--config", BUSY, "--head", head]).args(more).current_dir(folder);
    command.output().unwrap()
}

#[test]
fn a_mistake_is_one_line_at_once_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    suite(root, &[test("serving_a", &json!({}))]);
    fs::write(root.join("file"), "x").unwrap();
    let with = |more: &'static [&'static str]| more;
    for (head, more, expected) in [
        ("local:/no/such/vllm", with(&[]), "there is no program `/no/such/vllm`"),
        ("local:./suite", with(&[]), "`./suite` is a folder, not a program"),
        ("local", with(&[]), "there is no program `vllm` on PATH"),
        ("sim", with(&["--out", "file"]), "`file` is a file: give a folder as --out"),
        ("sim", with(&["--out", "/proc/out"]), "cannot write into `/proc`"),
        ("sim", with(&["--case-timeout", "0s"]), "a limit must be above 0"),
        ("vllm/vllm-openai:latest", with(&[]), "did you mean `image:vllm/vllm-openai:latest`?"),
        ("image:a/b:c", with(&[]), "install Docker, or give --head local:PATH"),
    ] {
        let begun = Instant::now();
        // No `docker`, whatever this machine has.
        let words = ["run", "--provider", "local", "--device", "cpu", "--base", "none", "--suite", "suite"];
        let mut command = program(&words);
        command.env("PATH", "/nowhere").args(["--config", BUSY, "--head", head]).args(more).current_dir(root);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{head} {more:?}: {}", text(&output));
        assert!(said.lines().next().unwrap().contains(expected), "{head} {more:?}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{head} {more:?}");
        assert!(!root.join("vllm-perf-out").exists(), "{head} {more:?}");
    }
}

#[test]
fn a_missing_model_folder_or_data_set_is_told_before_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let head = vllm(root, "touch started");
    for (client, expected) in [
        (json!({"model": "/models/none"}), "needs the model `/models/none`, and there is no such folder"),
        (json!({"tokenizer": "./none"}), "needs the model `./none`, and there is no such folder"),
        (
            json!({"dataset_name": "sharegpt", "dataset_path": "./ShareGPT.json"}),
            "`serving_a` needs the data set `./ShareGPT.json`, which is not there",
        ),
    ] {
        suite(root, &[test("serving_a", &client)]);
        let output = run(root, &head, &[]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(expected), "{}", text(&output));
        assert!(!root.join("started").exists() && !root.join("vllm-perf-out").exists());
    }
}

#[test]
fn one_bad_test_or_data_set_loses_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut without_number = test("serving_without_number", &json!({}));
    without_number["client_parameters"].as_object_mut().unwrap().remove("num_prompts");
    without_number.as_object_mut().unwrap().remove("max_concurrency_list");
    let no_file = test("serving_no_file", &json!({"dataset_name": "sharegpt", "dataset_path": "./ShareGPT.json"}));
    suite(root, &[without_number, no_file, test("serving_good", &json!({}))]);
    let output = run(root, "sim:ttft=5ms,itl=2ms", &[]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("serving_without_number was not measured: suite/serving-tests-cpu.json: test"), "{said}");
    assert!(said.contains("serving_no_file was not measured: `serving_no_file` needs the data set"), "{said}");
    let comparison = comparison(&root.join("vllm-perf-out"));
    let cases: Vec<&str> = comparison.cases.iter().map(|case| case.name.raw()).collect();
    assert_eq!(cases, ["serving_good_qps_inf_concurrency_1"]);
    assert_eq!(comparison.skipped.iter().filter(|skipped| skipped.invalid).count(), 2);
}

#[test]
fn a_result_of_vllm_that_lacks_a_primary_metric_loses_that_row_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    suite(root, &[test("serving_a", &json!({}))]);
    let head = vllm(
        root,
        &format!(
            r#"[ "$1" = bench ] || exec {BINARY} sim-vllm -- "$@"
{BINARY} sim-vllm -- "$@" || exit $?
while [ $# -gt 0 ]; do case "$1" in --result-dir) dir=$2;; --result-filename) file=$2;; esac; shift; done
sed -i 's/"p99_ttft_ms":[^,}}]*/"p99_ttft_ms":NaN/; s/"std_itl_ms":[^,}}]*/"std_itl_ms":null/' "$dir/$file"
exit 0"#
        ),
    );
    let output = run(root, &head, &["--client", "vllm"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let comparison = comparison(&root.join("vllm-perf-out"));
    let missing: Vec<&str> =
        comparison.rows.iter().filter(|row| row.verdict == Verdict::NotMeasured).map(|row| row.metric.raw()).collect();
    assert_eq!(missing, ["p99_ttft_ms"], "{}", text(&output));
    assert!(comparison.rows.iter().any(|row| row.metric == "output_throughput" && row.head.len() == 1));
    // The artifact is computed again from its values.
    let verdict = program(&["verdict", "vllm-perf-out"]).current_dir(root).output().unwrap();
    assert_eq!(verdict.status.code(), Some(1), "{}", text(&verdict));
}

#[test]
fn a_word_or_a_variable_that_is_no_text_is_refused_and_nothing_is_written_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    suite(root, &[test("serving_a", &json!({}))]);
    let odd = OsStr::from_bytes(b"o-\xfc");
    let words =
        ["run", "--provider", "local", "--device", "cpu", "--base", "none", "--head", "sim", "--suite", "suite"];
    let mut flag = program(&words);
    flag.arg("--out").arg(odd);
    let mut variable = program(&words);
    variable.env("VLLM_PERF_OUT", odd);
    let mut client = program(&["bench", "serve", "--model", "m", "--save-result", "--result-dir"]);
    client.arg(odd);
    for command in [&mut flag, &mut variable, &mut client] {
        let output = command.current_dir(root).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("is not UTF-8 text"), "{}", text(&output));
    }
    assert_eq!(fs::read_dir(root).unwrap().count(), 1);
    // Letters beyond ASCII are text.
    let output = run(root, "sim:ttft=1ms,itl=1ms", &["--out", "ö-ü", "--client", "vllm"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(root.join("ö-ü/comparison.json").is_file());
}

#[test]
fn a_variable_that_is_no_number_is_named_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    suite(root, &[test("serving_a", &json!({}))]);
    let words =
        ["run", "--provider", "local", "--device", "cpu", "--base", "none", "--head", "sim", "--suite", "suite"];
    for (name, value) in [
        ("VLLM_PERF_TIMESTAMP", "yesterday"),
        ("VLLM_PERF_JOB_ID", "abc"),
        ("VLLM_PERF_PAIRS", "many"),
        ("VLLM_PERF_CASE_TIMEOUT", "0s"),
        ("VLLM_PERF_DEVICE_COUNT", "0"),
        ("VLLM_PERF_SEED", "-1"),
        ("PROMPTS_PER_CONCURRENCY", "x"),
        ("ENABLE_ADAPTIVE_CONCURRENCY", "2"),
        ("DRY_RUN", "perhaps"),
    ] {
        let output = program(&words).env(name, value).current_dir(root).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {}", text(&output));
        let said = text(&output);
        assert!(said.contains(name) && said.contains(value), "{name}: {said}");
        assert!(!root.join("vllm-perf-out").exists(), "{name}");
    }
}
