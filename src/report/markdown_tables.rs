//! The tables of a Markdown document: the findings, the changed rows, the other rows by test; and what their cells consist of.

use vllm_verdict::Untrusted;
use vllm_verdict::v1::{Comparison, Row, Verdict};

use super::budget::Block;
use super::finding::{self, Detail, Finding};
use super::label::Labels;
use super::{Links, number, one_side, wording};
use crate::escape;

/// Largest number of findings outside a fold.
const MAX_FINDINGS: usize = 10;

/// The findings, the most important first.
pub(super) fn findings_table(comparison: &Comparison, findings: &[Finding], links: &Links) -> Block {
    if findings.is_empty() {
        return Block { open: format!("{}\n\n", wording::nothing_found(comparison)), ..Block::default() };
    }
    let more = findings.len().saturating_sub(MAX_FINDINGS);
    let more = if more > 0 { format!("\n{} below.\n", number::plural(more, "more finding")) } else { String::new() };
    Block {
        open: "| | What | change | 95 % interval | base | head |\n|---|---|--:|:--:|--:|--:|\n".to_owned(),
        items: findings.iter().take(MAX_FINDINGS).map(|finding| finding_line(finding, links)).collect(),
        close: more + "\n",
        noun: "row",
        priority: 1,
        ..Block::default()
    }
}

fn finding_line(finding: &Finding, links: &Links) -> String {
    let (icon, subject, metric) = (icon(finding.verdict), cell(&finding.subject), cell(&finding.metric));
    if let Detail::Lost { reason, .. } = &finding.detail {
        let log = links.artifact().map(|url| format!(" ([log]({url}))")).unwrap_or_default();
        let metric = if finding.metric == "all" { String::new() } else { format!(", {metric}") };
        return format!("| {icon} | {subject}{metric}: {}{log} | | | | |\n", cell(reason));
    }
    let [base, head] = finding.values();
    let [interval, base, head] = [finding.interval().unwrap_or_default().into(), base, head].map(unbroken);
    let change = unbroken(finding.change().unwrap_or_default().into());
    let subject = if matches!(finding.detail, Detail::Overall(_)) { format!("**{subject}**") } else { subject };
    format!("| {icon} | {subject}: {metric} | **{change}** | {interval} | {base} | {head} |\n")
}

/// The changed rows, one by one.
pub(super) fn changed_rows(comparison: &Comparison, labels: &Labels, folded: bool) -> Option<Block> {
    let verdicts = [Verdict::Regressed, Verdict::Improved];
    let rows: Vec<&Row> = verdicts.iter().flat_map(|verdict| finding::worst_first(comparison, *verdict)).collect();
    let title = format!("All {} changed rows, the greatest change first", number::count(rows.len()));
    let head = "| | Case | Metric | change | 95 % interval | base | head |\n|---|---|---|--:|:--:|--:|--:|\n";
    let line = |row: &&Row| {
        let (icon, label) = (icon(row.verdict), escape::markdown(labels.of(&row.case).full()));
        format!("| {icon} | {label} | {} | {} |\n", cell(&row.label), numbers(row).join(" | "))
    };
    let mut items: Vec<String> = rows.iter().map(line).collect();
    items.first_mut()?.insert_str(0, head);
    Some(Block { items, noun: "row", ..section(&title, 2, folded) })
}

/// Whether not every changed row is a finding that is shown: the changed rows then have a table of their own.
pub(super) fn has_changed_rows(comparison: &Comparison, findings: &[Finding]) -> bool {
    let is_one_row = |finding: &&Finding| matches!(&finding.detail, Detail::Changed(rows) if rows.len() == 1);
    let shown = findings.iter().take(MAX_FINDINGS).filter(is_one_row).count();
    shown < finding::primary(comparison).filter(|row| is_changed(row)).count()
}

fn is_changed(row: &Row) -> bool {
    matches!(row.verdict, Verdict::Regressed | Verdict::Improved)
}

/// The primary rows, without those that changed where these have a table of their own.
pub(super) fn primary_rows(
    comparison: &Comparison,
    labels: &Labels,
    folded: bool,
    without_changed: bool,
) -> Option<Block> {
    let rows: Vec<&Row> = finding::primary(comparison).filter(|row| !(without_changed && is_changed(row))).collect();
    let title = match rows.len() {
        others if without_changed => format!("The other {}", number::plural(others, "primary row")),
        1 => "The primary row".to_owned(),
        all => format!("All {} primary rows", number::count(all)),
    };
    let verdicts = !one_side::is_alone(comparison);
    row_tables(&rows, labels, verdicts, section(&title, 3, folded))
}

pub(super) fn secondary_rows(comparison: &Comparison, labels: &Labels) -> Option<Block> {
    let rows: Vec<&Row> = comparison.rows.iter().filter(|row| !row.primary).collect();
    let title = format!("{} secondary rows (not part of the verdict)", number::count(rows.len()));
    row_tables(&rows, labels, false, section(&title, 5, true))
}

