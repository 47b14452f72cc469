//! Which results become dashboard records.

use serde::{Deserialize, Serialize};

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
