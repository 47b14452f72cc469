//! `vllm-perf publish`: comment, job summary or annotation, artifacts and records, from an output folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use clap::builder::BoolishValueParser;
use vllm_verdict::Untrusted;
use vllm_verdict::v1::{Comparison, Event, Provider, Verdict};

use super::{base_settings, publish_settings};
use crate::ci::event::{CiRun, is_proposal};
use crate::ci::workflow_commands::{self, Level, Notice};
use crate::command::event_flags::EventArgs;
use crate::environment::Environment;
use crate::escape;
use crate::exit::{Classify, Exit};
use crate::plan::config::Config;
use crate::publish::record_upload::{self, Destination, Upload};
use crate::publish::row_upload::{self, RowDestination};
use crate::publish::{self, CommentFailure, MainTargets, Publication, Texts, artifact};
use crate::report::finding::{self, Finding};
use crate::report::label::Labels;
use crate::report::{Links, markdown};
use crate::system::buildkite_agent::Agent;
use crate::system::delivery::Delivery;
use crate::system::folder_lock::FolderLock;
use crate::system::git::Git;
use crate::system::retry_policy::RetryPolicy;
use crate::system::row_endpoint::RowEndpoint;
use crate::system::shell::Shell;
use crate::system::step_files;
use crate::system::store::Store;
use crate::system::uploader::Uploader;

/// Most output folders in one folder.
const MOST_FOLDERS: usize = 20;

/// Publishes an output folder, or each of the output folders in a folder. One that is refused does not stop the others.
pub(super) async fn publish(arguments: &PublishArgs, shell: &Shell) -> Result<Exit> {
    let (event, ci) = arguments.event.read(&[], &shell.environment).await?;
    if arguments.retry {
        return retry(arguments, &settings(arguments, &event, &ci)?, (&event, &ci), shell).await;
    }
    let (mut exit, mut refused) = (Exit::Done, None);
    for folder in folders(&arguments.out)? {
        match publish_folder(&folder, arguments, (&event, &ci), shell).await {
            Ok(Exit::Done) => {}
            Ok(failed) => exit = failed,
            Err(error) => {
                if let Some(earlier) = refused.replace(error) {
                    shell.say(&format!("{earlier:#}"));
                }
            }
        }
    }
    refused.map_or(Ok(exit), Err)
}

/// The folder, or where it has no comparison, those in it that have one: the artifacts of several jobs. Links are left out.
fn folders(out: &Path) -> Result<Vec<PathBuf>> {
    let has_results = |folder: &Path| folder.join("comparison.json").symlink_metadata().is_ok();
    let Ok(entries) = out.read_dir() else { return Ok(vec![out.to_owned()]) };
    if has_results(out) {
        return Ok(vec![out.to_owned()]);
    }
    let is_folder = |path: &PathBuf| path.symlink_metadata().is_ok_and(|it| it.is_dir());
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> =
        paths.filter(is_folder).filter(|path| has_results(path)).take(MOST_FOLDERS + 1).collect();
    found.sort();
    if found.len() > MOST_FOLDERS {
        return Err(anyhow!("`{}` has more than {MOST_FOLDERS} output folders", out.display())).mistake();
    }
    Ok(if found.is_empty() { vec![out.to_owned()] } else { found })
}

/// Only the upload of records needs settings; those of a pull request's checkout are not trusted.
fn settings(arguments: &PublishArgs, event: &Event, ci: &CiRun) -> Result<Config> {
    match !is_proposal(event) && ci.completed_run.is_none() {
        true => Ok(base_settings::of_checkout(arguments.config.as_deref())?.config),
        false => Ok(Config::default()),
    }
}

