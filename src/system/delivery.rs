//! The outcome of publishing one item.

use std::fmt;

/// The outcome of publishing one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Published: what, or where it is.
    Done(String),
    /// Left out on purpose: why.
    Left(String),
    /// Not published although it should be: why.
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
