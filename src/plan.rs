//! The plan: everything that was decided before anything starts, as one value that prints as JSON and reads back.

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::event::Event;
use crate::suite::{Case, Skipped};
use crate::target::Target;

/// Schema of `plan.json`.
pub const SCHEMA: &str = "vllm-perf/plan/v1";

/// Base or head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// What head is measured against.
    Base,
    /// What the event is about.
    Head,
}

impl Side {
    /// Folder name and word in texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Head => "head",
        }
    }
}

/// A side of the comparison: a target, and the commit that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SidePlan {
    /// What serves.
    pub target: Target,
    /// The commit, where it is known.
    pub commit: Option<String>,
    /// Words appended to the server command of this side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_args: Vec<String>,
}

/// Both sides. There is no base where the user said `--base none`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sides {
    /// What head is measured against.
    pub base: Option<SidePlan>,
    /// What is measured.
    pub head: Option<SidePlan>,
}

/// The decision: benchmark this event, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// Whether to benchmark.
    pub run: bool,
    /// Why; for a skip, also what would make it run.
    pub reason: String,
}

/// Schema `vllm-perf/plan/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The decision.
    pub trigger: Trigger,
    /// What happened.
    pub event: Event,
    /// What is measured on.
    pub device: Device,
    /// What is compared.
    pub sides: Sides,
    /// What is measured, in order.
    pub cases: Vec<Case>,
    /// What is left out, and why.
    pub skipped: Vec<Skipped>,
    /// How many repetitions a side, interleaved.
    pub pairs: u32,
    /// Seed of the order inside each pair and of the request schedules.
    pub seed: u64,
}
