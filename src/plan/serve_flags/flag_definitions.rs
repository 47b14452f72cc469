//! The command: all flags of `vllm bench serve` that the native client has, with the names and defaults of vLLM 0.32.

use clap::Parser;
use serde::Serialize;

use super::flag_values::Timing;
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

impl Arguments {
    /// Whether answers are generated, and have tokens.
    pub fn generates(&self) -> bool {
        self.server.backend.api().generates()
    }

    /// The times of requests with statistics in the result: those that the command asks for, else vLLM's. What is not
    /// generated has no tokens, and no times of them.
    pub fn timings(&self) -> Vec<Timing> {
        let of_tokens = [Timing::Ttft, Timing::Tpot, Timing::Itl];
        match (&self.result.percentile_metrics, self.generates()) {
            (None, true) => of_tokens.to_vec(),
            (None, false) => vec![Timing::E2el],
            (Some(asked), true) => asked.clone(),
            (Some(asked), false) => asked.iter().copied().filter(|timing| !of_tokens.contains(timing)).collect(),
        }
    }
}
