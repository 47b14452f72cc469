//! `vllm-perf run`: plan, wait for the images, benchmark, compare, write the output folder.

pub(super) mod conclude;
mod folder;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::prepare::{self, Prepared};
use super::{Shell, plan as plan_command};
use crate::bench::{self, Bench, Limits, SideBench};
use crate::cli::{Format, RunArgs};
use crate::compare::{self, CaseFacts, Comparison, Subject};
use crate::event::CiRun;
use crate::exit::{Classify, Exit};
use crate::journal::Journal;
use crate::noise::Noise;
use crate::output::OutputFolder;
use crate::plan::{Plan, Side, SidePlan};
use crate::progress::Progress;
use crate::publish::actions;
use crate::publish::github::Github;
use crate::registry::{self, Registry};
use crate::report::markdown;
use crate::target::launch::Launch;
use crate::target::process::Processes;
use crate::target::{Target, image};
use crate::{VERSION, duration, host, publish};

/// How often a registry is asked for an image that is not there yet.
const POLL: Duration = Duration::from_secs(15);

/// Runs the benchmark. A regression is not a failure here: `verdict` tells.
pub(super) async fn run(arguments: &RunArgs, shell: &Shell) -> Result<Exit> {
    let prepared = prepare::prepare(&arguments.planning, !arguments.dry_run, shell).await?;
    if arguments.dry_run || shell.environment.get("DRY_RUN") == Some("1") {
        plan_command::print(&prepared.plan, Format::Text, shell)?;
        return Ok(Exit::Done);
    }
    if !prepared.plan.trigger.run {
        return skip(&prepared, shell);
    }
    check_hub_token(&prepared.plan, shell).mistake()?;
    let out = OutputFolder::at(&arguments.planning.out);
    let (plan, mut journal, _lock) = folder::open(&out, prepared.plan, arguments.resume, shell)?;

    let announcement = Announcement::make(arguments, &prepared.ci, &plan, shell).await;
    let processes = Processes::new(shell.program.clone());
    let interrupted = interrupt();
    tokio::pin!(interrupted);
    let work = measure(arguments, &plan, &prepared.config, &out, &processes, &mut journal, shell);
    let comparison = tokio::select! {
        comparison = work => comparison,
        signal = &mut interrupted => {
            processes.end_all().await;
            let total = plan.cases.len() * plan.pairs as usize * plan.sides.present().count();
            shell.say(&format!(
                "interrupted: {} of {total} case runs are kept in `{}`; `vllm-perf run --resume` with the same flags goes on",
                journal.entries().len(),
                out.root().display()
            ));
            if let Some(announcement) = announcement {
                announcement.take_back().await;
            }
            return Ok(Exit::Signal(signal));
        }
    };
    // Whatever went wrong, nothing of ours stays behind.
    processes.end_all().await;
    let comparison = match (comparison, announcement) {
        (Err(error), Some(announcement)) => {
            announcement.take_back().await;
            return Err(error);
        }
        (comparison, _) => comparison?,
    };
    conclude::conclude(&prepared.ci, &plan, &comparison, &out, &journal, shell)
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
            let Some(before) = github.existing_comment(&repository, number, &id).await? else { return Ok(None) };
            let text = markdown::under_way(&before, ci.run_url.as_deref());
            github.sticky_comment(&repository, number, &id, &text).await?;
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
        let restored = self.github.sticky_comment(&self.repository, self.number, &self.id, &self.before);
        let _ = tokio::time::timeout(Duration::from_secs(3), restored).await;
    }
}

/// Says why nothing runs, where CI shows it.
fn skip(prepared: &Prepared, shell: &Shell) -> Result<Exit> {
    let text = markdown::skipped(&prepared.plan.trigger.reason);
    shell.print(&text);
    if let Some(path) = &prepared.ci.step_summary {
        actions::append_summary(path, &text)?;
    }
    if let Some(path) = &prepared.ci.output {
        actions::append_outputs(path, &[("ran", "false")])?;
    }
    Ok(Exit::Done)
}

