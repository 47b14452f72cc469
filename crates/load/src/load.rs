//! Runs a load: every request is sent when it is due and a place is free. All of it happens on one thread, so that
//! nothing but the load competes for it, and so that its share of a core can be told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::answer::Answer;
use crate::clock::Clock;
use crate::connection::Connections;
use crate::failure::Failure;
use crate::request::{Asked, send};
use crate::self_check::{Seen, SelfCheck, cpu_time};
use crate::server::Server;

/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(100);

/// For how long a finite rate gets connections before the start. Later requests mostly find one that was given back.
const AHEAD: Duration = Duration::from_secs(2);

/// A load: requests with their due times, the server, and limits.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub server: Server,
    /// The requests, in the order of their due times.
    pub requests: Vec<Request>,
    /// What the client may do.
    pub limits: Limits,
    /// Whether the texts of the answers are kept.
    pub keep_texts: bool,
}

/// One request of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When it is due, from the start of the run.
    pub due: Duration,
    /// The whole HTTP request: see [`Server::request`].
    pub bytes: Bytes,
}

/// Limits of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most requests under way at once; `None` is no limit.
    pub max_concurrency: Option<usize>,
    /// How long an answer may be silent before it counts as failed.
    pub silence: Duration,
}

/// What a load gave.
#[derive(Debug)]
pub struct Run {
    /// What was seen of each request, in order.
    pub answers: Vec<Answer>,
    /// From the start to the end of the last answer, in seconds.
    pub seconds: f64,
    /// The rate that was asked for and the rate that was offered.
    pub offered: Offered,
    /// What the client measured of itself.
    pub check: SelfCheck,
}

/// The request rate of a run: what the due times ask for, and what was sent. Both are `None` where all requests were due
/// at once, or where there was one request only.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Offered {
    /// Requests a second by the due times.
    pub asked: Option<f64>,
    /// Requests a second by the times of sending.
    pub sent: Option<f64>,
}

impl Offered {
    fn of(answers: &[Answer], requests: &[Request]) -> Self {
        let rate = |times: &mut dyn Iterator<Item = f64>| {
            let (first, last, count) = times.fold((f64::INFINITY, 0.0_f64, 0_u32), |(first, last, count), time| {
                (first.min(time), last.max(time), count + 1)
            });
            (count > 1 && last > first).then(|| f64::from(count - 1) / (last - first))
        };
        let asked = rate(&mut requests.iter().map(|request| request.due.as_secs_f64()));
        let sent = asked.and_then(|_| rate(&mut answers.iter().map(|answer| answer.sent)));
        Self { asked, sent }
    }
}

impl Load {
    /// Most connections that may be open at once.
    pub fn connections(&self) -> usize {
        self.limits.max_concurrency.unwrap_or(usize::MAX).min(self.requests.len())
    }

    /// The first request so many times, all due at once: a ready check or a warm-up. `None` where the load is empty.
    pub fn first_repeated(&self, times: usize) -> Option<Self> {
        let request = Request { due: Duration::ZERO, ..self.requests.first()?.clone() };
        let requests = vec![request; times];
        Some(Self { server: self.server.clone(), requests, limits: self.limits, keep_texts: self.keep_texts })
    }

    /// Connections to open before the start: a request is timed from its sending, and the clients of a server under
    /// load keep their connections open.
    fn ahead(&self) -> usize {
        self.connections().min(self.requests.partition_point(|request| request.due <= AHEAD))
    }
}

/// Runs a load. `progress` gets how many requests have ended, and of how many. Dropping the future ends the requests.
///
/// # Errors
/// The system has no thread to give, or the server's address is not found.
pub async fn run(load: &Load, progress: impl Fn(usize, usize)) -> Result<Run> {
    let ended = Arc::new(AtomicUsize::new(0));
    let (give, mut run) = oneshot::channel();
    let worker = {
        let (load, ended) = (load.clone(), Arc::clone(&ended));
        move || {
            let mut give: oneshot::Sender<Result<Run>> = give;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let run = match runtime.context("cannot start the client") {
                Err(error) => Some(Err(error)),
                Ok(runtime) => runtime.block_on(async {
                    tokio::select! {
                        run = on_this_thread(load, ended) => Some(run),
                        // Nobody waits for the result any more.
                        () = give.closed() => None,
                    }
                }),
            };
            if let Some(run) = run {
                let _ = give.send(run);
            }
        }
    };
    thread::Builder::new().name("load".to_owned()).spawn(worker).context("cannot start the thread of the client")?;
    let total = load.requests.len();
    loop {
        tokio::select! {
            biased;
            run = &mut run => {
                progress(ended.load(Ordering::Relaxed), total);
                return run.context("the thread of the client ended early")?;
            }
            () = tokio::time::sleep(PROGRESS) => progress(ended.load(Ordering::Relaxed), total),
        }
    }
}

