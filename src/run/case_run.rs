//! One case: measured by the native client or by vLLM's, its files written, its outcome read back.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::repetition::Outcome;

use super::log_end::with_log;
use super::native_client::serving_metrics::ServingResult;
use super::native_client::{self, prompt_process};
use super::server_start::{AfterFailure, Running};
use super::side_run::SideRun;
use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::serve_flags;
use crate::plan::suite::{self, Case, RUST_CLIENT};
use crate::plan::target::Target;
use crate::result;
use crate::system::exchange::{self, Exchange};
use crate::system::output::{self, OutputFolder};
use crate::system::process::{Invocation, Processes, TimedOut, described};
use crate::system::rust_client::{self, RustClient};

/// What became of a case.
pub struct CaseOutcome {
    pub outcome: Outcome,
    /// Whether the next case can use the same server, or needs none.
    pub is_server_usable: bool,
}

/// A failed case with what its server has to do with it: how that ended, and the last words of its log. `failure` is the
/// client's; there is none where only the server failed.
async fn explained(failure: Option<String>, is_late: bool, server: Option<&Running>) -> CaseOutcome {
    let failed = |reason: String, is_server_usable| CaseOutcome { outcome: Outcome::Failed(reason), is_server_usable };
    let Some(server) = server else { return failed(failure.unwrap_or_default(), !is_late) };
    let state = server.after_failure().await;
    let is_server_usable = matches!(state, AfterFailure::Answers) && !is_late;
    let ended = match state {
        AfterFailure::Ended(reason) => Some(reason),
        AfterFailure::Silent => Some("the server does not answer any more".to_owned()),
        AfterFailure::Answers => None,
    };
    let reason = ended.into_iter().chain(failure).collect::<Vec<_>>().join("; ");
    let reason = match server.log() {
        Some(log) => with_log(&reason, "server log", &log.shown, &log.path),
        None => reason,
    };
    failed(reason, is_server_usable)
}

/// The outcome of a case whose result is `text`: one that another client wrote is a failure.
fn of_the_client(case: &Case, text: &str, outcome: Outcome) -> Outcome {
    let Some(other) = result::client(case.kind, text).filter(|client| *client != case.measured_by) else {
        return outcome;
    };
    let reason = match case.measured_by {
        MeasuredBy::VllmRs => {
            format!("this vLLM does not know {RUST_CLIENT}, as vLLM before 0.27: use --client vllm")
        }
        _ => "the vLLM of this target has started another client".to_owned(),
    };
    let (other, planned) = (other.as_str(), case.measured_by.as_str());
    Outcome::Failed(format!("the result is of the client `{other}` and not of `{planned}`: {reason}"))
}

/// What measuring a case needs.
pub struct CaseRun<'a> {
    pub side: &'a SideRun,
    pub processes: &'a Processes,
    pub output: &'a OutputFolder,
    /// Folder of the slice.
    pub folder: &'a Path,
    /// How long the case may take.
    pub limit: Duration,
    /// Share by which the native client may change a metric.
    pub most_distortion: f64,
    /// For the native client.
    pub environment: &'a Environment,
}

