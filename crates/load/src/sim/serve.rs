//! The server of the simulated vLLM: the part of the OpenAI interface that a load client uses, paced by absolute
//! deadlines, so that lateness never adds up. It reads its sockets itself, so that it knows when a request had arrived.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal};
use serde::Serialize;
use tokenizers::Tokenizer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;

use super::fault::{Fault, Kind};
use super::message::{self, Message};
use super::order::{Order, Prompt, Shape};
use super::pacer::{Pacer, Shared, Stream};
use super::script::{Answer, Ending, response};
use super::trace::{Pen, Trace};
use super::{Pace, Simulation};
use crate::prompts;

/// What `/version` and `--version` say.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+sim");

/// How long streams may go on after the shutdown began.
const GRACE: Duration = Duration::from_secs(1);

/// How often to look whether the last streams have ended.
const POLL: Duration = Duration::from_millis(5);

/// How long to wait where the system has no file left for another connection.
const NO_FILE: Duration = Duration::from_millis(10);

/// Serves until `shutdown` is done. Prompts are counted with the model's own tokenizer where the simulation names its
/// folder; otherwise a word counts as a token.
///
/// # Errors
/// The tokenizer file or the trace file fails, or the system has no thread to give.
pub async fn serve(
    simulation: Simulation,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let Simulation { pace, model, model_folder, faults, trace } = simulation;
    let trace = trace.as_deref().map(Trace::to).transpose()?;
    let server = Arc::new(Server {
        ready_at: Instant::now() + pace.startup,
        running: Arc::new(Semaphore::new(pace.max_num_seqs.min(Semaphore::MAX_PERMITS))),
        spread: LogNormal::new(0.0, pace.jitter).context("cannot spread the pace")?,
        pacer: Pacer::start().context("cannot start the pacer of the simulated vLLM")?,
        tokenizer: model_folder.as_deref().map(prompts::open_encoder).transpose()?,
        requests: AtomicU64::new(0),
        answering: AtomicUsize::new(0),
        trace: trace.as_ref().map(Trace::pen),
        faults,
        model,
        pace,
    });
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    // Without it small chunks wait for acknowledgements; where it fails the connection is gone anyway.
                    let _ = socket.set_nodelay(true);
                    connections.spawn(Arc::clone(&server).converse(Arc::new(socket)));
                    while connections.try_join_next().is_some() {}
                }
                Err(_) => tokio::time::sleep(NO_FILE).await,
            },
            () = &mut shutdown => break,
        }
    }
    drop(listener);
    let end = Instant::now() + GRACE;
    while server.answering.load(Ordering::Relaxed) > 0 && Instant::now() < end {
        tokio::time::sleep(POLL).await;
    }
    connections.shutdown().await;
    drop(server);
    trace.map_or(Ok(()), Trace::finish)
}

struct Server {
    pace: Pace,
    model: String,
    faults: Vec<Fault>,
    tokenizer: Option<Tokenizer>,
    pacer: Pacer,
    trace: Option<Pen>,
    running: Arc<Semaphore>,
    spread: LogNormal<f64>,
    ready_at: Instant,
    requests: AtomicU64,
    /// Answers under way.
    answering: AtomicUsize,
}

/// What a request gets.
enum Reply {
    /// These bytes.
    Whole(Vec<u8>),
    /// An answer at its pace.
    Paced(Box<Stream>, oneshot::Receiver<Ending>),
}

impl Server {
    /// Answers the requests of one connection, one after another.
    async fn converse(self: Arc<Self>, socket: Arc<TcpStream>) {
        let mut buffer = Vec::new();
        loop {
            let (reply, length, keep) = match message::read(&buffer) {
                Ok(message::Arrived::Whole(message)) => {
                    let arrived = Instant::now();
                    (self.reply(&message, arrived, &socket).await, message.length, message.keep)
                }
                Ok(message::Arrived::Part { expects }) => {
                    if expects && write(&socket, b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
                        return;
                    }
                    match read(&socket, &mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(_) => continue,
                    }
                }
                Err(status) => (Reply::Whole(refusal(status, "the request cannot be read")), buffer.len(), false),
            };
            buffer.drain(..length);
            let ending = match reply {
                Reply::Whole(bytes) => write(&socket, &bytes).await.map_or(Ending::Close, |()| Ending::Whole),
                Reply::Paced(stream, ended) => self.play(*stream, ended, &socket, &mut buffer).await,
            };
            match ending {
                Ending::Whole if keep => {}
                Ending::Reset => {
                    // Closing then sends a reset.
                    let _ = socket.set_zero_linger();
                    return;
                }
                _ => return,
            }
        }
    }

    /// Waits until the answer has ended or its client is gone.
    async fn play(
        &self,
        stream: Stream,
        mut ended: oneshot::Receiver<Ending>,
        socket: &TcpStream,
        buffer: &mut Vec<u8>,
    ) -> Ending {
        let _answering = Answering::begin(&self.answering);
        let shared = Revoked(self.pacer.play(stream));
        loop {
            tokio::select! {
                biased;
                ending = &mut ended => return ending.unwrap_or(Ending::Close),
                read = read(socket, buffer) => if !matches!(read, Ok(1..)) {
                    drop(shared);
                    return Ending::Close;
                },
            }
        }
    }

