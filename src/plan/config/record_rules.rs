//! Which results become dashboard records, and how those are named.

use serde::{Deserialize, Serialize};

/// The names of records and of their objects: what a project writes must be spelled as its existing series are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spelling {
    /// The branch in a record, with `{branch}` for its name: one of [`BRANCH_FORMS`].
    pub branch: &'static str,
    pub model_key: KeyCase,
}

/// The forms of a branch that the dashboard's pages know.
pub const BRANCH_FORMS: [&str; 4] =
    ["{branch}", "refs/heads/{branch}", "{branch}({branch})", "{branch}(refs/heads/{branch})"];

impl Default for Spelling {
    fn default() -> Self {
        Self { branch: BRANCH_FORMS[0], model_key: KeyCase::Kept }
    }
}

impl Spelling {
    /// The branch as a record spells it.
    pub fn of_branch(&self, branch: &str) -> String {
        if branch.is_empty() { String::new() } else { self.branch.replace("{branch}", branch) }
    }
}

/// The letters of a model in the key of its object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyCase {
    /// As the record has them.
    #[default]
    Kept,
    /// In lower case.
    Lower,
}

impl KeyCase {
    /// The word in the config file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Lower => "lower",
        }
    }

    /// The model in a key.
    pub fn of_model(self, model: &str) -> String {
        match self {
            Self::Kept => model.to_owned(),
            Self::Lower => model.to_lowercase(),
        }
    }
}

/// The benchmark that vLLM's pages select records by.
pub const BENCHMARK: &str = "vLLM benchmark";

/// The character of a name that the dashboard's pages cannot show, if there is one.
pub fn unshown(name: &str) -> Option<char> {
    name.chars().find(|character| matches!(character, ';' | '+' | '<' | '>' | '"' | '\\') || character.is_control())
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rules {
    pub collision: Choice,
    /// Largest share of failed requests of a case that has records.
    pub failed_share: f64,
}

/// Of several cases that the dashboard cannot distinguish, the one that is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The one at the highest concurrency.
    #[default]
    Highest,
    /// The one at the lowest concurrency.
    Lowest,
}

impl Choice {
    /// The word in the config file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Highest => "highest",
            Self::Lowest => "lowest",
        }
    }
}
