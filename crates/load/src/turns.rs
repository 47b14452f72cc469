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

/// Reads in time have several tokens at least this many times as often as late ones, where the server sends them so.
const TOGETHER: f64 = 0.5;

/// Reads that are at most this share of all change no percentile that is used.
const FEW: f64 = 0.005;

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
    /// Reads, and those whose time of arrival was not known.
    reads: AtomicU64,
    unknown: AtomicU64,
    in_time: ReadCounts,
    late: ReadCounts,
}

/// Reads with tokens, and those of them with several.
#[derive(Debug, Default)]
struct ReadCounts {
    all: AtomicU64,
    several: AtomicU64,
}

impl ReadCounts {
    fn add(&self, tokens: usize) {
        self.all.fetch_add(u64::from(tokens > 0), Ordering::Relaxed);
        self.several.fetch_add(u64::from(tokens > 1), Ordering::Relaxed);
    }

    /// The share of reads with several tokens; 0 without reads.
    fn share(&self) -> f64 {
        self.several.load(Ordering::Relaxed) as f64 / self.all.load(Ordering::Relaxed).max(1) as f64
    }
}

/// One read, and the time in which its bytes can have arrived.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    earliest: Instant,
    arrived: Instant,
    is_late: bool,
    /// Whether the last byte arrived at `arrived`, and not at some time before.
    is_last_known: bool,
}

impl Turns {
    /// Starts to count.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
            paused_from: AtomicU64::new(0),
            resumed_at: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            in_time: ReadCounts::default(),
            late: ReadCounts::default(),
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

    /// Whether the time of arrival was known of nearly every read: the first timestamps of a machine may be missing.
    pub fn knows_arrivals(&self) -> bool {
        self.unknown.load(Ordering::Relaxed) as f64 <= FEW * self.reads.load(Ordering::Relaxed) as f64
    }

    /// Whether the server itself sends several tokens at once: reads in time have them about as often as late ones.
    pub fn come_together(&self) -> bool {
        let in_time = self.in_time.share();
        in_time > 0.0 && in_time > TOGETHER * self.late.share()
    }

    /// Whether late reads may hide gaps between tokens although the server sends several at once: it is not known then which
    /// came together.
    pub fn hides_gaps(&self) -> bool {
        let several = self.late.several.load(Ordering::Relaxed) as f64;
        let all = self.in_time.all.load(Ordering::Relaxed) + self.late.all.load(Ordering::Relaxed);
        self.come_together() && several > FEW * all as f64
    }

    /// The thread runs now and has read.
    pub fn read(&self, read: &Read) -> Turn {
        self.now();
        let at = |nanoseconds: &AtomicU64| self.start + Duration::from_nanos(nanoseconds.load(Ordering::Relaxed));
        let (paused_from, resumed_at) = (at(&self.paused_from), at(&self.resumed_at));
        if read.length > 0 {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.unknown.fetch_add(u64::from(read.lag.is_none()), Ordering::Relaxed);
        }
        let is_late = match read.lag {
            Some(lag) => lag > LATE,
            None => resumed_at.saturating_duration_since(paused_from) > LONG_PAUSE,
        };
        Turn { earliest: paused_from, arrived: read.arrived, is_late, is_last_known: read.lag.is_some() }
    }

    /// Notes the likely times of the tokens from `first` on, which were read in `turn`, where they are not known. `events`
    /// of them have a token: the others come with one that has.
    pub fn estimate(&self, turn: Turn, answer: &mut Answer, first: usize, events: usize, epoch: Instant) {
        let reads = if turn.is_late { &self.late } else { &self.in_time };
        reads.add(events);
        let is_known = turn.is_last_known && events < 2;
        if turn.is_late && events > 0 && !is_known {
            turn.spread(answer, first, epoch);
        }
    }
}

impl Turn {
    fn spread(&self, answer: &mut Answer, first: usize, epoch: Instant) {
        let steps = answer.tokens.len().saturating_sub(first) + usize::from(!self.is_last_known);
        let since = |time: Instant| time.saturating_duration_since(epoch).as_secs_f64();
        let before = first.checked_sub(1).and_then(|index| answer.tokens.get(index)).copied();
        let (from, to) = (before.unwrap_or(answer.sent).max(since(self.earliest)), since(self.arrived));
        let time = |step: usize| from + (to - from).max(0.0) * step as f64 / steps as f64;
        answer.client.estimated.extend((1..steps).map(|step| (first + step - 1, time(step))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is noted of a read of `tokens` that was `lag` late; before it the answer had one token, after 10 ms.
    fn estimated(turns: &Turns, lag: Option<Duration>, tokens: usize) -> Vec<(usize, f64)> {
        let epoch = Instant::now();
        let at = |milliseconds: u64| epoch + Duration::from_millis(milliseconds);
        let is_late = lag.is_none_or(|lag| lag > LATE);
        let turn = Turn { earliest: at(20), arrived: at(60), is_late, is_last_known: lag.is_some() };
        let mut answer = Answer { sent: 0.0, tokens: vec![0.01], ..Answer::default() };
        answer.tokens.extend(std::iter::repeat_n(0.06, tokens));
        turns.estimate(turn, &mut answer, 1, tokens, epoch);
        let rounded = |(index, time): &(usize, f64)| (*index, (time * 1000.0).round());
        answer.client.estimated.iter().map(rounded).collect()
    }

    #[test]
    fn tokens_that_were_read_together_and_late_came_evenly() {
        let turns = Turns::start();
        let late = Some(Duration::from_millis(3));
        assert_eq!(estimated(&turns, late, 4), [(1, 30.0), (2, 40.0), (3, 50.0)]);
        assert_eq!(estimated(&turns, None, 1), [(1, 40.0)]);
        assert_eq!(estimated(&turns, late, 1), [], "its time is known");
        assert_eq!(estimated(&turns, Some(Duration::from_micros(90)), 4), [], "the server sent them together");
    }

    #[test]
    fn a_server_that_sends_several_tokens_at_once_does_so_whenever_they_are_read() {
        let (late, in_time) = (Some(Duration::from_millis(3)), Some(Duration::from_micros(90)));
        let come_together = |reads: &[(Option<Duration>, usize)]| {
            let turns = Turns::start();
            reads.iter().for_each(|(lag, tokens)| drop(estimated(&turns, *lag, *tokens)));
            turns.come_together()
        };
        assert!(come_together(&[(in_time, 2), (in_time, 2), (late, 2), (late, 2)]));
        assert!(!come_together(&[(in_time, 1), (in_time, 1), (late, 2), (late, 2)]));
        assert!(!come_together(&[(late, 2), (late, 2)]), "nothing was read in time");
        let turns = Turns::start();
        (0..400).for_each(|_| drop(estimated(&turns, in_time, 2)));
        assert!(!turns.hides_gaps());
        (0..4).for_each(|_| drop(estimated(&turns, late, 2)));
        assert!(turns.hides_gaps());
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
