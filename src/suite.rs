//! vLLM's test files become cases. Pure: files come in as texts, commands go out as argument vectors.

use indexmap::IndexMap;
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

/// A command: its words, and what it adds to the environment, both in upstream's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments, never through a shell.
    pub argv: Vec<String>,
    /// Variables of the test file.
    pub env: IndexMap<String, String>,
}

/// One measurement of the suite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Unique name; result files carry it.
    pub name: String,
    /// What it measures.
    pub kind: Kind,
    /// Name of the test that it comes from.
    pub test: String,
    /// Model, as the test file names it.
    pub model: String,
    /// Upstream's request rate for a serving case: a number as text, or `inf`.
    pub request_rate: Option<String>,
    /// Concurrency of a serving case.
    pub max_concurrency: Option<u64>,
    /// The server that a serving case needs. Cases with equal servers share one.
    pub server: Option<Command>,
    /// The client, or the whole benchmark for the other kinds. Results go to `results/`, which a run replaces.
    pub client: Command,
    /// Who measures it.
    pub measured_by: MeasuredBy,
}

/// Which program measures a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeasuredBy {
    /// Our own load client.
    Native,
    /// `vllm bench ...` of the target.
    Vllm,
}

/// A test or a kind that is left out, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// Name of the test, or the kind when a whole file is left out.
    pub name: String,
    /// Why, and what would make it run.
    pub reason: String,
}
