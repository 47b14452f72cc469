//! `vllm-perf matrix`: the jobs of CI, from the suite, the runners of the config and the labels of the event; and for a
//! nightly run the commit that each still has to measure.

use crate::ci::matrix::{buildkite_pipeline, github_matrix};
use crate::command::event_flags::{EventArgs, refresh_labels};
use clap::Args;
use clap::ValueEnum;
use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use indexmap::IndexMap;
use vllm_verdict::v1::{Device, Event};

use super::base_settings;
use crate::ci::matrix::buildkite_pipeline::{Steps, Value};
use crate::ci::matrix::{self, Pair, Wanted};
use crate::ci::trigger;
use crate::exit::{Classify, Exit};
use crate::plan::config::Config;
use crate::plan::image::{self, Pipeline};
use crate::plan::suite;
use crate::system::git;
use crate::system::github::Github;
use crate::system::registry::{self, Found, Registry};
use crate::system::shell::Shell;
use crate::system::store::Store;
use crate::system::store::object_key::RecordKey;
use crate::system::suite_folder;

/// Prints the matrix. That there are no jobs is no error: why is said.
pub(super) async fn matrix(arguments: &MatrixArgs, shell: &Shell) -> Result<Exit> {
    let (mut event, ci) = arguments.event.read(&arguments.labels, &shell.environment)?;
    let (config, notice) = base_settings::of_event(&event, arguments.config.as_deref(), shell).await?;
    if let Some(notice) = notice {
        shell.say(&notice);
    }
    let github = arguments.event.github(&ci, &shell.environment)?;
    if let Some(github) = &github {
        refresh_labels(&mut event, github, shell).await;
    }
    let decision = trigger::decide(&event, &config.trigger, &config.devices)?;
    let mut pairs = match decision.run {
        true => jobs(arguments, &event, &config, shell)?,
        false => Vec::new(),
    };
    if !decision.run {
        shell.say(&format!("no jobs: {}", decision.reason));
    } else if let Some(most) = arguments.unbenchmarked {
        pairs = unbenchmarked(pairs, most, arguments, &event, &config, github.as_ref(), shell).await?;
    }
    let text = match arguments.format {
        MatrixFormat::Github => github_matrix::text(&pairs)?,
        MatrixFormat::Buildkite => buildkite_pipeline::text(&pairs, &steps(arguments)?)?,
    };
    shell.print(&text);
    Ok(Exit::Done)
}

fn jobs(arguments: &MatrixArgs, event: &Event, config: &Config, shell: &Shell) -> Result<Vec<Pair>> {
    if config.matrix.runners.is_empty() {
        return Err(anyhow!(
            "no runners: say in vllm-perf.yml where models run, `matrix: {{runners: {{cpu: {{1: [my-runner]}}}}}}`"
        ))
        .mistake();
    }
    let folder = arguments.suite.as_ref().unwrap_or(&config.suite);
    let wanted = Wanted { models: given(&arguments.models), runners: given(&arguments.runners) };
    let devices = trigger::narrowed(event, &config.devices);
    let mut pairs = Vec::new();
    for (device, sizes) in &config.matrix.runners {
        let device = *device;
        if !devices.contains(&device) {
            shell.say(&format!("no jobs on {device}: it is not among the devices of this event"));
            continue;
        }
        // The file of a device that nobody asked for may be broken: it is nobody's concern here.
        if !sizes.values().flatten().any(|runner| wanted.runner(runner)) {
            continue;
        }
        let files = suite_folder::serving(folder, &shell.environment, device)?;
        if files.is_empty() {
            shell.say(&format!("no jobs on {device}: no serving tests for it in `{}`", folder.display()));
        }
        let models = suite::models(&files)?;
        for size in matrix::homeless(device, &models, &config.matrix, &wanted) {
            shell.say(&format!(
                "no runner of {device} has room for a tensor-parallel size of {size}: see `matrix.runners`"
            ));
        }
        pairs.extend(matrix::pairs(device, &models, &config.matrix, &wanted));
    }
    if pairs.is_empty() {
        shell.say("no jobs: no model of the suite has a runner here");
    }
    Ok(pairs)
}

