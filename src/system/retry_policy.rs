//! How often a request is repeated, and how long that may take.

use std::time::Duration;

/// Limits for the attempts of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The unit of all waits: a second, less in tests.
    pub second: Duration,
    /// Most attempts of one request.
    pub attempts: u32,
    /// Most units of waiting in all.
    pub total: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { second: Duration::from_secs(1), attempts: 3, total: 120 }
    }
}

/// Units to wait after an attempt: `first`, then twice as long each time.
pub fn backoff(attempt: u32, first: u64) -> u64 {
    first << attempt.saturating_sub(1).min(10)
}
