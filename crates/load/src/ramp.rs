//! A request rate that grows during the load.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::arrivals::gaps;

/// A request rate that grows during the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RampUp {
    /// How the rate grows.
    pub strategy: RampUpStrategy,
    /// Rate at the first request, in requests a second; at least 1.
    pub start: u32,
    /// Rate at the last request, in requests a second; at least `start`.
    pub end: u32,
}

impl RampUp {
    /// The rate at request `index` of `count`, in requests a second.
    pub fn rate(&self, index: usize, count: usize) -> f64 {
        let (start, end) = (f64::from(self.start), f64::from(self.end));
        let progress = index as f64 / count.saturating_sub(1).max(1) as f64;
        match self.strategy {
            RampUpStrategy::Linear => start + (end - start) * progress,
            RampUpStrategy::Exponential => start * (end / start).powf(progress),
        }
    }

    /// Due times of `count` requests from the start of the load; gaps as in [`arrivals`](crate::arrivals()), but not
    /// scaled to a total duration.
    pub fn arrivals(&self, count: usize, burstiness: f64, seed: u64) -> Vec<Duration> {
        let gaps = gaps(count, burstiness, seed);
        let gaps = gaps.iter().enumerate().map(|(index, gap)| gap / self.rate(index, count));
        gaps.scan(0.0, |due, gap| {
            *due += gap;
            Some(crate::arrivals::due_time(*due))
        })
        .collect()
    }

    /// Every whole rate, and the index of the first of `count` requests that reached it (`None` for the rate at the
    /// start). These are vLLM's "rate change events".
    pub fn changes(&self, count: usize) -> Vec<(u32, Option<usize>)> {
        let mut changes = vec![(self.start, None)];
        let mut last = self.start;
        for index in 0..count {
            let now = self.rate(index, count) as u32;
            changes.extend((last + 1..=now).map(|rate| (rate, Some(index))));
            last = last.max(now);
        }
        changes
    }
}

/// How the request rate grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RampUpStrategy {
    /// By the same amount with each request.
    Linear,
    /// By the same factor with each request.
    Exponential,
}

impl RampUpStrategy {
    /// All strategies.
    pub const ALL: [Self; 2] = [Self::Linear, Self::Exponential];

    /// vLLM's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Exponential => "exponential",
        }
    }
}

impl fmt::Display for RampUpStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: RampUp = RampUp { strategy: RampUpStrategy::Linear, start: 2, end: 6 };
    const EXPONENTIAL: RampUp = RampUp { strategy: RampUpStrategy::Exponential, start: 1, end: 16 };

    #[test]
    fn rates_go_from_the_first_to_the_last() {
        let rates = |ramp: RampUp| (0..5).map(|index| ramp.rate(index, 5)).collect::<Vec<_>>();
        assert_eq!(rates(LINEAR), [2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(rates(EXPONENTIAL), [1.0, 2.0, 4.0, 8.0, 16.0]);
        assert_eq!(LINEAR.rate(0, 1), 2.0);
    }

    #[test]
    fn gaps_shrink_as_the_rate_grows() {
        let due: Vec<f64> = LINEAR.arrivals(3, f64::INFINITY, 0).iter().map(Duration::as_secs_f64).collect();
        let expected = [0.5, 0.75, 0.75 + 1.0 / 6.0];
        assert!(due.iter().zip(expected).all(|(due, expected)| (due - expected).abs() < 1e-6), "{due:?}");
    }

    #[test]
    fn every_whole_rate_is_one_change() {
        assert_eq!(LINEAR.changes(3), [(2, None), (3, Some(1)), (4, Some(1)), (5, Some(2)), (6, Some(2))]);
        assert_eq!(EXPONENTIAL.changes(2).len(), 16);
    }
}
