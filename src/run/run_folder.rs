//! The output folder of a run: used by one program at a time, and never written over an earlier run.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use vllm_verdict::case::MeasuredBy;
use vllm_verdict::side::Side;

use crate::ci::event::is_proposal;
use crate::exit::Classify;
use crate::plan::Plan;
use crate::plan::suite::Case;
use crate::run::journal::Journal;
use crate::run::{kept_results, time_spent};
use crate::system::exchange;
use crate::system::folder_lock::FolderLock;
use crate::system::output::{self, OutputFolder};
use crate::system::regular_file::{self, RESULT_LIMIT};
use crate::system::shell::Shell;
use crate::system::work_tree::WorkTree;

/// An output folder that is open for a run. No other command uses it while this lives.
#[derive(Debug)]
pub struct RunFolder {
    pub plan: Plan,
    pub journal: Journal,
    pub lock: FolderLock,
}

/// Opens the output folder: a new one, or that of an interrupted run. An earlier finished run is moved aside. Nothing is
/// changed before the folder is locked.
pub fn open(out: &OutputFolder, plan: Plan, resume: bool, shell: &Shell) -> Result<RunFolder> {
    let root = out.root().display();
    if is_proposal(&plan.event) && WorkTree::here(&shell.environment).is_linked(out.root()) {
        return Err(anyhow!("`{root}` is, or is in, a link of the checkout: give another --out")).mistake();
    }
    if resume && !out.root().is_dir() {
        return Err(anyhow!("nothing to resume: there is no folder `{root}`")).mistake();
    }
    let lock = locked(out)?;
    exchange::keep_files(out).world()?;
    let begun = std::fs::metadata(out.journal()).is_ok_and(|journal| journal.len() > 0);
    if !resume {
        if begun && !out.comparison().exists() {
            let unfinished = "has a run that did not finish: continue with --resume, or give another --out";
            return Err(anyhow!("`{root}` {unfinished}")).mistake();
        }
        return new(out, plan, begun, lock, shell);
    }
    match before(out)? {
        Some(before) => resumed(out, before, plan, lock, shell),
        None => {
            let why = if begun { "its plan.json is lost, so its results cannot be used" } else { "nothing to resume" };
            shell.say(&format!("`{root}`: {why}; a new run begins"));
            new(out, plan, begun, lock, shell)
        }
    }
}

/// The plan of the run that is in the folder; `None` where it was lost, or there was none.
fn before(out: &OutputFolder) -> Result<Option<Plan>> {
    let path = out.plan();
    let cannot = || format!("nothing to resume: cannot read `{}`", path.display());
    let text = match regular_file::bytes(&path, RESULT_LIMIT) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(cannot).mistake()?,
    };
    match serde_json::from_slice(&text) {
        // Cut off, or overwritten with zeros: what a power cut leaves.
        Err(error) if error.is_eof() || text.contains(&0) => Ok(None),
        plan => plan.with_context(cannot).mistake().map(Some),
    }
}

/// Continues the run in the folder.
fn resumed(out: &OutputFolder, before: Plan, mut wanted: Plan, lock: FolderLock, shell: &Shell) -> Result<RunFolder> {
    if let Some(fallback) = &before.fallback
        && wanted.sides.base.as_ref().and_then(|base| base.commit.as_ref()) == Some(&fallback.wanted)
    {
        wanted.sides.base.clone_from(&before.sides.base);
    }
    if !is_same(&before, &wanted) {
        let root = out.root().display();
        return Err(anyhow!("`{root}` has a run of a different plan: resume it with the flags of that run")).mistake();
    }
    exchange::clear(out).world()?;
    let (mut journal, mut lost) = Journal::resume(&out.journal())?;
    lost.extend(kept_results::check(&before, out, &mut journal));
    lost.extend(time_spent::damage(&out.passes()));
    lost.iter().for_each(|sentence| shell.say(sentence));
    Ok(RunFolder { plan: before, journal, lock })
}

/// Begins a run in the folder; what an earlier one left there is moved aside.
fn new(out: &OutputFolder, plan: Plan, begun: bool, mut lock: FolderLock, shell: &Shell) -> Result<RunFolder> {
    if begun {
        let to = move_aside(out.root())?;
        shell.say(&format!("moved the earlier run in `{}` to `{}`", out.root().display(), to.display()));
        // The lock of the earlier run's folder went with it.
        lock = locked(out)?;
    }
    exchange::clear(out).world()?;
    let text = serde_json::to_string_pretty(&plan).context("cannot write the plan")?;
    output::write(&out.plan(), text.as_bytes()).world()?;
    let journal = Journal::create(&out.journal())?;
    Ok(RunFolder { plan, journal, lock })
}

