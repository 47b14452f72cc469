//! Sentences about the run: the machine, the load client, the phases and their times.

use indexmap::IndexMap;
use vllm_verdict::Untrusted;
use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::strategy::Phase;
use vllm_verdict::v1::{CaseFacts, Comparison, Conduct, ExpectedTime, Found, Host, PhaseTime, SideTime, TimeRange};

use super::number;
use crate::{duration, escape};

/// Largest number of serving cases that are named if `vllm bench` measured them.
const NAMED: usize = 5;

/// The machine, the client and the version of vllm-perf.
pub fn environment(comparison: &Comparison) -> Vec<Untrusted> {
    let version = format!("{}vllm-perf {}.", clients(comparison), escape::name(&comparison.subject.version));
    comparison
        .subject
        .host
        .iter()
        .map(host)
        .chain([version])
        .chain(times(&comparison.conduct))
        .chain(searches(&comparison.conduct))
        .map(Untrusted::from)
        .collect()
}

/// The largest concurrency within the latency targets, on each side.
fn searches(conduct: &Conduct) -> Vec<String> {
    let mut searches: IndexMap<(&Untrusted, &Untrusted), Vec<&Found>> = IndexMap::new();
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
    let sentence = |((test, rate), found): ((&Untrusted, &Untrusted), Vec<&Found>)| {
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

/// The phases with their times, and the time of each side by activity.
pub fn times(conduct: &Conduct) -> Vec<String> {
    let phase = |phase: &PhaseTime| {
        let (time, passes) = (duration::text_of_seconds(phase.seconds), number::plural(phase.passes as usize, "pass"));
        format!("{} {time} ({passes})", phase.phase.as_str())
    };
    let side = |side: &SideTime| {
        let parts = [
            ("measuring", side.measuring),
            ("server start", side.server_start),
            ("client start", side.client_start),
            ("other", side.other),
        ];
        let parts = parts.map(|(what, seconds)| format!("{what} {}", duration::text_of_seconds(seconds)));
        format!("Time on {}, without the warm-up: {}.", side.side.as_str(), parts.join(", "))
    };
    let phases: Vec<String> = conduct.phases.iter().map(phase).collect();
    let ran = (!phases.is_empty())
        .then(|| format!("Phases ({} strategy): {}.", conduct.strategy.as_str(), phases.join(", ")));
    let lines = ran.into_iter().chain(unscreened(conduct)).chain(conduct.spent.iter().map(side));
    lines.chain(expected(conduct)).collect()
}

/// The expected time beside the real one, and the devices' time of each side.
fn expected(conduct: &Conduct) -> Option<String> {
    let ExpectedTime { planned, warmed, devices } = conduct.expected.as_ref()?;
    let text = |range: &TimeRange| duration::range_of_seconds(range.least, range.most);
    let warmed = warmed.as_ref().map_or_else(String::new, |range| format!(", {} after the warm-up", text(range)));
    let took: f64 = conduct.phases.iter().map(|phase| phase.seconds).sum();
    let of_side = |side: &SideTime| {
        let seconds = side.measuring + side.server_start + side.client_start + side.other;
        format!("{} {:.2}", side.side.as_str(), seconds * f64::from(*devices) / 3600.0)
    };
    let hours: Vec<String> = conduct.spent.iter().map(of_side).collect();
    Some(format!(
        "Expected time: {} from the suite{warmed}; it took {}. Device hours without the warm-up: {}.",
        text(planned),
        duration::text_of_seconds(took),
        hours.join(", ")
    ))
}

/// The estimated time of a screened run without its screen, if every pass took as long as a screening pass.
fn unscreened(conduct: &Conduct) -> Option<String> {
    let phase = |wanted: Phase| conduct.phases.iter().find(|phase| phase.phase == wanted);
    let (screen, pairs) = (phase(Phase::Screen)?, phase(Phase::Pairs)?);
    let warm_up = phase(Phase::WarmUp).map_or(0.0, |warm_up| warm_up.seconds);
    let paired = warm_up + screen.seconds / f64::from(screen.passes.max(1)) * f64::from(pairs.passes);
    let took: f64 = conduct.phases.iter().map(|phase| phase.seconds).sum();
    Some(format!(
        "Total: {}; about {} without the screen.",
        duration::text_of_seconds(took),
        duration::text_of_seconds(paired)
    ))
}

/// The load clients. Where there are several, the serving cases that vLLM's clients measured are named, because clients are
/// not comparable.
fn clients(comparison: &Comparison) -> String {
    let by = |who: MeasuredBy| comparison.cases.iter().filter(move |case| case.measured_by == who);
    let used = [MeasuredBy::Native, MeasuredBy::Vllm, MeasuredBy::VllmRs].into_iter();
    let used: Vec<MeasuredBy> = used.filter(|who| by(*who).next().is_some()).collect();
    let parts: Vec<String> = match used.as_slice() {
        [] => return String::new(),
        [only] => vec![short(*only).to_owned()],
        several => several
            .iter()
            .map(|who| match who {
                MeasuredBy::Native => short(*who).to_owned(),
                _ => format!("{} for {}", short(*who), whom(by(*who))),
            })
            .collect(),
    };
    format!("Client: {}. ", parts.join("; "))
}

/// A client after the word `Client`.
fn short(client: MeasuredBy) -> &'static str {
    if client == MeasuredBy::Native { "native" } else { client.command() }
}

/// What one client measured: the kinds of tests without a server, and names of serving cases.
fn whom<'a>(cases: impl Iterator<Item = &'a CaseFacts>) -> String {
    let (serving, others): (Vec<_>, Vec<_>) = cases.partition(|case| case.kind == Kind::Serving);
    let mut whom = Vec::new();
    whom.extend((!others.is_empty()).then(|| "the other kinds of tests".to_owned()));
    whom.extend(serving.iter().take(NAMED).map(|case| escape::name(&case.name)));
    let more = serving.len().checked_sub(NAMED).filter(|more| *more > 0);
    whom.extend(more.map(|more| number::plural(more, "more serving case")));
    whom.join(", ")
}