/// A table for each test; none without rows.
fn row_tables(rows: &[&Row], labels: &Labels, verdicts: bool, section: Block) -> Option<Block> {
    let tests = rows.chunk_by(|a, b| labels.of(&a.case).test == labels.of(&b.case).test);
    let items = tests.flat_map(|rows| test_table(rows, labels, verdicts)).collect();
    (!rows.is_empty()).then_some(Block { items, noun: "row", ..section })
}

/// The table of one test. The heading and the table head are part of its first row, so that they are cut together.
fn test_table(rows: &[&Row], labels: &Labels, verdicts: bool) -> Vec<String> {
    let with_load = rows.iter().any(|row| !labels.of(&row.case).load.raw().is_empty());
    let cells = |row: &Row| {
        let label = labels.of(&row.case);
        let load = with_load.then(|| escape::markdown(&label.load));
        let verdict = verdicts.then(|| format!("{} {}", icon(row.verdict), row.verdict.as_str()).trim().to_owned());
        let cells: Vec<String> =
            load.into_iter().chain([cell(&row.label)]).chain(numbers(row)).chain(verdict).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut lines: Vec<String> = rows.iter().map(|row| cells(row)).collect();
    let label = rows.first().map(|row| escape::markdown(labels.of(&row.case).test)).unwrap_or_default();
    let (load, rule) = if with_load { ("Load | ", "---|") } else { ("", "") };
    let (verdict, last) = if verdicts { (" Verdict |", "---|") } else { ("", "") };
    let head = format!(
        "| {load}Metric | change | 95 % interval | base | head |{verdict}\n|{rule}---|--:|:--:|--:|--:|{last}\n"
    );
    if let Some(first) = lines.first_mut() {
        first.insert_str(0, &format!("\n**{label}**\n\n{head}"));
    }
    lines
}

/// The opening and closing of a section: a fold, or a heading.
pub(super) fn section(title: &str, priority: u8, folded: bool) -> Block {
    let (open, close) = match folded {
        true => (format!("<details><summary>{title}</summary>\n\n"), "\n</details>\n\n".to_owned()),
        false => (format!("#### {title}\n\n"), "\n".to_owned()),
    };
    Block { priority, open, close, title: title.to_owned(), ..Block::default() }
}

/// Change, interval, base and head of a row, with non-breaking spaces; missing ones are empty.
fn numbers(row: &Row) -> [String; 4] {
    let [base, head] = super::values(row);
    let change = row.estimate.map(number::change).unwrap_or_default().into();
    let interval = row.low.zip(row.high).map(|(low, high)| number::interval(low, high)).unwrap_or_default().into();
    [change, interval, base, head].map(unbroken)
}

/// Text of a cell that keeps its words on one line.
fn unbroken(text: Untrusted) -> String {
    escape::markdown(text).replace(' ', "\u{a0}")
}

/// Text from data in a table cell.
pub(super) fn cell(text: impl AsRef<str>) -> String {
    escape::markdown(escape::sentence(text))
}

pub(super) fn icon(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Failing | Verdict::Regressed => "🔴",
        Verdict::NotMeasured => "⚪",
        Verdict::Improved => "🟢",
        Verdict::Unchanged | Verdict::Inconclusive => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn a_test_is_one_table_and_its_loads_are_a_column() {
        let comparison = example::comparison();
        let labels = Labels::new(&comparison.cases);
        let rows: Vec<&Row> = comparison.rows.iter().filter(|row| row.primary).collect();
        let of = |test: &str| rows.iter().copied().filter(|row| row.case.raw().starts_with(test)).collect::<Vec<_>>();
        let serving = test_table(&of("serving_gemma3")[3..7], &labels, true).concat();
        let latency = test_table(&of("latency"), &labels, true).concat();
        insta::assert_snapshot!(format!("{serving}{latency}").replace('\u{a0}', " "), @"

        **gemma3-4b tp1, random 128/128**

        | Load | Metric | change | 95 % interval | base | head | Verdict |
        |---|---|--:|:--:|--:|--:|---|
        | c=12 | Median TPOT | +0.4 % | −1.7 … +2.5 | 88.39 ms | 88.74 ms | unchanged |
        | c=12 | P99 TPOT | +0.4 % | −3.3 … +4.1 | 151.1 ms | 151.8 ms | unchanged |
        | c=64 | Output throughput | +0.4 % | −1.0 … +1.8 | 1,291 tok/s | 1,296 tok/s | unchanged |
        | c=64 | Median TTFT | +0.4 % | −1.7 … +2.5 | 173.2 ms | 173.9 ms | unchanged |

        **latency llama8B tp1**

        | Metric | change | 95 % interval | base | head | Verdict |
        |---|--:|:--:|--:|--:|---|
        | Median latency | +0.4 % | −1.7 … +2.5 | 8.420 s | 8.454 s | unchanged |
        ");
    }
}
