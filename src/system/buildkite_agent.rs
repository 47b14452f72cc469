//! Annotations, artifacts and meta-data on Buildkite, through the agent's own command.
//! Limits: Buildkite's agent, `clicommand/annotate.go` and `clicommand/meta_data_set.go`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use super::delivery::Delivery;
use super::host_variables::is_of_the_host;
use super::program::{self, Failure, Program};
use crate::ci::log_text::harmless;
use crate::environment::Environment;
use crate::exit::Classify;

/// Most bytes of an annotation.
const ANNOTATION_LIMIT: usize = 1 << 20;
/// Most bytes of an annotation's context.
const CONTEXT_LIMIT: usize = 100;
/// Most bytes of a meta-data value.
const META_DATA_LIMIT: usize = 100_000;
/// How often a command of the agent is tried; the agent itself tries its requests several times.
const ATTEMPTS: u32 = 3;

/// The variables that the agent needs besides `BUILDKITE_*` and those of every program, to reach the artifact store. No other
/// variable is passed on, and so no other secret.
const OF_THE_STORE: [&str; 7] = [
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
];

/// The command `buildkite-agent`.
#[derive(Debug, Clone)]
pub struct Agent {
    program: PathBuf,
    environment: Vec<(String, String)>,
    second: Duration,
}

/// Style of an annotation; it sets the colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Success,
    Info,
    Warning,
    Error,
}

impl Style {
    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Agent {
    /// `program` is a path, or a name that is looked for on `PATH`. `second` is the unit of the waits between attempts: a
    /// second, less in tests.
    pub fn new(program: &Path, environment: &Environment, second: Duration) -> Self {
        let passed_on =
            |name: &str| name.starts_with("BUILDKITE_") || is_of_the_host(name) || OF_THE_STORE.contains(&name);
        let environment = environment
            .iter()
            .filter(|(name, _)| passed_on(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { program: program.to_owned(), environment, second }
    }

    /// Shows `body` on the build's page. A later annotation with the same context replaces it.
    /// Errors: a body or context over the agent's limits, the agent failed after the retries.
    pub async fn annotate(&self, context: &str, style: Style, body: &str) -> anyhow::Result<Delivery> {
        if context.is_empty() || context.len() > CONTEXT_LIMIT {
            bail!("an annotation's context has 1 to {CONTEXT_LIMIT} bytes, `{context}` has {}", context.len());
        }
        if body.trim().is_empty() || body.len() > ANNOTATION_LIMIT {
            bail!("an annotation has 1 to {ANNOTATION_LIMIT} bytes, this one has {}", body.len());
        }
        let arguments = ["annotate", "--context", context, "--style", style.as_str()];
        let ended =
            self.run(&arguments, body, None, Duration::from_secs(60)).await.context("cannot annotate the build")?;
        Ok(ended.outcome(format!("annotation `{context}`")))
    }

    /// Uploads every file of a folder; the names of the artifacts begin with the folder's name.
    /// Errors: a folder name that is a pattern to the agent, the agent failed after the retries.
    pub async fn upload(&self, folder: &Path) -> anyhow::Result<Delivery> {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.is_empty() || name.contains(['*', '?', '[', ']', '{', '}', ';', '\\', '!']) {
            return Err(anyhow!("cannot upload {}: its name is a pattern to the agent", folder.display())).mistake();
        }
        if !folder.is_dir() {
            return Err(anyhow!("cannot upload {}: it is not a folder", folder.display())).mistake();
        }
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        let pattern = format!("{name}/**/*");
        let arguments = ["artifact", "upload", &pattern];
        let ended = self
            .run(&arguments, "", parent, Duration::from_secs(600))
            .await
            .with_context(|| format!("cannot upload {}", folder.display()))?;
        Ok(ended.outcome(format!("artifacts `{pattern}`")))
    }

    /// Sets a value that later steps of the build can read.
    /// Errors: a blank or oversized value, the agent failed after the retries.
    pub async fn set_meta_data(&self, key: &str, value: &str) -> anyhow::Result<Delivery> {
        if value.trim().is_empty() || value.len() > META_DATA_LIMIT {
            bail!("the meta-data `{key}` has {} bytes: expected 1 to {META_DATA_LIMIT}, not blank", value.len());
        }
        let arguments = ["meta-data", "set", key];
        let ended = self
            .run(&arguments, value, None, Duration::from_secs(60))
            .await
            .with_context(|| format!("cannot set the meta-data `{key}`"))?;
        Ok(ended.outcome(format!("meta-data `{key}`")))
    }

    async fn run(
        &self,
        arguments: &[&str],
        stdin: &str,
        folder: Option<&Path>,
        limit: Duration,
    ) -> anyhow::Result<Ended> {
        let environment: Vec<_> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut attempt = 1;
        loop {
            let (name, stdin, variables) = (self.program.as_path(), stdin.as_bytes(), environment.as_slice());
            match once(&Program { name, arguments, variables, folder, stdin, limit }).await {
                Ok(ended) => return Ok(ended),
                Err(error) if attempt == ATTEMPTS => {
                    return Err(error.context(format!("buildkite-agent failed {ATTEMPTS} times"))).world();
                }
                Err(_) => tokio::time::sleep(self.second * attempt).await,
            }
            attempt += 1;
        }
    }
}

async fn once(program: &Program<'_>) -> anyhow::Result<Ended> {
    let output = match program::run(program).await {
        Ok(output) => output,
        Err(Failure::NotFound) => return Ok(Ended::Missing),
        Err(error) => return Err(error.into()),
    };
    // The message goes into logs, where the agent's output must not open a group or draw a link.
    output.checked(|output| {
        let message = harmless(&output.message());
        let last = message.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
        last.trim().chars().take(300).collect()
    })?;
    Ok(Ended::Done)
}

enum Ended {
    Done,
    Missing,
}

impl Ended {
    fn outcome(self, what: String) -> Delivery {
        match self {
            Self::Done => Delivery::Done(what),
            Self::Missing => Delivery::Left(format!("{what}: buildkite-agent is not on PATH")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_gets_its_own_variables_and_no_other_token() {
        let environment: Environment =
            [("BUILDKITE_JOB_ID", "j"), ("GITHUB_TOKEN", "ghs_hidden"), ("HF_TOKEN", "hf"), ("PATH", "/bin")]
                .into_iter()
                .collect();
        let agent = Agent::new(Path::new("buildkite-agent"), &environment, Duration::ZERO);
        let names: Vec<_> = agent.environment.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["BUILDKITE_JOB_ID", "PATH"]);
    }

    #[tokio::test]
    async fn without_an_agent_nothing_fails_and_the_reason_is_given() {
        let agent = Agent::new(Path::new("/nowhere/buildkite-agent"), &Environment::default(), Duration::ZERO);
        let outcome = agent.annotate("vllm-perf-1", Style::Error, "body").await.unwrap();
        assert_eq!(outcome, Delivery::Left("annotation `vllm-perf-1`: buildkite-agent is not on PATH".to_owned()));
    }
}
