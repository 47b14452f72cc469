//! The tokenizer of a model, read from the files of its folder. Nothing is downloaded and no code of the model is run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::PostProcessor;

use super::chat_template::{ChatTemplate, NamedTemplates};
use super::input_file;
use super::prompt_error::PromptError;

/// The tokenizer of a model, its special tokens, and its chat template if it has one.
#[derive(Debug)]
pub struct Tokenizer {
    encoder: tokenizers::Tokenizer,
    special: BTreeSet<u32>,
    template: Option<ChatTemplate>,
    path: PathBuf,
}

impl Tokenizer {
    /// Reads the tokenizer of the model in `folder`.
    ///
    /// # Errors
    /// A file of the tokenizer is missing or not valid.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let encoder = read_encoder(&path)?;
        let config: Config = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let older: SpecialTokens = read_json(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
        let names = config.names.or(older);
        let special = names.all().filter_map(|token| encoder.token_to_id(token)).collect();
        let file = folder.join("chat_template.jinja");
        let source = if file.is_file() {
            Some(
                input_file::text(&file, input_file::TOKENIZER)
                    .with_context(|| format!("cannot read {}", file.display()))?,
            )
        } else {
            config.chat_template.and_then(NamedTemplates::into_default)
        };
        let template = source.map(|source| ChatTemplate::new(source, names.by_role()));
        Ok(Self { encoder, special, template, path })
    }

    /// The number of tokens of `text`, with those that the tokenizer adds.
    pub fn count(&self, text: &str) -> usize {
        self.encode(text, true).len()
    }

    /// The ids of `text`; `added`: with those that the tokenizer adds to every text, such as a begin-of-text.
    pub(super) fn encode(&self, text: &str, added: bool) -> Vec<u32> {
        self.encoder.encode_fast(text, added).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
    }

    /// The text of `ids`, with special tokens.
    pub(super) fn decode(&self, ids: &[u32]) -> String {
        self.encoder.decode(ids, false).unwrap_or_default()
    }

    /// The number of tokens that the tokenizer adds to every text.
    pub(super) fn added(&self) -> usize {
        self.encoder.get_post_processor().map_or(0, |processor| processor.added_tokens(false))
    }

    /// Size of the vocabulary, without added tokens.
    pub(super) fn vocabulary(&self) -> u32 {
        self.encoder.get_vocab_size(false) as u32
    }

    /// The ids of the vocabulary that are not special.
    pub(super) fn plain(&self) -> Vec<u32> {
        (0..self.vocabulary()).filter(|id| !self.special.contains(id)).collect()
    }

    /// The chat template of the model, applied to a message of a user with `variables`, up to the beginning of the answer.
    ///
    /// # Errors
    /// There is no template, or it fails.
    pub(super) fn chat(&self, message: &str, variables: &Map<String, Value>) -> Result<String, PromptError> {
        let tokenizer = || self.path.clone();
        let template = self.template.as_ref().ok_or_else(|| PromptError::NoChatTemplate { tokenizer: tokenizer() })?;
        let failed = |error| PromptError::ChatTemplate { tokenizer: tokenizer(), error };
        template.render(message, variables).map_err(failed)
    }
}

fn read_encoder(path: &Path) -> Result<tokenizers::Tokenizer> {
    let cannot = |error| anyhow!("cannot read {}: {error}", path.display());
    let bytes = input_file::bytes(path, input_file::TOKENIZER).map_err(|error| cannot(error.into()))?;
    let mut encoder = tokenizers::Tokenizer::from_bytes(bytes).map_err(cannot)?;
    // Some files truncate or pad every text, which a server does not do.
    encoder.with_padding(None).with_truncation(None).map_err(cannot)?;
    Ok(encoder)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    let cannot = || format!("cannot read {}", path.display());
    let bytes = input_file::bytes(path, input_file::TOKENIZER).with_context(cannot)?;
    serde_json::from_slice(&bytes).with_context(cannot).map(Some)
}

/// The fields of `tokenizer_config.json` that are used.
#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(flatten)]
    names: SpecialTokens,
    chat_template: Option<NamedTemplates>,
}

/// The special tokens of a model. Most have a role.
#[derive(Debug, Default, Deserialize)]
struct SpecialTokens {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    unk_token: Option<Token>,
    sep_token: Option<Token>,
    pad_token: Option<Token>,
    cls_token: Option<Token>,
    mask_token: Option<Token>,
    additional_special_tokens: Option<OtherTokens>,
    extra_special_tokens: Option<OtherTokens>,
}

