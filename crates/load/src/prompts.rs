//! Prompts: the input of each request and the length of its answer. For the same seed, file and tokenizer they are those of
//! `vllm bench serve`.

mod chat_template;
mod custom;
mod input_file;
mod prompt;
mod prompt_error;
mod prompt_file;
mod prompt_selection;
mod random;
mod sharegpt;
mod sonnet;
mod tokenizer;

pub use custom::{check_custom, custom};
pub use prompt::{Content, Prompt};
pub use prompt_error::PromptError;
pub use prompt_selection::{Selection, repeat};
pub use random::{RandomPrompts, RangeRatio, random};
pub use sharegpt::sharegpt;
pub use sonnet::{SonnetLengths, sonnet};
pub use tokenizer::Tokenizer;
pub(crate) use tokenizer::open_encoder;
