//! One request: its bytes, its sending, and what was seen of its answer. The clock is read right before the request is
//! written and right after each read of the answer, and nowhere else; parsing comes after.

use std::error::Error;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Sleep;
use url::Url;

use super::answer::{Answer, Piece};
use super::connection::{Connection, Connections};
use super::dataset::{Content, Prompt};
use super::stream::{Chunk, Chunks, Event, Events};

pub use super::failure::Failure;

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

/// A server under load.
#[derive(Debug, Clone)]
pub struct Endpoint {
    url: Url,
    api: Api,
    headers: HeaderMap,
    keep_texts: bool,
    /// How long an answer may stay silent.
    patience: Duration,
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
    /// Requests go to `url` with `headers`. `keep_texts`: answers are kept, for detailed results. An answer that is silent
    /// for longer than `patience` has failed.
    pub fn new(url: Url, api: Api, headers: HeaderMap, keep_texts: bool, patience: Duration) -> Self {
        Self { url, api, headers, keep_texts, patience }
    }

    /// Where requests go.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The same server, for requests that carry the `x-request-id` `id`.
    ///
    /// # Errors
    /// No header can carry it.
    pub fn identified(&self, id: &str) -> Result<Self> {
        let value = HeaderValue::from_str(id).with_context(|| format!("no header can carry the request id `{id}`"))?;
        let mut headers = self.headers.clone();
        headers.insert("x-request-id", value);
        Ok(Self { headers, ..self.clone() })
    }

