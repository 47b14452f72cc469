//! The adaptive search of one test at one request rate, on a server that is up.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Pass, Phase, Strategy};

use super::session::Bench;
use super::{collect, server_start};
use crate::exit::Classify;
use crate::plan::Plan;
use crate::plan::concurrency_search::{self, Search, Summary};
use crate::plan::suite::{Case, Selection};
use crate::run::journal::Journal;
use crate::system::output::{self, OutputFolder};

impl Bench<'_> {
    /// Searches after the last of the suite's concurrencies of `case`'s test and rate, in the first pass over everything.
    /// Each probe is a case like the others: its files and its line in the journal.
    pub async fn search(
        &mut self,
        side: Side,
        pass: Pass,
        case: &Case,
        server: &server_start::Running,
        journal: &mut Journal,
    ) -> Result<()> {
        let plan = self.plan;
        let Some(search) = &plan.search else { return Ok(()) };
        let rate = case.request_rate.as_deref().unwrap_or_default();
        let folder = self.output.pass(side, pass);
        let path = folder.join(Summary::file(&case.test, rate));
        if !is_searched(plan, pass) || path.exists() {
            return Ok(());
        }
        let selection = Selection::read(self.environment, None)?;
        let mut listed = BTreeMap::new();
        for case in group(plan, case) {
            let met = self.is_met(search, side, pass, case, journal)?;
            listed.extend(case.max_concurrency.zip(met));
        }
        let mut probes = BTreeMap::new();
        while let Some(concurrency) = search.next(&listed, &probes) {
            let probe = concurrency_search::at(case, concurrency, &selection);
            if journal.find(side, pass, &probe.name).is_none() {
                self.progress.expect_more(1);
                self.measure(side, pass, &probe, Some(server), Some(&mut *journal)).await?;
            }
            probes.insert(concurrency, self.is_met(search, side, pass, &probe, journal)?.unwrap_or(false));
            if server.ended().await.is_some() {
                break;
            }
        }
        let summary = Summary::new(search, &case.test, rate, &listed, &probes);
        let text = serde_json::to_string_pretty(&summary).context("cannot write what a search found")?;
        output::write(&path, text.as_bytes()).world()
    }

    /// Whether a case is the last before a search that has not ended: an interrupted run measures it once more and searches.
    pub fn awaits_search(&self, side: Side, pass: Pass, case: &Case) -> bool {
        let rate = case.request_rate.as_deref().unwrap_or_default();
        let is_asked = self.plan.search.is_some() && case.server.is_some() && is_searched(self.plan, pass);
        is_asked
            && group(self.plan, case).last() == Some(case)
            && !self.output.pass(side, pass).join(Summary::file(&case.test, rate)).exists()
    }

    /// Whether a finished case met the targets; `None` where it did not run.
    fn is_met(&self, search: &Search, side: Side, pass: Pass, case: &Case, journal: &Journal) -> Result<Option<bool>> {
        let Some(entry) = journal.find(side, pass, &case.name) else { return Ok(None) };
        if entry.failed.is_some() {
            return Ok(Some(false));
        }
        let outcome = collect::outcome(&self.output.pass(side, pass), case.kind, &case.name)?;
        Ok(Some(search.is_met(&outcome)))
    }
}

/// The suite's cases of the same test and request rate.
fn group<'a>(plan: &'a Plan, case: &'a Case) -> impl Iterator<Item = &'a Case> {
    plan.cases.iter().filter(|other| other.is_same_test_and_rate(case))
}

/// Whether a pass is the one that searches: the first over everything.
fn is_searched(plan: &Plan, pass: Pass) -> bool {
    let first = if plan.strategy == Strategy::Screen { Phase::Screen } else { Phase::Pairs };
    pass == Pass { phase: first, pair: 1 }
}

/// What the searches of a run found, base and head, in the order of the plan.
pub fn found(plan: &Plan, output: &OutputFolder) -> Vec<(Side, Summary)> {
    let read = |path: &Path| serde_json::from_str::<Summary>(&std::fs::read_to_string(path).ok()?).ok();
    let mut found: Vec<(Side, Summary)> = Vec::new();
    if plan.search.is_none() {
        return found;
    }
    for phase in [Phase::Screen, Phase::Pairs] {
        let pass = Pass { phase, pair: 1 };
        for case in plan.cases.iter().filter(|_| is_searched(plan, pass)) {
            for (side, _) in plan.sides.present() {
                let file = Summary::file(&case.test, case.request_rate.as_deref().unwrap_or_default());
                let summary = read(&output.pass(side, pass).join(file)).map(|summary| (side, summary));
                // The cases of one test and rate share a search.
                found.extend(summary.filter(|summary| !found.contains(summary)));
            }
        }
    }
    found
}
