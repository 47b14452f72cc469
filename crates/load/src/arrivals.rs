//! When requests are due. The load is an open loop: due times do not depend on answers. A seed gives the same schedule as
//! in `vllm bench serve`.

use std::time::Duration;

use crate::generator::numpy::Legacy;

/// The lowest rate that [`arrivals`] supports, in requests a second: one request in eleven days.
pub const LOWEST_RATE: f64 = 1e-6;

/// Due times of `count` requests from the start of the load, at `rate` requests a second (infinite: all at once).
/// Gaps follow a gamma distribution of shape `burstiness` (1: a Poisson process; infinite: even gaps) and are scaled so
/// that the last request is due after `count / rate` seconds, as `vllm bench serve` does. `rate` is not below
/// [`LOWEST_RATE`], and `burstiness` is greater than 0.
pub fn arrivals(count: usize, rate: f64, burstiness: f64, seed: u64) -> Vec<Duration> {
    if rate.is_infinite() {
        return vec![Duration::ZERO; count];
    }
    let gaps = gaps(count, burstiness, seed);
    let total: f64 = gaps.iter().sum();
    // With a burstiness near 0 all gaps can round to 0.
    let scale = if total > 0.0 { count as f64 / rate / total } else { 0.0 };
    gaps.iter()
        .scan(0.0, |due, gap| {
            *due += gap * scale;
            Some(due_time(*due))
        })
        .collect()
}

/// A due time from the start of the load. At a rate near 0 it is a year.
pub(super) fn due_time(seconds: f64) -> Duration {
    const YEAR: f64 = 366.0 * 86_400.0;
    Duration::from_secs_f64(seconds.clamp(0.0, YEAR))
}

/// Gaps with a mean of 1.
pub(super) fn gaps(count: usize, burstiness: f64, seed: u64) -> Vec<f64> {
    if burstiness.is_infinite() {
        return vec![1.0; count];
    }
    let mut generator = Legacy::new(seed);
    (0..count).map(|_| generator.gamma(burstiness) / burstiness).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_infinite_rate_sends_everything_at_once() {
        assert_eq!(arrivals(3, f64::INFINITY, 1.0, 0), [Duration::ZERO; 3]);
    }

    #[test]
    fn the_last_request_is_due_after_count_over_rate_seconds() {
        for burstiness in [0.5, 1.0, 4.0] {
            let last = arrivals(200, 16.0, burstiness, 7).last().unwrap().as_secs_f64();
            assert!((last - 12.5).abs() < 1e-6, "{last}");
        }
    }

    #[test]
    fn a_seed_gives_the_schedule_of_vllm() {
        // numpy.random.seed(seed); four of numpy.random.gamma(burstiness, 1 / (rate * burstiness)), summed up, and scaled
        // to 4 / rate as vllm.benchmarks.serve.get_request does
        for (seed, rate, burstiness, expected) in [
            (0, 4.0, 1.0, [0.21154331321724917, 0.5453695032059986, 0.7907620633383785, 0.9999999999999999]),
            (3, 0.5, 0.25, [0.7701824303947254, 0.8301101400893834, 7.9979184834409, 7.999999999999999]),
            (42, 100.0, 3.0, [0.013426108058612761, 0.022648103210192675, 0.0313240058029033, 0.04]),
        ] {
            let due = arrivals(4, rate, burstiness, seed);
            for (due, expected) in due.iter().zip(expected) {
                assert!((due.as_secs_f64() - expected).abs() < 1e-8, "seed {seed}: {due:?} {expected}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule() {
        assert_eq!(arrivals(50, 4.0, 1.0, 3), arrivals(50, 4.0, 1.0, 3));
        assert_ne!(arrivals(50, 4.0, 1.0, 3), arrivals(50, 4.0, 1.0, 4));
    }

    #[test]
    fn burstiness_is_the_inverse_of_the_squared_spread_of_the_gaps() {
        for (burstiness, expected) in [(0.25, 2.0), (1.0, 1.0), (16.0, 0.25)] {
            let gaps = gaps(20_000, burstiness, 1);
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            let spread = variance.sqrt() / mean;
            assert!((spread / expected - 1.0).abs() < 0.05, "burstiness {burstiness}: {spread}");
        }
    }

    #[test]
    fn rates_and_burstiness_at_their_limits_still_make_a_schedule() {
        assert_eq!(arrivals(3, 1.0, 1e-300, 0).len(), 3);
        assert_eq!(arrivals(3, 1.0, f64::MIN_POSITIVE, 0).len(), 3);
        assert_eq!(arrivals(1, LOWEST_RATE, 1.0, 0), [Duration::from_secs(1_000_000)]);
        assert_eq!(arrivals(0, 1.0, 1.0, 0), Vec::<Duration>::new());
    }

    #[test]
    fn infinite_burstiness_spaces_requests_evenly() {
        let due: Vec<f64> = arrivals(4, 2.0, f64::INFINITY, 0).iter().map(Duration::as_secs_f64).collect();
        assert_eq!(due, [0.5, 1.0, 1.5, 2.0]);
    }
}
