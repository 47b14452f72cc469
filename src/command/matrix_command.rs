//! `vllm-perf matrix`: the jobs of CI, from the suite, the runners of the config and the labels of the event. For a nightly
//! run, also the commit that each job has to measure.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use indexmap::IndexMap;
use vllm_verdict::v1::{Device, Event};

use super::base_settings;
use crate::ci::matrix::buildkite_pipeline::{self, OptionValue, StepTemplate};
use crate::ci::matrix::{self, JobFilter, MatrixJob, github_matrix};
use crate::ci::trigger;
use crate::command::consent::{Consent, consent};
use crate::command::event_flags::{EventArgs, refresh_labels};
use crate::escape;
use crate::exit::{Classify, Exit};
use crate::plan::Trigger;
use crate::plan::config::Config;
use crate::plan::image::{self, Pipeline};
use crate::plan::suite;
use crate::system::git::Git;
use crate::system::github::Github;
use crate::system::registry::{self, ImageState, Registry};
use crate::system::shell::Shell;
use crate::system::store::Store;
use crate::system::store::object_key::RecordKey;
use crate::system::suite_files::SuiteFiles;
use crate::system::suite_folder;

/// Prints the matrix. A matrix without jobs is not an error: the reason is printed.
pub(super) async fn matrix(arguments: &MatrixArgs, shell: &Shell) -> Result<Exit> {
    let (mut event, ci) = arguments.event.read(&arguments.labels, &shell.environment).await?;
    let github = arguments.event.github(&ci, &shell.environment)?;
    let explicit = arguments.config.as_deref();
    let (loaded, notice) = base_settings::of_event(&event, explicit, github.as_ref(), &shell.environment).await?;
    let config = loaded.config;
    if let Some(notice) = notice {
        shell.say(&notice);
    }
    if let Some(github) = &github {
        refresh_labels(&mut event, github, shell).await;
    }
    let mut decision = trigger::decide(&event, &config.trigger, &config.devices)?;
    if let (true, Consent::Refused(reason) | Consent::Unknown(reason)) =
        (decision.run, consent(&event, &ci.proposal, &config, github.as_ref()).await)
    {
        decision = Trigger { run: false, reason };
    }
    let mut jobs = match decision.run {
        true => jobs(arguments, &event, &config, shell)?,
        false => Vec::new(),
    };
    if !decision.run {
        shell.say(&format!("no jobs: {}", decision.reason));
    } else if let Some(most) = arguments.records.unbenchmarked {
        let records = Records::open(&arguments.records, &event, &config, shell)?;
        let github = github.as_ref().map(|github| (github, records.repository.as_str()));
        let commits = newest(&records.branch, most, &Git::new(&shell.environment), github).await?;
        jobs = unbenchmarked(jobs, &commits, &records, &config, shell).await?;
    }
    let text = match arguments.format {
        MatrixFormat::Github => github_matrix::text(&jobs)?,
        MatrixFormat::Buildkite => buildkite_pipeline::text(&jobs, &step_template(arguments)?)?,
    };
    shell.sink.out_json(&text);
    Ok(Exit::Done)
}

fn jobs(arguments: &MatrixArgs, event: &Event, config: &Config, shell: &Shell) -> Result<Vec<MatrixJob>> {
    if config.matrix.runners.is_empty() {
        return Err(anyhow!(
            "no runners: list the runners of each device in vllm-perf.yml, `matrix: {{runners: {{cpu: {{1: [my-runner]}}}}}}`"
        ))
        .mistake();
    }
    let folder = arguments.suite.as_ref().unwrap_or(&config.suite);
    let filter = JobFilter { models: not_empty(&arguments.models), runners: not_empty(&arguments.runners) };
    let devices = trigger::narrowed(event, &config.devices);
    let allowed = SuiteFiles::of_event(event, folder, &config.allowed_folders, &shell.environment)?;
    let mut jobs = Vec::new();
    for (device, sizes) in &config.matrix.runners {
        let device = *device;
        if !devices.contains(&device) {
            shell.say(&format!("no jobs on {device}: it is not among the devices of this event"));
            continue;
        }
        // A broken test file stops only the jobs of its own device.
        if !sizes.values().flatten().any(|runner| filter.selects_runner(runner)) {
            continue;
        }
        let files = suite_folder::serving(folder, &shell.environment, device, &allowed)?;
        if files.is_empty() {
            shell.say(&format!("no jobs on {device}: no serving tests for it in `{}`", folder.display()));
        }
        let (models, invalid) = suite::models(&files)?;
        for test in invalid {
            shell.say(&format!("no job for {}: {}", escape::name(&test.name), escape::sentence(&test.reason)));
        }
        for size in matrix::sizes_without_runner(device, &models, &config.matrix, &filter) {
            shell.say(&format!(
                "no runner of {device} is listed for a tensor-parallel size of {size}: see `matrix.runners`"
            ));
        }
        jobs.extend(matrix::jobs(device, &models, &config.matrix, &filter));
    }
    if jobs.is_empty() {
        shell.say("no jobs: no model of the suite has a runner");
    }
    Ok(jobs)
}

