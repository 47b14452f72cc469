//! `vllm-perf matrix`: the jobs of an event, and the commits that a nightly run has to measure, against a registry on loopback.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Output;

use indexmap::IndexMap;
use serde::Deserialize;

use super::base::{checkout, registry};
use super::run::{SUITE, program, text};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/matrix");

#[derive(Deserialize)]
struct Matrix {
    include: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    runner: String,
    model: String,
    commit: Option<String>,
}

fn matrix(folder: &Path, more: &[&str]) -> Output {
    program(&[&["matrix"], more].concat()).current_dir(folder).output().unwrap()
}

fn jobs(output: &Output) -> Vec<Job> {
    assert_eq!(output.status.code(), Some(0), "{}", text(output));
    serde_json::from_slice::<Matrix>(&output.stdout).unwrap().include
}

#[test]
fn the_daily_workflows_configuration_gives_its_jobs() {
    let (config, suite) = (format!("{DATA}/daily.yml"), format!("{DATA}/daily"));
    let asked = ["--format", "github", "--config", &config, "--suite", &suite];
    assert_eq!(jobs(&matrix(Path::new("."), &asked)).len(), 20);
    let one = jobs(&matrix(Path::new("."), &[&asked[..], &["--runner", "rocm", "--model", "qwen/qwen3-8b"]].concat()));
    let named: Vec<_> = one.iter().map(|job| (job.runner.as_str(), job.model.as_str())).collect();
    assert_eq!(named, [("linux.rocm.gpu.gfx942.1", "Qwen/Qwen3-8B")]);
}

#[test]
fn a_broken_test_file_stops_only_the_jobs_of_its_device() {
    let (config, suite) = (format!("{DATA}/daily.yml"), format!("{DATA}/../vllm-suite"));
    let asked =
        |runner| ["--format", "github", "--config", &config, "--suite", &suite, "--runner", runner].map(String::from);
    let run = |runner| matrix(Path::new("."), &asked(runner).each_ref().map(String::as_str));
    assert!(!jobs(&run("gnr")).is_empty());
    let broken = run("h100");
    assert_eq!(broken.status.code(), Some(2));
    assert!(text(&broken).contains("serving-tests.json:35:5"), "{}", text(&broken));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    label: String,
    key: String,
    agents: IndexMap<String, String>,
    env: IndexMap<String, String>,
    plugins: Vec<IndexMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct Plugin {
    configuration: serde_json::Value,
}

#[test]
fn every_step_of_the_pipeline_is_a_valid_configuration_of_the_plugin_and_has_no_command() {
    let plugin = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/plugin.yml")).unwrap();
    let plugin: Plugin = serde_yaml::from_str(&plugin).unwrap();
    let schema = jsonschema::validator_for(&plugin.configuration).unwrap();
    let (config, suite) = (format!("{DATA}/daily.yml"), format!("{DATA}/daily"));
    let asked =
        ["--format", "buildkite", "--config", &config, "--suite", &suite, "--store", "s3://b", "--option", "pairs=3"];
    let output = matrix(Path::new("."), &asked);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let pipeline: IndexMap<String, Vec<Step>> = serde_json::from_slice(&output.stdout).unwrap();
    let steps = &pipeline["steps"];
    assert_eq!(steps.len(), 20);
    for step in steps {
        assert_eq!(step.label, format!("{} on {}", step.env["MODEL_FILTER"], step.agents["queue"]));
        let (name, options) = step.plugins[0].first().unwrap();
        assert_eq!(name, concat!("vllm-project/vllm-perf#v", env!("CARGO_PKG_VERSION")));
        let errors: Vec<String> = schema.iter_errors(options).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
        let own = ["config", "suite", "store", "pairs"].map(|name| options[name].to_string());
        assert_eq!(own, [format!("{config:?}"), format!("{suite:?}"), "\"s3://b\"".to_owned(), "3".to_owned()]);
    }
    let keys: HashSet<&String> = steps.iter().map(|step| &step.key).collect();
    assert_eq!(keys.len(), steps.len());
}

#[test]
fn an_event_without_labels_has_no_jobs_and_the_reason_is_printed() {
    let payload = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/github/events/pull_request.opened.json");
    let config = format!("{DATA}/daily.yml");
    let asked = ["--format", "github", "--provider", "github", "--event-name", "pull_request", "--event-path", payload];
    let output = matrix(tempfile::tempdir().unwrap().path(), &[&asked[..], &["--config", &config]].concat());
    assert_eq!(jobs(&output).len(), 0);
    assert!(
        text(&output).contains("no jobs: the pull request has neither `perf-benchmarks` nor `ready`"),
        "{}",
        text(&output)
    );
}

#[test]
fn without_runners_the_error_names_the_key() {
    let output = matrix(tempfile::tempdir().unwrap().path(), &["--format", "buildkite", "--suite", SUITE]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("matrix: {runners:"), "{}", text(&output));
}

#[test]
fn a_job_gets_the_newest_commit_with_an_image_and_without_records() {
    let folder = tempfile::tempdir().unwrap();
    let (main, _) = checkout(folder.path());
    let host = registry(main[..3].iter().map(|commit| format!("{commit}-cpu")).collect());
    let models = r#"[{"test_name": "serving_a", "qps_list": [1], "server_parameters": {"model": "o/A"}}]"#;
    fs::write(folder.path().join("serving-tests-cpu.json"), models).unwrap();
    let config = "matrix: {runners: {cpu: {1: [small, large]}}, types: {small: AMD 1, large: AMD 2}}\n";
    fs::write(folder.path().join("vllm-perf.yml"), format!("images: {{main: '{host}/ci'}}\n{config}")).unwrap();
    let asked = ["--format", "github", "--suite", ".", "--store", "store", "--repository", "o/n"];
    let left = |most: &str| {
        let output = matrix(folder.path(), &[&asked[..], &["--unbenchmarked", most]].concat());
        let commits = jobs(&output).into_iter().map(|job| (job.runner, job.commit.unwrap())).collect::<Vec<_>>();
        (commits, text(&output))
    };
    let job = |runner: &str, commit: &str| (runner.to_owned(), commit.to_owned());
    assert_eq!(left("100").0, [job("small", &main[2]), job("large", &main[2])], "the tip has no image");

    let measured = |commit: &str, device: &str, model: &str| {
        let key = folder.path().join(format!("store/v3/o/n/main/{commit}/{device}/benchmark_results_{model}.json"));
        fs::create_dir_all(key.parent().unwrap()).unwrap();
        fs::write(key, "{}").unwrap();
    };
    measured(&main[2], "AMD_1", "o_A");
    measured(&main[2], "AMD_2", "o_a");
    assert_eq!(
        left("100").0,
        [job("small", &main[1]), job("large", &main[1])],
        "with the model in upper or lower case"
    );
    let (none, said) = left("2");
    assert_eq!(none, []);
    assert!(said.contains("o/A on small: none of the 2 newest commits of main has an image and no records"), "{said}");
}
