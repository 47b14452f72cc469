//! One server of one side: start, wait until it is ready, stop.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use super::side_run::SideRun;
use crate::exit::Classify;
use crate::plan::suite::Command;
use crate::plan::target::Target;
use crate::system::bounded_body;
use crate::system::exchange::Exchange;
use crate::system::output::OutputFolder;
use crate::system::port_owner;
use crate::system::process::{Process, Processes, described};

/// A server that answers.
pub struct Running {
    /// Its URL on this machine.
    pub url: String,
    /// Name of its container, where it runs in one.
    pub container: Option<String>,
    /// Where clients in its container write their results.
    pub exchange: Option<Exchange>,
    process: Option<Process>,
    log: Log,
}

/// The log of a server.
#[derive(Debug, Clone)]
pub struct Log {
    pub path: PathBuf,
    /// Its path in the output folder.
    pub shown: String,
}

/// What a server is doing after a case failed.
pub enum AfterFailure {
    /// It answers.
    Answers,
    /// It has ended: how.
    Ended(String),
    /// It runs and does not answer.
    Silent,
}

impl Running {
    /// Why the server is not running any more, if it ended by itself.
    pub async fn ended(&self) -> Option<String> {
        let process = self.process.as_ref()?;
        let status = process.ended().await.ok().flatten()?;
        Some(format!("the server ended with {}", described(status)))
    }

    /// Its log; none of a server that was running before.
    pub fn log(&self) -> Option<&Log> {
        self.process.as_ref().map(|_| &self.log)
    }

    /// What the server is doing after a case failed. A server that crashes closes its connections before its end is known.
    pub async fn after_failure(&self) -> AfterFailure {
        let begun = tokio::time::Instant::now();
        let http = client();
        while begun.elapsed() < DYING {
            if let Some(reason) = self.ended().await {
                return AfterFailure::Ended(reason);
            }
            let answers = match &http {
                Ok(http) => http.get(format!("{}/v1/models", self.url)).timeout(ANSWER).send().await.is_ok(),
                Err(_) => false,
            };
            if answers && begun.elapsed() > DYING_BEGINS {
                return AfterFailure::Answers;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        AfterFailure::Silent
    }

    /// Another program that answers on the port of this server.
    async fn other_program(&self) -> Option<String> {
        // The port of a container is the engine's, which refuses one that is taken.
        let guard = self.process.as_ref().filter(|_| self.container.is_none())?.guard().await?;
        let port = self.url.rsplit(':').next()?.parse().ok()?;
        let other = port_owner::other_program(port, guard)?;
        Some(format!("port {port}, which was chosen for it, is used by another program: {other}"))
    }

    /// Stops the server, unless it was running before.
    pub async fn stop(self) {
        if let Some(process) = self.process {
            process.stop().await;
        }
    }
}

/// How long a server that does not answer after a failed case may take to end by itself.
const DYING: Duration = Duration::from_secs(10);

/// How long a server that still answers is watched: one of its processes may have ended before the others.
const DYING_BEGINS: Duration = Duration::from_millis(500);

/// How long an answer of a server that works may take.
const ANSWER: Duration = Duration::from_secs(2);

/// Where a server runs and writes.
pub struct Place<'a> {
    pub output: &'a OutputFolder,
    pub log: &'a Log,
    /// Name of the server's container, where it gets one.
    pub container: &'a str,
}

/// How starting a server ended.
pub enum Started {
    Ready(Box<Running>),
    /// The server did not become ready: why.
    Failed(anyhow::Error),
}

/// Starts a server and waits until `GET /v1/models` answers 200. The error is a failure of this machine.
pub async fn start(
    side: &mut SideRun,
    processes: &Processes,
    server: &Command,
    place: &Place<'_>,
    limit: Duration,
) -> Result<Started> {
    let mut running = run(side, processes, server, place).await?;
    match wait_until_ready(&running, limit).await {
        Ok(version) => {
            if let Some(process) = &mut running.process {
                process.remove_files();
            }
            if version.is_some() {
                side.facts.vllm_version = version.map(Into::into);
            }
            Ok(Started::Ready(Box::new(running)))
        }
        Err(error) => {
            running.stop().await;
            Ok(Started::Failed(error))
        }
    }
}

/// Starts a server, unless it is running already.
async fn run(side: &SideRun, processes: &Processes, server: &Command, place: &Place<'_>) -> Result<Running> {
    if let Target::Remote(url) = &side.plan.target {
        let url = url.as_str().trim_end_matches('/').to_owned();
        return Ok(Running { url, container: None, exchange: None, process: None, log: place.log.clone() });
    }
    let is_image = matches!(side.plan.target, Target::Image(_));
    let exchange = is_image.then(|| Exchange::make(place.output)).transpose().world()?;
    let port = free_port().await.world()?;
    let results = exchange.as_ref().map_or(Path::new(""), Exchange::path);
    let mut invocation = side.launch.server(server, &side.plan.server_args, port, results, place.container);
    invocation.remove.extend(exchange.as_ref().map(|exchange| exchange.path().to_owned()));
    let process = Some(processes.start(&invocation, &place.log.path).await.world()?);
    let url = format!("http://127.0.0.1:{port}");
    Ok(Running { url, container: invocation.container, exchange, process, log: place.log.clone() })
}

/// A loopback port that is free now.
async fn free_port() -> Result<u16> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.context("cannot find a free port")?;
    Ok(listener.local_addr().context("cannot find a free port")?.port())
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

/// Most bytes of an answer to `/version`: vLLM's has less than 100.
const VERSION_ANSWER: usize = 64 << 10;

/// Most characters of a version.
const VERSION_LENGTH: usize = 200;

/// The version in an answer of the server, which is the code under test: of bounded length, on one line.
async fn version(response: reqwest::Response) -> Option<String> {
    let body = bounded_body::read(reqwest::Body::from(response), VERSION_ANSWER).await.ok()?;
    let Version { version } = serde_json::from_slice(&body).ok()?;
    Some(version.chars().filter(|letter| !letter.is_control()).take(VERSION_LENGTH).collect())
}

fn client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .no_proxy()
        // The server under test names no other server.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("cannot build an HTTP client")
}

/// Polls the server until it is ready; returns the version that it reports, if it reports one.
async fn wait_until_ready(running: &Running, limit: Duration) -> Result<Option<String>> {
    let base = &running.url;
    let http = client()?;
    let late = || anyhow!("it did not answer {base}/v1/models within {}", crate::duration::text(limit));
    // A request may take longer than what is left of the limit.
    tokio::time::timeout(limit, poll(running, &http)).await.map_err(|_| late())?
}

async fn poll(running: &Running, http: &reqwest::Client) -> Result<Option<String>> {
    let base = &running.url;
    loop {
        if let Some(reason) = running.ended().await {
            bail!("{reason}");
        }
        let answer = http.get(format!("{base}/v1/models")).send().await;
        if let Some(other) = running.other_program().await {
            bail!("{other}");
        }
        if let Ok(response) = answer
            && response.status() == reqwest::StatusCode::OK
        {
            let version = match http.get(format!("{base}/version")).send().await {
                Ok(response) => version(response).await,
                Err(_) => None,
            };
            return Ok(version);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
