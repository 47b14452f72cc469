//! `tiers` in the config file: what a pull request and what main measures.

use std::time::Duration;

use regex::Regex;
use vllm_verdict::strategy::{MOST_PAIRS, Strategy};

use super::scalar::{Scalar, Schema, valid};
use super::section::{Section, Walk};
use super::trigger_config::LABEL;
use super::value_kinds::Optional;
use super::{DURATION, STRATEGY};

/// The selections of cases, each with its pairs and budget.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TiersConfig {
    pub pr: TierConfig,
    pub full: TierConfig,
}

/// What the file says of a tier. `plan/tier.rs` has the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TierConfig {
    /// A regular expression that names of cases match anywhere.
    pub only: Option<String>,
    pub strategy: Option<Strategy>,
    pub pairs: Option<u32>,
    pub budget: Option<Duration>,
    pub label: Option<String>,
}

impl Section for TiersConfig {
    fn keys(&mut self, walk: &mut impl Walk) {
        walk.section("pr", "What pull requests measure.", &mut self.pr);
        walk.section(
            "full",
            "What pushes, schedules and manual runs measure, and pull requests with its label.",
            &mut self.full,
        );
    }
}

impl Section for TierConfig {
    fn keys(&mut self, walk: &mut impl Walk) {
        walk.key(
            "only",
            "Cases of the tier: a regular expression that their names match anywhere.",
            &mut self.only,
            Optional { value: PATTERN, none: "all cases" },
        );
        walk.key(
            "strategy",
            "How the runs of the tier are arranged.",
            &mut self.strategy,
            Optional { value: STRATEGY, none: "sequential for pr, else that of `strategy`" },
        );
        walk.key(
            "pairs",
            "Repetitions a side; sequential: at most.",
            &mut self.pairs,
            Optional { value: PAIRS, none: "those of the strategy" },
        );
        walk.key(
            "budget",
            "Longest time of a run: `45m`. Of the cases, those are measured that are expected to fit, in the order of the suite.",
            &mut self.budget,
            Optional { value: DURATION, none: "45m for pr, else no limit" },
        );
        walk.key(
            "label",
            "Label of a pull request that is measured in this tier.",
            &mut self.label,
            Optional { value: LABEL, none: "perf-full for full" },
        );
    }
}

const PATTERN: Scalar<String> = Scalar::text("a regular expression", r"\S", |text| {
    let is_pattern = Regex::new(text).is_ok() && !text.trim().is_empty() && !text.contains(char::is_control);
    valid(is_pattern, text, "a regular expression")
});

const PAIRS: Scalar<u32> = Scalar {
    expecting: "a number of pairs",
    numbers: true,
    schema: Schema::Pattern("^([1-9]|10)$"),
    read: |text| {
        let pairs = text.parse().ok().filter(|pairs| (1..=MOST_PAIRS).contains(pairs));
        valid(pairs.is_some(), text, "a number of pairs: expected 1 to 10").map(|_| pairs.unwrap_or(1))
    },
    show: u32::to_string,
};
