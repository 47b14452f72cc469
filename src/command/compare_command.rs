//! `vllm-perf compare`: compares results that were measured before.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use vllm_verdict::capacity::{self, Capacity, Limits, Statistic};
use vllm_verdict::case::MeasuredBy;
use vllm_verdict::noise::{MeasuredOn, Noise};
use vllm_verdict::number::plural_noun;
use vllm_verdict::side::Side;
use vllm_verdict::v1::{CaseFacts, Comparison, Conduct, Device, SideFacts, Subject};
use vllm_verdict::{Input, Untrusted};

use crate::ci::event::CiRun;
use crate::command::shared_flags::{DeviceChoice, Format, device_choice};
use crate::command::{base_settings, conclude};
use crate::exit::{Classify, Exit};
use crate::plan::Plan;
use crate::plan::config::Config;
use crate::plan::suite::Case;
use crate::plan::target::Target;
use crate::report::terminal;
use crate::result::case_files::Folder;
use crate::result::{self, identity, upstream_compare};
use crate::run::collect;
use crate::run::fingerprint::{self, Fingerprint};
use crate::system::output::OutputFolder;
use crate::system::regular_file;
use crate::system::shell::Shell;
use crate::system::store::Store;
use crate::system::{noise_store, results_folder};

/// What `--format json` prints: `comparison.json`, and the capacities where limits were given.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    comparison: &'a Comparison,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    capacity: Vec<Capacity>,
}

/// Prints the comparison, and with `--out` writes its renderings.
pub(super) async fn compare(arguments: &CompareArgs, shell: &Shell) -> Result<Exit> {
    let config = base_settings::of_job(arguments.config.as_deref(), shell).await?.config;
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
    let printed = |comparison| Printed { comparison, capacity: capacity::capacities(comparison, &limits) };
    let printed: Vec<Printed> = comparisons.iter().map(printed).collect();
    match (arguments.format, printed.as_slice()) {
        (Format::Text, all) => {
            for Printed { comparison, capacity } in all {
                shell.print(&terminal::table(comparison, shell.width));
                if !capacity.is_empty() {
                    shell.print(&terminal::capacity(capacity, shell.width));
                }
            }
        }
        (Format::Json, [only]) if arguments.head.is_some() => shell.print_json(only)?,
        (Format::Json, all) => shell.print_json(&all)?,
    }
    if let Some(out) = &arguments.out {
        for (number, comparison) in (1..).zip(&comparisons) {
            let folder = if comparisons.len() == 1 { out.clone() } else { out.join(format!("{number:02}")) };
            conclude::write_reports(&CiRun::default(), comparison, &OutputFolder::at(&folder), shell)?;
        }
    }
    Ok(Exit::Done)
}

/// Largest `benchmark_results.json`, in bytes.
const FILE_LIMIT: u64 = 256 << 20;

fn read(path: &Path) -> Result<String> {
    regular_file::text_followed(path, FILE_LIMIT).with_context(|| format!("cannot read `{}`", path.display())).mistake()
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
    let mut base_folders = results_folder::numbered_repetitions(base)?;
    let mut head_folders = results_folder::numbered_repetitions(head)?;
    let counterparts = counterparts(&mut base_folders, &mut head_folders);
    let [base_folders, head_folders] = [base_folders, head_folders].map(unnumbered);
    let planned_pairs = u32::try_from(base_folders.len().max(head_folders.len())).unwrap_or(u32::MAX);
    let repetitions = |folders: &[Folder]| folders.iter().map(Folder::repetition).collect::<Vec<_>>();
    let plans = [base, head].map(|folder| {
        plan_of(folder).unwrap_or_else(|error| {
            shell.say(&format!("{error:#}: its device and its clients are not known"));
            None
        })
    });
    let cases = measured_by(&plans, result::facts(base_folders.iter().chain(&head_folders)));
    let mut unlike = identity::unlike(&base_folders, &head_folders);
    for (case, clients) in other_clients(&plans) {
        unlike.entry(case).or_insert(clients);
    }
    let mut of_base = repetitions(&base_folders);
    identity::keep_apart(&mut of_base, &unlike);
    let mismatch = fingerprint::mismatch(&fingerprints(base, head)?);
    let (notice, held) = match counterparts {
        Counterparts::Some(left_out) => (left_out, mismatch),
        Counterparts::None => (None, Some(mismatch.unwrap_or_else(|| NO_PAIR.to_owned()))),
    };
    let notices = notice.into_iter().map(Untrusted::from).collect();
    let conduct = Conduct { held: held.map(Untrusted::from), notices, ..Conduct::default() };
    let subject =
        Subject { device: device(arguments, &plans)?, ..subject([base, head].map(|path| path.display().to_string())) };
    let measured_on = subject.device.as_ref().map(|device| MeasuredOn::new(device, is_simulated(&plans)));
    let input = Input {
        noise: known_noise(arguments, measured_on, config, shell).await?,
        subject,
        cases,
        base: of_base,
        head: repetitions(&head_folders),
        skipped: Vec::new(),
        planned_pairs,
        seed: 0,
        verdict: config.verdict.clone(),
        looks: Vec::new(),
    };
    Ok(vllm_verdict::conducted(input, conduct, None))
}

