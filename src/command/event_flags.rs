//! The CI event: the flags that locate it, its reading, and the refresh of its labels.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use vllm_verdict::v1::{Event, LabelsSource, Provider};

use crate::ci::event::{self, CiRun, buildkite_event, github_event, local_event};
use crate::environment::Environment;
use crate::exit::Classify;
use crate::names;
use crate::system::git;
use crate::system::github::Github;
use crate::system::retry_policy::RetryPolicy;
use crate::system::shell::Shell;

/// The CI system that the event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProviderChoice {
    /// Detected from the environment.
    Auto,
    /// GitHub Actions.
    Github,
    /// Buildkite.
    Buildkite,
    /// No CI: flags alone.
    Local,
}

/// Where the event is read from.
#[derive(Debug, Args)]
pub struct EventArgs {
    /// Where the event comes from
    #[arg(long, env = "VLLM_PERF_PROVIDER", value_enum, default_value = "auto", hide_possible_values = true)]
    pub provider: ProviderChoice,
    /// Name of the event, in place of GITHUB_EVENT_NAME
    #[arg(long, env = "VLLM_PERF_EVENT_NAME", value_name = "NAME")]
    pub event_name: Option<String>,
    /// Payload of the event, in place of GITHUB_EVENT_PATH
    #[arg(long, env = "VLLM_PERF_EVENT_PATH", value_name = "FILE")]
    pub event_path: Option<PathBuf>,
    /// Name of the environment variable that holds the GitHub token
    #[arg(long, env = "VLLM_PERF_GITHUB_TOKEN_ENV", value_name = "NAME", default_value = "GITHUB_TOKEN")]
    pub github_token_env: String,
}

impl EventArgs {
    /// The provider: the flag's, or else the one that the environment shows.
    pub fn provider(&self, environment: &Environment) -> Provider {
        match self.provider {
            ProviderChoice::Auto => event::detect(environment),
            ProviderChoice::Github => Provider::Github,
            ProviderChoice::Buildkite => Provider::Buildkite,
            ProviderChoice::Local => Provider::Local,
        }
    }

    /// Reads the event from CI or from flags. `labels` are those of a local run.
    ///
    /// # Errors
    /// The user's mistake (exit 2): no event name, no payload, a payload that cannot be read, or a text that cannot be
    /// a label.
    pub async fn read(&self, labels: &[String], environment: &Environment) -> Result<(Event, CiRun)> {
        match self.provider(environment) {
            Provider::Local => {
                if let Some(label) = labels.iter().find(|label| !names::is_label(label)) {
                    return Err(anyhow!(
                        "`{label}` cannot be a label: expected up to 50 letters, digits and ` ._:/+-`"
                    ))
                    .mistake();
                }
                Ok((local_event::event(labels, None), CiRun::default()))
            }
            Provider::Buildkite => {
                let (mut event, ci) = buildkite_event::parse(environment);
                // A build that was made by hand, by a schedule or through the API names no commit.
                if environment.get("BUILDKITE_COMMIT") == Some("HEAD") {
                    event.head_sha = git::head().await;
                }
                Ok((event, ci))
            }
            Provider::Github => {
                let name = self.event_name.as_deref();
                let name = name
                    .or_else(|| environment.get("GITHUB_EVENT_NAME"))
                    .context("no event name: set GITHUB_EVENT_NAME or give --event-name")
                    .mistake()?;
                let path = self.event_path.as_deref();
                let path = path
                    .or_else(|| environment.get("GITHUB_EVENT_PATH").map(Path::new))
                    .context("no event payload: set GITHUB_EVENT_PATH or give --event-path")
                    .mistake()?;
                let payload = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the event payload `{}`", path.display()))
                    .mistake()?;
                github_event::parse(name, &payload, environment).mistake()
            }
        }
    }

    /// A client for GitHub's API, where the environment holds a token.
    ///
    /// # Errors
    /// The user's mistake (exit 2): a token or an API URL that cannot be used.
    pub fn github(&self, ci: &CiRun, environment: &Environment) -> Result<Option<Github>> {
        let new = |token| Github::new(ci.api_url.as_deref(), token, RetryPolicy::default());
        environment.secret(&self.github_token_env).map(new).transpose().mistake()
    }
}

/// Replaces the labels of the event by the current ones: payloads and build environments hold those of the time when the
/// job was created. Where the token may not read them, the event's labels stay, and a line on standard error is printed.
pub async fn refresh_labels(event: &mut Event, github: &Github, shell: &Shell) {
    let (Some(repository), Some(number)) = (event.repository.clone(), event.pull_request) else { return };
    match github.labels(&repository, number).await {
        Ok(labels) => {
            event.labels = labels;
            event.labels_source = LabelsSource::Api;
        }
        Err(error) => shell.say(&format!("using the labels of the event, which may be out of date: {error:#}")),
    }
}
