//! The server of the simulated vLLM: the part of the OpenAI interface that a load client uses, paced by absolute
//! deadlines, so that lateness never adds up.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use futures_util::stream;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal};
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::Pace;
use crate::client::clock::Clock;
use crate::client::dataset;
use crate::environment::Environment;

/// What `/version` and `--version` say.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+sim");

/// How long streams may go on after the shutdown began.
const GRACE: Duration = Duration::from_secs(1);

/// Tokens of an answer where the request names no number: the default of the completions interface.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// Largest request body, in bytes: long prompts as token ids.
const BODY_LIMIT: usize = 64 << 20;

/// Serves `model` at `pace` until `shutdown` is done. Texts are counted with the model's own tokenizer where `env` or the
/// folder `model` leads to one; otherwise a word counts as a token.
///
/// # Errors
/// The listener or the tokenizer file fails.
pub async fn serve(
    pace: Pace,
    model: String,
    env: &Environment,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let server = Arc::new(Server {
        ready_at: Instant::now() + pace.startup,
        running: Arc::new(Semaphore::new(pace.max_num_seqs.min(Semaphore::MAX_PERMITS))),
        spread: LogNormal::new(0.0, pace.jitter).context("cannot spread the pace")?,
        clock: Clock::start().context("cannot start the clock of the simulated vLLM")?,
        tokenizer: dataset::open_tokenizer(&model, env)?,
        requests: AtomicU64::new(0),
        model,
        pace,
    });
    let routes = Router::new()
        .route("/health", get(health))
        .route("/version", get(version))
        .route("/v1/models", get(models))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(server);
    let (stopping, stopped) = oneshot::channel();
    let serving = axum::serve(
        listener.tap_io(|connection| {
            // Without it small chunks wait for acknowledgements; where it fails the connection is gone anyway.
            let _ = connection.set_nodelay(true);
        }),
        routes,
    )
    .with_graceful_shutdown(async move {
        shutdown.await;
        let _ = stopping.send(());
    });
    tokio::select! {
        ended = async { serving.await } => ended.context("cannot serve"),
        () = async { let _ = stopped.await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}

/// Allows as many open connections as the system lets us have; many systems begin with 1024.
pub fn raise_file_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Where it is refused, connections beyond the limit wait.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

struct Server {
    pace: Pace,
    model: String,
    tokenizer: Option<Tokenizer>,
    clock: Clock,
    running: Arc<Semaphore>,
    spread: LogNormal<f64>,
    ready_at: Instant,
    requests: AtomicU64,
}

impl Server {
    fn ready(&self) -> Result<(), Refusal> {
        if Instant::now() < self.ready_at {
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "the model is still loading".to_owned()));
        }
        Ok(())
    }

    fn prompt_tokens(&self, prompt: &Prompt) -> usize {
        let text = match prompt {
            Prompt::Tokens(ids) => return ids.len(),
            Prompt::Text(text) => text,
        };
        let encoded = self.tokenizer.as_ref().and_then(|tokenizer| tokenizer.encode_fast(text.as_str(), true).ok());
        encoded.map_or_else(|| text.split_whitespace().count(), |encoding| encoding.len())
    }
}

/// An answer that is not 200, in the shape of vLLM's errors.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Failure {
            message: String,
            r#type: &'static str,
            code: u16,
        }
        #[derive(Serialize)]
        struct Answer {
            error: Failure,
        }
        let r#type = self.0.canonical_reason().unwrap_or("error");
        let error = Failure { message: self.1, r#type, code: self.0.as_u16() };
        (self.0, Json(Answer { error })).into_response()
    }
}

async fn health(State(server): State<Arc<Server>>) -> Result<(), Refusal> {
    server.ready()
}

async fn version() -> impl IntoResponse {
    #[derive(Serialize)]
    struct Answer {
        version: &'static str,
    }
    Json(Answer { version: VERSION })
}

async fn models(State(server): State<Arc<Server>>) -> Result<impl IntoResponse, Refusal> {
    #[derive(Serialize)]
    struct Model {
        id: String,
        object: &'static str,
        owned_by: &'static str,
        root: String,
    }
    #[derive(Serialize)]
    struct Answer {
        object: &'static str,
        data: [Model; 1],
    }
    server.ready()?;
    let model = Model { id: server.model.clone(), object: "model", owned_by: "vllm-perf", root: server.model.clone() };
    Ok(Json(Answer { object: "list", data: [model] }))
}

/// The fields of a request that the simulation heeds. `ignore_eos` is not among them: it never ends an answer early.
#[derive(Deserialize)]
struct Fields {
    model: Option<String>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct CompletionRequest {
    prompt: Prompt,
    #[serde(flatten)]
    fields: Fields,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

#[derive(Deserialize)]
struct ChatRequest {
    messages: Vec<Message>,
    #[serde(flatten)]
    fields: Fields,
}

#[derive(Deserialize)]
struct Message {
    content: Content,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    text: String,
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))
}

async fn completions(State(server): State<Arc<Server>>, body: Bytes) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    server.ready()?;
    let request: CompletionRequest = parse(&body)?;
    answer(server, arrived, &request.prompt, request.fields, Shape::Completion).await
}

async fn chat(State(server): State<Arc<Server>>, body: Bytes) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    server.ready()?;
    let request: ChatRequest = parse(&body)?;
    let texts: Vec<String> = request
        .messages
        .into_iter()
        .flat_map(|message| match message.content {
            Content::Text(text) => vec![text],
            Content::Parts(parts) => parts.into_iter().map(|part| part.text).collect(),
        })
        .collect();
    answer(server, arrived, &Prompt::Text(texts.join("\n")), request.fields, Shape::Chat).await
}

