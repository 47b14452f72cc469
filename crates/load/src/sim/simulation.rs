//! What the simulated vLLM is: its model, its pace, and its faults.

use std::path::PathBuf;

use super::fault::Fault;
use super::pace::Pace;

/// A simulated vLLM.
#[derive(Debug, Clone, Default)]
pub struct Simulation {
    /// Its timing.
    pub pace: Pace,
    /// The name of its model. Requests for another model are refused.
    pub model: String,
    /// Its faults.
    pub faults: Vec<Fault>,
    /// The folder of the model, whose tokenizer counts the tokens of prompts; `None`: a word counts as a token.
    pub model_folder: Option<PathBuf>,
    /// The file for the true times of its answers.
    pub trace: Option<PathBuf>,
}

impl Simulation {
    /// A simulation without faults, tokenizer and trace.
    pub fn new(pace: Pace, model: impl Into<String>) -> Self {
        Self { pace, model: model.into(), ..Self::default() }
    }
}
