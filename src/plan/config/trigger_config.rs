//! `trigger` in the config file: when to benchmark.

use super::scalar::{Scalar, valid};
use super::section::{Section, Walk};
use super::value_kinds::ListOf;
use crate::names;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerConfig {
    pub labels: Vec<String>,
    pub branches: Vec<String>,
}

impl Default for TriggerConfig {
    fn default() -> Self {
        Self { labels: vec!["perf-benchmarks".to_owned(), "ready".to_owned()], branches: vec!["main".to_owned()] }
    }
}

impl Section for TriggerConfig {
    fn keys(&mut self, walk: &mut impl Walk) {
        walk.key(
            "labels",
            "Labels that a pull request must all have, exact names. With an empty list every pull request runs.",
            &mut self.labels,
            ListOf { of: LABEL, item: None },
        );
        walk.key(
            "branches",
            "Branches where a push, a schedule or a manual run is benchmarked without labels, exact names.",
            &mut self.branches,
            ListOf { of: BRANCH, item: None },
        );
    }
}

pub(super) const LABEL: Scalar<String> = Scalar::text("a label", "^[A-Za-z0-9 ._:/+-]{1,50}$", |text| {
    let rule = "a label: expected 1 to 50 of the characters A-Z a-z 0-9, space and ._:/+-";
    valid(names::is_label(text), text, rule)
});

const BRANCH: Scalar<String> = Scalar::text("a branch", r"^(?!refs/)[^\s*?\[\\^~:]+$", |text| {
    let plain =
        !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "*?[\\^~:".contains(c));
    valid(plain && !text.starts_with("refs/"), text, "a branch: expected an exact name such as `main`")
});
