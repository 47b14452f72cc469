//! What a reader of the report has to know about how a run was conducted: another base, repeated repetitions, and why
//! there is no verdict.

use indexmap::IndexMap;
use vllm_verdict::Untrusted;
use vllm_verdict::number::plural;
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Pass, Phase, Strategy};
use vllm_verdict::v1::Conduct;

use super::recorded::Recorded;
use super::session::Session;
use super::{collect, fingerprint};
use crate::plan::{Fallback, Plan};
use crate::run::journal::Journal;
use crate::system::output::OutputFolder;

/// Adds the notices of a finished run to its conduct, and why no row gets a verdict.
pub fn add(conduct: &mut Conduct, session: &Session<'_>, journal: &Journal, recorded: Option<&Recorded>) {
    let Session { plan, output: out, limits, .. } = *session;
    let planned = plan.notices.iter().cloned().chain(plan.fallback.iter().map(fallen_back));
    conduct.notices.splice(0..0, planned.map(Untrusted::from));
    conduct.notices.extend(repeated(journal).map(Untrusted::from));
    conduct.notices.extend(kept(&disturbed(plan, out, journal, limits.outside_load)).map(Untrusted::from));
    conduct.held = held(plan, out, journal, recorded).map(Untrusted::from);
}

/// Why no row gets a verdict: the sides were measured in different environments or at different times, or the strategy
/// gives none.
fn held(plan: &Plan, out: &OutputFolder, journal: &Journal, recorded: Option<&Recorded>) -> Option<String> {
    let mut fingerprints: Vec<_> = recorded.into_iter().flat_map(Recorded::fingerprints).collect();
    for (side, _) in plan.sides.present() {
        for pass in collect::passes(journal, side) {
            let fingerprint = collect::fingerprint(&out.pass(side, pass));
            fingerprints.extend(fingerprint.map(|fingerprint| (side, pass.pair, fingerprint)));
        }
    }
    match fingerprint::mismatch(&fingerprints) {
        Some(mismatch) => Some(mismatch),
        None if recorded.is_some() => Some("base was measured at another time than head, not in pairs".to_owned()),
        None if plan.strategy == Strategy::Single && plan.sides.base.is_some() => {
            Some("the strategy is `single`, which gives no verdict".to_owned())
        }
        None => None,
    }
}

/// A base other than the requested one.
fn fallen_back(fallback: &Fallback) -> String {
    let Fallback { wanted, used, behind } = fallback;
    format!("Base is {used}, {} before {wanted}, whose image is missing.", plural(*behind as usize, "commit"))
}

/// Which repetitions were repeated and why; of more than three, how many.
fn repeated(journal: &Journal) -> Option<String> {
    let mut passes: IndexMap<String, usize> = IndexMap::new();
    for void in journal.voids() {
        *passes.entry(name(void.side, void.phase, void.repetition)).or_default() += 1;
    }
    let why = &journal.voids().last()?.void;
    let named = |(pass, times): (&String, &usize)| format!("{pass} {}", if *times == 1 { "once" } else { "twice" });
    Some(match passes.len() {
        1..=3 => format!("Repeated: {}, because {why}.", passes.iter().map(named).collect::<Vec<_>>().join(", ")),
        many => format!("{many} repetitions were repeated, the last because {why}."),
    })
}

/// The repetitions that count although other programs disturbed them, each with why.
fn disturbed(plan: &Plan, out: &OutputFolder, journal: &Journal, limit: f64) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (side, _) in plan.sides.present() {
        let mut passes = collect::passes(journal, side);
        if journal.entries().iter().any(|entry| entry.phase == Phase::Screen) {
            passes.insert(0, Pass { phase: Phase::Screen, pair: 1 });
        }
        for pass in passes {
            let why = collect::conditions(&out.pass(side, pass)).and_then(|conditions| conditions.disturbed(limit));
            found.extend(why.map(|why| (name(side, pass.phase, pass.pair), why)));
        }
    }
    found
}

/// Which repetitions were kept although they were disturbed; of more than three, how many.
fn kept(disturbed: &[(String, String)]) -> Option<String> {
    let (_, why) = disturbed.last()?;
    let names: Vec<&str> = disturbed.iter().map(|(name, _)| name.as_str()).collect();
    Some(match names.len() {
        1 => format!("Kept although it was disturbed: {}, because {why}.", names[0]),
        2..=3 => format!("Kept although they were disturbed: {}; of the last, {why}.", names.join(", ")),
        many => format!("{many} repetitions were kept although they were disturbed; of the last, {why}."),
    })
}

fn name(side: Side, phase: Phase, pair: u32) -> String {
    let of = if phase == Phase::Screen { "the screen".to_owned() } else { format!("{pair:02}") };
    format!("{} {of}", side.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disturbed(names: &[&str]) -> Vec<(String, String)> {
        let why = "other programs used 31 % of the processors, more than the limit of 20 %";
        names.iter().map(|name| ((*name).to_owned(), why.to_owned())).collect()
    }

    #[test]
    fn what_was_kept_although_it_was_disturbed_is_said() {
        let said = |names: &[&str]| kept(&disturbed(names)).unwrap_or_default();
        insta::assert_snapshot!(said(&["head 02"]), @"Kept although it was disturbed: head 02, because other programs used 31 % of the processors, more than the limit of 20 %.");
        insta::assert_snapshot!(said(&["base 01", "head the screen"]), @"Kept although they were disturbed: base 01, head the screen; of the last, other programs used 31 % of the processors, more than the limit of 20 %.");
        insta::assert_snapshot!(said(&["base 01", "base 02", "head 01", "head 02"]), @"4 repetitions were kept although they were disturbed; of the last, other programs used 31 % of the processors, more than the limit of 20 %.");
        assert_eq!(said(&[]), "");
    }
}
