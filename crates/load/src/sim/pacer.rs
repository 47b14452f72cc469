//! Writes responses at their pace: one thread sleeps until tokens are due and writes each of them to its connection. Waking
//! a task for every token would cost more than the token.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::response_script::{Ending, ResponseScript};
use super::trace::TraceSender;
use crate::clock::wake_exactly;

/// Tokens that become due within this time are written together. None is early; some are late by up to this time.
const TICK: Duration = Duration::from_micros(100);

/// Pause before a connection with a full buffer is tried again.
const FULL_PAUSE: Duration = Duration::from_micros(200);

/// Most bytes that are collected for one connection at a time.
const BATCH_BYTES: usize = 32 << 10;

/// A response that is being written.
pub struct PacedResponse {
    /// Its connection.
    pub socket: Arc<TcpStream>,
    /// Its bytes.
    pub script: ResponseScript,
    /// When its tokens are due.
    pub timing: TokenTiming,
    /// Its slot among the requests that run, which is free when this is dropped.
    pub _slot: OwnedSemaphorePermit,
    /// Receives how the response ended.
    pub ended: Option<oneshot::Sender<Ending>>,
    /// Its true times, if they are traced.
    pub trace: Option<ResponseTrace>,
    /// Tokens that have been collected for writing.
    pub sent: u32,
    /// Bytes that are collected and not yet written.
    pub unwritten: Vec<u8>,
}

/// When the tokens of a response are due.
pub struct TokenTiming {
    /// When the next token is due.
    pub deadline: Instant,
    /// Time between two tokens.
    pub itl: Duration,
    /// Spread of that time.
    pub spread: Option<(LogNormal<f64>, ChaCha8Rng)>,
}

impl TokenTiming {
    /// Moves on to the next token.
    fn advance(&mut self) {
        self.deadline += match &mut self.spread {
            Some((spread, random)) => self.itl.mul_f64(spread.sample(random)),
            None => self.itl,
        };
    }
}

/// The true times of a response. They are sent to the trace when this is dropped.
pub struct ResponseTrace {
    /// The trace.
    pub sender: TraceSender,
    /// The number of the request, from 1.
    pub request: u64,
    /// When the request had been read.
    pub accepted: Instant,
    /// When the tokens were written.
    pub tokens: Vec<Instant>,
}

/// Writes responses on a thread, which ends when the pacer is dropped.
#[derive(Clone)]
pub struct Pacer(Sender<Scheduled>);

/// A response that its connection can take back, for example when the client has closed it.
pub type SharedResponse = Arc<Mutex<Option<PacedResponse>>>;

impl Pacer {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> io::Result<Self> {
        let (sender, receiver) = channel();
        thread::Builder::new().name("pacer".to_owned()).spawn(move || write_responses(&receiver))?;
        Ok(Self(sender))
    }

    /// Starts to write a response at its pace.
    pub fn start_writing(&self, response: PacedResponse) -> SharedResponse {
        let deadline = response.timing.deadline;
        let response = Arc::new(Mutex::new(Some(response)));
        // The thread lives as long as `self`.
        let _ = self.0.send(Scheduled { deadline, response: Arc::clone(&response) });
        response
    }
}

fn write_responses(new: &Receiver<Scheduled>) {
    wake_exactly();
    let mut waiting: BinaryHeap<Reverse<Scheduled>> = BinaryHeap::new();
    let mut last_pass = Instant::now();
    loop {
        let next = match waiting.peek() {
            None => new.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(Reverse(entry)) => {
                let wake = entry.deadline.max(last_pass + TICK);
                new.recv_timeout(wake.saturating_duration_since(Instant::now()))
            }
        };
        match next {
            Ok(entry) => {
                waiting.push(Reverse(entry));
                waiting.extend(new.try_iter().map(Reverse));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        last_pass = Instant::now();
        let mut later = Vec::new();
        while waiting.peek().is_some_and(|Reverse(entry)| entry.deadline <= last_pass) {
            let Some(Reverse(entry)) = waiting.pop() else { break };
            if let Some(deadline) = entry.write_due() {
                later.push(Reverse(Scheduled { deadline, ..entry }));
            }
        }
        waiting.extend(later);
    }
}

/// A response and the time of its next write.
struct Scheduled {
    deadline: Instant,
    response: SharedResponse,
}

impl Scheduled {
    /// Writes what is due. Gives the time of the next write, if there is one.
    fn write_due(&self) -> Option<Instant> {
        let mut shared = self.response.lock().unwrap_or_else(PoisonError::into_inner);
        let ending = match shared.as_mut()?.write_due() {
            Ok(Progress::Until(deadline)) => return Some(deadline),
            Ok(Progress::Ended(ending)) => ending,
            // The client has closed the connection.
            Err(_) => Ending::Close,
        };
        if ending == Ending::Never {
            // It keeps its connection and its slot until the client closes the connection.
            return None;
        }
        if let Some(mut response) = shared.take() {
            let ended = response.ended.take();
            drop(response);
            // The task of the connection is dropped when the server shuts down.
            let _ = ended.map(|ended| ended.send(ending));
        }
        None
    }
}

enum Progress {
    Until(Instant),
    Ended(Ending),
}

impl PacedResponse {
    fn write_due(&mut self) -> io::Result<Progress> {
        let total = self.script.tokens;
        loop {
            if self.unwritten.is_empty() {
                self.collect_due(Instant::now());
            }
            while !self.unwritten.is_empty() {
                self.trace_written();
                match self.socket.try_write(&self.unwritten) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        self.unwritten.drain(..written);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        return Ok(Progress::Until(Instant::now() + FULL_PAUSE));
                    }
                    Err(error) => return Err(error),
                }
            }
            if self.sent > total {
                return Ok(Progress::Ended(self.script.ending));
            }
            if self.sent < total {
                return Ok(Progress::Until(self.timing.deadline));
            }
        }
    }

    /// The tokens that were collected are written now.
    fn trace_written(&mut self) {
        let written = self.sent.min(self.script.tokens) as usize;
        if let Some(trace) = &mut self.trace
            && trace.tokens.len() < written
        {
            trace.tokens.resize(written, Instant::now());
        }
    }

    /// Collects the tokens that are due, and the end after the last token.
    fn collect_due(&mut self, now: Instant) {
        let total = self.script.tokens;
        if self.sent == 0 {
            self.unwritten.extend_from_slice(&self.script.head);
        }
        while self.sent < total && self.timing.deadline <= now && self.unwritten.len() < BATCH_BYTES {
            self.unwritten.extend_from_slice(self.script.token(self.sent));
            self.sent += 1;
            if self.sent < total {
                self.timing.advance();
            }
        }
        if self.sent == total {
            self.unwritten.extend_from_slice(&self.script.end);
            // One more than the tokens: the end is collected.
            self.sent = total + 1;
        }
    }
}

impl Drop for ResponseTrace {
    /// The trace has every response, however it ended.
    fn drop(&mut self) {
        self.sender.add(self.request, self.accepted, &self.tokens);
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.deadline == other.deadline
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.deadline.cmp(&other.deadline)
    }
}
