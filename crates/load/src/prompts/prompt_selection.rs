//! Which prompts of a file are used.

use super::prompt::Prompt;
use crate::generator::python::Random;

/// Which prompts of a file are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// Number of prompts.
    pub prompts: usize,
    /// Seed of their order.
    pub seed: u64,
    /// Whether their order is random.
    pub shuffle: bool,
}

/// Fills `prompts` up to the number of `selection` with prompts that are chosen from it at random.
pub fn repeat(prompts: &mut Vec<Prompt>, selection: &Selection) {
    let mut random = Random::new(selection.seed);
    let missing = selection.prompts.saturating_sub(prompts.len());
    let repeated: Vec<Prompt> = (0..missing).filter_map(|_| random.choice(prompts).cloned()).collect();
    prompts.extend(repeated);
}