#[derive(Clone, Copy)]
enum Shape {
    Completion,
    Chat,
}

impl Shape {
    /// One object of an answer: a chunk of a stream, or the whole of it.
    fn object(self, id: u64, model: &str, streamed: bool, choice: Option<(&str, bool)>, usage: &str) -> String {
        let object = match (self, streamed) {
            (Self::Completion, _) => "text_completion",
            (Self::Chat, true) => "chat.completion.chunk",
            (Self::Chat, false) => "chat.completion",
        };
        let choices = choice.map_or_else(String::new, |(text, last)| {
            let finish = if last { r#""length""# } else { "null" };
            let content = match (self, streamed) {
                (Self::Completion, _) => format!(r#""text":"{text}""#),
                (Self::Chat, true) => format!(r#""delta":{{"role":"assistant","content":"{text}"}}"#),
                (Self::Chat, false) => format!(r#""message":{{"role":"assistant","content":"{text}"}}"#),
            };
            format!(r#"{{"index":0,{content},"logprobs":null,"finish_reason":{finish}}}"#)
        });
        let model = serde_json::Value::from(model);
        format!(r#"{{"id":"sim-{id}","object":"{object}","model":{model},"choices":[{choices}],"usage":{usage}}}"#)
    }
}

/// What one simulated token reads.
const TOKEN: &str = " token";

async fn answer(
    server: Arc<Server>,
    arrived: Instant,
    prompt: &Prompt,
    fields: Fields,
    shape: Shape,
) -> Result<Response, Refusal> {
    if let Some(model) = fields.model.filter(|model| *model != server.model) {
        return Err(Refusal(StatusCode::NOT_FOUND, format!("the model `{model}` does not exist")));
    }
    let tokens = fields.max_completion_tokens.or(fields.max_tokens).unwrap_or(DEFAULT_MAX_TOKENS);
    if tokens == 0 {
        return Err(Refusal(StatusCode::BAD_REQUEST, "max_tokens must be at least 1".to_owned()));
    }
    let prompt_tokens = server.prompt_tokens(prompt);
    let total = prompt_tokens + tokens as usize;
    let usage = format!(r#"{{"prompt_tokens":{prompt_tokens},"total_tokens":{total},"completion_tokens":{tokens}}}"#);

    let id = server.requests.fetch_add(1, Ordering::Relaxed);
    let mut random = ChaCha8Rng::seed_from_u64(server.pace.seed);
    random.set_stream(id);
    // A request that finds a place is timed from its arrival; one that has to wait, from when a place is free.
    let (place, taken_up) = match Arc::clone(&server.running).try_acquire_owned() {
        Ok(place) => (place, arrived),
        Err(_) => {
            let place = Arc::clone(&server.running).acquire_owned().await;
            let closed = |_| Refusal(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down".to_owned());
            (place.map_err(closed)?, Instant::now())
        }
    };
    let mut progress = Progress { server, random, deadline: taken_up, sent: 0, tokens, _place: place };

    if fields.stream {
        let usage = fields.stream_options.is_some_and(|options| options.include_usage).then_some(usage.as_str());
        return Ok(streamed(progress, shape, id, usage));
    }
    while progress.next_token().await.is_some() {}
    let text = TOKEN.repeat(tokens as usize);
    let whole = shape.object(id, &progress.server.model, false, Some((&text, true)), &usage);
    Ok(([(header::CONTENT_TYPE, "application/json")], whole).into_response())
}

/// A stream of one chunk a token, then the usage where it was asked for, then `[DONE]`.
fn streamed(progress: Progress, shape: Shape, id: u64, usage: Option<&str>) -> Response {
    let event = |choice, usage| {
        Bytes::from(format!("data: {}\n\n", shape.object(id, &progress.server.model, true, choice, usage)))
    };
    // Every text is made before the first deadline, so that nothing but the pace lies between two tokens.
    let token = event(Some((TOKEN, false)), "null");
    let last = event(Some((TOKEN, true)), "null");
    let mut end = usage.map_or_else(Vec::new, |usage| event(None, usage).to_vec());
    end.extend_from_slice(b"data: [DONE]\n\n");
    let chunks = stream::unfold((progress, Some(Bytes::from(end))), move |(mut progress, end)| {
        let (token, last) = (token.clone(), last.clone());
        async move {
            let chunk = match progress.next_token().await {
                Some(left) if left > 0 => token,
                Some(_) => last,
                None => return end.map(|end| (Ok::<_, Infallible>(end), (progress, None))),
            };
            Some((Ok(chunk), (progress, end)))
        }
    });
    ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], Body::from_stream(chunks)).into_response()
}

/// A request under way. Its place is free again when this is dropped.
struct Progress {
    server: Arc<Server>,
    random: ChaCha8Rng,
    deadline: Instant,
    sent: u32,
    tokens: u32,
    _place: OwnedSemaphorePermit,
}

impl Progress {
    /// Waits for the next token and says how many follow; `None` after the last.
    async fn next_token(&mut self) -> Option<u32> {
        let left = self.tokens.checked_sub(self.sent + 1)?;
        let pace = if self.sent == 0 { self.server.pace.ttft } else { self.server.pace.itl };
        self.deadline += pace.mul_f64(self.server.spread.sample(&mut self.random));
        self.server.clock.until(self.deadline).await;
        self.sent += 1;
        Some(left)
    }
}
