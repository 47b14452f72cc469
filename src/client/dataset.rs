//! Random prompts of an exact length, the same for both sides and every repetition: the seed decides. Also where the
//! tokenizer of a model is found.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tokenizers::Tokenizer;

use crate::environment::Environment;
use crate::exit::Classify;

/// How many prompts, and how long prompts and answers are, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Number of prompts.
    pub prompts: usize,
    /// Tokens of every prompt, those that the tokenizer adds included.
    pub input_len: usize,
    /// Tokens asked of every answer.
    pub output_len: usize,
    /// What decides the prompts.
    pub seed: u64,
}

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
    /// How many tokens that is for the server.
    pub tokens: usize,
}

/// Ids to draw from without a tokenizer: inside every vocabulary in use, past the special tokens at its beginning.
const IDS_WITHOUT_TOKENIZER: std::ops::Range<u32> = 100..10_000;

/// How often a text is adjusted before other ids are drawn.
const ADJUSTMENTS: usize = 24;

/// How often ids are drawn anew before the last text is taken as it is.
const DRAWS: usize = 4;

/// Random prompts. With a tokenizer they are texts that it encodes to exactly `input_len` tokens; in the rare case that
/// none was found, `tokens` says how many there are. Without a tokenizer they are token ids.
pub fn random(shape: &Shape, tokenizer: Option<&Tokenizer>) -> Vec<Prompt> {
    let encoder = tokenizer.map(Encoder::new).filter(|encoder| !encoder.plain.is_empty());
    (0..shape.prompts as u64)
        .map(|index| {
            let mut random = ChaCha8Rng::seed_from_u64(shape.seed);
            random.set_stream(index);
            match &encoder {
                Some(encoder) => encoder.prompt(shape.input_len, &mut random),
                None => {
                    let ids = (0..shape.input_len).map(|_| random.random_range(IDS_WITHOUT_TOKENIZER)).collect();
                    Prompt { content: Content::Tokens(ids), tokens: shape.input_len }
                }
            }
        })
        .collect()
}

/// A tokenizer, and the ids of its vocabulary that are not special.
struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    plain: Vec<u32>,
    /// Tokens that it adds to every text, such as a begin-of-text.
    added: usize,
}

impl<'a> Encoder<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        let special = tokenizer.get_added_tokens_decoder();
        let mut plain: Vec<u32> =
            tokenizer.get_vocab(false).into_values().filter(|id| !special.contains_key(id)).collect();
        plain.sort_unstable();
        let added = tokenizer.encode_fast("", true).map_or(0, |encoding| encoding.len());
        Self { tokenizer, plain, added }
    }

    fn prompt(&self, length: usize, random: &mut ChaCha8Rng) -> Prompt {
        let wanted = length.saturating_sub(self.added);
        let mut last = String::new();
        for _ in 0..DRAWS {
            let mut ids = Vec::new();
            for _ in 0..ADJUSTMENTS {
                ids.truncate(wanted);
                while ids.len() < wanted {
                    ids.extend(self.plain.choose(random));
                }
                last = self.tokenizer.decode(&ids, false).unwrap_or_default();
                ids = self.ids(&last);
                if ids.len() == wanted {
                    return Prompt { content: Content::Text(last), tokens: length };
                }
            }
        }
        let tokens = self.ids(&last).len() + self.added;
        Prompt { content: Content::Text(last), tokens }
    }

    fn ids(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
    }
}

/// The `tokenizer.json` of a model: in the folder `model`, else in the cache of Hugging Face that `HF_HUB_CACHE`,
/// `HF_HOME`, `XDG_CACHE_HOME` or `HOME` leads to.
pub fn find_tokenizer(model: &str, env: &Environment) -> Option<PathBuf> {
    let local = Path::new(model).join("tokenizer.json");
    if local.is_file() {
        return Some(local);
    }
    let hub = env
        .get("HF_HUB_CACHE")
        .map(PathBuf::from)
        .or_else(|| env.get("HF_HOME").map(|home| Path::new(home).join("hub")))
        .or_else(|| env.get("XDG_CACHE_HOME").map(|cache| Path::new(cache).join("huggingface/hub")))
        .or_else(|| env.get("HOME").map(|home| Path::new(home).join(".cache/huggingface/hub")))?;
    let repository = hub.join(format!("models--{}", model.replace('/', "--")));
    let revision = std::fs::read_to_string(repository.join("refs/main")).ok()?;
    let cached = repository.join("snapshots").join(revision.trim()).join("tokenizer.json");
    cached.is_file().then_some(cached)
}

