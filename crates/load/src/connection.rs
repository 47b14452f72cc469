//! Connections to the server under load: opened before the clock starts, kept between requests. TCP, and TLS over it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::certificates::Certificates;
use crate::server::Server;
use crate::wire::Wire;

/// Longest time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection that was idle for longer is not reused. uvicorn closes an idle connection after 5 s, and a request that is
/// sent at that moment is lost.
const REUSED_WITHIN: Duration = Duration::from_secs(3);

/// How many connections are opened at a time: below the usual backlog of a listening server.
const OPENED_AT_ONCE: usize = 64;

/// Size of the read buffer of a connection, in bytes.
const BUFFER_BYTES: usize = 16 << 10;

/// An open connection.
pub struct Connection {
    pub wire: Wire,
    /// The bytes of the last read.
    pub buffer: Box<[u8]>,
    /// Whether it was open before its request.
    pub was_idle: bool,
}

/// The addresses of a server, and the open connections that no request uses.
pub struct Connections {
    addresses: Vec<SocketAddr>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Each with the time of its last use; `None` if it was never used.
    idle: Mutex<Vec<(Option<Instant>, Connection)>>,
}

impl Connections {
    /// Resolves the address of the server. No connection is opened.
    ///
    /// # Errors
    /// The name cannot be resolved, or TLS cannot be set up for https.
    pub async fn resolve(server: &Server) -> Result<Self> {
        let url = server.url();
        let host = url.host().with_context(|| format!("`{url}` names no host"))?;
        let port = url.port_or_known_default().with_context(|| format!("`{url}` has no port"))?;
        let name = host.to_string().trim_matches(['[', ']']).to_owned();
        let found = tokio::net::lookup_host((name.as_str(), port)).await;
        let addresses: Vec<_> = found.with_context(|| format!("cannot resolve `{name}`"))?.collect();
        let tls = match url.scheme() {
            "http" => None,
            "https" => {
                let mut config = tls_config(server.is_insecure()).context("cannot set up TLS")?;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                let name = ServerName::try_from(name).context("cannot check the certificate of the host")?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
            other => bail!("`{other}` is neither http nor https"),
        };
        Ok(Self { addresses, tls, idle: Mutex::default() })
    }

    /// Opens `count` connections for later use. Errors are ignored: a request without a connection opens one itself and
    /// reports the failure.
    pub async fn open_ahead(self: &Arc<Self>, count: usize) {
        let mut remaining = count;
        while remaining > 0 {
            let batch = remaining.min(OPENED_AT_ONCE);
            let opened = futures_util::future::join_all((0..batch).map(|_| self.open())).await;
            let opened: Vec<_> = opened.into_iter().flatten().map(|connection| (None, connection)).collect();
            if opened.is_empty() {
                return;
            }
            self.idle().extend(opened);
            remaining -= batch;
        }
    }

    /// A connection that can be written to: an idle one, or else a new one.
    ///
    /// # Errors
    /// The server does not accept it within [`CONNECT_TIMEOUT`].
    pub async fn take(&self) -> Result<Connection> {
        loop {
            let Some((since, mut connection)) = self.idle().pop() else { return self.open().await };
            let fresh = since.is_none_or(|since| since.elapsed() < REUSED_WITHIN);
            if fresh && connection.wire.is_quiet() {
                return Ok(Connection { was_idle: true, ..connection });
            }
        }
    }

    /// Keeps a connection for the next request.
    pub fn keep(&self, connection: Connection) {
        self.idle().push((Some(Instant::now()), connection));
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Option<Instant>, Connection)>> {
        // A push or pop cannot leave the list half-changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection.
    ///
    /// # Errors
    /// The server does not accept it within [`CONNECT_TIMEOUT`].
    pub async fn open(&self) -> Result<Connection> {
        let opening = async {
            let tcp = TcpStream::connect(self.addresses.as_slice()).await.context("cannot connect")?;
            let wire = match &self.tls {
                None => Wire::tcp(tcp),
                Some((tls, name)) => {
                    // Without it small requests wait for acknowledgements. If it fails, the connection is closed already.
                    let _ = tcp.set_nodelay(true);
                    let connecting = tls.connect(name.clone(), tcp);
                    Wire::Tls(Box::new(connecting.await.context("cannot set up TLS")?))
                }
            };
            Ok(Connection { wire, buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), was_idle: false })
        };
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, opening).await;
        opened.with_context(|| format!("not connected within {} s", CONNECT_TIMEOUT.as_secs()))?
    }
}

/// TLS with the certificates of the system, or with any. The provider is named, so that no process-wide default is needed.
fn tls_config(insecure: bool) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = match insecure {
        true => Certificates::any(&provider),
        false => Certificates::of_system(Arc::clone(&provider))?,
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}
