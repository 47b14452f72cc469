//! `vllm-perf calibrate`: A/A runs until the noise of every primary row is known, or the budget ends.

mod known_noise;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;
use vllm_verdict::noise::MeasuredOn;
use vllm_verdict::strategy::DEFAULT_PAIRS;
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::CaseFacts;

use super::prepare::{self, Prepared};
use super::{conclude, hub_token, needed_data_sets, preflight};
use crate::command::planning_flags::Planning;
use crate::command::reproduction::made_with;
use crate::command::run_flags::Timeouts;
use crate::duration;
use crate::exit::{Classify, Exit};
use crate::plan::suite::data_set_file::DataSetFiles;
use crate::plan::target::Target;
use crate::run::measure::{Measure, Measured};
use crate::run::run_folder;
use crate::system::exchange;
use crate::system::interrupt::until_signal;
use crate::system::noise_store::{self, Known};
use crate::system::output::OutputFolder;
use crate::system::process::{Processes, left_behind};
use crate::system::shell::Shell;
use crate::system::store::Store;
use known_noise::KnownNoise;

/// Runs head against itself, repeatedly. A signal may interrupt it anywhere.
pub(super) async fn calibrate(arguments: &mut CalibrateArgs, shell: &Shell) -> Result<Exit> {
    let processes = Processes::new(shell.program.clone());
    let mut outputs = Vec::new();
    let ended = until_signal(work(arguments, &processes, &mut outputs, shell)).await;
    let left = processes.end_all(ended.is_err()).await;
    left_behind(&left).iter().for_each(|sentence| shell.say(sentence));
    // Containers and clients have ended: their files are deleted.
    for error in outputs.iter().filter_map(|out| exchange::clear(out).err()) {
        shell.say(&format!("{error:#}"));
    }
    if let (Err(_), Some(out)) = (&ended, outputs.last()) {
        let root = out.root().display();
        shell.say(&format!("interrupted in `{root}`; `vllm-perf calibrate` with the same store continues"));
    }
    ended.unwrap_or_else(|signal| Ok(Exit::Signal(signal)))
}

/// `outputs` gets the output folders of the runs.
async fn work(
    arguments: &mut CalibrateArgs,
    processes: &Processes,
    outputs: &mut Vec<OutputFolder>,
    shell: &Shell,
) -> Result<Exit> {
    let begun = Instant::now();
    check_flags(&mut arguments.planning)?;
    let mut prepared = prepare::prepare(&arguments.planning, true, shell).await?;
    if !prepared.plan.trigger.run {
        shell.print(&prepared.plan.trigger.reason);
        return Ok(Exit::Done);
    }
    let place = prepared.config.store.as_deref();
    let place = place.ok_or_else(|| anyhow!("no store: the noise of A/A runs needs one (--store STORE)")).mistake()?;
    let store = Store::open(place, &shell.environment)?;
    let plan = &mut prepared.plan;
    plan.sides.base.clone_from(&plan.sides.head);
    plan.strategy = Strategy::Paired;
    preflight::check(plan, &prepared.config.container, &arguments.planning.out, shell).await?;
    let data_sets = needed_data_sets::provide(plan, &prepared.config, shell).await?;
    hub_token::check(plan, &shell.environment).mistake()?;
    Calibration { arguments, prepared, data_sets, store, begun, processes, outputs, shell }.run().await
}

/// Refuses flags that contradict A/A runs of head, and plans without base.
fn check_flags(planning: &mut Planning) -> Result<()> {
    let refused = [
        ("--base", planning.sides.base.is_some()),
        ("--base-server-args", planning.sides.base_server_args.is_some()),
        ("--strategy", planning.runs.strategy.is_some_and(|strategy| strategy != Strategy::Paired)),
    ];
    if let Some((flag, _)) = refused.into_iter().find(|(_, is_given)| *is_given) {
        return Err(anyhow!("{flag}: `calibrate` measures --head against itself")).mistake();
    }
    planning.sides.base = Some("none".to_owned());
    planning.runs.strategy = None;
    Ok(())
}

struct Calibration<'a> {
    arguments: &'a CalibrateArgs,
    prepared: Prepared,
    data_sets: DataSetFiles,
    store: Store,
    begun: Instant,
    processes: &'a Processes,
    outputs: &'a mut Vec<OutputFolder>,
    shell: &'a Shell,
}

