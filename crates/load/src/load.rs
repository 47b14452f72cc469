//! A load: what is sent, when, to which server, and within which limits.

use std::time::Duration;

use bytes::Bytes;

use crate::server::Server;

/// Connections are opened before the start for the requests that are due within this time. Later requests mostly reuse
/// one of them.
const OPENED_FOR: Duration = Duration::from_secs(2);

/// A load: requests with their due times, the server, and limits.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub server: Server,
    /// The requests, in the order of their due times.
    pub requests: Vec<Request>,
    /// Limits of the client.
    pub limits: Limits,
    /// Whether the texts of the answers are kept.
    pub keep_texts: bool,
}

/// One request of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When it is due, from the start of the run.
    pub due: Duration,
    /// The whole HTTP request, as made by [`Server::request`].
    pub bytes: Bytes,
    /// Tokens that it asks for. An answer that is far longer is not read to its end.
    pub output_tokens: usize,
}

/// Limits of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most requests in flight at once; `None` is no limit.
    pub max_concurrency: Option<usize>,
    /// How long a server may send nothing before its request counts as failed.
    pub stall_timeout: Duration,
}

impl Load {
    /// Most connections that can be open at once.
    pub fn connections(&self) -> usize {
        self.limits.max_concurrency.unwrap_or(usize::MAX).min(self.requests.len())
    }

    /// The first request `times` times, all due at once: a ready check or a warm-up. `None` if the load is empty.
    pub fn first_repeated(&self, times: usize) -> Option<Self> {
        let request = Request { due: Duration::ZERO, ..self.requests.first()?.clone() };
        let requests = vec![request; times];
        Some(Self { server: self.server.clone(), requests, limits: self.limits, keep_texts: self.keep_texts })
    }

    /// Connections to open before the start. A request is timed from its sending, which must not include connecting.
    pub(crate) fn opened_ahead(&self) -> usize {
        self.connections().min(self.requests.partition_point(|request| request.due <= OPENED_FOR))
    }
}
