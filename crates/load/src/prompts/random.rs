//! Random prompts: for the same seed and tokenizer the same texts as in `vllm bench serve`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::prompt::{Content, Prompt};
use super::prompt_error::PromptError;
use super::tokenizer::Tokenizer;
use crate::generator::numpy::Generator;

/// The number of random prompts, and the lengths of prompts and answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomPrompts {
    /// Number of prompts.
    pub prompts: usize,
    /// Tokens of a prompt, with those that the tokenizer adds, without those of the prefix.
    pub input_len: usize,
    /// Tokens of an answer.
    pub output_len: usize,
    /// Tokens of a prefix that all prompts begin with.
    pub prefix_len: usize,
    /// Spread of these lengths.
    pub range: RangeRatio,
    /// Seed of the prompts.
    pub seed: u64,
}

impl Default for RandomPrompts {
    fn default() -> Self {
        Self { prompts: 1000, input_len: 1024, output_len: 128, prefix_len: 0, range: RangeRatio::Both(0.0), seed: 0 }
    }
}

/// Ids of prompts without a tokenizer: within every vocabulary in use, after the special tokens at its beginning.
const IDS_WITHOUT_TOKENIZER: std::ops::Range<u32> = 100..10_000;

/// How often a text is encoded again before its length is accepted.
const TRIES: usize = 10;

/// Random prompts. With a tokenizer they are texts; a few of them are some tokens longer than requested, as in
/// `vllm bench serve`. Without a tokenizer they are token ids.
///
/// # Errors
/// Prompts would have no token.
pub fn random(spec: &RandomPrompts, tokenizer: Option<&Tokenizer>) -> Result<Vec<Prompt>, PromptError> {
    let added = tokenizer.map_or(0, Tokenizer::added);
    let (plain, vocabulary) = match tokenizer {
        Some(tokenizer) => (tokenizer.plain(), tokenizer.vocabulary()),
        None => (IDS_WITHOUT_TOKENIZER.collect(), IDS_WITHOUT_TOKENIZER.len() as u32),
    };
    let input = LengthRange::around(spec.input_len.saturating_sub(added), spec.range.input());
    let output = LengthRange::around(spec.output_len, spec.range.output()).at_least_one();
    if plain.is_empty() || spec.prefix_len + input.low == 0 {
        return Err(PromptError::NoTokens { input_len: spec.input_len, added });
    }

    let mut generator = Generator::new(spec.seed);
    // In this order: the prompts of a seed depend on it.
    let mut draw = |lengths: &LengthRange| (0..spec.prompts).map(|_| lengths.draw(&mut generator)).collect::<Vec<_>>();
    let (inputs, outputs) = (draw(&input), draw(&output));
    let offsets: Vec<usize> = (0..spec.prompts).map(|_| generator.below(vocabulary) as usize).collect();
    let mut writer = TextWriter { tokenizer, vocabulary, generator };
    let mut prefix: Vec<u32> = (0..spec.prefix_len)
        .filter_map(|_| plain.get(writer.generator.below(plain.len() as u32) as usize).copied())
        .collect();
    if spec.prefix_len > 0 {
        prefix = writer.write(prefix).1;
    }
    let prompts = inputs.into_iter().zip(outputs).zip(offsets).enumerate();
    prompts
        .map(|(index, ((length, output_tokens), offset))| {
            let own = plain.iter().cycle().skip((offset + index) % plain.len()).take(length);
            let ids = prefix.iter().chain(own).copied().collect();
            let wanted = spec.prefix_len + length;
            let (content, ids) = writer.write_to(ids, wanted);
            Ok(Prompt { content, tokens: ids.len(), output_tokens })
        })
        .collect()
}

/// Lengths from `low` to `high`, both included.
struct LengthRange {
    low: usize,
    high: usize,
}

impl LengthRange {
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

/// Turns ids into texts.
struct TextWriter<'a> {
    tokenizer: Option<&'a Tokenizer>,
    vocabulary: u32,
    generator: Generator,
}

impl TextWriter<'_> {
    fn write(&mut self, ids: Vec<u32>) -> (Content, Vec<u32>) {
        let wanted = ids.len();
        self.write_to(ids, wanted)
    }

    /// The text of `ids`, and the ids of this text: `wanted` of them if that is possible.
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

/// Spread of lengths, as a share: 0.1 is from 90 % to 110 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RangeRatio {
    /// The same for prompts and answers.
    Both(f64),
    /// One for prompts and one for answers.
    Each {
        /// For prompts.
        input: f64,
        /// For answers.
        output: f64,
    },
}

impl RangeRatio {
    /// The spread of prompts.
    pub fn input(self) -> f64 {
        match self {
            Self::Both(ratio) | Self::Each { input: ratio, .. } => ratio,
        }
    }

    /// The spread of answers.
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

    const PROMPTS: RandomPrompts = RandomPrompts {
        prompts: 6,
        input_len: 40,
        output_len: 8,
        prefix_len: 0,
        range: RangeRatio::Both(0.0),
        seed: 1,
    };

    fn tiny() -> Tokenizer {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/tiny-llama");
        Tokenizer::read(std::path::Path::new(folder)).unwrap()
    }

    #[test]
    fn a_prompt_has_the_number_of_tokens_of_its_text() {
        let tokenizer = tiny();
        for prompt in random(&PROMPTS, Some(&tokenizer)).unwrap() {
            let Content::Text(text) = &prompt.content else { panic!("expected a text") };
            assert_eq!(prompt.tokens, tokenizer.count(text), "{text:?}");
            assert!((40..44).contains(&prompt.tokens), "{prompt:?}");
        }
    }

    #[test]
    fn prompts_differ_from_each_other_and_depend_on_the_seed_only() {
        let tokenizer = tiny();
        for tokenizer in [None, Some(&tokenizer)] {
            let prompts = random(&PROMPTS, tokenizer).unwrap();
            assert_eq!(prompts, random(&PROMPTS, tokenizer).unwrap());
            assert_ne!(prompts, random(&RandomPrompts { seed: 2, ..PROMPTS }, tokenizer).unwrap());
            for (index, prompt) in prompts.iter().enumerate() {
                assert!(prompts.iter().skip(index + 1).all(|other| other.content != prompt.content));
            }
        }
    }

    #[test]
    fn without_a_tokenizer_prompts_are_token_ids_that_begin_with_the_prefix() {
        let prompts = random(&RandomPrompts { prefix_len: 5, range: RangeRatio::Both(0.5), ..PROMPTS }, None).unwrap();
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
    fn prompts_without_a_token_are_refused() {
        let error = random(&RandomPrompts { input_len: 1, range: RangeRatio::Both(0.5), ..PROMPTS }, None).unwrap_err();
        insta::assert_snapshot!(error, @"an input length of 1 leaves prompts without a token: the tokenizer adds 0 of its own");
    }

    #[test]
    fn a_range_is_one_number_or_one_for_prompts_and_one_for_answers() {
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
