//! The simulated vLLM as a server in this process, for its own benchmarks.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use reqwest::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use url::Url;
use vllm_load::prompts::{self, RandomPrompts};
use vllm_load::sim::{self, Pace, Simulation};
use vllm_load::{Api, HeaderMap, Limits, Load, Request, Sampling, Server, open_files};

use crate::environment::Environment;
use crate::exit::Classify;
use crate::run::native_client::draw::{find_tokenizer, open_tokenizer};

/// How long a server may send nothing: longer than any pace.
const STALL_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Interval at which a starting server is checked.
const READY_POLL: Duration = Duration::from_millis(1);

/// The simulation of a model. Its tokenizer counts prompts if it is on this machine.
pub fn simulation(pace: Pace, model: impl Into<String>, env: &Environment) -> Simulation {
    let model = model.into();
    let model_folder = find_tokenizer(&model, env);
    Simulation { model_folder, ..Simulation::new(pace, model) }
}

/// A simulated server in this process, on a free port of the loopback interface.
pub struct LoopbackServer {
    url: Url,
    model: String,
    env: Environment,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<()>>,
}

impl LoopbackServer {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// No port can be opened, or the server ends.
    pub async fn start(pace: Pace, model: &str, env: &Environment) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen on loopback")?;
        let address = listener.local_addr().context("cannot read the address that was bound")?;
        let url = Url::parse(&format!("http://{address}/")).context("cannot make the URL of the simulated server")?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn({
            let (model, env) = (model.to_owned(), env.clone());
            async move {
                let shutdown = async {
                    let _ = stopped.await;
                };
                sim::serve(simulation(pace, &model, &env), listener, shutdown).await
            }
        });
        let server = Self { url, model: model.to_owned(), env: env.clone(), stop, serving };
        server.ready().await?;
        Ok(server)
    }

    async fn ready(&self) -> Result<()> {
        let http = http(&self.url)?;
        let health = self.url.join("health").context("cannot make the URL of the simulated server")?;
        while !self.serving.is_finished() {
            let answer = http.get(health.clone()).send().await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return Ok(());
            }
            tokio::time::sleep(READY_POLL).await;
        }
        bail!("the simulated vLLM ended before it was ready")
    }

    /// A load of random prompts for this server, all due at once.
    ///
    /// # Errors
    /// The prompts have no token (exit 2), or the system does not allow enough connections.
    pub async fn load(&self, spec: RandomPrompts, max_concurrency: Option<usize>) -> Result<Load> {
        // Both ends of every connection are in this process.
        let connections = max_concurrency.unwrap_or(spec.prompts).min(spec.prompts);
        open_files::allow(2 * connections as u64)?;
        let tokenizer = open_tokenizer(&self.model, &self.env)?;
        let prompts = prompts::random(&spec, tokenizer.as_ref())
            .map_err(|error| anyhow!("{error}; raise --input-len"))
            .mistake()?;
        let url = self.url.join("v1/completions").context("cannot make the URL of the simulated server")?;
        let server = Server::new(url, HeaderMap::new());
        let sampling = Sampling::from_iter([("ignore_eos".to_owned(), true.into())]);
        let requests = prompts.iter().map(|prompt| {
            let body = Api::Completions.body(&self.model, prompt, &sampling)?;
            Ok(Request { due: Duration::ZERO, bytes: server.request(&body), output_tokens: prompt.output_tokens })
        });
        let requests = requests.collect::<Result<_>>()?;
        Ok(Load {
            server,
            requests,
            limits: Limits { max_concurrency, stall_timeout: STALL_TIMEOUT },
            keep_texts: false,
        })
    }

    /// Stops the server.
    ///
    /// # Errors
    /// It had ended with an error.
    pub async fn stop(self) -> Result<()> {
        // The receiver is dropped only if the server has ended, and then `serving` has the error.
        let _ = self.stop.send(());
        self.serving.await.context("cannot stop the simulated vLLM")?
    }
}

/// An HTTP client for `url`, without a proxy.
fn http(url: &Url) -> Result<reqwest::Client> {
    let builder =
        reqwest::Client::builder().no_proxy().http1_only().tcp_nodelay(true).pool_max_idle_per_host(usize::MAX);
    // Plain http needs no certificates, and a minimal image has none.
    let builder = if url.scheme() == "http" { builder.tls_certs_only([]) } else { builder };
    builder.build().context("cannot set up the HTTP client")
}
