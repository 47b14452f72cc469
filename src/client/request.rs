//! One request: its body, its sending, and what was seen of its answer. The clock is read right before the request is
//! handed to the connection and right after each piece of the answer arrives, and nowhere else.

use std::error::Error;
use std::fmt;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

use super::dataset::{Content, Prompt};
use super::stream::{Chunk, Event, Events};

/// Which interface is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `/v1/completions`.
    Completions,
    /// `/v1/chat/completions`.
    Chat,
}

/// What a body says beside the prompt: sampling parameters and whatever `--extra-body` adds.
pub type Sampling = Map<String, Value>;

/// A server under load, with its pool of kept connections. Cheap to clone; clones share the pool.
#[derive(Debug, Clone)]
pub struct Endpoint {
    http: reqwest::Client,
    url: Url,
    api: Api,
    headers: HeaderMap,
    keep_texts: bool,
}

/// A client for `url`, without a proxy: what is measured is the server.
///
/// # Errors
/// No certificates are found for an https URL.
pub fn http(url: &Url) -> Result<reqwest::Client> {
    let builder =
        reqwest::Client::builder().no_proxy().http1_only().tcp_nodelay(true).pool_max_idle_per_host(usize::MAX);
    // Plain http needs no certificates, and an image built from scratch has none.
    let builder = if url.scheme() == "http" { builder.tls_certs_only([]) } else { builder };
    builder.build().context("cannot set up the HTTP client")
}

impl Endpoint {
    /// Requests go to `url` with `headers`. `keep_texts`: answers are kept, for detailed results.
    ///
    /// # Errors
    /// See [`http`].
    pub fn new(url: Url, api: Api, mut headers: HeaderMap, keep_texts: bool) -> Result<Self> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self { http: http(&url)?, url, api, headers, keep_texts })
    }

    /// Where requests go.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The body of a request: the fields that `vllm bench serve` sends.
    ///
    /// # Errors
    /// It cannot be printed as JSON.
    pub fn body(&self, model: &str, prompt: &Prompt, sampling: &Sampling) -> Result<Bytes> {
        let common = Common { model, stream: true, stream_options: StreamOptions { include_usage: true }, sampling };
        let body = match self.api {
            // vLLM's client resets this penalty, which a model's own defaults may set, for completions only.
            Api::Completions => serde_json::to_value(Completion {
                prompt: &prompt.content,
                repetition_penalty: 1.0,
                max_tokens: prompt.output_tokens,
                common,
            }),
            Api::Chat => serde_json::to_value(Chat {
                messages: [Message { role: "user", content: [Part { r#type: "text", text: &prompt.content }] }],
                max_completion_tokens: prompt.output_tokens,
                common,
            }),
        };
        // Through a value: a key of `sampling` replaces ours instead of standing there twice.
        let body = body.and_then(|body| serde_json::to_vec(&body)).context("cannot print a request")?;
        Ok(Bytes::from(body))
    }

    /// Sends a request and follows its answer to the end. Times are in seconds; `epoch` is their 0, and `due` is when
    /// the schedule wanted the request sent.
    pub async fn send(&self, body: Bytes, epoch: Instant, due: Instant) -> Exchange {
        let mut exchange = Exchange::default();
        let request = self.http.post(self.url.clone()).headers(self.headers.clone()).body(body);
        let sent = Instant::now();
        exchange.start = sent.saturating_duration_since(epoch).as_secs_f64();
        exchange.queued = sent.saturating_duration_since(due).as_secs_f64();
        exchange.failure = self.follow(request, sent, &mut exchange).await.err();
        exchange
    }

    async fn follow(
        &self,
        request: reqwest::RequestBuilder,
        sent: Instant,
        exchange: &mut Exchange,
    ) -> Result<(), Failure> {
        let mut response = request.send().await.map_err(|error| Failure::Connection(chain(&error)))?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            let text = response.text().await.unwrap_or_default();
            return Err(Failure::Status(status, text.chars().take(ERROR_CHARACTERS).collect()));
        }
        let mut events = Events::default();
        let mut tokens = Tokens { sent, last: None };
        let mut done = false;
        while let Some(bytes) = response.chunk().await.map_err(|error| Failure::Connection(chain(&error)))? {
            let arrived = Instant::now();
            events.push(&bytes);
            while let Some(event) = events.next_event() {
                match event {
                    Event::Done => done = true,
                    Event::Data(data) => self.take(data, arrived, &mut tokens, exchange)?,
                }
            }
        }
        match (tokens.last, done) {
            (None, _) => Err(Failure::NoToken),
            (_, false) => Err(Failure::Truncated),
            _ => Ok(()),
        }
    }

    fn take(&self, data: &[u8], arrived: Instant, tokens: &mut Tokens, exchange: &mut Exchange) -> Result<(), Failure> {
        let chunk = Chunk::parse(data).map_err(|error| Failure::Malformed(error.to_string()))?;
        if let Some(error) = chunk.error {
            return Err(Failure::Server(error.message));
        }
        if let Some(text) = chunk.token() {
            tokens.note(arrived, exchange);
            if self.keep_texts {
                exchange.text.push_str(text);
            }
        }
        if let Some(usage) = chunk.usage {
            exchange.input_tokens = usage.prompt_tokens.unwrap_or(exchange.input_tokens);
            exchange.output_tokens = usage.completion_tokens.unwrap_or(exchange.output_tokens);
        }
        Ok(())
    }
}

/// How much of an error page is kept.
const ERROR_CHARACTERS: usize = 300;

fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// When tokens came.
struct Tokens {
    sent: Instant,
    last: Option<Instant>,
}

impl Tokens {
    fn note(&mut self, arrived: Instant, exchange: &mut Exchange) {
        let since_sent = arrived.duration_since(self.sent).as_secs_f64();
        match self.last.replace(arrived) {
            None => exchange.ttft = since_sent,
            Some(before) => exchange.itls.push(arrived.duration_since(before).as_secs_f64()),
        }
        exchange.latency = since_sent;
    }
}

/// What was seen of one request. Times in seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exchange {
    /// When it was sent, from the start of the load.
    pub start: f64,
    /// How long after its due time it was sent: the wait for a free place.
    pub queued: f64,
    /// From sending to the first piece of the answer that carries a token.
    pub ttft: f64,
    /// Gaps between the pieces that carry tokens.
    pub itls: Vec<f64>,
    /// From sending to the last piece that carries a token.
    pub latency: f64,
    /// Tokens in, as the server counts them; 0 where it does not say.
    pub input_tokens: u64,
    /// Tokens out, as the server counts them; 0 where it does not say.
    pub output_tokens: u64,
    /// The answer, where answers are kept.
    pub text: String,
    /// Why there is no whole answer.
    pub failure: Option<Failure>,
}

/// Why a request gave no whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or it broke.
    Connection(String),
    /// A status other than 2xx, and the beginning of what came with it.
    Status(u16, String),
    /// The server reported an error inside the stream.
    Server(String),
    /// Something that is not a completion chunk.
    Malformed(String),
    /// The stream ended without a token.
    NoToken,
    /// The stream ended before `[DONE]`.
    Truncated,
    /// The request was never sent, or its task ended early.
    NotSent,
}

