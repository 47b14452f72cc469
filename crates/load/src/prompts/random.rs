//! Random prompts: for the same seed and tokenizer the same texts that `vllm bench serve` sends.

use std::str::FromStr;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use super::tokenizer::Tokenizer;
use super::{Content, Prompt};
use crate::generator::numpy::Generator;

/// How many prompts, and how long prompts and answers are, in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Number of prompts.
    pub prompts: usize,
    /// Tokens of a prompt, those that the tokenizer adds included, those of the prefix not.
    pub input_len: usize,
    /// Tokens asked of an answer.
    pub output_len: usize,
    /// Tokens that all prompts begin with.
    pub prefix_len: usize,
    /// How far lengths stray from those.
    pub range: RangeRatio,
    /// What decides the prompts.
    pub seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { prompts: 1000, input_len: 1024, output_len: 128, prefix_len: 0, range: RangeRatio::Both(0.0), seed: 0 }
    }
}

/// Ids to draw from without a tokenizer: inside every vocabulary in use, past the special tokens at its beginning.
const IDS_WITHOUT_TOKENIZER: std::ops::Range<u32> = 100..10_000;

/// How often a text is encoded again before its length is taken as it is.
const TRIES: usize = 10;

/// Random prompts. With a tokenizer they are texts; a few of them are some tokens longer than asked for, as upstream's
/// are. Without one they are token ids.
///
/// # Errors
/// Prompts would be empty (exit 2).
pub fn random(shape: &Shape, tokenizer: Option<&Tokenizer>) -> Result<Vec<Prompt>> {
    let added = tokenizer.map_or(0, Tokenizer::added);
    let (plain, vocabulary) = match tokenizer {
        Some(tokenizer) => (tokenizer.plain(), tokenizer.vocabulary()),
        None => (IDS_WITHOUT_TOKENIZER.collect(), IDS_WITHOUT_TOKENIZER.len() as u32),
    };
    let input = Lengths::around(shape.input_len.saturating_sub(added), shape.range.input());
    let output = Lengths::around(shape.output_len, shape.range.output()).at_least_one();
    if plain.is_empty() || shape.prefix_len + input.low == 0 {
        let least = format!("`--random-input-len {}` leaves prompts of no token", shape.input_len);
        return Err(anyhow!("{least}: the tokenizer adds {added} of its own; ask for more"));
    }

    let mut generator = Generator::new(shape.seed);
    // One after the other: the order is part of what a seed means.
    let mut draw = |lengths: &Lengths| (0..shape.prompts).map(|_| lengths.draw(&mut generator)).collect::<Vec<_>>();
    let (inputs, outputs) = (draw(&input), draw(&output));
    let offsets: Vec<usize> = (0..shape.prompts).map(|_| generator.below(vocabulary) as usize).collect();
    let mut writer = Writer { tokenizer, vocabulary, generator };
    let mut prefix: Vec<u32> = (0..shape.prefix_len)
        .filter_map(|_| plain.get(writer.generator.below(plain.len() as u32) as usize).copied())
        .collect();
    if shape.prefix_len > 0 {
        prefix = writer.write(prefix).1;
    }
    let prompts = inputs.into_iter().zip(outputs).zip(offsets).enumerate();
    Ok(prompts
        .map(|(index, ((length, output_tokens), offset))| {
            let own = plain.iter().cycle().skip((offset + index) % plain.len()).take(length);
            let ids = prefix.iter().chain(own).copied().collect();
            let wanted = shape.prefix_len + length;
            let (content, ids) = writer.write_to(ids, wanted);
            Prompt { content, tokens: ids.len(), output_tokens }
        })
        .collect())
}

/// Lengths from `low` to `high`, both included.
struct Lengths {
    low: usize,
    high: usize,
}

impl Lengths {
    fn around(length: usize, ratio: f64) -> Self {
        let length = length as f64;
        Self { low: (length * (1.0 - ratio)).floor() as usize, high: (length * (1.0 + ratio)).ceil() as usize }
    }

    fn at_least_one(self) -> Self {
        Self { low: self.low.max(1), high: self.high.max(1) }
    }

    fn draw(&self, generator: &mut Generator) -> usize {
        self.low + generator.below((self.high - self.low) as u32 + 1) as usize
    }
}

/// Makes texts of ids.
struct Writer<'a> {
    tokenizer: Option<&'a Tokenizer>,
    vocabulary: u32,
    generator: Generator,
}

impl Writer<'_> {
    fn write(&mut self, ids: Vec<u32>) -> (Content, Vec<u32>) {
        let wanted = ids.len();
        self.write_to(ids, wanted)
    }

    /// The text of `ids`, and the ids that the tokenizer makes of it: `wanted` of them where that can be had.
    fn write_to(&mut self, mut ids: Vec<u32>, wanted: usize) -> (Content, Vec<u32>) {
        let Some(tokenizer) = self.tokenizer else { return (Content::Tokens(ids.clone()), ids) };
        let mut tries = 0;
        loop {
            let text = tokenizer.decode(&ids);
            ids = tokenizer.encode(&text, false);
            if ids.len() == wanted || tries == TRIES {
                return (Content::Text(text), ids);
            }
            ids.truncate(wanted);
            ids.extend((ids.len()..wanted).map(|_| self.generator.below(self.vocabulary)));
            tries += 1;
        }
    }
}