/// Publishes to every destination of this CI. A comment that cannot be written does not stop the others.
async fn publish_folder(
    out: &Path,
    arguments: &PublishArgs,
    (event, ci): (&Event, &CiRun),
    shell: &Shell,
) -> Result<Exit> {
    let environment = &shell.environment;
    let _lock = FolderLock::shared(out)?;
    let config = settings(arguments, event, ci)?;
    let branches = config.trigger.branches.as_slice();
    let mut comparison = artifact::read(out, &config.images)?;
    let github = arguments.event.github(ci, environment)?;
    let explicit = arguments.config.as_deref();
    let notice = publish_settings::check(event, ci, &comparison, explicit, github.as_ref(), environment).await?;
    let new = notice.map(Untrusted::from).filter(|notice| !comparison.conduct.notices.contains(notice));
    comparison.conduct.notices.splice(0..0, new);
    if is_proposal(event) || ci.completed_run.is_some() {
        hide_reason(&mut comparison);
    }
    // Credentials are only required if there are records to upload.
    let has_records = record_upload::no_records(event, ci, branches).is_none();
    let destination = has_records.then(|| usable(arguments, &config, environment)).flatten();
    let rows = row_destination(arguments, &config, environment);
    let commit = measured(event, &comparison, &Git::new(environment)).await;
    let links = links(arguments, event, ci);
    let id = publish::comment_id(ci, comparison.subject.device.as_ref(), comparison.subject.event.as_ref());
    let agent = (event.provider == Provider::Buildkite)
        .then(|| Agent::new(Path::new("buildkite-agent"), environment, Duration::from_secs(1)));
    let report = publish::publish(&Publication {
        event,
        run: ci,
        commit: commit.as_deref(),
        comparison: &comparison,
        comment_id: &id,
        texts: Texts {
            comment: &|moved_to| markdown::comment(&comparison, &links, &id, moved_to),
            summary: &markdown::summary(&comparison, &links),
            annotation: &markdown::annotation(&comparison, &links),
        },
        folder: out,
        github: github.as_ref(),
        agent: agent.as_ref(),
        main: MainTargets {
            branches,
            model_key: config.records.spelling.model_key,
            records: destination.as_ref(),
            rows: rows.as_ref(),
        },
    })
    .await?;
    if event.provider == Provider::Github {
        shell.sink.out_commands(&workflow_commands::commands(&notices(&comparison)));
    }
    shell.print(&report.to_string());
    if let (Some(path), Some(url)) = (&ci.output, &report.comment_url) {
        step_files::append_outputs(path, &[("comment-url", url)])?;
    }
    Ok(report.exit(arguments.comment_failure))
}

/// Hides why verdicts were withheld: the reason is the artifact's word; that there is no verdict is not.
fn hide_reason(comparison: &mut Comparison) {
    let held = comparison.conduct.held.take();
    comparison.conduct.held = held.map(|_| "The run withheld its verdicts".into());
}

/// Uploads the records of the spool.
async fn retry(
    arguments: &PublishArgs,
    config: &Config,
    (event, run): (&Event, &CiRun),
    shell: &Shell,
) -> Result<Exit> {
    let destination = destination(arguments, config, &shell.environment)?;
    let (folder, destination) = (arguments.out.as_path(), destination.as_ref());
    let branches = config.trigger.branches.as_slice();
    let model_key = config.records.spelling.model_key;
    let upload = Upload { folder, event, run, commit: None, branches, model_key, destination };
    let rows = match row_destination(arguments, config, &shell.environment) {
        Some(rows) => Some(row_upload::retry(folder, &rows).await.world()?),
        None => None,
    };
    // A folder of which only rows are published needs no destination of records.
    let records = match destination.is_none() && rows.is_some() {
        true => None,
        false => Some(record_upload::retry(&upload).await.world()?),
    };
    let outcomes = [("records", records), ("rows", rows)].map(|(name, outcome)| Some((name, outcome?)));
    let mut exit = Exit::Done;
    for (name, outcome) in outcomes.into_iter().flatten() {
        shell.print(&format!("{name}: {outcome}"));
        exit = if matches!(outcome, Delivery::Failed(_)) { Exit::World } else { exit };
    }
    Ok(exit)
}

/// The destination of rows, where an endpoint is configured. The flag takes precedence over the config.
fn row_destination(arguments: &PublishArgs, config: &Config, environment: &Environment) -> Option<RowDestination> {
    let url = arguments.rows.as_ref().or(config.records.rows.as_ref())?;
    let endpoint = RowEndpoint::new(url, environment, RetryPolicy::default());
    Some(endpoint.map_or_else(|error| RowDestination::Unusable(format!("{error:#}")), RowDestination::Endpoint))
}

fn links(arguments: &PublishArgs, event: &Event, run: &CiRun) -> Links {
    Links {
        run: run.completed_run.as_ref().and_then(|run| run.url.clone()).or_else(|| run.run_url.clone()),
        artifact: arguments.artifact_url.clone(),
        server: run.server_url.clone(),
        repository: event.repository.clone(),
    }
}

