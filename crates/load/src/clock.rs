//! A timer that wakes tasks well within a tenth of a millisecond. tokio's timer has a resolution of one millisecond, which
//! is too coarse for a schedule of thousands of requests a second. This timer is a thread that sleeps until the next
//! deadline.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;
use std::{io, thread};

use tokio::sync::oneshot;

/// Wakes the tasks that wait on it, never early. Its thread ends when it is dropped.
pub struct Clock(Sender<Alarm>);

impl Clock {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> io::Result<Self> {
        let (sender, receiver) = channel();
        thread::Builder::new().name("clock".to_owned()).spawn(move || run_timer(&receiver))?;
        Ok(Self(sender))
    }

    /// Waits until `at`; returns at once if that has passed.
    pub async fn sleep_until(&self, at: Instant) {
        if at <= Instant::now() {
            return;
        }
        let (wake, woken) = oneshot::channel();
        // The thread lives as long as `self`, so neither end can be closed.
        if self.0.send(Alarm { at, wake }).is_ok() {
            let _ = woken.await;
        }
    }
}

/// Asks the system to wake this thread at its deadlines. By default it may wake it up to 50 us later to save power.
pub fn wake_exactly() {
    #[cfg(target_os = "linux")]
    // If the system refuses, deadlines are met a little later.
    let _ = nix::sys::prctl::set_timerslack(1);
}

fn run_timer(alarms: &Receiver<Alarm>) {
    wake_exactly();
    let mut waiting = BinaryHeap::new();
    loop {
        let next = match waiting.peek() {
            None => alarms.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(Reverse(Alarm { at, .. })) => alarms.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match next {
            Ok(alarm) => waiting.push(Reverse(alarm)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        while waiting.peek().is_some_and(|Reverse(alarm)| alarm.at <= now) {
            if let Some(Reverse(alarm)) = waiting.pop() {
                // The waiting task may have been dropped.
                let _ = alarm.wake.send(());
            }
        }
    }
}

struct Alarm {
    at: Instant,
    wake: oneshot::Sender<()>,
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Alarm {}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn tasks_are_woken_in_the_order_of_their_times_and_never_early() {
        let clock = Clock::start().unwrap();
        let start = Instant::now();
        let woken = std::sync::Mutex::new(Vec::new());
        let wait = async |milliseconds: u64| {
            let at = start + Duration::from_millis(milliseconds);
            clock.sleep_until(at).await;
            assert!(Instant::now() >= at);
            woken.lock().unwrap().push(milliseconds);
        };
        tokio::join!(wait(60), wait(0), wait(30));
        assert_eq!(*woken.lock().unwrap(), [0, 30, 60]);
    }
}
