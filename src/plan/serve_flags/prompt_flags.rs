//! Flags for the prompts: the data set, and the lengths of prompts and answers.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};
use vllm_load::prompts::{RandomPrompts, RangeRatio, Selection, SonnetLengths};

use super::flag_values::{DatasetName, json_object};

/// The data set, and which of its prompts are used.
#[derive(Debug, Clone, PartialEq, Args, Serialize)]
pub struct DatasetFlags {
    /// Data set.
    #[arg(long, default_value = "random")]
    pub dataset_name: DatasetName,
    /// File of the data set.
    #[arg(long, value_name = "FILE")]
    pub dataset_path: Option<PathBuf>,
    /// Number of requests; 0 is every line of a custom data set.
    #[arg(long, default_value_t = 1000)]
    pub num_prompts: usize,
    /// Seed of prompts and arrivals.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Fewer requests if the file has fewer prompts, instead of repeated prompts.
    #[arg(long)]
    pub no_oversample: bool,
    /// Prompts in the order of the file.
    #[arg(long)]
    pub disable_shuffle: bool,
    /// No effect: files are always read completely.
    #[arg(long)]
    pub no_stream: bool,
    /// Prompts of a custom data set without the chat template.
    #[arg(long)]
    pub skip_chat_template: bool,
    /// JSON object of variables for the chat template of a custom data set.
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub chat_template_kwargs: Option<Map<String, Value>>,
}

/// Lengths of prompts and answers, in tokens.
#[derive(Debug, Clone, PartialEq, Args, Serialize)]
pub struct LengthFlags {
    /// Tokens of every prompt, for all data sets.
    #[arg(long, value_name = "TOKENS")]
    pub input_len: Option<usize>,
    /// Tokens of every answer, for all data sets.
    #[arg(long, value_name = "TOKENS")]
    pub output_len: Option<usize>,
    /// Tokens of a random prompt after its prefix.
    #[arg(long, default_value_t = 1024, value_name = "TOKENS")]
    pub random_input_len: usize,
    /// Tokens of the answer to a random prompt.
    #[arg(long, default_value_t = 128, value_name = "TOKENS")]
    pub random_output_len: usize,
    /// Spread of both lengths, a number or JSON: 0.1 is from 90 % to 110 %.
    #[arg(long, default_value = "0.0", value_name = "RATIO")]
    pub random_range_ratio: RangeRatio,
    /// Tokens that all random prompts begin with.
    #[arg(long, default_value_t = 0, value_name = "TOKENS")]
    pub random_prefix_len: usize,
    /// Tokens of every answer of a ShareGPT data set, instead of those in the file.
    #[arg(long, value_name = "TOKENS")]
    pub sharegpt_output_len: Option<usize>,
    /// Tokens of every answer of a custom data set; -1 is the `output_tokens` of each line.
    #[arg(long, default_value_t = 256, allow_negative_numbers = true, value_name = "TOKENS")]
    pub custom_output_len: i64,
    /// Most tokens of a sonnet prompt.
    #[arg(long, default_value_t = 550, value_name = "TOKENS")]
    #[serde(skip)]
    pub sonnet_input_len: usize,
    /// Tokens of every answer of a sonnet data set.
    #[arg(long, default_value_t = 150, value_name = "TOKENS")]
    #[serde(skip)]
    pub sonnet_output_len: usize,
    /// Tokens of the lines that all sonnet prompts begin with.
    #[arg(long, default_value_t = 200, value_name = "TOKENS")]
    #[serde(skip)]
    pub sonnet_prefix_len: usize,
}

impl DatasetFlags {
    /// Which prompts of a file are used.
    pub fn selection(&self) -> Selection {
        Selection { prompts: self.num_prompts, seed: self.seed, shuffle: !self.disable_shuffle }
    }
}

impl LengthFlags {
    /// The random prompts of these lengths, with the number and the seed of `dataset`.
    pub fn random_prompts(&self, dataset: &DatasetFlags) -> RandomPrompts {
        RandomPrompts {
            prompts: dataset.num_prompts,
            input_len: self.random_input_len,
            output_len: self.random_output_len,
            prefix_len: self.random_prefix_len,
            range: self.random_range_ratio,
            seed: dataset.seed,
        }
    }

    /// Lengths of a sonnet data set.
    pub fn sonnet_lengths(&self) -> SonnetLengths {
        SonnetLengths { input: self.sonnet_input_len, output: self.sonnet_output_len, prefix: self.sonnet_prefix_len }
    }

    /// Tokens of every answer of a custom data set; `None` uses those of the file.
    pub fn custom_output_len(&self) -> Option<usize> {
        usize::try_from(self.custom_output_len).ok()
    }
}
