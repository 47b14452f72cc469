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

/// Which program measures a case. Two of them are never compared with one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeasuredBy {
    /// vllm-perf's load client, `vllm-load`.
    Native,
    /// `vllm bench ...` of the target.
    Vllm,
    /// vLLM's Rust client: `vllm bench serve` that hands over to it, or the program `vllm-bench`.
    VllmRs,
}

impl MeasuredBy {
    /// The name in files and texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Vllm => "vllm",
            Self::VllmRs => "vllm-rs",
        }
    }

    /// The words for people: the command that measures.
    pub fn command(self) -> &'static str {
        match self {
            Self::Native => "the native client",
            Self::Vllm => "vllm bench",
            Self::VllmRs => "vLLM's Rust client",
        }
    }
}
