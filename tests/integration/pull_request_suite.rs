//! What the suite of a pull request may name, and what the program sends and prints of it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::base::git;
use super::run::{BUSY, program, text};

const TINY_LLAMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-llama");

/// A checkout with a model and a suite of one test with these client parameters.
fn checkout(folder: &Path, client: &Value) {
    if !folder.join(".git").exists() {
        git(folder, &["init", "--quiet"]);
        fs::create_dir_all(folder.join("m")).unwrap();
        fs::create_dir_all(folder.join("suite")).unwrap();
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            fs::copy(format!("{TINY_LLAMA}/{name}"), folder.join("m").join(name)).unwrap();
        }
        fs::write(folder.join("suite/lines.jsonl"), "{\"prompt\": \"a line\", \"output_tokens\": 4}\n").unwrap();
    }
    let mut parameters = json!({
        "model": "m", "backend": "vllm", "dataset_name": "random", "random_input_len": 8, "random_output_len": 4,
        "num_prompts": 1,
    });
    parameters.as_object_mut().unwrap().extend(client.as_object().unwrap().clone());
    let tests = json!([{
        "test_name": "serving_a", "qps_list": ["inf"], "max_concurrency_list": [1],
        "server_parameters": {"model": parameters["model"]}, "client_parameters": parameters,
    }]);
    fs::write(folder.join("suite/serving-tests-cpu.json"), tests.to_string()).unwrap();
}

/// The command in the checkout, as of a pull request or as of a user.
fn command(folder: &Path, pull_request: bool, words: &[&str]) -> Command {
    let event = folder.join(".git/event.json");
    let (base, head) = ("1".repeat(40), "2".repeat(40));
    let payload = json!({
        "action": "synchronize", "number": 42, "repository": {"id": 1, "full_name": "o/r"},
        "pull_request": {
            "number": 42, "labels": [{"name": "perf-benchmarks"}, {"name": "ready"}],
            "base": {"sha": base, "ref": "main", "repo": {"id": 1, "full_name": "o/r"}},
            "head": {"sha": head, "ref": "change", "repo": {"id": 2, "full_name": "o/r"}},
        },
    });
    fs::write(&event, payload.to_string()).unwrap();
    let mut command = program(words);
    command.args(["--suite", "suite", "--device", "cpu", "--base", "none"]).current_dir(folder);
    if pull_request {
        command.envs([("GITHUB_ACTIONS", "true"), ("GITHUB_EVENT_NAME", "pull_request"), ("GITHUB_REPOSITORY", "o/r")]);
        command.env("GITHUB_EVENT_PATH", event);
    } else {
        command.args(["--provider", "local"]);
    }
    command
}

fn plan(folder: &Path, pull_request: bool) -> Output {
    command(folder, pull_request, &["plan", "--head", "sim"]).output().unwrap()
}

#[test]
fn a_test_that_names_a_file_elsewhere_is_left_out_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    checkout(root, &json!({}));
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("tokenizer.json"), "{}").unwrap();
    symlink("/proc/self/environ", root.join("environ.jsonl")).unwrap();
    symlink(outside.path(), root.join("elsewhere")).unwrap();
    fs::create_dir(root.join("evil")).unwrap();
    symlink("/proc/self/environ", root.join("evil/chat_template.jinja")).unwrap();
    let custom = |path: &str| json!({"dataset_name": "custom", "dataset-path": path});
    for (client, flag) in [
        (custom("/proc/self/environ"), "--dataset-path"),
        (custom("environ.jsonl"), "--dataset-path"),
        (custom("suite/../../../../../../../../proc/self/environ"), "--dataset-path"),
        (custom(".git/config"), "--dataset-path"),
        (custom("~/.netrc"), "--dataset-path"),
        (json!({"tokenizer": outside.path().display().to_string()}), "--tokenizer"),
        (json!({"tokenizer": "elsewhere"}), "--tokenizer"),
        (json!({"model": "evil"}), "the model"),
        (json!({"lora-modules": "a=/etc/passwd"}), "--lora-modules"),
        (json!({"lora_modules": {"name": "a", "path": "/dev/zero"}}), "--lora-modules"),
        (json!({"a_flag_of_tomorrow": "file:///etc/passwd"}), "--a-flag-of-tomorrow"),
        (json!({"seed": "1 --dataset-pa=/proc/self/environ"}), "--dataset-path"),
    ] {
        checkout(root, &client);
        let output = plan(root, true);
        assert_eq!(output.status.code(), Some(2), "{client}: {}", text(&output));
        let expected = format!("suite/serving-tests-cpu.json: test `serving_a`: `{flag}` names ");
        assert!(text(&output).contains(&expected), "{client}: {}", text(&output));
        assert_eq!(plan(root, false).status.code(), Some(0), "a user's own run is free: {client}");
    }
    for client in [json!({}), custom("suite/lines.jsonl"), custom("./suite/lines.jsonl"), custom("not-there.jsonl")] {
        checkout(root, &client);
        let output = plan(root, true);
        assert_eq!(output.status.code(), Some(0), "{client}: {}", text(&output));
    }
    // A folder that the operator names.
    checkout(root, &json!({"tokenizer": outside.path().display().to_string()}));
    let config = outside.path().join("vllm-perf.yml");
    fs::write(&config, format!("allowed_folders: ['{}']\n", outside.path().display())).unwrap();
    let config = config.display().to_string();
    let output = command(root, true, &["plan", "--head", "sim", "--config", &config]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn a_test_file_is_a_regular_file_of_the_checkout() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    checkout(root, &json!({}));
    let file = root.join("suite/serving-tests-cpu.json");
    fs::remove_file(&file).unwrap();
    for target in ["/dev/zero", "/proc/self/environ", "/etc/passwd", "../.git/event.json"] {
        symlink(target, &file).unwrap();
        let output = plan(root, true);
        assert_eq!(output.status.code(), Some(2), "{target}: {}", text(&output));
        assert!(text(&output).contains("serving-tests-cpu.json"), "{target}: {}", text(&output));
        fs::remove_file(&file).unwrap();
    }
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    for pull_request in [true, false] {
        assert_eq!(plan(root, pull_request).status.code(), Some(2));
    }
}