/// The tokenizer of a model, or `None` where it is not on this machine.
///
/// # Errors
/// Its file is there and cannot be read.
pub fn open_tokenizer(model: &str, env: &Environment) -> Result<Option<Tokenizer>> {
    let Some(path) = find_tokenizer(model, env) else { return Ok(None) };
    let cannot = |error| anyhow!("cannot read {}: {error}", path.display());
    let mut tokenizer = Tokenizer::from_file(&path).map_err(cannot).mistake()?;
    // Some files cut or fill every text; the server counts tokens without either.
    tokenizer.with_padding(None).with_truncation(None).map_err(cannot).mistake()?;
    Ok(Some(tokenizer))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { prompts: 6, input_len: 40, output_len: 8, seed: 1 };

    fn tiny() -> Tokenizer {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-llama");
        open_tokenizer(folder, &Environment::default()).unwrap().unwrap()
    }

    #[test]
    fn texts_have_exactly_the_length_that_was_asked_for() {
        let tokenizer = tiny();
        for prompt in random(&SHAPE, Some(&tokenizer)) {
            let Content::Text(text) = &prompt.content else { panic!("expected a text") };
            assert_eq!(prompt.tokens, 40);
            assert_eq!(tokenizer.encode(text.as_str(), true).unwrap().len(), 40, "{text:?}");
        }
    }

    #[test]
    fn prompts_differ_from_each_other_and_are_the_same_every_time() {
        let tokenizer = tiny();
        for tokenizer in [None, Some(&tokenizer)] {
            let prompts = random(&SHAPE, tokenizer);
            assert_eq!(prompts, random(&SHAPE, tokenizer));
            assert_ne!(prompts, random(&Shape { seed: 2, ..SHAPE }, tokenizer));
            for (index, prompt) in prompts.iter().enumerate() {
                assert!(prompts.iter().skip(index + 1).all(|other| other.content != prompt.content));
            }
        }
    }

    #[test]
    fn no_special_token_is_drawn() {
        let tokenizer = tiny();
        let encoder = Encoder::new(&tokenizer);
        let special = ["<s>", "</s>", "<pad>"].map(|token| tokenizer.token_to_id(token).unwrap());
        assert!(special.iter().all(|id| !encoder.plain.contains(id)));
        assert_eq!(encoder.plain.len(), tokenizer.get_vocab_size(true) - special.len());
    }

    #[test]
    fn without_a_tokenizer_prompts_are_token_ids() {
        for prompt in random(&SHAPE, None) {
            let Content::Tokens(ids) = prompt.content else { panic!("expected token ids") };
            assert_eq!(ids.len(), 40);
            assert!(ids.iter().all(|id| IDS_WITHOUT_TOKENIZER.contains(id)));
        }
    }

    #[test]
    fn a_tokenizer_is_found_in_the_cache_of_hugging_face() {
        let home = tempfile::tempdir().unwrap();
        let repository = home.path().join("hub/models--org--tiny");
        let snapshot = repository.join("snapshots/abc123");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        std::fs::File::create(snapshot.join("tokenizer.json")).unwrap();
        let env: Environment = [("HF_HOME", home.path().to_str().unwrap())].into_iter().collect();
        assert_eq!(find_tokenizer("org/tiny", &env), None);
        std::io::Write::write_all(&mut std::fs::File::create(repository.join("refs/main")).unwrap(), b"abc123\n")
            .unwrap();
        assert_eq!(find_tokenizer("org/tiny", &env), Some(snapshot.join("tokenizer.json")));
        assert_eq!(find_tokenizer("org/other", &env), None);
    }
}