impl SpecialTokens {
    /// These tokens, and those of `older` where they are missing.
    fn or(self, older: Self) -> Self {
        Self {
            bos_token: self.bos_token.or(older.bos_token),
            eos_token: self.eos_token.or(older.eos_token),
            unk_token: self.unk_token.or(older.unk_token),
            sep_token: self.sep_token.or(older.sep_token),
            pad_token: self.pad_token.or(older.pad_token),
            cls_token: self.cls_token.or(older.cls_token),
            mask_token: self.mask_token.or(older.mask_token),
            additional_special_tokens: self.additional_special_tokens.or(older.additional_special_tokens),
            extra_special_tokens: self.extra_special_tokens.or(older.extra_special_tokens),
        }
    }

    fn roles(&self) -> impl Iterator<Item = (&'static str, &Token)> {
        let roles = [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
            ("unk_token", &self.unk_token),
            ("sep_token", &self.sep_token),
            ("pad_token", &self.pad_token),
            ("cls_token", &self.cls_token),
            ("mask_token", &self.mask_token),
        ];
        roles.into_iter().filter_map(|(role, token)| token.as_ref().map(|token| (role, token)))
    }

    /// The tokens by role, as variables of a chat template.
    fn by_role(&self) -> IndexMap<&'static str, String> {
        self.roles().map(|(role, token)| (role, token.text().to_owned())).collect()
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        let others = [&self.additional_special_tokens, &self.extra_special_tokens];
        let others = others.into_iter().flatten().flat_map(|others| match others {
            OtherTokens::List(tokens) => tokens.iter().map(Token::text).collect::<Vec<_>>(),
            OtherTokens::Named(tokens) => tokens.values().map(Token::text).collect(),
        });
        self.roles().map(|(_, token)| token.text()).chain(others)
    }
}

/// A token, or a token with the rules of its matching.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Matched { content: String },
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Matched { content: text } => text,
        }
    }
}

/// Special tokens without a role.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OtherTokens {
    List(Vec<Token>),
    Named(IndexMap<String, Token>),
}

/// The encoder of the model in `folder`, without its other files.
///
/// # Errors
/// `tokenizer.json` cannot be read.
pub fn open_encoder(folder: &Path) -> Result<tokenizers::Tokenizer> {
    read_encoder(&folder.join("tokenizer.json"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    fn tiny() -> Tokenizer {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/tiny-llama");
        Tokenizer::read(Path::new(folder)).unwrap()
    }

    /// A folder with the tokenizer of tiny-llama and the configuration `config`.
    fn folder(config: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/tiny-llama/tokenizer.json");
        std::fs::copy(source, folder.path().join("tokenizer.json")).unwrap();
        File::create(folder.path().join("tokenizer_config.json")).unwrap().write_all(config.as_bytes()).unwrap();
        folder
    }

    #[test]
    fn special_tokens_are_those_of_the_configuration() {
        let tokenizer = tiny();
        assert_eq!(tokenizer.special, BTreeSet::from([0, 1, 2]));
        assert_eq!(tokenizer.plain().len(), tokenizer.vocabulary() as usize - 3);
        let config = r#"{"bos_token": {"content": "<s>", "lstrip": false}, "additional_special_tokens": ["<pad>"]}"#;
        let folder = folder(config);
        let tokenizer = Tokenizer::read(folder.path()).unwrap();
        assert_eq!(tokenizer.special, BTreeSet::from([0, 2]));
    }

    #[test]
    fn a_chat_template_is_read_from_its_file_or_from_the_configuration() {
        let none = Map::new();
        assert_eq!(tiny().chat("Hi", &none).unwrap(), "user: Hi\nassistant:");
        for template in [
            r#""[{{ messages[0].content }}]{{ eos_token }}""#,
            r#"[{"name": "tool_use", "template": "no"},
            {"name": "default", "template": "[{{ messages[0].content }}]{{ eos_token }}"}]"#,
        ] {
            let folder = folder(&format!(r#"{{"eos_token": "</s>", "chat_template": {template}}}"#));
            let opened = Tokenizer::read(folder.path()).unwrap();
            assert_eq!(opened.chat("Hi", &none).unwrap(), "[Hi]</s>");
        }
        let folder = folder("{}");
        let opened = Tokenizer::read(folder.path()).unwrap();
        let error = opened.chat("Hi", &none).unwrap_err();
        assert!(matches!(error, PromptError::NoChatTemplate { .. }), "{error}");
    }

    #[test]
    fn the_error_of_an_invalid_configuration_names_the_file_and_the_position() {
        let folder = folder("{\"bos_token\": }");
        let error = Tokenizer::read(folder.path()).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("tokenizer_config.json") && text.contains("line 1 column 15"), "{text}");
    }
}
