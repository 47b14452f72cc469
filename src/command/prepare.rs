//! From flags and the environment to a plan, for every command that makes one.

use anyhow::Result;
use vllm_verdict::side::Side;
use vllm_verdict::v1::{Device, Event, Provider, Skipped};

use crate::ci::event::CiRun;
use crate::ci::trigger;
use crate::command::event_flags::refresh_labels;
use crate::command::planning_flags::{Planning, SideArgs};
use crate::command::shared_flags::DeviceArgs;
use crate::command::{base_commit, base_settings, client_choice};
use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::base::{Base, NamedSide};
use crate::plan::concurrency_search::Search;
use crate::plan::config::Config;
use crate::plan::make_plan::{self, Inputs, SideInputs};
use crate::plan::suite::{self, Case, Selection};
use crate::plan::{Plan, Trigger, device};
use crate::system::shell::Shell;
use crate::system::suite_files::SuiteFiles;
use crate::system::{probe, suite_folder};

/// A plan, and what it was made from.
pub struct Prepared {
    pub plan: Plan,
    pub config: Config,
    pub ci: CiRun,
}

/// Makes the plan. The network is used only for labels (`fetch_labels`) and the merge base, and only where there is a
/// token.
///
/// # Errors
/// The user's mistake (exit 2): flags, config, event or test files that cannot be used. Exit 4: an external service
/// failed.
pub async fn prepare(planning: &Planning, fetch_labels: bool, shell: &Shell) -> Result<Prepared> {
    let environment = &shell.environment;
    let (base, head) = named_sides(&planning.sides, environment);
    let (mut event, ci) = planning.event.read(&planning.labels, environment)?;
    let (config, notice) = settings(planning, &event, shell).await?;
    let github = planning.event.github(&ci, environment)?;
    if let (true, Some(github)) = (fetch_labels, &github) {
        refresh_labels(&mut event, github, shell).await;
    }
    let (trigger, device) = decide(&event, &planning.device, &config, environment).await?;
    let (cases, skipped) = match trigger.run {
        true => {
            let remote = [&base, &head].into_iter().flatten().any(|text| text.starts_with("remote:"));
            let allowed = SuiteFiles::of_event(&event, &config.suite, &config.allowed_folders, environment)?;
            cases(planning.only.as_deref(), remote, &config, &device, &allowed, environment)?
        }
        false => Default::default(),
    };
    let head = head.map(|text| NamedSide::read(Side::Head, &text)).transpose()?;
    let base = base_commit::resolve(base.as_deref(), head.as_ref(), &event, trigger.run, github.as_ref()).await?;
    // The config's strategy is for comparisons; a run without base ignores it.
    let configured = config.strategy.filter(|_| base.as_ref().is_none_or(Base::runs));
    let mut plan = make_plan::make(Inputs {
        event,
        trigger,
        device,
        images: &config.images,
        sides: SideInputs {
            base,
            head,
            base_server_args: planning.sides.base_server_args.as_deref(),
            head_server_args: planning.sides.head_server_args.as_deref(),
        },
        cases,
        skipped,
        search: Search::read(environment)?,
        strategy: planning.runs.strategy.or(configured),
        pairs: planning.runs.pairs,
        seed: planning.runs.seed,
    })?;
    if let Some(notice) = notice {
        shell.say(&notice);
        plan.notices.push(notice);
    }
    client_choice::choose(&mut plan, planning.client, environment).mistake()?;
    Ok(Prepared { plan, config, ci })
}

/// The texts of `--base` and `--head`. Upstream's `REMOTE_HOST` and `REMOTE_PORT` are a running head that is compared with
/// nothing.
fn named_sides(sides: &SideArgs, environment: &Environment) -> (Option<String>, Option<String>) {
    let remote = environment.get("REMOTE_HOST").filter(|_| sides.head.is_none()).map(|host| {
        let port = environment.get("REMOTE_PORT").unwrap_or("8000");
        format!("remote:http://{host}:{port}")
    });
    let base = sides.base.clone().or_else(|| remote.as_ref().map(|_| "none".to_owned()));
    (base, sides.head.clone().or(remote))
}

/// The config in force for the event, with the flags in place of its values, and a notice for the report.
async fn settings(planning: &Planning, event: &Event, shell: &Shell) -> Result<(Config, Option<String>)> {
    let (loaded, notice) = base_settings::of_event(event, planning.config.as_deref(), shell).await?;
    let mut config = loaded.config;
    if let Some(suite) = &planning.suite {
        config.suite.clone_from(suite);
    }
    config.store = planning.store.clone().or(config.store);
    Ok((config, notice))
}

/// Whether to benchmark, and on which device.
async fn decide(
    event: &Event,
    flags: &DeviceArgs,
    config: &Config,
    environment: &Environment,
) -> Result<(Trigger, Device)> {
    let mut trigger = trigger::decide(event, &config.trigger, &config.devices)?;
    let device = device(flags, config, trigger.run, environment).await?;
    let wanted = trigger::narrowed(event, &config.devices);
    if trigger.run && !wanted.is_empty() && !wanted.contains(&device.name) && event.provider != Provider::Local {
        let names: Vec<&str> = wanted.iter().map(|name| name.as_str()).collect();
        trigger.run = false;
        trigger.reason = format!(
            "this job measures on `{}`, and the devices of this event are {}. Add the device to `devices` of vllm-perf.yml or its label to the pull request.",
            device.name,
            names.join(", ")
        );
    }
    Ok((trigger, device))
}

/// The device to measure on. For a skip no vendor's tool is run: one that hangs or fails must not prevent the skip.
async fn device(flags: &DeviceArgs, config: &Config, runs: bool, environment: &Environment) -> Result<Device> {
    let probe = if runs { probe::probe(environment).await } else { probe::processors() };
    let count = flags.device_count.or((!runs).then_some(1).filter(|_| flags.name.0.is_some()));
    device::resolve(flags.name.0, flags.device_type.as_deref(), count, &config.devices, &probe)
}

/// The cases to measure, and what is left out. `remote`: a side is a server on another machine. `allowed`: where their files
/// may lie.
fn cases(
    only: Option<&str>,
    remote: bool,
    config: &Config,
    device: &Device,
    allowed: &SuiteFiles,
    environment: &Environment,
) -> Result<(Vec<Case>, Vec<Skipped>)> {
    let (files, mut skipped) = suite_folder::read(&config.suite, environment, device.name, allowed).mistake()?;
    let mut selection = Selection::read(environment, only).mistake()?;
    selection.remote |= remote;
    let (mut cases, left_out) = suite::cases(&files, &selection, device).mistake()?;
    skipped.extend(left_out);
    let file_of =
        |case: &Case| files.iter().find(|file| file.kind == case.kind).map_or("", |file| &file.path).to_owned();
    allowed.leave_out(&mut cases, &mut skipped, file_of);
    if selection.remote {
        let outside = cases.extract_if(.., |case| case.server.is_none());
        skipped.extend(outside.map(|case| Skipped {
            name: case.name.into(),
            reason: "a remote server is measured from outside: serving cases only".into(),
        }));
    }
    Ok((cases, skipped))
}
