//! The two sides of a comparison.

use serde::{Deserialize, Serialize};

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
