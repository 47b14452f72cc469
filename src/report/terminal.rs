//! Plain text for a terminal: the headline, the findings, all primary rows. Verdicts are words, without colours.

use tabled::builder::Builder;
use tabled::settings::object::Columns as TableColumns;
use tabled::settings::{Alignment, Padding, Style};
use vllm_verdict::Untrusted;
use vllm_verdict::capacity::Capacity;
use vllm_verdict::v1::{Comparison, Row, SideFacts};

use super::finding::{self, Detail, Finding};
use super::label::Labels;
use super::{headline, method, number, one_side, wording};
use crate::escape;

/// The columns of a table, and what it does without in a narrow terminal.
struct Columns {
    heads: &'static [&'static str],
    /// The columns that are omitted until the table fits, in this order.
    expendable: &'static [usize],
    /// The column whose texts are cut if that is not enough.
    shortened: usize,
    /// The first column of numbers.
    numbers: usize,
}

/// The rows of a comparison. `report.html` has all columns.
const ROWS: Columns = Columns {
    heads: &["verdict", "metric", "base", "head", "change", "95 % interval"],
    expendable: &[5, 2, 3],
    shortened: 1,
    numbers: 2,
};

/// The values of one side, repeated or not.
const REPEATED_VALUES: Columns =
    Columns { heads: &["metric", "median", "lowest … highest"], expendable: &[2], shortened: 0, numbers: 1 };
const VALUES: Columns = Columns { heads: &["metric", "value"], expendable: &[], shortened: 0, numbers: 1 };

const CAPACITIES: Columns = Columns {
    heads: &["within", "side", "concurrency", "output", "TTFT", "TPOT"],
    expendable: &[3, 5, 4],
    shortened: 0,
    numbers: 2,
};

/// Longest text in the column of metrics, in characters: that of the longest label.
const LONGEST_LABEL: usize = 30;
/// Shortest, with the sign that it was cut.
const SHORTEST_LABEL: usize = 8;

/// The comparison for a terminal of `width` columns, ending in a newline. Tables omit columns, then cut the names of metrics,
/// until they fit; numbers are whole, and the terminal wraps sentences.
pub fn table(comparison: &Comparison, width: usize) -> String {
    let labels = Labels::new(&comparison.cases);
    let mut parts = headline_and_findings(comparison, &labels, width);
    parts.extend(excluded_and_warnings(comparison, &labels));
    if one_side::is_alone(comparison) {
        parts.push(values(comparison, &labels, width));
        return parts.join("\n\n") + "\n";
    }
    let rows: Vec<Line> =
        finding::primary(comparison).map(|row| of_row(row, escape::plain(labels.of(&row.case).full()))).collect();
    if !rows.is_empty() {
        parts.push(format!("All {}\n\n{}", number::plural(rows.len(), "primary row"), grid(&ROWS, rows, width)));
        parts.push(sensitivity(comparison));
    }
    parts.join("\n\n") + "\n"
}

/// The repetitions that do not count, and the warnings about the others.
fn excluded_and_warnings(comparison: &Comparison, labels: &Labels) -> Vec<String> {
    let mut parts = Vec::new();
    let failures = wording::failures(comparison, labels);
    if !failures.is_empty() {
        parts.push(format!("Failed runs (excluded):\n  {}", lines(&failures)));
    }
    let warnings = wording::warnings(comparison, labels);
    if !warnings.is_empty() {
        parts.push(format!("Warnings:\n  {}", lines(&warnings)));
    }
    parts
}

/// The values of the primary metrics of the only side.
fn values(comparison: &Comparison, labels: &Labels, width: usize) -> String {
    let line = |row: &Row| {
        let label = escape::plain(labels.of(&row.case).full());
        let heading = match one_side::missing(row) {
            Some(why) => format!("{label}: {why}"),
            None => label,
        };
        let [value, range] = one_side::value(row).map(escape::plain);
        Line { heading, cells: vec![escape::name(&row.label), value, range] }
    };
    let columns = if one_side::repetitions(comparison) > 1 { REPEATED_VALUES } else { VALUES };
    grid(&columns, finding::primary(comparison).map(line).collect(), width)
}

