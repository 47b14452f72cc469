//! From flags and the environment to a plan: the one path that `plan` and `run` share.

use crate::ci::event::{buildkite_event, github_event, local_event};
use crate::names;
use crate::plan::serve_flags;
use crate::system::probe;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use vllm_verdict::case::MeasuredBy;
use vllm_verdict::v1::{Event, LabelsSource, Provider, Skipped};

use super::base_commit::{self, Base};
use super::base_settings;
use crate::ci::event::{self, CiRun};
use crate::ci::trigger;
use crate::command::arguments::{Client, EventArgs};
use crate::command::planning_flags::Planning;
use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::concurrency_search::Search;
use crate::plan::config::Config;
use crate::plan::suite::{self, Case, Selection};
use crate::plan::target::Target;
use crate::plan::{self, Plan, device};
use crate::run::native_client;
use crate::system::github::Github;
use crate::system::retry_policy::RetryPolicy;
use crate::system::shell::Shell;

/// A plan, and what it was made from.
pub struct Prepared {
    pub plan: Plan,
    pub config: Config,
    pub ci: CiRun,
}

/// Reads the event from CI or from flags.
pub fn event(arguments: &EventArgs, labels: &[String], environment: &Environment) -> Result<(Event, CiRun)> {
    match arguments.provider.named().unwrap_or_else(|| event::detect(environment)) {
        Provider::Local => {
            if let Some(label) = labels.iter().find(|label| !names::is_label(label)) {
                return Err(anyhow!("`{label}` cannot be a label: expected up to 50 letters, digits and ` ._:/+-`"))
                    .mistake();
            }
            Ok((local_event::event(labels, None), CiRun::default()))
        }
        Provider::Buildkite => Ok(buildkite_event::parse(environment)),
        Provider::Github => {
            let name = arguments.event_name.as_deref();
            let name = name
                .or_else(|| environment.get("GITHUB_EVENT_NAME"))
                .context("no event name: set GITHUB_EVENT_NAME or give --event-name")
                .mistake()?;
            let path = arguments.event_path.as_deref();
            let path = path
                .or_else(|| environment.get("GITHUB_EVENT_PATH").map(Path::new))
                .context("no event payload: set GITHUB_EVENT_PATH or give --event-path")
                .mistake()?;
            let payload = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the event payload `{}`", path.display()))
                .mistake()?;
            github_event::parse(name, &payload, environment).mistake()
        }
    }
}

/// Makes the plan. Touches the network only for labels (`fetch_labels`) and the merge base, and only where a token exists.
pub async fn prepare(planning: &Planning, fetch_labels: bool, shell: &Shell) -> Result<Prepared> {
    let environment = &shell.environment;
    let [base, head] = specs(planning, environment);
    let (mut event, ci) = event(&planning.event, &planning.labels, environment)?;
    let (loaded, notice) = base_settings::of_event(&event, planning.config.as_deref(), shell).await?;
    let mut config = loaded.config;
    if let Some(suite) = &planning.suite {
        config.suite.clone_from(suite);
    }
    config.store = planning.store.clone().or(config.store);
    let github = github(&planning.event, &ci, environment)?;
    if let (true, Some(github)) = (fetch_labels, &github) {
        refresh_labels(&mut event, github, shell).await;
    }
    let mut decision = trigger::decide(&event, &config.trigger, &config.devices)?;
    let device = device(planning, &config, decision.run, environment).await?;
    let wanted = trigger::narrowed(&event, &config.devices);
    if decision.run && !wanted.is_empty() && !wanted.contains(&device.name) && event.provider != Provider::Local {
        let names: Vec<&str> = wanted.iter().map(|name| name.as_str()).collect();
        decision.run = false;
        decision.reason = format!(
            "this job measures on `{}`, and the devices of this event are {}. Add the device to `devices` of vllm-perf.yml or its label to the pull request.",
            device.name,
            names.join(", ")
        );
    }
    let (cases, skipped) = match decision.run {
        true => cases(planning, [&base, &head], &config, &device, environment)?,
        false => (Vec::new(), Vec::new()),
    };
    let (mut recorded_base, mut base) = (None, base);
    let merge_base = match base_commit::read(base.as_deref()) {
        Base::Event if decision.run && needs_merge_base(base.as_deref(), head.as_deref()) => {
            let named = head.as_deref().filter(|head| names::is_full_hash(head));
            base_commit::of_event(&event, named, github.as_ref()).await?
        }
        Base::Branch(name) if decision.run => {
            let named = head.as_deref().filter(|head| names::is_full_hash(head));
            let github = github.as_ref().zip(event.repository.as_deref());
            base = None;
            Some(base_commit::branch(&name, named.or(event.head_sha.as_deref()), github).await?)
        }
        Base::Recorded(folder) => {
            recorded_base = Some(folder);
            None
        }
        Base::Event | Base::Branch(_) | Base::Said(_) => None,
    };
    let mut plan = plan::make(plan::Inputs {
        event,
        trigger: decision,
        device,
        images: &config.images,
        base: base.as_deref(),
        recorded_base: recorded_base.clone(),
        head: head.as_deref(),
        base_server_args: planning.base_server_args.as_deref(),
        head_server_args: planning.head_server_args.as_deref(),
        merge_base: merge_base.as_deref(),
        cases,
        skipped,
        search: Search::read(environment)?,
        strategy: planning
            .strategy
            .or(config.strategy.filter(|_| base.as_deref() != Some("none") && recorded_base.is_none())),
        pairs: planning.pairs,
        seed: planning.seed,
    })?;
    if let Some(notice) = notice {
        shell.say(&notice);
        plan.notices.push(notice);
    }
    choose_clients(&mut plan, planning.client, environment).mistake()?;
    Ok(Prepared { plan, config, ci })
}

