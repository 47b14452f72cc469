//! How a run was conducted, as far as verdicts and readers need to know it. Kept in `comparison.json`.

use serde::{Deserialize, Serialize};

use crate::side::Side;
use crate::strategy::{Phase, Strategy};

/// How the runs were arranged, what held a verdict back, what ran and how long it took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Conduct {
    /// How the runs were to be arranged.
    pub strategy: Strategy,
    /// Why nothing may be called a change, whatever the numbers say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Cases that ran in the screen alone, because it saw nothing suspicious.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub screened: Vec<String>,
    /// What a reader must know before any number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// The phases that ran, in order, each with its time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseTime>,
    /// Where the time of each side went, the warm-up aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spent: Vec<SideTime>,
    /// What the searches for the largest concurrency found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<Found>,
}

/// What the search for the largest concurrency within latency targets found, for one test at one request rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The side.
    pub side: Side,
    /// Name of the test.
    pub test: String,
    /// Request rate as text (`inf`).
    pub request_rate: String,
    /// Highest TTFT, in milliseconds.
    pub ttft_ms: f64,
    /// Highest TPOT, in milliseconds.
    pub tpot_ms: f64,
    /// The largest concurrency that met both; absent where none did.
    pub largest: Option<u64>,
    /// The smallest that missed one; absent where none did.
    pub first_fail: Option<u64>,
}

/// How long a phase took, on both sides together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// The phase.
    pub phase: Phase,
    /// How many passes over cases, of both sides.
    pub passes: u32,
    /// Seconds of wall time.
    pub seconds: f64,
}

/// Where the time of a side went, in seconds of wall time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideTime {
    /// The side.
    pub side: Side,
    /// From starting a server to its first answer.
    pub server_start: f64,
    /// A client or benchmark at work before and after what it measures: imports, data sets, its own start and end.
    pub client_start: f64,
    /// Under load, measured.
    pub measuring: f64,
    /// All else: ending servers, writing files, waiting.
    pub other: f64,
}

impl Conduct {
    /// Whether a case ran in the screen alone.
    pub fn is_screened(&self, case: &str) -> bool {
        self.screened.iter().any(|screened| screened == case)
    }
}
