//! Markdown: the comment on the pull request, GitHub's job summary, Buildkite's annotation. All three consist of the same
//! blocks; they differ in what is folded, in charts, and in their size limits.

use vllm_verdict::Untrusted;
use vllm_verdict::v1::{Comparison, SideFacts};

use super::budget::{Block, fit};
use super::finding;
use super::label::Labels;
use super::markdown_tables::{
    cell, changed_rows, findings_table, has_changed_rows, primary_rows, secondary_rows, section,
};
use super::{Links, chart, headline, method, next_steps, number, one_side, ran, wording};
use crate::escape;
use crate::names::Commit;

/// Largest comment, in bytes. GitHub's limit is 65,536 characters; the difference is room for later additions.
pub const COMMENT_BUDGET: usize = 60_000;
/// Largest job summary, in bytes: GitHub discards summaries above 1,048,576.
pub const SUMMARY_BUDGET: usize = 1_000_000;
/// Largest annotation, in bytes: `buildkite-agent annotate` rejects more than 1,048,576.
pub const ANNOTATION_BUDGET: usize = 1_000_000;

/// Largest number of charts in a document; comments are also read on phones.
const MAX_CHARTS: usize = 8;
/// Largest number of failures, and of warnings, outside a fold.
const MAX_FAILURES: usize = 5;
/// The start of the line about a run in progress, by which [`in_progress`] finds it.
const IN_PROGRESS: &str = "> ⏳ ";

/// The kind of a document.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DocumentKind {
    Comment,
    Summary,
    Annotation,
}

/// The first line of the comment `id`, which identifies vllm-perf's comment for one configuration.
pub fn marker(id: &str) -> String {
    format!("{} -->", marker_start(id))
}

/// The start of that line: more facts about the report may follow it after a space.
pub fn marker_start(id: &str) -> String {
    let id: String = id.chars().filter(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(*letter)).collect();
    format!("<!-- vllm-perf:v1 id={id}")
}

/// The comment on the pull request, at most [`COMMENT_BUDGET`] bytes. `id` is the configuration's; `outdated` is the
/// new head of the pull request, if it has changed since the measurement.
pub fn comment(comparison: &Comparison, links: &Links, id: &str, outdated: Option<&str>) -> String {
    let outdated = outdated.map(|now| outdated_note(comparison, links, now));
    let top = format!("{}\n{}", marker(id), top(comparison, links, outdated));
    document(comparison, links, top, DocumentKind::Comment, COMMENT_BUDGET)
}

/// GitHub's job summary, at most [`SUMMARY_BUDGET`] bytes: the comment without folds.
pub fn summary(comparison: &Comparison, links: &Links) -> String {
    document(comparison, links, top(comparison, links, None), DocumentKind::Summary, SUMMARY_BUDGET)
}

/// Buildkite's annotation, at most [`ANNOTATION_BUDGET`] bytes, without charts, which Buildkite does not render.
pub fn annotation(comparison: &Comparison, links: &Links) -> String {
    document(comparison, links, top(comparison, links, None), DocumentKind::Annotation, ANNOTATION_BUDGET)
}

/// The job summary of a skipped run, with the reason of the trigger.
pub fn skipped(reason: &str) -> String {
    format!("Not benchmarked: {}\n", with_code(&escape::sentence(reason)))
}

/// An existing comment with a line after its marker that announces a newer run. A previous such line is replaced.
pub fn in_progress(existing: &str, run: Option<&str>) -> String {
    let existing = existing.replace("\r\n", "\n");
    let (marker, content) = existing.split_once('\n').unwrap_or((&existing, ""));
    let content = match content.strip_prefix(IN_PROGRESS) {
        Some(announced) => announced.split_once('\n').map_or("", |(_, content)| content.trim_start_matches('\n')),
        None => content,
    };
    let link = run.and_then(escape::url).map(|url| format!(" ([run]({url}))")).unwrap_or_default();
    format!(
        "{marker}\n{IN_PROGRESS}A new run is in progress{link}. The results below are those of the previous run.\n\n{content}"
    )
}

