//! The native client against the simulated vLLM, over loopback, and the simulated vLLM's own benchmarks.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::pending;

use indexmap::IndexMap;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use vllm_load::sim::{self, Pace, Simulation};
use vllm_perf::environment::Environment;
use vllm_perf::exit::{self, Exit};
use vllm_perf::plan::serve_flags;
use vllm_perf::run::native_client::{self, ServingResult, draw};

type Object = IndexMap<String, Value>;

const TOKENIZER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-llama");

fn words(text: &str) -> Vec<String> {
    shell_words::split(text).unwrap()
}

fn read(path: impl AsRef<std::path::Path>) -> Object {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The keys of a real result of vLLM 0.32.
fn upstreams_keys(name: &str) -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/results/upstream-run/");
    read(format!("{folder}{name}.json")).into_keys().collect()
}

/// Starts a simulated server that ends with the runtime of the test. Gives its port.
async fn serve(pace: &str, model: &str) -> u16 {
    let simulation = Simulation::new(pace.parse::<Pace>().unwrap(), model);
    start(Simulation { model_folder: draw::find_tokenizer(model, &Environment::default()), ..simulation }).await
}

async fn start(simulation: Simulation) -> u16 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { sim::serve(simulation, listener, pending()).await });
    port
}

async fn measure(port: u16, flags: &str) -> anyhow::Result<ServingResult> {
    let arguments = serve_flags::parse(&words(&format!("--port {port} {flags}"))).unwrap();
    let prompts = draw::draw(&arguments, &Environment::default())?;
    native_client::run(&arguments, prompts, None, |_, _| ()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_exactly_and_no_token_is_faster_than_the_pace() {
    let port = serve("ttft=20ms,itl=5ms,jitter=0", "m").await;
    let flags = "--model m --num-prompts 12 --max-concurrency 4 --random-input-len 30 --random-output-len 9 \
        --num-warmups 2 --percentile-metrics ttft,tpot,itl,e2el --save-detailed";
    let result = measure(port, flags).await.unwrap();
    let summary = &result.summary;
    assert_eq!((summary.completed, summary.failed), (12, 0));
    assert_eq!((summary.total_input_tokens, summary.total_output_tokens), (12 * 30, 12 * 9));
    for answer in &result.answers {
        assert!(answer.ttft() >= 0.020, "{answer:?}");
        assert!(answer.latency() >= 0.020 + 8.0 * 0.005, "{answer:?}");
        assert_eq!((answer.itls().count(), answer.output_tokens), (8, Some(9)));
        assert_eq!(answer.text, " token".repeat(9));
        let sum = answer.ttft() + answer.itls().sum::<f64>();
        assert!((sum - answer.latency()).abs() < 1e-9);
    }
    assert!(summary.duration >= 3.0 * 0.060, "three rounds of four: {}", summary.duration);
    assert!(summary.statistics["p99_e2el_ms"] >= summary.statistics["median_e2el_ms"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_server_that_runs_one_request_at_once_the_others_wait() {
    let flags = "--model m --num-prompts 8 --max-concurrency 4 --random-input-len 4 --random-output-len 6";
    let pace = "ttft=10ms,itl=4ms,jitter=0";
    let many = measure(serve(pace, "m").await, flags).await.unwrap();
    let one = measure(serve(&format!("{pace},max-num-seqs=1"), "m").await, flags).await.unwrap();
    assert!(one.summary.statistics["median_ttft_ms"] > many.summary.statistics["median_ttft_ms"]);
    assert!(one.summary.duration >= 8.0 * 0.030, "eight in a row: {}", one.summary.duration);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_and_chat_have_the_length_that_the_servers_own_tokenizer_counts() {
    let port = serve("ttft=1ms,itl=1ms", TOKENIZER).await;
    for backend in ["openai", "openai-chat --endpoint /v1/chat/completions"] {
        let flags = format!(
            "--model {TOKENIZER} --backend {backend} --num-prompts 3 --random-input-len 48 --random-output-len 4"
        );
        let result = measure(port, &flags).await.unwrap();
        assert_eq!((result.summary.completed, result.summary.total_output_tokens), (3, 12), "{backend}");
        assert_eq!(result.summary.total_input_tokens, 3 * 48, "{backend}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_sent_when_they_are_due_however_slow_the_answers_are() {
    let port = serve("ttft=1s,itl=1ms,jitter=0", "m").await;
    let flags = "--model m --num-prompts 10 --request-rate 100 --burstiness inf --random-output-len 1";
    let result = measure(port, flags).await.unwrap();
    let starts: Vec<f64> = result.answers.iter().map(|answer| answer.sent).collect();
    assert!(starts.iter().zip(1..).all(|(start, nth)| *start >= f64::from(nth) * 0.010), "{starts:?}");
    assert!(starts.is_sorted());
    let first_end = starts[0] + result.answers[0].latency();
    assert!(starts.iter().all(|start| *start < first_end), "all were sent before the first was answered: {starts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_ready_check_ends_the_measurement_with_its_cause() {
    let port = serve("ttft=1ms", "m").await;
    let error = measure(port, "--model other --num-prompts 1 --ready-check-timeout-sec 1").await.unwrap_err();
    assert_eq!(exit::of(&error), Exit::Unmeasured);
    let text = format!("{error:#}");
    assert!(text.contains("the server answered 404") && text.contains("the model `other` does not exist"), "{text}");

    let error = measure(port, "--model m --backend openai-chat --endpoint /v1/chat/completions").await.unwrap_err();
    assert_eq!(exit::of(&error), Exit::Mistake);
    assert!(error.to_string().contains("no tokenizer.json for `m`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_ready_only_after_its_startup_and_the_first_request_waits_for_it() {
    let begin = std::time::Instant::now();
    let port = serve("ttft=1ms,itl=1ms,startup=1s", "m").await;
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let status = async |path: &str| http.get(format!("http://127.0.0.1:{port}{path}")).send().await.unwrap().status();
    assert_eq!(
        (status("/health").await, status("/v1/models").await),
        (503.try_into().unwrap(), 503.try_into().unwrap())
    );
    let flags = "--model m --num-prompts 1 --random-output-len 2 --ready-check-timeout-sec 60";
    assert_eq!(measure(port, flags).await.unwrap().summary.completed, 1);
    assert!(begin.elapsed().as_secs() >= 1);
    assert_eq!(status("/v1/models").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_answers_that_do_not_end_and_their_requests_fail() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        let pace = "ttft=1ms,itl=1h".parse().unwrap();
        let shutdown = async { stopped.await.unwrap() };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ended = runtime.block_on(sim::serve(Simulation::new(pace, "m"), listener, shutdown));
        runtime.shutdown_background();
        ended
    });
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let body = r#"{"prompt": "a", "max_tokens": 2, "stream": true}"#;
    let url = format!("http://127.0.0.1:{port}/v1/completions");
    let mut answer = http.post(url).body(body).send().await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    stop.send(()).unwrap();
    serving.join().unwrap().unwrap();
    assert!(answer.chunk().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_streamed_is_one_object() {
    let port = serve("ttft=1ms,itl=1ms", "m").await;
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let ask = async |path: &str, body: &'static str| {
        let answer = http.post(format!("http://127.0.0.1:{port}{path}")).body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let completion = ask("/v1/completions", r#"{"model": "m", "prompt": "one two", "max_tokens": 2}"#).await;
    insta::assert_snapshot!(completion.1, @r#"{"id":"sim-0","object":"text_completion","model":"m","choices":[{"index":0,"text":" token token","logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":2,"total_tokens":4,"completion_tokens":2}}"#);
    let chat = ask(
        "/v1/chat/completions",
        r#"{"messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 1, "ignore_eos": true}"#,
    )
    .await;
    insta::assert_snapshot!(chat.1, @r#"{"id":"sim-1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":" token"},"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":1,"total_tokens":2,"completion_tokens":1}}"#);
    let stream = ask("/v1/completions", r#"{"prompt": [1, 2, 3], "max_tokens": 1, "stream": true}"#).await;
    insta::assert_snapshot!(stream.1.trim(), @r#"
    data: {"id":"sim-2","object":"text_completion","model":"m","choices":[{"index":0,"text":" token","logprobs":null,"finish_reason":"length"}],"usage":null}

    data: [DONE]
    "#);
    assert_eq!(ask("/v1/completions", r#"{"prompt": 5}"#).await.0, 400);
    assert_eq!(ask("/v1/completions", r#"{"prompt": "a", "max_tokens": 0}"#).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulated_executable_writes_what_vllm_bench_writes() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let env: Environment = [("VLLM_PERF_SIM", "ttft=10ms,itl=2ms,jitter=0,startup=30ms")].into_iter().collect();
    let bench = async |kind: &str, flags: &str| {
        let path = folder.path().join("results").join(format!("{kind}.json"));
        let path = path.to_str().unwrap();
        let command =
            format!("bench {kind} --output-json {path} --model m --load-format dummy --enforce-eager {flags}");
        vllm_perf::command::sim_vllm::run(words(&command), &env).await.unwrap();
        let result = read(path);
        assert_eq!(result.keys().cloned().collect::<Vec<_>>(), upstreams_keys(&format!("{kind}_tinyllama_tp1")));
        result
    };
    let latency = bench("latency", "--num-iters-warmup 1 --num-iters 3 --input-len 8 --output-len 5").await;
    assert_eq!(latency["latencies"].as_array().unwrap().len(), 3);
    assert_eq!(
        latency["percentiles"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["10", "25", "50", "75", "90", "99"]
    );
    assert!(latency["avg_latency"].as_f64().unwrap() >= 0.018);

    let flags = "--dataset-name random --random-input-len 8 --random-output-len 5 --num-prompts 20 --max-num-seqs 10";
    let throughput = bench("throughput", flags).await;
    assert_eq!(
        (&throughput["num_requests"], &throughput["total_num_tokens"]),
        (&Value::from(20), &Value::from(20 * 13))
    );
    assert!(throughput["elapsed_time"].as_f64().unwrap() >= 2.0 * 0.018);

    let startup = bench("startup", "--num-iters-cold 2 --num-iters-warmup 0 --num-iters-warm 1").await;
    let cold = startup["cold_startup_times"].as_array().unwrap();
    assert!(cold.len() == 2 && cold.iter().all(|seconds| seconds.as_f64().unwrap() >= 0.030), "{cold:?}");
    assert_eq!(startup["warm_compilation_times"], Value::from(vec![0.0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_serve_of_the_simulated_executable_writes_the_keys_of_vllms_result() {
    let port = serve("ttft=2ms,itl=1ms", "m").await;
    let folder = tempfile::tempdir().unwrap();
    let command = format!(
        "bench serve --save-result --result-dir {} --result-filename case.json --request-rate inf --max-concurrency 2 \
         --metadata tensor_parallel_size=1 compilation_config.mode= optimization_level= --model m --backend vllm \
         --ignore-eos --temperature 0 --num-prompts 4 --dataset-name random --random-input-len 6 --random-output-len 3 \
         --port {port}",
        folder.path().display()
    );
    vllm_perf::command::sim_vllm::run(words(&command), &Environment::default()).await.unwrap();
    let result = read(folder.path().join("case.json"));
    let name = "serving_tinyllama_tp1_random_256_16_qps_inf_concurrency_8";
    let (upstreams, ours) = (upstreams_keys(name), result.keys().cloned().collect::<Vec<_>>());
    let (same, own) = ours.split_at(upstreams.len());
    assert_eq!(same, upstreams);
    assert_eq!(own, Vec::<String>::new(), "vLLM's client does not measure itself");
    assert_eq!(result["request_rate"], Value::from("inf"));
    assert_eq!((&result["completed"], &result["total_input_tokens"]), (&Value::from(4), &Value::from(24)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_simulated_is_a_mistake() {
    for command in [
        "bench throughput --model m --dataset ./ShareGPT.json",
        "bench latency --model m --num-iters many",
        "bench serve --model m --lora-modules a",
        "serve --port 0",
    ] {
        let error = vllm_perf::command::sim_vllm::run(words(command), &Environment::default()).await.unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake, "{command}: {error:#}");
    }
}

/// The result of a load on a server with `faults`.
async fn measure_faults(faults: &str, flags: &str) -> ServingResult {
    let faults = faults.split(' ').map(|fault| fault.parse().unwrap()).collect();
    let pace = "ttft=2ms,itl=1ms,jitter=0".parse().unwrap();
    let port = start(Simulation { faults, ..Simulation::new(pace, "m") }).await;
    measure(port, &format!("--model m --random-input-len 4 --random-output-len 6 {flags}")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_server_is_counted_by_its_kind_and_affects_no_other_request() {
    let faults = "status-500@1 status-503@2 stall@3 reset@4 close@5 bad-utf8@6 error@7 no-token@8 no-end@9 \
        error-text@10 error-null@11 error-flat@12 error-event@13 error-comment@14 abort@15 encoded@16 redirect@17 whole@18 \
        json-error@19 html@20";
    let result = measure_faults(faults, "--num-prompts 23 --max-concurrency 3 --stall-timeout-sec 1").await;
    let mut kinds: Vec<_> = result.failures().into_iter().collect();
    kinds.sort();
    let expected = [
        ("connection lost", 2),
        ("malformed", 1),
        ("no token", 1),
        ("not a stream", 4),
        ("server error", 7),
        ("stalled", 1),
        ("status 307", 1),
        ("status 500", 1),
        ("status 503", 1),
        ("truncated", 1),
    ];
    assert_eq!(kinds, expected.map(|(kind, count)| (kind.to_owned(), count)));
    assert_eq!((result.summary.completed, result.summary.failed), (3, 20));
    assert_eq!(result.summary.total_output_tokens, 3 * 6);
    assert!(result.summary.statistics["mean_ttft_ms"] >= 2.0);
    let file: Object = serde_json::from_str(&result.to_json(false)).unwrap();
    let own: Vec<&str> = file.keys().map(String::as_str).skip_while(|key| *key != "failures").collect();
    let expected = "failures failure_messages resent_requests client_lag_ms client_send_lag_ms client_cpu_share \
        requested_output_tokens tokens_per_event peak_output_tokens_per_s mean_first_token_ms median_first_token_ms \
        p99_first_token_ms distorted warnings";
    assert_eq!(own.join(" "), expected);
    assert_eq!(file["failures"]["connection lost"], Value::from(2));
    match vllm_perf::result::parse(vllm_verdict::case::Kind::Serving, &result.to_json(false)).unwrap() {
        vllm_verdict::repetition::Outcome::Failed(why) => {
            assert!(why.starts_with("20 of 23 requests failed (") && why.contains("connection lost: 2"), "{why}");
        }
        measured => panic!("a result with failures was accepted: {measured:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusual_but_valid_answer_is_not_a_failure() {
    let result =
        measure_faults("split-utf8@1 big-event@2", "--num-prompts 3 --max-concurrency 1 --save-detailed").await;
    assert!(result.failures().is_empty(), "{:?}", result.failures());
    assert_eq!(result.answers[0].text, " t\u{f6}ken \u{1f680}".repeat(6));
    assert_eq!(result.answers[1].text.len(), (1 << 20) + 5 * " token".len());
    assert!(result.answers.iter().all(|answer| answer.itls().count() == 5));

    let valid =
        "no-done@1 bare-done@2 no-blanks@3 byte-order-mark@4 empty-events@5 many-headers@6 open-end@7 close-after@8";
    let chat = format!("--backend openai-chat --endpoint /v1/chat/completions --tokenizer {TOKENIZER}");
    for interface in ["", &chat] {
        let result = measure_faults(valid, &format!("{interface} --num-prompts 9 --max-concurrency 2")).await;
        assert!(result.failures().is_empty(), "{interface}: {:?}", result.failures());
        assert_eq!(result.summary.total_output_tokens, 9 * 6, "{interface}");
        assert!(result.answers.iter().all(|answer| answer.token_events == 6), "{interface}");
    }

    let result = measure_faults("no-usage@*", "--num-prompts 4").await;
    assert_eq!((result.summary.completed, result.summary.total_output_tokens), (4, 4 * 6));
    assert_eq!(result.summary.total_input_tokens, 4 * 4);
    let warnings = result.warnings();
    let warning = "4 answers had no token count: chunks were counted instead";
    assert!(warnings.iter().any(|text| text == warning), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_told_apart_from_roles_and_from_events() {
    let keys = async |faults: &str, flags: &str| {
        let result = measure_faults(faults, flags).await;
        assert!(result.failures().is_empty(), "{:?}", result.failures());
        serde_json::from_str::<Object>(&result.to_json(false)).unwrap()
    };
    let number = |keys: &Object, key: &str| keys[key].as_f64().unwrap();
    let chat = format!("--backend openai-chat --endpoint /v1/chat/completions --tokenizer {TOKENIZER} --num-prompts 2");
    let role = keys("role-first@*", &chat).await;
    assert!(number(&role, "median_first_token_ms") > number(&role, "median_ttft_ms") + 1.0, "{role:?}");
    let packed = keys("packed@*", "--num-prompts 2").await;
    assert_eq!((number(&packed, "tokens_per_event"), number(&packed, "total_output_tokens")), (2.0, 12.0));
    let empty = keys("empty-answer@*", "--num-prompts 2 --random-output-len 1").await;
    assert_eq!(number(&empty, "total_output_tokens"), 0.0);
    let short = keys("short@*", "--num-prompts 2").await;
    assert_eq!((number(&short, "requested_output_tokens"), number(&short, "total_output_tokens")), (12.0, 6.0));
    let warnings = short["warnings"].to_string();
    assert!(warnings.contains("answers were shorter than asked for: 6 of 12 tokens"), "{warnings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_a_connection_that_was_closed_is_sent_once_more() {
    let result = measure_faults("close-after@*", "--num-prompts 12 --max-concurrency 2").await;
    assert_eq!((result.summary.completed, result.summary.failed), (12, 0));
    // A connection that is closed in the middle of an answer is not taken up again.
    let result = measure_faults("close@3", "--num-prompts 4 --max-concurrency 1").await;
    assert_eq!((result.summary.completed, result.summary.failed), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_has_the_true_times_of_every_answer_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("truth.jsonl");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let pace = "ttft=20ms,itl=5ms,jitter=0".parse().unwrap();
    let faults = vec!["close@2".parse().unwrap()];
    let simulation = Simulation { faults, trace: Some(trace.clone()), ..Simulation::new(pace, "m") };
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let shutdown = async { stopped.await.unwrap() };
        sim::serve(simulation, listener, shutdown).await
    });
    let result = measure(port, "--model m --num-prompts 3 --max-concurrency 1 --random-output-len 4").await.unwrap();
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    let text = std::fs::read_to_string(&trace).unwrap();
    let answers: Vec<sim::TracedAnswer> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let counts: Vec<_> = answers.iter().map(|answer| (answer.request, answer.tokens_us.len())).collect();
    assert_eq!(counts, [(1, 4), (2, 2), (3, 4)]);
    for (traced, answer) in answers.iter().zip(&result.answers) {
        let first = traced.tokens_us[0] - traced.accepted_us;
        assert!(first >= 20_000, "{traced:?}");
        assert!(traced.tokens_us.is_sorted());
        // A client sends before the server accepts and reads after the server writes.
        assert!(answer.ttft() * 1e6 >= (first - 1) as f64, "{traced:?} {answer:?}");
    }
}

/// The program, with an empty environment.
fn program(words: &str) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vllm-perf"));
    command.args(shell_words::split(words).unwrap()).env_clear().stdin(std::process::Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_serve_prints_and_writes_what_vllm_bench_serve_does() {
    let port = serve("ttft=2ms,itl=1ms,jitter=0", "m").await;
    let folder = tempfile::tempdir().unwrap();
    let command = format!(
        "bench serve --model m --port {port} --num-prompts 6 --max-concurrency 2 --random-input-len 5 \
         --random-output-len 3 --save-result --result-dir {} --result-filename case.json",
        folder.path().display()
    );
    let output = tokio::task::spawn_blocking(move || program(&command).output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let expected = [
        format!("{:=^50}", " Serving Benchmark Result "),
        format!("{:<40} {:<10}", "Successful requests:", 6),
        format!("{:<40} {:<10}", "Total input tokens:", 30),
        format!("{:<40} {:<10}", "Total generated tokens:", 18),
        format!("{:-^50}", "Time to First Token"),
    ];
    for line in expected {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert_eq!(read(folder.path().join("case.json"))["completed"], Value::from(6));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_serve_has_the_documented_exit_codes() {
    let port = start(Simulation {
        faults: vec!["status-503@2".parse().unwrap()],
        ..Simulation::new("ttft=1ms,itl=1ms".parse().unwrap(), "m")
    })
    .await;
    let run = async |words: String| {
        let output = tokio::task::spawn_blocking(move || program(&words).output().unwrap()).await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, stderr) =
        run(format!("bench serve --model m --port {port} --num-prompts 3 --random-output-len 2")).await;
    assert_eq!((code, stderr.contains("1 of 3 requests failed (status 503: 1)")), (Some(3), true), "{stderr}");
    let (code, stderr) = run("bench serve --model m --lora-modules a".to_owned()).await;
    assert_eq!(
        (code, stderr.contains("`--lora-modules` is a flag of `vllm bench serve`")),
        (Some(2), true),
        "{stderr}"
    );
    let limited =
        format!("ulimit -n 200; exec {} bench serve --model m --num-prompts 500", env!("CARGO_BIN_EXE_vllm-perf"));
    let (code, stderr) = tokio::task::spawn_blocking(move || {
        let output = std::process::Command::new("sh").args(["-c", &limited]).env_clear().output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    })
    .await
    .unwrap();
    let numbers = "500 connections need 564 open files and the hard limit is 200";
    assert_eq!((code, stderr.contains(numbers)), (Some(2), true), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_bench_serve_exits_130_and_leaves_no_file() {
    let port = serve("ttft=1ms,itl=1h", "m").await;
    let folder = tempfile::tempdir().unwrap();
    let command = format!(
        "bench serve --model m --port {port} --num-prompts 2 --save-result --result-dir {}",
        folder.path().display()
    );
    let mut child = program(&command).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    assert_eq!(line, "Starting main benchmark run...\n");
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(ended.code(), Some(130));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_bench_serve_keeps_what_was_measured() {
    // The first two requests end at once; the third is silent.
    let faults = vec!["stall@3".parse().unwrap(), "stall@4".parse().unwrap()];
    let port = start(Simulation { faults, ..Simulation::new("ttft=1ms,itl=1ms".parse().unwrap(), "m") }).await;
    let folder = tempfile::tempdir().unwrap();
    let command = format!(
        "bench serve --model m --port {port} --num-prompts 9 --max-concurrency 1 --random-output-len 4 --save-result \
         --result-dir {} --result-filename r.json",
        folder.path().display()
    );
    let piped = std::process::Stdio::piped;
    let child = program(&command).stdout(piped()).stderr(piped()).spawn().unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("interrupted: 2 of 9 requests were completed; wrote "), "{stderr}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("Output token throughput"));
    assert_eq!(read(folder.path().join("r.json.partial"))["completed"], Value::from(2));
    assert!(!folder.path().join("r.json").exists(), "it is not the result of the load that was asked for");
}

/// A TLS proxy to `port`, with the certificate of the test data. Gives its port.
async fn serve_tls(port: u16) -> u16 {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let data = |name: &str| format!("{}/tests/data/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let certificate = CertificateDer::from_pem_file(data("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(data("server.key")).unwrap();
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate closes the connection.
                let Ok(mut secure) = acceptor.accept(socket).await else { return };
                let mut plain = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut secure, &mut plain).await;
            });
        }
    });
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_tls_is_measured_where_its_certificate_is_trusted() {
    let port = serve_tls(serve("ttft=1ms,itl=1ms", "m").await).await;
    let run = async |authority: &'static str, flags: &'static str| {
        let words = format!(
            "bench serve --model m --base-url https://127.0.0.1:{port} --num-prompts 5 --max-concurrency 2 \
             --random-output-len 3 {flags}"
        );
        let run = move || program(&words).env("SSL_CERT_FILE", authority).output().unwrap();
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/authority.pem");
    let (code, printed, stderr) = run(authority, "").await;
    assert_eq!(code, Some(0), "{printed}{stderr}");
    assert!(printed.contains("Total generated tokens:                  15"), "{printed}");
    // An authority that did not sign the certificate of the server.
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/server.pem");
    let (code, printed, stderr) = run(other, "").await;
    assert_ne!(code, Some(0), "{printed}{stderr}");
    let (code, printed, stderr) = run(other, "--insecure").await;
    assert_eq!(code, Some(0), "{printed}{stderr}");
    assert!(stderr.contains("WARNING: --insecure") && stderr.contains("certificate of the server was not checked"));
}

#[test]
fn prompts_that_need_too_much_memory_or_time_are_ended_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(format!("{TOKENIZER}/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let file = folder.path().join("prompts.jsonl");
    std::fs::write(&file, "{\"prompt\": \"a\", \"output_tokens\": 1}\n").unwrap();
    let run = |template: &str| {
        std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        let (model, file) = (folder.path().display(), file.display());
        let words = format!("bench serve --model {model} --port 9 --dataset-name custom --dataset-path {file}");
        let output = program(&words).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let begin = "{% set n = namespace(x='aaaaaaaa') %}";
    for source in [
        "{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% for i in range(60) %}{% set n.x = (n.x | upper) * 1000 %}{% endfor %}",
        "{% for i in range(60) %}{% set n.x = [n.x * 1000, n.x] | join %}{% endfor %}",
        "{% for i in range(60) %}{% set n.x = n.x | replace('a', n.x) %}{% endfor %}",
    ] {
        let (code, stderr) = run(&format!("{begin}{source}"));
        let is_bounded = stderr.contains("GiB of memory: check the chat template") || stderr.contains("too large");
        assert!(code == Some(2) && is_bounded, "{source}: {stderr}");
    }
    let (code, stderr) = run(&format!("{begin}{{% for i in range(99) %}}{{{{ missing() }}}}{{% endfor %}}"));
    assert!(code == Some(2) && stderr.contains("unknown function: missing"), "{stderr}");
}