/// Models come from the hub with a token, unless they are folders, the hub is not asked, or nothing real serves.
fn check_hub_token(plan: &Plan, shell: &Shell) -> Result<()> {
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

/// Resolves when CI or a person wants an end, to the number of the signal.
async fn interrupt() -> u8 {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut stream) => {
            stream.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => 2,
        () = wait(SignalKind::terminate()) => 15,
        () = wait(SignalKind::hangup()) => 1,
    }
}

/// Waits for the images, runs the plan and compares.
async fn measure(
    arguments: &RunArgs,
    plan: &Plan,
    config: &crate::config::Config,
    out: &OutputFolder,
    processes: &Processes,
    journal: &mut Journal,
    shell: &Shell,
) -> Result<Comparison> {
    let run = folder::run_id(out)?;
    let images = plan_command::images(plan);
    if !images.is_empty() {
        image::remove_leftovers(&run).await.world()?;
        fetch_images(&images, config.images.wait, shell).await?;
    }
    let side = async |planned: &SidePlan| -> Result<SideBench> {
        let launch = Launch {
            target: planned.target.clone(),
            program: shell.program.clone(),
            environment: shell.environment.clone(),
            device: plan.device.name,
            gpu_type: plan.device.gpu_type_lines(),
            run: run.clone(),
        };
        let mut bench = SideBench::new(planned.clone(), launch);
        if let Target::Image(reference) = &planned.target {
            bench.facts.image_digest = Some(image::digest(reference).await.world()?);
        }
        Ok(bench)
    };
    let base = match &plan.sides.base {
        Some(base) => Some(side(base).await?),
        None => None,
    };
    let head = side(plan.sides.head.as_ref().context("the plan has no head").mistake()?).await?;
    let started = journal.entries().first().map_or_else(bench::now, |entry| entry.started.clone());
    let total = plan.cases.len() as u64 * u64::from(plan.pairs) * plan.sides.present().count() as u64;
    let progress = Progress::new(total, plan.event.provider, shell.terminal);
    for _ in journal.entries() {
        progress.step();
    }
    let limits =
        Limits { server: arguments.server_timeout, case: arguments.case_timeout, budget: arguments.planning.budget };
    let before: f64 = journal.entries().iter().map(|entry| entry.seconds).sum();
    let begun = std::time::Instant::now();
    let mut bench = Bench {
        plan,
        output: out,
        base,
        head,
        processes,
        progress: &progress,
        limits,
        environment: &shell.environment,
    };
    let ran = bench.run(journal).await;
    progress.end();
    ran?;
    let subject = Subject {
        version: VERSION.to_owned(),
        event: Some(plan.event.clone()),
        device: Some(plan.device.clone()),
        base: bench.base.as_ref().map(|side| side.facts.clone()),
        head: Some(bench.head.facts.clone()),
        host: host::host().ok(),
        started: Some(started),
        seconds: Some(before + begun.elapsed().as_secs_f64()),
        reproduce: Some(plan.reproduce(&config.suite, arguments.planning.only.as_deref())),
    };
    Ok(compare::compare(compare::Input {
        subject,
        cases: plan.cases.iter().map(CaseFacts::from).collect(),
        base: bench::collect(plan, out, journal, Side::Base)?,
        head: bench::collect(plan, out, journal, Side::Head)?,
        skipped: plan.skipped.clone(),
        planned_pairs: plan.pairs,
        seed: plan.seed,
        verdict: config.verdict.clone(),
        noise: Noise::default(),
        looks: Vec::new(),
    }))
}

/// Waits for the images that the engine does not have, and pulls them.
async fn fetch_images(images: &[String], wait: Duration, shell: &Shell) -> Result<()> {
    let mut missing = Vec::new();
    for reference in images {
        if image::is_here(reference).await {
            continue;
        }
        shell.say(&format!("pulling {reference}"));
        // The engine may know credentials that we do not; only what it cannot have is waited for.
        if image::pull(reference).await.is_err() {
            missing.push(reference.clone());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let registry = Registry::new(registry::PAUSE)?;
    registry::wait(&registry, &missing, wait, POLL, |missing, waited| {
        shell.say(&format!(
            "waiting for {} since {}, at most {}",
            missing.join(", "),
            duration::text(waited),
            duration::text(wait)
        ));
    })
    .await?;
    for reference in &missing {
        shell.say(&format!("pulling {reference}"));
        image::pull(reference).await.world()?;
    }
    Ok(())
}
