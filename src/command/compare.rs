//! `vllm-perf compare`: what was measured before, base against head.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use vllm_verdict::Input;
use vllm_verdict::capacity::{self, Capacity, Limits};
use vllm_verdict::case::MeasuredBy;
use vllm_verdict::noise::Noise;
use vllm_verdict::v1::{CaseFacts, Comparison, Device, SideFacts, Subject};

use super::run::conclude;
use super::{Shell, settings};
use crate::cli::{CompareArgs, Format};
use crate::config::Config;
use crate::event::CiRun;
use crate::exit::{Classify, Exit};
use crate::noise_store;
use crate::output::OutputFolder;
use crate::plan::Plan;
use crate::report::terminal;
use crate::result::{self, Folder, upstream_compare};
use crate::store::Store;

/// What `--format json` prints: `comparison.json`, and the capacities where limits were given.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    comparison: &'a Comparison,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    capacity: Vec<Capacity>,
}

/// Prints the comparison; writes its renderings where `--out` asks for them.
pub(super) async fn compare(arguments: &CompareArgs, shell: &Shell) -> Result<Exit> {
    let (config, _) = settings::of_checkout(arguments.config.as_deref())?;
    let is_table = |path: &Path| path.extension().is_some_and(|extension| extension == "json");
    let comparisons = match &arguments.head {
        None => layouts(&arguments.base, &config)?,
        Some(head) if is_table(&arguments.base) && is_table(head) => vec![tables(&arguments.base, head, &config)?],
        Some(head) => vec![folders(arguments, head, &config, shell).await?],
    };
    let limits = Limits {
        ttft_ms: arguments.ttft_max_ms,
        tpot_ms: arguments.tpot_max_ms,
        slack: arguments.sla_slack / 100.0,
        statistic: arguments.sla_statistic,
    };
    let answer = |comparison| Answer { comparison, capacity: capacity::capacities(comparison, &limits) };
    let answers: Vec<Answer> = comparisons.iter().map(answer).collect();
    match (arguments.format, answers.as_slice()) {
        (Format::Text, answers) => {
            for Answer { comparison, capacity } in answers {
                shell.print(&terminal::table(comparison, shell.width));
                if !capacity.is_empty() {
                    shell.print(&terminal::capacity(capacity));
                }
            }
        }
        (Format::Json, [answer]) if arguments.head.is_some() => shell.print_json(answer)?,
        (Format::Json, answers) => shell.print_json(&answers)?,
    }
    if let Some(out) = &arguments.out {
        for (number, comparison) in (1..).zip(&comparisons) {
            let folder = if comparisons.len() == 1 { out.clone() } else { out.join(format!("{number:02}")) };
            conclude::write_reports(&CiRun::default(), comparison, &OutputFolder::at(&folder), shell)?;
        }
    }
    Ok(Exit::Done)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display())).mistake()
}

/// The parallel layouts of one `benchmark_results.json`.
fn layouts(file: &Path, config: &Config) -> Result<Vec<Comparison>> {
    if file.is_dir() {
        return Err(anyhow!("`{}` is a folder: give a second one to compare it with", file.display())).mistake();
    }
    let subject = |sides: [&str; 2]| subject(sides.map(|side| format!("{} ({side})", file.display())));
    upstream_compare::compare_layouts(&read(file)?, subject, &config.verdict)
        .with_context(|| format!("cannot split `{}`", file.display()))
}

/// Two of upstream's `benchmark_results.json`.
fn tables(base: &Path, head: &Path, config: &Config) -> Result<Comparison> {
    let subject = subject([base, head].map(|path| path.display().to_string()));
    upstream_compare::compare_tables(&read(base)?, &read(head)?, subject, config.verdict.clone())
}