/// Why nothing is tested where no repetition has a counterpart.
const NO_PAIR: &str = "no repetition of base has the number of one of head";

/// Whether repetitions have a counterpart on the other side: two are a pair by their number.
enum Counterparts {
    /// Some have; the sentence says which have none and were left out.
    Some(Option<String>),
    None,
}

/// Leaves out the repetitions whose number the other side does not have, where the sides have any in common.
fn counterparts(base: &mut Vec<(u32, Folder)>, head: &mut Vec<(u32, Folder)>) -> Counterparts {
    let numbers = |side: &[(u32, Folder)]| side.iter().map(|(number, _)| *number).collect::<Vec<u32>>();
    let (of_base, of_head) = (numbers(base), numbers(head));
    if !of_base.iter().any(|number| of_head.contains(number)) {
        return Counterparts::None;
    }
    let lone = |side: &str, own: &[u32], other: &[u32]| {
        let lone: Vec<String> =
            own.iter().filter(|number| !other.contains(number)).map(|number| format!("{number:02}")).collect();
        let noun = plural_noun(lone.len(), "repetition");
        (!lone.is_empty()).then(|| format!("{noun} {} of {side}", lone.join(", ")))
    };
    let left_out = [lone("base", &of_base, &of_head), lone("head", &of_head, &of_base)];
    base.retain(|(number, _)| of_head.contains(number));
    head.retain(|(number, _)| of_base.contains(number));
    let left_out: Vec<String> = left_out.into_iter().flatten().collect();
    let sentence = format!("no pair, and not compared: {}", left_out.join("; "));
    Counterparts::Some((!left_out.is_empty()).then_some(sentence))
}

fn unnumbered(folders: Vec<(u32, Folder)>) -> Vec<Folder> {
    folders.into_iter().map(|(_, folder)| folder).collect()
}

/// The fingerprints of the repetitions of both folders, where they have one.
fn fingerprints(base: &Path, head: &Path) -> Result<Vec<(Side, u32, Fingerprint)>> {
    let mut found = Vec::new();
    for (side, folder) in [(Side::Base, base), (Side::Head, head)] {
        for (number, path) in results_folder::numbered(folder)? {
            found.extend(collect::fingerprint(&path).map(|fingerprint| (side, number, fingerprint)));
        }
    }
    Ok(found)
}

/// The cases that the plans of both sides measured with different clients.
fn other_clients(plans: &[Option<Plan>; 2]) -> Vec<(String, String)> {
    let [Some(base), Some(head)] = plans else { return Vec::new() };
    let differing = |case: &Case| {
        let other = head.cases.iter().find(|other| other.name == case.name && other.measured_by != case.measured_by)?;
        let clients = [case, other].map(|case| case.measured_by.as_str());
        Some((case.name.clone(), format!("client {} and {}", clients[0], clients[1])))
    };
    base.cases.iter().filter_map(differing).collect()
}

/// The plan of the run that a folder is from: in the output folder itself, or in the one that it is a side of.
fn plan_of(folder: &Path) -> Result<Option<Plan>> {
    let parent = folder.parent().filter(|_| folder.ends_with("base") || folder.ends_with("head"));
    let plans = std::iter::once(folder).chain(parent).map(|root| OutputFolder::at(root).plan());
    let Some(path) = plans.into_iter().find(|path| path.is_file()) else { return Ok(None) };
    serde_json::from_str(&read(&path)?).with_context(|| format!("cannot read `{}`", path.display())).mistake().map(Some)
}

/// Whether both folders hold results of the simulated vLLM.
fn is_simulated(plans: &[Option<Plan>; 2]) -> bool {
    let simulated = |plan: &Option<Plan>| {
        let head = plan.as_ref().and_then(|plan| plan.sides.head.as_ref());
        head.is_some_and(|head| matches!(head.target, Target::Sim(_)))
    };
    plans.iter().all(simulated)
}

/// The cases with their client, where the plans have it.
fn measured_by(plans: &[Option<Plan>], mut cases: Vec<CaseFacts>) -> Vec<CaseFacts> {
    let planned = plans.iter().flatten().flat_map(|plan| &plan.cases);
    let clients: HashMap<&str, MeasuredBy> = planned.map(|case| (case.name.as_str(), case.measured_by)).collect();
    for case in &mut cases {
        case.measured_by = clients.get(case.name.raw()).copied().unwrap_or(case.measured_by);
    }
    cases
}

