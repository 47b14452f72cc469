//! `vllm-perf dashboard` on a small store with records of a real run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::run::{program, text};

fn commit(number: u32) -> String {
    format!("{number:040x}")
}

/// The records of a real run at one commit, as `records` writes them, every value times `factor`.
fn measured(store: &Path, number: u32, factor: f64) -> PathBuf {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/results/upstream-run");
    let timestamp = (1_790_000_000 + 86_400 * u64::from(number)).to_string();
    let id = (20_362_340_534 + u64::from(number)).to_string();
    let commit = commit(number);
    let output = program(&["records"])
        .arg(results)
        .args(["--provider", "local", "--repository", "vllm-project/vllm", "--branch", "main", "--commit", &commit])
        .args(["--timestamp", &timestamp, "--workflow-id", &id, "--job-id", "1"])
        .args(["--device", "cpu", "--device-type", "AMD_EPYC_2c"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let mut lines = String::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut record: vllm_perf::report::records::Record = serde_json::from_str(line).unwrap();
        // Typical noise from night to night on a quiet machine.
        let night = 1.0 + 0.004 * f64::from(number * 7 % 5);
        record.metric.benchmark_values.iter_mut().for_each(|value| *value *= night * factor);
        lines += &serde_json::to_string(&record).unwrap();
        lines.push('\n');
    }
    let path = store
        .join(format!("v3/vllm-project/vllm/main/{commit}/AMD_EPYC_2c/benchmark_results_tests_data_tiny-llama.json"));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, lines).unwrap();
    path
}

fn dashboard(store: &Path, out: &Path) -> Output {
    program(&["dashboard", "--store"]).arg(store).arg("--out").arg(out).output().unwrap()
}

/// All files of a site except its cache.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for sub in ["", "data", "assets"] {
        let Ok(entries) = std::fs::read_dir(folder.join(sub)) else { continue };
        for entry in entries.map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            let name = entry.file_name().into_string().unwrap();
            files.insert(format!("{sub}/{name}"), std::fs::read(entry.path()).unwrap());
        }
    }
    files.retain(|name, _| !name.contains("cache"));
    files
}

#[test]
fn an_updated_site_equals_one_that_is_built_from_scratch() {
    let folder = tempfile::tempdir().unwrap();
    let [store, out, cold] = ["store", "site", "cold"].map(|name| folder.path().join(name));
    (0..24).for_each(|number| drop(measured(&store, number, if number < 20 { 1.0 } else { 1.2 })));
    let first = dashboard(&store, &out);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first));
    assert!(text(&first).contains("from 24 objects (24 read now)"), "{}", text(&first));
    let alarms = std::fs::read_to_string(out.join("alarms.md")).unwrap();
    assert!(alarms.contains("Median TTFT") && alarms.contains("**+19.9 %**"), "{alarms}");
    assert!(alarms.contains(&format!("{}...{}", commit(19), commit(20))), "{alarms}");

    measured(&store, 24, 1.2);
    let second = dashboard(&store, &out);
    assert!(text(&second).contains("from 25 objects (1 read now)"), "{}", text(&second));
    let third = dashboard(&store, &out);
    assert!(text(&third).contains("(0 read now); 0 files written"), "{}", text(&third));
    dashboard(&store, &cold);
    assert_eq!(files(&out), files(&cold));

    std::fs::write(out.join(".vllm-perf-cache.json"), "{\"schema\"").unwrap();
    let broken = dashboard(&store, &out);
    assert_eq!(broken.status.code(), Some(0));
    assert!(
        text(&broken).contains("all objects are read again")
            && text(&broken).contains("(25 read now); 0 files written")
    );
}

#[test]
fn invalid_records_are_reported_and_the_others_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let [store, out] = ["store", "site"].map(|name| folder.path().join(name));
    let good = measured(&store, 0, 1.0);
    for (number, content) in [(1, "not JSON"), (2, "{\"schema_version\":\"v9\"}"), (3, "\u{0}"), (4, "")] {
        let path = store.join(format!("v3/vllm-project/vllm/main/{}/cpu/benchmark_results_m.json", commit(number)));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::fs::write(good.parent().unwrap().join("notes.txt"), "hello").unwrap();
    let output = dashboard(&store, &out);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let messages = String::from_utf8(output.stderr).unwrap();
    for number in 1..4 {
        let key = format!("{}/cpu/benchmark_results_m.json`: skipped: record 1: it is not a record", commit(number));
        assert!(messages.contains(&key), "{messages}");
    }
    assert!(messages.contains("1 object skipped: the key is not a key of records"), "{messages}");
    let index = std::fs::read_to_string(out.join("data/index.js")).unwrap();
    assert!(index.starts_with("vllmPerf.index({") && index.matches("\"file\":").count() == 1, "{index}");
}

#[test]
fn a_store_without_records_or_with_those_of_two_repositories_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let [store, out] = ["store", "site"].map(|name| folder.path().join(name));
    let output = dashboard(&store, &out);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("has no records: nothing below `v3/`"), "{}", text(&output));
    for owner in ["one", "two"] {
        let path = store.join(format!("v3/{owner}/vllm/main/{}/cpu/benchmark_results_m.json", commit(1)));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    let output = dashboard(&store, &out);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("one/vllm, two/vllm: select one with --repository"), "{}", text(&output));
}