impl Calibration<'_> {
    /// A/A runs until every primary row has its pairs, or the budget ends.
    async fn run(mut self) -> Result<Exit> {
        let mut known = self.known().await?;
        self.shell.say(&known.sentence());
        let mut longest = Duration::ZERO;
        while !known.is_complete() {
            let remaining =
                self.arguments.planning.runs.budget.map(|budget| budget.saturating_sub(self.begun.elapsed()));
            if remaining.is_some_and(|remaining| remaining < longest || remaining.is_zero()) {
                self.shell.say(&format!(
                    "the budget of {} is used up; `vllm-perf calibrate` with the same store continues",
                    duration::text(self.arguments.planning.runs.budget.unwrap_or_default())
                ));
                break;
            }
            let begun = Instant::now();
            // No run is longer than the missing pairs, and each has its own order.
            self.prepared.plan.pairs =
                self.arguments.planning.runs.pairs.unwrap_or(DEFAULT_PAIRS).min(known.missing()).max(2);
            self.measure(remaining).await?;
            let now = self.known().await?;
            if now.least <= known.least {
                let row = &now.worst;
                return Err(anyhow!("no pair of {row} has a value on both sides: its noise cannot be estimated"))
                    .unmeasured();
            }
            known = now;
            self.shell.say(&known.sentence());
            self.prepared.plan.seed ^= 1;
            longest = longest.max(begun.elapsed());
        }
        self.shell.print(&known.table());
        let is_whole = conclude::say_invalid(&self.prepared.plan.skipped, self.shell);
        Ok(if is_whole { Exit::Done } else { Exit::Unmeasured })
    }

    async fn known(&self) -> Result<KnownNoise> {
        let Prepared { plan, config, .. } = &self.prepared;
        let simulated = plan.sides.present().all(|(_, side)| matches!(side.target, Target::Sim(_)));
        let Known { noise, left_out } =
            noise_store::read(&self.store, &MeasuredOn::new(&plan.device, simulated), None).await?;
        left_out.iter().for_each(|why| self.shell.say(why));
        let cases: Vec<CaseFacts> = plan.cases.iter().map(CaseFacts::from).collect();
        let precision = f64::from(self.arguments.precision) / 100.0;
        Ok(KnownNoise::of(&noise, &cases, &config.verdict, precision))
    }

    /// One A/A run in an output folder of its own.
    async fn measure(&mut self, budget: Option<Duration>) -> Result<()> {
        let CalibrateArgs { planning, timeouts, .. } = self.arguments;
        let (Prepared { plan, config, ci }, data_sets) = (&self.prepared, &self.data_sets);
        let out = OutputFolder::at(&free(&planning.out));
        let mut folder = run_folder::open(&out, plan.clone(), false, self.shell)?;
        self.outputs.push(out.clone());
        let measure = Measure {
            plan: &folder.plan,
            config,
            data_sets,
            limits: timeouts.limits(budget, config),
            wait: timeouts.wait.unwrap_or(config.images.wait),
            is_store_required: planning.store.is_some(),
            reproduce: plan.reproduce(&made_with(planning, timeouts, &plan.event, config, self.shell)),
            out: &out,
            id: run_folder::run_id(),
            processes: self.processes,
            shell: self.shell,
        };
        let Measured { comparison, not_stored } = measure.run(&mut folder.journal).await?;
        conclude::print_times(&comparison, self.shell);
        conclude::write_reports(ci, &comparison, &out, self.shell)?;
        // Without a store there is nothing to continue with.
        not_stored.map_or(Ok(()), Err).world()
    }
}

/// The first numbered folder in `root` that does not exist.
fn free(root: &Path) -> PathBuf {
    (1_u32..).map(|number| root.join(format!("{number:02}"))).find(|path| !path.exists()).unwrap_or_default()
}

/// `vllm-perf calibrate`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf calibrate --suite example --head sim:itl=10ms --store noise --budget 2h"
)]
pub struct CalibrateArgs {
    /// What to plan.
    #[command(flatten)]
    pub planning: Planning,
    /// Time limits.
    #[command(flatten)]
    pub timeouts: Timeouts,
    /// Relative standard error of each primary row's noise at which it is known (percent)
    #[arg(
        long,
        env = "VLLM_PERF_PRECISION",
        value_name = "PERCENT",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=50)
    )]
    pub precision: u32,
}
