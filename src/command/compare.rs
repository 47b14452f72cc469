//! `vllm-perf compare`: what was measured before, base against head.

use std::path::Path;

use anyhow::{Context, Result};

use super::run::conclude;
use super::{Shell, prepare};
use crate::cli::{CompareArgs, Format};
use crate::compare::{self, Comparison, Input, SideFacts, Subject};
use crate::config::VerdictConfig;
use crate::event::CiRun;
use crate::exit::{Classify, Exit};
use crate::noise::Noise;
use crate::output::OutputFolder;
use crate::report::terminal;
use crate::result::{self, Folder};

/// Prints the comparison; writes its renderings where `--out` asks for them.
pub(super) fn compare(arguments: &CompareArgs, shell: &Shell) -> Result<Exit> {
    let (config, _) = prepare::config(arguments.config.as_deref())?;
    let is_table = |path: &Path| path.extension().is_some_and(|extension| extension == "json");
    let comparison = if is_table(&arguments.base) && is_table(&arguments.head) {
        tables(&arguments.base, &arguments.head, config.verdict)?
    } else {
        folders(&arguments.base, &arguments.head, config.verdict)?
    };
    match arguments.format {
        Format::Text => shell.print(&terminal::table(&comparison, shell.width)),
        Format::Json => shell.print_json(&comparison)?,
    }
    if let Some(out) = &arguments.out {
        conclude::write_reports(&CiRun::default(), &comparison, &OutputFolder::at(out), shell)?;
    }
    Ok(Exit::Done)
}

/// Two of upstream's `benchmark_results.json`.
fn tables(base: &Path, head: &Path, verdict: VerdictConfig) -> Result<Comparison> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display())).mistake()
    };
    compare::upstream::compare_tables(&read(base)?, &read(head)?, subject(base, head), verdict)
}

/// Two output folders, results folders, or folders of repetitions.
fn folders(base: &Path, head: &Path, verdict: VerdictConfig) -> Result<Comparison> {
    let base_folders = result::repetitions(base)?;
    let head_folders = result::repetitions(head)?;
    let planned_pairs = u32::try_from(base_folders.len().max(head_folders.len())).unwrap_or(u32::MAX);
    let repetitions = |folders: &[Folder]| folders.iter().map(Folder::repetition).collect();
    Ok(compare::compare(Input {
        subject: subject(base, head),
        cases: result::facts(base_folders.iter().chain(&head_folders)),
        base: repetitions(&base_folders),
        head: repetitions(&head_folders),
        skipped: Vec::new(),
        planned_pairs,
        seed: 0,
        verdict,
        noise: Noise::default(),
        looks: Vec::new(),
    }))
}

fn subject(base: &Path, head: &Path) -> Subject {
    let side = |path: &Path| Some(SideFacts { target: path.display().to_string(), ..SideFacts::default() });
    Subject { version: crate::VERSION.to_owned(), base: side(base), head: side(head), ..Subject::default() }
}
