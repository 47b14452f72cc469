//! `vllm-perf verdict`: prints the verdict of an output folder; the last step in CI.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;
use vllm_verdict::v1::{Comparison, Counts, OverallRow, Row, Verdict};

use crate::command::conclude;
use crate::command::shared_flags::Format;
use crate::exit::Exit;
use crate::plan::config::ImagesConfig;
use crate::publish::artifact;
use crate::report::{finding, terminal};
use crate::system::folder_lock::FolderLock;
use crate::system::shell::Shell;

/// What `--format json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    verdict: Verdict,
    counts: Counts,
    /// The overall rows that changed.
    overall: Vec<&'a OverallRow>,
    rows: Vec<&'a Row>,
}

/// Prints the verdict of an output folder. The exit code follows the verdict and `--fail-on`.
pub(super) fn verdict(arguments: &VerdictArgs, shell: &Shell) -> Result<Exit> {
    let _lock = FolderLock::shared(&arguments.out)?;
    let comparison = artifact::read(&arguments.out, &ImagesConfig::default())?;
    match arguments.format {
        Format::Text => shell.print(&terminal::verdict(&comparison, shell.width)),
        Format::Json => shell.print_json(&Printed {
            verdict: comparison.verdict,
            counts: comparison.counts,
            overall: comparison.overall.iter().filter(|row| row.verdict <= Verdict::Improved).collect(),
            rows: finding::primary(&comparison).filter(|row| row.verdict <= Verdict::Improved).collect(),
        })?,
    }
    if is_without_base(&comparison) {
        shell.say("not measured: the pull request was compared with nothing");
    }
    let is_whole = conclude::say_invalid(&comparison.skipped, shell);
    let fails = fails(&comparison, arguments.fail_on) || (!is_whole && arguments.fail_on == FailOn::Inconclusive);
    Ok(if fails { Exit::Verdict } else { Exit::Done })
}

/// Whether a pull request has no base, so that nothing is known of its change.
fn is_without_base(comparison: &Comparison) -> bool {
    let subject = &comparison.subject;
    subject.base.is_none() && subject.event.as_ref().is_some_and(|event| event.pull_request.is_some())
}

fn fails(comparison: &Comparison, fail_on: FailOn) -> bool {
    let Counts { inconclusive, screened, not_measured, .. } = comparison.counts;
    let known = matches!(comparison.verdict, Verdict::Improved | Verdict::Unchanged);
    match fail_on {
        FailOn::Never => false,
        FailOn::Regressed => {
            matches!(comparison.verdict, Verdict::Regressed | Verdict::NotMeasured) || is_without_base(comparison)
        }
        FailOn::Inconclusive => !known || is_without_base(comparison) || inconclusive + screened + not_measured > 0,
    }
}

/// The verdict at which the command exits with 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Exit 1 when a row regressed, or an overall row, or head fails; when nothing was measured; and for a pull request without base.
    Regressed,
    /// Exit 1 if a primary row regressed, is inconclusive or was not measured.
    Inconclusive,
    /// Always exit 0.
    Never,
}

/// `vllm-perf verdict`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  vllm-perf verdict vllm-perf-out --fail-on regressed")]
pub struct VerdictArgs {
    /// Output folder of a run
    #[arg(env = "VLLM_PERF_OUT", value_name = "OUT", default_value = "vllm-perf-out")]
    pub out: PathBuf,
    /// regressed, inconclusive (also fails on regressed and not measured) or never
    #[arg(
        long,
        env = "VLLM_PERF_FAIL_ON",
        value_enum,
        default_value = "regressed",
        value_name = "VERDICT",
        hide_possible_values = true
    )]
    pub fail_on: FailOn,
    /// text or json
    #[arg(long, env = "VLLM_PERF_FORMAT", value_enum, default_value = "text", hide_possible_values = true)]
    pub format: Format,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_without_base_or_without_measurements_fails() {
        let text = include_str!("../../tests/data/comparison/comparison.json");
        let real = || {
            let mut comparison: Comparison = serde_json::from_str(text).unwrap();
            (comparison.counts.regressed, comparison.verdict) = (0, Verdict::Inconclusive);
            comparison
        };
        assert!(!fails(&real(), FailOn::Regressed));
        let mut alone = real();
        alone.subject.base = None;
        assert!(fails(&alone, FailOn::Regressed) && fails(&alone, FailOn::Inconclusive));
        assert!(!fails(&alone, FailOn::Never));
        let mut nothing = real();
        nothing.verdict = Verdict::NotMeasured;
        assert!(fails(&nothing, FailOn::Regressed));
        alone.subject.event = None;
        assert!(!fails(&alone, FailOn::Regressed), "head alone, outside a pull request");
    }
}
