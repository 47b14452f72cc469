//! `vllm-perf calibrate`: A/A runs until the noise of every primary row is known, or the budget ends.

use crate::command::planning_flags::Planning;
use crate::command::run_flags::Timeouts;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::metric;
use vllm_verdict::noise::{ENOUGH_PAIRS, Noise};
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::CaseFacts;

use super::{conclude, hub_token, prepare};
use crate::duration;
use crate::exit::{Classify, Exit};
use crate::run::measure::Measure;
use crate::run::run_folder;
use crate::system::interrupt::interruptible;
use crate::system::noise_store;
use crate::system::output::OutputFolder;
use crate::system::process::Processes;
use crate::system::shell::Shell;
use crate::system::store::Store;

/// Runs head against itself, again and again.
pub(super) async fn calibrate(arguments: &mut CalibrateArgs, shell: &Shell) -> Result<Exit> {
    let planning = &mut arguments.planning;
    let alone = |flag: &str| Err(anyhow!("{flag}: `calibrate` measures --head against itself")).mistake();
    if planning.sides.base.is_some() || planning.sides.base_server_args.is_some() {
        return alone(if planning.sides.base.is_some() { "--base" } else { "--base-server-args" });
    }
    if planning.runs.strategy.is_some_and(|strategy| strategy != Strategy::Paired) {
        return alone("--strategy");
    }
    planning.sides.base = Some("none".to_owned());
    planning.runs.strategy = None;
    let (planning, begun) = (&arguments.planning, Instant::now());
    let mut prepared = prepare::prepare(planning, true, shell).await?;
    if !prepared.plan.trigger.run {
        shell.print(&prepared.plan.trigger.reason);
        return Ok(Exit::Done);
    }
    let store = prepared.config.store.as_deref();
    let store = store.ok_or_else(|| anyhow!("no store: the noise of A/A runs needs one (--store STORE)")).mistake()?;
    let store = Store::open(store, &shell.environment)?;
    let plan = &mut prepared.plan;
    plan.sides.base.clone_from(&plan.sides.head);
    plan.strategy = Strategy::Paired;
    hub_token::check(plan, &shell.environment).mistake()?;
    let cases: Vec<CaseFacts> = plan.cases.iter().map(CaseFacts::from).collect();
    let wanted = f64::from(arguments.precision) / 100.0;

    let mut known =
        Known::of(&noise_store::read(&store, &plan.device).await?, &cases, &prepared.config.verdict, wanted);
    shell.say(&known.sentence(wanted));
    let mut longest = Duration::ZERO;
    while known.least < known.needed {
        let left = planning.runs.budget.map(|budget| budget.saturating_sub(begun.elapsed()));
        if left.is_some_and(|left| left < longest || left.is_zero()) {
            shell.say(&format!(
                "the budget of {} ends here; `vllm-perf calibrate` with the same store goes on",
                duration::text(planning.runs.budget.unwrap_or_default())
            ));
            break;
        }
        let plan = &mut prepared.plan;
        // No run is longer than what is missing, and each has an order of its own.
        plan.pairs = planning.runs.pairs.min(known.missing()).max(2);
        let before = Instant::now();
        let out = OutputFolder::at(&free(&planning.out));
        let (plan, mut journal, _lock) = run_folder::open(&out, plan.clone(), false, shell)?;
        let processes = Processes::new(shell.program.clone());
        let measure = Measure {
            planning,
            timeouts: &arguments.timeouts,
            budget: left,
            plan: &plan,
            config: &prepared.config,
            out: &out,
            processes: &processes,
            shell,
        };
        let comparison = match interruptible(&processes, measure.run(&mut journal)).await {
            Ok(comparison) => comparison?,
            Err(signal) => return Ok(Exit::Signal(signal)),
        };
        conclude::write_reports(&prepared.ci, &comparison, &out, shell)?;
        let now = Known::of(&noise_store::read(&store, &plan.device).await?, &cases, &prepared.config.verdict, wanted);
        if now.least <= known.least {
            let row = &now.worst;
            return Err(anyhow!("no pair of {row} has a value on both sides: its noise cannot be known")).unmeasured();
        }
        known = now;
        shell.say(&known.sentence(wanted));
        prepared.plan.seed += 1;
        longest = longest.max(before.elapsed());
    }
    shell.print(&known.table());
    Ok(Exit::Done)
}

