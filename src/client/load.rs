//! Applies a load: every request is sent when it is due and a place is free. All of it happens on one thread, so that
//! nothing but the load competes for it, and so that its share of a core can be told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::clock::Clock;
use super::connection::Connections;
use super::lag::{Lag, Seen, cpu_time};
use super::request::{Endpoint, Exchange, Failure};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(100);

/// For how long a finite rate gets connections before the start. Later requests mostly find one that was given back.
const AHEAD: Duration = Duration::from_secs(2);

/// Requests, when they are due, and where they go.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub endpoint: Endpoint,
    /// Whole requests, in order.
    pub requests: Vec<Bytes>,
    /// When each is due, from the start, in order.
    pub arrivals: Vec<Duration>,
    /// Most requests under way at once.
    pub max_concurrency: Option<usize>,
}

/// What a load gave.
#[derive(Debug)]
pub struct Applied {
    /// What was seen of each request, in order.
    pub exchanges: Vec<Exchange>,
    /// From the start to the end of the last, in seconds.
    pub seconds: f64,
    /// What the client measured of itself meanwhile.
    pub lag: Lag,
}

impl Load {
    /// Most connections that may be open at once.
    pub fn connections(&self) -> usize {
        self.max_concurrency.unwrap_or(usize::MAX).min(self.requests.len())
    }

    /// The same request, so many times, at once.
    pub fn repeated(&self, request: Bytes, times: usize) -> Self {
        Self { requests: vec![request; times], arrivals: vec![Duration::ZERO; times], ..self.clone() }
    }

    /// Connections to open before the start: a request is timed from its sending, and a server that is measured has
    /// clients whose connections are open.
    fn ahead(&self) -> usize {
        self.connections().min(self.arrivals.partition_point(|due| *due <= AHEAD))
    }
}

/// Applies the load. `progress` gets how many requests have ended, and of how many. Dropping the future ends the requests.
///
/// # Errors
/// The system has no thread to give, or the server's address is not found.
pub async fn apply(load: &Load, progress: impl Fn(usize, usize)) -> Result<Applied> {
    let ended = Arc::new(AtomicUsize::new(0));
    let (give, mut applied) = oneshot::channel();
    let worker = {
        let (load, ended) = (load.clone(), Arc::clone(&ended));
        move || {
            let mut give: oneshot::Sender<Result<Applied>> = give;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let applied = match runtime.context("cannot start the client") {
                Err(error) => Some(Err(error)),
                Ok(runtime) => runtime.block_on(async {
                    tokio::select! {
                        applied = on_this_thread(load, ended) => Some(applied),
                        // Nobody waits for the result any more.
                        () = give.closed() => None,
                    }
                }),
            };
            if let Some(applied) = applied {
                let _ = give.send(applied);
            }
        }
    };
    thread::Builder::new().name("load".to_owned()).spawn(worker).context("cannot start the thread of the client")?;
    let total = load.requests.len();
    loop {
        tokio::select! {
            biased;
            applied = &mut applied => {
                progress(ended.load(Ordering::Relaxed), total);
                return applied.context("the thread of the client ended early")?;
            }
            () = tokio::time::sleep(PROGRESS) => progress(ended.load(Ordering::Relaxed), total),
        }
    }
}

/// When a place became free last.
#[derive(Default)]
struct Freed(Mutex<Option<Instant>>);

async fn on_this_thread(load: Load, ended: Arc<AtomicUsize>) -> Result<Applied> {
    let load = Arc::new(load);
    let total = load.requests.len();
    let clock = Arc::new(Clock::start().context("cannot start the clock of the client")?);
    let connections = Arc::new(Connections::to(load.endpoint.url()).await?);
    connections.open_ahead(load.ahead()).await;

    let places = Arc::new(Semaphore::new(load.connections().clamp(1, Semaphore::MAX_PERMITS)));
    let (seen, freed) = (Arc::new(Seen::default()), Arc::new(Freed::default()));
    let probe = tokio::spawn(Arc::clone(&seen).probe(Arc::clone(&clock)));
    let mut under_way = JoinSet::new();
    let mut exchanges = vec![Exchange { failure: Some(Failure::NotSent), ..Exchange::default() }; total];
    let mut keep = |joined: Result<(usize, Exchange), tokio::task::JoinError>| {
        if let Ok((index, exchange)) = joined
            && let Some(slot) = exchanges.get_mut(index)
        {
            *slot = exchange;
        }
    };
    let (begin, cpu) = (Instant::now(), cpu_time());
    for (index, after) in load.arrivals.iter().enumerate().take(total) {
        let due = begin + *after;
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
            let request = load.requests.get(index).map_or(&[][..], |request| request);
            if let Some(allowed) = allowed {
                seen.sent(allowed.elapsed().as_secs_f64());
            }
            let exchange = load.endpoint.send(&connections, request, begin, due).await;
            *freed.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            drop(place);
            ended.fetch_add(1, Ordering::Relaxed);
            (index, exchange)
        });
    }
    while let Some(joined) = under_way.join_next().await {
        keep(joined);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let lag = Lag::new(&seen, cpu_time().saturating_sub(cpu), seconds);
    probe.abort();
    Ok(Applied { exchanges, seconds, lag })
}
