//! Rows of perf-eval's dashboard: written by a run, and sent to an endpoint that takes, refuses, fails or hangs.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use vllm_perf::ci::event::{CiRun, github_event};
use vllm_perf::environment::Environment;
use vllm_perf::publish::row_upload::{self, RowDestination};
use vllm_perf::report::perf_row::PerfRow;
use vllm_perf::system::delivery::Delivery;
use vllm_perf::system::retry_policy::RetryPolicy;
use vllm_perf::system::row_endpoint::RowEndpoint;

use super::run::{TWO_CASES, program, run, text};
use super::store::pushed;

const TOKEN: &str = "hidden-token-of-rows";
/// No answer within any time limit.
const HANGS: u16 = 0;

/// An endpoint that gives these answers in turn, and records every request.
#[derive(Default)]
struct Endpoint {
    answers: Mutex<VecDeque<u16>>,
    /// Idempotency key, body and status of every request.
    seen: Mutex<Vec<(String, String, u16)>>,
}

async fn take(State(endpoint): State<Arc<Endpoint>>, headers: HeaderMap, body: String) -> (StatusCode, String) {
    assert_eq!(headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(headers["content-type"], "application/json");
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let status = endpoint.answers.lock().unwrap().pop_front().unwrap_or(200);
    endpoint.seen.lock().unwrap().push((key, body, status));
    if status == HANGS {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    (StatusCode::from_u16(status.max(200)).unwrap(), format!(r#"{{"message": "no: {TOKEN} <b>"}}"#))
}

struct Sending {
    endpoint: Arc<Endpoint>,
    destination: RowDestination,
    folder: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn row(conc: u64) -> String {
    format!(
        r#"{{"date":"2026-11-27 03:00:00","device":"h200","conc":{conc},"image":"i","model":"m","framework":"vllm","precision":"fp8","spec_decoding":"false","disagg":"false","isl":8,"osl":8,"is_multinode":"false","tp":8,"ep":1,"dp_attention":"false","tput_per_gpu":3.0,"output_tput_per_gpu":1.0,"input_tput_per_gpu":2.0,"mean_ttft":0.05}}"#
    )
}

impl Sending {
    /// An output folder with two rows, and an endpoint with these answers.
    async fn to(answers: &[u16]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoint =
            Arc::new(Endpoint { answers: Mutex::new(answers.iter().copied().collect()), ..Endpoint::default() });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let router = Router::new().route("/", post(take)).with_state(endpoint.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        // A request times out after 60 of these seconds.
        let policy = RetryPolicy { second: Duration::from_millis(20), attempts: 3, total: 120 };
        let environment = [("VLLM_PERF_ROWS_TOKEN", TOKEN)].into_iter().collect();
        let destination = RowDestination::Endpoint(RowEndpoint::new(&url, &environment, policy).unwrap());
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("rows")).unwrap();
        for (name, conc) in [("a-conc-1", 1), ("a-conc-8", 8)] {
            std::fs::write(folder.path().join(format!("rows/{name}.json")), row(conc) + "\n").unwrap();
        }
        Self { endpoint, destination, folder, server }
    }

    async fn publish(&self) -> Delivery {
        let payload = r#"{"ref": "refs/heads/main", "repository": {"full_name": "vllm-project/vllm"}, "after": "0123456789abcdef0123456789abcdef01234567"}"#;
        let event = github_event::parse("push", payload, &Environment::default()).unwrap().0;
        let branches = ["main".to_owned()];
        row_upload::rows(self.folder.path(), (&event, &CiRun::default()), &branches, &self.destination).await.unwrap()
    }

    async fn retry(&self) -> String {
        row_upload::retry(self.folder.path(), &self.destination).await.unwrap().to_string()
    }

    /// The rows that the endpoint took, in its order.
    fn taken(&self) -> Vec<String> {
        let seen = self.endpoint.seen.lock().unwrap();
        seen.iter().filter(|(_, _, status)| *status == 200).map(|(_, body, _)| body.clone()).collect()
    }

    fn left(&self, folder: &str) -> usize {
        let entries = std::fs::read_dir(self.folder.path().join("rows").join(folder));
        entries.map(|all| all.filter(|it| it.as_ref().unwrap().path().is_file()).count()).unwrap_or_default()
    }
}

#[tokio::test]
async fn every_row_is_taken_once_also_after_temporary_failures() {
    for answers in [&[][..], &[500, 200], &[429, 503, 200], &[200, 500, 500, 200]] {
        let sending = Sending::to(answers).await;
        let outcome = sending.publish().await;
        assert_eq!(outcome, Delivery::Done("2 sent, 0 already there, 0 refused, 0 kept".into()), "{answers:?}");
        assert_eq!(sending.taken(), [row(1), row(8)]);
        assert_eq!((sending.left(""), sending.left("sent")), (0, 2));
        // Nothing is sent twice, not even where a resumed run writes its rows again.
        assert_eq!(sending.publish().await, Delivery::Left("all rows were sent before".into()));
        std::fs::write(sending.folder.path().join("rows/a-conc-1.json"), row(1) + "\n").unwrap();
        let again = sending.publish().await.to_string();
        assert_eq!(again, "0 sent, 1 already there, 0 refused, 0 kept");
        assert_eq!(sending.taken().len(), 2);
        let seen = sending.endpoint.seen.lock().unwrap();
        let keys: std::collections::BTreeSet<&str> = seen.iter().map(|(key, ..)| key.as_str()).collect();
        assert_eq!(keys.len(), 2, "one key a row, whatever the attempt");
    }
}

#[tokio::test]
async fn a_row_that_is_not_taken_is_kept_or_refused_and_a_retry_sends_only_the_kept() {
    for (answers, said) in [
        (
            &[200, 401][..],
            "kept: a-conc-8.json: the endpoint of rows answered 401 (no: *** <b>): the words of VLLM_PERF_ROWS_TOKEN",
        ),
        (
            &[200, 500, 500, 500],
            "kept: a-conc-8.json: the endpoint of rows answered 500 (no: *** <b>); gave up after 3 attempts",
        ),
        (&[200, 429, 429, 429], "kept: a-conc-8.json: the endpoint of rows answered 429"),
        (&[200, 302], "kept: a-conc-8.json: the endpoint of rows answered 302: it redirects"),
    ] {
        let sending = Sending::to(answers).await;
        let Delivery::Failed(first) = sending.publish().await else { panic!("{answers:?}") };
        assert!(first.starts_with("1 sent, 0 already there, 0 refused, 1 kept\n"), "{first}");
        assert!(first.contains(said) && first.contains("--retry` sends them"), "{first}");
        assert!(!first.contains("hidden"), "{first}");
        assert_eq!((sending.left(""), sending.left("sent")), (1, 1));
        assert_eq!(sending.retry().await, "1 sent, 0 already there, 0 refused, 0 kept");
        assert_eq!(sending.taken(), [row(1), row(8)]);
        assert_eq!(sending.retry().await, "left out: no row is left to send");
    }
    let sending = Sending::to(&[400, 409]).await;
    let Delivery::Failed(refused) = sending.publish().await else { panic!() };
    assert!(refused.starts_with("0 sent, 1 already there, 1 refused, 0 kept"), "{refused}");
    assert_eq!((sending.left(""), sending.left("sent"), sending.left("refused")), (0, 1, 1));
    assert_eq!(sending.retry().await, "left out: no row is left to send");
}

#[tokio::test]
async fn a_row_whose_answer_was_lost_is_sent_again_only_when_a_person_asks() {
    let sending = Sending::to(&[200, HANGS]).await;
    let Delivery::Failed(first) = sending.publish().await else { panic!() };
    assert!(first.contains("kept, and perhaps taken: a-conc-8.json: no answer of the endpoint of rows"), "{first}");
    assert_eq!(sending.endpoint.seen.lock().unwrap().len(), 2, "it is not sent again at once");
    assert_eq!(sending.publish().await, Delivery::Left("all rows were sent before".into()));
    assert_eq!(sending.retry().await, "1 sent, 0 already there, 0 refused, 0 kept");
    let seen = sending.endpoint.seen.lock().unwrap();
    assert_eq!((seen.len(), &seen[1].0, &seen[1].1), (3, &seen[2].0, &seen[2].1), "the same key and body");
}

#[test]
fn a_push_to_main_has_a_row_for_each_case_where_an_endpoint_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let more = ["--only", TWO_CASES, "--pairs", "1", "--device-type", "x"];
    let rows = |out: &Path| std::fs::read_dir(out.join("rows")).map(Iterator::count).unwrap_or_default();
    let output = run(&out, "none", "sim:itl=1ms", &more).envs(pushed(folder.path())).output().unwrap();
    assert_eq!((output.status.code(), rows(&out)), (Some(0), 0), "{}", text(&output));
    let endpoint = ("VLLM_PERF_ROWS", "http://127.0.0.1:9/");
    let mut measured = run(&out, "none", "sim:itl=1ms", &more);
    let output = measured.envs(pushed(folder.path())).envs([endpoint, ("NIGHTLY", "1")]).output().unwrap();
    assert_eq!((output.status.code(), rows(&out)), (Some(0), 2), "{}", text(&output));
    let file = std::fs::read_dir(out.join("rows")).unwrap().next().unwrap().unwrap().path();
    let row: PerfRow = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!((row.device.as_str(), row.isl, row.osl, row.tp, row.nightly), ("cpu", 64, 16, 1, true));
    assert!(row.tput_per_gpu > row.output_tput_per_gpu && row.times["median_ttft"] > 0.0, "{row:?}");
    let publish = |more: &[&str]| {
        let mut publish = program(&["publish", out.to_str().unwrap()]);
        publish.args(more).envs(pushed(folder.path())).envs([endpoint]).output().unwrap()
    };
    let output = publish(&[]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(text(&output).contains("rows: failed: 0 sent, 0 already there, 0 refused, 2 kept"), "{}", text(&output));
    assert!(text(&output).contains("the endpoint of rows needs VLLM_PERF_ROWS_TOKEN"), "{}", text(&output));
    assert_eq!(rows(&out), 2);
    let output = publish(&["--retry"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(text(&output).starts_with("rows: failed: 0 sent"), "{}", text(&output));
}
