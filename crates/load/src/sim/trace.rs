//! The truth about a load: when the simulated vLLM accepted each request and when it wrote each token, so that what a
//! client says can be checked.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One answer. Times in microseconds since the server's start, on the system's monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// The request, in the order of their coming, from 1.
    pub request: u64,
    /// When the last byte of the request had been read.
    pub accepted_us: u64,
    /// When each token was written, the first included. Tokens that were due together were written together.
    pub tokens_us: Vec<u64>,
}

/// A file that gets one line of JSON for each answer that has ended.
pub struct Trace {
    lines: Sender<Traced>,
    writer: JoinHandle<std::io::Result<()>>,
    begin: Instant,
}

impl Trace {
    /// Begins the file.
    ///
    /// # Errors
    /// It cannot be written, or the system has no thread to give.
    pub fn to(path: &Path) -> Result<Self> {
        let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let (lines, answers) = channel::<Traced>();
        let write = move || {
            let mut file = BufWriter::new(file);
            while let Ok(first) = answers.recv() {
                for answer in std::iter::once(first).chain(answers.try_iter()) {
                    serde_json::to_writer(&mut file, &answer)?;
                    file.write_all(b"\n")?;
                }
                // Whoever reads along sees whole lines as soon as the server has nothing else to say.
                file.flush()?;
            }
            Ok(())
        };
        let writer =
            thread::Builder::new().name("trace".to_owned()).spawn(write).context("cannot start the trace's thread")?;
        Ok(Self { lines, writer, begin: Instant::now() })
    }

    /// Where answers are told.
    pub fn pen(&self) -> Pen {
        Pen { lines: self.lines.clone(), begin: self.begin }
    }

    /// Waits until every line is in the file. Every [`Pen`] must be gone.
    ///
    /// # Errors
    /// A line could not be written.
    pub fn finish(self) -> Result<()> {
        drop(self.lines);
        let written = self.writer.join().map_err(|_| anyhow::anyhow!("the trace's thread ended early"))?;
        written.context("cannot write the trace")
    }
}

/// Tells a trace about answers.
#[derive(Clone)]
pub struct Pen {
    lines: Sender<Traced>,
    begin: Instant,
}

impl Pen {
    /// One answer that has ended.
    pub fn tell(&self, request: u64, accepted: Instant, tokens: &[Instant]) {
        let since =
            |at: &Instant| u64::try_from(at.saturating_duration_since(self.begin).as_micros()).unwrap_or(u64::MAX);
        let traced = Traced { request, accepted_us: since(&accepted), tokens_us: tokens.iter().map(since).collect() };
        // The file could not be written any more: `finish` says so.
        let _ = self.lines.send(traced);
    }
}
