//! The server of the simulated vLLM. Tokens have absolute deadlines, so that lateness does not add up. It reads its sockets
//! itself, so that it knows when a request arrived.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal};
use tokenizers::Tokenizer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;

use super::completion_request::{CompletionRequest, RequestPrompt};
use super::fault::Fault;
use super::http_request::{self, HttpRequest, Parsed};
use super::pace::Pace;
use super::pacer::{PacedResponse, Pacer, ResponseTrace, SharedResponse, TokenTiming};
use super::plain_response::{LOADING, error, lookup};
use super::response_script::{Ending, ResponseContent};
use super::simulation::Simulation;
use super::trace::{TraceFile, TraceSender};
use crate::api::Api;
use crate::prompts::open_encoder;
use crate::wire;

/// How long responses may continue after the shutdown began.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

/// Interval at which the shutdown checks whether all responses have ended.
const SHUTDOWN_POLL: Duration = Duration::from_millis(5);

/// Pause after a connection could not be accepted, for example because too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Serves until `shutdown` completes, then lets responses end for at most one second. The tokens of a prompt are counted
/// with the tokenizer of the model if the simulation has its folder; otherwise a word counts as a token.
///
/// # Errors
/// The tokenizer cannot be read, the trace cannot be written, or no thread can be started.
pub async fn serve(
    simulation: Simulation,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let Simulation { pace, model, model_folder, faults, trace } = simulation;
    let trace = trace.as_deref().map(TraceFile::create).transpose()?;
    let server = Arc::new(SimServer {
        ready_at: Instant::now() + pace.startup,
        running: Arc::new(Semaphore::new(pace.max_num_seqs.min(Semaphore::MAX_PERMITS))),
        spread: LogNormal::new(0.0, pace.jitter).context("cannot spread the pace")?,
        pacer: Pacer::start().context("cannot start the pacer of the simulated vLLM")?,
        tokenizer: model_folder.as_deref().map(open_encoder).transpose()?,
        requests: AtomicU64::new(0),
        active: AtomicUsize::new(0),
        trace: trace.as_ref().map(TraceFile::sender),
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
                    wire::note_arrivals(&socket);
                    connections.spawn(Arc::clone(&server).serve_connection(Arc::new(socket)));
                    while connections.try_join_next().is_some() {}
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            () = &mut shutdown => break,
        }
    }
    drop(listener);
    let end = Instant::now() + SHUTDOWN_LIMIT;
    while server.active.load(Ordering::Relaxed) > 0 && Instant::now() < end {
        tokio::time::sleep(SHUTDOWN_POLL).await;
    }
    connections.shutdown().await;
    drop(server);
    trace.map_or(Ok(()), TraceFile::finish)
}

/// Most bytes of one read.
const READ_BYTES: usize = 16 << 10;

struct SimServer {
    pace: Pace,
    model: String,
    faults: Vec<Fault>,
    tokenizer: Option<Tokenizer>,
    pacer: Pacer,
    trace: Option<TraceSender>,
    running: Arc<Semaphore>,
    spread: LogNormal<f64>,
    ready_at: Instant,
    requests: AtomicU64,
    /// Responses that are being written.
    active: AtomicUsize,
}

/// The response to a request.
enum ServerResponse {
    /// Bytes that are written at once.
    Plain(Vec<u8>),
    /// A response with a pace, and how it ended.
    Paced(Box<PacedResponse>, oneshot::Receiver<Ending>),
}

impl SimServer {
    /// Responds to the requests of one connection, one after another.
    async fn serve_connection(self: Arc<Self>, socket: Arc<TcpStream>) {
        let (mut buffer, mut arrived) = (Vec::new(), Instant::now());
        loop {
            let (response, length, keep) = match http_request::parse(&buffer) {
                Ok(Parsed::Complete(request)) => {
                    (self.respond(&request, arrived, &socket).await, request.length, request.keep)
                }
                Ok(Parsed::Partial { expects }) => {
                    if expects && write(&socket, b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
                        return;
                    }
                    match read(&socket, &mut buffer).await {
                        Ok(wire::Read { length: 0, .. }) | Err(_) => return,
                        Ok(read) => {
                            arrived = read.arrived;
                            continue;
                        }
                    }
                }
                Err(status) => {
                    (ServerResponse::Plain(error(status, "the request cannot be read")), buffer.len(), false)
                }
            };
            buffer.drain(..length);
            let ending = match response {
                ServerResponse::Plain(bytes) => {
                    write(&socket, &bytes).await.map_or(Ending::Close, |()| Ending::Complete)
                }
                ServerResponse::Paced(response, ended) => {
                    self.write_paced(*response, ended, &socket, (&mut buffer, &mut arrived)).await
                }
            };
            match ending {
                Ending::Complete if keep => {}
                Ending::Reset => {
                    // Closing the socket then sends a reset.
                    let _ = socket.set_zero_linger();
                    return;
                }
                _ => return,
            }
        }
    }