/// Escaped text in which pairs of backticks stay code spans: the reasons of a trigger quote labels with them.
fn with_code(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return escape::markdown(text);
    }
    let part = |(at, part): (usize, &&str)| if at % 2 == 0 { escape::markdown(part) } else { escape::code(part) };
    parts.iter().enumerate().map(part).collect()
}

fn outdated_note(comparison: &Comparison, links: &Links, now: &str) -> String {
    let measured = comparison.subject.head.as_ref().map(|head| side(head, links)).unwrap_or_default();
    format!("outdated: measured {measured}, head is now {}", commit(now, links))
}

fn document(comparison: &Comparison, links: &Links, top: String, kind: DocumentKind, budget: usize) -> String {
    let labels = Labels::new(&comparison.cases);
    let folded = kind != DocumentKind::Summary;
    let mut blocks = vec![Block { open: top, ..Block::default() }];
    let is_alone = one_side::is_alone(comparison);
    let findings = finding::findings(comparison, &labels);
    let has_changed_rows = has_changed_rows(comparison, &findings);
    blocks.push(match is_alone {
        true => Block { open: format!("{}\n\n", one_side::LEAD), ..Block::default() },
        false => findings_table(comparison, &findings, links),
    });
    blocks.extend(problem_list("Failed runs (excluded)", "failure", wording::failures(comparison, &labels)));
    blocks.extend(problem_list("Warnings", "warning", wording::warnings(comparison, &labels)));
    if has_changed_rows {
        blocks.extend(changed_rows(comparison, &labels, folded));
    }
    blocks.extend(primary_rows(comparison, &labels, folded, has_changed_rows));
    if kind != DocumentKind::Annotation {
        blocks.extend(charts(comparison, &labels, kind));
    }
    blocks.extend(certainty(comparison, kind).filter(|_| !is_alone));
    blocks.push(reproduction(comparison, kind));
    blocks.extend(skipped_tests(comparison, kind));
    blocks.extend(secondary_rows(comparison, &labels));
    blocks.extend(next_steps(comparison));
    let elsewhere = match links.artifact() {
        Some(url) => format!("in the [report]({url})."),
        None => "in `report.html` of the run's output.".to_owned(),
    };
    fit(&blocks, budget, &elsewhere)
}

fn top(comparison: &Comparison, links: &Links, outdated: Option<String>) -> String {
    let subject = &comparison.subject;
    let device = subject.device.as_ref();
    let on = device.map(|device| format!(" on `{}`{}", device.name, escape::markdown(wording::device_type(device))));
    let sides = [("head", &subject.head), ("base", &subject.base)].map(|(word, facts)| {
        facts.as_ref().map(|facts| {
            let arguments = wording::server_args(facts).map(|args| format!(" with {}", escape::code(&args)));
            format!("`{word}` {}{}", side(facts, links), arguments.unwrap_or_default())
        })
    });
    let mut facts = vec![sides.into_iter().flatten().collect::<Vec<_>>().join(" against ")];
    facts.retain(|words| !words.is_empty());
    facts.extend(wording::circumstances(comparison));
    facts.extend(links.artifact().map(|url| format!("[report]({url})")));
    facts.extend(links.run().map(|url| format!("[run]({url})")));
    let mut top = format!(
        "### {}vLLM performance{}: {}\n\n{}\n\n",
        outdated.map(|words| format!("{words} · ")).unwrap_or_default(),
        on.unwrap_or_default(),
        escape::markdown(headline::headline(comparison)),
        facts.join(" · "),
    );
    let notices = match one_side::is_alone(comparison) {
        true => comparison.conduct.notices.iter().map(|notice| escape::sentence(notice).into()).collect(),
        false => wording::notices(comparison),
    };
    for notice in notices {
        top.push_str(&format!("> {}\n\n", escape::markdown(notice)));
    }
    top
}

