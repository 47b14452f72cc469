//! The findings of a comparison, one line a cause, in order: cases that head fails, overall rows and rows that regressed, worst
//! first; cases that were not measured; overall rows and rows that improved, best first. Rows of one model and metric with the
//! same verdict are one finding.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use vllm_verdict::side::Side;
use vllm_verdict::v1::{CaseFacts, Comparison, OverallRow, Row, Verdict};
use vllm_verdict::{Untrusted, number};

use super::label::Labels;

/// One line of the table of findings.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding<'a> {
    pub verdict: Verdict,
    /// The cases.
    pub subject: Untrusted,
    /// The metric; `all`, or the metrics without a value, for cases that have none.
    pub metric: Untrusted,
    pub detail: Detail<'a>,
}

/// What is known of a finding.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail<'a> {
    Overall(&'a OverallRow),
    /// The rows that changed, the worst one first.
    Changed(Vec<&'a Row>),
    /// Cases without values, or that fail: the first of them, and why.
    Lost {
        case: &'a Untrusted,
        reason: Untrusted,
    },
}

impl Finding<'_> {
    /// `+9.0 … +31.0 %`: the change, or the range of the changes.
    pub fn change(&self) -> Option<String> {
        let (least, most) = match &self.detail {
            Detail::Overall(row) => (row.estimate, row.estimate),
            Detail::Changed(rows) => range(rows.iter().filter_map(|row| row.estimate))?,
            Detail::Lost { .. } => return None,
        };
        match number::change(least) == number::change(most) {
            true => Some(number::change(least)),
            false => Some(format!("{} %", number::interval(least, most))),
        }
    }

    /// The 95 % interval of the change, or the range of the intervals.
    pub fn interval(&self) -> Option<String> {
        let (low, high) = match &self.detail {
            Detail::Overall(row) => (row.low, row.high),
            Detail::Changed(rows) => {
                let low = range(rows.iter().filter_map(|row| row.low))?.0;
                (low, range(rows.iter().filter_map(|row| row.high))?.1)
            }
            Detail::Lost { .. } => return None,
        };
        Some(number::interval(low, high))
    }

    /// The values of base and head, of a finding of one row.
    pub fn values(&self) -> [Untrusted; 2] {
        match &self.detail {
            Detail::Changed(rows) if rows.len() == 1 => super::values(rows[0]),
            _ => Default::default(),
        }
    }

    /// The first case of the finding.
    pub fn case(&self) -> Option<&Untrusted> {
        match &self.detail {
            Detail::Overall(_) => None,
            Detail::Changed(rows) => rows.first().map(|row| &row.case),
            Detail::Lost { case, .. } => Some(case),
        }
    }

    /// The reason of the verdict.
    pub fn reason(&self) -> Untrusted {
        match &self.detail {
            Detail::Overall(row) => row.why.clone(),
            Detail::Changed(rows) => rows.first().map(|row| row.why.clone()).unwrap_or_default(),
            Detail::Lost { reason, .. } => reason.clone(),
        }
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((least, most)) => Some((f64::min(least, value), f64::max(most, value))),
    })
}

/// The findings of a comparison, the most important first.
pub fn findings<'a>(comparison: &'a Comparison, labels: &Labels<'_>) -> Vec<Finding<'a>> {
    let lost = |verdict: Verdict| lost(comparison, labels, verdict);
    let changed = |verdict: Verdict| {
        let mut overall: Vec<&OverallRow> = comparison.overall.iter().filter(|row| row.verdict == verdict).collect();
        overall.sort_by(|a, b| severity(b.estimate, b.min_effect).total_cmp(&severity(a.estimate, a.min_effect)));
        let overall = overall.into_iter().map(of_overall);
        overall.chain(groups(comparison, labels, verdict)).collect::<Vec<_>>()
    };
    [lost(Verdict::Failing), changed(Verdict::Regressed), lost(Verdict::NotMeasured), changed(Verdict::Improved)]
        .concat()
}