/// How far lengths stray from what was asked for: 0.1 is from 90 % to 110 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RangeRatio {
    /// The same for prompts and answers.
    Both(f64),
    /// Each its own.
    Each {
        /// Of prompts.
        input: f64,
        /// Of answers.
        output: f64,
    },
}

impl RangeRatio {
    /// That of prompts.
    pub fn input(self) -> f64 {
        match self {
            Self::Both(ratio) | Self::Each { input: ratio, .. } => ratio,
        }
    }

    /// That of answers.
    pub fn output(self) -> f64 {
        match self {
            Self::Both(ratio) | Self::Each { output: ratio, .. } => ratio,
        }
    }
}

impl FromStr for RangeRatio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ratio: Self =
            serde_json::from_str(text).map_err(|_| r#"expected a number or {"input": 0.3, "output": 0.5}"#)?;
        if [ratio.input(), ratio.output()].iter().any(|ratio| !(0.0..1.0).contains(ratio)) {
            return Err("expected at least 0 and less than 1".to_owned());
        }
        Ok(ratio)
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    const SHAPE: Shape =
        Shape { prompts: 6, input_len: 40, output_len: 8, prefix_len: 0, range: RangeRatio::Both(0.0), seed: 1 };

    fn tiny() -> Tokenizer {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/tiny-llama");
        Tokenizer::read(std::path::Path::new(folder)).unwrap()
    }

    #[test]
    fn a_prompt_says_how_many_tokens_its_text_has() {
        let tokenizer = tiny();
        for prompt in random(&SHAPE, Some(&tokenizer)).unwrap() {
            let Content::Text(text) = &prompt.content else { panic!("expected a text") };
            assert_eq!(prompt.tokens, tokenizer.count(text), "{text:?}");
            assert!((40..44).contains(&prompt.tokens), "{prompt:?}");
        }
    }

    #[test]
    fn prompts_differ_from_each_other_and_are_the_same_every_time() {
        let tokenizer = tiny();
        for tokenizer in [None, Some(&tokenizer)] {
            let prompts = random(&SHAPE, tokenizer).unwrap();
            assert_eq!(prompts, random(&SHAPE, tokenizer).unwrap());
            assert_ne!(prompts, random(&Shape { seed: 2, ..SHAPE }, tokenizer).unwrap());
            for (index, prompt) in prompts.iter().enumerate() {
                assert!(prompts.iter().skip(index + 1).all(|other| other.content != prompt.content));
            }
        }
    }

    #[test]
    fn without_a_tokenizer_prompts_are_token_ids_that_begin_with_the_prefix() {
        let prompts = random(&Shape { prefix_len: 5, range: RangeRatio::Both(0.5), ..SHAPE }, None).unwrap();
        let ids = |prompt: &Prompt| match &prompt.content {
            Content::Tokens(ids) => ids.clone(),
            Content::Text(text) => panic!("{text}"),
        };
        let prefix = ids(&prompts[0])[..5].to_vec();
        for prompt in &prompts {
            assert!((25..=65).contains(&prompt.tokens) && (4..=12).contains(&prompt.output_tokens), "{prompt:?}");
            let ids = ids(prompt);
            assert_eq!((ids.len(), &ids[..5]), (prompt.tokens, prefix.as_slice()));
            assert!(ids.iter().all(|id| IDS_WITHOUT_TOKENIZER.contains(id)));
        }
    }

    #[test]
    fn prompts_of_no_token_are_refused() {
        let error = random(&Shape { input_len: 1, range: RangeRatio::Both(0.5), ..SHAPE }, None).unwrap_err();
        insta::assert_snapshot!(error, @"`--random-input-len 1` leaves prompts of no token: the tokenizer adds 0 of its own; ask for more");
    }

    #[test]
    fn a_range_is_a_number_or_one_for_each_side() {
        assert_eq!("0.25".parse(), Ok(RangeRatio::Both(0.25)));
        assert_eq!("0".parse(), Ok(RangeRatio::Both(0.0)));
        let each = RangeRatio::Each { input: 0.3, output: 0.5 };
        assert_eq!(r#"{"input": 0.3, "output": 0.5}"#.parse(), Ok(each));
        assert_eq!((each.input(), each.output()), (0.3, 0.5));
        for text in ["1", "-0.1", "wide", r#"{"input": 0.3}"#, r#"{"input": 0.3, "output": 1.5}"#, "[0.1, 0.2, 0.3]"] {
            assert!(text.parse::<RangeRatio>().is_err(), "{text}");
        }
    }
}
