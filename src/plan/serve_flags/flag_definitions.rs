//! The command: all flags of `vllm bench serve` that the native client has, with the names and defaults of vLLM 0.32.

use clap::Parser;
use serde::Serialize;

use super::load_flags::{LoadFlags, SamplingFlags};
use super::prompt_flags::{DatasetFlags, LengthFlags};
use super::result_flags::ResultFlags;
use super::server_flags::{ModelFlags, ServerFlags};

/// The command. It serializes to the list of arguments in the `.pytorch.json` of vLLM: headers are hidden, infinity is
/// `inf`, and a missing value is null.
#[derive(Debug, Clone, PartialEq, Parser, Serialize)]
#[command(name = "bench serve", no_binary_name = true, args_override_self = true)]
pub struct Arguments {
    #[command(flatten)]
    #[serde(flatten)]
    pub server: ServerFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub model: ModelFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub dataset: DatasetFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub lengths: LengthFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub load: LoadFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub sampling: SamplingFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub result: ResultFlags,
}