/// The words without empty ones: an input of CI that is not set is an empty word.
fn not_empty(words: &[String]) -> Vec<String> {
    words.iter().map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

/// What the steps have in common. They get the suite, the config file and the store of this command.
fn step_template(arguments: &MatrixArgs) -> Result<StepTemplate> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let own = [
        ("suite", path(&arguments.suite)),
        ("config", path(&arguments.config)),
        ("store", arguments.records.store.clone()),
    ];
    let own = own.into_iter().filter_map(|(name, text)| Some((name.to_owned(), OptionValue::Text(text?))));
    let mut options: IndexMap<_, _> = own.collect();
    for option in &arguments.steps.options {
        let (name, value) = option
            .split_once('=')
            .with_context(|| format!("`--option {option}`: expected NAME=VALUE, as in `--option pairs=3`"))
            .mistake()?;
        options.insert(name.to_owned(), OptionValue::from(value.to_owned()));
    }
    Ok(StepTemplate { plugin: arguments.steps.plugin.clone(), options })
}

/// The jobs, each with the newest of the commits that has an image and no records. A job without such a commit is left
/// out, with a message.
async fn unbenchmarked(
    jobs: Vec<MatrixJob>,
    commits: &[String],
    records: &Records,
    config: &Config,
    shell: &Shell,
) -> Result<Vec<MatrixJob>> {
    let mut images = HashMap::new();
    let mut remaining = Vec::new();
    for mut job in jobs {
        let device_type = job.device_type.clone().with_context(|| {
            format!(
                "the device type of `{0}` is not known: set it in vllm-perf.yml, `matrix: {{types: {{{0}: ...}}}}`",
                job.runner
            )
        });
        let device_type = device_type.mistake()?;
        let registry = Registry::new(registry::PAUSE, registry::architecture(job.device), &shell.environment)?;
        for commit in commits {
            let image = reference(&job, commit, config)?;
            let exists = match images.get(&image) {
                Some(exists) => *exists,
                None => registry.find(&image).await? == ImageState::Present,
            };
            images.insert(image, exists);
            if exists && !records.exist(commit, &device_type, &job.model).await? {
                job.commit = Some(commit.clone());
                break;
            }
        }
        let place = format!("{} on {}", job.model, job.runner);
        if let Some(commit) = &job.commit {
            shell.say(&format!("{place}: {commit}"));
            remaining.push(job);
        } else {
            let (count, branch) = (commits.len(), &records.branch);
            shell.say(&format!("{place}: none of the {count} newest commits of {branch} has an image and no records"));
        }
    }
    Ok(remaining)
}

/// The records of one branch of a repository.
struct Records {
    store: Store,
    repository: String,
    branch: String,
}

impl Records {
    fn open(arguments: &StoredRecordsArgs, event: &Event, config: &Config, shell: &Shell) -> Result<Self> {
        let place = arguments.store.as_ref().or(config.store.as_ref());
        let place =
            place.context("--unbenchmarked needs a store: use --store, or `store` in vllm-perf.yml").mistake()?;
        let repository = arguments.repository.as_ref().or(event.repository.as_ref());
        let repository =
            repository.context("--unbenchmarked needs the repository of the records: use --repository OWNER/NAME");
        Ok(Self {
            store: Store::open(place, &shell.environment)?,
            repository: repository.mistake()?.clone(),
            branch: arguments.branch.clone(),
        })
    }

    async fn exist(&self, commit: &str, device_type: &str, model: &str) -> Result<bool> {
        let key = |model: &str| RecordKey::new(&self.repository, &self.branch, commit, device_type, model).to_string();
        // The records of the daily workflow have the model in lower case.
        Ok(self.store.exists(&key(model)).await? || self.store.exists(&key(&model.to_lowercase())).await?)
    }
}

/// The image of a commit of main for a job.
fn reference(job: &MatrixJob, commit: &str, config: &Config) -> Result<String> {
    let image_suffix = config.device(job.device).image_suffix;
    let device = Device { name: job.device, device_type: String::new(), count: 1, image_suffix };
    image::reference(&device, &commit.parse().mistake()?, Pipeline::Main, &config.images, None)
}