/// When a place became free last.
#[derive(Default)]
struct Freed(Mutex<Option<Instant>>);

async fn on_this_thread(load: Load, ended: Arc<AtomicUsize>) -> Result<Run> {
    let load = Arc::new(load);
    let total = load.requests.len();
    let clock = Arc::new(Clock::start().context("cannot start the clock of the client")?);
    let connections = Arc::new(Connections::to(load.server.url()).await?);
    connections.open_ahead(load.ahead()).await;

    let places = Arc::new(Semaphore::new(load.connections().clamp(1, Semaphore::MAX_PERMITS)));
    let (seen, freed) = (Arc::new(Seen::default()), Arc::new(Freed::default()));
    let probe = tokio::spawn(Arc::clone(&seen).probe(Arc::clone(&clock)));
    let mut under_way = JoinSet::new();
    let mut answers = vec![Answer { failure: Some(Failure::NotSent), ..Answer::default() }; total];
    let mut keep = |joined: Result<(usize, Answer), tokio::task::JoinError>| {
        if let Ok((index, answer)) = joined
            && let Some(slot) = answers.get_mut(index)
        {
            *slot = answer;
        }
    };
    let (begin, cpu) = (Instant::now(), cpu_time());
    for index in 0..total {
        let after = load.requests.get(index).map_or(Duration::ZERO, |request| request.due);
        let due = begin + after;
        if !after.is_zero() {
            clock.until(due).await;
        }
        let waited = places.available_permits() == 0;
        let place = Arc::clone(&places).acquire_owned().await;
        let allowed =
            if waited { freed.0.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.max(due)) } else { None };
        // All at once has no schedule to be late for.
        let allowed = allowed.or((!after.is_zero()).then_some(due));
        while let Some(joined) = under_way.try_join_next() {
            keep(joined);
        }
        let (load, connections) = (Arc::clone(&load), Arc::clone(&connections));
        let (seen, freed, ended) = (Arc::clone(&seen), Arc::clone(&freed), Arc::clone(&ended));
        under_way.spawn(async move {
            let request = load.requests.get(index).map_or(&[][..], |request| &request.bytes);
            if let Some(allowed) = allowed {
                seen.sent(allowed.elapsed().as_secs_f64());
            }
            let (silence, keep_text) = (load.limits.silence, load.keep_texts);
            let answer = send(Asked { request, silence, keep_text, epoch: begin, due }, &connections).await;
            *freed.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            drop(place);
            ended.fetch_add(1, Ordering::Relaxed);
            (index, answer)
        });
    }
    while let Some(joined) = under_way.join_next().await {
        keep(joined);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let check = SelfCheck::new(&seen, cpu_time().saturating_sub(cpu), seconds);
    probe.abort();
    let offered = Offered::of(&answers, &load.requests);
    Ok(Run { answers, seconds, offered, check })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(sent: &[f64]) -> Vec<Answer> {
        sent.iter().map(|sent| Answer { sent: *sent, ..Answer::default() }).collect()
    }

    fn requests(due: &[u64]) -> Vec<Request> {
        due.iter().map(|due| Request { due: Duration::from_secs(*due), bytes: Bytes::new() }).collect()
    }

    #[test]
    fn the_offered_rate_stands_beside_the_asked_one() {
        let offered = Offered::of(&answers(&[0.0, 2.0, 4.0]), &requests(&[0, 1, 2]));
        assert_eq!(offered, Offered { asked: Some(1.0), sent: Some(0.5) });
        assert_eq!(Offered::of(&answers(&[0.0, 1.0]), &requests(&[0, 0])), Offered::default());
        assert_eq!(Offered::of(&answers(&[0.0]), &requests(&[3])), Offered::default());
    }
}
