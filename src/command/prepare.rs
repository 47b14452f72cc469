//! From flags and the environment to a plan, for every command that makes one.

use anyhow::{Context, Result};
use regex::Regex;
use vllm_verdict::side::Side;
use vllm_verdict::v1::{Device, Event, Provider, Skipped};

use crate::ci::event::{CiRun, is_proposal};
use crate::ci::trigger;
use crate::command::consent::{Consent, consent};
use crate::command::event_flags::refresh_labels;
use crate::command::planning_flags::{Planning, SideArgs};
use crate::command::shared_flags::DeviceArgs;
use crate::command::{base_commit, base_settings, build_choice, client_choice, identity_flags};
use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::base::{Base, NamedSide};
use crate::plan::concurrency_search::Search;
use crate::plan::config::Config;
use crate::plan::make_plan::{self, Arrangement, Inputs, SideInputs};
use crate::plan::suite::recipe::{self, RecipeCases};
use crate::plan::suite::{self, Case, Selection};
use crate::plan::tier::{self, Tier, TierName};
use crate::plan::{Plan, Trigger, device};
use crate::publish;
use crate::system::git::Git;
use crate::system::github::Github;
use crate::system::shell::Shell;
use crate::system::suite_files::SuiteFiles;
use crate::system::work_tree::WorkTree;
use crate::system::{probe, recipe_folder, suite_folder};

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
    identity_flags::check_variables(environment)?;
    let (base, head) = named_sides(&planning.sides, environment);
    let decided = decided(planning, fetch_labels, head.as_deref(), shell).await?;
    let Decided { event, ci, github, config, trigger, device, mut notices } = decided;
    let tier = planning.runs.tier.or_else(|| TierName::of(&event, &config.tiers));
    let tier = tier.map(|name| name.tier(&config.tiers, config.strategy));
    let RecipeCases { cases, skipped, notices: more } = match trigger.run {
        true => {
            let remote = [&base, &head].into_iter().flatten().any(|text| text.starts_with("remote:"));
            let allowed = SuiteFiles::of_event(&event, &config.suite, &config.allowed_folders, environment)?;
            let only = planning.only.as_deref();
            let of_tier = tier.as_ref().and_then(|tier| tier.only.as_deref());
            cases((only, of_tier), remote, &config, &device, &allowed, environment)?
        }
        false => RecipeCases::default(),
    };
    let head = head.map(|text| NamedSide::read(Side::Head, &text)).transpose()?;
    let base = base_commit::resolve(
        base.as_deref(),
        head.as_ref(),
        &event,
        trigger.run,
        is_proposal(&event).then(|| WorkTree::here(environment)).as_ref(),
        (&Git::new(environment), github.as_ref()),
    )
    .await?;
    let named = (base.as_ref(), head.as_ref());
    let build = match trigger.run {
        true => build_choice::choose(planning.sides.sides, &config, named, &event, environment).await,
        false => None,
    };
    let runs = arrangement(planning, tier.as_ref(), &config, base.as_ref(), ci.number);
    let mut plan = make_plan::make(Inputs {
        event,
        trigger,
        device,
        images: &config.images,
        sides: SideInputs {
            base,
            build,
            head,
            base_server_args: planning.sides.base_server_args.as_deref(),
            head_server_args: planning.sides.head_server_args.as_deref(),
        },
        cases,
        skipped,
        search: Search::read(environment)?,
        runs,
    })?;
    notices.extend(more);
    plan.notices.splice(0..0, notices);
    plan.notices.iter().for_each(|notice| shell.say(notice));
    client_choice::choose(&mut plan, planning.client, &config, environment)?;
    Ok(Prepared { plan, config, ci })
}

/// What is decided before the suite is read.
struct Decided {
    event: Event,
    ci: CiRun,
    github: Option<Github>,
    config: Config,
    trigger: Trigger,
    device: Device,
    /// For the report.
    notices: Vec<String>,
}

/// The event, the settings, and whether and where it is benchmarked.
async fn decided(planning: &Planning, fetch_labels: bool, head: Option<&str>, shell: &Shell) -> Result<Decided> {
    let environment = &shell.environment;
    let (mut event, ci) = planning.event.read(&planning.labels, environment).await?;
    event.configuration = configuration(planning, &event, &ci, environment);
    let github = planning.event.github(&ci, environment)?;
    let (config, mut notices) = settings(planning, &event, github.as_ref(), environment).await?;
    if let (true, Some(github)) = (fetch_labels, &github) {
        refresh_labels(&mut event, github, shell).await;
    }
    let (mut trigger, device) = decide(&event, &planning.device, &config, environment).await?;
    if trigger.run {
        let consent = consent(&event, &ci.proposal, &config, github.as_ref()).await;
        notices.extend(apply(consent, head, &mut trigger));
    }
    Ok(Decided { event, ci, github, config, trigger, device, notices })
}

