//! Which results become dashboard records.
use serde::Deserialize;
use serde::Serialize;

/// Which cases have records.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rules {
    /// Which of the cases that the dashboard cannot tell apart.
    pub collision: Choice,
    /// Share of failed requests above which a case has none.
    pub failed_share: f64,
}

/// Which of the cases is published that differ only in what the dashboard does not read.
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
    /// As the config file says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Highest => "highest",
            Self::Lowest => "lowest",
        }
    }
}
