//! Tells how a run gets on: a bar on a terminal, plain lines with elapsed and remaining time in a log, folded as each CI folds.

use crate::system::step_files;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use vllm_verdict::v1::Provider;

use crate::ci::workflow_commands::{self, neutralised};

/// Tells how a run gets on. Everything goes to standard error.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    provider: Provider,
    total: AtomicU64,
    done: AtomicU64,
    begun: Instant,
    /// Until when the rest is expected to last, as far as that was said.
    until: Mutex<Option<Instant>>,
}

impl Progress {
    /// A bar where `terminal` says that someone watches.
    pub fn new(provider: Provider, terminal: bool) -> Self {
        let bar = terminal.then(|| {
            let style = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {pos}/{len}{prefix}  {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(0).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            bar,
            provider,
            total: AtomicU64::new(0),
            done: AtomicU64::new(0),
            begun: Instant::now(),
            until: Mutex::new(None),
        }
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
        format!("[{}{}]", crate::duration::text(self.begun.elapsed()), self.remaining())
    }

    /// `, about 5 min left`; nothing where that is not known or over.
    fn remaining(&self) -> String {
        let done = self.done.load(Ordering::Relaxed) >= self.total.load(Ordering::Relaxed);
        let until = self.until.lock().ok().and_then(|until| *until).filter(|_| !done);
        let left = until.map(|until| until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
        left.map_or_else(String::new, |left| format!(", about {} left", crate::duration::text(left)))
    }

    /// What is under way and planned will last about so long from now.
    pub fn left(&self, left: Duration) {
        if let Ok(mut until) = self.until.lock() {
            *until = Some(Instant::now() + left);
        }
        if let Some(bar) = &self.bar {
            bar.set_prefix(self.remaining());
        }
    }

    /// So many cases more are to be run.
    pub fn expect_more(&self, cases: u64) {
        self.total.fetch_add(cases, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc_length(cases);
        }
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
            Provider::Github => step_files::stop_token()
                .and_then(|token| workflow_commands::quoted(text, &token))
                .unwrap_or_else(|error| format!("(its output is not shown: {error:#})")),
            Provider::Buildkite | Provider::Local => neutralised(text),
        }
    }

    /// A case is done.
    pub fn step(&self) {
        self.skip(1);
        if let Some(bar) = &self.bar {
            bar.set_prefix(self.remaining());
        }
    }

    /// So many cases were done before.
    pub fn skip(&self, cases: u64) {
        self.done.fetch_add(cases, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc(cases);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_until_everything_is_done() {
        let progress = Progress::new(Provider::Local, false);
        progress.expect_more(2);
        assert_eq!(progress.remaining(), "");
        progress.left(Duration::from_secs(3600));
        progress.step();
        assert!(progress.remaining().starts_with(", about "), "{}", progress.remaining());
        progress.step();
        assert_eq!(progress.remaining(), "");
    }
}