/// The device: that of the flags, or else that of the plans, where they agree.
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
        // Without --noise the flag has no effect; its variable may be set for the other commands.
        _ if arguments.noise.is_none() => Ok(planned),
        _ => Err(anyhow!(
            "--device and --device-type must be given together: the noise is that of a device and its type"
        ))
        .mistake(),
    }
}

/// The noise in the store. A store of `--noise` must be readable; the config's may be out of reach.
async fn known_noise(
    arguments: &CompareArgs,
    device: Option<MeasuredOn>,
    config: &Config,
    shell: &Shell,
) -> Result<Noise> {
    let Some(place) = arguments.noise.as_ref().or(config.store.as_ref()) else { return Ok(Noise::default()) };
    let required = arguments.noise.is_some();
    let read = async |device| {
        let store = Store::open(place, &shell.environment)?;
        if required && !store.is_there() {
            return Err(anyhow!("--noise: `{place}` is not a folder")).mistake();
        }
        let known = noise_store::read(&store, &device, None).await?;
        known.left_out.iter().for_each(|why| shell.say(why));
        Ok(known.noise)
    };
    match device {
        Some(device) => match read(device).await {
            Err(error) if !required => {
                shell.say(&format!("uncalibrated: {error:#}"));
                Ok(Noise::default())
            }
            noise => noise,
        },
        None if required => Err(anyhow!("--noise: the device is not known: give --device and --device-type")).mistake(),
        _ => Ok(Noise::default()),
    }
}

fn subject([base, head]: [String; 2]) -> Subject {
    let side = |target: String| Some(SideFacts { target: target.into(), ..SideFacts::default() });
    Subject { version: crate::VERSION.into(), base: side(base), head: side(head), ..Subject::default() }
}

/// `vllm-perf compare`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  vllm-perf compare vllm-perf-out/base vllm-perf-out/head")]
pub struct CompareArgs {
    /// Output folder, results folder (01/ 02/ ... in it are repetitions), or upstream's benchmark_results.json
    #[arg(value_name = "BASE")]
    pub base: PathBuf,
    /// The same, of head; without it BASE is a benchmark_results.json, split by its parallel layouts
    #[arg(value_name = "HEAD")]
    pub head: Option<PathBuf>,
    /// Store with the noise of A/A runs: a folder, file:///, s3://, gs:// or az:// [default: the config's]
    #[arg(long, env = "VLLM_PERF_NOISE", value_name = "STORE")]
    pub noise: Option<String>,
    /// Device of the results, for --noise [default: that of the output folder's plan]
    #[arg(long, env = "VLLM_PERF_DEVICE", value_name = "NAME", default_value = "auto", hide_default_value = true, value_parser = device_choice)]
    pub device: DeviceChoice,
    /// Its device type, e.g. `NVIDIA H100`
    #[arg(long, env = "VLLM_PERF_DEVICE_TYPE", value_name = "TYPE")]
    pub device_type: Option<String>,
    /// Show the largest concurrency with at most this TTFT (ms)
    #[arg(long, env = "VLLM_PERF_TTFT_MAX_MS", value_name = "MS", value_parser = limit)]
    pub ttft_max_ms: Option<f64>,
    /// Show the largest concurrency with at most this TPOT (ms)
    #[arg(long, env = "VLLM_PERF_TPOT_MAX_MS", value_name = "MS", value_parser = limit)]
    pub tpot_max_ms: Option<f64>,
    /// Tolerance above these limits (percent)
    #[arg(long, env = "VLLM_PERF_SLA_SLACK", value_name = "PERCENT", default_value_t = 5.0, value_parser = slack)]
    pub sla_slack: f64,
    /// Statistic that is compared with these limits: p99 or median
    #[arg(long, env = "VLLM_PERF_SLA_STATISTIC", default_value = "p99", hide_possible_values = true, value_parser = statistics())]
    pub sla_statistic: Statistic,
    /// text or json
    #[arg(long, env = "VLLM_PERF_FORMAT", value_enum, default_value = "text", hide_possible_values = true)]
    pub format: Format,
    /// Write comparison.json, comment.md, summary.md, annotation.md and report.html into this folder
    #[arg(long, env = "VLLM_PERF_COMPARE_OUT", value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Config file, in place of vllm-perf.yml
    #[arg(long, env = "VLLM_PERF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

fn limit(text: &str) -> Result<f64, String> {
    number(text).filter(|value| *value > 0.0).ok_or_else(|| "expected a number of milliseconds above 0".to_owned())
}

fn slack(text: &str) -> Result<f64, String> {
    let percent = number(text.trim_end_matches('%').trim_end());
    percent.filter(|value| *value >= 0.0).ok_or_else(|| "expected a percentage of 0 or more, such as `5`".to_owned())
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

fn statistics() -> impl TypedValueParser<Value = Statistic> {
    PossibleValuesParser::new(Statistic::ALL.map(Statistic::as_str)).try_map(|text| text.parse::<Statistic>())
}
