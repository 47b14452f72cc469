//! Runs a load: a request is sent when it is due and fewer than the most requests are in flight. Everything runs on one
//! thread of its own, so that its share of a core can be measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::answer::Answer;
use crate::clock::Clock;
use crate::connection::Connections;
use crate::failure::Failure;
use crate::load::{Load, Request};
use crate::request::{Outgoing, send};
use crate::self_check::{LagSamples, SelfCheck, cpu_time};
use crate::turns::Turns;

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
        // Of an interrupted run, the requests that were sent.
        let was_sent = |answer: &Answer| answer.failure != Some(Failure::NotSent);
        let sent = || answers.iter().zip(requests).filter(|(answer, _)| was_sent(answer));
        let requested = rate(&mut sent().map(|(_, request)| request.due.as_secs_f64()));
        let sent = requested.and_then(|_| rate(&mut sent().map(|(answer, _)| answer.sent)));
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
    run_until(load, std::future::pending(), progress).await
}

/// [`run`], which ends early when `stop` completes: requests without an answer by then are [`Failure::NotSent`].
///
/// # Errors
/// Those of [`run`].
pub async fn run_until(load: &Load, stop: impl Future<Output = ()>, progress: impl Fn(usize, usize)) -> Result<Run> {
    let finished = Arc::new(AtomicUsize::new(0));
    let (sender, mut run) = oneshot::channel();
    let (stopper, stopped) = oneshot::channel();
    let mut stopper = Some(stopper);
    let worker = {
        let (load, finished) = (load.clone(), Arc::clone(&finished));
        move || run_on_this_thread(load, finished, sender, stopped)
    };
    thread::Builder::new().name("load".to_owned()).spawn(worker).context("cannot start the thread of the client")?;
    let total = load.requests.len();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            run = &mut run => {
                progress(finished.load(Ordering::Relaxed), total);
                return run.context("the thread of the client ended early")?;
            }
            () = &mut stop, if stopper.is_some() => {
                let _ = stopper.take().map(|stopper| stopper.send(()));
            }
            () = tokio::time::sleep(PROGRESS) => progress(finished.load(Ordering::Relaxed), total),
        }
    }
}

/// Runs `load` and sends the outcome; ends early if the receiver is dropped.
fn run_on_this_thread(
    load: Load,
    finished: Arc<AtomicUsize>,
    mut sender: oneshot::Sender<Result<Run>>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let run = match runtime.context("cannot start the client") {
        Err(error) => Some(Err(error)),
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                run = run_requests(load, finished, stopped) => Some(run),
                () = sender.closed() => None,
            }
        }),
    };
    if let Some(run) = run {
        let _ = sender.send(run);
    }
}

/// Places for requests in flight: a request takes the one that has been free for longest.
struct Slots {
    free: mpsc::UnboundedReceiver<Slot>,
}

/// A place, and since when it is free; `None` if it was never taken.
struct Slot {
    freed: Option<Instant>,
    back: mpsc::UnboundedSender<Slot>,
}

impl Slots {
    fn new(count: usize) -> Self {
        let (back, free) = mpsc::unbounded_channel();
        for _ in 0..count {
            let _ = back.send(Slot { freed: None, back: back.clone() });
        }
        Self { free }
    }

    async fn take(&mut self) -> Option<Slot> {
        self.free.recv().await
    }
}

impl Slot {
    fn free(self) {
        let back = self.back.clone();
        let _ = back.send(Self { freed: Some(Instant::now()), ..self });
    }
}

async fn run_requests(load: Load, finished: Arc<AtomicUsize>, stopped: oneshot::Receiver<()>) -> Result<Run> {
    let clock = Arc::new(Clock::start().context("cannot start the clock of the client")?);
    let connections = Arc::new(Connections::resolve(&load.server).await?);
    connections.open_ahead(load.opened_ahead()).await;

    let (lags, turns) = (Arc::new(LagSamples::default()), Arc::new(Turns::start()));
    let probe = tokio::spawn(Arc::clone(&lags).probe(Arc::clone(&clock), Arc::clone(&turns)));
    let mut answers = vec![Answer { failure: Some(Failure::NotSent), ..Answer::default() }; load.requests.len()];
    let (begin, cpu) = (Instant::now(), cpu_time());
    let client = Client { load: Arc::new(load), connections, clock, lags, turns, finished, begin };
    tokio::select! {
        () = client.send_all(&mut answers) => {}
        // Where the sender is gone, the run cannot be stopped.
        () = async { if stopped.await.is_err() { std::future::pending().await } } => {}
    }
    let seconds = begin.elapsed().as_secs_f64();
    let check = SelfCheck::new(&client.lags, &client.turns, cpu_time().saturating_sub(cpu), seconds);
    probe.abort();
    if client.turns.come_together() {
        answers.iter_mut().for_each(|answer| answer.client.estimated.clear());
    }
    let offered = OfferedRate::new(&answers, &client.load.requests);
    Ok(Run { answers, seconds, offered, check })
}

/// What the requests of a load share.
struct Client {
    load: Arc<Load>,
    connections: Arc<Connections>,
    clock: Arc<Clock>,
    lags: Arc<LagSamples>,
    turns: Arc<Turns>,
    finished: Arc<AtomicUsize>,
    begin: Instant,
}

impl Client {
    /// Sends every request when it is due and has a place, and stores the answers as they end.
    async fn send_all(&self, answers: &mut [Answer]) {
        let mut slots = Slots::new(self.load.connections().max(1));
        let mut in_flight = JoinSet::new();
        let mut store = |joined: Result<(usize, Answer), tokio::task::JoinError>| {
            if let Ok((index, answer)) = joined
                && let Some(place) = answers.get_mut(index)
            {
                *place = answer;
            }
        };
        for (index, request) in self.load.requests.iter().enumerate() {
            let due = self.begin + request.due;
            if !request.due.is_zero() {
                self.clock.sleep_until(due).await;
            }
            let Some(slot) = slots.take().await else { break };
            // Requests that are all due at once, and have a place, have no schedule to be late for.
            let allowed = match slot.freed {
                Some(freed) => Some(freed.max(due)),
                None => (!request.due.is_zero()).then_some(due),
            };
            while let Some(joined) = in_flight.try_join_next() {
                store(joined);
            }
            in_flight.spawn(self.send_one(index, due, allowed, slot));
        }
        while let Some(joined) = in_flight.join_next().await {
            store(joined);
        }
    }

    /// Sends one request, which could be sent from `allowed` on.
    fn send_one(
        &self,
        index: usize,
        due: Instant,
        allowed: Option<Instant>,
        slot: Slot,
    ) -> impl Future<Output = (usize, Answer)> + use<> {
        let (load, connections, epoch) = (Arc::clone(&self.load), Arc::clone(&self.connections), self.begin);
        let (lags, turns, finished) = (Arc::clone(&self.lags), Arc::clone(&self.turns), Arc::clone(&self.finished));
        async move {
            let request = load.requests.get(index);
            let (request, output_tokens) = request.map_or((&[][..], 0), |it| (&it.bytes[..], it.output_tokens));
            if let Some(allowed) = allowed {
                lags.add_send(allowed.elapsed().as_secs_f64());
            }
            let (stall_timeout, keep_text) = (load.limits.stall_timeout, load.keep_texts);
            let is_whole = load.server.has_whole_answers();
            let outgoing = Outgoing { request, output_tokens, stall_timeout, is_whole, keep_text, epoch, due };
            let answer = send(outgoing, &connections, &turns).await;
            slot.free();
            finished.fetch_add(1, Ordering::Relaxed);
            (index, answer)
        }
    }
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
