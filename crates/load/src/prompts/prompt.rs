//! One prompt.

use serde::{Deserialize, Serialize};

/// The text of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Text, which the server splits into tokens.
    Text(String),
    /// Token ids, if there is no tokenizer.
    Tokens(Vec<u32>),
}

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// What is sent.
    pub content: Content,
    /// Its number of tokens, as `vllm bench serve` counts them: without the tokens that the tokenizer adds for random
    /// prompts, with them for all others.
    pub tokens: usize,
    /// Tokens to request of the answer.
    pub output_tokens: usize,
}