/// The largest concurrencies within latency limits, as a table for a terminal of `width` columns, ending in a newline.
pub fn capacity(capacities: &[Capacity], width: usize) -> String {
    let mut lines = Vec::new();
    for capacity in capacities {
        let rate = capacity.request_rate.as_ref().filter(|rate| **rate != "inf").map(escape::name);
        let rate = rate.map(|rate| format!(", {rate} req/s")).unwrap_or_default();
        for (side, reached) in [("base", capacity.base), ("head", capacity.head)] {
            let show = |value: Option<f64>, unit: &str| {
                value
                    .map(|value| format!("{} {unit}", number::value(value, number::decimals([value]))))
                    .unwrap_or_default()
            };
            let cells = vec![
                capacity.within.to_owned(),
                side.to_owned(),
                reached.map_or("none".to_owned(), |reached| reached.concurrency.to_string()),
                show(reached.and_then(|reached| reached.output_throughput), "tok/s"),
                show(reached.and_then(|reached| reached.ttft_ms), "ms"),
                show(reached.and_then(|reached| reached.tpot_ms), "ms"),
            ];
            lines.push(Line { heading: format!("{}{rate}", escape::sentence(&capacity.test)), cells });
        }
    }
    format!("Largest concurrency within the limits\n\n{}\n", grid(&CAPACITIES, lines, width))
}

/// The headline and the findings.
pub fn verdict(comparison: &Comparison, width: usize) -> String {
    headline_and_findings(comparison, &Labels::new(&comparison.cases), width).join("\n\n") + "\n"
}

fn headline_and_findings(comparison: &Comparison, labels: &Labels, width: usize) -> Vec<String> {
    let mut parts = vec![headline(comparison)];
    if one_side::is_alone(comparison) {
        parts.extend(comparison.conduct.notices.iter().map(escape::sentence));
        parts.push(one_side::LEAD.to_owned());
        return parts;
    }
    parts.extend(wording::notices(comparison).iter().map(escape::plain));
    let findings = finding::findings(comparison, labels);
    if findings.is_empty() {
        parts.push(wording::nothing_found(comparison));
    } else {
        let lines: Vec<Line> = findings.iter().map(of_finding).collect();
        parts.push(grid(&ROWS, lines, width));
    }
    parts
}

/// One line for each sentence, indented by two after the first.
fn lines(sentences: &[Untrusted]) -> String {
    sentences.iter().map(escape::plain).collect::<Vec<_>>().join("\n  ")
}

fn headline(comparison: &Comparison) -> String {
    let subject = &comparison.subject;
    let on = subject
        .device
        .as_ref()
        .map(|device| format!(" on {}{}", device.name, escape::plain(wording::device_type(device))));
    let on = on.unwrap_or_default();
    if one_side::is_alone(comparison) {
        let facts: Vec<String> = one_side::facts(comparison).iter().map(escape::plain).collect();
        return format!("vLLM performance{on}: values of one run\n{}", facts.join(", "));
    }
    let side = |word: &str, facts: &Option<SideFacts>| {
        facts.as_ref().map(|facts| {
            let arguments =
                wording::server_args(facts).map(|args| format!(" with {}", escape::plain(args))).unwrap_or_default();
            format!("{word} {}{arguments}", escape::plain(wording::side(facts)))
        })
    };
    let sides = [side("head", &subject.head), side("base", &subject.base)];
    let mut facts = vec![sides.into_iter().flatten().collect::<Vec<_>>().join(" against ")];
    facts.retain(|words| !words.is_empty());
    facts.extend(wording::circumstances(comparison));
    format!("vLLM performance{on}: {}\n{}", escape::plain(headline::headline(comparison)), facts.join(", "))
}

