//! The CI event: the flags that locate it, its reading, and the refresh of its labels.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use vllm_verdict::v1::{Event, LabelsSource, Provider};

use crate::ci::event::{self, CiRun, buildkite_event, github_event, local_event};
use crate::environment::Environment;
use crate::exit::Classify;
use crate::names;
use crate::system::git::Git;
use crate::system::github::Github;
use crate::system::regular_file;
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
    #[arg(hide_short_help = true, long, env = "VLLM_PERF_EVENT_NAME", value_name = "NAME")]
    pub event_name: Option<String>,
    /// Payload of the event, in place of GITHUB_EVENT_PATH
    #[arg(hide_short_help = true, long, env = "VLLM_PERF_EVENT_PATH", value_name = "FILE")]
    pub event_path: Option<PathBuf>,
    /// Name of the environment variable that holds the GitHub token
    #[arg(
        hide_short_help = true,
        long,
        env = "VLLM_PERF_GITHUB_TOKEN_ENV",
        value_name = "NAME",
        default_value = "GITHUB_TOKEN"
    )]
    pub github_token_env: String,
}

impl EventArgs {
    /// The event of the job, without flags.
    pub fn of_job() -> Self {
        let token = "GITHUB_TOKEN".to_owned();
        Self { provider: ProviderChoice::Auto, event_name: None, event_path: None, github_token_env: token }
    }

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
        let (mut event, ci) = self.of_provider(labels, environment).await?;
        identify(&mut event, environment).mistake()?;
        Ok((event, ci))
    }

    async fn of_provider(&self, labels: &[String], environment: &Environment) -> Result<(Event, CiRun)> {
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
                // A build that was made by hand, by a schedule or through the API names no commit, or the beginning of one.
                if let (None, Some(named)) = (&event.head_sha, environment.get("BUILDKITE_COMMIT")) {
                    let head = Git::new(environment).head().await;
                    event.head_sha = head.filter(|head| names_head(named, head));
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
                let payload = std::fs::read(path)
                    .and_then(regular_file::utf8)
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

/// Whether Buildkite's name of a commit is that of the one that is checked out.
fn names_head(named: &str, head: &str) -> bool {
    named == "HEAD" || names::Commit::is_hash(named) && head.starts_with(&named.to_ascii_lowercase())
}

/// Takes repository and commit from the operator, for a workflow that lives in another repository than the code that it
/// measures. The identity of a pull request is the event's alone.
fn identify(event: &mut Event, environment: &Environment) -> Result<()> {
    if event.provider == Provider::Local || event::is_proposal(event) {
        return Ok(());
    }
    if let Some(text) = environment.get("VLLM_PERF_REPOSITORY") {
        let repository: names::Repository = text.parse().context("cannot use VLLM_PERF_REPOSITORY")?;
        event.repository = Some(repository.into());
    }
    if let Some(text) = environment.get("VLLM_PERF_COMMIT") {
        let commit: names::Commit = text.parse().context("cannot use VLLM_PERF_COMMIT")?;
        event.head_sha = Some(commit.into());
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{self, Exit};

    async fn scheduled(name: &str, payload: &str, more: &[(&str, &str)]) -> Result<Event> {
        let file = tempfile::NamedTempFile::new().unwrap();
        crate::system::output::write(file.path(), payload.as_bytes()).unwrap();
        let path = file.path().display().to_string();
        let common = [
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_EVENT_NAME", name),
            ("GITHUB_EVENT_PATH", path.as_str()),
            ("GITHUB_REPOSITORY", "org/ci"),
        ];
        let environment: Environment = common.into_iter().chain(more.iter().copied()).collect();
        Ok(EventArgs::of_job().read(&[], &environment).await?.0)
    }

    #[test]
    fn a_build_of_head_or_of_the_beginning_of_a_commit_is_of_what_is_checked_out() {
        let head = "1da94e673c257373280026f75ceb4effac80e892";
        for (named, is_head) in [
            ("HEAD", true),
            ("1da94e67", true),
            ("1DA94E673C", true),
            ("main", false),
            ("", false),
            ("1da", false),
            ("2da94e67", false),
        ] {
            assert_eq!(names_head(named, head), is_head, "{named}");
        }
    }

    #[tokio::test]
    async fn the_operator_names_what_is_measured_but_never_for_a_pull_request() {
        let commit = "1".repeat(40);
        let named = [("VLLM_PERF_REPOSITORY", "vllm-project/vllm"), ("VLLM_PERF_COMMIT", commit.as_str())];
        let event = scheduled("schedule", "{}", &named).await.unwrap();
        assert_eq!((event.repository.as_deref(), event.head_sha), (Some("vllm-project/vllm"), Some(commit.clone())));
        let payload = include_str!("../../tests/data/github/events/pull_request.opened.json");
        let event = scheduled("pull_request", payload, &named).await.unwrap();
        assert_eq!(event.repository.as_deref(), Some("Codertocat/Hello-World"));
        assert_ne!(event.head_sha, Some(commit));
    }

    #[tokio::test]
    async fn an_identity_of_another_shape_is_a_mistake() {
        for (name, value) in [
            ("VLLM_PERF_REPOSITORY", "vllm"),
            ("VLLM_PERF_REPOSITORY", "a/../b"),
            ("VLLM_PERF_COMMIT", "HEAD"),
            ("VLLM_PERF_COMMIT", "1111111"),
            ("VLLM_PERF_COMMIT", "-1111111111111111111111111111111111111111"),
        ] {
            let error = scheduled("schedule", "{}", &[(name, value)]).await.unwrap_err();
            assert_eq!(exit::of(&error), Exit::Mistake, "{name}={value}");
            assert!(format!("{error:#}").starts_with(&format!("cannot use {name}: ")), "{error:#}");
        }
    }
}
