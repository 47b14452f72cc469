//! A pass with a record of its surroundings, repeated while other programs disturb it or make the client late.

use std::time::Instant;

use anyhow::{Context, Result};
use vllm_verdict::Untrusted;
use vllm_verdict::number::plural;
use vllm_verdict::v1::Host;

use super::pass::PassRun;
use super::{collect, search_run, server_cases};
use crate::exit::Classify;
use crate::plan::suite::Case;
use crate::run::fingerprint::{self, Conditions, Fingerprint, Surroundings};
use crate::run::journal::Void;
use crate::system::host::{self, temperature};
use crate::system::{output, probe};

/// How often a repetition is repeated because other programs were busy, or the client was late.
const REPEATS: usize = 2;

/// Measures the slices that are not finished yet, and all of them again where other programs were busy at the same time or the
/// client was late.
pub async fn measure(run: &mut PassRun<'_, '_>, cases: &[&Case]) -> Result<()> {
    loop {
        if cases.iter().all(|case| search_run::is_done(run.session, run.journal, run.side, run.pass, case)) {
            return Ok(());
        }
        let begun = Instant::now();
        let throttled = temperature::throttled();
        run.tally = Default::default();
        server_cases::measure(run, cases).await?;
        let surroundings = surroundings(run, throttled).await;
        let text = serde_json::to_string_pretty(&surroundings).context("cannot write an environment")?;
        output::write(&run.folder().join(collect::ENVIRONMENT), text.as_bytes()).world()?;
        let disturbed = surroundings.conditions.disturbed(run.session.limits.outside_load);
        let disturbed = disturbed.or_else(|| late(run.tally.distorted));
        let has_no_time = run.session.is_over_budget_after(begun.elapsed());
        let is_kept = disturbed.is_none() || repeats(run) >= REPEATS || has_no_time;
        run.account(begun, is_kept)?;
        let Some(why) = disturbed else { return Ok(()) };
        let (label, progress) = (run.label(), run.session.progress);
        if is_kept {
            let because = if has_no_time { "the budget has no time to repeat it" } else { "it was repeated twice" };
            let what = if run.tally.distorted > 0 { "it is kept without distorted metrics" } else { "it is kept" };
            progress.say(&format!("{label}: {why}; {what}, because {because}"));
            return Ok(());
        }
        progress.say(&format!("{label}: {why}; repeating it"));
        let voided = run.journal.of_pass(run.side, run.pass).count();
        run.journal.void(Void { phase: run.pass.phase, repetition: run.pass.pair, side: run.side, void: why })?;
        run.set_aside()?;
        progress.expect_more(voided as u64);
    }
}

/// Why a pass with distorted cases is measured again.
fn late(runs: u32) -> Option<String> {
    (runs > 0)
        .then(|| format!("the client was late and distorted primary metrics of {}", plural(runs as usize, "case run")))
}

/// How often the pass was voided before.
fn repeats(run: &PassRun<'_, '_>) -> usize {
    let key = (run.side, run.pass.phase, run.pass.pair);
    run.journal.voids().iter().filter(|void| (void.side, void.phase, void.repetition) == key).count()
}

/// What the pass was measured on, and under which conditions. `throttled` is the count of thermal slowdowns at its start.
async fn surroundings(run: &PassRun<'_, '_>, throttled: Option<u64>) -> Surroundings {
    let device = &run.session.plan.device;
    let accelerator = probe::accelerator_state(device.name, run.session.environment).await;
    let used = run.tally.processors;
    let warmest = [temperature::temperature(), accelerator.temperature].into_iter().flatten().reduce(f64::max);
    let conditions = Conditions {
        load_average: temperature::load_average(),
        outside_load: (used.capacity > 0.0).then(|| used.outside / used.capacity),
        watched_seconds: run.tally.watched,
        temperature: warmest,
        throttled: temperature::throttled().zip(throttled).map(|(now, before)| now.saturating_sub(before)),
        device_throttled: accelerator.throttled,
    };
    let facts = &run.side_run.facts;
    let raw = |text: Option<&Untrusted>| text.map(|text| text.raw().to_owned());
    let mut fingerprint = Fingerprint {
        device_type: device.device_type.clone(),
        device_count: device.count,
        driver: accelerator.driver,
        image_digest: raw(facts.image_digest.as_ref()),
        vllm_version: raw(facts.vllm_version.as_ref()),
        ..Fingerprint::default()
    };
    if let Ok(Host { cpu, cores, memory_gib, numa_nodes, kernel, governor }) = host::host() {
        let (cpu, kernel, governor) = (cpu.raw().to_owned(), kernel.raw().to_owned(), raw(governor.as_ref()));
        fingerprint = Fingerprint { cpu, cores, memory_gib, numa_nodes, kernel, governor, ..fingerprint };
    }
    Surroundings { schema: fingerprint::SCHEMA.to_owned(), fingerprint, conditions }
}