/// Payloads and build environments hold the labels of long ago; GitHub knows those of now.
/// A token that may not read them leaves the payload's, and a line that says so.
pub async fn refresh_labels(event: &mut Event, github: &Github, shell: &Shell) {
    let (Some(repository), Some(number)) = (event.repository.clone(), event.pull_request) else { return };
    match github.labels(&repository, number).await {
        Ok(labels) => {
            event.labels = labels;
            event.labels_source = LabelsSource::Api;
        }
        Err(error) => shell.say(&format!("the labels are those of the event, not of now: {error:#}")),
    }
}

/// A client for GitHub's API, where a token exists.
pub fn github(arguments: &EventArgs, ci: &CiRun, environment: &Environment) -> Result<Option<Github>> {
    let new = |token| Github::new(ci.api_url.as_deref(), token, RetryPolicy::default());
    environment.secret(&arguments.github_token_env).map(new).transpose().mistake()
}

/// What is measured on. Where nothing is, no tool is asked: one that hangs or fails is no reason not to skip.
async fn device(
    planning: &Planning,
    config: &Config,
    runs: bool,
    environment: &Environment,
) -> Result<vllm_verdict::v1::Device> {
    let probe = if runs { probe::probe(environment).await } else { probe::processors() };
    let count = planning.device.device_count.or((!runs).then_some(1).filter(|_| planning.device.name.0.is_some()));
    device::resolve(planning.device.name.0, planning.device.device_type.as_deref(), count, &config.devices, &probe)
}

/// `--base` and `--head`. Upstream's `REMOTE_HOST` and `REMOTE_PORT` are a head that runs already, with nothing to compare.
fn specs(planning: &Planning, environment: &Environment) -> [Option<String>; 2] {
    let remote = environment.get("REMOTE_HOST").filter(|_| planning.head.is_none()).map(|host| {
        let port = environment.get("REMOTE_PORT").unwrap_or("8000");
        format!("remote:http://{host}:{port}")
    });
    let base = planning.base.clone().or_else(|| remote.as_ref().map(|_| "none".to_owned()));
    [base, planning.head.clone().or(remote)]
}

/// Whether base is left to the event: an image stands for a commit, another head target has none to compare with.
fn needs_merge_base(base: Option<&str>, head: Option<&str>) -> bool {
    let head = head.map(str::parse::<Target>);
    base.is_none() && !matches!(head, Some(Ok(Target::Local(_) | Target::Remote(_) | Target::Sim(_))))
}

fn cases(
    planning: &Planning,
    sides: [&Option<String>; 2],
    config: &Config,
    device: &vllm_verdict::v1::Device,
    environment: &Environment,
) -> Result<(Vec<Case>, Vec<Skipped>)> {
    let (files, mut skipped) = suite::read(&config.suite, environment, device.name).mistake()?;
    let mut selection = Selection::read(environment, planning.only.as_deref()).mistake()?;
    let remote = |spec: &Option<String>| spec.as_ref().is_some_and(|spec| spec.starts_with("remote:"));
    selection.remote |= sides.into_iter().any(remote);
    let (mut cases, left_out) = suite::cases(&files, &selection, device).mistake()?;
    skipped.extend(left_out);
    if selection.remote {
        let outside = cases.extract_if(.., |case| case.server.is_none());
        skipped.extend(outside.map(|case| Skipped {
            name: case.name,
            reason: "a remote server is measured from outside: serving cases only".to_owned(),
        }));
    }
    Ok((cases, skipped))
}

/// Says who measures each serving case, the same on both sides: our own client if it knows all the flags and has the
/// model's tokenizer (the simulated server needs none).
fn choose_clients(plan: &mut Plan, choice: Client, environment: &Environment) -> Result<()> {
    let sides = [&plan.sides.base, &plan.sides.head];
    let simulated = sides.into_iter().flatten().all(|side| matches!(side.target, Target::Sim(_)));
    for case in plan.cases.iter_mut().filter(|case| case.server.is_some()) {
        case.measured_by = match (choice, able(case, simulated, environment)) {
            (Client::Vllm, _) | (Client::Auto, Err(_)) => MeasuredBy::Vllm,
            (Client::Native | Client::Auto, Ok(())) => MeasuredBy::Native,
            (Client::Native, Err(error)) => {
                let name = &case.name;
                return Err(error.context(format!("the native client cannot measure `{name}`; use --client auto")));
            }
        };
    }
    Ok(())
}

/// Whether our own client can measure a case; the error says why not.
fn able(case: &Case, simulated: bool, environment: &Environment) -> Result<()> {
    // The suite has asked the client already; asking again costs as much as the rest of the plan.
    if simulated && case.measured_by == MeasuredBy::Native {
        return Ok(());
    }
    let arguments = serve_flags::parse(case.client.argv.get(3..).unwrap_or_default())?;
    let tokenizer = arguments.model.tokenizer_id();
    ensure!(
        simulated || native_client::draw::find_tokenizer(tokenizer, environment).is_some(),
        "no tokenizer.json of `{tokenizer}` in its folder or the Hugging Face cache"
    );
    if let Some(path) = &arguments.dataset.dataset_path {
        ensure!(path.is_file(), "no file {} on this machine", path.display());
    }
    Ok(())
}
