//! What ran, on what, by which client, and where the time went, in sentences. Pure.

use indexmap::IndexMap;
use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::strategy::Phase;
use vllm_verdict::v1::{Comparison, Conduct, Found, Host, PhaseTime, SideTime};

use super::{escape, number};

/// Most serving cases that are named where the native client did not measure them.
const NAMED: usize = 5;

/// The machine, the client and the version of vllm-perf.
pub fn environment(comparison: &Comparison) -> Vec<String> {
    let version = format!("{}vllm-perf {}.", clients(comparison), escape::name(&comparison.subject.version));
    comparison
        .subject
        .host
        .iter()
        .map(host)
        .chain([version])
        .chain(what_ran(&comparison.conduct))
        .chain(searches(&comparison.conduct))
        .collect()
}

/// The largest concurrency within the latency targets, on each side.
fn searches(conduct: &Conduct) -> Vec<String> {
    let mut searches: IndexMap<(&str, &str), Vec<&Found>> = IndexMap::new();
    for found in &conduct.searches {
        searches.entry((&found.test, &found.request_rate)).or_default().push(found);
    }
    let side = |found: &&Found| {
        let largest = match (found.largest, found.first_fail) {
            (Some(largest), Some(_)) => largest.to_string(),
            (Some(largest), None) => format!("at least {largest}"),
            (None, _) => "none".to_owned(),
        };
        format!("{} {largest}", found.side.as_str())
    };
    let sentence = |((test, rate), found): ((&str, &str), Vec<&Found>)| {
        let (ttft, tpot) = found.first().map_or_else(Default::default, |found| (found.ttft_ms, found.tpot_ms));
        format!(
            "Largest concurrency of {} at request rate {} with TTFT up to {ttft} ms and TPOT up to {tpot} ms: {}.",
            escape::name(test),
            escape::name(rate),
            found.iter().map(side).collect::<Vec<_>>().join(", ")
        )
    };
    searches.into_iter().map(sentence).collect()
}

/// What ran and how long it took: the phases, and where the time of each side went.
pub fn what_ran(conduct: &Conduct) -> Vec<String> {
    let phase = |phase: &PhaseTime| {
        let passes = if phase.passes == 1 { "pass" } else { "passes" };
        format!("{} {} ({} {passes})", phase.phase.as_str(), number::duration(phase.seconds), phase.passes)
    };
    let side = |side: &SideTime| {
        let parts = [
            ("measuring", side.measuring),
            ("server start", side.server_start),
            ("client start", side.client_start),
            ("other", side.other),
        ];
        let parts = parts.map(|(what, seconds)| format!("{what} {}", number::duration(seconds)));
        format!("Time of {}, without the warm-up: {}.", side.side.as_str(), parts.join(", "))
    };
    let phases: Vec<String> = conduct.phases.iter().map(phase).collect();
    let ran = (!phases.is_empty()).then(|| format!("What ran ({}): {}.", conduct.strategy.as_str(), phases.join(", ")));
    ran.into_iter().chain(unscreened(conduct)).chain(conduct.spent.iter().map(side)).collect()
}

/// What a screened run would have taken without its screen: every pair as long as the screen's own passes.
fn unscreened(conduct: &Conduct) -> Option<String> {
    let phase = |wanted: Phase| conduct.phases.iter().find(|phase| phase.phase == wanted);
    let (screen, pairs) = (phase(Phase::Screen)?, phase(Phase::Pairs)?);
    let warm_up = phase(Phase::WarmUp).map_or(0.0, |warm_up| warm_up.seconds);
    let paired = warm_up + screen.seconds / f64::from(screen.passes.max(1)) * f64::from(pairs.passes);
    let took: f64 = conduct.phases.iter().map(|phase| phase.seconds).sum();
    Some(format!(
        "It took {}; without the screen, at the screen's pace, it would have taken about {}.",
        number::duration(took),
        number::duration(paired)
    ))
}

/// Who measured. Where a serving case was left to `vllm bench`, its name: its numbers are another client's than its
/// neighbours'.
fn clients(comparison: &Comparison) -> String {
    let by = |who: MeasuredBy| comparison.cases.iter().filter(move |case| case.measured_by == who);
    match (by(MeasuredBy::Native).next().is_some(), by(MeasuredBy::Vllm).next().is_some()) {
        (true, true) => {}
        (true, false) => return "Client: native. ".to_owned(),
        (false, true) => return "Client: vllm bench. ".to_owned(),
        (false, false) => return String::new(),
    }
    let left: Vec<String> =
        by(MeasuredBy::Vllm).filter(|case| case.kind == Kind::Serving).map(|case| escape::name(&case.name)).collect();
    let kinds = by(MeasuredBy::Vllm).any(|case| case.kind != Kind::Serving);
    let mut whom = Vec::new();
    whom.extend(kinds.then(|| "the kinds that it alone measures".to_owned()));
    whom.extend(left.iter().take(NAMED).cloned());
    whom.extend(
        left.len().checked_sub(NAMED).filter(|more| *more > 0).map(|more| number::plural(more, "more serving case")),
    );
    format!("Client: native; vllm bench for {}. ", whom.join(", "))
}

fn host(host: &Host) -> String {
    let mut parts = vec![
        escape::name(&host.cpu),
        number::plural(host.cores as usize, "logical processor"),
        number::plural(host.numa_nodes as usize, "NUMA node"),
        format!("{} GiB", number::value(host.memory_gib, 0)),
        format!("kernel {}", escape::name(&host.kernel)),
    ];
    parts.extend(host.governor.as_deref().map(|governor| format!("governor {}", escape::name(governor))));
    format!("Host: {}.", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn serving_cases_of_the_other_client_are_named() {
        let mut comparison = example::many(9);
        assert_eq!(clients(&comparison), "Client: native. ");
        comparison.cases[3].measured_by = MeasuredBy::Vllm;
        let one = "Client: native; vllm bench for serving_llama8B_tp1_test3_qps_inf_concurrency_64. ";
        assert_eq!(clients(&comparison), one);
        comparison.cases.iter_mut().skip(1).for_each(|case| case.measured_by = MeasuredBy::Vllm);
        assert!(clients(&comparison).ends_with("_test5_qps_inf_concurrency_64, 3 more serving cases. "));
        comparison.cases[0].measured_by = MeasuredBy::Vllm;
        assert_eq!(clients(&comparison), "Client: vllm bench. ");
    }
}