/// What is known of the noise of the primary rows.
#[derive(Debug, PartialEq)]
struct Known {
    /// A/A pairs of each row, and its noise as a share, where it is known.
    rows: Vec<(String, usize, Option<f64>)>,
    /// Pairs of the row that has the fewest.
    least: usize,
    /// Which row that is.
    worst: String,
    /// Pairs that every row needs.
    needed: usize,
}

impl Known {
    fn of(noise: &Noise, cases: &[CaseFacts], verdict: &VerdictConfig, wanted: f64) -> Self {
        let primary = |case: &CaseFacts| {
            let case = case.clone();
            metric::of(case.kind).filter(move |metric| verdict.is_primary(&case.name, metric))
        };
        let row = |(case, metric): (&CaseFacts, &metric::Metric)| {
            let s0 = noise.own(case, metric.id).and_then(|known| known.prior).map(|prior| prior.s0);
            (format!("{} of {}", metric.label, case.name), noise.ratios(case, metric.id).len(), s0)
        };
        let all = cases.iter().flat_map(|case| primary(case).map(move |metric| (case, metric)));
        // A metric that no run ever gave (TTFT of an embedding test) is no row.
        let measured = |case: &CaseFacts| metric::of(case.kind).any(|metric| !noise.ratios(case, metric.id).is_empty());
        let rows: Vec<(String, usize, Option<f64>)> = all
            .filter(|(case, metric)| !measured(case) || !noise.ratios(case, metric.id).is_empty())
            .map(row)
            .collect();
        let (worst, least) = rows
            .iter()
            .min_by_key(|(_, pairs, _)| *pairs)
            .map_or_else(Default::default, |(row, pairs, _)| (row.clone(), *pairs));
        Self { rows, least, worst, needed: needed(wanted) }
    }

    fn missing(&self) -> u32 {
        u32::try_from(self.needed.saturating_sub(self.least)).unwrap_or(u32::MAX)
    }

    fn sentence(&self, wanted: f64) -> String {
        let done = self.rows.iter().filter(|(_, pairs, _)| *pairs >= self.needed).count();
        format!(
            "{done} of {} primary rows have the {} A/A pairs that tell their noise to {:.0} %; the fewest are {}",
            self.rows.len(),
            self.needed,
            wanted * 100.0,
            self.least
        )
    }

    fn table(&self) -> String {
        let line = |(row, pairs, s0): &(String, usize, Option<f64>)| {
            let noise = s0.map_or("unknown".to_owned(), |s0| format!("{:.1} %", s0.exp_m1() * 100.0));
            let error =
                if *pairs > 1 { format!(" ± {:.0} % of it", relative_error(*pairs) * 100.0) } else { String::new() };
            format!("{row}: {pairs} pairs, noise of a pair {noise}{error}")
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Relative standard error of a standard deviation of so many normal values.
fn relative_error(pairs: usize) -> f64 {
    (2.0 * (pairs as f64 - 1.0)).sqrt().recip()
}

/// The fewest pairs that are enough for a verdict and known to the relative standard error that is wanted.
fn needed(wanted: f64) -> usize {
    (ENOUGH_PAIRS..).find(|pairs| relative_error(*pairs) <= wanted).unwrap_or(ENOUGH_PAIRS)
}

/// The first numbered folder in `root` that is free.
fn free(root: &Path) -> PathBuf {
    (1_u32..).map(|number| root.join(format!("{number:02}"))).find(|path| !path.exists()).unwrap_or_default()
}

/// `vllm-perf calibrate`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf calibrate --suite examples/suite --device cpu --head sim:itl=10ms --store noise --budget 2h"
)]
pub struct CalibrateArgs {
    /// What to plan.
    #[command(flatten)]
    pub planning: Planning,
    /// How long things may take.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finer_precision_needs_more_pairs_and_none_needs_fewer_than_a_verdict() {
        assert_eq!([0.5, 0.25, 0.2, 0.1, 0.05].map(needed), [10, 10, 14, 51, 201]);
    }
}