fn sensitivity(comparison: &Comparison) -> String {
    let sensitivity = wording::sensitivity(comparison);
    let mut sentences = method::method(comparison);
    if !sensitivity.is_empty() {
        let metric = |metric: &wording::Sensitivity| {
            let overall = metric.overall.map(|size| format!(" (all cases {})", number::percent(size)));
            format!(
                "{} {}{}",
                escape::plain(&metric.label),
                number::percent(metric.typical),
                overall.unwrap_or_default()
            )
        };
        let seen = sensitivity.iter().map(metric).collect::<Vec<_>>().join(", ");
        sentences.insert(0, format!("Smallest detectable change, median row (80 % power): {seen}."));
    }
    sentences.join("\n")
}

/// A row of a table with its heading.
struct Line {
    heading: String,
    cells: Vec<String>,
}

fn of_finding(finding: &Finding) -> Line {
    let (verdict, metric) = (finding.verdict.as_str().to_owned(), escape::name(&finding.metric));
    let subject = escape::sentence(&finding.subject);
    let (change, interval) = (finding.change().unwrap_or_default(), finding.interval().unwrap_or_default());
    let [base, head] = finding.values().map(escape::plain);
    let is_long = metric.chars().count() > LONGEST_LABEL;
    let heading = match &finding.detail {
        Detail::Lost { reason, .. } if is_long => format!("{subject}, {metric}: {}", escape::sentence(reason)),
        Detail::Lost { reason, .. } => format!("{subject}: {}", escape::sentence(reason)),
        Detail::Overall(_) | Detail::Changed(_) => subject,
    };
    let metric = if is_long { "several".to_owned() } else { metric };
    Line { heading, cells: vec![verdict, metric, base, head, change, interval] }
}

fn of_row(row: &Row, heading: String) -> Line {
    let [base, head] = super::values(row).map(escape::plain);
    let change = row.estimate.map(number::change).unwrap_or_default();
    let interval = row.low.zip(row.high).map(|(low, high)| number::interval(low, high)).unwrap_or_default();
    let (verdict, metric) = (row.verdict.as_str().to_owned(), escape::name(&row.label));
    Line { heading, cells: vec![verdict, metric, base, head, change, interval] }
}

/// The lines under their headings, as wide as `width` allows.
fn grid(columns: &Columns, mut lines: Vec<Line>, width: usize) -> String {
    let widest = |rows: &[String]| rows.iter().map(|row| row.chars().count()).max().unwrap_or_default();
    let mut kept: Vec<usize> = (0..columns.heads.len()).collect();
    let mut rows = aligned(columns, &lines, &kept);
    for &expendable in columns.expendable {
        if widest(&rows) <= width {
            break;
        }
        kept.retain(|&column| column != expendable);
        rows = aligned(columns, &lines, &kept);
    }
    let excess = widest(&rows).saturating_sub(width);
    if excess > 0 {
        shorten(&mut lines, columns.shortened, excess);
        rows = aligned(columns, &lines, &kept);
    }
    under(lines.iter().map(|line| line.heading.as_str()), &rows)
}

/// Cuts the texts of a column so that it needs `excess` characters less.
fn shorten(lines: &mut [Line], column: usize, excess: usize) {
    let longest = lines.iter().map(|line| line.cells[column].chars().count()).max().unwrap_or_default();
    let length = longest.saturating_sub(excess).max(SHORTEST_LABEL);
    for cell in lines.iter_mut().map(|line| &mut line.cells[column]) {
        if cell.chars().count() > length {
            *cell = cell.chars().take(length - 1).chain(['…']).collect();
        }
    }
}

/// The head and the rows of a table, with each heading before its first row.
fn under<'a>(headings: impl IntoIterator<Item = &'a str>, rows: &'a [String]) -> String {
    let mut out: Vec<&str> = rows.iter().take(1).map(String::as_str).collect();
    let mut last = "";
    for (heading, row) in headings.into_iter().zip(rows.iter().skip(1)) {
        if heading != last {
            out.push(heading);
            last = heading;
        }
        out.push(row);
    }
    out.join("\n")
}

