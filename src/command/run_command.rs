//! `vllm-perf run`: plan, wait for the images, benchmark, compare, write the output folder.

use anyhow::{Result, anyhow};
use clap::Args;
use clap::builder::BoolishValueParser;
use vllm_verdict::number::plural;

use super::prepare::{self, Prepared};
use super::{base_fallback, conclude, hub_token, needed_data_sets, plan_output, preflight};
use crate::command::announcement::Announcement;
use crate::command::conclude::EndedRun;
use crate::command::planning_flags::Planning;
use crate::command::reproduction::made_with;
use crate::command::run_flags::Timeouts;
use crate::command::shared_flags::Format;
use crate::duration;
use crate::exit::{Classify, Exit};
use crate::plan::suite::data_set_file::DataSetFiles;
use crate::report::markdown;
use crate::run::measure::Measure;
use crate::run::run_folder::{self, RunFolder};
use crate::system::availability::NotPublished;
use crate::system::exchange;
use crate::system::interrupt::until_signal;
use crate::system::output::OutputFolder;
use crate::system::process::{Processes, left_behind};
use crate::system::shell::Shell;
use crate::system::step_files;

/// Runs the benchmark. A regression is not a failure here: the command `verdict` exits by it.
pub(super) async fn run(arguments: &RunArgs, shell: &Shell) -> Result<Exit> {
    let processes = Processes::new(shell.program.clone());
    let mut underway = Underway::default();
    let ended = until_signal(work(arguments, &processes, &mut underway, shell)).await;
    let ending = processes.end_all(ended.is_err());
    let (left, ()) = tokio::join!(ending, underway.take_note_back(!matches!(ended, Ok(Ok(_)))));
    left_behind(&left).iter().for_each(|sentence| shell.say(sentence));
    if let Some((folder, out)) = &underway.folder {
        // Containers and clients have ended: their files are deleted.
        if let Err(error) = exchange::clear(out) {
            shell.say(&format!("{error:#}"));
        }
        if ended.is_err() {
            shell.say(&format!(
                "interrupted: {} kept in `{}`; `vllm-perf run --resume` with the same flags continues",
                plural(folder.journal.entries().len(), "case run"),
                out.root().display()
            ));
        }
    }
    ended.unwrap_or_else(|signal| Ok(Exit::Signal(signal)))
}

/// What has to be ended however the run ends.
#[derive(Default)]
struct Underway {
    /// The note on the pull request that a run is in progress.
    announcement: Option<Announcement>,
    folder: Option<(RunFolder, OutputFolder)>,
}

impl Underway {
    /// Takes the note on the pull request back where no report replaces it.
    async fn take_note_back(&mut self, is_without_report: bool) {
        if let Some(announcement) = self.announcement.take().filter(|_| is_without_report) {
            announcement.take_back().await;
        }
    }
}

/// The whole of the command, which a signal may interrupt anywhere.
async fn work(arguments: &RunArgs, processes: &Processes, underway: &mut Underway, shell: &Shell) -> Result<Exit> {
    let is_dry = arguments.dry_run || shell.environment.is_on("DRY_RUN").map_err(|why| anyhow!(why)).mistake()?;
    let mut prepared = prepare::prepare(&arguments.planning, !is_dry, shell).await?;
    if is_dry {
        plan_output::print(&prepared.plan, Format::Text, shell)?;
        let sentences = needed_data_sets::sentences(&prepared.plan, &prepared.config, shell)?;
        sentences.iter().for_each(|sentence| shell.say(sentence));
        return Ok(Exit::Done);
    }
    if !prepared.plan.trigger.run {
        return skip(&prepared, shell);
    }
    preflight::check(&prepared.plan, &prepared.config.container, &arguments.planning.out, shell).await?;
    let data_sets = needed_data_sets::provide(&mut prepared.plan, &prepared.config, shell).await?;
    hub_token::check(&prepared.plan, &shell.environment).mistake()?;
    if !arguments.resume {
        let github = arguments.planning.event.github(&prepared.ci, &shell.environment)?;
        let config = &prepared.config;
        base_fallback::fall_back(&mut prepared.plan, arguments.base_fallback, config, github.as_ref(), shell).await?;
    }
    measure(arguments, prepared, data_sets, processes, underway, shell).await
}

/// Measures what was planned and writes the output folder.
async fn measure(
    arguments: &RunArgs,
    prepared: Prepared,
    data_sets: DataSetFiles,
    processes: &Processes,
    underway: &mut Underway,
    shell: &Shell,
) -> Result<Exit> {
    let Prepared { plan, config, ci } = prepared;
    let RunArgs { planning, timeouts, .. } = arguments;
    let out = OutputFolder::at(&planning.out);
    // A resumed run has the budget of this command, and the rest of its plan from the first one.
    let budget = plan.budget.map(duration::of_seconds);
    let opened = run_folder::open(&out, plan, arguments.resume, shell)?;
    let (RunFolder { plan, journal, .. }, out) = underway.folder.insert((opened, out));
    underway.announcement = Announcement::make(&planning.event, &ci, plan, shell).await;
    if let Some(announcement) = &underway.announcement {
        announcement.put(shell).await;
    }
    let measure = Measure {
        plan,
        config: &config,
        data_sets: &data_sets,
        limits: timeouts.limits(budget, &config),
        wait: timeouts.wait.unwrap_or(config.images.wait),
        is_store_required: planning.store.is_some(),
        reproduce: plan.reproduce(&made_with(planning, timeouts, &plan.event, &config, shell)),
        out,
        id: run_folder::run_id(),
        processes,
        shell,
    };
    let measured = measure.run(journal).await.inspect_err(|error| {
        // There is no report: without this the author of a pull request would not see that there was no build.
        if let (Some(missing), Some(path)) = (error.downcast_ref::<NotPublished>(), &ci.step_summary)
            && let Err(error) = step_files::append_summary(path, &markdown::skipped(&missing.to_string()))
        {
            shell.say(&format!("{error:#}"));
        }
    })?;
    let ended = EndedRun { plan, comparison: &measured.comparison, out, journal };
    let exit = conclude::conclude(&ended, &ci, &config, arguments.print_comment, shell).await?;
    match measured.not_stored {
        Some(error) => Err(error).world(),
        None => Ok(exit),
    }
}

/// Prints why nothing runs, also to the job summary.
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
#[command(before_help = "Example:\n  vllm-perf run --suite example --base sim:itl=10ms --head sim:itl=12ms")]
pub struct RunArgs {
    /// What to plan.
    #[command(flatten)]
    pub planning: Planning,
    /// Print the plan and stop
    #[arg(long, env = "VLLM_PERF_DRY_RUN", value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
    /// Print the comment, too, that `publish` would post (`comment.md` in the output folder)
    #[arg(hide_short_help = true, long, env = "VLLM_PERF_PRINT_COMMENT", value_parser = BoolishValueParser::new())]
    pub print_comment: bool,
    /// Resume an interrupted run in the same output folder
    #[arg(long, env = "VLLM_PERF_RESUME", value_parser = BoolishValueParser::new())]
    pub resume: bool,
    /// Where base's image or wheel is missing, take one of so many commits before it (number, 0 to 99)
    #[arg(hide_short_help = true, long, env = "VLLM_PERF_BASE_FALLBACK", value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=99))]
    pub base_fallback: u32,
    /// Time limits.
    #[command(flatten)]
    pub timeouts: Timeouts,
}
