//! What a request asks of the simulated vLLM. Pure.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Which interface was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `/v1/completions`.
    Completion,
    /// `/v1/chat/completions`.
    Chat,
}

/// A body of either interface: the fields that the simulation heeds. `ignore_eos` is not among them, as it never ends an
/// answer early.
#[derive(Debug, Deserialize)]
pub struct Order {
    /// The model that is asked.
    pub model: Option<String>,
    prompt: Option<Prompt>,
    messages: Option<Vec<Message>>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    /// Whether tokens are wanted as they come.
    #[serde(default)]
    pub stream: bool,
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Text.
    Text(String),
    /// So many token ids.
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
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    text: String,
}

/// Tokens of an answer where the request names no number: the default of the completions interface.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// Most tokens of an answer.
const MOST_TOKENS: u32 = 1 << 20;

impl Order {
    /// Reads a body.
    ///
    /// # Errors
    /// It is not JSON of that interface, or asks for no token.
    pub fn read(body: &[u8], shape: Shape) -> Result<(Self, Prompt), String> {
        let mut order: Self = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let prompt = match shape {
            Shape::Completion => order.prompt.take().ok_or("missing field `prompt`")?,
            Shape::Chat => {
                let messages = order.messages.take().ok_or("missing field `messages`")?;
                let texts: Vec<String> = messages
                    .into_iter()
                    .flat_map(|message| match message.content {
                        Content::Text(text) => vec![text],
                        Content::Parts(parts) => parts.into_iter().map(|part| part.text).collect(),
                    })
                    .collect();
                Prompt::Text(texts.join("\n"))
            }
        };
        if !(1..=MOST_TOKENS).contains(&order.tokens()) {
            return Err(format!("max_tokens must be at least 1 and at most {MOST_TOKENS}"));
        }
        Ok((order, prompt))
    }

    /// Tokens that are wanted.
    pub fn tokens(&self) -> u32 {
        self.max_completion_tokens.or(self.max_tokens).unwrap_or(DEFAULT_MAX_TOKENS)
    }

    /// Whether a stream ends with its token counts.
    pub fn include_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrTokens;
        impl<'de> Visitor<'de> for TextOrTokens {
            type Value = Prompt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of token ids")
            }

            fn visit_str<E>(self, text: &str) -> Result<Prompt, E> {
                Ok(Prompt::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<Prompt, A::Error> {
                let mut count = 0;
                while ids.next_element::<u32>()?.is_some() {
                    count += 1;
                }
                Ok(Prompt::Tokens(count))
            }
        }
        deserializer.deserialize_any(TextOrTokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_interfaces_are_understood() {
        let (order, prompt) = Order::read(
            br#"{"prompt": [7, 8], "max_tokens": 3, "stream_options": {"include_usage": true}}"#,
            Shape::Completion,
        )
        .unwrap();
        assert_eq!((prompt, order.tokens(), order.include_usage(), order.stream), (Prompt::Tokens(2), 3, true, false));
        let chat = br#"{"messages": [{"content": "a"}, {"content": [{"type": "text", "text": "b"}]}], "stream": true}"#;
        let (order, prompt) = Order::read(chat, Shape::Chat).unwrap();
        assert_eq!((prompt, order.tokens(), order.stream), (Prompt::Text("a\nb".to_owned()), 16, true));
    }

    #[test]
    fn a_body_that_asks_nothing_is_refused() {
        let refused = |body: &str| Order::read(body.as_bytes(), Shape::Completion).unwrap_err();
        assert_eq!(refused("{}"), "missing field `prompt`");
        assert_eq!(refused(r#"{"prompt": "a", "max_tokens": 0}"#), "max_tokens must be at least 1 and at most 1048576");
        assert!(refused(r#"{"prompt": 5}"#).contains("expected a text or a list of token ids"));
        assert!(refused("no").contains("expected"));
    }
}
