//! `vllm-perf verdict`: the last step in CI.

use anyhow::Result;
use serde::Serialize;
use vllm_verdict::v1::{Comparison, Counts, Row, Verdict};

use super::Shell;
use crate::cli::{FailOn, Format, VerdictArgs};
use crate::exit::Exit;
use crate::publish::folder;
use crate::report::{finding, terminal};

#[derive(Serialize)]
struct Answer<'a> {
    verdict: Verdict,
    counts: Counts,
    rows: Vec<&'a Row>,
}

/// Prints the verdict of an output folder and exits by it.
pub(super) fn verdict(arguments: &VerdictArgs, shell: &Shell) -> Result<Exit> {
    let comparison = folder::read(&arguments.out)?;
    match arguments.format {
        Format::Text => shell.print(&terminal::verdict(&comparison, shell.width)),
        Format::Json => shell.print_json(&Answer {
            verdict: comparison.verdict,
            counts: comparison.counts,
            rows: finding::primary(&comparison).filter(|row| row.verdict <= Verdict::Improved).collect(),
        })?,
    }
    Ok(if fails(&comparison, arguments.fail_on) { Exit::Verdict } else { Exit::Done })
}

fn fails(comparison: &Comparison, fail_on: FailOn) -> bool {
    let Counts { regressed, inconclusive, screened, not_measured, .. } = comparison.counts;
    let known = matches!(comparison.verdict, Verdict::Improved | Verdict::Unchanged);
    match fail_on {
        FailOn::Never => false,
        FailOn::Regressed => regressed > 0,
        FailOn::Inconclusive => !known || regressed + inconclusive + screened + not_measured > 0,
    }
}
