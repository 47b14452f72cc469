//! Connections to the server under load: opened before the clock starts, kept between requests. TCP, and TLS over it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Poll, Poll as State, Waker};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use rustls_platform_verifier::ConfigVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

/// Longest time to open a connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a connection may lie idle before it is not used again. uvicorn closes one after 5 s, and a request that is
/// sent while that happens is lost.
const IDLE: Duration = Duration::from_secs(3);

/// How many connections are opened at a time: below the usual backlog of a listening server.
const OPENED_AT_ONCE: usize = 64;

/// Bytes of what a connection reads at once.
const BUFFER: usize = 16 << 10;

/// What requests and answers go over.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// An open connection.
pub struct Connection {
    /// The connection itself.
    pub wire: Box<dyn Wire>,
    /// What was read last.
    pub buffer: Box<[u8]>,
}

impl Connection {
    /// Whether the server has neither closed it nor said anything unasked.
    fn is_quiet(&mut self) -> bool {
        let mut buffer = [0];
        let mut context = Poll::from_waker(Waker::noop());
        let read = std::pin::Pin::new(&mut self.wire).poll_read(&mut context, &mut ReadBuf::new(&mut buffer));
        matches!(read, State::Pending)
    }
}

/// Where a server is, and its connections that no request uses.
pub struct Connections {
    addresses: Vec<SocketAddr>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Each with the time since when it is idle; `None` for one that was never used.
    idle: Mutex<Vec<(Option<Instant>, Connection)>>,
}

impl Connections {
    /// Looks the server up. Nothing is opened.
    ///
    /// # Errors
    /// The name has no address, or there are no certificates for https.
    pub async fn to(url: &Url) -> Result<Self> {
        let host = url.host().with_context(|| format!("`{url}` names no host"))?;
        let port = url.port_or_known_default().with_context(|| format!("`{url}` has no port"))?;
        let name = host.to_string().trim_matches(['[', ']']).to_owned();
        let found = tokio::net::lookup_host((name.as_str(), port)).await;
        let addresses: Vec<_> = found.with_context(|| format!("cannot find the address of `{name}`"))?.collect();
        let tls = match url.scheme() {
            "http" => None,
            "https" => {
                let mut config = rustls::ClientConfig::with_platform_verifier().context("cannot set up TLS")?;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                let name = ServerName::try_from(name).context("cannot check the certificate of that host")?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
            other => bail!("`{other}` is neither http nor https"),
        };
        Ok(Self { addresses, tls, idle: Mutex::default() })
    }

    /// Opens `count` connections for later. Those that cannot be had are left to the requests that need them, so that
    /// the failure is theirs.
    pub async fn open_ahead(self: &Arc<Self>, count: usize) {
        let mut left = count;
        while left > 0 {
            let batch = left.min(OPENED_AT_ONCE);
            let opened = futures_util::future::join_all((0..batch).map(|_| self.open())).await;
            let opened: Vec<_> = opened.into_iter().flatten().map(|connection| (None, connection)).collect();
            if opened.is_empty() {
                return;
            }
            self.idle().extend(opened);
            left -= batch;
        }
    }

    /// A connection that can be written to: one that lies ready, else a new one.
    ///
    /// # Errors
    /// The server does not take it within [`PATIENCE`].
    pub async fn take(&self) -> Result<Connection> {
        loop {
            let Some((since, mut connection)) = self.idle().pop() else { return self.open().await };
            let fresh = since.is_none_or(|since| since.elapsed() < IDLE);
            if fresh && connection.is_quiet() {
                return Ok(connection);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub fn keep(&self, connection: Connection) {
        self.idle().push((Some(Instant::now()), connection));
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Option<Instant>, Connection)>> {
        // A list of connections cannot be half-changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<Connection> {
        let opening = async {
            let tcp = TcpStream::connect(self.addresses.as_slice()).await.context("cannot connect")?;
            // Without it small requests wait for acknowledgements; where it fails the connection is gone anyway.
            let _ = tcp.set_nodelay(true);
            let wire: Box<dyn Wire> = match &self.tls {
                None => Box::new(tcp),
                Some((tls, name)) => Box::new(tls.connect(name.clone(), tcp).await.context("cannot set up TLS")?),
            };
            Ok(Connection { wire, buffer: vec![0; BUFFER].into_boxed_slice() })
        };
        let opened = tokio::time::timeout(PATIENCE, opening).await;
        opened.with_context(|| format!("not connected within {} s", PATIENCE.as_secs()))?
    }
}