fn of_overall(row: &OverallRow) -> Finding<'_> {
    let subject = format!("All {} {} cases", row.cases, row.kind.as_str());
    Finding { verdict: row.verdict, subject: subject.into(), metric: row.label.clone(), detail: Detail::Overall(row) }
}

/// The rows that count in the verdict.
pub fn primary(comparison: &Comparison) -> impl Iterator<Item = &Row> {
    comparison.rows.iter().filter(|row| row.primary)
}

/// Primary rows with a verdict, the greatest change first.
pub fn worst_first(comparison: &Comparison, verdict: Verdict) -> Vec<&Row> {
    let mut rows: Vec<&Row> = primary(comparison).filter(|row| row.verdict == verdict).collect();
    let of = |row: &Row| severity(row.estimate.unwrap_or_default(), row.min_effect);
    rows.sort_by(|a, b| of(b).total_cmp(&of(a)));
    rows
}

/// A change in multiples of its minimum effect, both as logarithms, so that metrics and directions are comparable.
fn severity(estimate: f64, min_effect: f64) -> f64 {
    estimate.max(-0.999_999_999).ln_1p().abs() / min_effect.max(1e-6).ln_1p()
}

/// The changed rows by model and metric, in the order of the worst of each.
fn groups<'a>(comparison: &'a Comparison, labels: &Labels<'_>, verdict: Verdict) -> Vec<Finding<'a>> {
    let mut groups: IndexMap<(String, &Untrusted), Vec<&Row>> = IndexMap::new();
    for row in worst_first(comparison, verdict) {
        groups.entry((labels.of(&row.case).model().to_owned(), &row.metric)).or_default().push(row);
    }
    let said = said_by_overall_rows(comparison, verdict);
    groups.retain(|(_, metric), _| !said.contains(metric));
    let order = places(comparison);
    let finding = |rows: Vec<&'a Row>| {
        let mut cases: Vec<&Untrusted> = rows.iter().map(|row| &row.case).collect();
        cases.sort_by_key(|case| order.get(case).copied());
        let metric = rows.first().map(|row| row.label.clone()).unwrap_or_default();
        Finding { verdict, subject: labels.of_all(&cases), metric, detail: Detail::Changed(rows) }
    };
    groups.into_values().map(finding).collect()
}

/// The metrics that changed in every case and over all cases: their overall row says it already.
fn said_by_overall_rows(comparison: &Comparison, verdict: Verdict) -> HashSet<&Untrusted> {
    let of_all_cases = |row: &&OverallRow| {
        let changed = primary(comparison).filter(|one| one.verdict == verdict && one.metric == row.metric).count();
        row.verdict == verdict && row.cases == changed
    };
    comparison.overall.iter().filter(of_all_cases).map(|row| &row.metric).collect()
}

/// The place of every case in the plan.
fn places(comparison: &Comparison) -> HashMap<&Untrusted, usize> {
    comparison.cases.iter().enumerate().map(|(at, case)| (&case.name, at)).collect()
}

/// The cases with this verdict on rows without a value, or on all rows; those with one reason are one finding.
fn lost<'a>(comparison: &'a Comparison, labels: &Labels<'_>, verdict: Verdict) -> Vec<Finding<'a>> {
    let rows: Vec<&Row> = primary(comparison).collect();
    let facts: HashMap<&Untrusted, &CaseFacts> = comparison.cases.iter().map(|case| (&case.name, case)).collect();
    let mut groups: IndexMap<(String, Untrusted), Vec<&Untrusted>> = IndexMap::new();
    for rows in rows.chunk_by(|a, b| a.case == b.case) {
        let lost: Vec<&Row> = rows.iter().copied().filter(|row| row.verdict == verdict).collect();
        let Some(first) = lost.first() else { continue };
        let names: Vec<&str> = lost.iter().map(|row| row.label.raw()).collect();
        let metrics = if lost.len() == rows.len() { "all".to_owned() } else { names.join(", ") };
        let reason = match verdict {
            Verdict::Failing => first.why.raw().to_owned(),
            _ => reason(facts.get(&first.case).copied(), &lost),
        };
        groups.entry((metrics, reason.into())).or_default().push(&first.case);
    }
    let finding = |((metrics, reason), cases): ((String, Untrusted), Vec<&'a Untrusted>)| Finding {
        verdict,
        subject: labels.of_all(&cases),
        metric: metrics.into(),
        detail: Detail::Lost { case: cases[0], reason },
    };
    groups.into_iter().map(finding).collect()
}