/// The commit of a side as a link, or its target.
fn side(facts: &SideFacts, links: &Links) -> String {
    facts.commit.as_ref().map_or_else(|| escape::code(&facts.target), |sha| commit(sha.raw(), links))
}

fn commit(sha: &str, links: &Links) -> String {
    let short = wording::short(sha);
    // A hash needs no escaping, and is one word that can be copied.
    let words = if Commit::is_hash(sha) { short.raw().to_owned() } else { escape::markdown(short) };
    links.commit(sha).map_or(words.clone(), |url| format!("[{words}]({url})"))
}

/// The first sentences as a list under a title.
fn problem_list(title: &str, noun: &'static str, sentences: Vec<Untrusted>) -> Option<Block> {
    let rest = sentences.len().saturating_sub(MAX_FAILURES);
    let mut items: Vec<String> =
        sentences.iter().take(MAX_FAILURES).map(|sentence| format!("- {}\n", escape::markdown(sentence))).collect();
    if rest > 0 {
        items.push(format!("- and {} more\n", number::count(rest)));
    }
    (!items.is_empty()).then(|| Block {
        priority: 0,
        open: format!("{title}:\n\n"),
        items,
        close: "\n".to_owned(),
        noun,
        title: title.to_owned(),
    })
}

fn charts(comparison: &Comparison, labels: &Labels, kind: DocumentKind) -> Option<Block> {
    let curves = chart::curves(comparison, labels);
    let items: Vec<String> = curves.iter().take(MAX_CHARTS).map(chart::Curve::mermaid).collect();
    let open = section("Throughput and TTFT over concurrency", 4, kind != DocumentKind::Summary);
    let more = curves.len().saturating_sub(MAX_CHARTS);
    let more = if more > 0 { format!("\n{} not shown.\n", number::plural(more, "more chart")) } else { String::new() };
    (!items.is_empty()).then(|| Block { items, noun: "chart", close: more + &open.close, ..open })
}

fn certainty(comparison: &Comparison, kind: DocumentKind) -> Option<Block> {
    finding::primary(comparison).next()?;
    let block = section("How sure is this?", 0, kind != DocumentKind::Summary);
    let sensitivity = wording::sensitivity(comparison);
    let mut items = Vec::new();
    if !sensitivity.is_empty() {
        let rows = sensitivity.iter().map(|metric| {
            let [min_effect, typical, worst] = [metric.min_effect, metric.typical, metric.worst].map(number::percent);
            let overall = metric.overall.map(number::percent).unwrap_or_default();
            format!("| {} | {min_effect} | {overall} | {typical} | {worst} |\n", cell(&metric.label))
        });
        items.push(format!(
            "Smallest detectable change (80 % power):\n\n| Primary metric | minimum effect | all cases | median row | noisiest row |\n|---|--:|--:|--:|--:|\n{}\n",
            rows.collect::<String>()
        ));
    }
    items.push(format!("{}\n", method::method(comparison).join(" ")));
    Some(Block { items, noun: "fact", ..block })
}

fn reproduction(comparison: &Comparison, kind: DocumentKind) -> Block {
    let block = section("What ran, and how to run it yourself", 0, kind != DocumentKind::Summary);
    let mut items = Vec::new();
    let rows = wording::provenance(comparison);
    if !rows.is_empty() {
        let row = |(name, sides): &(&str, [Option<Untrusted>; 2])| {
            let [base, head] = sides.each_ref().map(|side| side.as_ref().map(escape::code).unwrap_or_default());
            format!("| {name} | {base} | {head} |\n")
        };
        items.push(format!("| | base | head |\n|---|---|---|\n{}\n", rows.iter().map(row).collect::<String>()));
    }
    items.push(format!(
        "{}\n\n",
        ran::environment(comparison).iter().map(escape::markdown).collect::<Vec<_>>().join(" ")
    ));
    items.extend(wording::reproduce(comparison).map(escape::fence));
    Block { items, noun: "fact", ..block }
}

