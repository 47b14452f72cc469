//! The server under load, and what is sent to it: request bodies in the shape that vLLM's own client sends, framed as
//! HTTP/1.1.

use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

use crate::prompts::{Content, Prompt};

/// The interface of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `/v1/completions`.
    Completions,
    /// `/v1/chat/completions`.
    Chat,
}

/// Fields of a request body beside the prompt: sampling parameters and any other field of the interface.
pub type Sampling = Map<String, Value>;

impl Api {
    /// The body of a request: the fields that `vllm bench serve` sends. A field of `sampling` replaces ours.
    ///
    /// # Errors
    /// The body cannot be printed as JSON.
    pub fn body(self, model: &str, prompt: &Prompt, sampling: &Sampling) -> Result<Bytes> {
        let common = Common { model, stream: true, stream_options: StreamOptions { include_usage: true }, sampling };
        let body = match self {
            // vLLM's client resets this penalty, which a model's own defaults may set, for completions only.
            Self::Completions => serde_json::to_value(Completion {
                prompt: &prompt.content,
                repetition_penalty: 1.0,
                max_tokens: prompt.output_tokens,
                common,
            }),
            Self::Chat => serde_json::to_value(Chat {
                messages: [Message { role: "user", content: [Part { r#type: "text", text: &prompt.content }] }],
                max_completion_tokens: prompt.output_tokens,
                common,
            }),
        };
        // Through a value, so that a field of `sampling` replaces ours and the key is not duplicated.
        let body = body.and_then(|body| serde_json::to_vec(&body)).context("cannot print a request")?;
        Ok(Bytes::from(body))
    }
}

/// A server under load.
#[derive(Debug, Clone)]
pub struct Server {
    url: Url,
    headers: HeaderMap,
}

impl Server {
    /// Requests go to `url`, an http or https URL with the path of the interface, and carry `headers`.
    pub fn new(url: Url, headers: HeaderMap) -> Self {
        Self { url, headers }
    }

    /// Where requests go.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The same server, with requests that carry the `x-request-id` `id`.
    ///
    /// # Errors
    /// `id` has characters that no header can carry.
    pub fn identified(&self, id: &str) -> Result<Self> {
        let value = HeaderValue::from_str(id).with_context(|| format!("no header can carry the request id `{id}`"))?;
        let mut headers = self.headers.clone();
        headers.insert("x-request-id", value);
        Ok(Self { headers, ..self.clone() })
    }

    /// The whole HTTP request that carries `body`.
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
        // The framing of the request depends on these headers, so a caller cannot set them.
        let framing = [CONTENT_LENGTH, TRANSFER_ENCODING, HOST, CONTENT_TYPE];
        self.headers.iter().filter(|(name, _)| !framing.contains(name)).for_each(|(name, value)| header(name, value));
        request.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
        request.extend_from_slice(body);
        Bytes::from(request)
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

    fn server() -> Server {
        let url = Url::parse("http://127.0.0.1:9/v1?a=b").unwrap();
        let headers = [(CONTENT_LENGTH, 7.into()), (HeaderName::from_static("x-run"), 8.into())].into_iter().collect();
        Server::new(url, headers)
    }

    #[test]
    fn bodies_carry_the_fields_of_vllms_own_client() {
        let sampling: Sampling = [("temperature".to_owned(), Value::from(0.0))].into_iter().collect();
        let ids = Prompt { content: Content::Tokens(vec![7, 8]), tokens: 2, output_tokens: 4 };
        let text = Prompt { content: Content::Text("hi".to_owned()), tokens: 1, output_tokens: 4 };
        let body = |api, prompt| String::from_utf8(Api::body(api, "m", prompt, &sampling).unwrap().to_vec());
        insta::assert_snapshot!(body(Api::Completions, &ids).unwrap(), @r#"{"prompt":[7,8],"repetition_penalty":1.0,"max_tokens":4,"model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0.0}"#);
        insta::assert_snapshot!(body(Api::Chat, &text).unwrap(), @r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"max_completion_tokens":4,"model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0.0}"#);
    }

    #[test]
    fn an_extra_field_replaces_ours_instead_of_standing_there_twice() {
        let sampling: Sampling = [("repetition_penalty".to_owned(), Value::from(1.5))].into_iter().collect();
        let prompt = Prompt { content: Content::Tokens(vec![1]), tokens: 1, output_tokens: 4 };
        let body = Api::Completions.body("m", &prompt, &sampling).unwrap();
        let text = String::from_utf8_lossy(&body);
        assert_eq!(text.matches("repetition_penalty").count(), 1);
        assert!(text.contains(r#""repetition_penalty":1.5"#), "{text}");
    }

    #[test]
    fn a_request_is_framed_by_us_alone() {
        let request = server().request(b"{}");
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
}
