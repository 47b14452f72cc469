//! Custom prompts: JSON lines of `{"prompt": "...", "output_tokens": 10}`.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::prompt::{Content, Prompt};
use super::prompt_error::PromptError;
use super::prompt_file;
use super::prompt_selection::Selection;
use super::tokenizer::Tokenizer;
use crate::generator::python::Random;

#[derive(Debug, Deserialize)]
struct CustomLine {
    prompt: String,
    output_tokens: Option<f64>,
}

/// Checks that the lines of the file `path` have the format of [`custom`].
///
/// # Errors
/// The file cannot be read, or a line is not valid: `vllm bench serve` has formats that this client lacks.
pub fn check_custom(path: &Path) -> Result<(), PromptError> {
    prompt_file::json_lines::<CustomLine>(path).map(drop)
}

/// Prompts of the file `path`; all of them if `selection` has a number of 0. `output_len` is the number of tokens of every
/// answer; `None` uses the `output_tokens` of each line. With `template` the chat template of the model is applied to each
/// prompt, with these variables.
///
/// # Errors
/// The file cannot be read, a line is not valid or has no length, or the chat template fails.
pub fn custom(
    path: &Path,
    selection: &Selection,
    output_len: Option<usize>,
    template: Option<&Map<String, Value>>,
    tokenizer: &Tokenizer,
) -> Result<Vec<Prompt>, PromptError> {
    if path.extension().is_none_or(|extension| extension != "jsonl") {
        let path = path.display();
        return Err(PromptError::InvalidFile(format!(
            "{path} is not named `*.jsonl`: the custom data set is JSON lines"
        )));
    }
    let mut lines: Vec<(usize, CustomLine)> = prompt_file::json_lines(path)?;
    if selection.shuffle {
        Random::new(selection.seed).shuffle(&mut lines);
    }
    let wanted = if selection.prompts == 0 { lines.len() } else { selection.prompts };
    let prompt = |(line, content): (usize, CustomLine)| {
        let output_tokens = match (output_len, content.output_tokens) {
            (Some(length), _) => length,
            (None, Some(length)) if length >= 1.0 => length as usize,
            (None, _) => return Err(PromptError::NoOutputLength { path: path.to_owned(), line }),
        };
        let text = match template {
            Some(variables) => tokenizer.chat(&content.prompt, variables)?,
            None => content.prompt,
        };
        Ok(Prompt { tokens: tokenizer.count(&text), content: Content::Text(text), output_tokens })
    };
    lines.into_iter().take(wanted).map(prompt).collect()
}
