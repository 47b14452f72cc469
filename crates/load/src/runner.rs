//! Runs a load: a request is sent when it is due and fewer than the most requests are in flight. Everything runs on one
//! thread of its own, so that its share of a core can be measured.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::answer::Answer;
use crate::clock::Clock;
use crate::connection::Connections;
use crate::failure::Failure;
use crate::load::{Load, Request};
use crate::request::{Outgoing, send};
use crate::self_check::{LagSamples, SelfCheck, cpu_time};

/// Time between two reports of progress.
const PROGRESS: Duration = Duration::from_millis(100);

/// The outcome of a load.
#[derive(Debug)]
pub struct Run {
    /// One for each request, in the order of the requests.
    pub answers: Vec<Answer>,
    /// From the start to the end of the last answer, in seconds.
    pub seconds: f64,
    /// The request rate by the due times, and as it was sent.
    pub offered: OfferedRate,
    /// What the client measured of itself.
    pub check: SelfCheck,
}

/// The request rate of a run, in requests a second. Both are `None` if all requests were due at once, or if there was
/// only one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OfferedRate {
    /// By the due times.
    pub requested: Option<f64>,
    /// By the times of sending.
    pub sent: Option<f64>,
}

impl OfferedRate {
    fn new(answers: &[Answer], requests: &[Request]) -> Self {
        let rate = |times: &mut dyn Iterator<Item = f64>| {
            let (first, last, count) = times.fold((f64::INFINITY, 0.0_f64, 0_u32), |(first, last, count), time| {
                (first.min(time), last.max(time), count + 1)
            });
            (count > 1 && last > first).then(|| f64::from(count - 1) / (last - first))
        };
        let requested = rate(&mut requests.iter().map(|request| request.due.as_secs_f64()));
        let sent = requested.and_then(|_| rate(&mut answers.iter().map(|answer| answer.sent)));
        Self { requested, sent }
    }
}

/// Runs a load. `progress` is called with the number of finished requests and the number of all requests, about every
/// 100 ms and at the end. Dropping the future ends all requests.
///
/// # Errors
/// No thread can be started, or the server's address cannot be resolved. A request that fails is not an error of the
/// run: its [`Answer::failure`] is set.
pub async fn run(load: &Load, progress: impl Fn(usize, usize)) -> Result<Run> {
    let finished = Arc::new(AtomicUsize::new(0));
    let (sender, mut run) = oneshot::channel();
    let worker = {
        let (load, finished) = (load.clone(), Arc::clone(&finished));
        move || run_on_this_thread(load, finished, sender)
    };
    thread::Builder::new().name("load".to_owned()).spawn(worker).context("cannot start the thread of the client")?;
    let total = load.requests.len();
    loop {
        tokio::select! {
            biased;
            run = &mut run => {
                progress(finished.load(Ordering::Relaxed), total);
                return run.context("the thread of the client ended early")?;
            }
            () = tokio::time::sleep(PROGRESS) => progress(finished.load(Ordering::Relaxed), total),
        }
    }
}

/// Runs `load` and sends the outcome; ends early if the receiver is dropped.
fn run_on_this_thread(load: Load, finished: Arc<AtomicUsize>, mut sender: oneshot::Sender<Result<Run>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let run = match runtime.context("cannot start the client") {
        Err(error) => Some(Err(error)),
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                run = run_requests(load, finished) => Some(run),
                () = sender.closed() => None,
            }
        }),
    };
    if let Some(run) = run {
        let _ = sender.send(run);
    }
}

/// When a request last finished while others waited for it.
#[derive(Default)]
struct LastFinished(Mutex<Option<Instant>>);

impl LastFinished {
    fn set_now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn time(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run_requests(load: Load, finished: Arc<AtomicUsize>) -> Result<Run> {
    let load = Arc::new(load);
    let total = load.requests.len();
    let clock = Arc::new(Clock::start().context("cannot start the clock of the client")?);
    let connections = Arc::new(Connections::resolve(load.server.url()).await?);
    connections.open_ahead(load.opened_ahead()).await;

    let slots = Arc::new(Semaphore::new(load.connections().clamp(1, Semaphore::MAX_PERMITS)));
    let (lags, last_finished) = (Arc::new(LagSamples::default()), Arc::new(LastFinished::default()));
    let probe = tokio::spawn(Arc::clone(&lags).probe(Arc::clone(&clock)));
    let mut in_flight = JoinSet::new();
    let mut answers = vec![Answer { failure: Some(Failure::NotSent), ..Answer::default() }; total];
    let mut store = |joined: Result<(usize, Answer), tokio::task::JoinError>| {
        if let Ok((index, answer)) = joined
            && let Some(place) = answers.get_mut(index)
        {
            *place = answer;
        }
    };
    let (begin, cpu) = (Instant::now(), cpu_time());
    for index in 0..total {
        let offset = load.requests.get(index).map_or(Duration::ZERO, |request| request.due);
        let due = begin + offset;
        if !offset.is_zero() {
            clock.sleep_until(due).await;
        }
        let waited = slots.available_permits() == 0;
        let slot = Arc::clone(&slots).acquire_owned().await;
        let allowed = if waited { last_finished.time().map(|at| at.max(due)) } else { None };
        // Requests that are all due at once have no schedule to be late for.
        let allowed = allowed.or((!offset.is_zero()).then_some(due));
        while let Some(joined) = in_flight.try_join_next() {
            store(joined);
        }
        let (load, connections) = (Arc::clone(&load), Arc::clone(&connections));
        let (lags, last_finished, finished) = (Arc::clone(&lags), Arc::clone(&last_finished), Arc::clone(&finished));
        in_flight.spawn(async move {
            let request = load.requests.get(index);
            let (request, output_tokens) = request.map_or((&[][..], 0), |it| (&it.bytes[..], it.output_tokens));
            if let Some(allowed) = allowed {
                lags.add_send(allowed.elapsed().as_secs_f64());
            }
            let (stall_timeout, keep_text) = (load.limits.stall_timeout, load.keep_texts);
            let outgoing = Outgoing { request, output_tokens, stall_timeout, keep_text, epoch: begin, due };
            let answer = send(outgoing, &connections).await;
            last_finished.set_now();
            drop(slot);
            finished.fetch_add(1, Ordering::Relaxed);
            (index, answer)
        });
    }
    while let Some(joined) = in_flight.join_next().await {
        store(joined);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let check = SelfCheck::new(&lags, cpu_time().saturating_sub(cpu), seconds);
    probe.abort();
    let offered = OfferedRate::new(&answers, &load.requests);
    Ok(Run { answers, seconds, offered, check })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn answers(sent: &[f64]) -> Vec<Answer> {
        sent.iter().map(|sent| Answer { sent: *sent, ..Answer::default() }).collect()
    }

    fn requests(due: &[u64]) -> Vec<Request> {
        let request = |due| Request { due: Duration::from_secs(due), bytes: Bytes::new(), output_tokens: 1 };
        due.iter().copied().map(request).collect()
    }

    #[test]
    fn the_rate_is_given_as_requested_and_as_sent() {
        let offered = OfferedRate::new(&answers(&[0.0, 2.0, 4.0]), &requests(&[0, 1, 2]));
        assert_eq!(offered, OfferedRate { requested: Some(1.0), sent: Some(0.5) });
        assert_eq!(OfferedRate::new(&answers(&[0.0, 1.0]), &requests(&[0, 0])), OfferedRate::default());
        assert_eq!(OfferedRate::new(&answers(&[0.0]), &requests(&[3])), OfferedRate::default());
    }
}