/// The measured commit. A scheduled run may measure an older commit of its branch.
async fn measured(event: &Event, comparison: &Comparison, git: &Git) -> Option<String> {
    let head = event.head_sha.clone()?;
    let measured =
        comparison.subject.head.as_ref().and_then(|head| head.commit.as_ref()).map(|commit| commit.raw().to_owned());
    match measured {
        Some(commit) if commit != head && git.is_before(&commit, &head).await => Some(commit),
        _ => Some(head),
    }
}

/// The destination of records: the upload API if one is set, otherwise the store. Flags take precedence over the config.
fn destination(arguments: &PublishArgs, config: &Config, environment: &Environment) -> Result<Option<Destination>> {
    let uploader = |url: &str| Uploader::new(url, environment, RetryPolicy::default()).map(Destination::Uploader);
    let store = |place: &str| Store::open(place, environment).map(Destination::Store);
    match (&arguments.uploader, &arguments.store, &config.records.uploader, &config.store) {
        (Some(url), ..) | (None, None, Some(url), _) => uploader(url).map(Some),
        (_, Some(place), ..) | (_, _, _, Some(place)) => store(place).map(Some),
        _ => Ok(None),
    }
}

/// The same, or why it cannot be used.
fn usable(arguments: &PublishArgs, config: &Config, environment: &Environment) -> Option<Destination> {
    destination(arguments, config, environment)
        .unwrap_or_else(|error| Some(Destination::Unusable(format!("{error:#}"))))
}

/// The findings as annotations on the page of the GitHub run.
fn notices(comparison: &Comparison) -> Vec<Notice> {
    let notice = |finding: Finding| {
        let verdict = finding.verdict;
        let level = match verdict {
            Verdict::Failing | Verdict::Regressed => Level::Error,
            Verdict::NotMeasured => Level::Warning,
            Verdict::Improved | Verdict::Unchanged | Verdict::Inconclusive => Level::Notice,
        };
        Notice {
            level,
            title: format!("{}: {}", verdict.as_str(), escape::name(&finding.metric)),
            message: format!("{}: {}", escape::name(&finding.subject), escape::sentence(finding.reason())),
        }
    };
    finding::findings(comparison, &Labels::new(&comparison.cases)).into_iter().map(notice).collect()
}

/// `vllm-perf publish`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  vllm-perf publish vllm-perf-out")]
pub struct PublishArgs {
    /// Output folder of a run, or a folder of such folders
    #[arg(env = "VLLM_PERF_OUT", value_name = "OUT", default_value = "vllm-perf-out")]
    pub out: PathBuf,
    #[command(flatten)]
    pub event: EventArgs,
    /// URL of the uploaded artifact, to link
    #[arg(long, env = "VLLM_PERF_ARTIFACT_URL", value_name = "URL")]
    pub artifact_url: Option<String>,
    /// Store for the records of main, instead of the config's: a folder, file:///, s3://, gs:// or az://
    #[arg(long, env = "VLLM_PERF_STORE", value_name = "STORE")]
    pub store: Option<String>,
    /// Upload API for the records, instead of a store (credentials: VLLM_PERF_UPLOADER_USERNAME and _PASSWORD)
    #[arg(long, env = "VLLM_PERF_UPLOADER", value_name = "URL")]
    pub uploader: Option<String>,
    /// Endpoint for rows of perf-eval's dashboard (token: VLLM_PERF_ROWS_TOKEN)
    #[arg(long, env = "VLLM_PERF_ROWS", value_name = "URL")]
    pub rows: Option<String>,
    /// Only upload the records and rows of earlier attempts that were not confirmed
    #[arg(long, env = "VLLM_PERF_RETRY", value_parser = BoolishValueParser::new())]
    pub retry: bool,
    /// Config file, instead of vllm-perf.yml
    #[arg(long, env = "VLLM_PERF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// warn or error if the comment cannot be written
    #[arg(
        long,
        env = "VLLM_PERF_COMMENT_FAILURE",
        value_enum,
        default_value = "warn",
        value_name = "HOW",
        hide_possible_values = true
    )]
    pub comment_failure: CommentFailure,
}
