//! Secrets of the environment are not printed, written, or passed to child processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run::{program, run, text, vllm};

/// Every secret that a CI job may have, each with a unique value.
const CANARIES: &[(&str, &str)] = &[
    ("GITHUB_TOKEN", "ghs_canary0github"),
    ("HF_TOKEN", "hf_canary0models"),
    ("BUILDKITE_AGENT_ACCESS_TOKEN", "bkaj_canary0agent"),
    ("AWS_ACCESS_KEY_ID", "AKIAcanary0id"),
    ("AWS_SECRET_ACCESS_KEY", "canary0aws"),
    ("VLLM_PERF_UPLOADER_USERNAME", "canary0uploader"),
    ("VLLM_PERF_UPLOADER_PASSWORD", "canary0password"),
    ("ACTIONS_RUNTIME_TOKEN", "canary0runtime"),
    ("NPM_TOKEN", "canary0unrelated"),
    ("GH_TOKEN", "gho_canary0second"),
    ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "canary0identity"),
    ("AWS_SESSION_TOKEN", "canary0session"),
    ("AZURE_STORAGE_ACCOUNT_KEY", "canary0azure"),
    ("GOOGLE_SERVICE_ACCOUNT_KEY", "{\"private_key\": \"canary0google\"}"),
    ("HUGGING_FACE_HUB_TOKEN", "hf_canary0older"),
    ("OPENAI_API_KEY", "sk-canary0openai"),
    ("VLLM_API_KEY", "canary0server"),
    ("DOCKER_AUTH_CONFIG", "canary0registry"),
    ("ALL_PROXY_PASSWORD", "canary0proxy"),
    ("DATABASE_URL", "postgres://me:canary0database@127.0.0.1/db"),
    ("DEPLOY_KEY", "-----BEGIN KEY-----\ncanary0deploy\n-----END KEY-----"),
    ("SLACK_WEBHOOK_URL", "https://127.0.0.1:9/canary0hook"),
];

pub(super) fn with_canaries(command: &mut Command) -> &mut Command {
    command.envs(CANARIES.iter().copied()).env("RUST_BACKTRACE", "1").env("RUST_LOG", "trace")
}

pub(super) fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

pub(super) fn assert_clean(what: &str, text: &str) {
    for (name, value) in CANARIES {
        let value = value.lines().find(|line| line.contains("canary")).unwrap();
        assert!(!text.contains(value), "{name} is in {what}:\n{text}");
    }
}

#[test]
fn a_run_writes_no_secret_and_its_programs_get_only_the_hub_token() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let seen = folder.path().join("seen");
    fs::create_dir(&seen).unwrap();
    // Each program writes its environment, its arguments and those of its parent.
    let script = format!(
        "env >{0}/$$.environment; tr '\\0' ' ' </proc/$$/cmdline >{0}/$$.arguments; \
         tr '\\0' ' ' </proc/$PPID/cmdline >>{0}/$$.arguments",
        seen.display()
    );
    let target = vllm(folder.path(), &script);
    let more = ["--only", "serving_.*_64_16_.*_1$", "--pairs", "1"];
    let output = with_canaries(&mut run(&out, &target, &target, &more)).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_clean("the log", &text(&output));
    let mut written = Vec::new();
    files(&out, &mut written);
    assert!(written.iter().any(|path| path.ends_with("comparison.json")), "{written:?}");
    for path in &written {
        assert_clean(&path.display().to_string(), &String::from_utf8_lossy(&fs::read(path).unwrap()));
    }
    let mut reported = Vec::new();
    files(&seen, &mut reported);
    assert!(reported.len() >= 4, "two servers write two files each: {reported:?}");
    for path in &reported {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        let environment = path.extension().is_some_and(|extension| extension == "environment");
        for (name, value) in CANARIES.iter().filter(|(name, _)| !environment || *name != "HF_TOKEN") {
            assert!(!text.contains(value), "{name} is in {}:\n{text}", path.display());
        }
    }
}

#[test]
fn neither_settings_nor_plans_nor_failures_to_reach_a_server_print_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::copy("tests/data/comparison/comparison.json", out.join("comparison.json")).unwrap();
    // Nothing listens on this port.
    let nowhere = "http://127.0.0.1:9";
    let payload = "tests/data/github/events/pull_request.labeled.json";
    let suite = super::run::SUITE;
    let out = out.to_str().unwrap();
    let event = ["--provider", "github", "--event-name", "pull_request", "--event-path", payload];
    let plan = [&["plan", "--suite", suite, "--device", "cpu", "--fetch-labels"], &event[..]].concat();
    let image = ["--base", "none", "--head", "image:localhost:9/vllm:x", "--check-images"];
    let commands: &[Vec<&str>] = &[
        vec!["config", "show"],
        vec!["config", "show", "--format", "json"],
        vec!["plan", "--provider", "local", "--suite", suite, "--device", "cpu", "--base", "sim:", "--head", "sim:"],
        [&["plan", "--provider", "local", "--suite", suite, "--device", "cpu"], &image[..]].concat(),
        plan,
        [&["publish", out], &event[..]].concat(),
        vec!["publish", out, "--provider", "buildkite"],
        vec!["publish", out, "--retry", "--uploader", nowhere],
        vec!["dashboard", "--store", "s3://bucket/prefix"],
    ];
    for arguments in commands {
        let mut command = program(arguments);
        with_canaries(&mut command).env("GITHUB_API_URL", nowhere).env("AWS_ENDPOINT_URL", nowhere);
        command.env("GITHUB_REPOSITORY", "Codertocat/Hello-World").current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = command.output().unwrap();
        assert!(output.status.code().is_some(), "{arguments:?} was killed");
        assert!(!text(&output).trim().is_empty(), "{arguments:?} printed nothing");
        assert_clean(&arguments.join(" "), &text(&output));
    }
}
