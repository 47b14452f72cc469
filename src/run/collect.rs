//! The results so far, from the journal and the result files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vllm_verdict::case::Kind;
use vllm_verdict::repetition::{Outcome, Repetition};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Pass, Phase};

use crate::exit::Classify;
use crate::plan::Plan;
use crate::result;
use crate::run::fingerprint::{Conditions, Fingerprint, Surroundings};
use crate::run::journal::{Entry, Journal};
use crate::system::output::{self, OutputFolder};
use crate::system::regular_file::{self, RESULT_LIMIT};

/// Name of the file with the surroundings of a repetition.
pub const ENVIRONMENT: &str = "environment.json";

/// The repetitions of a side that verdicts use, in order. A case that did not run is absent.
///
/// # Errors
/// When a result file that the journal names cannot be read.
pub fn repetitions(plan: &Plan, output: &OutputFolder, journal: &Journal, side: Side) -> Result<Vec<Repetition>> {
    passes(journal, side).into_iter().map(|pass| repetition(plan, output, journal, side, pass)).collect()
}

/// The results of the screen, base and head; `None` where there was none.
///
/// # Errors
/// When a result file that the journal names cannot be read.
pub fn screen(plan: &Plan, output: &OutputFolder, journal: &Journal) -> Result<Option<[Repetition; 2]>> {
    let pass = Pass { phase: Phase::Screen, pair: 1 };
    if !journal.entries().iter().any(|entry| entry.phase == Phase::Screen) {
        return Ok(None);
    }
    let of = |side| repetition(plan, output, journal, side, pass);
    Ok(Some([of(Side::Base)?, of(Side::Head)?]))
}

/// The passes of a side that verdicts use, from the first to the last.
pub fn passes(journal: &Journal, side: Side) -> Vec<Pass> {
    let counts = |entry: &&Entry| entry.side == side && matches!(entry.phase, Phase::Pairs | Phase::MorePairs);
    let last = |phase: Phase| {
        let of_phase = journal.entries().iter().filter(counts).filter(move |entry| entry.phase == phase);
        of_phase.map(|entry| entry.repetition).max()
    };
    let pairs = last(Phase::Pairs).unwrap_or_default();
    let more = last(Phase::MorePairs).unwrap_or(pairs);
    (1..=pairs)
        .map(|pair| Pass { phase: Phase::Pairs, pair })
        .chain((pairs + 1..=more).map(|pair| Pass { phase: Phase::MorePairs, pair }))
        .collect()
}

fn repetition(plan: &Plan, out: &OutputFolder, journal: &Journal, side: Side, pass: Pass) -> Result<Repetition> {
    let folder = out.pass(side, pass);
    let mut outcomes = Repetition::new();
    for case in &plan.cases {
        let mut entries: Vec<&Entry> = journal.slices(side, pass, &case.name).collect();
        entries.sort_by_key(|entry| entry.slice);
        let slice = |entry: &Entry| match &entry.failed {
            Some(reason) => Ok(Outcome::Failed(reason.clone())),
            None => outcome(&output::slice(&folder, entry.slice), case.kind, &case.name),
        };
        let slices = entries.into_iter().map(slice).collect::<Result<Vec<Outcome>>>()?;
        outcomes.extend(Outcome::of_slices(slices).map(|outcome| (case.name.clone(), outcome)));
    }
    Ok(outcomes)
}

/// The outcome of a case that has a result file.
pub fn outcome(folder: &Path, kind: Kind, case: &str) -> Result<Outcome> {
    let path = folder.join(format!("{case}.json"));
    let text =
        regular_file::text(&path, RESULT_LIMIT).with_context(|| format!("cannot read `{}`", path.display())).world()?;
    result::parse(kind, &text).with_context(|| format!("cannot read `{}`", path.display())).unmeasured()
}

/// The fingerprint of the repetition in `folder`, where it has one.
pub fn fingerprint(folder: &Path) -> Option<Fingerprint> {
    surroundings(folder).map(|surroundings| surroundings.fingerprint)
}

/// The fingerprint of results that are merged from these folders; `None` where one is not known, or they differ.
pub fn shared_fingerprint(folders: &[PathBuf]) -> Option<Fingerprint> {
    let all: Vec<Fingerprint> = folders.iter().map(|folder| fingerprint(folder)).collect::<Option<_>>()?;
    let (first, others) = all.split_first()?;
    others.iter().all(|other| first.difference(other).is_none()).then(|| first.clone())
}

/// The conditions of the repetition in `folder`, where they are known.
pub fn conditions(folder: &Path) -> Option<Conditions> {
    surroundings(folder).map(|surroundings| surroundings.conditions)
}

fn surroundings(folder: &Path) -> Option<Surroundings> {
    let text = regular_file::text(&folder.join(ENVIRONMENT), RESULT_LIMIT).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fingerprint::SCHEMA;

    #[test]
    fn merged_results_have_a_machine_only_if_one_machine_measured_all_of_them() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str, cores: Option<u32>| {
            let folder = root.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            if let Some(cores) = cores {
                let fingerprint = Fingerprint { cpu: "A".into(), cores, ..Fingerprint::default() };
                let conditions = Conditions::default();
                let written = Surroundings { schema: SCHEMA.into(), fingerprint, conditions };
                let text = serde_json::to_vec(&written).unwrap();
                crate::system::output::write(&folder.join(ENVIRONMENT), &text).unwrap();
            }
            folder
        };
        let [one, same] = [folder("01", Some(8)), folder("02", Some(8))];
        let cores = |folders: &[&PathBuf]| {
            let folders: Vec<PathBuf> = folders.iter().map(|folder| (*folder).clone()).collect();
            shared_fingerprint(&folders)?.host().map(|host| host.cores)
        };
        assert_eq!(cores(&[&one, &same]), Some(8));
        assert_eq!(cores(&[&one, &folder("03", Some(9))]), None);
        assert_eq!(cores(&[&one, &folder("04", None)]), None);
        assert_eq!(cores(&[]), None);
        assert_eq!(Fingerprint::default().host(), None, "a machine that could not be read");
    }
}
