//! `report.html`: every row and every repetition on one page. One file that needs no script and no network, light and
//! dark; a content security policy forbids it the rest.

use std::collections::HashMap;

use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::{Comparison, Row, SideFacts, Verdict};

use super::finding::{self, Finding, Unmeasured};
use super::label::Labels;
use super::{Links, chart, escape, number, ran, svg, wording};

const STYLE: &str = include_str!("report.css");
/// The scale of changes ends here, so that one wild row does not flatten all others; arrows point beyond it.
const FARTHEST: f64 = 0.5;
/// And no sooner than here: noise must not look like an event.
const NEAREST: f64 = 0.05;

/// What every part of the page needs.
struct Page<'a> {
    comparison: &'a Comparison,
    links: &'a Links,
    labels: Labels<'a>,
    /// Case name to the number in its anchor.
    anchors: HashMap<&'a str, usize>,
    /// End of the scale on which changes are drawn, the same for all rows.
    reach: f64,
}

/// The whole page.
pub fn page(comparison: &Comparison, links: &Links) -> String {
    let ends = comparison.rows.iter().flat_map(|row| [row.low, row.high]).flatten().map(f64::abs);
    let page = Page {
        comparison,
        links,
        labels: Labels::new(&comparison.cases),
        anchors: comparison.cases.iter().enumerate().map(|(at, case)| (case.name.as_str(), at + 1)).collect(),
        reach: ends.fold(NEAREST, f64::max).min(FARTHEST),
    };
    let title = escape::html(&format!("{}: {}", heading(comparison), wording::verdicts(comparison)));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
    let body =
        [page.top(), page.matter(), page.charts(), page.certainty(), page.rows(), page.provenance(), page.left_out()];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}\
         <footer>Written by vllm-perf {}. Every number is in <code>comparison.json</code>.</footer>\n</main>\n</body>\n</html>\n",
        body.concat(),
        escape::html(&escape::name(&comparison.subject.version)),
    )
}

fn heading(comparison: &Comparison) -> String {
    let on =
        comparison.subject.device.as_ref().map(|device| format!(" on {}{}", device.name, wording::device_type(device)));
    format!("vLLM performance{}", on.unwrap_or_default())
}