fn skipped_tests(comparison: &Comparison, kind: DocumentKind) -> Option<Block> {
    let title = format!("{} skipped", number::plural(comparison.skipped.len(), "test"));
    let items = comparison.skipped.iter().map(|test| {
        format!("- {}: {}\n", escape::code(escape::name(&test.name)), escape::markdown(escape::sentence(&test.reason)))
    });
    let block = section(&title, 2, kind != DocumentKind::Summary);
    (!comparison.skipped.is_empty()).then(|| Block { items: items.collect(), noun: "test", ..block })
}

/// What to do next, at the end.
fn next_steps(comparison: &Comparison) -> Option<Block> {
    let steps = next_steps::steps(comparison);
    let step =
        |step: &next_steps::Step| format!("{}\n\n{}\n", escape::markdown(&step.purpose), escape::fence(&step.command));
    (!steps.is_empty()).then(|| Block {
        open: "#### Next steps\n\n".to_owned(),
        items: steps.iter().map(step).collect(),
        noun: "step",
        ..Block::default()
    })
}

#[cfg(test)]
mod tests {
    use vllm_verdict::v1::Verdict;

    use super::*;
    use crate::report::example;

    fn links() -> Links {
        Links {
            run: Some("https://github.com/vllm-project/vllm/actions/runs/77".into()),
            artifact: Some("https://github.com/vllm-project/vllm/actions/runs/77/artifacts/5".into()),
            server: Some("https://github.com".into()),
            repository: Some("vllm-project/vllm".into()),
        }
    }

    /// Checks what holds for every document: folds and fences are closed, and it is within its budget.
    fn is_whole(text: &str, budget: usize) {
        assert!(text.len() <= budget, "{} bytes", text.len());
        assert!(text.matches("\n```").count().is_multiple_of(2));
        let outside: String = text.split("\n```").step_by(2).collect();
        assert_eq!(outside.matches("<details>").count(), outside.matches("</details>").count());
        let columns = |line: &str| line.matches('|').count();
        for pair in text.lines().collect::<Vec<_>>().windows(2) {
            if pair.iter().all(|line| line.starts_with('|')) {
                assert_eq!(columns(pair[0]), columns(pair[1]), "{pair:#?}");
            }
        }
    }

