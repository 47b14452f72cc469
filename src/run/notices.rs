//! What a reader of the report has to know about how a run was conducted: another base, repeated repetitions, and why
//! there is no verdict.

use indexmap::IndexMap;
use vllm_verdict::Untrusted;
use vllm_verdict::number::plural;
use vllm_verdict::strategy::{Phase, Strategy};
use vllm_verdict::v1::Conduct;

use super::recorded::Recorded;
use super::{collect, fingerprint};
use crate::plan::{Fallback, Plan};
use crate::run::journal::Journal;
use crate::system::output::OutputFolder;

/// Adds the notices of a finished run to its conduct, and why no row gets a verdict.
pub fn add(conduct: &mut Conduct, plan: &Plan, out: &OutputFolder, journal: &Journal, recorded: Option<&Recorded>) {
    let planned = plan.notices.iter().cloned().chain(plan.fallback.iter().map(fallen_back));
    conduct.notices.splice(0..0, planned.map(Untrusted::from));
    conduct.notices.extend(repeated(journal).map(Untrusted::from));
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
        let phase =
            if void.phase == Phase::Screen { "the screen".to_owned() } else { format!("{:02}", void.repetition) };
        *passes.entry(format!("{} {phase}", void.side.as_str())).or_default() += 1;
    }
    let why = &journal.voids().last()?.void;
    let named = |(pass, times): (&String, &usize)| format!("{pass} {}", if *times == 1 { "once" } else { "twice" });
    Some(match passes.len() {
        1..=3 => format!("Repeated: {}, because {why}.", passes.iter().map(named).collect::<Vec<_>>().join(", ")),
        many => format!("{many} repetitions were repeated, the last because {why}."),
    })
}