    /// The whole request that carries `body`, ready to be written.
    pub fn request(&self, body: &[u8]) -> Bytes {
        let path = &self.url[url::Position::BeforePath..url::Position::AfterQuery];
        let host = &self.url[url::Position::BeforeHost..url::Position::AfterPort];
        let length = body.len();
        let mut request = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\naccept: */*\r\n").into_bytes();
        let mut header = |name: &HeaderName, value: &HeaderValue| {
            request.extend_from_slice(name.as_str().as_bytes());
            request.extend_from_slice(b": ");
            request.extend_from_slice(value.as_bytes());
            request.extend_from_slice(b"\r\n");
        };
        header(&CONTENT_TYPE, &HeaderValue::from_static("application/json"));
        // These are ours to say: the request is framed by them.
        let framing = [CONTENT_LENGTH, TRANSFER_ENCODING, HOST, CONTENT_TYPE];
        self.headers.iter().filter(|(name, _)| !framing.contains(name)).for_each(|(name, value)| header(name, value));
        request.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
        request.extend_from_slice(body);
        Bytes::from(request)
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

    /// Sends a request over one of `connections` and follows its answer to the end. Times are in seconds; `epoch` is
    /// their 0, and `due` is when the schedule wanted the request sent.
    pub async fn send(&self, connections: &Connections, request: &[u8], epoch: Instant, due: Instant) -> Exchange {
        let sent = Instant::now();
        let mut watched = Watched {
            exchange: Exchange {
                start: sent.saturating_duration_since(epoch).as_secs_f64(),
                queued: sent.saturating_duration_since(due).as_secs_f64(),
                ..Exchange::default()
            },
            sent,
            heard: sent,
            last: None,
        };
        watched.exchange.failure = self.follow(connections, request, &mut watched).await.err();
        watched.exchange
    }

    async fn follow(&self, connections: &Connections, request: &[u8], seen: &mut Watched) -> Result<(), Failure> {
        let connection = connections.take().await.map_err(|error| Failure::Connection(format!("{error:#}")))?;
        let silence = Box::pin(tokio::time::sleep(self.patience));
        let mut reader = Reader { connection, patience: self.patience, silence };
        let written = tokio::time::timeout(self.patience, reader.connection.wire.write_all(request)).await;
        written.map_err(|_| Failure::Stalled(self.patience.as_secs()))?.map_err(lost)?;
        let (mut answer, mut events, mut chunks) = (Answer::default(), Events::default(), Chunks::default());
        let (mut status, mut page, mut done) = (0, Vec::new(), false);
        loop {
            let length = reader.read(seen).await?;
            let arrived = seen.heard;
            if length == 0 {
                if answer.ends_with_connection() {
                    break;
                }
                return Err(Failure::Lost("the server closed it before the answer was complete".to_owned()));
            }
            let mut input = reader.connection.buffer.get(..length).unwrap_or_default();
            let ended = loop {
                match answer.next(&mut input).map_err(Failure::Malformed)? {
                    Piece::Head(code) => status = code,
                    Piece::Body(bytes) if (200..300).contains(&status) => {
                        events.push(bytes).map_err(Failure::Malformed)?;
                        while let Some(event) = events.next_event() {
                            match event {
                                Event::Done => done = true,
                                Event::Data(data) => self.take(chunks.read(data), arrived, seen)?,
                            }
                        }
                    }
                    Piece::Body(bytes) if page.len() < ERROR_BYTES => page.extend_from_slice(bytes),
                    Piece::Body(_) => {}
                    Piece::More => break false,
                    Piece::End => break true,
                }
            };
            if ended {
                break;
            }
        }
        if answer.keeps_connection() {
            connections.keep(reader.connection);
        }
        match (status, seen.last, done) {
            (200..300, Some(_), true) => Ok(()),
            (200..300, Some(_), false) => Err(Failure::Truncated),
            (200..300, None, _) => Err(Failure::NoToken),
            _ => {
                let text = String::from_utf8_lossy(&page).chars().take(ERROR_CHARACTERS).collect();
                Err(Failure::Status(status, text))
            }
        }
    }

    fn take(&self, chunk: Result<Chunk<'_>, String>, arrived: Instant, seen: &mut Watched) -> Result<(), Failure> {
        let chunk = chunk.map_err(Failure::Malformed)?;
        if let Some(error) = chunk.error {
            return Err(Failure::Server(error.message));
        }
        if chunk.has_token() {
            seen.note(arrived);
            if self.keep_texts {
                seen.exchange.text.push_str(&chunk.text());
            }
        }
        if let Some(usage) = chunk.usage {
            let exchange = &mut seen.exchange;
            exchange.input_tokens = usage.prompt_tokens.unwrap_or(exchange.input_tokens);
            exchange.output_tokens = usage.completion_tokens.unwrap_or(exchange.output_tokens);
        }
        Ok(())
    }
}

/// How much of an error page is kept.
const ERROR_CHARACTERS: usize = 300;

/// How much of an error page is read.
const ERROR_BYTES: usize = 4 * ERROR_CHARACTERS;

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn lost(error: std::io::Error) -> Failure {
    let causes = std::iter::successors(Some(&error as &dyn Error), |error| (*error).source());
    Failure::Lost(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
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

/// A request under way.
struct Watched {
    exchange: Exchange,
    sent: Instant,
    /// When something arrived last.
    heard: Instant,
    /// When a token arrived last.
    last: Option<Instant>,
}

impl Watched {
    fn note(&mut self, arrived: Instant) {
        let since_sent = arrived.duration_since(self.sent).as_secs_f64();
        match self.last.replace(arrived) {
            None => self.exchange.ttft = since_sent,
            Some(before) => self.exchange.itls.push(arrived.duration_since(before).as_secs_f64()),
        }
        self.exchange.latency = since_sent;
    }
}

/// A connection that an answer comes over.
struct Reader {
    connection: Connection,
    patience: Duration,
    silence: Pin<Box<Sleep>>,
}

impl Reader {
    /// Reads what arrives next, and notes when. How many bytes; 0 at the end of the connection.
    async fn read(&mut self, seen: &mut Watched) -> Result<usize, Failure> {
        let Connection { wire, buffer } = &mut self.connection;
        let reading = wire.read(buffer);
        tokio::pin!(reading);
        loop {
            tokio::select! {
                biased;
                read = &mut reading => {
                    seen.heard = Instant::now();
                    return read.map_err(lost);
                }
                // The alarm is set again only when it rings, not for every token.
                () = &mut self.silence => {
                    let until = seen.heard + self.patience;
                    if until <= Instant::now() {
                        return Err(Failure::Stalled(self.patience.as_secs()));
                    }
                    self.silence.as_mut().reset(until.into());
                }
            }
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
        let url = Url::parse("http://127.0.0.1:9/v1?a=b").unwrap();
        let headers = [(CONTENT_LENGTH, 7.into()), (HeaderName::from_static("x-run"), 8.into())].into_iter().collect();
        Endpoint::new(url, api, headers, false, Duration::from_secs(1))
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

    #[test]
    fn a_request_is_framed_by_us_alone() {
        let request = endpoint(Api::Completions).request(b"{}");
        insta::assert_snapshot!(String::from_utf8_lossy(&request).replace('\r', ""), @r"
        POST /v1?a=b HTTP/1.1
        host: 127.0.0.1:9
        accept: */*
        content-type: application/json
        x-run: 8
        content-length: 2

        {}
        ");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_failure_of_the_connection() {
        let endpoint = endpoint(Api::Completions);
        let connections = Connections::to(endpoint.url()).await.unwrap();
        let now = Instant::now();
        let exchange = endpoint.send(&connections, b"", now, now).await;
        assert_eq!(exchange.failure.unwrap().kind(), "no connection");
    }
}
