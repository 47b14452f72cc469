//! Uploads of records, and stores.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use vllm_perf::ci::event::{CiRun, github_event};
use vllm_perf::environment::Environment;
use vllm_perf::plan::config::record_rules::KeyCase;
use vllm_perf::publish::record_upload::{self, Destination, Upload};
use vllm_perf::report::records::Record;
use vllm_perf::system::delivery::Delivery;
use vllm_perf::system::noise_store;
use vllm_perf::system::retry_policy::RetryPolicy;
use vllm_perf::system::store::Store;
use vllm_perf::system::uploader::Uploader;
use vllm_verdict::noise::{AaRun, MeasuredOn, Noise};
use vllm_verdict::v1::Device;

use super::run::{TWO_CASES, program, run, text};

fn open(folder: &Path) -> Store {
    Store::open(&folder.display().to_string(), &Environment::default()).unwrap()
}

fn wait<T>(work: impl Future<Output = anyhow::Result<T>>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work).unwrap()
}

/// Adds an A/A run to a folder store.
pub(super) fn keep(folder: &Path, run: &AaRun) {
    wait(noise_store::append(&open(folder), run));
}

/// The noise of the simulated vLLM on a device in a folder store.
pub(super) fn known(folder: &Path, device: &Device) -> Noise {
    wait(noise_store::read(&open(folder), &MeasuredOn::new(device, true), None)).noise
}

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";
const UPSTREAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/results/upstream-run");

/// `push` to `main` of vLLM, in a folder with its payload.
pub(super) fn pushed(folder: &Path) -> Vec<(&'static str, String)> {
    let payload = folder.join("event.json");
    let text = format!(
        r#"{{"ref": "refs/heads/main", "after": "{SHA}", "repository": {{"full_name": "vllm-project/vllm"}}}}"#
    );
    std::fs::write(&payload, text).unwrap();
    [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_EVENT_NAME", "push"),
        ("GITHUB_EVENT_PATH", payload.to_str().unwrap()),
        ("GITHUB_REPOSITORY", "vllm-project/vllm"),
        ("GITHUB_RUN_ID", "20362340534"),
        ("VLLM_PERF_JOB_ID", "58585533990"),
        ("VLLM_PERF_TIMESTAMP", "1790000000"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

/// How many A/A runs a store has.
pub(super) fn noise_objects(folder: &Path) -> usize {
    keys(folder).iter().filter(|key| key.starts_with("noise/")).count()
}

/// The contents of all objects.
pub(super) fn objects(folder: &Path) -> Vec<Vec<u8>> {
    keys(folder).iter().map(|key| wait(open(folder).read(key))).collect()
}

fn keys(folder: &Path) -> Vec<String> {
    wait(open(folder).list("")).into_iter().map(|entry| entry.key).collect()
}

fn key(model: &str) -> String {
    format!("v3/vllm-project/vllm/main/{SHA}/x/benchmark_results_{model}.json")
}

#[test]
fn a_push_to_main_has_records_and_publish_adds_them_to_the_store_once() {
    let folder = tempfile::tempdir().unwrap();
    let (out, store) = (folder.path().join("out"), folder.path().join("store"));
    let more = ["--only", TWO_CASES, "--pairs", "1", "--device-type", "x"];
    let output = run(&out, "none", "sim:itl=1ms", &more).envs(pushed(folder.path())).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("not published: same dashboard key as serving_"), "{}", text(&output));
    let written: Vec<_> = std::fs::read_dir(out.join("records")).unwrap().map(|it| it.unwrap().path()).collect();
    let records = std::fs::read_to_string(&written[0]).unwrap();
    assert_eq!((written.len(), records.lines().count()), (1, 12), "{records}");

    let publish = |more: &[&str]| {
        let mut publish = program(&["publish", out.to_str().unwrap(), "--store", store.to_str().unwrap()]);
        let output = publish.args(more).envs(pushed(folder.path())).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        text(&output)
    };
    assert!(
        publish(&[]).contains("records: 1 uploaded, 0 already there, 0 refused, 0 kept in the spool\n  uploaded: v3/")
    );
    let [key] = keys(&store).try_into().unwrap();
    assert_eq!(wait(open(&store).read(&key)), records.as_bytes());
    assert!(publish(&[]).contains("records: 0 uploaded, 1 already there"));
    assert_eq!(publish(&["--retry"]).trim(), "records: left out: the spool is empty");
}

#[test]
fn a_run_without_ids_reports_it_once_and_writes_no_records() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let more = ["--only", TWO_CASES, "--pairs", "1", "--device-type", "x"];
    let build = [
        ("BUILDKITE", "true"),
        ("BUILDKITE_BRANCH", "main"),
        ("BUILDKITE_COMMIT", SHA),
        ("BUILDKITE_REPO", "https://github.com/vllm-project/vllm.git"),
        ("BUILDKITE_BUILD_NUMBER", "7"),
        ("VLLM_PERF_TIMESTAMP", "1790000000"),
    ];
    let output = run(&out, "none", "sim:itl=1ms", &more).envs(build).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("no dashboard records: --workflow-id"), "{}", text(&output));
    assert_eq!(text(&output).matches("dashboard records").count(), 1);
    assert!(!out.join("records").exists());
}

