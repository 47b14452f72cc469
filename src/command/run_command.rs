//! `vllm-perf run`: plan, wait for the images, benchmark, compare, write the output folder.

use crate::command::planning_flags::Planning;
use crate::publish::comment;
use crate::run::{measure, run_folder};
use crate::system::interrupt::interruptible;
use crate::system::step_files;
use clap::Args;
use clap::builder::BoolishValueParser;
use std::time::Duration;

use anyhow::Result;

use super::prepare::{self, Prepared};
use super::{base_fallback, conclude, hub_token, plan_output};
use crate::ci::event::CiRun;
use crate::command::run_flags::Timeouts;
use crate::command::shared_flags::Format;
use crate::exit::{Classify, Exit};
use crate::plan::Plan;
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
        plan_output::print(&prepared.plan, Format::Text, shell)?;
        return Ok(Exit::Done);
    }
    if !prepared.plan.trigger.run {
        return skip(&prepared, shell);
    }
    hub_token::check(&prepared.plan, &shell.environment).mistake()?;
    let out = OutputFolder::at(&arguments.planning.out);
    if !arguments.resume {
        let github = arguments.planning.event.github(&prepared.ci, &shell.environment)?;
        let images = &prepared.config.images;
        base_fallback::fall_back(&mut prepared.plan, arguments.base_fallback, images, github.as_ref(), shell).await?;
    }
    let (plan, mut journal, _lock) = run_folder::open(&out, prepared.plan, arguments.resume, shell)?;

    let announcement = Announcement::make(arguments, &prepared.ci, &plan, shell).await;
    let processes = Processes::new(shell.program.clone());
    let work = measure::Measure {
        planning: &arguments.planning,
        timeouts: &arguments.timeouts,
        budget: arguments.planning.runs.budget,
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
            let Some(github) = arguments.planning.event.github(ci, &shell.environment)? else {
                return Ok(None);
            };
            let id = publish::comment_id(ci, Some(&plan.device));
            let Some(before) = comment::existing(&github, &repository, number, &id).await? else { return Ok(None) };
            let text = markdown::under_way(&before, ci.run_url.as_deref());
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
