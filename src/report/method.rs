//! How the verdicts were reached, in sentences.

use vllm_verdict::number;
use vllm_verdict::strategy::{self, Pass, Phase, Strategy};
use vllm_verdict::v1::{Comparison, Row};

use super::wording::{has_fresh_servers, pairs, was_run};
use super::{finding, slice_method};

/// The method of the verdicts.
pub fn method(comparison: &Comparison) -> Vec<String> {
    let method = &comparison.method;
    let rows = number::plural(finding::primary(comparison).count(), "primary row");
    let overall = comparison.overall.len();
    let family = match overall {
        0 => format!("{rows} (Benjamini-Hochberg)"),
        _ => format!(
            "{rows} and {} (Benjamini-Hochberg; half of it is that of the overall rows)",
            number::plural(overall, "overall row")
        ),
    };
    let mut sentences = vec![
        format!("False discovery rate {} over {family}.", number::percent(method.fdr)),
        "A row is regressed or improved if its change is significant after this correction and at least the minimum effect.".to_owned(),
    ];
    if method.strategy == Strategy::Single || method.pairs == 0 {
        return sentences;
    }
    sentences.push(format!(
        "Hodges-Lehmann estimates over {}{}.",
        pairs(comparison, method.pairs),
        arranged(comparison)
    ));
    sentences.extend(slice_method::sentences(comparison));
    sentences.extend(looks(comparison));
    sentences.extend(blocked(comparison));
    sentences
        .push("Base and head are shown around the geometric mean of both, apart by the estimated change.".to_owned());
    sentences.extend(Some(calibration(comparison)).filter(|words| !words.is_empty()));
    sentences
}

/// The order inside the pairs and the servers, where they are known.
fn arranged(comparison: &Comparison) -> String {
    let method = &comparison.method;
    let [first, _] = strategy::order(method.seed, Pass { phase: Phase::Pairs, pair: 1 });
    let order = match was_run(comparison) {
        true => format!(", order alternating, {} first (seed {})", first.as_str(), method.seed),
        false => String::new(),
    };
    let fresh = if has_fresh_servers(comparison) { ", a fresh server for every repetition" } else { "" };
    format!("{order}{fresh}")
}

/// The looks of a sequential run.
fn looks(comparison: &Comparison) -> Option<String> {
    let method = &comparison.method;
    let last = method.looks.last().filter(|_| method.strategy == Strategy::Sequential)?;
    let after: Vec<String> = method.looks.iter().map(|look| look.pairs.to_string()).collect();
    Some(format!(
        "Sequential: looks after {} of at most {}; the verdicts are those of the last one, at a false discovery rate of {}.",
        after.join(", "),
        pairs(comparison, method.planned_pairs),
        number::percent(last.fdr),
    ))
}

/// Whether differences inside pairs were tested.
fn blocked(comparison: &Comparison) -> Option<String> {
    let ratio = format!("{:.2}", comparison.method.ratio?);
    Some(match comparison.method.blocked {
        true => {
            format!("Blocked: differences inside pairs are tested, whose variance is {ratio} of that inside sides.")
        }
        false => format!("Not blocked: the variance inside pairs is {ratio} of that inside sides."),
    })
}

/// The source of the noise estimate of a row, as the end of a sentence; empty if the row was not tested.
pub fn noise(row: &Row) -> String {
    let from = match (row.calibrated, row.s0) {
        _ if row.p.is_none() => return String::new(),
        (true, _) => format!("calibrated with {}", number::plural(row.aa_pairs, "A/A pair")),
        (false, Some(_)) => "not calibrated: its noise is drawn to that of its metric".to_owned(),
        (false, None) => "not calibrated: noise of its own repetitions".to_owned(),
    };
    format!("; {from}")
}

/// The source of the noise estimates of the primary rows.
fn calibration(comparison: &Comparison) -> String {
    let tested: Vec<&Row> = finding::primary(comparison).filter(|row| row.p.is_some()).collect();
    let (calibrated, others): (Vec<&Row>, Vec<&Row>) = tested.iter().partition(|row| row.calibrated);
    let drawn = others.iter().filter(|row| row.s0.is_some()).count();
    let pairs = calibrated.iter().map(|row| row.aa_pairs).min().unwrap_or_default();
    let kinds = [
        (calibrated.len(), format!("calibrated with at least {} each", number::plural(pairs, "A/A pair"))),
        (drawn, "not calibrated, noise drawn to that of their metric".to_owned()),
        (others.len() - drawn, "not calibrated, noise of their own repetitions".to_owned()),
    ];
    let of = |(rows, words): &(usize, String)| match *rows == tested.len() {
        true => format!("all rows {words}"),
        false => format!("{} {words}", number::plural(*rows, "row")),
    };
    let parts: Vec<String> = kinds.iter().filter(|(rows, _)| *rows > 0).map(of).collect();
    if parts.is_empty() { String::new() } else { format!("Noise: {}.", parts.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn servers_and_order_are_only_stated_if_known() {
        let mut comparison = example::comparison();
        let sentence = |comparison: &Comparison| method(comparison)[2].clone();
        let start = "Hodges-Lehmann estimates over 5";
        let order = "order alternating, base first (seed 20261124)";
        let known = format!("{start} interleaved pairs, {order}, a fresh server for every repetition.");
        assert_eq!(sentence(&comparison), known);
        comparison.subject.base.as_mut().unwrap().target = "remote:http://127.0.0.1:8000/".into();
        assert_eq!(sentence(&comparison), format!("{start} interleaved pairs, {order}."));
        comparison.subject.started = None;
        assert_eq!(sentence(&comparison), format!("{start} pairs."));
    }
}
