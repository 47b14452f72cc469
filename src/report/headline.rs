//! The headline of a report: the verdict, what changed over all cases, and how many rows have which verdict.

use std::collections::HashSet;

use indexmap::IndexMap;
use vllm_verdict::case::Kind;
use vllm_verdict::v1::{Comparison, Counts, OverallRow, Row, Verdict};
use vllm_verdict::{Untrusted, number};

use super::{finding, one_side};
use crate::escape;

/// Most overall rows of a verdict in a headline.
const MOST_OVERALL: usize = 3;

/// `regressed. All 12 serving cases: output throughput −13.0 % (−17.0 … −9.0). 1 case fails on head, 4 rows regressed, ...`
pub fn headline(comparison: &Comparison) -> Untrusted {
    if one_side::is_alone(comparison) {
        return "values of head alone".into();
    }
    let overall = overall(comparison).map(|words| format!("{words}. ")).unwrap_or_default();
    let verdict = comparison.verdict.as_str();
    let lead = if overall.is_empty() { format!("{verdict}: ") } else { format!("{verdict}. {overall}") };
    format!("{lead}{}", verdicts(comparison)).into()
}

/// The overall rows that changed: `All 12 serving cases: output throughput −13.0 % (...); improved: P99 TPOT −22.1 % (...)`.
fn overall(comparison: &Comparison) -> Option<String> {
    let mut kinds: IndexMap<(Kind, usize), [Vec<&OverallRow>; 2]> = IndexMap::new();
    for (at, verdict) in [Verdict::Regressed, Verdict::Improved].into_iter().enumerate() {
        for row in comparison.overall.iter().filter(|row| row.verdict == verdict) {
            kinds.entry((row.kind, row.cases)).or_default()[at].push(row);
        }
    }
    let words = |((kind, cases), [regressed, improved]): (&(Kind, usize), &[Vec<&OverallRow>; 2])| {
        let improved = changes(improved).map(|words| format!("improved: {words}"));
        let parts: Vec<String> = changes(regressed).into_iter().chain(improved).collect();
        format!("All {cases} {} cases: {}", kind.as_str(), parts.join("; "))
    };
    let parts: Vec<String> = kinds.iter().map(words).collect();
    (!parts.is_empty()).then(|| parts.join(". "))
}

/// `output throughput −13.0 % (−17.0 … −9.0), and 4 more`; none without rows.
fn changes(rows: &[&OverallRow]) -> Option<String> {
    let change = |row: &&OverallRow| {
        let (label, interval) = (in_sentence(&row.label), number::interval(row.low, row.high));
        format!("{label} {} ({interval})", number::change(row.estimate))
    };
    let mut words: Vec<String> = rows.iter().take(MOST_OVERALL).map(change).collect();
    if rows.len() > MOST_OVERALL {
        words.push(format!("and {} more", rows.len() - MOST_OVERALL));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

/// A label of a metric inside a sentence: `output throughput`, `P99 TTFT`.
fn in_sentence(label: &Untrusted) -> String {
    let label = escape::name(label);
    let mut letters = label.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain([second]).chain(letters).collect()
        }
        _ => label,
    }
}

/// `1 case fails on head, 2 rows regressed, 1 improved, 41 unchanged`.
pub fn verdicts(comparison: &Comparison) -> String {
    let mut words: Vec<String> = Vec::new();
    for (number, which) in counts(comparison) {
        // The first number of rows says that it is one.
        let is_first_of_rows = !which.contains("fail") && words.iter().all(|word| word.contains("fail"));
        let number = if is_first_of_rows { number::plural(number, "row") } else { number::count(number) };
        words.push(format!("{number} {which}"));
    }
    words.extend(failed_runs(comparison));
    if words.is_empty() { "no rows compared".to_owned() } else { words.join(", ") }
}

/// The numbers of cases that fail and of rows by verdict, with their words, in the order of headlines, without those that did not
/// occur.
pub fn counts(comparison: &Comparison) -> Vec<(usize, &'static str)> {
    let Counts { regressed, improved, unchanged, inconclusive, screened, not_measured, .. } = comparison.counts;
    let failing: HashSet<&Untrusted> =
        finding::primary(comparison).filter(|row| row.verdict == Verdict::Failing).map(|row| &row.case).collect();
    let all = [
        (failing.len(), if failing.len() == 1 { "case fails on head" } else { "cases fail on head" }),
        (regressed, Verdict::Regressed.as_str()),
        (improved, Verdict::Improved.as_str()),
        (not_measured, Verdict::NotMeasured.as_str()),
        (unchanged, Verdict::Unchanged.as_str()),
        (inconclusive, Verdict::Inconclusive.as_str()),
        (screened, "not repeated (screening saw no change)"),
    ];
    all.into_iter().filter(|(number, _)| *number > 0).collect()
}

/// `3 of 10 runs of head failed (base: 0)`: over all cases, where head failed at all.
fn failed_runs(comparison: &Comparison) -> Option<String> {
    let rows: Vec<&Row> = finding::primary(comparison).collect();
    let first_of_cases = rows.chunk_by(|a, b| a.case == b.case).filter_map(|rows| rows.first());
    let (mut base, mut head, mut all) = (0, 0, 0);
    for row in first_of_cases {
        (base, head, all) = (base + row.failed.base, head + row.failed.head, all + row.head.len());
    }
    (head > 0)
        .then(|| format!("{} of {} of head failed (base: {base})", number::count(head), number::plural(all, "run")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn the_headline_begins_with_the_verdict_and_the_overall_rows() {
        let mut comparison = example::comparison();
        insta::assert_snapshot!(headline(&comparison).raw(), @"regressed: 1 case fails on head, 2 rows regressed, 1 improved, 30 unchanged, 1 inconclusive, 6 of 50 runs of head failed (base: 0)");
        comparison.overall = vec![
            example::overall("output_throughput", -0.13, Verdict::Regressed),
            example::overall("p99_ttft_ms", 0.2, Verdict::Regressed),
            example::overall("median_tpot_ms", 0.01, Verdict::Unchanged),
            example::overall("p99_tpot_ms", -0.22, Verdict::Improved),
        ];
        insta::assert_snapshot!(headline(&comparison).raw(), @"regressed. All 12 serving cases: output throughput −13.0 % (−17.0 … −9.0), P99 TTFT +20.0 % (+16.0 … +24.0); improved: P99 TPOT −22.0 % (−26.0 … −18.0). 1 case fails on head, 2 rows regressed, 1 improved, 30 unchanged, 1 inconclusive, 6 of 50 runs of head failed (base: 0)");
        comparison.rows.clear();
        comparison.overall.clear();
        comparison.counts = Counts::default();
        assert_eq!(verdicts(&comparison), "no rows compared");
    }

    #[test]
    fn failed_runs_of_head_are_counted() {
        let mut comparison = example::comparison();
        for row in &mut comparison.rows {
            row.failed.head = 1;
        }
        insta::assert_snapshot!(verdicts(&comparison), @"1 case fails on head, 2 rows regressed, 1 improved, 30 unchanged, 1 inconclusive, 10 of 50 runs of head failed (base: 0)");
    }
}
