//! The search for the largest concurrency of one test at one request rate, on a running server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Pass, Phase, Strategy};

use super::pass::PassRun;
use super::server_start::Running;
use super::session::Session;
use super::{collect, slices};
use crate::exit::Classify;
use crate::plan::Plan;
use crate::plan::concurrency_search::{self, Search, Summary};
use crate::plan::suite::{Case, Selection};
use crate::run::journal::Journal;
use crate::system::output::{self, OutputFolder};
use crate::system::regular_file::{self, RESULT_LIMIT};

/// Searches after the last of the suite's concurrencies of the case's test and request rate, in the first slice of the first
/// pass over all cases. Each probe is a case like the others: it has files and an entry in the journal.
pub async fn search(run: &mut PassRun<'_, '_>, case: &Case, server: &Running) -> Result<()> {
    let plan = run.session.plan;
    let Some(search) = &plan.search else { return Ok(()) };
    let path = run.folder().join(summary_file(case));
    if !is_searched(plan, run.pass) || summary(&path).is_some() {
        return Ok(());
    }
    let selection = Selection::read(run.session.environment, None)?;
    let mut listed = BTreeMap::new();
    for case in same_test_and_rate(plan, case) {
        let met = is_met(run, search, case)?;
        listed.extend(case.max_concurrency.zip(met));
    }
    let mut probes = BTreeMap::new();
    while let Some(concurrency) = search.next(&listed, &probes) {
        let probe = concurrency_search::at(case, concurrency, &selection);
        if run.journal.find(run.side, run.pass, &probe.name, 1).is_none() {
            run.session.progress.expect_more(1);
            run.measure(&probe, Some(server)).await?;
            if run.session.is_over_budget_after(Duration::ZERO) {
                // Without a summary the search has not ended: a resumed run goes on with it.
                return Ok(());
            }
        }
        probes.insert(concurrency, is_met(run, search, &probe)?.unwrap_or(false));
        if server.ended().await.is_some() {
            break;
        }
    }
    let rate = case.request_rate.as_deref().unwrap_or_default();
    let summary = Summary::new(search, &case.test, rate, &listed, &probes);
    let text = serde_json::to_string_pretty(&summary).context("cannot write the summary of a search")?;
    output::write(&path, text.as_bytes()).world()
}

/// Whether all slices of a case have run in a pass, and the search after it has ended.
pub fn is_done(session: &Session<'_>, journal: &Journal, side: Side, pass: Pass, case: &Case) -> bool {
    let slices = slices::of_case(session.plan, journal, pass, case);
    !slices::is_open(session.plan, journal, pass, case)
        && (1..=slices).all(|slice| is_slice_done(session, journal, side, pass, case, slice))
}

/// Whether one slice of a case has run in a pass, and the search after the first has ended.
pub fn is_slice_done(
    session: &Session<'_>,
    journal: &Journal,
    side: Side,
    pass: Pass,
    case: &Case,
    slice: u32,
) -> bool {
    let entry = journal.find(side, pass, &case.name, slice);
    let folder = session.output.pass(side, pass);
    let awaits_search = || slice == 1 && awaits_search(session.plan, pass, case, &folder);
    entry.is_some_and(|entry| entry.failed.is_some() || !awaits_search())
}

/// Whether a case is the last before a search that has not ended: a resumed run measures it again and then searches.
fn awaits_search(plan: &Plan, pass: Pass, case: &Case, folder: &Path) -> bool {
    let is_asked = plan.search.is_some() && case.server.is_some() && is_searched(plan, pass);
    is_asked
        && same_test_and_rate(plan, case).last() == Some(case)
        && summary(&folder.join(summary_file(case))).is_none()
}

/// Whether a finished case met the latency targets; `None` where it did not run.
fn is_met(run: &PassRun<'_, '_>, search: &Search, case: &Case) -> Result<Option<bool>> {
    let Some(entry) = run.journal.find(run.side, run.pass, &case.name, 1) else { return Ok(None) };
    if entry.failed.is_some() {
        return Ok(Some(false));
    }
    let outcome = collect::outcome(&run.folder(), case.kind, &case.name)?;
    Ok(Some(search.is_met(&outcome)))
}

/// The summary of a search that has ended; `None` where it is not there, or is damaged.
fn summary(path: &Path) -> Option<Summary> {
    serde_json::from_str(&regular_file::text(path, RESULT_LIMIT).ok()?).ok()
}

fn summary_file(case: &Case) -> PathBuf {
    Summary::file(&case.test, case.request_rate.as_deref().unwrap_or_default()).into()
}

fn same_test_and_rate<'a>(plan: &'a Plan, case: &'a Case) -> impl Iterator<Item = &'a Case> {
    plan.cases.iter().filter(|other| other.is_same_test_and_rate(case))
}

/// Whether a pass is the one with searches: the first over all cases.
fn is_searched(plan: &Plan, pass: Pass) -> bool {
    let first = if plan.strategy == Strategy::Screen { Phase::Screen } else { Phase::Pairs };
    pass == Pass { phase: first, pair: 1 }
}

/// The summaries of the searches of a run, base and head, in the order of the plan.
pub fn summaries(plan: &Plan, output: &OutputFolder) -> Vec<(Side, Summary)> {
    let mut summaries: Vec<(Side, Summary)> = Vec::new();
    if plan.search.is_none() {
        return summaries;
    }
    for phase in [Phase::Screen, Phase::Pairs] {
        let pass = Pass { phase, pair: 1 };
        for case in plan.cases.iter().filter(|_| is_searched(plan, pass)) {
            for (side, _) in plan.sides.present() {
                let summary = summary(&output.pass(side, pass).join(summary_file(case))).map(|summary| (side, summary));
                // The cases of one test and rate share a search.
                summaries.extend(summary.filter(|summary| !summaries.contains(summary)));
            }
        }
    }
    summaries
}