/// One string for the head and for every line, the kept columns aligned, numbers to the right, indented by two.
fn aligned(columns: &Columns, lines: &[Line], kept: &[usize]) -> Vec<String> {
    let mut builder = Builder::default();
    builder.push_record(kept.iter().map(|&column| columns.heads[column]));
    for Line { cells, .. } in lines {
        builder.push_record(kept.iter().map(|&column| cells[column].as_str()));
    }
    let mut table = builder.build();
    let numbers = TableColumns::new(columns.numbers..);
    table.with(Style::blank()).with(Padding::new(0, 1, 0, 0)).modify(numbers, Alignment::right());
    table.to_string().lines().map(|line| format!("  {}", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use vllm_verdict::capacity::Reached;

    use super::*;
    use crate::report::example;

    #[test]
    fn the_findings_come_before_all_rows() {
        insta::assert_snapshot!(table(&example::comparison(), 100), @"
        vLLM performance on cpu (AMD EPYC 9654 96-Core 96c): regressed: 1 case fails on head, 2 rows regressed, 1 improved, 30 unchanged, 1 inconclusive, 6 of 50 runs of head failed (base: 0)
        head 1da94e6 against base 7f42dc2, 5 interleaved pairs, 52 min, 2026-11-24 10:12 UTC

          verdict    metric                         base         head   change  95 % interval
        llama8B tp2, sharegpt, c=200: head failed in 5 of 5 repetitions, base in none: out of memory
          failing    all
        llama8B tp1, random 128/2048, c=64
          regressed  Output throughput       412.7 tok/s  372.3 tok/s   −9.8 %   −11.2 … −8.4
          regressed  P99 TTFT                   1,207 ms     1,394 ms  +15.5 %  +11.8 … +19.2
        throughput llama8B tp1
          improved   Total token throughput  2,183 tok/s  2,313 tok/s   +6.0 %    +4.6 … +7.4

        Failed runs (excluded):
          gemma3-4b tp1, random 128/128, c=64: head, repetition 3: 2 of 200 requests failed: connection reset by peer

        All 39 primary rows

          verdict       metric                         base         head   change  95 % interval
        llama8B tp1, random 128/2048, c=12
          unchanged     Output throughput       128.5 tok/s  129.0 tok/s   +0.4 %    −1.0 … +1.8
          unchanged     Median TTFT                210.2 ms     211.0 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TTFT                   361.6 ms     363.0 ms   +0.4 %    −3.3 … +4.1
          unchanged     Median TPOT                88.39 ms     88.74 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TPOT                   151.1 ms     151.8 ms   +0.4 %    −3.3 … +4.1
        llama8B tp1, random 128/2048, c=16
          unchanged     Output throughput       167.4 tok/s  168.0 tok/s   +0.4 %    −1.0 … +1.8
          unchanged     Median TTFT                262.3 ms     263.3 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TTFT                   451.1 ms     452.9 ms   +0.4 %    −3.3 … +4.1
          unchanged     Median TPOT                88.39 ms     88.74 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TPOT                   151.1 ms     151.8 ms   +0.4 %    −3.3 … +4.1
        llama8B tp1, random 128/2048, c=32
          unchanged     Output throughput       301.6 tok/s  302.8 tok/s   +0.4 %    −1.0 … +1.8
          unchanged     Median TTFT                488.5 ms     490.4 ms   +0.4 %    −1.7 … +2.5
          inconclusive  P99 TTFT                   840.2 ms     891.4 ms   +6.1 %    +2.4 … +9.8
          unchanged     Median TPOT                88.39 ms     88.74 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TPOT                   151.1 ms     151.8 ms   +0.4 %    −3.3 … +4.1
        llama8B tp1, random 128/2048, c=64
          regressed     Output throughput       412.7 tok/s  372.3 tok/s   −9.8 %   −11.2 … −8.4
          unchanged     Median TTFT                701.7 ms     704.5 ms   +0.4 %    −1.7 … +2.5
          regressed     P99 TTFT                   1,207 ms     1,394 ms  +15.5 %  +11.8 … +19.2
          unchanged     Median TPOT                88.39 ms     88.74 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TPOT                   151.1 ms     151.8 ms   +0.4 %    −3.3 … +4.1
        gemma3-4b tp1, random 128/128, c=12
          unchanged     Output throughput       402.4 tok/s  404.0 tok/s   +0.4 %    −1.0 … +1.8
          unchanged     Median TTFT                58.16 ms     58.39 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TTFT                   100.0 ms     100.4 ms   +0.4 %    −3.3 … +4.1
          unchanged     Median TPOT                88.39 ms     88.74 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TPOT                   151.1 ms     151.8 ms   +0.4 %    −3.3 … +4.1
        gemma3-4b tp1, random 128/128, c=64
          unchanged     Output throughput       1,291 tok/s  1,296 tok/s   +0.4 %    −1.0 … +1.8
          unchanged     Median TTFT                173.2 ms     173.9 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TTFT                   297.9 ms     299.0 ms   +0.4 %    −3.3 … +4.1
          unchanged     Median TPOT                88.39 ms     88.74 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TPOT                   151.1 ms     151.8 ms   +0.4 %    −3.3 … +4.1
        llama8B tp2, sharegpt, c=200
          failing       Output throughput       905.0 tok/s
          failing       Median TTFT                1,210 ms
          failing       P99 TTFT                   2,081 ms
          failing       Median TPOT                88.30 ms
          failing       P99 TPOT                   151.0 ms
        latency llama8B tp1
          unchanged     Median latency              8.420 s      8.454 s   +0.4 %    −1.7 … +2.5
        startup llama8B tp1
          unchanged     Cold start                  61.26 s      61.50 s   +0.4 %    −1.7 … +2.5
          unchanged     Warm start                  34.73 s      34.87 s   +0.4 %    −1.7 … +2.5
        throughput llama8B tp1
          improved      Total token throughput  2,183 tok/s  2,313 tok/s   +6.0 %    +4.6 … +7.4

        Smallest detectable change, median row (80 % power): Output throughput 1.8 %, Median TTFT 2.7 %, P99 TTFT 4.8 %, Median TPOT 2.7 %, P99 TPOT 4.8 %, Median latency 2.7 %, Cold start 2.7 %, Warm start 2.7 %, Total token throughput 1.8 %.
        False discovery rate 2 % over 39 primary rows (Benjamini-Hochberg).
        A row is regressed or improved if its change is significant after this correction and at least the minimum effect.
        Hodges-Lehmann estimates over 5 interleaved pairs, order alternating, base first (seed 20261124), a fresh server for every repetition.
        Not blocked: the variance inside pairs is 0.93 of that inside sides.
        Base and head are shown around the geometric mean of both, apart by the estimated change.
        Noise: all rows not calibrated, noise of their own repetitions.
        ");
    }

    #[test]
    fn one_side_alone_has_values_and_no_verdicts() {
        insta::assert_snapshot!(table(&example::alone(), 100).lines().take(16).collect::<Vec<_>>().join("\n"), @"
        vLLM performance on cpu (AMD EPYC 9654 96-Core 96c): values of one run
        head 1da94e6, 5 repetitions, 52 min, 2026-11-24 10:12 UTC

        These are the values of one run. Nothing is compared with them.

        Failed runs (excluded):
          gemma3-4b tp1, random 128/128, c=64: head, repetition 3: 2 of 200 requests failed: connection reset by peer

          metric                       median  lowest … highest
        llama8B tp1, random 128/2048, c=12
          Output throughput       128.9 tok/s     128.0 … 130.3
          Median TTFT                210.8 ms     209.4 … 213.2
          P99 TTFT                   362.6 ms     360.1 … 366.6
          Median TPOT                88.65 ms     88.03 … 89.63
          P99 TPOT                   151.6 ms     150.5 … 153.3
        llama8B tp1, random 128/2048, c=16
        ");
        let mut once = example::many(1);
        once.subject.base = None;
        for row in &mut once.rows {
            row.base.clear();
            row.head.truncate(1);
        }
        insta::assert_snapshot!(table(&once, 100).lines().skip(5).take(3).collect::<Vec<_>>().join("\n"), @r"
          metric                   value
        llama8B tp1, test0, c=64
          Output throughput  89.82 tok/s
        ");
        let shown = table(&example::alone(), 100) + &verdict(&example::alone(), 100);
        for word in ["inconclusive", "pairs", "95 %", "discovery", "verdict"] {
            assert!(!shown.contains(word), "{word}: {shown}");
        }
    }

    #[test]
    fn a_narrow_terminal_omits_columns_then_cuts_labels_and_never_breaks_a_number() {
        let of = |width| {
            let text = table(&example::many(1), width);
            let rows: Vec<&str> = text.lines().skip(3).take(3).collect();
            assert!(rows.iter().all(|line| line.chars().count() <= width), "{text}");
            rows.join("\n")
        };
        insta::assert_snapshot!([90, 75, 50, 35].map(of).join("\n"), @"
          verdict    metric                    base        head   change  95 % interval
        llama8B tp1, test0, c=64
          regressed  Output throughput  100.1 tok/s  90.1 tok/s  −10.0 %   −11.4 … −8.6
          verdict    metric                    base        head   change
        llama8B tp1, test0, c=64
          regressed  Output throughput  100.1 tok/s  90.1 tok/s  −10.0 %
          verdict    metric              change
        llama8B tp1, test0, c=64
          regressed  Output throughput  −10.0 %
          verdict    metric          change
        llama8B tp1, test0, c=64
          regressed  Output throu…  −10.0 %
        ");
    }

    #[test]
    fn every_table_fits_into_every_usual_terminal() {
        let mut comparison = example::comparison();
        comparison.rows[0].label = "A metric with a very long name that nobody expects".into();
        for width in [40, 60, 80, 100, 120, 200] {
            let text = table(&comparison, width);
            let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("  ") && !line.contains(':')).collect();
            assert!(rows.len() > 39, "{text}");
            for row in rows {
                assert!(row.chars().count() <= width, "{width}: {row}");
                let words = [" %", "failing", "verdict"];
                assert!(words.iter().any(|word| row.contains(word)), "{width}: {row}");
            }
        }
    }

    #[test]
    fn a_table_of_capacities_omits_columns() {
        let reached =
            Reached { concurrency: 64, output_throughput: Some(12_412.3), ttft_ms: Some(1206.1), tpot_ms: Some(88.3) };
        let capacity =
            Capacity { test: "llama8B".into(), request_rate: None, within: "both", base: Some(reached), head: None };
        let of = |width| super::capacity(std::slice::from_ref(&capacity), width);
        insta::assert_snapshot!([80, 60, 40].map(of).join("\n"), @r"
        Largest concurrency within the limits

          within  side  concurrency        output      TTFT      TPOT
        llama8B
          both    base           64  12,412 tok/s  1,206 ms  88.30 ms
          both    head         none

        Largest concurrency within the limits

          within  side  concurrency      TTFT      TPOT
        llama8B
          both    base           64  1,206 ms  88.30 ms
          both    head         none

        Largest concurrency within the limits

          within  side  concurrency      TTFT
        llama8B
          both    base           64  1,206 ms
          both    head         none
        ");
    }

    #[test]
    fn an_untrusted_name_cannot_move_the_cursor() {
        let mut comparison = example::many(1);
        comparison.rows[0].label = "x\u{1b}[2J\r\n\u{7}y".into();
        assert!(!table(&comparison, 100).contains(['\u{1b}', '\r', '\u{7}']));
    }
}
