//! The manifests and the documents agree with each other: every example uses options that exist, and every dependency
//! has its reason.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read `{path}`: {error}"))
}

#[derive(Deserialize)]
struct Plugin {
    configuration: Value,
}

#[derive(Deserialize)]
struct Action {
    inputs: IndexMap<String, Value>,
    runs: Runs,
}

#[derive(Deserialize)]
struct Runs {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Pipeline {
    steps: Vec<PipelineStep>,
}

#[derive(Deserialize)]
struct PipelineStep {
    plugins: Vec<IndexMap<String, Value>>,
}

#[derive(Deserialize)]
struct Workflow {
    jobs: IndexMap<String, Job>,
}

#[derive(Deserialize)]
struct Job {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    uses: Option<String>,
    run: Option<String>,
    #[serde(default)]
    with: IndexMap<String, Value>,
    #[serde(default)]
    env: IndexMap<String, Value>,
}

fn action() -> Action {
    serde_yaml::from_str(&text("action.yml")).unwrap()
}

/// The fenced YAML blocks of the README.
fn readme_blocks() -> Vec<String> {
    let readme = text("README.md");
    readme
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```").map(|(block, _)| block.to_owned()))
        .collect()
}

fn workflows() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = [".github/workflows", "examples/github"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .map(|path: PathBuf| (path.display().to_string(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    let blocks = readme_blocks().into_iter().filter(|block| block.contains("\njobs:"));
    found.extend(blocks.map(|block| ("README.md".to_owned(), block)));
    found
}

fn pipelines() -> Vec<(String, String)> {
    let path = "examples/buildkite/pipeline-plugin.yml";
    let mut found = vec![(path.to_owned(), text(path))];
    let blocks = readme_blocks().into_iter().filter(|block| block.starts_with("steps:"));
    found.extend(blocks.map(|block| ("README.md".to_owned(), block)));
    found
}

#[test]
fn every_buildkite_example_is_a_valid_configuration_of_the_plugin() {
    let plugin: Plugin = serde_yaml::from_str(&text("plugin.yml")).unwrap();
    let schema = jsonschema::validator_for(&plugin.configuration).unwrap();
    let mut checked = BTreeSet::new();
    for (path, pipeline) in pipelines() {
        let pipeline: Pipeline = serde_yaml::from_str(&pipeline).unwrap_or_else(|error| panic!("{path}: {error}"));
        for (name, options) in pipeline.steps.iter().flat_map(|step| &step.plugins).flatten() {
            assert!(name.starts_with("vllm-project/vllm-perf#v"), "{path}: {name} is not pinned to a version");
            let errors: Vec<String> = schema.iter_errors(options).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{path}: {errors:?}");
            checked.insert(path.clone());
        }
    }
    assert_eq!(checked.into_iter().collect::<Vec<_>>(), ["README.md", "examples/buildkite/pipeline-plugin.yml"]);
    assert!(!schema.is_valid(&serde_json::json!({"devise": "cpu"})), "an unknown option must not be valid");
}

#[test]
fn every_workflow_gives_the_action_only_inputs_that_it_has() {
    let action = action();
    let mut uses = 0;
    for (path, workflow) in workflows() {
        let workflow: Workflow = serde_yaml::from_str(&workflow).unwrap_or_else(|error| panic!("{path}: {error}"));
        for step in workflow.jobs.values().flat_map(|job| &job.steps) {
            let ours =
                step.uses.as_deref().is_some_and(|name| name == "./" || name.starts_with("vllm-project/vllm-perf@"));
            if ours {
                uses += 1;
                for input in step.with.keys() {
                    assert!(action.inputs.contains_key(input), "{path}: the action has no input `{input}`");
                }
            }
        }
    }
    assert_eq!(uses, 8, "self-test, our own benches, three examples and the README use the action, two of them twice");
}

#[test]
fn no_input_reaches_a_shell_script_as_text() {
    let scripts = action().runs.steps.into_iter().filter_map(|step| step.run);
    let scripts: Vec<String> = scripts.collect();
    assert!(scripts.len() >= 5);
    for script in scripts {
        assert!(!script.contains("${{"), "an expression in a script can be code: {script}");
    }
}

#[test]
fn every_option_of_the_plugin_is_an_input_of_the_action_unless_it_is_the_platforms() {
    let plugin: Plugin = serde_yaml::from_str(&text("plugin.yml")).unwrap();
    let inputs = action().inputs;
    let options = plugin.configuration.get("properties").and_then(Value::as_object).unwrap();
    let missing: Vec<&String> = options.keys().filter(|option| !inputs.contains_key(*option)).collect();
    assert_eq!(missing, ["github-token-env", "out"]);
}

#[test]
fn every_input_is_a_flag_and_reaches_it_through_its_variable() {
    let of_the_installer = ["install", "version", "sha256", "verify-attestation", "bin"];
    let of_the_platform = ["token", "upload-artifact", "publish-from"];
    let flags = flags();
    let manifest = text("action.yml");
    for input in action().inputs.keys().map(String::as_str).filter(|input| !of_the_platform.contains(input)) {
        if of_the_installer.contains(&input) {
            let variable = format!("VLLM_PERF_{}", input.replace('-', "_").to_uppercase());
            assert!(
                text("scripts/install.sh").contains(&format!("${{{variable}:-")),
                "the installer reads no {variable}"
            );
            assert!(manifest.contains(&format!("{variable}: ${{{{ inputs.{input} }}}}\n")), "{variable} is not set");
            continue;
        }
        let variable = flags.get(input).unwrap_or_else(|| panic!("no command has the flag --{input}"));
        let line = format!("{variable}: ${{{{ inputs.{input} }}}}\n");
        assert!(manifest.contains(&line), "the action does not set `{}`", line.trim());
    }
    let plugin: Plugin = serde_yaml::from_str(&text("plugin.yml")).unwrap();
    let options = plugin.configuration.get("properties").and_then(Value::as_object).unwrap();
    let unknown: Vec<&String> = options.keys().filter(|option| !flags.contains_key(*option)).collect();
    assert_eq!(unknown, of_the_installer, "the hooks alone read these");
}

#[test]
fn every_step_of_the_action_gets_every_input_that_its_command_takes() {
    let Action { inputs, runs } = action();
    let mut commands = Vec::new();
    for Step { run, env, .. } in runs.steps {
        let Some(command) = run.as_deref().and_then(|script| script.strip_prefix("exec \"$BIN\" ")) else { continue };
        for (flag, variable) in flags_of(&[command]) {
            if inputs.contains_key(&flag) {
                let value = env.get(&variable).and_then(Value::as_str);
                assert_eq!(value, Some(format!("${{{{ inputs.{flag} }}}}").as_str()), "`{command}` and {variable}");
            }
        }
        commands.push(command.to_owned());
    }
    assert_eq!(commands, ["run", "publish", "verdict"]);
}

/// The long flags of `run`, `publish` and `verdict`, and the variable of each.
fn flags() -> BTreeMap<String, String> {
    flags_of(&["run", "publish", "verdict"])
}

/// The long flags of these commands, and the variable of each.
fn flags_of(commands: &[&str]) -> BTreeMap<String, String> {
    let definition = vllm_perf::command::arguments::definition(&vllm_perf::environment::Environment::default());
    let commands = commands.iter().map(|name| definition.find_subcommand(name).unwrap());
    let arguments = commands.flat_map(clap::Command::get_arguments);
    arguments
        .filter_map(|argument| {
            let variable = argument.get_env()?.to_str()?;
            Some((argument.get_long()?.to_owned(), variable.to_owned()))
        })
        .collect()
}

#[test]
fn every_place_that_names_our_version_names_this_one() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(text("dist/VERSION"), format!("{version}\n"));
    let sums = text("dist/SHA256SUMS");
    for line in sums.lines().filter(|line| !line.starts_with('#')) {
        let (sum, name) = line.split_once("  ").unwrap();
        assert!(sum.len() == 64 && name.starts_with(&format!("vllm-perf-v{version}-")), "{line}");
    }
    let folders = ["examples/buildkite", "examples/github", "docs/migrating"].map(|folder| root().join(folder));
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut texts: Vec<String> = files.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    texts.extend(["README.md", "docs/migrating.md"].map(text));
    let named = regex::Regex::new(r"vllm-perf(?:@v?|#v|==)([0-9]+\.[0-9]+\.[0-9]+)").unwrap();
    let named: Vec<&str> =
        texts.iter().flat_map(|text| named.captures_iter(text)).map(|found| found.get(1).unwrap().as_str()).collect();
    assert!(named.len() >= 20, "{}", named.len());
    assert!(named.iter().all(|name| *name == version), "{named:?}");
}

/// The keys of the tables of `manifest` that `is_wanted` picks by their headings.
fn keys(manifest: &str, is_wanted: impl Fn(&str) -> bool) -> BTreeSet<&str> {
    let mut wanted = false;
    let mut keys = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            wanted = is_wanted(line);
        } else if wanted && let Some((key, _)) = line.split_once(" = ") {
            keys.insert(key);
        }
    }
    keys
}

#[test]
fn every_dependency_has_its_reason_in_contributing() {
    let manifest = text("Cargo.toml");
    let members = ["vllm-load", "vllm-verdict"];
    let mut named = keys(&manifest, |table| table == "[workspace.dependencies]");
    assert!(members.iter().all(|member| named.remove(member)), "{named:?}");
    let contributing = text("CONTRIBUTING.md");
    let (_, table) = contributing.split_once("| crate | why |").unwrap();
    let explained: BTreeSet<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect();
    assert!(named.len() > 20);
    assert_eq!(named, explained);
}

#[test]
fn every_dependency_of_a_package_is_the_workspaces_and_each_of_those_is_used() {
    let manifests = ["Cargo.toml", "crates/load/Cargo.toml", "crates/verdict/Cargo.toml"].map(text);
    let is_wanted = |table: &str| ["[dependencies]", "[build-dependencies]", "[dev-dependencies]"].contains(&table);
    let used = manifests.iter().flat_map(|manifest| keys(manifest, is_wanted));
    let used: BTreeSet<&str> =
        used.map(|key| key.strip_suffix(".workspace").unwrap_or_else(|| panic!("{key}"))).collect();
    assert_eq!(used, keys(&manifests[0], |table| table == "[workspace.dependencies]"));
}
