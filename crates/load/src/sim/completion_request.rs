//! The body of a request to the simulated vLLM.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::api::Api;

/// A body of any interface, with the fields that the simulation uses. `ignore_eos` is not one of them, because no
/// answer ends early.
#[derive(Debug, Deserialize)]
pub struct CompletionRequest {
    /// The name of the model.
    pub model: Option<String>,
    prompt: Option<RequestPrompt>,
    messages: Option<Vec<Message>>,
    input: Option<Inputs>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    /// Whether the answer is a stream.
    #[serde(default)]
    pub stream: bool,
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// What is embedded or pooled: one prompt or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Inputs {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    Lists(Vec<Vec<u32>>),
}

impl Inputs {
    fn prompts(self) -> Vec<RequestPrompt> {
        match self {
            Self::Text(text) => vec![RequestPrompt::Text(text)],
            Self::Tokens(ids) => vec![RequestPrompt::Tokens(ids.len())],
            Self::Texts(texts) => texts.into_iter().map(RequestPrompt::Text).collect(),
            Self::Lists(lists) => lists.iter().map(|ids| RequestPrompt::Tokens(ids.len())).collect(),
        }
    }
}

/// The prompt of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestPrompt {
    /// Text.
    Text(String),
    /// Token ids; only their number is used.
    Tokens(usize),
}

#[derive(Debug, Deserialize)]
struct Message {
    content: Content,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<TextPart>),
}

#[derive(Debug, Deserialize)]
struct TextPart {
    text: String,
}

/// Tokens of an answer if the request has no number: the default of the completions interface.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// Most tokens of an answer.
const MOST_TOKENS: u32 = 1 << 20;

impl CompletionRequest {
    /// Parses a body, and its prompts: one, but for inputs that are lists.
    ///
    /// # Errors
    /// It is not JSON of that interface, or the number of tokens is out of range.
    pub fn parse(body: &[u8], api: Api) -> Result<(Self, Vec<RequestPrompt>), String> {
        let mut request: Self = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let prompts = match api {
            Api::Completions => vec![request.prompt.take().ok_or("missing field `prompt`")?],
            Api::Embeddings | Api::Pooling => {
                (request.max_tokens, request.max_completion_tokens) = (Some(1), None);
                request.input.take().ok_or("missing field `input`")?.prompts()
            }
            Api::Chat => {
                let messages = request.messages.take().ok_or("missing field `messages`")?;
                let texts: Vec<String> = messages
                    .into_iter()
                    .flat_map(|message| match message.content {
                        Content::Text(text) => vec![text],
                        Content::Parts(parts) => parts.into_iter().map(|part| part.text).collect(),
                    })
                    .collect();
                vec![RequestPrompt::Text(texts.join("\n"))]
            }
        };
        if !(1..=MOST_TOKENS).contains(&request.tokens()) {
            return Err(format!("max_tokens must be at least 1 and at most {MOST_TOKENS}"));
        }
        Ok((request, prompts))
    }

    /// Tokens of the answer.
    pub fn tokens(&self) -> u32 {
        self.max_completion_tokens.or(self.max_tokens).unwrap_or(DEFAULT_MAX_TOKENS)
    }

    /// Whether a stream ends with the token counts.
    pub fn include_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }
}

impl<'de> Deserialize<'de> for RequestPrompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrTokens;
        impl<'de> Visitor<'de> for TextOrTokens {
            type Value = RequestPrompt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of token ids")
            }

            fn visit_str<E>(self, text: &str) -> Result<RequestPrompt, E> {
                Ok(RequestPrompt::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<RequestPrompt, A::Error> {
                let mut count = 0;
                while ids.next_element::<u32>()?.is_some() {
                    count += 1;
                }
                Ok(RequestPrompt::Tokens(count))
            }
        }
        deserializer.deserialize_any(TextOrTokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_interfaces_are_parsed() {
        let (request, prompts) = CompletionRequest::parse(
            br#"{"prompt": [7, 8], "max_tokens": 3, "stream_options": {"include_usage": true}}"#,
            Api::Completions,
        )
        .unwrap();
        assert_eq!(
            (prompts, request.tokens(), request.include_usage(), request.stream),
            (vec![RequestPrompt::Tokens(2)], 3, true, false)
        );
        let chat = br#"{"messages": [{"content": "a"}, {"content": [{"type": "text", "text": "b"}]}], "stream": true}"#;
        let (request, prompts) = CompletionRequest::parse(chat, Api::Chat).unwrap();
        let text = |text: &str| RequestPrompt::Text(text.to_owned());
        assert_eq!((prompts, request.tokens(), request.stream), (vec![text("a\nb")], 16, true));
        let inputs =
            |body: &str| CompletionRequest::parse(body.as_bytes(), Api::Embeddings).map(|(_, prompts)| prompts);
        assert_eq!(inputs(r#"{"input": "a", "truncate_prompt_tokens": -1}"#), Ok(vec![text("a")]));
        assert_eq!(inputs(r#"{"input": [1, 2, 3]}"#), Ok(vec![RequestPrompt::Tokens(3)]));
        assert_eq!(inputs(r#"{"input": ["a", "b"]}"#), Ok(vec![text("a"), text("b")]));
        assert_eq!(inputs(r#"{"input": [[1], [1, 2]]}"#), Ok(vec![RequestPrompt::Tokens(1), RequestPrompt::Tokens(2)]));
        assert_eq!(inputs("{}").unwrap_err(), "missing field `input`");
    }

    #[test]
    fn a_body_without_a_prompt_or_tokens_is_refused() {
        let refused = |body: &str| CompletionRequest::parse(body.as_bytes(), Api::Completions).unwrap_err();
        assert_eq!(refused("{}"), "missing field `prompt`");
        assert_eq!(refused(r#"{"prompt": "a", "max_tokens": 0}"#), "max_tokens must be at least 1 and at most 1048576");
        assert!(refused(r#"{"prompt": 5}"#).contains("expected a text or a list of token ids"));
        assert!(refused("no").contains("expected"));
    }
}
