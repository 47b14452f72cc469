//! Publishing: the comment on the pull request, the job summary, the annotation of the build, the artifacts, and the records
//! of main. This module decides what may be written where; the texts are rendered by `report`. A destination that fails
//! does not affect the others.

pub mod artifact;
pub mod comment;
pub mod record_upload;
pub mod row_upload;

use std::fmt::{self, Write};
use std::path::Path;

use anyhow::anyhow;
use sha2::{Digest, Sha256};
use vllm_verdict::Untrusted;
use vllm_verdict::v1::{Comparison, Device, Event, Provider, Verdict};

use crate::ci::event::CiRun;
use crate::exit::{Classify, Exit};
use crate::plan::config::record_rules::KeyCase;
use crate::system::buildkite_agent::{Agent, Style};
use crate::system::delivery::Delivery;
use crate::system::exchange;
use crate::system::github::{Github, PullRequest};
use crate::system::output::OutputFolder;
use crate::system::step_files;
use comment::{Action, Posted, Stamp};
use record_upload::{Destination, Upload};
use row_upload::RowDestination;

/// The outcome of each destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deliveries {
    /// The comment on the pull request.
    pub comment: Delivery,
    /// Page of the comment, if there is one.
    pub comment_url: Option<String>,
    /// The job summary of GitHub Actions.
    pub summary: Delivery,
    /// The annotation of the Buildkite build.
    pub annotation: Delivery,
    /// The verdict in the Buildkite build's meta-data.
    pub meta_data: Delivery,
    /// The output folder as artifacts.
    pub artifacts: Delivery,
    /// The records of main in the store.
    pub records: Delivery,
    /// The rows of main at the endpoint of perf-eval's dashboard; `None` if none is configured.
    pub rows: Option<Delivery>,
}

/// The effect of a comment that could not be written on the exit code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CommentFailure {
    /// A message only.
    #[default]
    Warn,
    /// Exit 4.
    Error,
}

impl Deliveries {
    /// The exit code of `publish`.
    pub fn exit(&self, comment_failure: CommentFailure) -> Exit {
        let failed = |outcome: &Delivery| matches!(outcome, Delivery::Failed(_));
        let others = [&self.summary, &self.annotation, &self.meta_data, &self.artifacts, &self.records];
        let comment = comment_failure == CommentFailure::Error && failed(&self.comment);
        if comment || others.into_iter().chain(&self.rows).any(failed) { Exit::World } else { Exit::Done }
    }
}

impl fmt::Display for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "comment: {}", self.comment)?;
        writeln!(f, "summary: {}", self.summary)?;
        writeln!(f, "annotation: {}", self.annotation)?;
        writeln!(f, "meta-data: {}", self.meta_data)?;
        writeln!(f, "artifacts: {}", self.artifacts)?;
        writeln!(f, "records: {}", self.records)?;
        self.rows.iter().try_for_each(|rows| writeln!(f, "rows: {rows}"))
    }
}

/// The inputs of [`publish`].
pub struct Publication<'a> {
    pub event: &'a Event,
    /// The current CI run.
    pub run: &'a CiRun,
    /// The measured commit, if it is the event's commit or an earlier one of its branch.
    pub commit: Option<&'a str>,
    pub comparison: &'a Comparison,
    /// The identity of the comment: a [`comment_id`].
    pub comment_id: &'a str,
    pub texts: Texts<'a>,
    /// The output folder.
    pub folder: &'a Path,
    /// GitHub, if there is a token.
    pub github: Option<&'a Github>,
    /// Buildkite's agent, on Buildkite.
    pub agent: Option<&'a Agent>,
    pub main: MainTargets<'a>,
}

/// Where the records and rows of main go.
#[derive(Clone, Copy)]
pub struct MainTargets<'a> {
    /// Branches whose records are published.
    pub branches: &'a [String],
    /// The letters of a model in the key of its records.
    pub model_key: KeyCase,
    /// The destination of records, if one is configured.
    pub records: Option<&'a Destination>,
    /// The destination of rows, if one is configured.
    pub rows: Option<&'a RowDestination>,
}

/// The rendered texts of a [`Publication`].
pub struct Texts<'a> {
    /// Renders the comment. The argument is the new head of the pull request, if it has changed since the measurement.
    pub comment: &'a (dyn Fn(Option<&str>) -> String + Send + Sync),
    pub summary: &'a str,
    pub annotation: &'a str,
}

