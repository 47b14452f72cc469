//! `vllm-perf run`: plan, wait for the images, benchmark, compare, write the output folder.

pub mod conclude;
mod head_records;

use crate::command::arguments::span;
use crate::command::planning_flags::Planning;
use crate::publish::comment;
use crate::run::{measure, run_folder};
use crate::system::interrupt::interruptible;
use crate::system::step_files;
use clap::Args;
use clap::builder::BoolishValueParser;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::prepare::{self, Prepared};
use super::{base_commit, plan_command};
use crate::ci::event::CiRun;
use crate::command::arguments::Format;
use crate::exit::{Classify, Exit};
use crate::plan::Plan;
use crate::plan::target::Target;
use crate::publish;
use crate::report::markdown;
use crate::system::github::Github;
use crate::system::output::OutputFolder;
use crate::system::process::Processes;
use crate::system::registry::ImageMissing;
use crate::system::shell::Shell;

/// Runs the benchmark. A regression is not a failure here: `verdict` tells.
pub(super) async fn run(arguments: &RunArgs, shell: &Shell) -> Result<Exit> {
    let mut prepared = prepare::prepare(&arguments.planning, !arguments.dry_run, shell).await?;
    if arguments.dry_run || shell.environment.get("DRY_RUN") == Some("1") {
        plan_command::print(&prepared.plan, Format::Text, shell)?;
        return Ok(Exit::Done);
    }
    if !prepared.plan.trigger.run {
        return skip(&prepared, shell);
    }
    check_hub_token(&prepared.plan, shell).mistake()?;
    let out = OutputFolder::at(&arguments.planning.out);
    if !arguments.resume {
        let github = prepare::github(&arguments.planning.event, &prepared.ci, &shell.environment)?;
        let images = &prepared.config.images;
        base_commit::fall_back(&mut prepared.plan, arguments.base_fallback, images, github.as_ref(), shell).await?;
    }
    let (plan, mut journal, _lock) = run_folder::open(&out, prepared.plan, arguments.resume, shell)?;

    let announcement = Announcement::make(arguments, &prepared.ci, &plan, shell).await;
    let processes = Processes::new(shell.program.clone());
    let work = measure::Measure {
        planning: &arguments.planning,
        timeouts: &arguments.timeouts,
        budget: arguments.planning.budget,
        plan: &plan,
        config: &prepared.config,
        out: &out,
        processes: &processes,
        shell,
    };
    let comparison = match interruptible(&processes, work.run(&mut journal)).await {
        Ok(comparison) => comparison,
        Err(signal) => {
            shell.say(&format!(
                "interrupted: {} case runs are kept in `{}`; `vllm-perf run --resume` with the same flags goes on",
                journal.entries().len(),
                out.root().display()
            ));
            if let Some(announcement) = announcement {
                announcement.take_back().await;
            }
            return Ok(Exit::Signal(signal));
        }
    };
    let comparison = match comparison {
        Ok(comparison) => comparison,
        Err(error) => {
            if let Some(announcement) = announcement {
                announcement.take_back().await;
            }
            // Nothing else tells a pull request's author that there was no image: there is no report.
            if let (Some(missing), Some(path)) = (error.downcast_ref::<ImageMissing>(), &prepared.ci.step_summary) {
                step_files::append_summary(path, &markdown::skipped(&missing.to_string()))?;
            }
            return Err(error);
        }
    };
    conclude::conclude(&prepared.ci, &prepared.config, &plan, &comparison, &out, &journal, shell).await
}

/// The comment of an earlier run, while this one says on it that it is under way.
struct Announcement {
    github: Github,
    repository: String,
    number: u64,
    id: String,
    before: String,
}

