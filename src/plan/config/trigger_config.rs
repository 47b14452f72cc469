//! `trigger` in the config file: when to benchmark.

use super::scalar::{Scalar, Schema, one_of, valid};
use super::section::{Section, Walk};
use super::value_kinds::{ListOf, Optional};
use crate::names;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerConfig {
    pub labels: Vec<String>,
    pub branches: Vec<String>,
    pub forks: Forks,
    pub require_label_after_push: Option<bool>,
}

/// Which pull requests from forks are benchmarked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Forks {
    Never,
    /// Those with the labels.
    #[default]
    Labelled,
    /// Those with the labels and an approving review of their head.
    Approved,
}

impl Forks {
    const ALL: [Self; 3] = [Self::Never, Self::Labelled, Self::Approved];

    fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Labelled => "labelled",
            Self::Approved => "approved",
        }
    }
}

impl Default for TriggerConfig {
    fn default() -> Self {
        Self {
            labels: vec!["perf-benchmarks".to_owned(), "ready".to_owned()],
            branches: vec!["main".to_owned()],
            forks: Forks::default(),
            require_label_after_push: None,
        }
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
        walk.key(
            "forks",
            "Which pull requests from forks are benchmarked: `never`, `labelled`, or `approved`, whose head also has an approving review of a member.",
            &mut self.forks,
            FORKS,
        );
        walk.key(
            "require_label_after_push",
            "Whether a label counts only if a person other than the author set it after the last push; by default for pull requests from forks.",
            &mut self.require_label_after_push,
            Optional { value: YES_NO, none: "true for forks" },
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

const FORKS: Scalar<Forks> = Scalar {
    expecting: "never, labelled or approved",
    numbers: false,
    schema: Schema::OneOf(|| Forks::ALL.map(Forks::as_str).to_vec()),
    read: |text| one_of(text, "a way to treat forks", &Forks::ALL, Forks::as_str),
    show: |forks| forks.as_str().to_owned(),
};

const YES_NO: Scalar<bool> = Scalar {
    expecting: "true or false",
    numbers: false,
    schema: Schema::YesNo,
    read: |text| match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(super::scalar::not(text, "true or false")),
    },
    show: bool::to_string,
};
