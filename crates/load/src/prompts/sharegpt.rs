//! ShareGPT: a JSON array of conversations. The first turn is the prompt; the length of the second turn is that of the
//! answer.

use std::path::Path;

use serde::Deserialize;

use super::prompt::{Content, Prompt};
use super::prompt_error::PromptError;
use super::prompt_file;
use super::prompt_selection::Selection;
use super::tokenizer::Tokenizer;
use crate::generator::python::Random;

#[derive(Debug, Deserialize)]
struct Conversation {
    #[serde(default)]
    #[serde(rename = "conversations")]
    turns: Vec<Turn>,
    image: Option<serde::de::IgnoredAny>,
    video: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Turn {
    #[serde(default)]
    value: String,
}

/// Fewest tokens of a prompt, and of an answer with the length of the file. This and the next two are the limits of
/// `vllm bench serve`.
const SHORTEST: usize = 4;
/// Most tokens of a prompt.
const LONGEST_PROMPT: usize = 1024;
/// Most tokens of a prompt and its answer together.
const LONGEST: usize = 2048;

/// Prompts of the conversations of the file `path` that are neither too short nor too long. `output_len` replaces the
/// number of tokens of every answer.
///
/// # Errors
/// The file cannot be read or is not valid, or a selected conversation has an image or a video.
pub fn sharegpt(
    path: &Path,
    selection: &Selection,
    output_len: Option<usize>,
    tokenizer: &Tokenizer,
) -> Result<Vec<Prompt>, PromptError> {
    let conversations: Vec<Conversation> = prompt_file::json(path)?;
    let mut candidates: Vec<(usize, &Conversation)> =
        conversations.iter().enumerate().filter(|(_, conversation)| conversation.turns.len() >= 2).collect();
    if selection.shuffle {
        Random::new(selection.seed).shuffle(&mut candidates);
    }
    let mut prompts = Vec::new();
    for (position, conversation) in candidates {
        if prompts.len() >= selection.prompts {
            break;
        }
        let [prompt, answer, ..] = conversation.turns.as_slice() else { continue };
        let tokens = tokenizer.count(&prompt.value);
        let output_tokens = output_len.unwrap_or_else(|| tokenizer.count(&answer.value));
        let too_short = tokens < SHORTEST || (output_len.is_none() && output_tokens < SHORTEST);
        if too_short || tokens > LONGEST_PROMPT || tokens + output_tokens > LONGEST {
            continue;
        }
        if conversation.image.is_some() || conversation.video.is_some() {
            return Err(PromptError::NotText { path: path.to_owned(), conversation: position + 1 });
        }
        prompts.push(Prompt { content: Content::Text(prompt.value.clone()), tokens, output_tokens });
    }
    Ok(prompts)
}