impl Announcement {
    /// Says on an earlier comment that a run is under way. That this fails is no reason not to measure.
    async fn make(arguments: &RunArgs, ci: &CiRun, plan: &Plan, shell: &Shell) -> Option<Self> {
        let event = &plan.event;
        let (Some(repository), Some(number), false) = (event.repository.clone(), event.pull_request, event.fork) else {
            return None;
        };
        let made = async {
            let Some(github) = prepare::github(&arguments.planning.event, ci, &shell.environment)? else {
                return Ok(None);
            };
            let id = publish::comment_id(ci, Some(&plan.device));
            let Some(before) = comment::existing(&github, &repository, number, &id).await? else { return Ok(None) };
            let text = markdown::in_progress(&before, ci.run_url.as_deref());
            comment::stick(&github, &repository, number, &id, &text).await?;
            Ok(Some(Self { github, repository, number, id, before }))
        };
        let made: Result<Option<Self>> = made.await;
        made.unwrap_or_else(|error| {
            shell.say(&format!("cannot say on the pull request that a run is under way: {error:#}"));
            None
        })
    }

    /// Takes it back, where no report will take its place. CI leaves an interrupted run little time.
    async fn take_back(self) {
        let restored = comment::stick(&self.github, &self.repository, self.number, &self.id, &self.before);
        let _ = tokio::time::timeout(Duration::from_secs(3), restored).await;
    }
}

/// Says why nothing runs, where CI shows it.
fn skip(prepared: &Prepared, shell: &Shell) -> Result<Exit> {
    let text = markdown::skipped(&prepared.plan.trigger.reason);
    shell.print(&text);
    if let Some(path) = &prepared.ci.step_summary {
        step_files::append_summary(path, &text)?;
    }
    if let Some(path) = &prepared.ci.output {
        step_files::append_outputs(path, &[("ran", "false")])?;
    }
    Ok(Exit::Done)
}

/// Models come from the hub with a token, unless they are folders, the hub is not asked, or nothing real serves.
pub(super) fn check_hub_token(plan: &Plan, shell: &Shell) -> Result<()> {
    let environment = &shell.environment;
    let token = environment.get("HF_TOKEN");
    if token.is_some_and(|token| !token.starts_with("hf_")) {
        return Err(anyhow!("HF_TOKEN is no Hugging Face token: it must begin with `hf_`"));
    }
    let loads = plan.sides.present().any(|(_, side)| matches!(side.target, Target::Image(_) | Target::Local(_)));
    let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().any(|name| environment.get(name) == Some("1"));
    let from_hub = plan.cases.iter().find(|case| !Path::new(&case.model).is_dir());
    match from_hub {
        Some(case) if loads && !offline && token.is_none() => Err(anyhow!(
            "`{}` needs the model `{}` from the Hugging Face hub: set HF_TOKEN, or HF_HUB_OFFLINE=1 where it is cached",
            case.name,
            case.model
        )),
        _ => Ok(()),
    }
}

/// `vllm-perf run`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf run --suite examples/suite --device cpu --base sim:itl=10ms --head sim:itl=12ms"
)]
pub struct RunArgs {
    /// What to plan.
    #[command(flatten)]
    pub planning: Planning,
    /// Print the plan and stop
    #[arg(long, env = "VLLM_PERF_DRY_RUN", value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
    /// Go on where an interrupted run of the same output folder ended
    #[arg(long, env = "VLLM_PERF_RESUME", value_parser = BoolishValueParser::new())]
    pub resume: bool,
    /// Where base's image is missing, take one of so many commits before it (number, 0 to 99)
    #[arg(long, env = "VLLM_PERF_BASE_FALLBACK", value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=99))]
    pub base_fallback: u32,
    /// How long things may take.
    #[command(flatten)]
    pub timeouts: Timeouts,
}

/// How long things may take.
#[derive(Debug, Args)]
pub struct Timeouts {
    /// How long a server may take to answer /v1/models (45s, 20m)
    #[arg(long, env = "VLLM_PERF_SERVER_TIMEOUT", value_name = "TIME", default_value = "1200s", value_parser = span)]
    pub server_timeout: Duration,
    /// How long one case may take (90s, 60m)
    #[arg(long, env = "VLLM_PERF_CASE_TIMEOUT", value_name = "TIME", default_value = "60m", value_parser = span)]
    pub case_timeout: Duration,
    /// How long to wait for an image that is not there yet, in place of the config's (0s, 90m)
    #[arg(long, env = "VLLM_PERF_WAIT", value_name = "TIME", value_parser = span)]
    pub wait: Option<Duration>,
}