/// The identity of the comment of one configuration: workflow, job, device, the job's [`configuration`] and, for
/// accelerators, the device type. The type of a CPU is not included, because it may change from run to run. 12 hexadecimal
/// digits.
pub fn comment_id(run: &CiRun, device: Option<&Device>, event: Option<&Event>) -> String {
    let name = device.map_or("", |device| device.name.as_str());
    let kind = device.filter(|device| !device.name.is_cpu()).map_or("", |device| &device.device_type);
    let configuration = event.and_then(|event| event.configuration.as_deref()).filter(|text| is_configuration(text));
    let configuration = configuration.unwrap_or_default();
    let [workflow, job] = [&run.workflow, &run.job].map(|text| text.as_deref().unwrap_or_default());
    digest(&[workflow, job, name, kind, configuration])
}

/// Whether a text is what [`configuration`] gives: the one of an artifact is not ours.
fn is_configuration(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What tells the report of a job from those of other jobs and of other legs of its matrix, for `Event::configuration`.
/// `parts` are words that do not change from run to run. 12 hexadecimal digits.
pub fn configuration(run: &CiRun, provider: Provider, parts: &[&str]) -> String {
    let [workflow, job] = [&run.workflow, &run.job].map(|text| text.as_deref().unwrap_or_default());
    let provider = match provider {
        Provider::Github => "github",
        Provider::Buildkite => "buildkite",
        Provider::Local => "local",
    };
    digest(&[&[provider, workflow, job], parts].concat())
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(6).fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// Publishes to every destination of this CI and returns the outcome of each.
///
/// # Errors
/// The results are not those of the completed run; nothing is written then.
pub async fn publish(publication: &Publication<'_>) -> anyhow::Result<Deliveries> {
    check_origin(publication.event, publication.run, publication.comparison).mistake()?;
    let (comment, comment_url) = match comment(publication).await {
        Ok((outcome, url)) => (outcome, url),
        Err(error) => (Err(error).into(), None),
    };
    Ok(Deliveries {
        comment,
        comment_url,
        summary: summary(publication).into(),
        annotation: annotation(publication).await.into(),
        meta_data: meta_data(publication).await.into(),
        artifacts: artifacts(publication).await.into(),
        records: records(publication).await.into(),
        rows: rows(publication).await,
    })
}

/// Checks that the results are those of the completed run, by GitHub's data about it: same event, repository and commit.
/// The number of the pull request is checked where it is known.
fn check_origin(event: &Event, run: &CiRun, comparison: &Comparison) -> anyhow::Result<()> {
    let Some(completed) = &run.completed_run else { return check_event(event, comparison) };
    let Some(measured) = &comparison.subject.event else {
        return Err(anyhow!("the results do not name the event of the completed run"));
    };
    let side = comparison.subject.head.as_ref().and_then(|head| head.commit.as_ref()).map(Untrusted::raw);
    let commits = [measured.head_sha.as_deref(), side.or(Some(&completed.head_sha))];
    if commits.iter().any(|commit| *commit != Some(&completed.head_sha)) {
        return Err(anyhow!("the results are not those of the completed run, which measured {}", completed.head_sha));
    }
    if measured.repository != event.repository {
        return Err(anyhow!("the results are of another repository than the completed run"));
    }
    if measured.name != completed.event {
        return Err(anyhow!("the results are of another event than the completed run, a `{}`", completed.event));
    }
    Ok(())
}

/// Checks that the results of a pull request are those of this event: they may come from another job.
fn check_event(event: &Event, comparison: &Comparison) -> anyhow::Result<()> {
    let facts = |event: &Event| (event.repository.clone(), event.head_sha.clone(), event.pull_request);
    match &comparison.subject.event {
        Some(measured) if event.name == "pull_request" && facts(measured) != facts(event) => {
            Err(anyhow!("the results are of another event than this job's: another repository, pull request or commit"))
        }
        None if event.name == "pull_request" => Err(anyhow!("the results do not name the event that they are of")),
        _ => Ok(()),
    }
}

/// The reason why no comment is written, if that is known from the event alone.
fn no_comment(event: &Event, run: &CiRun) -> Option<String> {
    let reason = match &run.completed_run {
        _ if event.repository.is_none() => "the event has no repository",
        _ if event.name == "pull_request_target" => "vllm-perf does not run under `pull_request_target`",
        Some(completed) if completed.event != "pull_request" => "the completed run was not for a pull request",
        Some(completed) if completed.conclusion.as_deref() == Some("cancelled") => "the completed run was cancelled",
        Some(_) => return None,
        None if event.pull_request.is_none() => "the event has no pull request",
        None if event.fork => {
            "the pull request comes from a fork, and its runs have no write access; a `workflow_run` workflow on the \
             default branch can publish the uploaded folder"
        }
        None => return None,
    };
    Some(reason.to_owned())
}

async fn comment(publication: &Publication<'_>) -> anyhow::Result<(Delivery, Option<String>)> {
    let (event, run) = (publication.event, publication.run);
    if let Some(reason) = no_comment(event, run) {
        return Ok((Delivery::Left(reason), None));
    }
    let Some(github) = publication.github else {
        return Ok((Delivery::Left("there is no GitHub token".to_owned()), None));
    };
    let repository = event.repository.as_deref().unwrap_or_default();
    let Some((pull, measured)) = commented_pull_request(github, event, run, repository).await? else {
        return Ok((Delivery::Left("no open pull request has the measured commit at its head".to_owned()), None));
    };
    let claimed = publication.comparison.subject.event.as_ref().and_then(|event| event.pull_request);
    if claimed.is_some_and(|number| number != pull.number) {
        return Err(anyhow!("the results are of another pull request than {}", pull.number)).mistake();
    }
    let moved_to = measured.filter(|head| *head != pull.head_sha).map(|_| pull.head_sha.as_str());
    let text = (publication.texts.comment)(moved_to);
    let number = run.completed_run.as_ref().map_or(run.number, |completed| completed.number);
    let stamp = Stamp { head: measured, run: number };
    let posted = comment::report(github, repository, &pull, publication.comment_id, stamp, &text).await?;
    if posted.action == Action::Later {
        let reason = format!("the comment tells of a later commit than this report: {}", posted.url);
        return Ok((Delivery::Left(reason), Some(posted.url)));
    }
    Ok((Delivery::Done(described(&posted)), Some(posted.url)))
}

/// The pull request of the comment, and the commit that was measured for it.
async fn commented_pull_request<'a>(
    github: &Github,
    event: &'a Event,
    run: &'a CiRun,
    repository: &str,
) -> anyhow::Result<Option<(PullRequest, Option<&'a str>)>> {
    if let Some(completed) = &run.completed_run {
        let pull = github.resolve_pull_request(completed, repository).await?;
        return Ok(pull.map(|pull| (pull, Some(completed.head_sha.as_str()))));
    }
    let Some(number) = event.pull_request else { return Ok(None) };
    let pull = github.pull_request(repository, number).await?;
    Ok(Some((pull, event.head_sha.as_deref())))
}

fn described(posted: &Posted) -> String {
    let action = match posted.action {
        Action::Created => "created",
        Action::Edited => "edited",
        Action::Unchanged => "unchanged",
        Action::Later => "left",
    };
    let mut text = format!("{action} {}", posted.url);
    if posted.shortened {
        text.push_str(", shortened to its headline");
    }
    if posted.duplicates_removed > 0 {
        let _ = write!(text, ", duplicates removed: {}", posted.duplicates_removed);
    }
    text
}

fn summary(publication: &Publication<'_>) -> anyhow::Result<Delivery> {
    match &publication.run.step_summary {
        Some(path) => step_files::append_summary(path, publication.texts.summary),
        None => Ok(Delivery::Left("not a step of GitHub Actions".to_owned())),
    }
}

async fn annotation(publication: &Publication<'_>) -> anyhow::Result<Delivery> {
    let Some(agent) = publication.agent else { return Ok(not_buildkite()) };
    let style = match publication.comparison.verdict {
        Verdict::Failing | Verdict::Regressed => Style::Error,
        Verdict::NotMeasured => Style::Warning,
        Verdict::Improved | Verdict::Unchanged => Style::Success,
        Verdict::Inconclusive => Style::Info,
    };
    agent.annotate(&format!("vllm-perf-{}", publication.comment_id), style, publication.texts.annotation).await
}

async fn meta_data(publication: &Publication<'_>) -> anyhow::Result<Delivery> {
    let Some(agent) = publication.agent else { return Ok(not_buildkite()) };
    let verdict = publication.comparison.verdict.as_str();
    agent.set_meta_data(&format!("vllm-perf-verdict-{}", publication.comment_id), verdict).await
}

async fn artifacts(publication: &Publication<'_>) -> anyhow::Result<Delivery> {
    match (publication.agent, publication.event.provider) {
        (Some(agent), _) => {
            // The agent follows links.
            exchange::keep_files(&OutputFolder::at(publication.folder)).world()?;
            agent.upload(publication.folder).await
        }
        (None, Provider::Github) => Ok(Delivery::Left("uploaded by a separate step of the action".to_owned())),
        (None, _) => Ok(not_buildkite()),
    }
}

async fn records(publication: &Publication<'_>) -> anyhow::Result<Delivery> {
    let Publication { event, run, folder, commit, main, .. } = *publication;
    let MainTargets { branches, model_key, records: destination, .. } = main;
    record_upload::records(&Upload { folder, event, run, commit, branches, model_key, destination }).await
}

async fn rows(publication: &Publication<'_>) -> Option<Delivery> {
    let Publication { event, run, folder, main, .. } = *publication;
    Some(row_upload::rows(folder, (event, run), main.branches, main.rows?).await.into())
}

fn not_buildkite() -> Delivery {
    Delivery::Left("not a Buildkite step".to_owned())
}
