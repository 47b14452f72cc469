//! Keeps the pace: one thread that sleeps until tokens are due and writes all of them, each to its own connection. Waking a
//! task for every token would cost more than the token.

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

use super::script::{Ending, Script};
use super::trace::Pen;
use crate::clock::wake_exactly;

/// Tokens that become due within this time are written in one go. Never early: some are that much late.
const TICK: Duration = Duration::from_micros(100);

/// Pause before a connection that takes no more is tried again.
const FULL: Duration = Duration::from_micros(200);

/// Most bytes that are written to one connection at a time.
const BATCH: usize = 32 << 10;

/// An answer under way.
pub struct Stream {
    /// Its connection.
    pub socket: Arc<TcpStream>,
    /// What is written.
    pub script: Script,
    /// When the next token is due.
    pub deadline: Instant,
    /// From token to token.
    pub itl: Duration,
    /// Spread of that, where there is one.
    pub spread: Option<(LogNormal<f64>, ChaCha8Rng)>,
    /// The request's number, from 1.
    pub request: u64,
    /// When the request had been read.
    pub accepted: Instant,
    /// Its place among those that run: free when this is dropped.
    pub _place: OwnedSemaphorePermit,
    /// Told how the answer ended.
    pub ended: Option<oneshot::Sender<Ending>>,
    /// Where the truth is written.
    pub trace: Option<Pen>,
    /// Tokens so far.
    pub sent: u32,
    /// When they were written, where that is traced.
    pub times: Vec<Instant>,
    /// Bytes that the connection has not taken yet.
    pub unwritten: Vec<u8>,
}

/// Takes answers; its thread ends with it.
#[derive(Clone)]
pub struct Pacer(Sender<Entry>);

/// An answer that its connection can take back, as when the client is gone.
pub type Shared = Arc<Mutex<Option<Stream>>>;

impl Pacer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start() -> io::Result<Self> {
        let (sender, receiver) = channel();
        thread::Builder::new().name("pacer".to_owned()).spawn(move || keep_pace(&receiver))?;
        Ok(Self(sender))
    }

    /// Writes an answer at its pace.
    pub fn play(&self, stream: Stream) -> Shared {
        let deadline = stream.deadline;
        let stream = Arc::new(Mutex::new(Some(stream)));
        // The thread lives as long as `self`.
        let _ = self.0.send(Entry { deadline, stream: Arc::clone(&stream) });
        stream
    }
}

fn keep_pace(arriving: &Receiver<Entry>) {
    wake_exactly();
    let mut waiting: BinaryHeap<Reverse<Entry>> = BinaryHeap::new();
    let mut passed = Instant::now();
    loop {
        let next = match waiting.peek() {
            None => arriving.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(Reverse(entry)) => {
                let wake = entry.deadline.max(passed + TICK);
                arriving.recv_timeout(wake.saturating_duration_since(Instant::now()))
            }
        };
        match next {
            Ok(entry) => {
                waiting.push(Reverse(entry));
                waiting.extend(arriving.try_iter().map(Reverse));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        passed = Instant::now();
        let mut later = Vec::new();
        while waiting.peek().is_some_and(|Reverse(entry)| entry.deadline <= passed) {
            let Some(Reverse(entry)) = waiting.pop() else { break };
            if let Some(deadline) = entry.play() {
                later.push(Reverse(Entry { deadline, ..entry }));
            }
        }
        waiting.extend(later);
    }
}

struct Entry {
    deadline: Instant,
    stream: Shared,
}

impl Entry {
    /// Writes what is due; when there is more to do.
    fn play(&self) -> Option<Instant> {
        let mut shared = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let ending = match shared.as_mut()?.write_due() {
            Ok(Progress::Until(deadline)) => return Some(deadline),
            Ok(Progress::Ended(ending)) => ending,
            // The client is gone.
            Err(_) => Ending::Close,
        };
        if ending == Ending::Never {
            // It keeps its connection and its place until the client gives up.
            return None;
        }
        if let Some(mut stream) = shared.take() {
            let ended = stream.ended.take();
            drop(stream);
            // The connection's task is gone when the server shuts down.
            let _ = ended.map(|ended| ended.send(ending));
        }
        None
    }
}

enum Progress {
    Until(Instant),
    Ended(Ending),
}

impl Stream {
    fn write_due(&mut self) -> io::Result<Progress> {
        let total = self.script.tokens;
        loop {
            if self.unwritten.is_empty() {
                self.gather(Instant::now());
            }
            while !self.unwritten.is_empty() {
                match self.socket.try_write(&self.unwritten) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        self.unwritten.drain(..written);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        return Ok(Progress::Until(Instant::now() + FULL));
                    }
                    Err(error) => return Err(error),
                }
            }
            if self.sent > total {
                return Ok(Progress::Ended(self.script.ending));
            }
            if self.sent < total {
                return Ok(Progress::Until(self.deadline));
            }
        }
    }

    /// Collects the tokens that are due, and the end behind the last.
    fn gather(&mut self, now: Instant) {
        let total = self.script.tokens;
        if self.sent == 0 {
            self.unwritten.extend_from_slice(&self.script.head);
        }
        while self.sent < total && self.deadline <= now && self.unwritten.len() < BATCH {
            self.unwritten.extend_from_slice(self.script.token(self.sent));
            self.sent += 1;
            if self.trace.is_some() {
                self.times.push(now);
            }
            if self.sent < total {
                self.deadline += match &mut self.spread {
                    Some((spread, random)) => self.itl.mul_f64(spread.sample(random)),
                    None => self.itl,
                };
            }
        }
        if self.sent == total {
            self.unwritten.extend_from_slice(&self.script.end);
            // One more than there are: the end has been collected.
            self.sent = total + 1;
        }
    }
}

impl Drop for Stream {
    /// However an answer ended, the trace has it.
    fn drop(&mut self) {
        if let Some(pen) = &self.trace {
            pen.tell(self.request, self.accepted, &self.times);
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.deadline == other.deadline
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.deadline.cmp(&other.deadline)
    }
}
