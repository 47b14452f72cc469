//! The end of a run: the reports, the results, the step's outputs and the exit code.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vllm_verdict::number::plural;
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Pass, Phase};
use vllm_verdict::v1::{Comparison, Skipped};

use crate::ci::event::CiRun;
use crate::command::{head_records, head_rows};
use crate::escape;
use crate::exit::{Classify, Exit};
use crate::plan::Plan;
use crate::plan::config::Config;
use crate::report::{Links, html, markdown, one_side, ran, terminal, upstream_files, values_page};
use crate::result::case_files::Folder;
use crate::run::collect;
use crate::run::fingerprint::{self, Conditions, Fingerprint, Surroundings};
use crate::run::journal::{Entry, Journal};
use crate::system::output::{self, OutputFolder};
use crate::system::shell::Shell;
use crate::system::{results_folder, step_files};
use crate::{publish, result};

/// A run whose measurements have ended.
pub(super) struct EndedRun<'a> {
    pub plan: &'a Plan,
    pub comparison: &'a Comparison,
    pub out: &'a OutputFolder,
    pub journal: &'a Journal,
}

/// Writes the reports and the results, prints the table, and exits by whether everything was measured.
pub(super) async fn conclude(
    run: &EndedRun<'_>,
    ci: &CiRun,
    config: &Config,
    prints_comment: bool,
    shell: &Shell,
) -> Result<Exit> {
    let EndedRun { plan, comparison, out, journal } = *run;
    print_times(comparison, shell);
    let comment = write_reports(ci, comparison, out, shell)?;
    let written = match write_results(out, journal) {
        Ok(merged) => {
            let records = head_records::write(&merged, plan, config, out, shell).await;
            records.and(head_rows::write(&merged, plan, comparison, config, (out, shell)))
        }
        Err(error) => Err(error),
    };
    shell.print(&terminal::table(comparison, shell.width));
    if prints_comment {
        shell.print(&comment);
    }
    if let Some(path) = &ci.output {
        write_outputs(path, ci, plan, comparison, out)?;
    }
    let is_whole = say_invalid(&comparison.skipped, shell);
    // What cannot be written takes neither the table nor the outputs of the step with it.
    written?;
    // Probes of a search do not count: the largest concurrency is known once one fails.
    let planned = |entry: &&Entry| plan.cases.iter().any(|case| case.name == entry.case);
    let ran = || journal.entries().iter().filter(planned);
    let failed = ran().filter(|entry| entry.failed.is_some()).count();
    if failed > 0 {
        shell.say(&format!(
            "{failed} of {} failed; the results of the others are kept",
            plural(ran().count(), "case run")
        ));
        return Ok(Exit::Unmeasured);
    }
    if comparison.counts.not_measured > 0 {
        shell.say(&format!("{} without a value on one side", plural(comparison.counts.not_measured, "primary row")));
        return Ok(Exit::Unmeasured);
    }
    Ok(if is_whole { Exit::Done } else { Exit::Unmeasured })
}

/// Names the tests that cannot be run as they are written; returns whether there are none.
pub fn say_invalid(skipped: &[Skipped], shell: &Shell) -> bool {
    let mut invalid = skipped.iter().filter(|skipped| skipped.invalid).peekable();
    let is_whole = invalid.peek().is_none();
    for Skipped { name, reason, .. } in invalid {
        shell.say(&format!("{} was not measured: {}", escape::name(name), escape::sentence(reason)));
    }
    is_whole
}

/// Prints which phases ran and how long they took.
pub fn print_times(comparison: &Comparison, shell: &Shell) {
    for sentence in ran::times(&comparison.conduct) {
        shell.say(&sentence);
    }
}

