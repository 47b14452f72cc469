//! What became of one thing that was to be published.

use std::fmt;

/// What became of one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Written: what, or where it can be seen.
    Done(String),
    /// Not written on purpose: why.
    Left(String),
    /// Not written although it should be: why.
    Failed(String),
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(what) => write!(f, "{what}"),
            Self::Left(why) => write!(f, "left out: {why}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

impl From<anyhow::Result<Delivery>> for Delivery {
    fn from(result: anyhow::Result<Delivery>) -> Self {
        result.unwrap_or_else(|error| Self::Failed(format!("{error:#}")))
    }
}