/// Makes the folder where it is not there, and locks it.
fn locked(out: &OutputFolder) -> Result<FolderLock> {
    let root = out.root().display();
    std::fs::create_dir_all(out.root()).with_context(|| format!("cannot make the folder `{root}`")).world()?;
    FolderLock::alone(out.root())
}

/// Moves the folder of an earlier run to a free name next to it.
fn move_aside(root: &Path) -> Result<PathBuf> {
    let cannot = |why: &str| {
        let root = root.display();
        Err(anyhow!("`{root}` has an earlier run and cannot be moved aside ({why}): give another --out")).mistake()
    };
    let Ok(path) = root.canonicalize() else { return cannot("it is not there") };
    if Path::new(".").canonicalize().is_ok_and(|current| current.starts_with(&path)) {
        return cannot("it is the current folder, or that is in it");
    }
    let to = aside(root);
    match std::fs::rename(root, &to) {
        Ok(()) => Ok(to),
        Err(error) => cannot(&error.to_string()),
    }
}

/// Whether a run of `plan` can continue with the results of `before`. The clients of the first run stay: a model that it
/// downloaded must not change them.
fn is_same(before: &Plan, plan: &Plan) -> bool {
    let cases = |plan: &Plan| -> Vec<Case> {
        plan.cases
            .iter()
            .cloned()
            .map(|mut case| {
                case.set_client(MeasuredBy::Vllm, None);
                case
            })
            .collect()
    };
    (&before.sides, &before.recorded_base, &before.device) == (&plan.sides, &plan.recorded_base, &plan.device)
        && before.search == plan.search
        && (before.strategy, before.pairs, before.seed) == (plan.strategy, plan.pairs, plan.seed)
        && cases(before) == cases(plan)
}

/// The digest of each side's image when the run began, in `images.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Digests {
    base: Option<String>,
    head: Option<String>,
}

/// Records the digest of a side's image. A digest other than the recorded one is an error: the tag has moved.
pub fn check_digest(out: &OutputFolder, side: Side, reference: &str, digest: &str) -> Result<()> {
    let path = out.file("images.json");
    let kept = regular_file::text(&path, RESULT_LIMIT).ok().and_then(|text| serde_json::from_str(&text).ok());
    let mut digests: Digests = kept.unwrap_or_default();
    let known = match side {
        Side::Base => &mut digests.base,
        Side::Head => &mut digests.head,
    };
    match known.as_deref() {
        Some(before) if before == digest => Ok(()),
        Some(before) => Err(anyhow!(
            "{reference} has changed since this run began: it was {before} and is {digest}; begin a new run"
        ))
        .mistake(),
        None => {
            *known = Some(digest.to_owned());
            let text = serde_json::to_string_pretty(&digests).context("cannot write the digest of an image")?;
            output::write(&path, text.as_bytes()).world()
        }
    }
}

/// The last run that was moved aside from `root`, if there is one.
pub fn latest_aside(root: &Path) -> Option<PathBuf> {
    let free = aside(root);
    let number: u32 = free.extension()?.to_str()?.parse().ok()?;
    (number > 1).then(|| free.with_extension((number - 1).to_string()))
}

/// The first free name next to `root`.
fn aside(root: &Path) -> PathBuf {
    let name = root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    (1_u32..)
        .map(|number| root.with_file_name(format!("{name}.{number}")))
        .find(|path| !path.exists())
        .unwrap_or_default()
}

/// A random name for a run's containers. It is not kept: a file of the output folder must not name what is removed.
pub fn run_id() -> String {
    format!("{:012x}", rand::random::<u64>() >> 16)
}

/// By which the containers of an earlier, killed run in this folder are found: this machine and the folder's absolute path.
/// The lock of the folder says that no other run is using it; machines that share an engine differ in their names.
pub fn label(out: &OutputFolder) -> Result<String> {
    let root = out.root().canonicalize().with_context(|| format!("cannot find `{}`", out.root().display())).world()?;
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Ok(format!("{}:{}", machine.trim(), root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_changed_since_the_run_began_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = OutputFolder::at(folder.path());
        let check = |side, digest| check_digest(&out, side, "vllm:nightly", digest).map_err(|error| error.to_string());
        assert_eq!(check(Side::Base, "sha256:a"), Ok(()));
        assert_eq!(check(Side::Head, "sha256:b"), Ok(()));
        assert_eq!(check(Side::Base, "sha256:a"), Ok(()));
        assert!(check(Side::Head, "sha256:c").unwrap_err().contains("it was sha256:b and is sha256:c"));
    }

    #[test]
    fn the_latest_run_aside_is_the_last_that_was_moved() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        assert_eq!(latest_aside(&root), None);
        for name in ["out.1", "out.2"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        assert_eq!(latest_aside(&root), Some(folder.path().join("out.2")));
    }
}
