//! ShareGPT: a JSON array of conversations. The first turn is the prompt, and the length of the second that of the answer.

use std::path::Path;

use anyhow::{Result, bail};
use serde::Deserialize;

use super::tokenizer::Tokenizer;
use super::{Content, Prompt, Selection, prompt_file};
use crate::generator::python::Random;

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(default)]
    conversations: Vec<Turn>,
    image: Option<serde::de::IgnoredAny>,
    video: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Turn {
    #[serde(default)]
    value: String,
}

/// Fewest tokens of a prompt, and of an answer whose length is the file's (upstream's limits, as the next two).
const SHORTEST: usize = 4;
/// Most tokens of a prompt.
const LONGEST_PROMPT: usize = 1024;
/// Most tokens of a prompt and its answer.
const LONGEST: usize = 2048;

/// Prompts from the conversations of the file `path` that are neither too short nor too long. `output_len` replaces the
/// length of every answer.
///
/// # Errors
/// The file cannot be read, or a conversation that is chosen has more than text.
pub fn sharegpt(
    path: &Path,
    selection: &Selection,
    output_len: Option<usize>,
    tokenizer: &Tokenizer,
) -> Result<Vec<Prompt>> {
    let entries: Vec<Entry> = prompt_file::json(path)?;
    let mut entries: Vec<(usize, &Entry)> =
        entries.iter().enumerate().filter(|(_, entry)| entry.conversations.len() >= 2).collect();
    if selection.shuffle {
        Random::new(selection.seed).shuffle(&mut entries);
    }
    let mut prompts = Vec::new();
    for (position, entry) in entries {
        if prompts.len() >= selection.prompts {
            break;
        }
        let [prompt, answer, ..] = entry.conversations.as_slice() else { continue };
        let tokens = tokenizer.count(&prompt.value);
        let output_tokens = output_len.unwrap_or_else(|| tokenizer.count(&answer.value));
        let too_short = tokens < SHORTEST || (output_len.is_none() && output_tokens < SHORTEST);
        if too_short || tokens > LONGEST_PROMPT || tokens + output_tokens > LONGEST {
            continue;
        }
        if entry.image.is_some() || entry.video.is_some() {
            bail!(
                "conversation {} of {} has an image or a video, which only `vllm bench serve` sends: use --client vllm",
                position + 1,
                path.display()
            );
        }
        prompts.push(Prompt { content: Content::Text(prompt.value.clone()), tokens, output_tokens });
    }
    Ok(prompts)
}