/// At most `most` commits of a branch, newest first: from git, or from GitHub if this clone has fewer.
async fn newest(branch: &str, most: u32, git: &Git, github: Option<(&Github, &str)>) -> Result<Vec<String>> {
    let mut known = Vec::new();
    if let Some(tip) = git.branch(branch).await {
        let before = git.before(&tip, most - 1).await.mistake()?;
        known = std::iter::once(tip).chain(before).collect();
    }
    if (known.len() as u32) < most
        && let Some((github, repository)) = github
    {
        let tip = github.tip(repository, branch).await?;
        let before = github.before(repository, &tip, most - 1).await?;
        known = std::iter::once(tip).chain(before).collect();
    }
    if known.is_empty() {
        return Err(anyhow!("git has no branch `{branch}`: fetch it, set a GITHUB_TOKEN, or use another --branch"))
            .mistake();
    }
    Ok(known)
}

/// `vllm-perf matrix`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf matrix --format github --suite examples/suite --config examples/matrix.yml\n\n  vllm-perf matrix --format buildkite --unbenchmarked 100 | buildkite-agent pipeline upload --no-interpolation",
    after_long_help = "`matrix` in vllm-perf.yml lists the runners of each device and size, and what is skipped. A job measures one model: set\nMODEL_FILTER to it. An event that is not benchmarked has no jobs; the reason is printed on standard error."
)]
pub struct MatrixArgs {
    /// github (one line of JSON for `strategy.matrix`) or buildkite (a pipeline to upload)
    #[arg(long, env = "VLLM_PERF_MATRIX_FORMAT", value_enum, value_name = "FORMAT", hide_possible_values = true)]
    pub format: MatrixFormat,
    #[command(flatten)]
    pub event: EventArgs,
    /// A label, for local runs; repeatable
    #[arg(long = "label", env = "VLLM_PERF_LABEL", value_name = "NAME", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Folder of the test files, or of a folder of them for each device
    #[arg(long, env = "VLLM_PERF_SUITE", value_name = "DIR")]
    pub suite: Option<PathBuf>,
    /// Only this model; repeatable
    #[arg(long = "model", env = "VLLM_PERF_MATRIX_MODELS", value_name = "NAME", value_delimiter = ',')]
    pub models: Vec<String>,
    /// Only runners with this in their name; repeatable
    #[arg(long = "runner", env = "VLLM_PERF_MATRIX_RUNNERS", value_name = "PART", value_delimiter = ',')]
    pub runners: Vec<String>,
    #[command(flatten)]
    pub records: StoredRecordsArgs,
    #[command(flatten)]
    pub steps: StepArgs,
    /// Config file, in place of vllm-perf.yml
    #[arg(long, env = "VLLM_PERF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Which jobs have records already.
#[derive(Debug, Args)]
pub struct StoredRecordsArgs {
    /// For each job, the newest of this many commits of the branch that has an image and no records (number, 1 to 100)
    #[arg(long, env = "VLLM_PERF_UNBENCHMARKED", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub unbenchmarked: Option<u32>,
    /// Store of the records, here and in the steps, in place of the config's: a folder, file:///, s3://, gs:// or az://
    #[arg(long, env = "VLLM_PERF_STORE", value_name = "STORE")]
    pub store: Option<String>,
    /// OWNER/NAME of the records, in place of the event's
    #[arg(long, env = "VLLM_PERF_REPOSITORY", value_name = "NAME")]
    pub repository: Option<String>,
    /// Branch of the records and the commits
    #[arg(long, env = "VLLM_PERF_BRANCH", value_name = "NAME", default_value = "main")]
    pub branch: String,
}

/// What the steps of a Buildkite pipeline have in common.
#[derive(Debug, Args)]
pub struct StepArgs {
    /// Buildkite: the plugin of the steps
    #[arg(hide_short_help = true, long, env = "VLLM_PERF_MATRIX_PLUGIN", value_name = "PLUGIN", default_value = PLUGIN)]
    pub plugin: String,
    /// Buildkite: an option of the plugin in every step; repeatable
    #[arg(
        hide_short_help = true,
        long = "option",
        env = "VLLM_PERF_MATRIX_OPTIONS",
        value_name = "NAME=VALUE",
        value_delimiter = ','
    )]
    pub options: Vec<String>,
}

/// The plugin at this program's version.
const PLUGIN: &str = concat!("vllm-project/vllm-perf#v", env!("CARGO_PKG_VERSION"));

/// The CI system that reads the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MatrixFormat {
    /// For `strategy.matrix`.
    Github,
    /// For `buildkite-agent pipeline upload`.
    Buildkite,
}
