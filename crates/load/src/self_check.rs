//! What the client measures of itself: how late it acts, and how much of its core it needs. A client that is late
//! measures itself; then the result says so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use crate::clock::Clock;
use crate::numbers::{percentile, sorted};

/// How often the client looks at how late it is. Not a divisor of any usual pace, so that it does not fall in step.
const PROBE: Duration = Duration::from_micros(7_300);

/// Largest p99 of a lag, as a share of the median TTFT, that goes without a warning.
const LAG_SHARE: f64 = 0.05;

/// Largest share of its core that the client may need without a warning.
const CPU_SHARE: f64 = 0.9;

/// Lags of one load, in seconds, as they are seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// From when a socket could have been read to when it would have been.
    read: Mutex<Vec<f64>>,
    /// From when a request could have been sent to when it was.
    send: Mutex<Vec<f64>>,
}

impl Seen {
    /// Notes that a request was sent so many seconds after it could have been.
    pub fn sent(&self, seconds: f64) {
        self.send.lock().unwrap_or_else(PoisonError::into_inner).push(seconds);
    }

    /// Looks at the lag of reading until it is dropped: whatever is late for a known time is late for a socket too.
    pub async fn probe(self: Arc<Self>, clock: Arc<Clock>) {
        let mut due = Instant::now();
        loop {
            due = (due + PROBE).max(Instant::now());
            clock.until(due).await;
            let late = due.elapsed().as_secs_f64();
            self.read.lock().unwrap_or_else(PoisonError::into_inner).push(late);
        }
    }
}

/// The CPU time of this thread so far, or of the process where the system does not tell.
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

/// How late something was, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    fn of(seconds: &[f64]) -> Option<Self> {
        let sorted = sorted(seconds);
        let max = sorted.last()? * 1000.0;
        Some(Self { p50: percentile(&sorted, 50.0) * 1000.0, p99: percentile(&sorted, 99.0) * 1000.0, max })
    }
}

/// What the client measured of itself while a load went on. Its fields are keys of the result beside upstream's.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SelfCheck {
    /// From when an answer could have been read to when it would have been; `None` for loads that were too short to say.
    pub client_lag_ms: Option<Spread>,
    /// From when a request was due and had a place to when it was sent; `None` where nothing had to wait.
    pub client_send_lag_ms: Option<Spread>,
    /// CPU time of the client over the time that the load took. The client has one thread: 1 is all that it can have.
    pub client_cpu_share: f64,
}

impl SelfCheck {
    /// Sums up a load of `seconds` that took `cpu`.
    pub fn new(seen: &Seen, cpu: Duration, seconds: f64) -> Self {
        let spread = |lags: &Mutex<Vec<f64>>| Spread::of(&lags.lock().unwrap_or_else(PoisonError::into_inner));
        let client_cpu_share = if seconds > 0.0 { cpu.as_secs_f64() / seconds } else { 0.0 };
        Self { client_lag_ms: spread(&seen.read), client_send_lag_ms: spread(&seen.send), client_cpu_share }
    }

    /// Why the numbers may be the client's and not the server's, given the median TTFT in milliseconds.
    pub fn warnings(&self, median_ttft_ms: f64) -> Vec<String> {
        let late = |what: &str, spread: Option<Spread>| {
            let p99 = spread?.p99;
            (p99 > LAG_SHARE * median_ttft_ms).then(|| {
                format!("the client {what} up to {p99:.2} ms late (p99), and the median TTFT is {median_ttft_ms:.2} ms")
            })
        };
        let share = self.client_cpu_share;
        let busy = (share > CPU_SHARE).then(|| format!("the client needed {:.0} % of its core", share * 100.0));
        [late("read", self.client_lag_ms), late("sent", self.client_send_lag_ms), busy].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_late_or_busy_says_so_and_one_that_is_not_is_quiet() {
        let spread = |p99| Some(Spread { p50: 0.1, p99, max: 9.0 });
        let lag = |read, send, cpu| SelfCheck {
            client_lag_ms: spread(read),
            client_send_lag_ms: spread(send),
            client_cpu_share: cpu,
        };
        assert_eq!(lag(4.9, 5.0, 0.9).warnings(100.0), Vec::<String>::new());
        assert_eq!(SelfCheck::default().warnings(0.0), Vec::<String>::new());
        insta::assert_snapshot!(lag(5.5, 7.25, 0.97).warnings(100.0).join("\n"), @r"
        the client read up to 5.50 ms late (p99), and the median TTFT is 100.00 ms
        the client sent up to 7.25 ms late (p99), and the median TTFT is 100.00 ms
        the client needed 97 % of its core
        ");
    }

    #[test]
    fn lags_are_summed_up_in_milliseconds() {
        let seen = Seen::default();
        (1..=101).for_each(|n| seen.sent(f64::from(n) / 1000.0));
        let lag = SelfCheck::new(&seen, Duration::from_secs(1), 4.0);
        assert_eq!((lag.client_lag_ms, lag.client_cpu_share), (None, 0.25));
        let send = lag.client_send_lag_ms.unwrap();
        assert_eq!((send.p50.round(), send.p99.round(), send.max), (51.0, 100.0, 101.0));
    }
}