impl CaseRun<'_> {
    /// Measures `case`. A failure of its server or client is its outcome; an error is a failure of this machine: a
    /// file that cannot be written, or a process that cannot be started.
    pub async fn measure(&self, case: &Case, server: Option<&Running>) -> Result<CaseOutcome> {
        self.side.write_commands(case, self.folder)?;
        if case.kind == Kind::Serving && server.is_none() {
            let outcome = Outcome::Failed("no server is running for it".to_owned());
            return Ok(CaseOutcome { outcome, is_server_usable: true });
        }
        let measured = match (case.measured_by, server) {
            (MeasuredBy::Native, Some(server)) => self.native(case, server).await?,
            (_, server) => self.vllm(case, server).await?,
        };
        let is_late = measured.as_ref().is_err_and(|error| error.chain().any(|cause| cause.is::<TimedOut>()));
        let failure = match measured {
            Ok(outcome @ Outcome::Measured(_)) => {
                let ended = match server {
                    Some(server) => server.ended().await,
                    None => None,
                };
                if ended.is_none() {
                    return Ok(CaseOutcome { outcome, is_server_usable: true });
                }
                None
            }
            Ok(Outcome::Failed(reason)) => Some(reason),
            Err(error) => Some(format!("{error:#}")),
        };
        // The file of a failed case is kept under a name that is not a result's.
        let result = self.folder.join(format!("{}.json", case.name));
        let _ = std::fs::rename(&result, result.with_extension("json.failed"));
        Ok(explained(failure, is_late, server).await)
    }

    /// The outer error is a failure of this machine, the inner one a failure of the case.
    async fn native(&self, case: &Case, server: &Running) -> Result<Result<Outcome>> {
        let measured = match self.run_client(case, server).await {
            Ok(measured) => measured,
            Err(error) => return Ok(Err(error)),
        };
        let path = self.folder.join(format!("{}.json", case.name));
        let text = measured.to_json(measured.arguments.result.save_detailed);
        output::write(&path, text.as_bytes()).world()?;
        let outcome = result::parse(case.kind, &text);
        if let Ok(Outcome::Measured(_)) = outcome {
            match native_client::pytorch::records(&measured) {
                Ok(None) => {}
                Ok(Some(records)) => output::write(&path.with_extension("pytorch.json"), records.as_bytes()).world()?,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(outcome)
    }

    async fn run_client(&self, case: &Case, server: &Running) -> Result<ServingResult> {
        let mut argv = suite::placed(&case.client.argv, &self.folder.display().to_string());
        argv.extend(["--base-url".to_owned(), server.url.clone()]);
        let words = argv.get(3..).unwrap_or_default();
        let arguments =
            serve_flags::parse(words).with_context(|| format!("the native client cannot measure `{}`", case.name))?;
        let run = async {
            let placed = self.side.launch.data_sets.placed(words);
            let prompts = prompt_process::prompts(&self.side.launch.program, &placed, self.environment).await?;
            native_client::run(&arguments, prompts, None, |_, _| {}).await
        };
        let result = tokio::time::timeout(self.limit, run).await.map_err(|_| TimedOut(self.limit))??;
        Ok(ServingResult { most_distortion: self.most_distortion, ..result })
    }

    /// The outer error is a failure of this machine, the inner one a failure of the case.
    async fn vllm(&self, case: &Case, server: Option<&Running>) -> Result<Result<Outcome>> {
        // A result of an interrupted run is not a result of this one.
        let names = [format!("{}.json", case.name), format!("{}.pytorch.json", case.name)];
        for name in &names {
            exchange::delete(&self.folder.join(name)).world()?;
        }
        let own = match server.and_then(|server| server.exchange.as_ref()) {
            Some(_) => None,
            None => Some(Exchange::make(self.output).world()?),
        };
        let shared = server.and_then(|server| server.exchange.as_ref());
        let Some(exchange) = own.as_ref().or(shared) else { return Ok(Err(anyhow!("it has no folder for results"))) };
        if matches!(self.side.launch.target, Target::Image(_)) {
            exchange.expect(&names).world()?;
        }
        let mut invocation = self.invocation(case, server, exchange);
        invocation.remove.extend(own.as_ref().map(|own| own.path().to_owned()));
        let log = self.folder.join(format!("{}.log", case.name));
        let process = self.processes.start(&invocation, &log).await.world()?;
        let status = match process.wait(self.limit).await {
            Ok(status) => status,
            Err(error) => {
                let command = with_log("`vllm bench`", "log", &format!("{}.log", case.name), &log);
                return Ok(Err(error.context(command)));
            }
        };
        let taken = self.take(exchange, &names)?;
        if !status.success() {
            let reason = format!("`vllm bench` ended with {}", described(status));
            return Ok(Ok(Outcome::Failed(with_log(&reason, "log", &format!("{}.log", case.name), &log))));
        }
        let text = match taken {
            Ok(Some(text)) => text,
            Ok(None) => {
                let reason = "`vllm bench` succeeded but wrote no result";
                return Ok(Ok(Outcome::Failed(with_log(reason, "log", &format!("{}.log", case.name), &log))));
            }
            Err(error) => return Ok(Err(error)),
        };
        Ok(result::parse(case.kind, &text).map(|outcome| of_the_client(case, &text, outcome)))
    }

    fn invocation(&self, case: &Case, server: Option<&Running>, exchange: &Exchange) -> Invocation {
        let launch = &self.side.launch;
        let Some(server) = server else {
            let case_name = case.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            return launch.benchmark(&case.client, exchange.path(), &format!("vllm-perf-{}-{case_name}", launch.run));
        };
        let mut command = case.client.clone();
        if case.measured_by == MeasuredBy::Vllm {
            // The machine or the image may select the other client of vLLM.
            command.env.insert(RUST_CLIENT.to_owned(), "0".to_owned());
        }
        let mut invocation = launch.client(&command, exchange.path(), &server.url, server.container.as_deref());
        if case.measured_by == MeasuredBy::VllmRs
            && let Some(vllm) = rust_client::vllm_of(&launch.target)
            && let RustClient::Standalone(program) = rust_client::find(vllm, &launch.environment)
        {
            // It takes the flags of `vllm bench serve` alone.
            invocation.argv.splice(..3, [program.display().to_string()]);
        }
        invocation
    }

    /// Copies the files of a client that has ended to the folder of the slice; returns the result, the first of them. The
    /// outer error is a failure of this machine, the inner one a failure of the case.
    fn take(&self, exchange: &Exchange, names: &[String]) -> Result<Result<Option<String>>> {
        let mut result = Ok(None);
        for (number, name) in names.iter().enumerate() {
            let taken = exchange.take(name);
            if let Ok(Some(text)) = &taken {
                output::write(&self.folder.join(name), text.as_bytes()).world()?;
            }
            if number == 0 {
                result = taken;
            }
        }
        Ok(result)
    }
}
