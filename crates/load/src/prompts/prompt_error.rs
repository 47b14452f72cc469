//! Why prompts cannot be made.

use std::error::Error;
use std::path::PathBuf;
use std::{fmt, io};

/// Why prompts cannot be made. A program can match on the cause to name the option of its own that fixes it.
#[derive(Debug)]
pub enum PromptError {
    /// Random prompts of this length have no token of their own.
    NoTokens {
        /// The length, in tokens.
        input_len: usize,
        /// Tokens that the tokenizer adds to every text.
        added: usize,
    },
    /// A file cannot be read.
    UnreadableFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// A file does not have the format of the data set. The text names the file, the position and the cause.
    InvalidFile(String),
    /// A conversation has an image or a video. Only text can be sent.
    NotText {
        /// The file.
        path: PathBuf,
        /// The number of the conversation, from 1.
        conversation: usize,
    },
    /// A prompt of a file has no length of its answer, and no length was given for all.
    NoOutputLength {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Prompts are at least this long before their first line.
    ShortInput {
        /// The requested length, in tokens.
        input_len: usize,
        /// Tokens that every prompt begins with.
        least: usize,
    },
    /// No combination of the lines of a file is as short as requested.
    LongLines {
        /// The file.
        path: PathBuf,
        /// The requested length, in tokens.
        input_len: usize,
    },
    /// The model has no chat template.
    NoChatTemplate {
        /// Its tokenizer.
        tokenizer: PathBuf,
    },
    /// The chat template of a model failed.
    ChatTemplate {
        /// Its tokenizer.
        tokenizer: PathBuf,
        /// The cause.
        error: anyhow::Error,
    },
}

impl fmt::Display for PromptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTokens { input_len, added } => write!(
                f,
                "an input length of {input_len} leaves prompts without a token: the tokenizer adds {added} of its own"
            ),
            Self::UnreadableFile { path, .. } => write!(f, "cannot read {}", path.display()),
            Self::InvalidFile(text) => f.write_str(text),
            Self::NotText { path, conversation } => write!(
                f,
                "conversation {conversation} of {} has an image or a video, and only text can be sent",
                path.display()
            ),
            Self::NoOutputLength { path, line } => {
                write!(f, "{}, line {line}: no `output_tokens` of at least 1", path.display())
            }
            Self::ShortInput { input_len, least } => write!(
                f,
                "an input length of {input_len} is not more than the {least} tokens that every prompt begins with"
            ),
            Self::LongLines { path, input_len } => {
                write!(f, "no prompt of the lines of {} has at most {input_len} tokens", path.display())
            }
            Self::NoChatTemplate { tokenizer } => write!(f, "{} has no chat template next to it", tokenizer.display()),
            Self::ChatTemplate { tokenizer, .. } => {
                write!(f, "cannot apply the chat template of {}", tokenizer.display())
            }
        }
    }
}

impl Error for PromptError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::UnreadableFile { error, .. } => Some(error),
            Self::ChatTemplate { error, .. } => Some(error.as_ref()),
            _ => None,
        }
    }
}
