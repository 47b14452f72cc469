//! The output folder of a run: used by one program at a time, and never written over an earlier run.

use std::fs::File;
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
use crate::system::exchange;
use crate::system::output::{self, OutputFolder};
use crate::system::regular_file::{self, RESULT_LIMIT};
use crate::system::shell::Shell;
use crate::system::work_tree::WorkTree;

/// Opens the output folder: a new one, or that of an interrupted run. An earlier finished run is moved aside.
pub fn open(out: &OutputFolder, plan: Plan, resume: bool, shell: &Shell) -> Result<(Plan, Journal, File)> {
    let root = out.root().display();
    if is_proposal(&plan.event) && WorkTree::here(&shell.environment).is_linked(out.root()) {
        return Err(anyhow!("`{root}` is, or is in, a link of the checkout: give another --out")).mistake();
    }
    if out.root().is_dir() {
        exchange::keep_files(out).world()?;
    }
    if resume {
        let text = regular_file::text(&out.plan(), RESULT_LIMIT)
            .with_context(|| format!("nothing to resume: cannot read `{}`", out.plan().display()))
            .mistake()?;
        let before: Plan =
            serde_json::from_str(&text).with_context(|| format!("cannot read `{}`", out.plan().display())).mistake()?;
        let mut wanted = plan;
        if let Some(fallback) = &before.fallback
            && wanted.sides.base.as_ref().and_then(|base| base.commit.as_ref()) == Some(&fallback.wanted)
        {
            wanted.sides.base.clone_from(&before.sides.base);
        }
        if !is_same(&before, &wanted) {
            return Err(anyhow!("`{root}` has a run of a different plan: resume it with the flags of that run"))
                .mistake();
        }
        let lock = lock(out)?;
        exchange::clear(out).world()?;
        return Ok((before, Journal::resume(&out.journal())?, lock));
    }
    let begun = std::fs::metadata(out.journal()).is_ok_and(|journal| journal.len() > 0);
    if begun && !out.comparison().exists() {
        return Err(anyhow!("`{root}` has a run that did not finish: continue with --resume, or give another --out"))
            .mistake();
    }
    if begun {
        let aside = aside(out.root());
        std::fs::rename(out.root(), &aside).with_context(|| format!("cannot move `{root}` aside")).world()?;
        shell.say(&format!("moved the earlier run in `{root}` to `{}`", aside.display()));
    }
    std::fs::create_dir_all(out.root()).with_context(|| format!("cannot make the folder `{root}`")).world()?;
    let lock = lock(out)?;
    exchange::clear(out).world()?;
    let text = serde_json::to_string_pretty(&plan).context("cannot write the plan")?;
    output::write(&out.plan(), text.as_bytes()).world()?;
    let journal = Journal::create(&out.journal())?;
    Ok((plan, journal, lock))
}

/// Whether a run of `plan` can continue with the results of `before`. The clients of the first run stay: a model that it
/// downloaded must not change them.
fn is_same(before: &Plan, plan: &Plan) -> bool {
    let cases = |plan: &Plan| -> Vec<Case> {
        plan.cases
            .iter()
            .cloned()
            .map(|case| Case { measured_by: MeasuredBy::Vllm, client_reason: None, ..case })
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

fn lock(out: &OutputFolder) -> Result<File> {
    let root = out.root().display();
    let folder = File::open(out.root()).with_context(|| format!("cannot open `{root}`")).world()?;
    folder
        .try_lock()
        .map_err(|_| anyhow!("another vllm-perf is running in `{root}`: wait for it, or give another --out"))
        .mistake()?;
    Ok(folder)
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
