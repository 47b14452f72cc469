//! What a run decides from its results so far: which cases a screen has repeated, and whether a look of `sequential` ends the
//! run.

use anyhow::Result;
use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::looks;
use vllm_verdict::metric;
use vllm_verdict::repetition::{Outcome, Repetition};
use vllm_verdict::side::Side;
use vllm_verdict::strategy;
use vllm_verdict::v1::{CaseFacts, Conduct, Look, Subject};

use super::collect;
use super::session::Session;
use crate::plan::Plan;
use crate::run::journal::Journal;

/// The cases with a suspicious primary row in the screen.
pub fn suspicious(session: &Session<'_>, journal: &Journal) -> Result<Vec<String>> {
    let plan = session.plan;
    let Some([base, head]) = collect::screen(plan, session.output, journal)? else { return Ok(Vec::new()) };
    let facts: Vec<CaseFacts> = plan.cases.iter().map(CaseFacts::from).collect();
    let value = |repetition: &Repetition, case: &str, metric: &str| match repetition.get(case) {
        Some(Outcome::Measured(measurement)) => measurement.metrics.get(metric).copied(),
        _ => None,
    };
    let is_suspicious = |case: &&CaseFacts| {
        let failed = [&base, &head].iter().any(|side| !matches!(side.get(case.name.raw()), Some(Outcome::Measured(_))));
        let values = |id: &str| [&base, &head].map(|side| value(side, case.name.raw(), id));
        let has = |id: &str| values(id).iter().any(Option::is_some);
        let primary = session.verdict.primary_of(case, has);
        let mut metrics = metric::of(case.kind).filter(|metric| primary.contains(&metric.id));
        failed
            || metrics.any(|metric| {
                let [base, head] = values(metric.id);
                let noise = session.noise.of_screen(case, metric.id, &facts);
                let least = session.verdict.min_effect(metric);
                // A metric that neither side has has no row.
                has(metric.id) && strategy::suspicious(base, head, noise, least)
            })
    };
    Ok(facts.iter().filter(is_suspicious).map(|case| case.name.raw().to_owned()).collect())
}

/// Why a sequential run ends after the pairs so far, if it does.
pub fn end(session: &Session<'_>, journal: &Journal, conduct: &Conduct) -> Result<Option<looks::End>> {
    let plan = session.plan;
    let input = vllm_verdict::Input {
        subject: Subject::default(),
        cases: plan.cases.iter().map(CaseFacts::from).collect(),
        base: collect::repetitions(plan, session.output, journal, Side::Base)?,
        head: collect::repetitions(plan, session.output, journal, Side::Head)?,
        skipped: Vec::new(),
        planned_pairs: plan.pairs,
        seed: plan.seed,
        verdict: session.verdict.clone(),
        noise: session.noise.clone(),
        looks: looks(plan, session.verdict),
    };
    Ok(looks::ends(&vllm_verdict::conducted(input, conduct.clone(), None)))
}

/// The analyses of a plan.
pub fn looks(plan: &Plan, verdict: &VerdictConfig) -> Vec<Look> {
    looks::looks(plan.strategy, plan.pairs, verdict.fdr)
}
