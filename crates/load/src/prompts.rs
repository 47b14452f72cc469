//! Prompts: what each request asks, how long it is, and how long its answer should be. For the same seed, file and
//! tokenizer they are those of `vllm bench serve`.

mod chat_template;
mod custom;
mod prompt_file;
mod random;
mod sharegpt;
mod sonnet;
mod tokenizer;

use serde::Serialize;

use crate::generator::python::Random;

pub use custom::custom;
pub use random::{RangeRatio, Shape, random};
pub use sharegpt::sharegpt;
pub use sonnet::{Lengths as SonnetLengths, sonnet};
pub use tokenizer::{Tokenizer, open_encoder};

/// What a request asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// Text, for the server to split into tokens.
    Text(String),
    /// Token ids, where the model's tokenizer is not at hand.
    Tokens(Vec<u32>),
}

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// What is sent.
    pub content: Content,
    /// How many tokens that is, as upstream counts: without those that the tokenizer adds for random prompts, with them
    /// for all others.
    pub tokens: usize,
    /// Tokens asked of the answer.
    pub output_tokens: usize,
}

/// How prompts are taken from a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// How many.
    pub prompts: usize,
    /// Seed of the order.
    pub seed: u64,
    /// Whether their order is random.
    pub shuffle: bool,
}

/// Fills up to the number that was asked for with prompts that are there already.
pub fn repeat(prompts: &mut Vec<Prompt>, selection: &Selection) {
    let mut random = Random::new(selection.seed);
    let missing = selection.prompts.saturating_sub(prompts.len());
    let again: Vec<Prompt> = (0..missing).filter_map(|_| random.choice(prompts).cloned()).collect();
    prompts.extend(again);
}
