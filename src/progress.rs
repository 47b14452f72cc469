//! Tells how a run gets on: a bar on a terminal, plain lines with elapsed and remaining time in a log, folded as each CI folds.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::event::Provider;
use crate::publish::actions;
use crate::publish::buildkite::neutralised;

/// Tells how a run gets on. Everything goes to standard error.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    provider: Provider,
    total: u64,
    done: AtomicU64,
    begun: Instant,
}

impl Progress {
    /// For `total` cases. A bar where `terminal` says that someone watches.
    pub fn new(total: u64, provider: Provider, terminal: bool) -> Self {
        let bar = terminal.then(|| {
            let style =
                ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {pos}/{len}, {eta} left  {wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, provider, total, done: AtomicU64::new(0), begun: Instant::now() }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        }
    }

    fn stamp(&self) -> String {
        let elapsed = self.begun.elapsed();
        let done = self.done.load(Ordering::Relaxed);
        let left = remaining(elapsed, done, self.total)
            .map_or_else(String::new, |left| format!(", about {} left", crate::duration::text(left)));
        format!("[{}{left}]", crate::duration::text(elapsed))
    }

    /// Begins a part that a CI log can fold.
    pub fn group(&self, title: &str) {
        match (&self.bar, self.provider) {
            (Some(_), _) => {}
            (None, Provider::Github) => self.line(&format!("::group::{title}")),
            (None, Provider::Buildkite) => self.line(&format!("--- {title}")),
            (None, Provider::Local) => self.line(title),
        }
    }

    /// Ends the part.
    pub fn end_group(&self) {
        if self.bar.is_none() && self.provider == Provider::Github {
            self.line("::endgroup::");
        }
    }

    /// Says what goes on now; a log shows it only when it is done.
    pub fn working(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// One case is done.
    pub fn finished(&self, text: &str) {
        self.line(&format!("{} {text}", self.stamp()));
    }

    /// One case, or its server, gave nothing. `output` is what the child said last: it must not reach the CI as commands.
    pub fn failure(&self, text: &str, output: &str) {
        // One line, and none that CI obeys: the reason may hold what a server said.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.line(&format!("{} not measured: {}", self.stamp(), text.replace("##[", "## [")));
        if !output.is_empty() {
            self.line(&self.harmless(output));
        }
    }

    /// A text of strangers, in which CI obeys no command.
    fn harmless(&self, text: &str) -> String {
        match self.provider {
            Provider::Github => actions::stop_token()
                .and_then(|token| actions::quoted(text, &token))
                .unwrap_or_else(|error| format!("(its output is not shown: {error:#})")),
            Provider::Buildkite | Provider::Local => neutralised(text),
        }
    }

    /// A case counts as done.
    pub fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// One line.
    pub fn say(&self, text: &str) {
        self.line(&format!("{} {text}", self.stamp()));
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What is left if the rest goes as fast as what is done.
fn remaining(elapsed: Duration, done: u64, total: u64) -> Option<Duration> {
    (done > 0 && done < total).then(|| elapsed.mul_f64((total - done) as f64 / done as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_goes_as_fast_as_what_is_done() {
        assert_eq!(remaining(Duration::from_secs(60), 0, 10), None);
        assert_eq!(remaining(Duration::from_secs(60), 4, 10), Some(Duration::from_secs(90)));
        assert_eq!(remaining(Duration::from_secs(60), 10, 10), None);
    }
}
