//! How a run was conducted: the part of `comparison.json` that describes the run itself.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::side::Side;
use crate::strategy::{Phase, Strategy};
use crate::untrusted::Untrusted;

/// How a run was arranged, why verdicts were withheld, and how long its phases took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Conduct {
    /// The strategy of the plan.
    pub strategy: Strategy,
    /// Why values are shown without a verdict, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Untrusted>,
    /// Cases that only the screening pass ran, because it saw no change in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub screened: Vec<Untrusted>,
    /// Notices that reports show before the results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Untrusted>,
    /// The phases that ran, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseTime>,
    /// Time of each side by activity, without the warm-up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spent: Vec<SideTime>,
    /// How long the run was expected to take; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<ExpectedTime>,
    /// Results of the searches for the largest concurrency.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<Found>,
    /// The slices of a repetition, by server, where their number was chosen or set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<ServerSlices>,
}

/// The expected time of a run, warm-up included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpectedTime {
    /// From the suite alone.
    pub planned: TimeRange,
    /// From the suite and the warm-up; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmed: Option<TimeRange>,
    /// GPUs or NUMA nodes that the run occupied.
    pub devices: u32,
}

/// Seconds of wall time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimeRange {
    /// Where the run ends as early as it can.
    pub least: f64,
    /// Where it takes all its pairs, or its budget.
    pub most: f64,
}

/// How often some cases of a server are measured during its life, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerSlices {
    /// How many cases they are.
    pub cases: usize,
    /// Slices of a repetition.
    pub slices: u32,
    /// Seconds that the server took to start when the number was chosen; absent where the plan sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_seconds: Option<f64>,
    /// Seconds that one slice of the cases took then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice_seconds: Option<f64>,
}

/// The result of the search for the largest concurrency within latency targets, for one test at one request rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub side: Side,
    pub test: Untrusted,
    /// Request rate as text (`inf`).
    pub request_rate: Untrusted,
    /// Target for TTFT, in milliseconds.
    pub ttft_ms: f64,
    /// Target for TPOT, in milliseconds.
    pub tpot_ms: f64,
    /// The largest concurrency that met both; absent if none did.
    pub largest: Option<u64>,
    /// The smallest concurrency that missed one; absent if none did.
    pub first_fail: Option<u64>,
}

/// Duration of a phase, both sides together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseTime {
    pub phase: Phase,
    /// Passes over the cases, of both sides.
    pub passes: u32,
    /// Seconds of wall time.
    pub seconds: f64,
}

/// Time of a side by activity, in seconds of wall time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideTime {
    pub side: Side,
    /// From the start of a server until it is ready.
    pub server_start: f64,
    /// Time of a client outside its measurement: imports, data sets, start and exit.
    pub client_start: f64,
    /// Measurement under load.
    pub measuring: f64,
    /// Everything else: stopping servers, writing files, waiting.
    pub other: f64,
}

impl Conduct {
    /// The cases that only the screening pass ran.
    pub fn screened(&self) -> HashSet<&Untrusted> {
        self.screened.iter().collect()
    }
}