/// What was typed, without empty words: an input that nobody set wants all.
fn given(words: &[String]) -> Vec<String> {
    words.iter().map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

/// Options of every step; the folder and the file that this command was given are those of the jobs.
fn steps(arguments: &MatrixArgs) -> Result<Steps> {
    let mut options = IndexMap::new();
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    options.extend(path(&arguments.suite).map(|text| ("suite".to_owned(), Value::Text(text))));
    options.extend(path(&arguments.config).map(|text| ("config".to_owned(), Value::Text(text))));
    for option in &arguments.options {
        let (name, value) = option
            .split_once('=')
            .with_context(|| format!("`--option {option}`: expected NAME=VALUE, as in `--option pairs=3`"))
            .mistake()?;
        options.insert(name.to_owned(), Value::from(value.to_owned()));
    }
    Ok(Steps { plugin: arguments.plugin.clone(), options })
}

/// For each job the newest commit with an image and without records; a job without one is left out, and said.
async fn unbenchmarked(
    pairs: Vec<Pair>,
    most: u32,
    arguments: &MatrixArgs,
    event: &Event,
    config: &Config,
    github: Option<&Github>,
    shell: &Shell,
) -> Result<Vec<Pair>> {
    let place = arguments.store.as_ref().or(config.store.as_ref());
    let place = place.context("--unbenchmarked needs a store: give --store, or `store` in vllm-perf.yml").mistake()?;
    let store = Store::open(place, &shell.environment)?;
    let repository = arguments.repository.as_ref().or(event.repository.as_ref());
    let repository =
        repository.context("--unbenchmarked needs to know whose records: give --repository OWNER/NAME").mistake()?;
    let branch = &arguments.branch;
    let commits = newest(branch, most, github.map(|github| (github, repository.as_str()))).await?;
    let (mut images, mut left) = (HashMap::new(), Vec::new());
    'jobs: for mut pair in pairs {
        let device_type = pair.device_type.clone().with_context(|| {
            format!(
                "the device type of `{0}` is not known: say it in vllm-perf.yml, `matrix: {{types: {{{0}: ...}}}}`",
                pair.runner
            )
        });
        let device_type = device_type.mistake()?;
        let registry = Registry::new(registry::PAUSE, registry::architecture(pair.device), &shell.environment)?;
        for commit in &commits {
            let image = reference(&pair, commit, config)?;
            let there = match images.get(&image) {
                Some(there) => *there,
                None => registry.find(&image).await? == Found::Here,
            };
            images.insert(image, there);
            if !there {
                continue;
            }
            // The daily workflow's own records have the model in lower case.
            let key = |model: &str| RecordKey::new(repository, branch, commit, &device_type, model).to_string();
            if store.exists(&key(&pair.model)).await? || store.exists(&key(&pair.model.to_lowercase())).await? {
                continue;
            }
            shell.say(&format!("{} on {}: {commit}", pair.model, pair.runner));
            pair.commit = Some(commit.clone());
            left.push(pair);
            continue 'jobs;
        }
        shell.say(&format!(
            "{} on {}: none of the {} newest commits of {branch} has an image and no records",
            pair.model,
            pair.runner,
            commits.len()
        ));
    }
    Ok(left)
}

/// The image of a commit of main for a job.
fn reference(pair: &Pair, commit: &str, config: &Config) -> Result<String> {
    let image_suffix = config.device(pair.device).image_suffix;
    let device = Device { name: pair.device, device_type: String::new(), count: 1, image_suffix };
    image::reference(&device, &commit.parse().mistake()?, Pipeline::Main, &config.images)
}

/// At most `most` commits of a branch, newest first: git's, else GitHub's where this clone has fewer.
async fn newest(branch: &str, most: u32, github: Option<(&Github, &str)>) -> Result<Vec<String>> {
    let mut known = Vec::new();
    if let Some(tip) = git::branch(branch).await {
        let before = git::before(&tip, most - 1).await.mistake()?;
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
        return Err(anyhow!("git knows no branch `{branch}`: fetch it, give a GITHUB_TOKEN, or name another --branch"))
            .mistake();
    }
    Ok(known)
}

/// `vllm-perf matrix`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf matrix --format github --suite examples/suite --config examples/matrix.yml\n\n  vllm-perf matrix --format buildkite --unbenchmarked 100 | buildkite-agent pipeline upload --no-interpolation",
    after_help = "The runners of each device and size, and what is skipped, are `matrix` in vllm-perf.yml. A job measures one model: set\nMODEL_FILTER to it. An event that is not benchmarked has no jobs, and the reason is on standard error."
)]
pub struct MatrixArgs {
    /// github (one line of JSON for `strategy.matrix`) or buildkite (a pipeline to upload)
    #[arg(long, env = "VLLM_PERF_MATRIX_FORMAT", value_enum, value_name = "FORMAT", hide_possible_values = true)]
    pub format: MatrixFormat,
    /// What happened.
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
    /// For each job the newest of so many commits of the branch with an image and no records (number, 1 to 100)
    #[arg(long, env = "VLLM_PERF_UNBENCHMARKED", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub unbenchmarked: Option<u32>,
    /// Where to look for records, in place of the config's: a folder, file:///, s3://, gs:// or az://
    #[arg(long, env = "VLLM_PERF_STORE", value_name = "STORE")]
    pub store: Option<String>,
    /// OWNER/NAME of the records, in place of the event's
    #[arg(long, env = "VLLM_PERF_REPOSITORY", value_name = "NAME")]
    pub repository: Option<String>,
    /// Branch of the records and the commits
    #[arg(long, env = "VLLM_PERF_BRANCH", value_name = "NAME", default_value = "main")]
    pub branch: String,
    /// Buildkite: the plugin of the steps
    #[arg(long, env = "VLLM_PERF_MATRIX_PLUGIN", value_name = "PLUGIN", default_value = PLUGIN)]
    pub plugin: String,
    /// Buildkite: an option that every step gives to the plugin; repeatable
    #[arg(long = "option", env = "VLLM_PERF_MATRIX_OPTIONS", value_name = "NAME=VALUE", value_delimiter = ',')]
    pub options: Vec<String>,
    /// Config file, in place of vllm-perf.yml
    #[arg(long, env = "VLLM_PERF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The plugin at this program's version.
const PLUGIN: &str = concat!("vllm-project/vllm-perf#v", env!("CARGO_PKG_VERSION"));

/// Whose matrix it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MatrixFormat {
    /// For `strategy.matrix`.
    Github,
    /// For `buildkite-agent pipeline upload`.
    Buildkite,
}