impl Page<'_> {
    fn top(&self) -> String {
        let subject = &self.comparison.subject;
        let sides = [("head", &subject.head), ("base", &subject.base)];
        let sides: Vec<String> =
            sides.iter().filter_map(|(word, facts)| Some(self.side(word, facts.as_ref()?))).collect();
        let mut facts = vec![sides.join(" against ")];
        facts.retain(|words| !words.is_empty());
        facts.extend(wording::circumstances(self.comparison).iter().map(|fact| escape::html(fact)));
        facts.extend(self.links.run().map(|url| format!("<a href=\"{}\">run</a>", escape::html(&url))));
        let count = |(verdict, number): (Verdict, usize)| {
            format!(
                "<li class=\"{}\"><strong>{}</strong>{}</li>",
                class(verdict),
                number::count(number),
                verdict.as_str()
            )
        };
        let counts: String = wording::counts(&self.comparison.counts).into_iter().map(count).collect();
        let notices = wording::notices(self.comparison);
        let notices = notices.iter().map(|notice| format!("<p class=\"notice\">{}</p>\n", escape::html(notice)));
        format!(
            "<header>\n<h1>{}</h1>\n<p class=\"quiet\">{}</p>\n<ul class=\"counts\" aria-label=\"primary rows by verdict\">{counts}</ul>\n{}</header>\n",
            escape::html(&heading(self.comparison)),
            facts.join(" · "),
            notices.collect::<String>(),
        )
    }

    fn side(&self, word: &str, facts: &SideFacts) -> String {
        let name = format!("<code>{}</code>", escape::html(&wording::side(facts)));
        let name = match facts.commit.as_deref().and_then(|sha| self.links.commit(sha)) {
            Some(url) => format!("<a href=\"{}\">{name}</a>", escape::html(&url)),
            None => name,
        };
        let arguments = wording::server_args(facts).map(|args| format!(" with <code>{}</code>", escape::html(&args)));
        format!("{word} {name}{}", arguments.unwrap_or_default())
    }

    fn matter(&self) -> String {
        let findings = finding::findings(self.comparison);
        if findings.is_empty() {
            return format!("<p><strong>{}</strong></p>\n", escape::html(&wording::nothing_found(self.comparison)));
        }
        let line = |finding: &Finding| match finding {
            Finding::Changed(row) => self.changed(row),
            Finding::Unmeasured(none) => self.unmeasured(none),
        };
        let head =
            head(&["Verdict", "Test", "Metric", "#base", "#head", "#Change", "#95 % interval, %", "On one scale"]);
        let rows: String = findings.iter().map(line).collect();
        format!(
            "<h2>What matters</h2>\n{}<div class=\"wide\"><table>\n{head}<tbody>\n{rows}</tbody>\n</table></div>\n",
            self.scale()
        )
    }

    /// Words for the drawings of changes.
    fn scale(&self) -> String {
        let reach = number::percent(self.reach);
        format!(
            "<p class=\"legend\"><span>Changes are drawn from −{reach} to +{reach}: point and 95 % interval</span>\
             <span><i class=\"band\"></i>below the threshold of its metric</span></p>\n"
        )
    }

    fn test(&self, case: &str) -> String {
        let words = escape::html(&self.labels.of(case).full());
        self.anchors.get(case).map_or(words.clone(), |at| format!("<a href=\"#case-{at}\">{words}</a>"))
    }

    fn changed(&self, row: &Row) -> String {
        let [base, head] = super::values(row).map(|text| escape::html(&text));
        format!(
            "<tr><td>{}</td><th scope=\"row\">{}</th><td>{}</td><td class=\"number\">{base}</td><td class=\"number\">{head}</td>{}<td>{}</td></tr>\n",
            verdict(row.verdict),
            self.test(&row.case),
            escape::html(&escape::name(&row.label)),
            estimate(row),
            self.drawn(row),
        )
    }

    fn unmeasured(&self, none: &Unmeasured) -> String {
        let [base, head] = [none.base, none.head].map(|missing| if missing { "none" } else { "" });
        format!(
            "<tr><td>{}</td><th scope=\"row\">{}</th><td>{}</td><td class=\"number\">{base}</td><td class=\"number\">{head}</td><td colspan=\"3\" class=\"reason\">{}</td></tr>\n",
            verdict(Verdict::NotMeasured),
            self.test(none.case),
            escape::html(&escape::sentence(&none.metrics)),
            escape::html(&escape::sentence(none.reason)),
        )
    }

    fn drawn(&self, row: &Row) -> String {
        svg::change(row, row.min_effect, self.reach)
    }

    fn charts(&self) -> String {
        let curves = chart::curves(self.comparison, &self.labels);
        if curves.is_empty() {
            return String::new();
        }
        let figure = |curve: &chart::Curve| {
            format!("<figure><figcaption>{}</figcaption>{}</figure>\n", escape::html(&curve.test), svg::lines(curve))
        };
        let figures: String = curves.iter().map(figure).collect();
        format!("<h2>Throughput and TTFT over concurrency</h2>\n{LEGEND}<div class=\"charts\">\n{figures}</div>\n")
    }

    fn certainty(&self) -> String {
        if finding::primary(self.comparison).next().is_none() {
            return String::new();
        }
        let sensitivity = wording::sensitivity(self.comparison);
        let row = |metric: &wording::Sensitivity| {
            let numbers = [metric.threshold, metric.typical, metric.worst].map(number::percent);
            let cells: String = numbers.iter().map(|text| format!("<td class=\"number\">{text}</td>")).collect();
            format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escape::html(&metric.label))
        };
        let table = (!sensitivity.is_empty()).then(|| {
            format!(
                "<p>The smallest change in one row that this report could have called one, with 80 % power:</p>\n<div class=\"wide\"><table>\n{}<tbody>\n{}</tbody>\n</table></div>\n",
                head(&["Primary metric", "#Threshold", "#Median row", "#Noisiest row"]),
                sensitivity.iter().map(row).collect::<String>()
            )
        });
        let method: String = wording::method(self.comparison)
            .iter()
            .map(|sentence| format!("<p>{}</p>\n", escape::html(sentence)))
            .collect();
        format!("<h2>How sure is this?</h2>\n{}{method}", table.unwrap_or_default())
    }

    fn rows(&self) -> String {
        let all: Vec<&Row> = self.comparison.rows.iter().collect();
        if all.is_empty() {
            return String::new();
        }
        let tests = all.chunk_by(|a, b| self.labels.of(&a.case).test == self.labels.of(&b.case).test);
        let section = |rows: &[&Row]| {
            let title = rows.first().map(|row| self.labels.of(&row.case).test).unwrap_or_default();
            let cases: String = rows.chunk_by(|a, b| a.case == b.case).map(|rows| self.case(rows)).collect();
            format!("<section>\n<h3>{}</h3>\n{cases}</section>\n", escape::html(&title))
        };
        let sections: String = tests.map(section).collect();
        format!("<h2>Every row</h2>\n{LEGEND}{REPETITIONS}{sections}")
    }

    fn case(&self, rows: &[&Row]) -> String {
        let Some(first) = rows.first() else { return String::new() };
        let label = self.labels.of(&first.case);
        let number = self.anchors.get(first.case.as_str()).copied().unwrap_or_default();
        let (primary, secondary): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.primary);
        let matters = |verdict| matches!(verdict, Verdict::Regressed | Verdict::Improved | Verdict::NotMeasured);
        let open = if primary.iter().any(|row| matters(row.verdict)) { " open" } else { "" };
        let verdicts =
            [Verdict::Regressed, Verdict::Improved, Verdict::NotMeasured, Verdict::Unchanged, Verdict::Inconclusive];
        let counts = verdicts.map(|verdict| (verdict, primary.iter().filter(|row| row.verdict == verdict).count()));
        let words = counts.iter().filter(|(_, count)| *count > 0).map(|(verdict, count)| {
            format!("<span class=\"verdict {}\">{count} {}</span>", class(*verdict), verdict.as_str())
        });
        let load = if label.load.is_empty() { String::new() } else { format!("<b>{}</b>", escape::html(&label.load)) };
        let head = head(&[
            "Metric",
            "Verdict",
            "#base",
            "#head",
            "Repetitions",
            "#Change",
            "#95 % interval, %",
            "On one scale",
        ]);
        let body = |rows: &[&Row]| rows.iter().map(|row| self.row(row)).collect::<String>();
        let secondary = match secondary.as_slice() {
            [] => String::new(),
            rows => format!(
                "<tbody class=\"secondary\">\n<tr><th colspan=\"8\" class=\"heading\" scope=\"rowgroup\">Secondary: shown, never an alarm</th></tr>\n{}</tbody>\n",
                body(rows)
            ),
        };
        format!(
            "<details id=\"case-{number}\"{open}><summary>{}{}</summary>\n<div class=\"inside\">\n{}<div class=\"wide\"><table>\n{head}<tbody>\n{}</tbody>\n{secondary}</table></div>\n</div></details>\n",
            load,
            words.collect::<Vec<_>>().join(", "),
            self.problems(&first.case),
            body(&primary),
        )
    }

    fn problems(&self, case: &str) -> String {
        let facts = self.comparison.cases.iter().find(|facts| facts.name == case);
        let told = facts.map(|facts| [&facts.problems, &facts.warnings].map(|list| wording::problems(list)));
        let sentences = told.map(|lists| lists.concat()).unwrap_or_default();
        let line = |sentence: &String| format!("<p class=\"notice small\">{}</p>\n", escape::html(sentence));
        sentences.iter().map(line).collect()
    }

    fn row(&self, row: &Row) -> String {
        let [base, head] = super::values(row).map(|text| escape::html(&text));
        let threshold = number::percent(row.min_effect);
        let why = escape::html(&escape::sentence(&row.why));
        let noise = wording::noise(row);
        let why = format!("<small>{why}; threshold {threshold}{noise}</small>").replace(" %", "\u{a0}%");
        let verdict = if row.primary { verdict(row.verdict) } else { String::new() };
        format!(
            "<tr><th scope=\"row\">{}{why}</th><td>{verdict}</td><td class=\"number\">{base}</td><td class=\"number\">{head}</td><td>{}</td>{}<td>{}</td></tr>\n",
            escape::html(&escape::name(&row.label)),
            svg::strip(row, self.is_paired(row)),
            estimate(row),
            self.drawn(row),
        )
    }

    /// Whether the values of a row are known to stand in the order of the pairs: none failed, so none is missing.
    fn is_paired(&self, row: &Row) -> bool {
        let facts = self.comparison.cases.iter().find(|facts| facts.name == row.case);
        self.comparison.method.strategy != Strategy::Single
            && row.base.len() == row.head.len()
            && facts.is_some_and(|facts| facts.problems.is_empty())
    }

    fn provenance(&self) -> String {
        let cell = |side: &Option<String>| {
            let words = side.as_deref().filter(|words| !words.is_empty());
            format!(
                "<td>{}</td>",
                words.map(|words| format!("<code>{}</code>", escape::html(words))).unwrap_or_default()
            )
        };
        let rows = wording::provenance(self.comparison);
        let row = |(name, [base, head]): &(&str, [Option<String>; 2])| {
            format!("<tr><th scope=\"row\">{name}</th>{}{}</tr>\n", cell(base), cell(head))
        };
        let body: String = rows.iter().map(row).collect();
        let head = head(&["", "base", "head"]);
        let table = format!("<div class=\"wide\"><table>\n{head}<tbody>\n{body}</tbody>\n</table></div>\n");
        let environment = ran::environment(self.comparison);
        let environment = environment.iter().map(|sentence| format!("<p>{}</p>\n", escape::html(sentence)));
        let command = wording::reproduce(self.comparison);
        let command = command.map(|command| format!("<p>The same again:</p>\n<pre>{}</pre>\n", escape::html(&command)));
        format!(
            "<h2>What ran</h2>\n{}{}{}",
            if rows.is_empty() { "" } else { &table },
            environment.collect::<String>(),
            command.unwrap_or_default(),
        )
    }

    fn left_out(&self) -> String {
        if self.comparison.skipped.is_empty() {
            return String::new();
        }
        let item = |test: &vllm_verdict::v1::Skipped| {
            let [name, reason] =
                [escape::name(&test.name), escape::sentence(&test.reason)].map(|text| escape::html(&text));
            format!("<li><code>{name}</code>: {reason}</li>\n")
        };
        format!("<h2>Left out</h2>\n<ul>\n{}</ul>\n", self.comparison.skipped.iter().map(item).collect::<String>())
    }
}

