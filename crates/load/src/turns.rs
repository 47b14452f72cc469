//! When this thread last ran, and so how late it read what had arrived: tokens that wait while the thread is given no
//! processor are read together, and only the time of the last one is known.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::answer::Answer;
use crate::wire::Read;

/// Two turns with more time between them are not one period of running.
const GAP: Duration = Duration::from_millis(1);

/// A read with a longer lag was late. A thread that sleeps is usually woken within a tenth of it.
const LATE: Duration = Duration::from_micros(250);

/// Where the time of arrival is not known, a read after a longer pause was late: the self-check wakes the thread more often.
const LONG_PAUSE: Duration = Duration::from_millis(10);

/// The turns of one thread.
#[derive(Debug)]
pub struct Turns {
    start: Instant,
    /// The last turn, in nanoseconds since the start.
    last: AtomicU64,
    /// The end of the period of running before this one.
    paused_from: AtomicU64,
    /// The begin of this period.
    resumed_at: AtomicU64,
    /// Reads whose time of arrival was not known.
    unknown: AtomicU64,
}

/// One read, and the time in which its bytes can have arrived.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    earliest: Instant,
    arrived: Instant,
    is_late: bool,
    /// From the arrival of the last byte to the read; `None` if it arrived at some time before.
    lag: Option<Duration>,
}

impl Turns {
    /// Starts to count.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
            paused_from: AtomicU64::new(0),
            resumed_at: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        }
    }

    /// The thread runs now.
    pub fn now(&self) {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let last = self.last.swap(now, Ordering::Relaxed);
        if Duration::from_nanos(now.saturating_sub(last)) > GAP {
            self.paused_from.store(last, Ordering::Relaxed);
            self.resumed_at.store(now, Ordering::Relaxed);
        }
    }

    /// Whether the time of arrival was known of every read.
    pub fn knows_arrivals(&self) -> bool {
        self.unknown.load(Ordering::Relaxed) == 0
    }

    /// The thread runs now and has read.
    pub fn read(&self, read: &Read) -> Turn {
        self.now();
        let at = |nanoseconds: &AtomicU64| self.start + Duration::from_nanos(nanoseconds.load(Ordering::Relaxed));
        let (paused_from, resumed_at) = (at(&self.paused_from), at(&self.resumed_at));
        if read.lag.is_none() && read.length > 0 {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
        let is_late = match read.lag {
            Some(lag) => lag > LATE,
            None => resumed_at.saturating_duration_since(paused_from) > LONG_PAUSE,
        };
        Turn { earliest: paused_from, arrived: read.arrived, is_late, lag: read.lag }
    }
}

impl Turn {
    /// Notes the likely times of the tokens from `first` on, which were read in this turn, where they are not known.
    pub fn estimate(&self, answer: &mut Answer, first: usize, epoch: Instant) {
        let count = answer.tokens.len().saturating_sub(first);
        let steps = count + usize::from(self.lag.is_none());
        if !self.is_late || steps < 2 {
            return;
        }
        let since = |time: Instant| time.saturating_duration_since(epoch).as_secs_f64();
        let before = first.checked_sub(1).and_then(|index| answer.tokens.get(index)).copied();
        let (mut from, to) = (before.unwrap_or(answer.sent).max(since(self.earliest)), since(self.arrived));
        if let Some(lag) = self.lag {
            // Of tokens that come evenly the last one waits for half of a gap on average.
            from = from.max(to - 2.0 * count as f64 * lag.as_secs_f64());
        }
        let time = |step: usize| from + (to - from).max(0.0) * step as f64 / steps as f64;
        answer.client.estimated.extend((1..steps).map(|step| (first + step - 1, time(step))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimated(lag: Option<Duration>, tokens: usize) -> Vec<(usize, f64)> {
        let epoch = Instant::now();
        let at = |milliseconds: u64| epoch + Duration::from_millis(milliseconds);
        let arrived = at(60);
        let turn = Turn { earliest: at(20), arrived, is_late: lag.is_none_or(|lag| lag > LATE), lag };
        let mut answer = Answer { sent: 0.0, tokens: vec![0.01], ..Answer::default() };
        answer.tokens.extend(std::iter::repeat_n(0.06, tokens));
        turn.estimate(&mut answer, 1, epoch);
        answer.client.estimated
    }

    #[test]
    fn tokens_that_were_read_together_and_late_came_evenly() {
        let rounded = |tokens: Vec<(usize, f64)>| {
            tokens.into_iter().map(|(index, time)| (index, (time * 1000.0).round())).collect::<Vec<_>>()
        };
        let late = Some(Duration::from_millis(9));
        assert_eq!(rounded(estimated(late, 4)), [(1, 30.0), (2, 40.0), (3, 50.0)]);
        let little = Some(Duration::from_micros(500));
        assert_eq!(rounded(estimated(little, 4)), [(1, 57.0), (2, 58.0), (3, 59.0)]);
        assert_eq!(rounded(estimated(None, 1)), [(1, 40.0)]);
        assert_eq!(estimated(late, 1), [], "its time is known");
        assert_eq!(estimated(Some(Duration::from_micros(90)), 4), [], "the server sent them together");
    }

    #[test]
    fn a_pause_ends_with_the_first_turn_after_it() {
        let turns = Turns::start();
        std::thread::sleep(Duration::from_millis(20));
        let read = Read { length: 1, arrived: Instant::now(), lag: None };
        let first = turns.read(&read);
        let second = turns.read(&read);
        assert!(first.is_late && second.is_late);
        assert_eq!(second.earliest, first.earliest);
        assert!(!Turns::start().read(&read).is_late);
    }
}