impl Failure {
    /// The kind, for counting.
    pub fn kind(&self) -> String {
        match self {
            Self::Connection(_) => "connection".to_owned(),
            Self::Status(status, _) => format!("status {status}"),
            Self::Server(_) => "server error".to_owned(),
            Self::Malformed(_) => "malformed".to_owned(),
            Self::NoToken => "no token".to_owned(),
            Self::Truncated => "truncated".to_owned(),
            Self::NotSent => "not sent".to_owned(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(cause) => write!(f, "the connection failed: {cause}"),
            Self::Status(status, text) => write!(f, "the server answered {status}: {text}"),
            Self::Server(message) => write!(f, "the server reported an error: {message}"),
            Self::Malformed(cause) => write!(f, "the answer is not a completion stream: {cause}"),
            Self::NoToken => f.write_str("the answer had no token"),
            Self::Truncated => f.write_str("the answer ended before [DONE]"),
            Self::NotSent => f.write_str("the request was not sent"),
        }
    }
}

#[derive(Serialize)]
struct Completion<'a> {
    prompt: &'a Content,
    repetition_penalty: f64,
    max_tokens: usize,
    #[serde(flatten)]
    common: Common<'a>,
}

#[derive(Serialize)]
struct Chat<'a> {
    messages: [Message<'a>; 1],
    max_completion_tokens: usize,
    #[serde(flatten)]
    common: Common<'a>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Part<'a> {
    r#type: &'static str,
    text: &'a Content,
}

#[derive(Serialize)]
struct Common<'a> {
    model: &'a str,
    stream: bool,
    stream_options: StreamOptions,
    #[serde(flatten)]
    sampling: &'a Sampling,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(api: Api) -> Endpoint {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Endpoint::new(Url::parse("http://127.0.0.1:9/v1").unwrap(), api, HeaderMap::new(), false).unwrap()
    }

    #[test]
    fn bodies_carry_the_fields_of_vllms_own_client() {
        let sampling: Sampling = [("temperature".to_owned(), Value::from(0.0))].into_iter().collect();
        let ids = Prompt { content: Content::Tokens(vec![7, 8]), tokens: 2, output_tokens: 4 };
        let text = Prompt { content: Content::Text("hi".to_owned()), tokens: 1, output_tokens: 4 };
        let body = |api, prompt| String::from_utf8(endpoint(api).body("m", prompt, &sampling).unwrap().to_vec());
        insta::assert_snapshot!(body(Api::Completions, &ids).unwrap(), @r#"{"prompt":[7,8],"repetition_penalty":1.0,"max_tokens":4,"model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0.0}"#);
        insta::assert_snapshot!(body(Api::Chat, &text).unwrap(), @r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"max_completion_tokens":4,"model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0.0}"#);
    }

    #[test]
    fn an_extra_field_replaces_ours_instead_of_standing_there_twice() {
        let sampling: Sampling = [("repetition_penalty".to_owned(), Value::from(1.5))].into_iter().collect();
        let prompt = Prompt { content: Content::Tokens(vec![1]), tokens: 1, output_tokens: 4 };
        let body = endpoint(Api::Completions).body("m", &prompt, &sampling).unwrap();
        let text = String::from_utf8_lossy(&body);
        assert_eq!(text.matches("repetition_penalty").count(), 1);
        assert!(text.contains(r#""repetition_penalty":1.5"#), "{text}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_failure_of_the_connection() {
        let now = Instant::now();
        let exchange = endpoint(Api::Completions).send(Bytes::new(), now, now).await;
        assert_eq!(exchange.failure.unwrap().kind(), "connection");
    }
}