/// How the runs are arranged: by the flags, the tier and the config.
fn arrangement(
    planning: &Planning,
    tier: Option<&Tier>,
    config: &Config,
    base: Option<&Base>,
    run: Option<u64>,
) -> Arrangement {
    let flags = &planning.runs;
    // A strategy of the config is for comparisons: a run without base ignores it.
    let of_config = tier.map_or(config.strategy, |tier| tier.strategy).filter(|_| base.is_none_or(Base::runs));
    Arrangement {
        tier: tier.map(|tier| tier.name),
        budget: flags.budget.or(tier.and_then(|tier| tier.budget)),
        // A time limit alone ends a run, and selects nothing.
        is_fitted: tier.is_some_and(|tier| tier.budget.is_some()),
        strategy: flags.strategy.or(of_config),
        pairs: flags.pairs.or(tier.and_then(|tier| tier.pairs)),
        seed: flags.seed,
        run,
    }
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

/// What tells this job's report from those of the other legs of its matrix; none for a local run. A commit is no part of
/// it: it changes from run to run.
fn configuration(planning: &Planning, event: &Event, ci: &CiRun, environment: &Environment) -> Option<String> {
    let suite = planning.suite.as_deref().map(|suite| match suite.is_absolute() {
        // The folders above it may be made for each run.
        true => suite.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        false => suite.display().to_string(),
    });
    let matrix = environment.get("VLLM_PERF_MATRIX").filter(|matrix| !matches!(matrix.trim(), "null" | "{}"));
    let mut parts: Vec<String> = vec![
        suite.unwrap_or_default(),
        planning.only.clone().unwrap_or_default(),
        planning.device.device_type.clone().unwrap_or_default(),
        planning.sides.base_server_args.clone().unwrap_or_default(),
        planning.sides.head_server_args.clone().unwrap_or_default(),
        matrix.map(|text| text.split_whitespace().collect()).unwrap_or_default(),
    ];
    let variables = ["BUILDKITE_PARALLEL_JOB", "TEST_SELECTOR", "MODEL_FILTER", "DTYPE_FILTER"];
    parts.extend(variables.map(|name| environment.get(name).unwrap_or_default().to_owned()));
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    (event.provider != Provider::Local).then(|| publish::configuration(ci, event.provider, &parts))
}

/// Skips where nobody allowed the commit to run. Where that is not known, only a head that is not made from the pull
/// request runs, with a notice for the report.
fn apply(consent: Consent, head: Option<&str>, trigger: &mut Trigger) -> Option<String> {
    let (reason, is_known) = match consent {
        Consent::Given => return None,
        Consent::Refused(reason) => (reason, true),
        Consent::Unknown(reason) => (reason, false),
    };
    let of_others = head.is_some_and(|head| head == "sim" || head.starts_with("sim:") || head.starts_with("remote:"));
    if of_others && !is_known {
        return Some(format!("Nothing of the pull request ran: {reason}"));
    }
    *trigger = Trigger { run: false, reason };
    None
}

/// The config in force for the event, with the flags in place of its values, and notices for the report.
async fn settings(
    planning: &Planning,
    event: &Event,
    github: Option<&Github>,
    environment: &Environment,
) -> Result<(Config, Vec<String>)> {
    let (loaded, notice) = base_settings::of_event(event, planning.config.as_deref(), github, environment).await?;
    let mut config = loaded.config;
    if let Some(suite) = &planning.suite {
        config.suite.clone_from(suite);
    }
    config.store = planning.store.clone().or(config.store);
    let mut notices = Vec::from_iter(notice);
    // The noise in a store decides which changes are significant.
    if let Some(place) = config.store.take_if(|place| base_settings::is_of_proposal(event, place, environment)) {
        notices.push(format!(
            "The store `{place}` lies in the checkout, which the pull request can change: it is not read."
        ));
    }
    Ok((config, notices))
}

/// Whether to benchmark, and on which device.
async fn decide(
    event: &Event,
    flags: &DeviceArgs,
    config: &Config,
    environment: &Environment,
) -> Result<(Trigger, Device)> {
    let starting: Vec<&str> = tier::labels(&config.tiers).collect();
    let mut trigger = trigger::decide(event, &config.trigger, &config.devices, &starting)?;
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

/// Leaves out the cases that the expression of a tier does not match.
fn leave_out_of_tier(pattern: Option<&str>, cases: &mut Vec<Case>, skipped: &mut Vec<Skipped>) -> Result<()> {
    let Some(pattern) = pattern.map(Regex::new).transpose().context("`only` of the tier").mistake()? else {
        return Ok(());
    };
    let others = cases.extract_if(.., |case| !pattern.is_match(&case.name));
    skipped.extend(others.map(|case| Skipped::new(case.name, format!("does not match `{pattern}` of the tier"))));
    Ok(())
}

/// The cases to measure, and what is left out. `remote`: a side is a server on another machine. `allowed`: where their files
/// may lie.
fn cases(
    (only, of_tier): (Option<&str>, Option<&str>),
    remote: bool,
    config: &Config,
    device: &Device,
    allowed: &SuiteFiles,
    environment: &Environment,
) -> Result<RecipeCases> {
    let mut selection = Selection::read(environment, only).mistake()?;
    selection.remote |= remote;
    if let Some(recipes) = recipe_folder::read(&config.suite, allowed)? {
        let mut found = recipe::cases(&recipes, &selection, device);
        leave_out_of_tier(of_tier, &mut found.cases, &mut found.skipped)?;
        let place = |_: &Case| config.suite.display().to_string();
        allowed.leave_out(&mut found.cases, &mut found.skipped, selection.remote, place);
        found.skipped.sort_by_key(|skipped| !skipped.invalid);
        return Ok(found);
    }
    let (files, mut skipped) = suite_folder::read(&config.suite, environment, device.name, allowed).mistake()?;
    let (mut cases, left_out) = suite::cases(&files, &selection, device).mistake()?;
    skipped.extend(left_out);
    leave_out_of_tier(of_tier, &mut cases, &mut skipped)?;
    let file_of =
        |case: &Case| files.iter().find(|file| file.kind == case.kind).map_or("", |file| &file.path).to_owned();
    allowed.leave_out(&mut cases, &mut skipped, selection.remote, file_of);
    if selection.remote {
        let outside = cases.extract_if(.., |case| case.server.is_none());
        let reason = "a remote server is measured from outside: serving cases only";
        skipped.extend(outside.map(|case| Skipped::new(case.name, reason)));
    }
    // First what the author of the suite has to correct.
    skipped.sort_by_key(|skipped| !skipped.invalid);
    Ok(RecipeCases { cases, skipped, notices: Vec::new() })
}