#[test]
fn no_text_of_a_suite_or_of_the_command_line_is_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let bad = "x\n::add-mask::canary\r::error::canary ##[add-mask]canary\u{1b}]1339;url=x\u{7}";
    let mut outputs = Vec::new();
    for client in [json!({"dataset_name": bad}), json!({bad: 1}), json!({"endpoint": bad}), json!({"header": bad})] {
        checkout(folder.path(), &client);
        outputs.push(plan(folder.path(), true));
        outputs.push(command(folder.path(), true, &["plan", "--head", "sim", "--format", "json"]).output().unwrap());
    }
    checkout(folder.path(), &json!({}));
    outputs.extend(
        [&["plan", bad], &["plan", "--only"], &[bad, bad]]
            .map(|words| program(words).args([bad]).current_dir(folder.path()).output().unwrap()),
    );
    for output in outputs {
        let shown = text(&output);
        assert!(!shown.contains("##[") && !shown.contains(['\u{1b}', '\r', '\u{7}']), "{shown:?}");
        assert!(!shown.lines().any(|line| line.trim().starts_with("::")), "{shown:?}");
    }
}

#[test]
fn the_server_under_test_gets_no_key_and_names_no_other_server() {
    let folder = tempfile::tempdir().unwrap();
    checkout(folder.path(), &json!({"ready_check_timeout_sec": 0}));
    let asked = Arc::new(Mutex::new(String::new()));
    let elsewhere = listen(Arc::clone(&asked), |_| "200 OK\r\n".to_owned());
    let to = elsewhere.clone();
    let posted = Arc::new(Mutex::new(String::new()));
    let server = listen(Arc::clone(&posted), move |head| match head.starts_with("GET /v1/models") {
        true => "200 OK\r\n".to_owned(),
        false => format!("307 Temporary Redirect\r\nlocation: http://{to}/\r\n"),
    });
    let out = folder.path().join(".git/out").display().to_string();
    let head = format!("remote:http://{server}");
    let output = command(folder.path(), true, &["run", "--head", &head, "--pairs", "1", "--out", &out])
        .envs([("OPENAI_API_KEY", "sk-canary"), ("VLLM_PERF_CONFIG", BUSY)])
        .output()
        .unwrap();
    let posted = posted.lock().unwrap().to_lowercase();
    assert!(posted.contains("post /v1/completions") && posted.contains("get /version"), "{}", text(&output));
    assert!(!posted.contains("canary") && !posted.contains("authorization"), "{posted}");
    assert_eq!(asked.lock().unwrap().as_str(), "", "a redirect was followed");
}

/// A server on loopback that notes the heads of requests and answers with a status line and headers.
fn listen(heads: Arc<Mutex<String>>, answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let lines: Vec<String> =
                reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let Some(first) = lines.first() else { continue };
            let answer = answer(first);
            heads.lock().unwrap().push_str(&(lines.join("\n") + "\n\n"));
            let _ = write!(stream, "HTTP/1.1 {answer}content-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    host
}
