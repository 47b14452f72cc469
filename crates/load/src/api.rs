//! The interface of a server, and request bodies as `vllm bench serve` sends them.

use anyhow::{Context, Result};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::prompts::{Content, Prompt};

/// The interface of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Completions; OpenAI's path is `/v1/completions`.
    Completions,
    /// Chat completions; OpenAI's path is `/v1/chat/completions`.
    Chat,
    /// Embeddings; OpenAI's path is `/v1/embeddings`.
    Embeddings,
    /// vLLM's interface to the outputs of pooling models; its path is `/pooling`.
    Pooling,
}

/// Fields of a request body in addition to the prompt: sampling parameters and any other field of the interface.
pub type Sampling = Map<String, Value>;

impl Api {
    /// Whether answers are tokens, which come as a stream. The others come as a whole.
    pub fn generates(self) -> bool {
        matches!(self, Self::Completions | Self::Chat)
    }

    /// The body of a request: the fields that `vllm bench serve` sends. A field of `sampling` replaces a field
    /// of the same name.
    ///
    /// # Errors
    /// The body cannot be serialized as JSON.
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
                messages: [Message { role: "user", content: [ContentPart { r#type: "text", text: &prompt.content }] }],
                max_completion_tokens: prompt.output_tokens,
                common,
            }),
            // Many of these models take short prompts only: -1 cuts longer ones off.
            Self::Embeddings | Self::Pooling => {
                serde_json::to_value(Pooled { model, input: &prompt.content, truncate_prompt_tokens: -1, sampling })
            }
        };
        // Through a value, so that a field of `sampling` replaces the default and no key is duplicated.
        let body = body.and_then(|body| serde_json::to_vec(&body)).context("cannot serialize a request body")?;
        Ok(Bytes::from(body))
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
struct Pooled<'a> {
    model: &'a str,
    input: &'a Content,
    truncate_prompt_tokens: i32,
    #[serde(flatten)]
    sampling: &'a Sampling,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: [ContentPart<'a>; 1],
}

#[derive(Serialize)]
struct ContentPart<'a> {
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

    #[test]
    fn bodies_have_the_fields_of_vllm_bench_serve() {
        let sampling: Sampling = [("temperature".to_owned(), Value::from(0.0))].into_iter().collect();
        let ids = Prompt { content: Content::Tokens(vec![7, 8]), tokens: 2, output_tokens: 4 };
        let text = Prompt { content: Content::Text("hi".to_owned()), tokens: 1, output_tokens: 4 };
        let body = |api, prompt| String::from_utf8(Api::body(api, "m", prompt, &sampling).unwrap().to_vec());
        insta::assert_snapshot!(body(Api::Completions, &ids).unwrap(), @r#"{"prompt":[7,8],"repetition_penalty":1.0,"max_tokens":4,"model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0.0}"#);
        insta::assert_snapshot!(body(Api::Chat, &text).unwrap(), @r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"max_completion_tokens":4,"model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0.0}"#);
    }

    #[test]
    fn what_is_pooled_is_not_streamed() {
        let sampling: Sampling = [("dimensions".to_owned(), Value::from(64))].into_iter().collect();
        let text = Prompt { content: Content::Text("hi".to_owned()), tokens: 1, output_tokens: 4 };
        let body = |api: Api| String::from_utf8(api.body("m", &text, &sampling).unwrap().to_vec()).unwrap();
        insta::assert_snapshot!(body(Api::Embeddings), @r#"{"model":"m","input":"hi","truncate_prompt_tokens":-1,"dimensions":64}"#);
        assert_eq!(body(Api::Pooling), body(Api::Embeddings));
        assert!(!Api::Pooling.generates() && Api::Chat.generates());
    }

    #[test]
    fn an_extra_field_replaces_the_default_and_is_not_duplicated() {
        let sampling: Sampling = [("repetition_penalty".to_owned(), Value::from(1.5))].into_iter().collect();
        let prompt = Prompt { content: Content::Tokens(vec![1]), tokens: 1, output_tokens: 4 };
        let body = Api::Completions.body("m", &prompt, &sampling).unwrap();
        let text = String::from_utf8_lossy(&body);
        assert_eq!(text.matches("repetition_penalty").count(), 1);
        assert!(text.contains(r#""repetition_penalty":1.5"#), "{text}");
    }
}
