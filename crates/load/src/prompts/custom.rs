//! Prompts of one's own: JSON lines of `{"prompt": "...", "output_tokens": 10}`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::tokenizer::Tokenizer;
use super::{Content, Prompt, Selection, prompt_file};
use crate::generator::python::Random;

#[derive(Debug, Deserialize)]
struct Row {
    prompt: String,
    output_tokens: Option<f64>,
}

/// Prompts of the file `path`, all of them where `selection` asks for 0. `output_len` is the length of every answer;
/// without it each line says its own. With `template` a prompt is what the model's chat template makes of the line's.
///
/// # Errors
/// The file cannot be read, a line has no length, or the template fails.
pub fn custom(
    path: &Path,
    selection: &Selection,
    output_len: Option<usize>,
    template: Option<&Map<String, Value>>,
    tokenizer: &Tokenizer,
) -> Result<Vec<Prompt>> {
    if path.extension().is_none_or(|extension| extension != "jsonl") {
        bail!("{} is not named `*.jsonl`: the custom data set is JSON lines", path.display());
    }
    let mut rows: Vec<(usize, Row)> = prompt_file::json_lines(path)?;
    if selection.shuffle {
        Random::new(selection.seed).shuffle(&mut rows);
    }
    let wanted = if selection.prompts == 0 { rows.len() } else { selection.prompts };
    let prompt = |(line, row): (usize, Row)| {
        let output_tokens = match (output_len, row.output_tokens) {
            (Some(length), _) => length,
            (None, Some(length)) if length >= 1.0 => length as usize,
            (None, _) => bail!(
                "{}, line {line}: no `output_tokens` of at least 1; add them, or give --custom-output-len",
                path.display()
            ),
        };
        let text = match template {
            Some(variables) => tokenizer.chat(&row.prompt, variables)?,
            None => row.prompt,
        };
        Ok(Prompt { tokens: tokenizer.count(&text), content: Content::Text(text), output_tokens })
    };
    rows.into_iter().take(wanted).map(prompt).collect::<Result<_>>().context("cannot use the custom data set")
}
