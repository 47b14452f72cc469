//! `vllm-perf config show`: the settings in force and the source of each.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use super::base::{checkout, git};
use super::run::{program, text};

#[derive(Deserialize)]
struct Setting {
    key: String,
    value: String,
    source: Value,
}

fn show(folder: &Path, flags: &[&str]) -> Command {
    let mut command = program(&[&["config", "show", "--format", "json"], flags].concat());
    command.current_dir(folder);
    command
}

/// The value and the source of a setting.
fn setting(command: &mut Command, key: &str) -> (String, Value) {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let settings: Vec<Setting> = serde_json::from_slice(&output.stdout).unwrap();
    let mut named = settings.into_iter().filter(|setting| setting.key == key);
    let Setting { value, source, .. } = named.next().unwrap();
    assert!(named.next().is_none(), "{key} is listed once");
    (value, source)
}

#[test]
fn a_setting_of_the_config_file_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vllm-perf.yml"), "verdict:\n  fdr: 0.01\n").unwrap();
    let named = ("0.01".to_owned(), json!({"file": "./vllm-perf.yml"}));
    assert_eq!(setting(&mut show(folder.path(), &[]), "verdict.fdr"), named);
    assert_eq!(setting(&mut show(folder.path(), &[]), "store"), ("none".to_owned(), json!("default")));

    fs::create_dir(folder.path().join("ci")).unwrap();
    fs::write(folder.path().join("ci/perf.yml"), "store: file:///srv/store\n").unwrap();
    let explicit = &mut show(folder.path(), &["--config", "ci/perf.yml"]);
    assert_eq!(setting(explicit, "store"), ("file:///srv/store".to_owned(), json!({"file": "ci/perf.yml"})));
}

#[test]
fn a_flag_and_a_variable_are_named_as_sources_whatever_their_value() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vllm-perf.yml"), "strategy: screen\n").unwrap();
    let show = |flags: &[&str]| show(folder.path(), flags);
    let owned = |value: &str, source: &str| (value.to_owned(), json!(source));
    assert_eq!(setting(&mut show(&[]), "pairs"), owned("5", "default"));
    assert_eq!(setting(&mut show(&["--pairs", "5"]), "pairs"), owned("5", "flag"));
    assert_eq!(setting(&mut show(&["--strategy", "paired"]), "strategy"), owned("paired", "flag"));
    let budget = setting(show(&[]).env("VLLM_PERF_BUDGET", "3600s"), "budget");
    assert_eq!(budget, owned("3600s", "environment"));
    // Flags that no key of the file corresponds to.
    assert_eq!(setting(&mut show(&["--client", "vllm"]), "client"), owned("vllm", "flag"));
    assert_eq!(setting(&mut show(&["--device-type", "AMD 1"]), "device-type"), owned("AMD 1", "flag"));
    assert_eq!(setting(&mut show(&["--label", "a,b"]), "label"), owned("a, b", "flag"));
}

#[test]
fn for_a_pull_request_the_settings_are_those_of_its_base() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vllm-perf.yml");
    let (_, head) = checkout(folder.path());
    fs::write(&file, "verdict: {fdr: 1%}\n").unwrap();
    git(folder.path(), &["add", "vllm-perf.yml"]);
    git(folder.path(), &["commit", "--quiet", "--message", "settings"]);
    let base = git(folder.path(), &["rev-parse", "HEAD"]);
    fs::write(&file, "verdict: {fdr: 2%}\n").unwrap();
    let payload = json!({"pull_request": {"number": 1, "head": {"sha": head}, "base": {"sha": base, "ref": "main"}}});
    fs::write(folder.path().join("event.json"), payload.to_string()).unwrap();
    let event = ["--provider", "github", "--event-name", "pull_request", "--event-path", "event.json"];
    let source = json!({"file": format!("vllm-perf.yml of base ({})", &base[..7])});
    assert_eq!(setting(&mut show(folder.path(), &event), "verdict.fdr"), ("0.01".to_owned(), source));
}