/// Sets the outputs of the CI step.
fn write_outputs(path: &Path, ci: &CiRun, plan: &Plan, comparison: &Comparison, out: &OutputFolder) -> Result<()> {
    let device = plan.device.name.as_str();
    let artifact = format!("vllm-perf-{device}-{}", publish::comment_id(ci, Some(&plan.device), Some(&plan.event)));
    let root = out.root().canonicalize().unwrap_or_else(|_| out.root().to_owned());
    step_files::append_outputs(
        path,
        &[
            ("ran", "true"),
            ("verdict", comparison.verdict.as_str()),
            ("regressed", &comparison.counts.regressed.to_string()),
            ("improved", &comparison.counts.improved.to_string()),
            ("report-dir", &root.display().to_string()),
            ("artifact-name", &artifact),
        ],
    )
}

/// Writes the comparison and its renderings; returns the comment.
pub fn write_reports(ci: &CiRun, comparison: &Comparison, out: &OutputFolder, shell: &Shell) -> Result<String> {
    let repository = comparison.subject.event.as_ref().and_then(|event| event.repository.clone());
    let links = Links { run: ci.run_url.clone(), artifact: None, server: ci.server_url.clone(), repository };
    let subject = &comparison.subject;
    let id = publish::comment_id(ci, subject.device.as_ref(), subject.event.as_ref());
    let comment = markdown::comment(comparison, &links, &id, None);
    let page = if one_side::is_alone(comparison) { values_page::page } else { html::page };
    let page = page(comparison, &links);
    let json = serde_json::to_string_pretty(comparison).context("cannot write the comparison")?;
    for (name, text) in [
        ("comparison.json", json.as_str()),
        ("comment.md", &comment),
        ("summary.md", &markdown::summary(comparison, &links)),
        ("annotation.md", &markdown::annotation(comparison, &links)),
        ("report.html", &page),
    ] {
        output::write(&out.file(name), text.as_bytes()).world()?;
    }
    shell.say(&format!("report: {}", out.file("report.html").display()));
    Ok(comment)
}

/// Writes `results/`: head's results, merged over the repetitions, in upstream's layout.
fn write_results(out: &OutputFolder, journal: &Journal) -> Result<Folder> {
    let passes = collect::passes(journal, Side::Head);
    let mut paths: Vec<PathBuf> = passes.into_iter().map(|pass| out.pass(Side::Head, pass)).collect();
    let mut folders = paths.iter().map(|path| results_folder::read_folder(path)).collect::<Result<Vec<Folder>>>()?;
    let screen = out.pass(Side::Head, Pass { phase: Phase::Screen, pair: 1 });
    if screen.is_dir() {
        // A case that was not repeated has only the result of the screen.
        let mut results = results_folder::read_folder(&screen)?;
        results.cases.retain(|name, _| !folders.iter().any(|folder| folder.cases.contains_key(name)));
        folders.push(results);
        paths.push(screen);
    }
    let merged = result::merge(&folders);
    let fingerprint = collect::shared_fingerprint(&paths);
    let mut files = merged.files()?;
    files.push((
        "benchmark_results.json".to_owned(),
        upstream_files::json(&merged).context("cannot write the results")?,
    ));
    let host = fingerprint.as_ref().and_then(Fingerprint::host);
    files.push((
        "benchmark_results.md".to_owned(),
        upstream_files::markdown(&merged, host.as_ref()).context("cannot write the results")?,
    ));
    // The conditions are those of a repetition: merged results have none.
    let surroundings = fingerprint.map(|fingerprint| Surroundings {
        schema: fingerprint::SCHEMA.to_owned(),
        fingerprint,
        conditions: Conditions::default(),
    });
    match surroundings {
        Some(surroundings) => {
            let text = serde_json::to_string_pretty(&surroundings).context("cannot write the results")?;
            files.push((collect::ENVIRONMENT.to_owned(), text));
        }
        // That of an earlier part of a run that was resumed on another machine.
        None => output::delete(&out.results().join(collect::ENVIRONMENT)).world()?,
    }
    for (name, text) in files {
        output::write(&out.results().join(name), text.as_bytes()).world()?;
    }
    Ok(merged)
}