const LEGEND: &str = "<p class=\"legend\"><span><i class=\"base\"></i>base</span><span><i></i>head</span></p>\n";

const REPETITIONS: &str = "<p class=\"quiet small\">One point a repetition, a bar at the median, a line from base to head of each pair.</p>\n";

/// A table's head; `#` before a title makes its column one of numbers.
fn head(titles: &[&str]) -> String {
    let cell = |title: &&str| match title.strip_prefix('#') {
        Some(title) => format!("<th scope=\"col\" class=\"number\">{title}</th>"),
        None if title.is_empty() => "<td></td>".to_owned(),
        None => format!("<th scope=\"col\">{title}</th>"),
    };
    format!("<thead><tr>{}</tr></thead>\n", titles.iter().map(cell).collect::<String>())
}

fn verdict(verdict: Verdict) -> String {
    format!("<span class=\"verdict {}\">{}</span>", class(verdict), verdict.as_str())
}

fn class(verdict: Verdict) -> String {
    verdict.as_str().replace(' ', "-")
}

/// Two cells: change, and interval with p and q.
fn estimate(row: &Row) -> String {
    let change = row.estimate.map(|change| format!("<strong>{}</strong>", number::change(change))).unwrap_or_default();
    let interval = row.low.zip(row.high).map(|(low, high)| number::interval(low, high)).unwrap_or_default();
    let chances = [("p", row.p), ("q", row.q)];
    let chances: Vec<String> = chances
        .iter()
        .filter_map(|(name, chance)| chance.map(|chance| format!("{name} {}", escape::html(&number::chance(chance)))))
        .collect();
    let chances = if chances.is_empty() { String::new() } else { format!("<small>{}</small>", chances.join(", ")) };
    format!("<td class=\"number\">{change}</td><td class=\"number\">{interval}{chances}</td>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    fn balanced(page: &str) {
        for tag in [
            "section", "details", "summary", "table", "thead", "tbody", "tr", "td", "th", "svg", "figure", "p", "ul",
            "a",
        ] {
            let open = page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
            assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "<{tag}>");
        }
    }

    #[test]
    fn the_page_is_whole_and_needs_nothing_else() {
        let comparison = example::comparison();
        let page = page(&comparison, &Links::default());
        balanced(&page);
        for outside in ["<script", "http://", "https://", "url(", "@import", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(
            page.matches("class=\"strip\"").count(),
            comparison.rows.iter().filter(|row| !row.base.is_empty()).count()
        );
        for case in 1..=comparison.cases.len() {
            assert!(page.contains(&format!("id=\"case-{case}\"")));
        }
        let why = page.matches("; threshold ").count();
        assert_eq!(why, comparison.rows.len(), "every row says why");
        assert!(page.contains("<a href=\"#case-4\">llama8B tp1, random 128/2048, c=64</a>"));
    }

    #[test]
    fn a_row_shows_its_repetitions_its_numbers_and_its_reason() {
        let comparison = example::comparison();
        let page = page(&comparison, &Links::default());
        let row =
            page.lines().filter(|line| line.starts_with("<tr><th scope=\"row\">Output throughput")).nth(3).unwrap();
        let drawing = regex::Regex::new("<svg class=\"([a-z]+)[^>]*>.*?</svg>").unwrap();
        insta::assert_snapshot!(drawing.replace_all(row, "[$1]").replace("</td>", "</td>\n"), @r#"
        <tr><th scope="row">Output throughput<small>the 90 % interval lies inside ±5 %; threshold 2 %; uncalibrated: noise of its own repetitions</small></th><td><span class="verdict unchanged">unchanged</span></td>
        <td class="number">301.3 tok/s</td>
        <td class="number">302.5 tok/s</td>
        <td>[strip]</td>
        <td class="number"><strong>+0.4 %</strong></td>
        <td class="number">−1.0 … +1.8<small>p 0.61, q 0.88</small></td>
        <td>[change]</td>
        </tr>
        "#);
    }

    #[test]
    fn hostile_names_stay_text() {
        let mut comparison = example::comparison();
        let hostile = "\"><script>alert(1)</script><svg onload='x'>";
        comparison
            .rows
            .iter_mut()
            .for_each(|row| (row.label, row.unit, row.why) = (hostile.into(), hostile.into(), hostile.into()));
        comparison.cases.iter_mut().for_each(|case| case.test = hostile.into());
        comparison.subject.head.as_mut().unwrap().commit = Some(hostile.into());
        let page = page(&comparison, &Links { run: Some("javascript:alert(1)".into()), ..Links::default() });
        balanced(&page);
        assert!(!page.contains("<script") && !page.contains("onload='") && !page.contains("javascript:"));
    }
}