    /// Waits until the response has ended or the client has closed the connection.
    async fn write_paced(
        &self,
        response: PacedResponse,
        mut ended: oneshot::Receiver<Ending>,
        socket: &TcpStream,
        (buffer, arrived): (&mut Vec<u8>, &mut Instant),
    ) -> Ending {
        let _active = ActiveCount::new(&self.active);
        let shared = WithdrawOnDrop(self.pacer.start_writing(response));
        loop {
            tokio::select! {
                biased;
                ending = &mut ended => return ending.unwrap_or(Ending::Close),
                read = read(socket, buffer) => match read {
                    // The next request came before the end of this response was noticed.
                    Ok(read) if read.length > 0 => *arrived = read.arrived,
                    _ => {
                        drop(shared);
                        return Ending::Close;
                    }
                },
            }
        }
    }

    async fn respond(&self, request: &HttpRequest<'_>, arrived: Instant, socket: &Arc<TcpStream>) -> ServerResponse {
        let api = match (request.method, request.path) {
            ("POST", "/v1/completions") => Api::Completions,
            ("POST", "/v1/chat/completions") => Api::Chat,
            ("POST", "/v1/embeddings") => Api::Embeddings,
            ("POST", "/pooling") => Api::Pooling,
            ("GET", path) => return ServerResponse::Plain(lookup(path, &self.model, self.is_ready())),
            (_, path) => return ServerResponse::Plain(error(404, &format!("there is no `{path}`"))),
        };
        self.complete(request.body, api, arrived, socket).await.unwrap_or_else(ServerResponse::Plain)
    }

    fn is_ready(&self) -> bool {
        Instant::now() >= self.ready_at
    }

    /// The response to a completion; the error is an error response.
    async fn complete(
        &self,
        body: &[u8],
        api: Api,
        arrived: Instant,
        socket: &Arc<TcpStream>,
    ) -> Result<ServerResponse, Vec<u8>> {
        if !self.is_ready() {
            return Err(error(503, LOADING));
        }
        let (request, prompts) = CompletionRequest::parse(body, api).map_err(|why| error(400, &why))?;
        if let Some(model) = request.model.as_ref().filter(|model| **model != self.model) {
            return Err(error(404, &format!("the model `{model}` does not exist")));
        }
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        let fault = Fault::of(&self.faults, id + 1);
        let prompt_tokens = prompts.iter().map(|prompt| self.prompt_tokens(prompt)).sum();
        let (tokens, prompts) = (request.tokens(), prompts.len());
        let content = ResponseContent { api, id, model: &self.model, prompts, prompt_tokens, tokens };
        if let Some(plain) = fault.and_then(|fault| content.plain(fault)) {
            return Err(plain);
        }
        let script = if request.stream && api.generates() {
            content.streamed(request.include_usage(), fault)
        } else {
            content.unstreamed()
        };

        let mut random = ChaCha8Rng::seed_from_u64(self.pace.seed);
        random.set_stream(id);
        let mut spread = (self.pace.jitter > 0.0).then_some((self.spread, random));
        let ttft = match &mut spread {
            Some((spread, random)) => self.pace.ttft.mul_f64(spread.sample(random)),
            None => self.pace.ttft,
        };
        let (slot, started) = self.slot(arrived).await?;
        // If it fails, so does the rest.
        let _ = write(socket, &script.at_once).await;
        let (ended, ending) = oneshot::channel();
        let trace = self.trace.clone().filter(|_| request.stream).map(|sender| ResponseTrace {
            sender,
            request: id + 1,
            accepted: arrived,
            tokens: Vec::new(),
        });
        let response = PacedResponse {
            socket: Arc::clone(socket),
            script,
            timing: TokenTiming { deadline: started + ttft, itl: self.pace.itl, spread },
            _slot: slot,
            ended: Some(ended),
            trace,
            sent: 0,
            unwritten: Vec::new(),
        };
        Ok(ServerResponse::Paced(Box::new(response), ending))
    }

    /// A slot among the requests that run, and the start of the request: its arrival, or the time when a slot became free if
    /// it had to wait.
    async fn slot(&self, arrived: Instant) -> Result<(OwnedSemaphorePermit, Instant), Vec<u8>> {
        if let Ok(slot) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok((slot, arrived));
        }
        let slot = Arc::clone(&self.running).acquire_owned().await;
        let slot = slot.map_err(|_| error(503, "the server is shutting down"))?;
        Ok((slot, Instant::now()))
    }

    fn prompt_tokens(&self, prompt: &RequestPrompt) -> usize {
        let text = match prompt {
            RequestPrompt::Tokens(count) => return *count,
            RequestPrompt::Text(text) => text,
        };
        let encoded = self.tokenizer.as_ref().and_then(|tokenizer| tokenizer.encode_fast(text.as_str(), true).ok());
        encoded.map_or_else(|| text.split_whitespace().count(), |encoding| encoding.len())
    }
}

/// Counts a response while it is being written.
struct ActiveCount<'a>(&'a AtomicUsize);

impl<'a> ActiveCount<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for ActiveCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a response back from the pacer when this is dropped, which frees its slot and completes its trace.
struct WithdrawOnDrop(SharedResponse);

impl Drop for WithdrawOnDrop {
    fn drop(&mut self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Reads the next bytes into `buffer`. Gives their number, and when they arrived.
async fn read(socket: &TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<wire::Read> {
    let mut bytes = [0; READ_BYTES];
    let read = wire::read(socket, &mut bytes).await?;
    buffer.extend_from_slice(bytes.get(..read.length).unwrap_or_default());
    Ok(read)
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
