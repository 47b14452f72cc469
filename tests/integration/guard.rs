//! The guard and a container, with a stand-in for `docker`.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// `run` requests a container and waits; `rm` prints the name of the container that it removed, as docker does.
const DOCKER: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
case "$1" in
  run) touch asked && exec sleep 60 ;;
  rm) rm container 2>/dev/null && echo "$4" ;;
esac
exit 0
"#;

#[test]
fn a_container_that_is_created_after_its_client_was_killed_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name);
    fs::write(inside("docker"), DOCKER).unwrap();
    fs::set_permissions(inside("docker"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut guard = Command::new(env!("CARGO_BIN_EXE_vllm-perf"))
        .args(["guard", "--container", "c1", "--", "docker", "run", "--name", "c1", "image"])
        .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !inside("asked").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the guard did not start its command");
        thread::sleep(Duration::from_millis(10));
    }
    // The starter is gone, and the engine takes longer than the grace period.
    drop(guard.stdin.take());
    thread::sleep(Duration::from_secs(3));
    fs::write(inside("container"), "").unwrap();
    guard.wait().unwrap();
    assert!(!inside("container").exists(), "the container is still there");
}