/// Which side has no value, and why, as the run reported it.
fn reason(case: Option<&CaseFacts>, rows: &[&Row]) -> String {
    let lacks = |side: Side| rows.iter().all(|row| row.lacks(side));
    let problem = case.and_then(|case| case.problems.iter().find(|problem| lacks(problem.side)));
    match (problem, lacks(Side::Base), lacks(Side::Head)) {
        (Some(problem), true, true) => format!("base and head: {}", problem.reason.raw()),
        (Some(problem), ..) => format!("{}: {}", problem.side.as_str(), problem.reason.raw()),
        (None, ..) => rows.first().map(|row| row.why.raw().to_owned()).unwrap_or_default(),
    }
}

/// The findings, as lines of `verdict subject metric change`, for tests.
#[cfg(test)]
pub fn listed(comparison: &Comparison) -> String {
    let labels = Labels::new(&comparison.cases);
    let line = |finding: &Finding<'_>| {
        let change = finding.change().unwrap_or_else(|| finding.reason().raw().to_owned());
        format!("{} | {} | {} | {change}", finding.verdict.as_str(), finding.subject.raw(), finding.metric.raw())
    };
    findings(comparison, &labels).iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn the_worst_is_first_and_a_case_without_values_is_one_line() {
        insta::assert_snapshot!(listed(&example::comparison()), @"
        failing | llama8B tp2, sharegpt, c=200 | all | head failed in 5 of 5 repetitions, base in none: out of memory
        regressed | llama8B tp1, random 128/2048, c=64 | Output throughput | −9.8 %
        regressed | llama8B tp1, random 128/2048, c=64 | P99 TTFT | +15.5 %
        improved | throughput llama8B tp1 | Total token throughput | +6.0 %
        ");
    }

    #[test]
    fn rows_of_one_model_and_metric_are_one_line_with_the_range_of_their_changes() {
        insta::assert_snapshot!(listed(&example::many(120)), @"
        regressed | llama8B tp1 (120 cases) | Output throughput | −59.6 … −10.0 %
        regressed | llama8B tp1 (120 cases) | Median TTFT | +10.0 … +59.6 %
        regressed | llama8B tp1 (120 cases) | Median TPOT | +10.0 … +59.6 %
        regressed | llama8B tp1 (120 cases) | P99 TTFT | +10.0 … +59.6 %
        regressed | llama8B tp1 (120 cases) | P99 TPOT | +10.0 … +59.6 %
        ");
    }

    #[test]
    fn a_metric_that_changed_in_every_case_is_its_overall_row() {
        let mut comparison = example::many(12);
        comparison.overall = vec![example::overall("median_ttft_ms", 0.3, Verdict::Regressed)];
        let lines = listed(&comparison);
        assert_eq!(lines.lines().filter(|line| line.contains("Median TTFT")).count(), 1, "{lines}");
        assert!(lines.starts_with("regressed | All 12 serving cases | Median TTFT | +30.0 %"), "{lines}");
        comparison.rows[1].verdict = Verdict::Unchanged;
        assert_eq!(listed(&comparison).lines().filter(|line| line.contains("Median TTFT")).count(), 2);
    }

    #[test]
    fn a_throughput_of_a_quarter_is_a_greater_change_than_three_times_the_latency() {
        assert!(severity(-0.75, 0.02) > severity(1.9, 0.03));
        assert!(severity(-0.5, 0.02) == severity(1.0, 0.02), "halved and doubled");
    }
}
