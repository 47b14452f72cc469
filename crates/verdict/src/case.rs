//! What a test measures, and which program measures it.

use serde::{Deserialize, Serialize};

/// What a test measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `vllm serve` under load.
    Serving,
    /// `vllm bench latency`.
    Latency,
    /// `vllm bench startup`.
    Startup,
    /// `vllm bench throughput`.
    Throughput,
}

impl Kind {
    /// All kinds, in the order in which upstream runs them.
    pub const ALL: [Self; 4] = [Self::Serving, Self::Latency, Self::Startup, Self::Throughput];

    /// The word that test names begin with and file names carry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Latency => "latency",
            Self::Startup => "startup",
            Self::Throughput => "throughput",
        }
    }
}

/// Which program measures a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeasuredBy {
    /// vllm-perf's load client, `vllm-load`.
    Native,
    /// `vllm bench ...` of the target.
    Vllm,
}

impl MeasuredBy {
    /// The name in files and texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Vllm => "vllm",
        }
    }
}