/// The sentence about a machine.
pub(super) fn host(host: &Host) -> String {
    let mut parts = vec![
        escape::name(&host.cpu),
        number::plural(host.cores as usize, "logical processor"),
        number::plural(host.numa_nodes as usize, "NUMA node"),
        format!("{} GiB", number::value(host.memory_gib, 0)),
        format!("kernel {}", escape::name(&host.kernel)),
    ];
    parts.extend(host.governor.as_ref().map(|governor| format!("governor {}", escape::name(governor))));
    format!("Host: {}.", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn serving_cases_that_vllm_bench_measured_are_named() {
        let mut comparison = example::many(9);
        assert_eq!(clients(&comparison), "Client: native. ");
        comparison.cases[3].measured_by = MeasuredBy::Vllm;
        let one = "Client: native; vllm bench for serving_llama8B_tp1_test3_qps_inf_concurrency_64. ";
        assert_eq!(clients(&comparison), one);
        comparison.cases.iter_mut().skip(1).for_each(|case| case.measured_by = MeasuredBy::Vllm);
        assert!(clients(&comparison).ends_with("_test5_qps_inf_concurrency_64, 3 more serving cases. "));
        comparison.cases[0].measured_by = MeasuredBy::Vllm;
        assert_eq!(clients(&comparison), "Client: vllm bench. ");
        comparison.cases.iter_mut().for_each(|case| case.measured_by = MeasuredBy::VllmRs);
        assert_eq!(clients(&comparison), "Client: vLLM's Rust client. ");
        comparison.cases[0].measured_by = MeasuredBy::Vllm;
        assert!(clients(&comparison).starts_with("Client: vllm bench for "), "{}", clients(&comparison));
        assert!(clients(&comparison).contains("; vLLM's Rust client for "), "{}", clients(&comparison));
    }
}
