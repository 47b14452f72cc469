//! `vllm-perf report` on a folder of upstream's results.

use std::fs;
use std::path::Path;

use vllm_perf::run::fingerprint::{Conditions, Fingerprint, SCHEMA, Surroundings};

use super::run::{program, text};

/// Makes the report of a copy of the results, beside `environment.json` if there is one; returns its files' texts.
fn report(environment: Option<&str>) -> [String; 2] {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/results/upstream-run");
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(results).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        fs::copy(&entry, folder.path().join(entry.file_name().unwrap())).unwrap();
    }
    if let Some(text) = environment {
        fs::write(folder.path().join("environment.json"), text).unwrap();
    }
    let output = program(&["report"]).arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let is_told = text(&output).contains("`environment.json` cannot be read: the report names no machine");
    assert_eq!(is_told, environment == Some("{}"), "{}", text(&output));
    ["benchmark_results.md", "report.html"].map(|name| fs::read_to_string(folder.path().join(name)).unwrap())
}

#[test]
fn a_report_of_one_folder_has_values_and_no_words_of_a_comparison() {
    let [_, page] = report(None);
    let tags = regex::Regex::new("(?s)<style>.*</style>|<[^>]*>").unwrap();
    let seen = tags.replace_all(&page, " ");
    assert!(seen.contains("These are the values of one run. Nothing is compared with them."), "{seen}");
    assert!(seen.contains("Output throughput") && seen.contains(" tok/s"), "{seen}");
    for word in ["pairs", "inconclusive", "discovery", "Verdict", "base", "interval"] {
        assert!(!seen.contains(word), "{word}: {seen}");
    }
}

#[test]
fn a_report_describes_the_machine_that_measured_and_otherwise_none() {
    let fingerprint = Fingerprint {
        cpu: "Quartz 9000".into(),
        cores: 77,
        memory_gib: 64.0,
        numa_nodes: 1,
        kernel: "5.15.0".into(),
        vllm_version: Some("0.11.0".into()),
        ..Fingerprint::default()
    };
    let measured = Surroundings { schema: SCHEMA.into(), fingerprint, conditions: Conditions::default() };
    let [markdown, page] = report(Some(&serde_json::to_string(&measured).unwrap()));
    assert!(markdown.contains("| Total cores      | 77"), "{markdown}");
    assert!(page.contains("Host: Quartz 9000, 77 logical processors") && page.contains("0.11.0"), "{page}");
    for unknown in [None, Some("{}")] {
        let [markdown, page] = report(unknown);
        assert!(!markdown.contains("Platform Information") && !page.contains("Host:"), "{markdown}");
    }
}
