//! Sonnet: lines of a poem, some of them the same in every prompt. vLLM had it before 0.32; the rule is that of 0.10.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Map;

use super::tokenizer::Tokenizer;
use super::{Content, Prompt, Selection, prompt_file};
use crate::generator::python::Random;

/// How long prompts and answers are, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// Most tokens of a prompt, chat template included.
    pub input: usize,
    /// Tokens asked of an answer.
    pub output: usize,
    /// About how many tokens all prompts begin with.
    pub prefix: usize,
}

/// What every prompt begins with: upstream's text, so that lengths are upstream's.
const TASK: &str = "Pick as many lines as you can from these poem lines:\n";

/// How many prompts in a row may be too long before the lengths are given up.
const PATIENCE: usize = 1000;

/// Prompts of lines from the text file `path`. `bare`: without the chat template, which the server will apply.
///
/// # Errors
/// The file cannot be read, or no prompt of its lines is as short as was asked.
pub fn sonnet(
    path: &Path,
    selection: &Selection,
    lengths: &Lengths,
    bare: bool,
    tokenizer: &Tokenizer,
) -> Result<Vec<Prompt>> {
    let text = prompt_file::text(path)?;
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    ensure!(!lines.is_empty(), "{} has no line", path.display());
    let average = lines.iter().map(|line| tokenizer.count(line)).sum::<usize>() as f64 / lines.len() as f64;
    let none = Map::new();
    let base = tokenizer.count(&tokenizer.chat(TASK, &none)?);
    let input = lengths.input;
    ensure!(
        input > base,
        "`--sonnet-input-len {input}` is not more than the {base} tokens that every prompt begins with"
    );
    // Python rounds halves to even.
    let lines_of = |tokens: usize| ((tokens as f64 - base as f64) / average).round_ties_even().max(0.0) as usize;
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
            ensure!(
                too_long < PATIENCE,
                "no prompt of the lines of {} has at most {input} tokens: give a longer --sonnet-input-len or a shorter --sonnet-prefix-len",
                path.display()
            );
            continue;
        }
        too_long = 0;
        let text = if bare { prompt } else { formatted };
        prompts.push(Prompt { content: Content::Text(text), tokens, output_tokens: lengths.output });
    }
    Ok(prompts)
}
