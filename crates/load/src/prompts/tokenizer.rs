//! The tokenizer of a model, read from the files of its folder. Nothing is downloaded and no code of a model is run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use indexmap::IndexMap;
use serde::Deserialize;

use super::chat_template::{ChatTemplate, NamedTemplates};

/// A model's tokenizer, its special tokens, and its chat template where it has one.
#[derive(Debug)]
pub struct Tokenizer {
    encoder: tokenizers::Tokenizer,
    special: BTreeSet<u32>,
    template: Option<ChatTemplate>,
    path: PathBuf,
}

impl Tokenizer {
    /// The tokenizer of a model's folder.
    ///
    /// # Errors
    /// A file of the tokenizer cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let encoder = read_encoder(&path)?;
        let config: Config = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let older: Names = read_json(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
        let names = Names::over(config.names, older);
        let special = names.all().filter_map(|token| encoder.token_to_id(token)).collect();
        let file = folder.join("chat_template.jinja");
        let source = if file.is_file() {
            Some(std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?)
        } else {
            config.chat_template.and_then(NamedTemplates::default)
        };
        let template = source.map(|source| ChatTemplate::new(source, names.named()));
        Ok(Self { encoder, special, template, path })
    }

    /// How many tokens the model sees for `text`, those that the tokenizer adds included.
    pub fn count(&self, text: &str) -> usize {
        self.encode(text, true).len()
    }

    /// The ids of `text`; `added`: with those that the tokenizer adds to every text, such as a begin-of-text.
    pub fn encode(&self, text: &str, added: bool) -> Vec<u32> {
        self.encoder.encode_fast(text, added).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
    }

    /// The text of `ids`, special tokens included.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.encoder.decode(ids, false).unwrap_or_default()
    }

    /// How many tokens are added to every text.
    pub fn added(&self) -> usize {
        self.encoder.get_post_processor().map_or(0, |processor| {
            use tokenizers::PostProcessor;
            processor.added_tokens(false)
        })
    }

    /// Size of the vocabulary, added tokens aside.
    pub fn vocabulary(&self) -> u32 {
        self.encoder.get_vocab_size(false) as u32
    }

    /// The ids of the vocabulary that are not special.
    pub fn plain(&self) -> Vec<u32> {
        (0..self.vocabulary()).filter(|id| !self.special.contains(id)).collect()
    }

    /// A user's message as the model's chat template puts it, up to where the model answers. `variables` are given to
    /// the template.
    ///
    /// # Errors
    /// There is no template, or it fails (exit 2).
    pub fn chat(&self, message: &str, variables: &serde_json::Map<String, serde_json::Value>) -> Result<String> {
        let path = self.path.display();
        let template = self.template.as_ref().with_context(|| {
            format!("{path} has no chat template beside it: give --skip-chat-template, or --tokenizer of a chat model")
        });
        template?.render(message, variables).with_context(|| format!("cannot apply the chat template of {path}"))
    }
}

fn read_encoder(path: &Path) -> Result<tokenizers::Tokenizer> {
    let cannot = |error| anyhow!("cannot read {}: {error}", path.display());
    let mut encoder = tokenizers::Tokenizer::from_file(path).map_err(cannot)?;
    // Some files cut or fill every text; the server counts tokens without either.
    encoder.with_padding(None).with_truncation(None).map_err(cannot)?;
    Ok(encoder)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    let cannot = || format!("cannot read {}", path.display());
    let bytes = std::fs::read(path).with_context(cannot)?;
    serde_json::from_slice(&bytes).with_context(cannot).map(Some)
}

/// What is read of `tokenizer_config.json`.
#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(flatten)]
    names: Names,
    chat_template: Option<NamedTemplates>,
}

/// The special tokens that have a role.
#[derive(Debug, Default, Deserialize)]
struct Names {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    unk_token: Option<Token>,
    sep_token: Option<Token>,
    pad_token: Option<Token>,
    cls_token: Option<Token>,
    mask_token: Option<Token>,
    additional_special_tokens: Option<Others>,
    extra_special_tokens: Option<Others>,
}

impl Names {
    /// `newer`, and `older` where it says nothing.
    fn over(newer: Self, older: Self) -> Self {
        Self {
            bos_token: newer.bos_token.or(older.bos_token),
            eos_token: newer.eos_token.or(older.eos_token),
            unk_token: newer.unk_token.or(older.unk_token),
            sep_token: newer.sep_token.or(older.sep_token),
            pad_token: newer.pad_token.or(older.pad_token),
            cls_token: newer.cls_token.or(older.cls_token),
            mask_token: newer.mask_token.or(older.mask_token),
            additional_special_tokens: newer.additional_special_tokens.or(older.additional_special_tokens),
            extra_special_tokens: newer.extra_special_tokens.or(older.extra_special_tokens),
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

    /// Role to token, as a chat template knows them.
    fn named(&self) -> IndexMap<&'static str, String> {
        self.roles().map(|(role, token)| (role, token.text().to_owned())).collect()
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        let others = [&self.additional_special_tokens, &self.extra_special_tokens];
        let others = others.into_iter().flatten().flat_map(|others| match others {
            Others::List(tokens) => tokens.iter().map(Token::text).collect::<Vec<_>>(),
            Others::Named(tokens) => tokens.values().map(Token::text).collect(),
        });
        self.roles().map(|(_, token)| token.text()).chain(others)
    }
}

/// A token, or a token with how it is matched.
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

/// Special tokens without a role of their own.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Others {
    List(Vec<Token>),
    Named(IndexMap<String, Token>),
}

/// The encoder of a model's folder alone.
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

    /// A folder with the tokenizer of tiny-llama and `config` beside it.
    fn folder(config: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/tiny-llama/tokenizer.json");
        std::fs::copy(source, folder.path().join("tokenizer.json")).unwrap();
        File::create(folder.path().join("tokenizer_config.json")).unwrap().write_all(config.as_bytes()).unwrap();
        folder
    }

    #[test]
    fn special_tokens_are_those_with_a_role_and_no_others() {
        let tokenizer = tiny();
        assert_eq!(tokenizer.special, BTreeSet::from([0, 1, 2]));
        assert_eq!(tokenizer.plain().len(), tokenizer.vocabulary() as usize - 3);
        let config = r#"{"bos_token": {"content": "<s>", "lstrip": false}, "additional_special_tokens": ["<pad>"]}"#;
        let folder = folder(config);
        let tokenizer = Tokenizer::read(folder.path()).unwrap();
        assert_eq!(tokenizer.special, BTreeSet::from([0, 2]));
    }

    #[test]
    fn a_chat_template_comes_from_its_file_or_from_the_configuration() {
        let none = serde_json::Map::new();
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
        assert!(error.to_string().contains("no chat template beside it: give --skip-chat-template"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_configuration_is_named() {
        let folder = folder("{\"bos_token\": }");
        let error = Tokenizer::read(folder.path()).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("tokenizer_config.json") && text.contains("line 1 column 15"), "{text}");
    }
}