    #[test]
    fn the_comment_begins_with_the_findings_and_folds_the_rest() {
        let text = comment(&example::comparison(), &links(), "3f9c0a1b2c4d", None).replace('\u{a0}', " ");
        is_whole(&text, COMMENT_BUDGET);
        let (top, folds) = text.split_once("<details>").unwrap();
        insta::assert_snapshot!(top, @"
        <!-- vllm-perf:v1 id=3f9c0a1b2c4d -->
        ### vLLM performance on `cpu` (AMD EPYC 9654 96-Core 96c): regressed: 1 case fails on head, 2 rows regressed, 1 improved, 30 unchanged, 1 inconclusive, 6 of 50 runs of head failed (base: 0)

        `head` [1da94e6](https://github.com/vllm-project/vllm/commit/1da94e6c0d2b7a8f9e1c3b5a7d9f0e2c4a6b8d0f) against `base` [7f42dc2](https://github.com/vllm-project/vllm/commit/7f42dc25b1f0c1a5e6d2a9b3c4d5e6f708192a3b) · 5 interleaved pairs · 52 min · 2026-11-24 10:12 UTC · [report](https://github.com/vllm-project/vllm/actions/runs/77/artifacts/5) · [run](https://github.com/vllm-project/vllm/actions/runs/77)

        | | What | change | 95 % interval | base | head |
        |---|---|--:|:--:|--:|--:|
        | 🔴 | llama8B tp2, sharegpt, c=200: head failed in 5 of 5 repetitions, base in none: out of memory ([log](https://github.com/vllm-project/vllm/actions/runs/77/artifacts/5)) | | | | |
        | 🔴 | llama8B tp1, random 128/2048, c=64: Output throughput | **−9.8 %** | −11.2 … −8.4 | 412.7 tok/s | 372.3 tok/s |
        | 🔴 | llama8B tp1, random 128/2048, c=64: P99 TTFT | **+15.5 %** | +11.8 … +19.2 | 1,207 ms | 1,394 ms |
        | 🟢 | throughput llama8B tp1: Total token throughput | **+6.0 %** | +4.6 … +7.4 | 2,183 tok/s | 2,313 tok/s |

        Failed runs (excluded):

        - gemma3-4b tp1, random 128/128, c=64: head, repetition 3: 2 of 200 requests failed: connection reset by peer
        ");
        let (_, sure) = folds.split_once("<details><summary>How sure").unwrap();
        let (sure, _) = sure.split_once("<details><summary>1 test").unwrap();
        insta::assert_snapshot!(sure, @"
         is this?</summary>

        Smallest detectable change (80 % power):

        | Primary metric | minimum effect | all cases | median row | noisiest row |
        |---|--:|--:|--:|--:|
        | Output throughput | 2 % |  | 1.8 % | 1.8 % |
        | Median TTFT | 3 % |  | 2.7 % | 2.7 % |
        | P99 TTFT | 8 % |  | 4.8 % | 4.8 % |
        | Median TPOT | 3 % |  | 2.7 % | 2.7 % |
        | P99 TPOT | 8 % |  | 4.8 % | 4.8 % |
        | Median latency | 3 % |  | 2.7 % | 2.7 % |
        | Cold start | 3 % |  | 2.7 % | 2.7 % |
        | Warm start | 3 % |  | 2.7 % | 2.7 % |
        | Total token throughput | 2 % |  | 1.8 % | 1.8 % |

        False discovery rate 2 % over 39 primary rows (Benjamini-Hochberg). A row is regressed or improved if its change is significant after this correction and at least the minimum effect. Hodges-Lehmann estimates over 5 interleaved pairs, order alternating, base first (seed 20261124), a fresh server for every repetition. Not blocked: the variance inside pairs is 0.93 of that inside sides. Base and head are shown around the geometric mean of both, apart by the estimated change. Noise: all rows not calibrated, noise of their own repetitions.

        </details>

        <details><summary>What ran, and how to run it yourself</summary>

        | | base | head |
        |---|---|---|
        | target | `image:public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo:7f42dc25b1f0c1a5e6d2a9b3c4d5e6f708192a3b-cpu` | `image:public.ecr.aws/q9t5s3a7/vllm-ci-test-repo:1da94e6c0d2b7a8f9e1c3b5a7d9f0e2c4a6b8d0f-cpu` |
        | image digest | `sha256:4444444444444444444444444444444444444444444444444444444444444444` | `sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb` |
        | commit | `7f42dc25b1f0c1a5e6d2a9b3c4d5e6f708192a3b` | `1da94e6c0d2b7a8f9e1c3b5a7d9f0e2c4a6b8d0f` |
        | vLLM | `0.32.1.dev41+cpu` | `0.32.1.dev42+cpu` |

        Host: AMD EPYC 9654 96-Core Processor, 192 logical processors, 2 NUMA nodes, 755 GiB, kernel 6.8.0-45-generic, governor performance. Client: native; vllm bench for the other kinds of tests. vllm-perf 1.0.0.

        ```
        vllm-perf run --base image:public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo:7f42dc25b1f0c1a5e6d2a9b3c4d5e6f708192a3b-cpu --head image:public.ecr.aws/q9t5s3a7/vllm-ci-test-repo:1da94e6c0d2b7a8f9e1c3b5a7d9f0e2c4a6b8d0f-cpu --device cpu --only llama8B_tp1 --pairs 5
        ```

        </details>
        ");
        let titles: Vec<_> = text.lines().filter(|line| line.starts_with("<details>")).collect();
        insta::assert_snapshot!(titles.join("\n"), @r"
        <details><summary>All 39 primary rows</summary>
        <details><summary>Throughput and TTFT over concurrency</summary>
        <details><summary>How sure is this?</summary>
        <details><summary>What ran, and how to run it yourself</summary>
        <details><summary>1 test skipped</summary>
        <details><summary>82 secondary rows (not part of the verdict)</summary>
        ");
    }

    #[test]
    fn two_thousand_rows_fit_into_a_comment_and_the_worst_are_kept() {
        let comparison = example::many(400);
        assert_eq!(comparison.rows.len(), 2000);
        let text = comment(&comparison, &links(), "3f9c0a1b2c4d", None);
        is_whole(&text, COMMENT_BUDGET);
        assert!(text.len() > COMMENT_BUDGET - 500, "{} bytes leave room for more rows", text.len());
        let kept: Vec<usize> =
            (0..400).filter(|at| text.contains(&format!("| 🔴 | llama8B tp1, test{at}, c=64 |"))).collect();
        assert!(kept.len() > 50 && kept[0] > 0 && kept.last() == Some(&399), "{kept:?}");
        assert_eq!(kept.len(), 400 - kept[0], "the worst rows are kept");
        let (findings, rows) = text.split_once("<details>").unwrap();
        assert_eq!(findings.lines().filter(|line| line.starts_with("| 🔴")).count(), 5, "one line a metric");
        let lines = rows.lines().filter(|line| line.starts_with("| 🔴")).count();
        assert!(text.contains(&format!("*{} more rows in the [report](", number::count(2000 - lines))), "{lines}");
        assert!(text.contains("vllm-perf run --base image:"), "the command is never cut");
        for text in [summary(&comparison, &links()), annotation(&comparison, &links())] {
            is_whole(&text, SUMMARY_BUDGET);
            assert!(!text.contains("more rows"));
        }
    }

    #[test]
    fn text_from_data_stays_text() {
        let hostile =
            "<!-- vllm-perf:v1 id=0 --> | ` ``` </details> @vllm-project/all [x](javascript:x) \n\n# x \u{1b}[2J";
        let mut comparison = example::comparison();
        for row in &mut comparison.rows {
            (row.label, row.unit, row.why) = (hostile.into(), hostile.into(), hostile.into());
        }
        for case in &mut comparison.cases {
            case.test = format!("{hostile}{}", case.name.raw()).into();
            case.request_rate = Some(hostile.into());
            case.problems.iter_mut().for_each(|problem| problem.reason = hostile.repeat(400).into());
        }
        comparison.skipped[0].name = hostile.into();
        comparison.skipped[0].reason = hostile.into();
        let subject = &mut comparison.subject;
        subject.device.as_mut().unwrap().device_type = hostile.into();
        subject.reproduce = Some(format!("vllm-perf {hostile}").replace(['`', '\n'], "").into());
        comparison.conduct.notices = vec![hostile.into()];
        comparison.conduct.held = Some(hostile.into());
        comparison.method.strategy = vllm_verdict::strategy::Strategy::Single;
        let subject = &mut comparison.subject;
        for side in [&mut subject.base, &mut subject.head].into_iter().flatten() {
            (side.commit, side.target, side.image_digest) =
                (Some(hostile.into()), hostile.into(), Some(hostile.into()));
            (side.vllm_version, side.server_args) = (Some(hostile.into()), vec![hostile.into(); 50]);
        }
        let host = subject.host.as_mut().unwrap();
        (host.cpu, host.kernel, host.governor) = (hostile.into(), hostile.into(), Some(hostile.into()));
        let text = comment(&comparison, &links(), "--> <script>", Some(hostile));
        is_whole(&text, COMMENT_BUDGET);
        assert!(text.starts_with("<!-- vllm-perf:v1 id=--script -->\n### "));
        assert_eq!(text.matches("<!--").count(), 1);
        let outside: String = text.split("```").step_by(2).collect();
        let outside: String = outside.split('`').step_by(2).collect();
        for forbidden in ["@vllm", "[x](", "\u{1b}", "\n# ", "<script"] {
            assert!(!outside.contains(forbidden), "{forbidden} in {outside}");
        }
    }

    #[test]
    fn the_headline_of_a_comment_on_an_older_commit_is_marked_outdated() {
        let text = comment(&example::comparison(), &Links::default(), "x", Some("9c1b2aa0f1e2d3c4"));
        let headline = text.lines().nth(1).unwrap();
        insta::assert_snapshot!(headline, @"### outdated: measured 1da94e6, head is now 9c1b2aa · vLLM performance on `cpu` (AMD EPYC 9654 96-Core 96c): regressed: 1 case fails on head, 2 rows regressed, 1 improved, 30 unchanged, 1 inconclusive, 6 of 50 runs of head failed (base: 0)");
    }

    #[test]
    fn a_run_in_progress_is_announced_once_and_keeps_the_comment() {
        let before = comment(&example::comparison(), &links(), "3f9c0a1b2c4d", None);
        let once = in_progress(&before.replace('\n', "\r\n"), Some("https://ci.example/2"));
        assert!(once.starts_with(
            "<!-- vllm-perf:v1 id=3f9c0a1b2c4d -->\n> ⏳ A new run is in progress ([run](https://ci.example/2))."
        ));
        assert!(once.ends_with(before.split_once('\n').unwrap().1));
        assert_eq!(in_progress(&once, Some("https://ci.example/2")), once);
        assert_eq!(in_progress(&once, None), in_progress(&before, None));
    }

    #[test]
    fn a_skipped_run_is_one_line_in_the_summary() {
        let reason = "the pull request has `perf-benchmarks` but not `ready`. Add `ready` to run it.";
        insta::assert_snapshot!(skipped(reason), @"Not benchmarked: the pull request has `perf-benchmarks` but not `ready`. Add `ready` to run it.");
        insta::assert_snapshot!(skipped("no label `<b>` and | @x `y").replace('\u{200b}', "·"), @r"Not benchmarked: no label &#96;&lt;b&gt;&#96; and &#124; @·x &#96;y");
    }

    #[test]
    fn without_findings_the_comment_states_that_nothing_changed() {
        let mut comparison = example::comparison();
        comparison.rows.retain(|row| row.verdict == Verdict::Unchanged);
        comparison.counts = example::count(&comparison.rows);
        assert!(comment(&comparison, &links(), "x", None).contains("\n\nNo primary row changed.\n\n"));
        comparison.rows[0].verdict = Verdict::Inconclusive;
        comparison.counts = example::count(&comparison.rows);
        let text = comment(&comparison, &links(), "x", None);
        assert!(text.contains("\n\nNo primary row changed; 1 primary row is inconclusive.\n\n"));
    }

    #[test]
    fn folders_without_further_information_are_compared() {
        let mut comparison = example::comparison();
        let subject = &mut comparison.subject;
        (subject.device, subject.host, subject.reproduce) = (None, None, None);
        (subject.started, subject.seconds) = (None, None);
        for (side, folder) in [(&mut subject.base, "old/results"), (&mut subject.head, "new/results")] {
            *side = Some(SideFacts { target: folder.into(), ..SideFacts::default() });
        }
        let text = comment(&comparison, &Links::default(), "x", None);
        is_whole(&text, COMMENT_BUDGET);
        let top: Vec<&str> = text.lines().skip(1).take(3).collect();
        insta::assert_snapshot!(top.join("\n"), @"
        ### vLLM performance: regressed: 1 case fails on head, 2 rows regressed, 1 improved, 30 unchanged, 1 inconclusive, 6 of 50 runs of head failed (base: 0)

        `head` `new/results` against `base` `old/results` · 5 pairs
        ");
    }

    #[test]
    fn buildkite_gets_no_charts_and_the_job_summary_gets_few_folds() {
        let comparison = example::comparison();
        let (summary, annotation) = (summary(&comparison, &links()), annotation(&comparison, &links()));
        assert_eq!((summary.matches("```mermaid").count(), annotation.matches("```mermaid").count()), (4, 0));
        assert_eq!((summary.matches("<details>").count(), annotation.matches("<details>").count()), (1, 5));
    }
}
