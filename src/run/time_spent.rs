//! How the time of a run was spent: one line for each pass in `passes.jsonl`, and sums.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use vllm_verdict::case::Kind;
use vllm_verdict::number::plural;
use vllm_verdict::side::Side;
use vllm_verdict::strategy::Phase;
use vllm_verdict::v1::{PhaseTime, SideTime, TimeRange};

use crate::exit::Classify;
use crate::system::output;
use crate::system::regular_file::{self, RESULT_LIMIT};

/// How the time of one pass was spent, in seconds of wall time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// From the start of servers until they are ready.
    pub server_start: f64,
    /// Clients and benchmarks before and after they measure.
    pub client_start: f64,
    /// Clients and benchmarks while they measure.
    pub measuring: f64,
    /// The whole pass.
    pub total: f64,
}

/// One line of `passes.jsonl`. A pass that was interrupted has a line for each of its parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PassTime {
    pub phase: Phase,
    pub pair: u32,
    pub side: Side,
    /// Servers that were started.
    pub servers: u32,
    /// Case runs: a case has one for each of its slices.
    pub cases: u32,
    #[serde(flatten)]
    pub spent: Spent,
    /// Whether its results count.
    pub kept: bool,
    /// After the last warm-up pass: how long the whole run is expected to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<TimeRange>,
}

/// The times of all passes, kept in a file.
#[derive(Debug)]
pub struct Times {
    path: PathBuf,
    passes: Vec<PassTime>,
}

impl Times {
    /// Reads the times of an interrupted run. A line that cannot be read is dropped: times are not results.
    pub fn open(path: &Path) -> Self {
        let bytes = regular_file::bytes(path, RESULT_LIMIT).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let passes = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Self { path: path.to_owned(), passes }
    }

    /// Adds a pass.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, pass: PassTime) -> Result<()> {
        self.passes.push(pass);
        self.write()
    }

    /// Notes how long the run is expected to take, after the last pass so far.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn expect(&mut self, expected: TimeRange) -> Result<()> {
        if let Some(last) = self.passes.last_mut() {
            last.expected = Some(expected);
        }
        self.write()
    }

    /// How long the run was expected to take after its warm-up.
    pub fn expected(&self) -> Option<TimeRange> {
        self.passes.iter().find_map(|pass| pass.expected)
    }

    fn write(&self) -> Result<()> {
        let mut text = String::new();
        for pass in &self.passes {
            text.push_str(&serde_json::to_string(pass).context("cannot write the time of a pass")?);
            text.push('\n');
        }
        output::write(&self.path, text.as_bytes()).world()
    }

    /// The passes, in the order in which they ran.
    pub fn passes(&self) -> &[PassTime] {
        &self.passes
    }

    /// How long each phase took, in order.
    pub fn phases(&self) -> Vec<PhaseTime> {
        let mut phases: Vec<PhaseTime> = Vec::new();
        for PassTime { phase, spent, .. } in &self.passes {
            match phases.iter_mut().find(|known| known.phase == *phase) {
                Some(known) => {
                    known.passes += 1;
                    known.seconds += spent.total;
                }
                None => phases.push(PhaseTime { phase: *phase, passes: 1, seconds: spent.total }),
            }
        }
        phases.sort_by_key(|phase| phase.phase);
        phases
    }

    /// How the time of each side was spent, without the warm-up. Measuring in a void pass is other time.
    pub fn sides(&self) -> Vec<SideTime> {
        [Side::Base, Side::Head]
            .into_iter()
            .filter_map(|side| {
                let passes = || self.passes.iter().filter(|pass| pass.side == side && pass.phase != Phase::WarmUp);
                let sum = |of: fn(&PassTime) -> f64| passes().map(of).sum::<f64>();
                let server_start = sum(|pass| pass.spent.server_start);
                let client_start = sum(|pass| pass.spent.client_start);
                let measuring = sum(|pass| if pass.kept { pass.spent.measuring } else { 0.0 });
                let other = (sum(|pass| pass.spent.total) - server_start - client_start - measuring).max(0.0);
                passes().next().map(|_| SideTime { side, server_start, client_start, measuring, other })
            })
            .collect()
    }
}

