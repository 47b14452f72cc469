//! Plain text for a terminal: the headline, the findings, all primary rows. Verdicts are words, without colours.

use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Padding, Style};
use vllm_verdict::Untrusted;
use vllm_verdict::capacity::Capacity;
use vllm_verdict::v1::{Comparison, Row, SideFacts};

use super::finding::{self, Detail, Finding};
use super::label::Labels;
use super::{headline, method, number, wording};
use crate::escape;

/// Columns of a row: verdict, metric, base, head, change, 95 % interval.
const COLUMNS: usize = 6;
/// The columns that a narrow terminal omits, in this order: interval, base, head. `report.html` has all of them.
const EXPENDABLE: [usize; 3] = [5, 2, 3];

/// The comparison for a terminal of `width` columns, ending in a newline. Tables omit columns until they fit; the terminal
/// wraps sentences.
pub fn table(comparison: &Comparison, width: usize) -> String {
    let labels = Labels::new(&comparison.cases);
    let mut parts = headline_and_findings(comparison, &labels, width);
    let failures = wording::failures(comparison, &labels);
    if !failures.is_empty() {
        parts.push(format!("Failed runs (excluded):\n  {}", lines(&failures)));
    }
    let warnings = wording::warnings(comparison, &labels);
    if !warnings.is_empty() {
        parts.push(format!("Warnings:\n  {}", lines(&warnings)));
    }
    let rows: Vec<Line> =
        finding::primary(comparison).map(|row| of_row(row, escape::plain(labels.of(&row.case).full()))).collect();
    if !rows.is_empty() {
        parts.push(format!("All {}\n\n{}", number::plural(rows.len(), "primary row"), grid(&rows, width)));
        parts.push(sensitivity(comparison));
    }
    parts.join("\n\n") + "\n"
}

/// The largest concurrencies within latency limits, as a table ending in a newline.
pub fn capacity(capacities: &[Capacity]) -> String {
    let mut builder = Builder::default();
    builder.push_record(["within", "side", "concurrency", "output", "TTFT", "TPOT"]);
    let mut headings = Vec::new();
    for capacity in capacities {
        let rate = capacity.request_rate.as_ref().filter(|rate| **rate != "inf").map(escape::name);
        let rate = rate.map(|rate| format!(", {rate} req/s")).unwrap_or_default();
        for (side, reached) in [("base", capacity.base), ("head", capacity.head)] {
            let show = |value: Option<f64>, unit: &str| {
                value
                    .map(|value| format!("{} {unit}", number::value(value, number::decimals([value]))))
                    .unwrap_or_default()
            };
            headings.push(format!("{}{rate}", escape::sentence(&capacity.test)));
            builder.push_record([
                capacity.within.to_owned(),
                side.to_owned(),
                reached.map_or("none".to_owned(), |reached| reached.concurrency.to_string()),
                show(reached.and_then(|reached| reached.output_throughput), "tok/s"),
                show(reached.and_then(|reached| reached.ttft_ms), "ms"),
                show(reached.and_then(|reached| reached.tpot_ms), "ms"),
            ]);
        }
    }
    let rows = plain(builder);
    format!("Largest concurrency within the limits\n\n{}\n", under(headings.iter().map(String::as_str), &rows))
}

/// The headline and the findings.
pub fn verdict(comparison: &Comparison, width: usize) -> String {
    headline_and_findings(comparison, &Labels::new(&comparison.cases), width).join("\n\n") + "\n"
}

