//! The findings of a comparison, in order: regressed rows, worst first; cases that were not measured; improved rows, best
//! first.

use std::collections::HashMap;

use vllm_verdict::Untrusted;
use vllm_verdict::side::Side;
use vllm_verdict::v1::{CaseFacts, Comparison, Row, Verdict};

/// One line of the table of findings.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding<'a> {
    /// A row that regressed or improved.
    Changed(&'a Row),
    /// The rows of one case that have no value on a side.
    Unmeasured(Unmeasured<'a>),
}

/// The rows of one case that could not be compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Unmeasured<'a> {
    pub case: &'a Untrusted,
    /// `all`, or the labels of the metrics.
    pub metrics: Untrusted,
    /// Whether base has no value.
    pub base: bool,
    /// Whether head has no value.
    pub head: bool,
    /// The reason, as reported by the run.
    pub reason: &'a Untrusted,
}

/// The findings of a comparison, the most important first.
pub fn findings(comparison: &Comparison) -> Vec<Finding<'_>> {
    let changed = |verdict: Verdict| {
        let mut rows: Vec<&Row> = primary(comparison).filter(|row| row.verdict == verdict).collect();
        rows.sort_by(|a, b| severity(b).total_cmp(&severity(a)));
        rows.into_iter().map(Finding::Changed)
    };
    let unmeasured = unmeasured(comparison).into_iter().map(Finding::Unmeasured);
    changed(Verdict::Regressed).chain(unmeasured).chain(changed(Verdict::Improved)).collect()
}

/// The rows that count in the verdict.
pub fn primary(comparison: &Comparison) -> impl Iterator<Item = &Row> {
    comparison.rows.iter().filter(|row| row.primary)
}

/// The change of a row in multiples of its minimum effect, so that different metrics are comparable.
fn severity(row: &Row) -> f64 {
    row.estimate.unwrap_or(0.0).abs() / row.min_effect.max(1e-6)
}

fn unmeasured(comparison: &Comparison) -> Vec<Unmeasured<'_>> {
    let rows: Vec<&Row> = primary(comparison).collect();
    let cases: HashMap<&Untrusted, &CaseFacts> = comparison.cases.iter().map(|case| (&case.name, case)).collect();
    rows.chunk_by(|a, b| a.case == b.case).filter_map(|rows| of_case(&cases, rows)).collect()
}

fn of_case<'a>(cases: &HashMap<&Untrusted, &'a CaseFacts>, rows: &[&'a Row]) -> Option<Unmeasured<'a>> {
    let missing: Vec<&Row> = rows.iter().copied().filter(|row| row.verdict == Verdict::NotMeasured).collect();
    let first = *missing.first()?;
    let lost = |side: Side| match side {
        Side::Base => missing.iter().all(|row| row.base.is_empty()),
        Side::Head => missing.iter().all(|row| row.head.is_empty()),
    };
    let problem = cases.get(&first.case).and_then(|case| case.problems.iter().find(|problem| lost(problem.side)));
    let labels: Vec<&str> = missing.iter().map(|row| row.label.raw()).collect();
    Some(Unmeasured {
        case: &first.case,
        metrics: if missing.len() == rows.len() { "all".into() } else { labels.join(", ").into() },
        base: lost(Side::Base),
        head: lost(Side::Head),
        reason: problem.map_or(&first.why, |problem| &problem.reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn the_worst_is_first_and_a_case_without_values_is_one_line() {
        let comparison = example::comparison();
        let lines: Vec<String> = findings(&comparison)
            .iter()
            .map(|finding| match finding {
                Finding::Changed(row) => format!("{:?} {} {}", row.verdict, row.case.raw(), row.metric.raw()),
                Finding::Unmeasured(none) => {
                    format!("{} of {}: {}", none.metrics.raw(), none.case.raw(), none.reason.raw())
                }
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        Regressed serving_llama8B_tp1_random_128_2048_qps_inf_concurrency_64 output_throughput
        Regressed serving_llama8B_tp1_random_128_2048_qps_inf_concurrency_64 p99_ttft_ms
        all of serving_llama8B_tp2_sharegpt_qps_inf_concurrency_200: server did not start: exit status 1 after 41 s
        Improved throughput_llama8B_tp1 tokens_per_second
        ");
    }
}
