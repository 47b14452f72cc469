//! The data sets that the cases of a plan need: found or downloaded before the first server. The cases of one that cannot be
//! had are left out.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use indexmap::IndexMap;
use vllm_verdict::case::MeasuredBy;
use vllm_verdict::v1::Skipped;

use crate::exit::Classify;
use crate::plan::Plan;
use crate::plan::config::Config;
use crate::plan::suite::Case;
use crate::plan::suite::data_set_file::{DataSetFiles, data_set_file};
use crate::plan::target::Target;
use crate::system::data_set_download::{LIMIT, check_file, download};
use crate::system::data_sets::{DataSets, HubFile, Whereabouts};
use crate::system::shell::Shell;

/// Pause before a download is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// What `run` will do about the data sets, one sentence each. Nothing is downloaded.
///
/// # Errors
/// As of [`DataSets::of`].
pub fn sentences(plan: &Plan, config: &Config, shell: &Shell) -> Result<Vec<String>> {
    let data_sets = DataSets::of(&plan.event, config, &shell.environment)?;
    let mut sentences = Vec::new();
    for (named, found) in whereabouts(plan, &data_sets) {
        match found {
            Whereabouts::Here(_) => {}
            Whereabouts::OnHub(HubFile { url, .. }) => {
                sentences.push(format!("the data set `{}` will be downloaded from {url}", named.display()));
            }
            Whereabouts::Unknown(why) => {
                let cases = plan.cases.iter().filter(|case| needs(case, named) && reads_here(plan, case));
                let mut reasons: Vec<String> = cases.map(|case| missing(case, named, why.as_deref())).collect();
                reasons.dedup();
                sentences.extend(reasons.iter().map(|reason| format!("`run` leaves out a test: {reason}")));
            }
        }
    }
    Ok(sentences)
}

/// Finds the data sets of the plan, downloads those that only the hub has, and leaves out the cases of the others: each of
/// their tests is among the skipped as invalid. What a container reads may be in its image.
///
/// # Errors
/// The user's mistake (exit 2): no case is left.
pub async fn provide(plan: &mut Plan, config: &Config, shell: &Shell) -> Result<DataSetFiles> {
    let environment = &shell.environment;
    let mut files = DataSetFiles::default();
    let mut left_out: IndexMap<String, Skipped> = IndexMap::new();
    {
        let data_sets = DataSets::of(&plan.event, config, environment)?;
        for (named, found) in whereabouts(plan, &data_sets) {
            let sha256 = data_sets.sha256(named);
            let had = match &found {
                Whereabouts::Here(file) => sha256.map_or(Ok(()), |sha256| check_file(file, sha256)).map(|()| file),
                Whereabouts::OnHub(file) => fetch(file, sha256, shell).await.map(|()| &file.place),
                Whereabouts::Unknown(why) => {
                    let cases = plan.cases.iter().filter(|case| needs(case, named) && reads_here(plan, case));
                    let reason = |case: &Case| missing(case, named, why.as_deref());
                    left_out.extend(cases.map(|case| (case.name.clone(), skipped(case, &reason(case)))));
                    continue;
                }
            };
            match had {
                Ok(file) => files.insert(named, file.clone()),
                Err(error) => {
                    let reason = |case: &Case| {
                        format!(
                            "`{}` needs the data set `{}`, which cannot be used: {error:#}",
                            case.test,
                            named.display()
                        )
                    };
                    let cases = plan.cases.iter().filter(|case| needs(case, named));
                    left_out.extend(cases.map(|case| (case.name.clone(), skipped(case, &reason(case)))));
                }
            }
        }
    }
    leave_out(plan, left_out)?;
    Ok(files)
}

async fn fetch(file: &HubFile, sha256: Option<&str>, shell: &Shell) -> Result<()> {
    shell.say(&format!("downloading {}", file.url));
    let downloaded = download(file, sha256, LIMIT, PAUSE, &shell.environment)
        .await
        .map_err(|error| error.context(format!("cannot download {}", file.url)))?;
    let place = file.place.display();
    let megabytes = downloaded.bytes as f64 / 1e6;
    shell.say(&format!("downloaded `{place}`: {megabytes:.1} MB, sha256 {}", downloaded.sha256));
    Ok(())
}

/// Where each data set is, by its name in the commands.
fn whereabouts<'p>(plan: &'p Plan, data_sets: &DataSets<'_>) -> IndexMap<&'p Path, Whereabouts> {
    let mut found = IndexMap::new();
    for named in plan.cases.iter().filter_map(data_set_file) {
        found.entry(named).or_insert_with(|| data_sets.find(named));
    }
    found
}

fn needs(case: &Case, named: &Path) -> bool {
    data_set_file(case) == Some(named)
}

/// Whether the data set of a case is read on this machine.
fn reads_here(plan: &Plan, case: &Case) -> bool {
    let runs_here = |target: &Target| matches!(target, Target::Local(_) | Target::Remote(_));
    case.measured_by == MeasuredBy::Native || plan.sides.present().any(|(_, side)| runs_here(&side.target))
}

fn missing(case: &Case, named: &Path, why: Option<&str>) -> String {
    let place = if named.is_relative() {
        ": put it into the folder that the run is started in, or into one of `datasets: {folders}` in vllm-perf.yml"
    } else {
        ""
    };
    let why = why.map_or_else(String::new, |why| format!(" ({why})"));
    format!("`{}` needs the data set `{}`, which is not there{why}{place}", case.test, named.display())
}

fn skipped(case: &Case, reason: &str) -> Skipped {
    Skipped::invalid(case.test.as_str(), reason)
}

/// Leaves out cases, by their names, each with what the plan says of its test.
fn leave_out(plan: &mut Plan, cases: IndexMap<String, Skipped>) -> Result<()> {
    let Some((_, first)) = cases.first() else { return Ok(()) };
    let error = anyhow!("no case to measure: {}", first.reason.raw());
    plan.cases.retain(|case| !cases.contains_key(&case.name));
    let mut tests: Vec<Skipped> = Vec::new();
    for skipped in cases.into_values() {
        if !tests.iter().any(|known| known.name == skipped.name) {
            tests.push(skipped);
        }
    }
    plan.skipped.splice(0..0, tests);
    if plan.cases.is_empty() { Err(error).mistake() } else { Ok(()) }
}
