//! A `buildkite-agent` for tests: enforces the limits of the real one and appends each call, as a line of JSON, to the file
//! in `FAKE_AGENT_LOG` (or `BUILDKITE_FAKE_AGENT_LOG`, for callers that pass on only `BUILDKITE_*`). `..._FAIL=N` makes the
//! first N calls fail.

#![allow(clippy::print_stderr, clippy::disallowed_methods, reason = "a program for tests that uses its own process")]

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

#[derive(Serialize)]
struct Call {
    argv: Vec<String>,
    stdin: String,
    folder: PathBuf,
    /// Names of the variables that reached the agent.
    environment: Vec<String>,
    /// Why the call was refused.
    refused: Option<String>,
}

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().skip(1).collect();
    let mut stdin = String::new();
    if let Err(error) = std::io::stdin().read_to_string(&mut stdin) {
        stdin = format!("unreadable: {error}");
    }
    let Some(log) = variable("FAKE_AGENT_LOG") else {
        eprintln!("fatal: FAKE_AGENT_LOG is not set");
        return ExitCode::from(1);
    };
    let calls_before = fs::read_to_string(&log).unwrap_or_default().lines().count();
    let to_fail = variable("FAKE_AGENT_FAIL").and_then(|count| count.parse().ok()).unwrap_or(0);
    let refused = if calls_before < to_fail {
        Some("fatal: failed to reach the agent API: 503".to_owned())
    } else {
        refusal(&argv, &stdin)
    };
    let call = Call {
        argv,
        stdin,
        folder: std::env::current_dir().unwrap_or_default(),
        environment: std::env::vars().map(|(name, _)| name).collect(),
        refused: refused.clone(),
    };
    let line = serde_json::to_string(&call).unwrap_or_default();
    let written = OpenOptions::new().append(true).create(true).open(log).and_then(|mut file| writeln!(file, "{line}"));
    match (refused, written) {
        (None, Ok(())) => ExitCode::SUCCESS,
        (Some(why), _) => {
            eprintln!("{why}");
            ExitCode::from(1)
        }
        (_, Err(error)) => {
            eprintln!("fatal: {error}");
            ExitCode::from(1)
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).or_else(|_| std::env::var(format!("BUILDKITE_{name}"))).ok()
}

/// The error of the real agent for a call, for the commands that vllm-perf uses.
fn refusal(argv: &[String], stdin: &str) -> Option<String> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    match words[..] {
        ["annotate", "--context", context, "--style", style] => {
            if !["success", "info", "warning", "error"].contains(&style) {
                return Some(format!("fatal: style {style} is unknown"));
            }
            if context.is_empty() || context.len() > 100 {
                return Some("fatal: the context has more than 100 characters".to_owned());
            }
            (stdin.is_empty() || stdin.len() > 1_048_576).then(|| "fatal: annotation body exceeds 1 MiB".to_owned())
        }
        ["artifact", "upload", pattern] => {
            let folder = pattern.split('/').next().unwrap_or_default();
            let found = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
            (!found).then(|| format!("fatal: no files matched {pattern}"))
        }
        ["meta-data", "set", key] => {
            let good = !key.trim().is_empty() && !stdin.trim().is_empty() && stdin.len() <= 100_000;
            (!good).then(|| "fatal: meta-data key and value must not be blank".to_owned())
        }
        _ => Some(format!("fatal: unknown command {}", words.join(" "))),
    }
}
