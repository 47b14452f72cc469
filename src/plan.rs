//! The plan: everything that was decided before anything starts, as one value that is printed as JSON and read back.
//! `make_plan` makes it, `plan_text` shows it.

pub mod base;
pub mod build;
pub mod concurrency_search;
pub mod config;
pub mod device;
pub mod estimate;
pub mod image;
pub mod make_plan;
pub mod plan_text;
pub mod reproduce;
pub mod serve_flags;
pub mod suite;
pub mod target;
pub mod tier;
pub mod wheel;
pub mod wheel_name;

use std::path::PathBuf;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::{Device, Event, Skipped, TimeRange};

use crate::plan::concurrency_search::Search;
use crate::plan::suite::Case;
use crate::plan::target::Target;
use crate::plan::tier::TierName;

/// Schema of `plan.json`. Its structs ignore unknown fields: a newer minor version may add some.
pub const SCHEMA: &str = "vllm-perf/plan/v1";

/// A side of the comparison: a target, and the commit that it was built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidePlan {
    pub target: Target,
    /// Full hash, where it is known.
    pub commit: Option<String>,
    /// Words appended to the server command of this side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_args: Vec<String>,
}

/// Both sides. Without a base that runs, base is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sides {
    pub base: Option<SidePlan>,
    pub head: Option<SidePlan>,
}

impl Sides {
    /// The sides that there are, base first.
    pub fn present(&self) -> impl Iterator<Item = (Side, &SidePlan)> {
        let sides = [(Side::Base, &self.base), (Side::Head, &self.head)];
        sides.into_iter().filter_map(|(side, plan)| plan.as_ref().map(|plan| (side, plan)))
    }

    /// The images and wheels that are needed, base first; one where both sides are the same.
    pub fn builds(&self) -> Vec<&Target> {
        let is_build = |target: &&Target| matches!(target, Target::Image(_) | Target::Wheel(_));
        let mut builds: Vec<&Target> = self.present().map(|(_, side)| &side.target).filter(is_build).collect();
        builds.dedup();
        builds
    }

    /// Whether a side is an image.
    pub fn has_image(&self) -> bool {
        self.present().any(|(_, side)| matches!(side.target, Target::Image(_)))
    }
}

/// The base that replaces the wanted one, whose image or wheel is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// The commit whose image or wheel is missing.
    pub wanted: String,
    /// The commit that is base instead.
    pub used: String,
    /// How many commits it is behind.
    pub behind: u32,
}

/// The decision: benchmark this event, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    pub run: bool,
    /// For a skip, also what would make it run.
    pub reason: String,
}

/// Schema `vllm-perf/plan/v1`.
// 19 fields: the top-level keys of the schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Always [`SCHEMA`].
    pub schema: String,
    pub trigger: Trigger,
    pub event: Event,
    pub device: Device,
    pub sides: Sides,
    /// Output folder of an earlier run whose head is base; nothing of base runs then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_base: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Why commits are measured as images or as wheels, where a side is named by its commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_reason: Option<String>,
    /// Sentences for the reader of the report about how the plan was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// State of the images and wheels where it was asked: by name, the text that `plan` prints.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub images: IndexMap<String, String>,
    /// In the order in which they are measured.
    pub cases: Vec<Case>,
    pub skipped: Vec<Skipped>,
    /// The search for the largest concurrency, where it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// The selection of cases; `None` where all of them were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<TierName>,
    /// Longest time of the run, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// The expected time, from the suite alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<TimeRange>,
    #[serde(default)]
    pub strategy: Strategy,
    /// Repetitions a side: of all cases, of those that the screen selects, or up to the first look.
    pub pairs: u32,
    /// Seed of the order inside each pair.
    pub seed: u64,
}

#[cfg(test)]
impl Plan {
    /// A local plan of two pairs on the simulated vLLM without cases, for tests: they change what matters to them.
    pub fn sample() -> Self {
        let text = r#"{"schema": "vllm-perf/plan/v1", "trigger": {"run": true, "reason": ""},
            "event": {"provider": "local", "name": "local", "action": null, "changed_label": null, "repository": null,
              "branch": null, "head_sha": null, "base_sha": null, "base_branch": null, "pull_request": null,
              "labels": [], "labels_source": "flag", "fork": false},
            "device": {"name": "cpu", "type": "AMD_EPYC_2c", "count": 1, "image_suffix": "-cpu"},
            "sides": {"base": {"target": "sim", "commit": null}, "head": {"target": "sim", "commit": null}},
            "cases": [], "skipped": [], "pairs": 2, "seed": 1}"#;
        serde_json::from_str(text).unwrap()
    }
}
