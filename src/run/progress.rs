//! Progress output on standard error: a bar on a terminal; in a log, lines with elapsed and remaining time, in groups that
//! the CI can fold.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use vllm_verdict::v1::Provider;

use crate::ci::log_text::harmless_title;
use crate::duration;
use crate::run::server_failures::same_way;
use crate::system::sink::Sink;

/// Progress output.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    sink: Sink,
    provider: Provider,
    total: AtomicU64,
    done: AtomicU64,
    begun: Instant,
    /// Expected end, where one was set.
    end: Mutex<Option<Instant>>,
    failures: Mutex<Vec<Failure>>,
}

/// Most characters of a reason that is repeated.
const REASON: usize = 200;

/// A failure that was printed.
#[derive(Debug)]
struct Failure {
    way: String,
    reason: String,
    /// How often it came again and was not printed.
    again: u64,
}

impl Progress {
    /// Prints a bar if standard error is a terminal, else lines.
    pub fn new(provider: Provider, terminal: bool, sink: Sink) -> Self {
        let bar = terminal.then(|| {
            let style = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {pos}/{len}{prefix}  {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(0).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            bar,
            sink,
            provider,
            total: AtomicU64::new(0),
            done: AtomicU64::new(0),
            begun: Instant::now(),
            end: Mutex::new(None),
            failures: Mutex::default(),
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(self.sink.shown(text)),
            None => self.sink.err(text),
        }
    }

    fn stamp(&self) -> String {
        format!("[{}{}]", duration::text(self.begun.elapsed()), self.remaining())
    }

    /// `, about 5 min left`; empty where that is unknown or no time is left.
    fn remaining(&self) -> String {
        let done = self.done.load(Ordering::Relaxed) >= self.total.load(Ordering::Relaxed);
        let end = self.end.lock().ok().and_then(|end| *end).filter(|_| !done);
        let left = end.map(|end| end.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
        left.map_or_else(String::new, |left| format!(", about {} left", duration::text(left)))
    }

    /// Sets the expected remaining time.
    pub fn set_remaining(&self, remaining: Duration) {
        if let Ok(mut end) = self.end.lock() {
            *end = Some(Instant::now() + remaining);
        }
        if let Some(bar) = &self.bar {
            bar.set_prefix(self.remaining());
        }
    }

    /// Adds cases to the total.
    pub fn expect_more(&self, cases: u64) {
        self.total.fetch_add(cases, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc_length(cases);
        }
    }

    /// Begins a group of lines that a CI log can fold.
    pub fn group(&self, title: &str) {
        match (&self.bar, self.provider) {
            (Some(_), _) => {}
            (None, Provider::Github) => self.sink.err_command(&format!("::group::{}", harmless_title(title))),
            (None, Provider::Buildkite) => self.sink.err_command(&format!("--- {}", harmless_title(title))),
            (None, Provider::Local) => self.line(title),
        }
    }

    /// Ends the group.
    pub fn end_group(&self) {
        self.repeat_failures();
        if self.bar.is_none() && self.provider == Provider::Github {
            self.sink.err_command("::endgroup::");
        }
    }

    /// Shows the current activity. Only in the bar: a log gets a line when it is done.
    pub fn working(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(self.sink.shown(&harmless_title(text)));
        }
    }

    /// Prints the result of a case.
    pub fn finished(&self, text: &str) {
        self.line(&format!("{} {text}", self.stamp()));
    }

    /// Prints why a case or a server failed, and the end of its log in `output`. The same failure is printed once; how often
    /// it came again follows at the end of the group.
    pub fn failure(&self, what: &str, reason: &str, output: &str) {
        if let Ok(mut failures) = self.failures.lock() {
            // The first failure of each side is printed, with the end of its log.
            let side = what.split_whitespace().next().unwrap_or_default();
            let way = format!("{side} {}", same_way(reason));
            if let Some(known) = failures.iter_mut().find(|known| known.way == way) {
                known.again += 1;
                return;
            }
            failures.push(Failure { way, reason: reason.to_owned(), again: 0 });
        }
        // The reason may hold output of a server: one line.
        self.line(&format!("{} not measured: {}", self.stamp(), harmless_title(&format!("{what}: {reason}"))));
        if !output.is_empty() {
            self.line(output);
        }
    }

    /// Prints how often each failure came again since this was last called.
    fn repeat_failures(&self) {
        let Ok(mut failures) = self.failures.lock() else { return };
        for failure in failures.iter_mut().filter(|failure| failure.again > 0) {
            let again = std::mem::take(&mut failure.again);
            let reason: String = harmless_title(&failure.reason).chars().take(REASON).collect();
            let times = if again == 1 { "1 more time".to_owned() } else { format!("{again} more times") };
            self.line(&format!("{} the same failure {times}: {reason}", self.stamp()));
        }
    }

    /// Counts a finished case.
    pub fn step(&self) {
        self.skip(1);
        if let Some(bar) = &self.bar {
            bar.set_prefix(self.remaining());
        }
    }

    /// Counts cases that need not run.
    pub fn skip(&self, cases: u64) {
        self.done.fetch_add(cases, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc(cases);
        }
    }

    /// Prints a line.
    pub fn say(&self, text: &str) {
        self.line(&format!("{} {text}", self.stamp()));
    }

    /// Removes the bar.
    pub fn end(&self) {
        self.repeat_failures();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_is_counted_and_another_one_is_not() {
        let progress = Progress::new(Provider::Local, false, Sink::default());
        let again = |progress: &Progress| -> Vec<u64> {
            progress.failures.lock().unwrap().iter().map(|failure| failure.again).collect()
        };
        for port in [40001, 40002, 40003] {
            progress.failure("head 1: a", &format!("cannot connect to port {port}"), "");
        }
        progress.failure("head 1: b", "the server ended with exit status: 1", "");
        assert_eq!(again(&progress), [2, 0]);
        progress.end_group();
        assert_eq!(again(&progress), [0, 0]);
    }

    #[test]
    fn the_remaining_time_is_shown_until_all_cases_are_done() {
        let progress = Progress::new(Provider::Local, false, Sink::default());
        progress.expect_more(2);
        assert_eq!(progress.remaining(), "");
        progress.set_remaining(Duration::from_secs(3600));
        progress.step();
        assert!(progress.remaining().starts_with(", about "), "{}", progress.remaining());
        progress.step();
        assert_eq!(progress.remaining(), "");
    }
}