/// Two output folders, results folders, or folders of repetitions.
async fn folders(arguments: &CompareArgs, head: &Path, config: &Config, shell: &Shell) -> Result<Comparison> {
    let base = arguments.base.as_path();
    let base_folders = result::repetitions(base)?;
    let head_folders = result::repetitions(head)?;
    let planned_pairs = u32::try_from(base_folders.len().max(head_folders.len())).unwrap_or(u32::MAX);
    let repetitions = |folders: &[Folder]| folders.iter().map(Folder::repetition).collect();
    let plans = [plan_of(base)?, plan_of(head)?];
    let cases = measured_by(&plans, result::facts(base_folders.iter().chain(&head_folders)));
    let subject =
        Subject { device: device(arguments, &plans)?, ..subject([base, head].map(|path| path.display().to_string())) };
    Ok(vllm_verdict::compare(Input {
        noise: known_noise(arguments, subject.device.as_ref(), config, shell).await?,
        subject,
        cases,
        base: repetitions(&base_folders),
        head: repetitions(&head_folders),
        skipped: Vec::new(),
        planned_pairs,
        seed: 0,
        verdict: config.verdict.clone(),
        looks: Vec::new(),
    }))
}

/// The plan of the run that a folder is from: in the output folder itself, or in the one that it is a side of.
fn plan_of(folder: &Path) -> Result<Option<Plan>> {
    let beside = folder.parent().filter(|_| folder.ends_with("base") || folder.ends_with("head"));
    let plans = std::iter::once(folder).chain(beside).map(|root| OutputFolder::at(root).plan());
    let Some(path) = plans.into_iter().find(|path| path.is_file()) else { return Ok(None) };
    serde_json::from_str(&read(&path)?).with_context(|| format!("cannot read `{}`", path.display())).mistake().map(Some)
}

/// The cases with their client, where the plans know it.
fn measured_by(plans: &[Option<Plan>], mut cases: Vec<CaseFacts>) -> Vec<CaseFacts> {
    let planned = plans.iter().flatten().flat_map(|plan| &plan.cases);
    let clients: HashMap<&str, MeasuredBy> = planned.map(|case| (case.name.as_str(), case.measured_by)).collect();
    for case in &mut cases {
        case.measured_by = clients.get(case.name.as_str()).copied().unwrap_or(case.measured_by);
    }
    cases
}

/// What was measured on: as the flags say, or else as the plans do, where they agree.
fn device(arguments: &CompareArgs, plans: &[Option<Plan>; 2]) -> Result<Option<Device>> {
    let planned = match plans {
        [Some(base), Some(head)] if base.device == head.device => Some(base.device.clone()),
        _ => None,
    };
    match (arguments.device.0, &arguments.device_type) {
        (None, None) => Ok(planned),
        (Some(name), Some(device_type)) => {
            let image_suffix = name.image_suffix().to_owned();
            Ok(Some(Device { name, device_type: device_type.clone(), count: 1, image_suffix }))
        }
        // Without --noise nobody asks; a variable may be set for the other commands.
        _ if arguments.noise.is_none() => Ok(planned),
        _ => Err(anyhow!("--device and --device-type go together: both say whose noise it is")).mistake(),
    }
}

/// What the store knows. A store that was asked for must be read; one that is only configured may be out of reach.
async fn known_noise(
    arguments: &CompareArgs,
    device: Option<&Device>,
    config: &Config,
    shell: &Shell,
) -> Result<Noise> {
    let Some(place) = arguments.noise.as_ref().or(config.store.as_ref()) else { return Ok(Noise::default()) };
    let asked = arguments.noise.is_some();
    let read = async |device| {
        let store = Store::open(place, &shell.environment)?;
        if asked && !store.is_there() {
            return Err(anyhow!("--noise: `{place}` is no folder")).mistake();
        }
        noise_store::read(&store, device).await
    };
    match device {
        Some(device) => match read(device).await {
            Err(error) if !asked => {
                shell.say(&format!("uncalibrated: {error:#}"));
                Ok(Noise::default())
            }
            noise => noise,
        },
        None if asked => {
            Err(anyhow!("--noise: what was measured on is not known: give --device and --device-type")).mistake()
        }
        _ => Ok(Noise::default()),
    }
}

fn subject([base, head]: [String; 2]) -> Subject {
    let side = |target| Some(SideFacts { target, ..SideFacts::default() });
    Subject { version: crate::VERSION.to_owned(), base: side(base), head: side(head), ..Subject::default() }
}