    async fn reply(&self, message: &Message<'_>, arrived: Instant, socket: &Arc<TcpStream>) -> Reply {
        let shape = match (message.method, message.path) {
            ("POST", "/v1/completions") => Shape::Completion,
            ("POST", "/v1/chat/completions") => Shape::Chat,
            ("GET", path) => return Reply::Whole(self.look_up(path)),
            (_, path) => return Reply::Whole(refusal(404, &format!("there is no `{path}`"))),
        };
        self.answer(message.body, shape, arrived, socket).await.unwrap_or_else(Reply::Whole)
    }

    fn look_up(&self, path: &str) -> Vec<u8> {
        #[derive(Serialize)]
        struct Version {
            version: &'static str,
        }
        #[derive(Serialize)]
        struct Model<'a> {
            id: &'a str,
            object: &'static str,
            owned_by: &'static str,
            root: &'a str,
        }
        #[derive(Serialize)]
        struct Models<'a> {
            object: &'static str,
            data: [Model<'a>; 1],
        }
        let id = &self.model;
        match path {
            "/version" => json(200, &Version { version: VERSION }),
            "/health" | "/v1/models" if Instant::now() < self.ready_at => refusal(503, LOADING),
            "/health" => response(200, "text/plain", b""),
            "/v1/models" => {
                let model = Model { id, object: "model", owned_by: "vllm-perf", root: id };
                json(200, &Models { object: "list", data: [model] })
            }
            _ => refusal(404, &format!("there is no `{path}`")),
        }
    }

    /// What a completion gets; an error is the refusal.
    async fn answer(
        &self,
        body: &[u8],
        shape: Shape,
        arrived: Instant,
        socket: &Arc<TcpStream>,
    ) -> Result<Reply, Vec<u8>> {
        if Instant::now() < self.ready_at {
            return Err(refusal(503, LOADING));
        }
        let (order, prompt) = Order::read(body, shape).map_err(|why| refusal(400, &why))?;
        if let Some(model) = order.model.as_ref().filter(|model| **model != self.model) {
            return Err(refusal(404, &format!("the model `{model}` does not exist")));
        }
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        let fault = Fault::of(&self.faults, id + 1);
        if let Some(Kind::Status(status)) = fault {
            return Err(refusal(status, "simulated"));
        }
        let prompt_tokens = self.prompt_tokens(&prompt);
        let answer = Answer { shape, id, model: &self.model, prompt_tokens, tokens: order.tokens() };
        let script = if order.stream { answer.streamed(order.include_usage(), fault) } else { answer.whole() };

        let mut random = ChaCha8Rng::seed_from_u64(self.pace.seed);
        random.set_stream(id);
        let mut spread = (self.pace.jitter > 0.0).then_some((self.spread, random));
        let ttft = match &mut spread {
            Some((spread, random)) => self.pace.ttft.mul_f64(spread.sample(random)),
            None => self.pace.ttft,
        };
        let (place, taken_up) = self.place(arrived).await?;
        let (ended, told) = oneshot::channel();
        let stream = Stream {
            socket: Arc::clone(socket),
            script,
            deadline: taken_up + ttft,
            itl: self.pace.itl,
            spread,
            request: id + 1,
            accepted: arrived,
            _place: place,
            ended: Some(ended),
            trace: self.trace.clone().filter(|_| order.stream),
            sent: 0,
            times: Vec::new(),
            unwritten: Vec::new(),
        };
        Ok(Reply::Paced(Box::new(stream), told))
    }

    /// A place among the requests that run. One that finds a place is timed from its arrival; one that has to wait, from
    /// when a place is free.
    async fn place(&self, arrived: Instant) -> Result<(OwnedSemaphorePermit, Instant), Vec<u8>> {
        if let Ok(place) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok((place, arrived));
        }
        let place = Arc::clone(&self.running).acquire_owned().await;
        let place = place.map_err(|_| refusal(503, "the server is shutting down"))?;
        Ok((place, Instant::now()))
    }

    fn prompt_tokens(&self, prompt: &Prompt) -> usize {
        let text = match prompt {
            Prompt::Tokens(count) => return *count,
            Prompt::Text(text) => text,
        };
        let encoded = self.tokenizer.as_ref().and_then(|tokenizer| tokenizer.encode_fast(text.as_str(), true).ok());
        encoded.map_or_else(|| text.split_whitespace().count(), |encoding| encoding.len())
    }
}

/// What a server says that is not ready.
const LOADING: &str = "the model is still loading";

/// Counts an answer for as long as it is under way.
struct Answering<'a>(&'a AtomicUsize);

impl<'a> Answering<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer that is taken back from the pacer when this is dropped: its place is free again, and the trace is told.
struct Revoked(Shared);

impl Drop for Revoked {
    fn drop(&mut self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// An answer that is not 200, in the shape of vLLM's errors.
fn refusal(status: u16, message: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Failure<'a> {
        message: &'a str,
        r#type: &'static str,
        code: u16,
    }
    #[derive(Serialize)]
    struct Refused<'a> {
        error: Failure<'a>,
    }
    let r#type = if status < 500 { "BadRequestError" } else { "InternalServerError" };
    json(status, &Refused { error: Failure { message, r#type, code: status } })
}

fn json(status: u16, value: &impl Serialize) -> Vec<u8> {
    // Plain structs of strings and numbers always print.
    response(status, "application/json", &serde_json::to_vec(value).unwrap_or_default())
}

/// Adds what arrives to `buffer`; how many bytes.
async fn read(socket: &TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
    loop {
        socket.readable().await?;
        match socket.try_read_buf(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

async fn write(socket: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
