//! What the client measures of itself: how late it acts, and how much of its core it uses.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use crate::clock::Clock;
use crate::numbers::{percentile, sorted};
use crate::turns::Turns;

/// Interval at which the lag of reading is sampled. It divides no usual token interval, so that it is not in phase with
/// tokens.
const PROBE: Duration = Duration::from_micros(7_300);

/// Largest p99 of a lag without a warning, as a share of the median latency.
const MOST_LAG_SHARE: f64 = 0.05;

/// Largest share of its core without a warning.
const MOST_CPU_SHARE: f64 = 0.9;

/// Lags of one load, in seconds.
#[derive(Debug, Default)]
pub struct LagSamples {
    /// From when a socket could have been read to when it would have been read.
    read: Mutex<Vec<f64>>,
    /// From when a request could have been sent to when it was sent.
    send: Mutex<Vec<f64>>,
}

impl LagSamples {
    /// Adds a request that was sent `seconds` after it could have been sent.
    pub fn add_send(&self, seconds: f64) {
        self.send.lock().unwrap_or_else(PoisonError::into_inner).push(seconds);
    }

    /// Samples the lag of reading until it is dropped: a timer and a socket wake the client in the same way, so the
    /// lateness at a known time is that of a read.
    pub async fn probe(self: Arc<Self>, clock: Arc<Clock>, turns: Arc<Turns>) {
        let mut due = Instant::now();
        loop {
            due = (due + PROBE).max(Instant::now());
            clock.sleep_until(due).await;
            turns.now();
            let late = due.elapsed().as_secs_f64();
            self.read.lock().unwrap_or_else(PoisonError::into_inner).push(late);
        }
    }
}

/// The CPU time of this thread so far; of the process on systems that do not count it for each thread.
pub fn cpu_time() -> Duration {
    #[cfg(target_os = "linux")]
    let who = UsageWho::RUSAGE_THREAD;
    #[cfg(not(target_os = "linux"))]
    let who = UsageWho::RUSAGE_SELF;
    let Ok(usage) = getrusage(who) else { return Duration::ZERO };
    let microseconds =
        |time: nix::sys::time::TimeVal| u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or_default();
    Duration::from_micros(microseconds(usage.user_time()) + microseconds(usage.system_time()))
}

/// Percentiles of a lag, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LagSummary {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The maximum.
    pub max: f64,
}

impl LagSummary {
    fn new(seconds: &[f64]) -> Option<Self> {
        let sorted = sorted(seconds);
        let max = sorted.last()? * 1000.0;
        Some(Self { p50: percentile(&sorted, 50.0) * 1000.0, p99: percentile(&sorted, 99.0) * 1000.0, max })
    }
}

/// What the client measured of itself during a load. It serializes to three keys of a result, next to those of
/// `vllm bench serve`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SelfCheck {
    /// How late the client read answers; `None` for a load that was too short for a sample.
    pub client_lag_ms: Option<LagSummary>,
    /// How late the client sent requests that were due and within the concurrency limit; `None` if all requests were due
    /// at once and none had to wait.
    pub client_send_lag_ms: Option<LagSummary>,
    /// CPU time of the client divided by the duration of the load. The client has one thread, so 1 is the maximum.
    pub client_cpu_share: f64,
    /// Whether the system told when the bytes of every answer arrived. Otherwise times are those of the reads.
    #[serde(skip)]
    pub knows_arrivals: bool,
    /// Whether late reads may hide gaps between tokens.
    #[serde(skip)]
    pub hides_gaps: bool,
}

impl SelfCheck {
    /// Summarizes the samples of a load that took `seconds` and the CPU time `cpu`.
    pub(crate) fn new(samples: &LagSamples, turns: &Turns, cpu: Duration, seconds: f64) -> Self {
        let spread = |lags: &Mutex<Vec<f64>>| LagSummary::new(&lags.lock().unwrap_or_else(PoisonError::into_inner));
        let client_cpu_share = if seconds > 0.0 { cpu.as_secs_f64() / seconds } else { 0.0 };
        let (client_lag_ms, client_send_lag_ms) = (spread(&samples.read), spread(&samples.send));
        Self {
            client_lag_ms,
            client_send_lag_ms,
            client_cpu_share,
            knows_arrivals: turns.knows_arrivals(),
            hides_gaps: turns.hides_gaps(),
        }
    }

    /// Warnings that the client did not do what was asked of it, given the median latency in milliseconds: it sent late from
    /// 5 % of the median latency at the 99th percentile on, or it used more than 90 % of its core.
    pub fn warnings(&self, median_latency_ms: f64) -> Vec<String> {
        let late = self.client_send_lag_ms.filter(|lag| lag.p99 > MOST_LAG_SHARE * median_latency_ms).map(|lag| {
            let p99 = lag.p99;
            format!("the client sent up to {p99:.2} ms late (p99), and the median latency is {median_latency_ms:.2} ms")
        });
        let share = self.client_cpu_share;
        let busy = (share > MOST_CPU_SHARE).then(|| format!("the client used {:.0} % of its core", share * 100.0));
        [late, busy].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_late_or_busy_has_warnings_and_others_have_none() {
        let spread = |p99| Some(LagSummary { p50: 0.1, p99, max: 9.0 });
        let lag = |read, send, cpu| SelfCheck {
            client_lag_ms: spread(read),
            client_send_lag_ms: spread(send),
            client_cpu_share: cpu,
            knows_arrivals: true,
            hides_gaps: false,
        };
        assert_eq!(lag(4.9, 5.0, 0.9).warnings(100.0), Vec::<String>::new());
        assert_eq!(SelfCheck::default().warnings(0.0), Vec::<String>::new());
        insta::assert_snapshot!(lag(5.5, 7.25, 0.97).warnings(100.0).join("\n"), @r"
        the client sent up to 7.25 ms late (p99), and the median latency is 100.00 ms
        the client used 97 % of its core
        ");
    }

    #[test]
    fn lags_are_summarized_in_milliseconds() {
        let samples = LagSamples::default();
        (1..=101).for_each(|n| samples.add_send(f64::from(n) / 1000.0));
        let lag = SelfCheck::new(&samples, &Turns::start(), Duration::from_secs(1), 4.0);
        assert_eq!((lag.client_lag_ms, lag.client_cpu_share), (None, 0.25));
        let send = lag.client_send_lag_ms.unwrap();
        assert_eq!((send.p50.round(), send.p99.round(), send.max), (51.0, 100.0, 101.0));
    }
}
