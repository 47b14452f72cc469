//! Sonnet: prompts of lines of a text, some of them the same in every prompt. The rule is that of vLLM 0.10; vLLM 0.32
//! does not have this data set.

use std::path::Path;

use serde_json::Map;

use super::prompt::{Content, Prompt};
use super::prompt_error::PromptError;
use super::prompt_file;
use super::prompt_selection::Selection;
use super::tokenizer::Tokenizer;
use crate::generator::python::Random;

/// Lengths of prompts and answers, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SonnetLengths {
    /// Most tokens of a prompt, with the chat template.
    pub input: usize,
    /// Tokens of an answer.
    pub output: usize,
    /// Approximate number of tokens that all prompts begin with.
    pub prefix: usize,
}

/// The text that every prompt begins with, as in `vllm bench serve`.
const TASK: &str = "Pick as many lines as you can from these poem lines:\n";

/// Number of prompts in a row that are too long after which no shorter one is expected.
const MOST_TOO_LONG: usize = 1000;

/// Prompts of lines of the text file `path`. `bare` prompts are without the chat template, for servers that apply it.
///
/// # Errors
/// The file cannot be read or is empty, the chat template fails, or no prompt is as short as requested.
pub fn sonnet(
    path: &Path,
    selection: &Selection,
    lengths: &SonnetLengths,
    bare: bool,
    tokenizer: &Tokenizer,
) -> Result<Vec<Prompt>, PromptError> {
    let text = prompt_file::text(path)?;
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    if lines.is_empty() {
        return Err(PromptError::InvalidFile(format!("{} has no line", path.display())));
    }
    let average = lines.iter().map(|line| tokenizer.count(line)).sum::<usize>() as f64 / lines.len() as f64;
    let none = Map::new();
    let least = tokenizer.count(&tokenizer.chat(TASK, &none)?);
    let input = lengths.input;
    if input <= least {
        return Err(PromptError::ShortInput { input_len: input, least });
    }
    // Python rounds halves to even.
    let lines_of = |tokens: usize| ((tokens as f64 - least as f64) / average).round_ties_even().max(0.0) as usize;
    let same = lines_of(lengths.prefix);
    let others = lines_of(input).saturating_sub(same);
    let prefix = lines.iter().take(same).copied().collect::<String>();

    let mut random = Random::new(selection.seed);
    let mut prompts = Vec::with_capacity(selection.prompts);
    let mut too_long = 0;
    while prompts.len() < selection.prompts {
        let own: String = random.choices(&lines, others).into_iter().copied().collect();
        let prompt = format!("{TASK}{prefix}{own}");
        let formatted = tokenizer.chat(&prompt, &none)?;
        let tokens = tokenizer.count(&formatted);
        if tokens > input {
            too_long += 1;
            if too_long == MOST_TOO_LONG {
                return Err(PromptError::LongLines { path: path.to_owned(), input_len: input });
            }
            continue;
        }
        too_long = 0;
        let text = if bare { prompt } else { formatted };
        prompts.push(Prompt { content: Content::Text(text), tokens, output_tokens: lengths.output });
    }
    Ok(prompts)
}
