//! `vllm-perf report`: upstream's tables, and an HTML page, from a results folder.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use vllm_verdict::Untrusted;
use vllm_verdict::noise::Noise;
use vllm_verdict::repetition::Outcome;
use vllm_verdict::v1::{SideFacts, Subject};

use crate::exit::{Classify, Exit};
use crate::plan::config::Config;
use crate::report::{Links, upstream_files, values_page};
use crate::run::collect;
use crate::run::fingerprint::Fingerprint;
use crate::system::shell::Shell;
use crate::system::{output, results_folder};
use crate::{VERSION, result};

/// Writes the files into the folder. They describe the machine that `environment.json` beside the results names, or none: the
/// machine of the report may be another.
pub(super) fn report(arguments: &ReportArgs, shell: &Shell) -> Result<Exit> {
    let folder = results_folder::read_folder(&arguments.results).mistake()?;
    if folder.cases.is_empty() {
        return Err(results_folder::no_results(&arguments.results)).mistake();
    }
    for (name, case) in &folder.cases {
        match &case.outcome {
            Outcome::Failed(reason) => shell.say(&format!("{name} is left out: {reason}")),
            Outcome::Measured(measured) => {
                let missing = measured.missing.iter().map(|metric| format!("`{metric}` has no value"));
                missing.chain(measured.warnings.iter().cloned()).for_each(|why| shell.say(&format!("{name}: {why}")));
            }
        }
    }
    let fingerprint = collect::fingerprint(&arguments.results);
    if fingerprint.is_none() && arguments.results.join(collect::ENVIRONMENT).exists() {
        shell.say(&format!("`{}` cannot be read: the report names no machine", collect::ENVIRONMENT));
    }
    let host = fingerprint.as_ref().and_then(Fingerprint::host);
    let head = fingerprint.map(|fingerprint| SideFacts {
        vllm_version: fingerprint.vllm_version.map(Untrusted::from),
        image_digest: fingerprint.image_digest.map(Untrusted::from),
        ..SideFacts::default()
    });
    let comparison = vllm_verdict::compare(vllm_verdict::Input {
        subject: Subject { version: VERSION.into(), head, host: host.clone(), ..Subject::default() },
        cases: result::facts([&folder]),
        base: Vec::new(),
        head: vec![folder.repetition()],
        skipped: Vec::new(),
        planned_pairs: 1,
        seed: 0,
        verdict: Config::default().verdict,
        noise: Noise::default(),
        looks: Vec::new(),
    });
    let files = [
        ("benchmark_results.json", upstream_files::json(&folder).context("cannot write the report")?),
        ("benchmark_results.md", upstream_files::markdown(&folder, host.as_ref()).context("cannot write the report")?),
        ("report.html", values_page::page(&comparison, &Links::default())),
    ];
    for (name, text) in files {
        let path = arguments.results.join(name);
        output::write(&path, text.as_bytes()).context("cannot write the report").world()?;
        shell.print(&path.display().to_string());
    }
    Ok(Exit::Done)
}

/// `vllm-perf report`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  vllm-perf report results/")]
pub struct ReportArgs {
    /// Results folder of vllm-perf or of upstream; the files are written into it
    #[arg(value_name = "RESULTS")]
    pub results: PathBuf,
}