/// What is wrong with the times of an interrupted run, if anything is.
pub fn damage(path: &Path) -> Option<String> {
    let shown = path.display();
    match regular_file::bytes(path, RESULT_LIMIT) {
        Ok(bytes) => {
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let damaged = lines.filter(|line| serde_json::from_slice::<PassTime>(line).is_err()).count();
            let lines = plural(damaged, "line");
            (damaged > 0).then(|| format!("`{shown}`: {lines} cannot be read; the report's times are without them"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("`{shown}` cannot be read ({error}); the report's times are without it")),
    }
}

/// How long a benchmark measured, in seconds, from its result; `None` where the result does not have it.
pub fn measured(kind: Kind, result: &str) -> Option<f64> {
    #[derive(Deserialize)]
    struct Durations {
        duration: Option<f64>,
        elapsed_time: Option<f64>,
        #[serde(default)]
        latencies: Vec<f64>,
    }
    let durations: Durations = serde_json::from_str(result).ok()?;
    match kind {
        Kind::Serving => durations.duration,
        Kind::Throughput => durations.elapsed_time,
        Kind::Latency => Some(durations.latencies.iter().sum()),
        // All of its time is starting, which is what it measures.
        Kind::Startup => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(phase: Phase, side: Side, measuring: f64, total: f64) -> PassTime {
        let spent = Spent { server_start: 2.0, client_start: 1.0, measuring, total };
        PassTime { phase, pair: 1, side, servers: 1, cases: 2, spent, kept: true, expected: None }
    }

    #[test]
    fn times_are_summed_by_phase_and_by_side_over_an_interruption() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passes.jsonl");
        let mut times = Times::open(&path);
        times.add(pass(Phase::WarmUp, Side::Base, 1.0, 10.0)).unwrap();
        times.add(pass(Phase::Pairs, Side::Base, 5.0, 9.0)).unwrap();
        let mut times = Times::open(&path);
        times.add(PassTime { kept: false, ..pass(Phase::Pairs, Side::Head, 6.0, 11.0) }).unwrap();
        times.add(pass(Phase::Pairs, Side::Head, 5.0, 9.5)).unwrap();

        let phases: Vec<_> = times.phases().iter().map(|phase| (phase.phase, phase.passes, phase.seconds)).collect();
        assert_eq!(phases, [(Phase::WarmUp, 1, 10.0), (Phase::Pairs, 3, 29.5)]);
        let time = |side, server_start, client_start, measuring, other| SideTime {
            side,
            server_start,
            client_start,
            measuring,
            other,
        };
        assert_eq!(times.sides(), [time(Side::Base, 2.0, 1.0, 5.0, 1.0), time(Side::Head, 4.0, 2.0, 5.0, 9.5)]);
    }

    #[test]
    fn a_damaged_line_of_the_times_is_named_and_the_others_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passes.jsonl");
        assert_eq!(damage(&path), None);
        let mut times = Times::open(&path);
        times.add(pass(Phase::Pairs, Side::Base, 1.0, 10.0)).unwrap();
        times.add(pass(Phase::Pairs, Side::Head, 1.0, 10.0)).unwrap();
        assert_eq!(damage(&path), None);
        let whole = std::fs::read(&path).unwrap();
        for cut in [&whole[..whole.len() - 5], &[&whole[..], b"\0\0"].concat(), &[&whole[..], b"\xff\n"].concat()] {
            output::write(&path, cut).unwrap();
            assert!(damage(&path).unwrap().contains("1 line cannot be read"), "{:?}", damage(&path));
            assert!(!Times::open(&path).passes().is_empty());
        }
    }

    #[test]
    fn the_measuring_time_comes_from_the_result() {
        assert_eq!(measured(Kind::Serving, r#"{"duration": 12.5, "completed": 3}"#), Some(12.5));
        assert_eq!(measured(Kind::Latency, r#"{"avg_latency": 1.5, "latencies": [1, 2]}"#), Some(3.0));
        assert_eq!(measured(Kind::Throughput, r#"{"elapsed_time": 7.0}"#), Some(7.0));
        assert_eq!(measured(Kind::Startup, "{}"), None);
    }
}
