//! One case: measured by the native client or by vLLM's, its files written, its outcome read back.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::repetition::Outcome;

use super::native_client::serving_metrics::ServingResult;
use super::native_client::{self, prompt_process};
use super::server_start::Running;
use super::side_run::SideRun;
use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::serve_flags;
use crate::plan::suite::{self, Case};
use crate::plan::target::Target;
use crate::system::exchange::{self, Exchange};
use crate::system::output::{self, OutputFolder};
use crate::system::process::{Invocation, Processes};
use crate::{duration, result};

/// What measuring a case needs.
pub struct CaseRun<'a> {
    pub side: &'a SideRun,
    pub processes: &'a Processes,
    pub output: &'a OutputFolder,
    /// Folder of the pass.
    pub folder: &'a Path,
    /// How long the case may take.
    pub limit: Duration,
    /// For the native client.
    pub environment: &'a Environment,
}

impl CaseRun<'_> {
    /// Measures `case`. A failure of its server or client is its outcome; an error is a failure of this machine: a
    /// file that cannot be written, or a process that cannot be started.
    pub async fn measure(&self, case: &Case, server: Option<&Running>) -> Result<Outcome> {
        let commands = suite::commands_json(case, &self.side.launch.gpu_type, &self.side.plan.server_args);
        output::write(&self.folder.join(format!("{}.commands", case.name)), commands.as_bytes()).world()?;
        if case.kind == Kind::Serving && server.is_none() {
            return Ok(Outcome::Failed("no server is running for it".to_owned()));
        }
        let measured = match (case.measured_by, server) {
            (MeasuredBy::Native, Some(server)) => self.native(case, server).await?,
            (_, server) => self.vllm(case, server).await?,
        };
        let ended = match server {
            Some(server) => server.ended().await,
            None => None,
        };
        let outcome = match (measured, ended) {
            (Ok(outcome), None) => outcome,
            (Ok(_), Some(reason)) => Outcome::Failed(reason),
            (Err(error), None) => Outcome::Failed(format!("{error:#}")),
            (Err(error), Some(reason)) => Outcome::Failed(format!("{reason}; {error:#}")),
        };
        if let Outcome::Failed(_) = outcome {
            // The file of a failed case is kept under a name that is not a result's.
            let result = self.folder.join(format!("{}.json", case.name));
            let _ = std::fs::rename(&result, result.with_extension("json.failed"));
        }
        Ok(outcome)
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
                Ok(records) => output::write(&path.with_extension("pytorch.json"), records.as_bytes()).world()?,
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
            let prompts = prompt_process::prompts(&self.side.launch.program, words, self.environment).await?;
            native_client::run(&arguments, prompts, None, |_, _| {}).await
        };
        tokio::time::timeout(self.limit, run)
            .await
            .with_context(|| format!("it did not end within {}", duration::text(self.limit)))?
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
            Err(error) => return Ok(Err(error)),
        };
        let taken = self.take(exchange, &names)?;
        if !status.success() {
            return Ok(Ok(Outcome::Failed(format!("`vllm bench` ended with {status} (log: {}.log)", case.name))));
        }
        let text = match taken {
            Ok(Some(text)) => text,
            Ok(None) => {
                let reason = format!("`vllm bench` succeeded but wrote no result (log: {}.log)", case.name);
                return Ok(Ok(Outcome::Failed(reason)));
            }
            Err(error) => return Ok(Err(error)),
        };
        Ok(result::parse(case.kind, &text))
    }

    fn invocation(&self, case: &Case, server: Option<&Running>, exchange: &Exchange) -> Invocation {
        let launch = &self.side.launch;
        match server {
            Some(server) => launch.client(&case.client, exchange.path(), &server.url, server.container.as_deref()),
            None => {
                let case_name = case.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
                launch.benchmark(&case.client, exchange.path(), &format!("vllm-perf-{}-{case_name}", launch.run))
            }
        }
    }

    /// Copies the files of a client that has ended to the folder of the pass; returns the result, the first of them. The
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