fn headline_and_findings(comparison: &Comparison, labels: &Labels, width: usize) -> Vec<String> {
    let mut parts = vec![headline(comparison)];
    parts.extend(wording::notices(comparison).iter().map(escape::plain));
    let findings = finding::findings(comparison, labels);
    if findings.is_empty() {
        parts.push(wording::nothing_found(comparison));
    } else {
        let lines: Vec<Line> = findings.iter().map(of_finding).collect();
        parts.push(grid(&lines, width));
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
    let on = on.unwrap_or_default();
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
    cells: [String; COLUMNS],
}

fn of_finding(finding: &Finding) -> Line {
    let (verdict, metric) = (finding.verdict.as_str().to_owned(), escape::name(&finding.metric));
    let subject = escape::sentence(&finding.subject);
    let (change, interval) = (finding.change().unwrap_or_default(), finding.interval().unwrap_or_default());
    let [base, head] = finding.values().map(escape::plain);
    let heading = match &finding.detail {
        Detail::Lost { reason, .. } => format!("{subject}: {}", escape::sentence(reason)),
        Detail::Overall(_) | Detail::Changed(_) => subject,
    };
    Line { heading, cells: [verdict, metric, base, head, change, interval] }
}

fn of_row(row: &Row, heading: String) -> Line {
    let [base, head] = super::values(row).map(escape::plain);
    let change = row.estimate.map(number::change).unwrap_or_default();
    let interval = row.low.zip(row.high).map(|(low, high)| number::interval(low, high)).unwrap_or_default();
    let (verdict, metric) = (row.verdict.as_str().to_owned(), escape::name(&row.label));
    Line { heading, cells: [verdict, metric, base, head, change, interval] }
}

/// The lines under their headings, with as many columns as fit into `width`.
fn grid(lines: &[Line], width: usize) -> String {
    let mut columns: Vec<usize> = (0..COLUMNS).collect();
    let mut rows = aligned(lines, &columns);
    for expendable in EXPENDABLE {
        if rows.iter().all(|row| row.chars().count() <= width) {
            break;
        }
        columns.retain(|&column| column != expendable);
        rows = aligned(lines, &columns);
    }
    under(lines.iter().map(|line| line.heading.as_str()), &rows)
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

/// One string for the head and for every line, the chosen columns aligned, indented by two.
fn aligned(lines: &[Line], columns: &[usize]) -> Vec<String> {
    let head = ["verdict", "metric", "base", "head", "change", "95 % interval"].map(str::to_owned);
    let mut builder = Builder::default();
    for cells in std::iter::once(&head).chain(lines.iter().map(|line| &line.cells)) {
        builder.push_record(columns.iter().map(|&column| cells[column].as_str()));
    }
    plain(builder)
}

/// The lines of a table without rules, indented by two, with numbers aligned right.
fn plain(builder: Builder) -> Vec<String> {
    let mut table = builder.build();
    table.with(Style::blank()).with(Padding::new(0, 1, 0, 0)).modify(Columns::new(2..), Alignment::right());
    table.to_string().lines().map(|line| format!("  {}", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn the_findings_come_before_all_rows() {
        insta::assert_snapshot!(table(&example::comparison(), 100), @"
        vLLM performance on cpu (AMD EPYC 9654 96-Core 96c): regressed: 1 case fails on head, 2 regressed, 1 improved, 30 unchanged, 1 inconclusive, 6 of 50 runs of head failed (base: 0)
        head 1da94e6 against base 7f42dc2, 5 interleaved pairs, 52 min, 2026-11-24 10:12 UTC

          verdict    metric                         base         head   change  95 % interval
        llama8B tp2, sharegpt, c=200: head failed in 5 of 5 repetitions, base in none: out of memory
          failing    all
        llama8B tp1, random 128/2048, c=64
          regressed  Output throughput       412.3 tok/s  372.6 tok/s   −9.8 %   −11.2 … −8.4
          regressed  P99 TTFT                   1,206 ms     1,395 ms  +15.5 %  +11.8 … +19.2
        throughput llama8B tp1
          improved   Total token throughput  2,180 tok/s  2,316 tok/s   +6.0 %    +4.6 … +7.4

        Failed runs (excluded):
          gemma3-4b tp1, random 128/128, c=64: head, repetition 3: 2 of 200 requests failed: connection reset by peer

        All 39 primary rows

          verdict       metric                         base         head   change  95 % interval
        llama8B tp1, random 128/2048, c=12
          unchanged     Output throughput       128.4 tok/s  129.2 tok/s   +0.4 %    −1.0 … +1.8
          unchanged     Median TTFT                210.0 ms     211.3 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TTFT                   361.2 ms     363.4 ms   +0.4 %    −3.3 … +4.1
          unchanged     Median TPOT                88.30 ms     88.83 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TPOT                   151.0 ms     151.9 ms   +0.4 %    −3.3 … +4.1
        llama8B tp1, random 128/2048, c=16
          unchanged     Output throughput       167.2 tok/s  168.2 tok/s   +0.4 %    −1.0 … +1.8
          unchanged     Median TTFT                262.0 ms     263.6 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TTFT                   450.6 ms     453.3 ms   +0.4 %    −3.3 … +4.1
          unchanged     Median TPOT                88.30 ms     88.83 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TPOT                   151.0 ms     151.9 ms   +0.4 %    −3.3 … +4.1
        llama8B tp1, random 128/2048, c=32
          unchanged     Output throughput       301.3 tok/s  303.1 tok/s   +0.4 %    −1.0 … +1.8
          unchanged     Median TTFT                488.0 ms     490.9 ms   +0.4 %    −1.7 … +2.5
          inconclusive  P99 TTFT                   839.4 ms     892.3 ms   +6.1 %    +2.4 … +9.8
          unchanged     Median TPOT                88.30 ms     88.83 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TPOT                   151.0 ms     151.9 ms   +0.4 %    −3.3 … +4.1
        llama8B tp1, random 128/2048, c=64
          regressed     Output throughput       412.3 tok/s  372.6 tok/s   −9.8 %   −11.2 … −8.4
          unchanged     Median TTFT                701.0 ms     705.2 ms   +0.4 %    −1.7 … +2.5
          regressed     P99 TTFT                   1,206 ms     1,395 ms  +15.5 %  +11.8 … +19.2
          unchanged     Median TPOT                88.30 ms     88.83 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TPOT                   151.0 ms     151.9 ms   +0.4 %    −3.3 … +4.1
        gemma3-4b tp1, random 128/128, c=12
          unchanged     Output throughput       402.0 tok/s  404.4 tok/s   +0.4 %    −1.0 … +1.8
          unchanged     Median TTFT                58.10 ms     58.45 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TTFT                    99.9 ms     100.5 ms   +0.4 %    −3.3 … +4.1
          unchanged     Median TPOT                88.30 ms     88.83 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TPOT                   151.0 ms     151.9 ms   +0.4 %    −3.3 … +4.1
        gemma3-4b tp1, random 128/128, c=64
          unchanged     Output throughput       1,290 tok/s  1,298 tok/s   +0.4 %    −1.0 … +1.8
          unchanged     Median TTFT                173.0 ms     174.0 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TTFT                   297.6 ms     299.3 ms   +0.4 %    −3.3 … +4.1
          unchanged     Median TPOT                88.30 ms     88.83 ms   +0.4 %    −1.7 … +2.5
          unchanged     P99 TPOT                   151.0 ms     151.9 ms   +0.4 %    −3.3 … +4.1
        llama8B tp2, sharegpt, c=200
          failing       Output throughput       905.0 tok/s
          failing       Median TTFT                1,210 ms
          failing       P99 TTFT                   2,081 ms
          failing       Median TPOT                88.30 ms
          failing       P99 TPOT                   151.0 ms
        latency llama8B tp1
          unchanged     Median latency              8.412 s      8.462 s   +0.4 %    −1.7 … +2.5
        startup llama8B tp1
          unchanged     Cold start                  61.20 s      61.57 s   +0.4 %    −1.7 … +2.5
          unchanged     Warm start                  34.70 s      34.91 s   +0.4 %    −1.7 … +2.5
        throughput llama8B tp1
          improved      Total token throughput  2,180 tok/s  2,316 tok/s   +6.0 %    +4.6 … +7.4

        Smallest detectable change, median row (80 % power): Output throughput 1.8 %, Median TTFT 2.7 %, P99 TTFT 4.8 %, Median TPOT 2.7 %, P99 TPOT 4.8 %, Median latency 2.7 %, Cold start 2.7 %, Warm start 2.7 %, Total token throughput 1.8 %.
        False discovery rate 2 % over 39 primary rows (Benjamini-Hochberg).
        A row is regressed or improved if its change is significant after this correction and at least the minimum effect.
        Hodges-Lehmann estimates over 5 interleaved pairs, order alternating, base first (seed 20261124), a fresh server for every repetition.
        Not blocked: the variance inside pairs is 0.93 of that inside sides.
        Base and head are shown as Hodges-Lehmann means of their repetitions, on the log scale; the change is the estimate of their difference, and can differ from that of the columns.
        Noise: all rows not calibrated, noise of their own repetitions.
        ");
    }

    #[test]
    fn a_narrow_terminal_omits_columns_and_never_breaks_a_number() {
        let of = |width| {
            let text = table(&example::many(1), width);
            let rows: Vec<&str> = text.lines().skip(3).take(3).collect();
            assert!(rows.iter().all(|line| line.chars().count() <= width), "{text}");
            rows.join("\n")
        };
        insta::assert_snapshot!(format!("{}\n{}\n{}", of(90), of(75), of(50)), @"
          verdict    metric                     base         head   change  95 % interval
        llama8B tp1, test0, c=64
          regressed  Output throughput  100.00 tok/s  90.18 tok/s  −10.0 %   −11.4 … −8.6
          verdict    metric                     base         head   change
        llama8B tp1, test0, c=64
          regressed  Output throughput  100.00 tok/s  90.18 tok/s  −10.0 %
          verdict    metric              change
        llama8B tp1, test0, c=64
          regressed  Output throughput  −10.0 %
        ");
    }

    #[test]
    fn an_untrusted_name_cannot_move_the_cursor() {
        let mut comparison = example::many(1);
        comparison.rows[0].label = "x\u{1b}[2J\r\n\u{7}y".into();
        assert!(!table(&comparison, 100).contains(['\u{1b}', '\r', '\u{7}']));
    }
}
