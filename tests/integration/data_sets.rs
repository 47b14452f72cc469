//! The data sets that a suite names: looked for in every place, downloaded once from a hub on loopback, and read from there.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;

use super::run::{BUSY, comparison, program, text, vllm};

const TINY_LLAMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-llama");
const SHAREGPT: &str = include_str!("../data/datasets/sharegpt.json");
const NAME: &str = "ShareGPT_V3_unfiltered_cleaned_split.json";

/// A hub that has ShareGPT, or `status` for everything, and what it was asked: request line and token.
fn hub(status: Option<&'static str>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (format!("http://{}", listener.local_addr().unwrap()), Arc::<Mutex<Vec<String>>>::default());
    let noted = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let token = head.iter().find(|line| line.to_lowercase().starts_with("authorization")).cloned();
            noted.lock().unwrap().push(format!("{} {}", head[0], token.unwrap_or_default()));
            let (status, body) = status.map_or(("200 OK", SHAREGPT), |status| (status, ""));
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    (address, asked)
}

/// A suite with a test of ShareGPT and one of random prompts.
fn suite(folder: &Path) {
    let test = |name: &str, set: serde_json::Value| {
        let mut client = json!({"model": TINY_LLAMA, "backend": "vllm", "num_prompts": 2, "sharegpt_output_len": 4});
        client.as_object_mut().unwrap().extend(set.as_object().unwrap().clone());
        json!({"test_name": name, "qps_list": ["inf"], "max_concurrency_list": [1],
               "server_parameters": {"model": TINY_LLAMA}, "client_parameters": client})
    };
    let tests = json!([
        test("serving_chats", json!({"dataset_name": "sharegpt", "dataset_path": format!("./{NAME}")})),
        test("serving_random", json!({"dataset_name": "random", "random_input_len": 4, "random_output_len": 4})),
    ]);
    fs::create_dir_all(folder.join("suite")).unwrap();
    fs::write(folder.join("suite/serving-tests-cpu.json"), tests.to_string()).unwrap();
}

fn command(folder: &Path, verb: &str, hub: &str, more: &[&str]) -> Command {
    let words =
        [verb, "--provider", "local", "--device", "cpu", "--device-count", "1", "--base", "none", "--pairs", "1"];
    let mut command = program(&words);
    command.args(["--suite", "suite"]).args(more).env("HF_HUB_OFFLINE", "0").env("HF_ENDPOINT", hub);
    command.env("XDG_CACHE_HOME", folder.join("cache")).env("HF_TOKEN", "hf_canary").current_dir(folder);
    command
}

fn said(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    text(output)
}

#[test]
fn a_data_set_is_downloaded_once_by_a_run_and_the_plan_says_so_before() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    suite(root);
    let (hub, asked) = hub(None);
    let sim = ["--head", "sim:ttft=2ms,itl=1ms", "--config", BUSY];
    let url = format!("{hub}/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered/resolve/main/{NAME}");
    let planned = said(&command(root, "plan", &hub, &sim[..2]).output().unwrap(), 0);
    assert!(planned.contains(&format!("the data set `./{NAME}` will be downloaded from {url}")), "{planned}");
    let dry = said(&command(root, "run", &hub, &[&sim[..], &["--dry-run"]].concat()).output().unwrap(), 0);
    assert!(dry.contains("will be downloaded from"), "{dry}");
    assert_eq!(asked.lock().unwrap().len(), 0, "a plan asks nobody");

    let ran = said(&command(root, "run", &hub, &sim).output().unwrap(), 0);
    assert!(ran.contains(&format!("downloading {url}")) && ran.contains("MB, sha256 "), "{ran}");
    let cases = comparison(&root.join("vllm-perf-out")).cases.len();
    let path = format!("GET /datasets/anon8231489123/ShareGPT_Vicuna_unfiltered/resolve/main/{NAME} HTTP/1.1");
    assert_eq!((cases, asked.lock().unwrap().join("\n")), (2, format!("{path} authorization: Bearer hf_canary")));
    let commands = fs::read_to_string(root.join("vllm-perf-out/head/01/serving_chats_qps_inf_concurrency_1.commands"));
    assert!(commands.unwrap().contains(&format!("--dataset-path ./{NAME}")));

    // The next run has it, also without the hub, and also for a client of vLLM on this machine.
    let head = vllm(root, &format!(r#"echo "$@" >>{}/words"#, root.display()));
    let local = ["--head", &head, "--config", BUSY, "--client", "vllm", "--out", "second"];
    let second = said(&command(root, "run", &hub, &local).env("HF_HUB_OFFLINE", "1").output().unwrap(), 0);
    assert!(!second.contains("downloading"), "{second}");
    assert_eq!(asked.lock().unwrap().len(), 1);
    let kept = root.join("cache/vllm-perf/datasets").join(NAME);
    let words = fs::read_to_string(root.join("words")).unwrap();
    assert!(words.contains(&format!("--dataset-path {}", kept.display())), "{words}");
}

#[test]
fn a_data_set_that_cannot_be_had_loses_its_own_cases_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    suite(root);
    let sim = ["--head", "sim:ttft=2ms,itl=1ms", "--config", "vllm-perf.yml"];
    fs::copy(BUSY, root.join("vllm-perf.yml")).unwrap();
    let reason = format!("`serving_chats` needs the data set `./{NAME}`, which ");
    let lost = |hub: &str, offline: &str, why: &str| {
        let _ = fs::remove_dir_all(root.join("vllm-perf-out"));
        let said = said(&command(root, "run", hub, &sim).env("HF_HUB_OFFLINE", offline).output().unwrap(), 3);
        assert!(said.contains(&reason) && said.contains(why), "{said}");
        assert_eq!(comparison(&root.join("vllm-perf-out")).cases.len(), 1);
        assert!(!root.join("cache/vllm-perf/datasets").join(NAME).exists());
    };
    lost(&hub(Some("404 Not Found")).0, "0", "the hub answered 404 Not Found");
    let (busy, asked) = hub(None);
    lost(&busy, "1", "is not there (HF_HUB_OFFLINE forbids the download from ");
    assert_eq!(asked.lock().unwrap().len(), 0);
    let text = fs::read_to_string(BUSY).unwrap();
    let config = format!("{text}\ndatasets: {{files: {{{NAME}: {{sha256: \"{}\"}}}}}}\n", "0".repeat(64));
    fs::write(root.join("vllm-perf.yml"), config).unwrap();
    lost(&busy, "0", "and vllm-perf.yml has 0000");
    // A file that is there is checked, too.
    fs::write(root.join(NAME), SHAREGPT).unwrap();
    lost(&busy, "1", "and vllm-perf.yml has 0000");
}
