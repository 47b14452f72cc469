//! The clients that can measure a serving case: which program is started, how its results are known, and that two clients
//! are not compared.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use vllm_verdict::case::MeasuredBy;
use vllm_verdict::v1::Verdict;

use super::boundary::{engine, executable, measure, read};
use super::run::{TWO_CASES, comparison, program, run, text, vllm};

const BINARY: &str = env!("CARGO_BIN_EXE_vllm-perf");
const ONE_CASE: &str = "serving_.*_64_16_.*_1$";

fn document(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The result of the first serving case of a repetition.
fn result(folder: &Path) -> Value {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    files.sort();
    let is_result = |name: &str| name.starts_with("serving_") && name.ends_with(".json") && !name.contains(".pytorch.");
    document(files.iter().find(|path| is_result(path.file_name().unwrap().to_str().unwrap())).unwrap())
}

/// The dashboard records of a folder of results.
fn records(results: &Path) -> Output {
    let commit = "a".repeat(40);
    let identity =
        ["--repository", "vllm-project/vllm", "--branch", "main", "--commit", &commit, "--timestamp", "1790000000"];
    let machine = ["--workflow-id", "1", "--job-id", "1", "--device", "cpu", "--device-type", "AMD_EPYC_2c"];
    program(&["records"]).arg(results).args(identity).args(machine).output().unwrap()
}

#[test]
fn vllms_rust_client_is_in_plan_results_records_and_report_and_is_not_compared_with_another() {
    let folder = tempfile::tempdir().unwrap();
    let [rust, native] = ["rust", "native"].map(|name| folder.path().join(name));
    let sim = "sim:ttft=5ms,itl=1ms";
    for (out, client) in [(&rust, "vllm-rs"), (&native, "native")] {
        let arguments = ["--pairs", "1", "--only", TWO_CASES, "--client", client];
        let output = run(out, sim, sim, &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
    let plan = document(&rust.join("plan.json"));
    let case = &plan["cases"][0];
    assert_eq!((&case["measured_by"], &case["client_reason"]), (&"vllm-rs".into(), &"--client vllm-rs".into()));
    assert_eq!(case["client"]["env"]["VLLM_USE_RUST_BENCH"], "1");
    assert_eq!(result(&rust.join("head/01")).get("steady_state"), Some(&Value::Null));
    assert!(comparison(&rust).cases.iter().all(|case| case.measured_by == MeasuredBy::VllmRs));
    let records = records(&rust.join("results"));
    assert!(text(&records).contains(r#""measured_by":"vllm-rs""#), "{}", text(&records));
    assert!(read(&rust.join("comment.md")).contains("Client: vLLM's Rust client. "));

    // Output folders, which have plans, and folders of results alone.
    for inside in ["", "head"] {
        let folders = [native.join(inside), rust.join(inside)];
        let output = program(&["compare", "--format", "json"]).args(&folders).output().unwrap();
        let compared: vllm_verdict::v1::Comparison = serde_json::from_slice(&output.stdout).unwrap();
        let serving: Vec<_> = compared.rows.iter().filter(|row| row.case.raw().starts_with("serving_")).collect();
        assert!(!serving.is_empty() && serving.iter().all(|row| row.verdict == Verdict::NotMeasured));
        let why = serving[0].why.raw();
        assert!(why.contains("measured different things: client native and vllm-rs"), "{why}");
    }
}

#[test]
fn the_plan_says_which_client_measures_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(&["plan", "--provider", "local", "--device", "cpu", "--base", "none", "--head", "sim"]);
    command.env("VLLM_PERF_SUITE", super::run::SUITE).current_dir(folder.path());
    let output = command.args(["--only", ONE_CASE, "--client", "vllm-rs"]).output().unwrap();
    let said = text(&output);
    assert!(said.contains("0 measured by the native client, 0 by vllm bench, 1 by vLLM's Rust client"), "{said}");
    assert!(said.contains("    $ VLLM_USE_RUST_BENCH=1 vllm bench serve "), "{said}");
    assert!(said.contains("    measured by vLLM's Rust client: --client vllm-rs"), "{said}");
}

#[test]
fn the_variable_selects_the_client_whatever_the_machine_sets() {
    for (client, of_the_machine, given) in [("vllm-rs", "0", "1"), ("vllm", "1", "0")] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let note = folder.path().join("given");
        let script = format!("[ \"$1\" != bench ] || echo \"$VLLM_USE_RUST_BENCH\" >{}", note.display());
        let target = vllm(folder.path(), &script);
        let arguments = ["--pairs", "1", "--only", ONE_CASE, "--client", client];
        let mut command = run(&out, "none", &target, &arguments);
        let output = command.env("VLLM_USE_RUST_BENCH", of_the_machine).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert_eq!(read(&note).trim(), given, "{client}");
    }
}

#[test]
fn the_variable_goes_into_the_container_of_the_server() {
    let written = r#"echo '{"completed": 2, "output_throughput": 5.0, "median_ttft_ms": 1.0, "p99_ttft_ms": 1.0, "median_tpot_ms": 1.0, "p99_tpot_ms": 1.0, "steady_state": null}' >"$result""#;
    let folder = engine(written, |_| ());
    let output = measure(folder.path(), &["--client", "vllm-rs"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let calls = read(&folder.path().join("calls"));
    let exec = calls.lines().find(|call| call.contains("CALL exec")).unwrap();
    assert!(exec.contains(" vllm bench serve ") && !exec.contains("VLLM_USE_RUST_BENCH"), "{exec}");
    assert!(read(&folder.path().join("variables")).contains("VLLM_USE_RUST_BENCH=1"));
}

#[test]
fn a_vllm_without_the_client_is_told_before_anything_starts_unless_the_program_alone_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let packages = root.join("venv/lib/python3.12/site-packages/vllm");
    fs::create_dir_all(&packages).unwrap();
    fs::create_dir_all(root.join("venv/bin")).unwrap();
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(packages.join("envs.py"), "VLLM_USE_RUST_BENCH: bool = False\n").unwrap();
    let started = root.join("started");
    let target = vllm(&root.join("venv/bin"), &format!("echo \"$@\" >>{}", started.display()));
    let measure = || {
        let out = root.join("out");
        let mut command = run(&out, "none", &target, &["--pairs", "1", "--only", ONE_CASE, "--client", "vllm-rs"]);
        command.env("PATH", format!("{}:/usr/bin:/bin", root.join("bin").display())).output().unwrap()
    };
    let output = measure();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("was built without `vllm-rs`"), "{}", text(&output));
    assert!(!started.exists() && !root.join("out").exists());

    let flags = root.join("flags");
    let client = format!("#!/bin/sh\necho \"$@\" >{}\nexec {BINARY} sim-vllm -- bench serve \"$@\"\n", flags.display());
    executable(&root.join("bin/vllm-bench"), &client);
    let output = measure();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(read(&flags).starts_with("--save-result --result-dir "), "{}", read(&flags));
    assert!(!read(&started).contains("bench"), "{}", read(&started));
}

#[test]
fn a_vllm_that_does_not_hand_over_is_not_measured_as_if_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let target = vllm(folder.path(), "unset VLLM_USE_RUST_BENCH");
    let arguments = ["--pairs", "1", "--only", ONE_CASE, "--client", "vllm-rs"];
    let output = run(&out, "none", &target, &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let reason = "the result is of the client `vllm` and not of `vllm-rs`: this vLLM does not know VLLM_USE_RUST_BENCH";
    assert!(text(&output).contains(reason), "{}", text(&output));
}

#[test]
fn embeddings_and_pooling_are_measured_by_the_native_client_and_judged_by_their_whole_times() {
    let folder = tempfile::tempdir().unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-llama");
    let test = |name: &str, backend: &str, endpoint: &str| {
        serde_json::json!({
            "test_name": name, "qps_list": ["inf"], "max_concurrency_list": [4], "server_parameters": {"model": model},
            "client_parameters": {"model": model, "backend": backend, "endpoint": endpoint, "dataset_name": "random",
                "random_input_len": 16, "num_prompts": 12},
        })
    };
    let tests = [
        test("serving_embed", "openai-embeddings", "/v1/embeddings"),
        test("serving_pool", "vllm-pooling", "/pooling"),
    ];
    fs::write(folder.path().join("serving-tests-cpu.json"), serde_json::json!(tests).to_string()).unwrap();
    let out = folder.path().join("out");
    let mut command = run(&out, "sim:ttft=20ms", "sim:ttft=40ms", &["--pairs", "4"]);
    let output = command.env("VLLM_PERF_SUITE", folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));

    let comparison = comparison(&out);
    assert!(comparison.cases.iter().all(|case| case.measured_by == MeasuredBy::Native));
    for case in ["serving_embed_qps_inf_concurrency_4", "serving_pool_qps_inf_concurrency_4"] {
        let primary = comparison.rows.iter().filter(|row| row.case == case && row.primary);
        let found: Vec<_> = primary.map(|row| (row.metric.raw(), row.verdict)).collect();
        let metrics: Vec<_> = found.iter().map(|(metric, _)| *metric).collect();
        assert_eq!(metrics, ["total_token_throughput", "median_e2el_ms", "p99_e2el_ms"]);
        // Of twelve requests, the 99th percentile is nearly the slowest one.
        assert!(found[..2].iter().all(|(_, verdict)| *verdict == Verdict::Regressed), "{}", text(&output));
    }
    let result = result(&out.join("head/01"));
    // The server counts the tokens of the prompts.
    assert_eq!((&result["completed"], &result["total_input_sequences"]), (&12.into(), &12.into()));
    assert!(result["total_input_tokens"].as_u64().unwrap() >= 12 * 16 && result.get("median_ttft_ms").is_none());
    assert!(result["median_e2el_ms"].as_f64().unwrap() >= 40.0);
    assert!(read(&out.join("results/benchmark_results.md")).contains("serving_pool_qps_inf_concurrency_4"));
    let records = records(&out.join("results"));
    assert_eq!(records.status.code(), Some(0), "{}", text(&records));
    assert!(
        text(&records).contains(r#""name":"median_e2el_ms""#) && !text(&records).contains("ttft"),
        "{}",
        text(&records)
    );
    // What `publish` checks before it believes an artifact.
    let published = program(&["verdict", out.to_str().unwrap()]).output().unwrap();
    assert_eq!(published.status.code(), Some(1), "{}", text(&published));
}
