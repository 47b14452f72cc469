//! The trace: when each request arrived at the simulated vLLM and when each token was written, to check the times of a client against.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One line of a trace: an answer. Times are in microseconds since the start of the server, on the monotonic clock of the
/// system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedAnswer {
    /// The number of the request, in the order of arrival, from 1.
    pub request: u64,
    /// When the last byte of the request arrived.
    pub accepted_us: u64,
    /// When each token was written. Tokens that are due together are written together.
    pub tokens_us: Vec<u64>,
}

/// A file with one line of JSON for each answer that has ended.
pub struct TraceFile {
    lines: Sender<TracedAnswer>,
    writer: JoinHandle<std::io::Result<()>>,
    begin: Instant,
}

impl TraceFile {
    /// Creates the file, and starts the thread that writes it.
    ///
    /// # Errors
    /// The file cannot be created, or no thread can be started.
    pub fn create(path: &Path) -> Result<Self> {
        let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let (lines, answers) = channel::<TracedAnswer>();
        let write = move || {
            let mut file = BufWriter::new(file);
            while let Ok(first) = answers.recv() {
                for answer in std::iter::once(first).chain(answers.try_iter()) {
                    serde_json::to_writer(&mut file, &answer)?;
                    file.write_all(b"\n")?;
                }
                // A reader of the file sees complete lines as soon as no more are waiting.
                file.flush()?;
            }
            Ok(())
        };
        let writer =
            thread::Builder::new().name("trace".to_owned()).spawn(write).context("cannot start the trace's thread")?;
        Ok(Self { lines, writer, begin: Instant::now() })
    }

    /// A sender of answers to this file.
    pub fn sender(&self) -> TraceSender {
        TraceSender { lines: self.lines.clone(), begin: self.begin }
    }

    /// Waits until every line is written. Every [`TraceSender`] must be dropped before.
    ///
    /// # Errors
    /// A line could not be written.
    pub fn finish(self) -> Result<()> {
        drop(self.lines);
        let written = self.writer.join().map_err(|_| anyhow::anyhow!("the trace's thread ended early"))?;
        written.context("cannot write the trace")
    }
}

/// Sends answers to a trace.
#[derive(Clone)]
pub struct TraceSender {
    lines: Sender<TracedAnswer>,
    begin: Instant,
}

impl TraceSender {
    /// Adds an answer that has ended.
    pub fn add(&self, request: u64, accepted: Instant, tokens: &[Instant]) {
        let since =
            |at: &Instant| u64::try_from(at.saturating_duration_since(self.begin).as_micros()).unwrap_or(u64::MAX);
        let traced =
            TracedAnswer { request, accepted_us: since(&accepted), tokens_us: tokens.iter().map(since).collect() };
        // If the file cannot be written, `finish` reports it.
        let _ = self.lines.send(traced);
    }
}
