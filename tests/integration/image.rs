//! Image targets with a fake `docker`: a script that keeps a log and runs the simulated vLLM.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use vllm_perf::run::fingerprint::Surroundings;

use super::run::{SUITE, comparison, run, text};

/// The fake `docker`, with its state in `STATE`. A pull takes two seconds.
const DOCKER: &str = r#"#!/bin/sh
state=STATE
for last; do :; done
image="$state/$(echo "$last" | tr ':/' '__')"
case "$1 $2" in
"image inspect")
  [ -f "$image" ] || exit 1
  case "$4" in
  *Created*) echo 2026-01-02T03:04:05Z ;;
  *RepoDigests*) echo "repository@$(cat "$image")" ;;
  *) echo sha256:id ;;
  esac ;;
"pull --quiet") sleep 2; echo "sha256:of-$last" >"$image"; echo "pulled $last" >>"$state/log" ;;
"stop --time") kill -TERM "$(cat "$state/$last.pid")" ;;
"run --rm")
  while [ "$1" != --entrypoint ]; do
    case "$1" in --publish) port=${2#*:}; port=${port%:*} ;; --name) echo $$ >"$state/$2.pid" ;; esac
    shift
  done
  echo "ran $3" >>"$state/log"
  shift 3
  exec BINARY sim-vllm -- "$@" --host 127.0.0.1 --port "$port" ;;
"inspect --format") exit 1 ;;
esac
"#;

/// A folder with the script, and a suite whose model has its tokenizer in this repository.
fn engine(folder: &Path) {
    let docker = folder.join("docker");
    let script = DOCKER.replace("STATE", folder.to_str().unwrap()).replace("BINARY", env!("CARGO_BIN_EXE_vllm-perf"));
    fs::write(&docker, script).unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    let suite = fs::read_to_string(Path::new(SUITE).join("serving-tests-cpu.json")).unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-llama");
    fs::write(folder.join("serving-tests-cpu.json"), suite.replace("models/tiny-llama", model)).unwrap();
}

#[test]
fn the_image_of_head_is_pulled_while_base_warms_up_and_a_moved_tag_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    engine(folder.path());
    let out = folder.path().join("out");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let more = ["--only", "_64_16_.*_1$", "--pairs", "1"];
    let asked = || {
        let mut command = run(&out, "image:local/vllm:base", "image:local/vllm:head", &more);
        command.env("PATH", &path).env("VLLM_PERF_SUITE", folder.path());
        command
    };
    let output = asked().output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    let lines: Vec<&str> = log.lines().take(4).collect();
    let [base, head] = ["base", "head"].map(|tag| format!("ran repository@sha256:of-local/vllm:{tag}"));
    let expected = ["pulled local/vllm:base", &base, "pulled local/vllm:head", &head];
    assert_eq!(lines, expected);
    let head = comparison(&out).subject.head.unwrap();
    assert_eq!(head.image_digest.unwrap(), "sha256:of-local/vllm:head");
    assert_eq!(head.dated.unwrap(), "2026-01-02T03:04:05Z");
    let environment = fs::read_to_string(out.join("head/01/environment.json")).unwrap();
    let surroundings: Surroundings = serde_json::from_str(&environment).unwrap();
    assert_eq!(surroundings.fingerprint.image_digest.as_deref(), Some("sha256:of-local/vllm:head"));
    assert_eq!(surroundings.conditions.outside_load, None, "the load of containers is not known");

    fs::write(folder.path().join("local_vllm_head"), "sha256:another").unwrap();
    fs::remove_file(out.join("comparison.json")).unwrap();
    let resumed = asked().arg("--resume").output().unwrap();
    assert_eq!(resumed.status.code(), Some(2), "{}", text(&resumed));
    let expected_error =
        "local/vllm:head has changed since this run began: it was sha256:of-local/vllm:head and is sha256:another";
    assert!(text(&resumed).contains(expected_error), "{}", text(&resumed));
}