fn records(results: &str, store: &Path, more: &[&str]) -> Output {
    let mut command = program(&["records", results, "--device", "cpu", "--device-type", "x", "--branch", "main"]);
    command.args(["--repository", "vllm-project/vllm", "--store"]).arg(store).args(more).output().unwrap()
}

#[test]
fn results_of_upstream_are_imported_and_a_second_import_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ids = ["--commit", SHA, "--timestamp", "1790000000", "--workflow-id", "1", "--job-id", "1"];
    let first = records(UPSTREAM, folder.path(), &ids);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first));
    let before = keys(folder.path());
    assert_eq!(before.len(), 1, "{before:?}");
    assert!(text(&first).contains("1 object added to `"), "{}", text(&first));
    let again = records(UPSTREAM, folder.path(), &ids);
    assert!(text(&again).contains(&format!("already in the store, not replaced: {}", before[0])), "{}", text(&again));
    assert_eq!(keys(folder.path()), before);
}

#[test]
fn a_data_js_is_imported_by_commit_and_unknown_names_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (file, store) = (folder.path().join("data.js"), folder.path().join("store"));
    let entry = |sha: &str, date: u64| {
        format!(
            r#"{{"commit": {{"id": "{sha}"}}, "date": {date}, "benches": [
                {{"name": "median_ttft_ms", "value": 41.7, "unit": "ms"}}, {{"name": "wheel size", "value": 1, "unit": "MB"}}]}}"#
        )
    };
    let entries = [entry(SHA, 1_790_000_000_000), entry(&"a".repeat(40), 1_790_000_100_000)].join(",");
    std::fs::write(&file, format!(r#"window.BENCHMARK_DATA = {{"entries": {{"suite": [{entries}]}}}}"#)).unwrap();
    let output = records(file.to_str().unwrap(), &store, &["--model", "org/m"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let named = "wheel size not published: its name contains no metric of the dashboard (2 times)";
    assert!(text(&output).contains(named), "{}", text(&output));
    assert_eq!(keys(&store), [key("org_m"), key("org_m").replace(SHA, &"a".repeat(40))]);
    let without = program(&["records", file.to_str().unwrap(), "--device", "cpu"]).output().unwrap();
    assert_eq!(without.status.code(), Some(2));
    assert!(text(&without).contains("set --device and --device-type"), "{}", text(&without));
}

/// An upload API that gives these answers in turn, and records what it accepted.
#[derive(Default)]
struct Api {
    answers: Mutex<VecDeque<u16>>,
    seen: Mutex<Vec<String>>,
    taken: Mutex<BTreeMap<String, String>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Posted {
    username: String,
    password: String,
    s3_path: String,
    content: String,
}

/// No answer within any time limit.
const HANGS: u16 = 0;
/// The object is accepted, and the answer is lost.
const TAKEN_THEN_500: u16 = 1;

async fn take(State(api): State<Arc<Api>>, Json(posted): Json<Posted>) -> (StatusCode, String) {
    assert_eq!((posted.username.as_str(), posted.password.as_str()), ("me", "hunter2"));
    api.seen.lock().unwrap().push(posted.s3_path.clone());
    let next = api.answers.lock().unwrap().pop_front().unwrap_or(200);
    let message = |status: u16, text: &str| {
        let body = format!(r#"{{"message": "{text}"}}"#);
        (StatusCode::from_u16(status).unwrap(), body)
    };
    match next {
        HANGS => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            message(500, "too late")
        }
        200 | TAKEN_THEN_500 => {
            match api.taken.lock().unwrap().entry(posted.s3_path) {
                Entry::Vacant(free) => drop(free.insert(posted.content)),
                Entry::Occupied(_) => return message(409, "exists"),
            }
            if next == 200 { message(200, "ok") } else { message(500, "lost") }
        }
        status => message(status, "no: hunter2 <b>\\u0007"),
    }
}

struct Uploading {
    api: Arc<Api>,
    uploader: Destination,
    folder: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Uploading {
    /// An output folder with records of two models, and an API with these answers.
    async fn to(answers: &[u16]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let api = Arc::new(Api { answers: Mutex::new(answers.iter().copied().collect()), ..Api::default() });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/upload", listener.local_addr().unwrap());
        let router = Router::new().route("/upload", post(take)).with_state(api.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let environment = [("VLLM_PERF_UPLOADER_USERNAME", "me"), ("VLLM_PERF_UPLOADER_PASSWORD", "hunter2")];
        // A request times out after 60 of these seconds.
        let policy = RetryPolicy { second: Duration::from_millis(20), attempts: 3, total: 120 };
        let uploader = Uploader::new(&url, &environment.into_iter().collect(), policy).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let output = tokio::task::spawn_blocking(move || {
            let ids = ["--commit", SHA, "--timestamp", "1790000000", "--workflow-id", "1", "--job-id", "1"];
            let store = tempfile::tempdir().unwrap();
            let output = records(UPSTREAM, store.path(), &ids);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output));
            let key = keys(store.path()).remove(0);
            std::fs::read_to_string(store.path().join(key)).unwrap()
        });
        let lines = output.await.unwrap();
        std::fs::create_dir(folder.path().join("records")).unwrap();
        let model = serde_json::from_str::<Record>(lines.lines().next().unwrap()).unwrap().model.name;
        for name in ["org/a", "org/b"] {
            let file = format!("records/benchmark_results_{}.json", name.replace('/', "_"));
            let named = |model: &str| format!(r#""model":{{"name":"{model}"}}"#);
            std::fs::write(folder.path().join(file), lines.replace(&named(&model), &named(name))).unwrap();
        }
        Self { api, uploader: Destination::Uploader(uploader), folder, server }
    }

    async fn outcome(&self, retry: bool) -> Delivery {
        let payload = r#"{"ref": "refs/heads/main", "repository": {"full_name": "vllm-project/vllm"}, "after": "SHA"}"#;
        let event = github_event::parse("push", &payload.replace("SHA", SHA), &Environment::default()).unwrap().0;
        let (run, branches) = (CiRun::default(), ["main".to_owned()]);
        let upload = Upload {
            folder: self.folder.path(),
            event: &event,
            run: &run,
            commit: event.head_sha.as_deref(),
            branches: &branches,
            model_key: KeyCase::Kept,
            destination: Some(&self.uploader),
        };
        match retry {
            false => record_upload::records(&upload).await.unwrap(),
            true => record_upload::retry(&upload).await.unwrap(),
        }
    }

    fn spool(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("spool")).map(Iterator::count).unwrap_or_default()
    }

    /// The API has accepted all that the run wrote.
    fn is_whole(&self) {
        let taken = self.api.taken.lock().unwrap();
        assert_eq!(taken.keys().cloned().collect::<Vec<_>>(), [key("org_a"), key("org_b")]);
        for (key, content) in taken.iter() {
            let written = self.folder.path().join("records").join(key.rsplit('/').next().unwrap());
            assert_eq!(&std::fs::read_to_string(written).unwrap(), content);
        }
    }
}

#[tokio::test]
async fn an_upload_api_with_temporary_failures_gets_every_object_once() {
    for answers in [&[500, 502, 200, 429, 200][..], &[TAKEN_THEN_500], &[HANGS, 200], &[503, TAKEN_THEN_500, 200, 200]]
    {
        let uploading = Uploading::to(answers).await;
        let outcome = uploading.outcome(false).await;
        assert!(matches!(&outcome, Delivery::Done(_)), "{answers:?}: {outcome}");
        assert_eq!(uploading.spool(), 0);
        uploading.is_whole();
        let again = uploading.outcome(false).await.to_string();
        assert!(again.starts_with("0 uploaded, 2 already there, 0 refused, 0 kept"), "{again}");
        uploading.is_whole();
    }
}

#[tokio::test]
async fn objects_that_are_not_accepted_are_kept_or_refused_and_a_retry_sends_only_the_kept() {
    for (answers, said) in [
        (&[200, 500, 500, 500][..], "the upload API answered 500 (no: *** <b> ); gave up after 3 attempts"),
        (&[200, 403], "the upload API answered 403 (no: *** <b> ): VLLM_PERF_UPLOADER_USERNAME and"),
        (&[200, 307], "the upload API answered 307: it redirects"),
        (&[200, HANGS, HANGS, HANGS], "no answer of the upload API: "),
    ] {
        let uploading = Uploading::to(answers).await;
        let Delivery::Failed(first) = uploading.outcome(false).await else { panic!("{answers:?}") };
        assert!(first.starts_with("1 uploaded, 0 already there, 0 refused, 1 kept in the spool"), "{first}");
        assert!(first.contains(&format!("\n  kept: {}: {said}", key("org_b"))), "{first}");
        assert!(first.contains("--retry` uploads them") && !first.contains("hunter2"), "{first}");
        assert_eq!(uploading.spool(), 1);
        uploading.api.seen.lock().unwrap().clear();
        let retried = uploading.outcome(true).await.to_string();
        assert!(retried.starts_with("1 uploaded, 0 already there, 0 refused, 0 kept"), "{retried}");
        assert_eq!(*uploading.api.seen.lock().unwrap(), [key("org_b")]);
        assert_eq!(uploading.spool(), 0);
        uploading.is_whole();
    }
    let uploading = Uploading::to(&[400, 409]).await;
    let Delivery::Failed(refused) = uploading.outcome(false).await else { panic!() };
    assert!(refused.starts_with("0 uploaded, 1 already there, 1 refused, 0 kept"), "{refused}");
    assert!(refused.contains(&format!("refused: {}: the upload API answered 400", key("org_a"))), "{refused}");
    assert_eq!(uploading.spool(), 0);
}

#[test]
fn without_credentials_of_the_api_the_records_are_kept_and_the_rest_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let more = ["--only", TWO_CASES, "--pairs", "1", "--device-type", "x"];
    let output = run(&out, "none", "sim:itl=1ms", &more).envs(pushed(folder.path())).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let publish = |more: &[&str]| {
        program(&["publish", out.to_str().unwrap()]).args(more).envs(pushed(folder.path())).output().unwrap()
    };
    let output = publish(&["--uploader", "https://127.0.0.1:9/"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(text(&output).contains("the upload API needs VLLM_PERF_UPLOADER_USERNAME"), "{}", text(&output));
    assert!(text(&output).contains("comment: left out"), "{}", text(&output));
    let store = folder.path().join("store");
    let output = publish(&["--retry", "--store", store.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).starts_with("records: 1 uploaded"), "{}", text(&output));
    assert_eq!(keys(&store).len(), 1);
}
