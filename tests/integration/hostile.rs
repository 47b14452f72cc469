//! Hostile text in every field of `comparison.json`: no rendering shows it as anything but text.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag};
use regex::Regex;
use serde_json::Value;
use vllm_perf::report::{Links, html, markdown, terminal, values_page};
use vllm_verdict::v1::Comparison;

/// A comparison in which every field has a value.
const FILLED: &str = include_str!("../data/comparison/filled.json");

/// Mark-up of every output, each of which would show, link, notify or run something if it were taken as it is.
const HOSTILE: [&str; 9] = [
    "<img src=//canary.example/p.png> <a href=//canary.example>x</a><script>canary()</script>",
    "[x](https://canary.example) ![x](https://canary.example/p.png) [x]: https://canary.example <https://canary.example>",
    "https://canary.example www.canary.example ftp://canary.example me@canary.example mailto:me@canary.example",
    "@canary-user @canary/team #1 canary/repo#2 GH-3 gh-3 canary/repo@0123456789abcdef0123456789abcdef01234567 fixes #4",
    "0123456789abcdef0123456789abcdef01234567 deadbee 1234567",
    "``` ~~~ ` </details></summary> <!-- canary --> --> |x|y|\n|---|---|\n# canary\n> canary\n- canary\n1. canary\n\n    canary",
    "\u{202e}canary\u{2066} \u{1b}[31m \u{1b}]8;;https://canary.example\u{7}x \u{9b}31m \r\n::error::canary\n##[error]canary \u{feff}",
    "\" onmouseover=canary() x=\" ' onload='canary() </title></style></svg> &lt;script&gt; &#60;script&#62;",
    "**canary** ***canary*** _canary_ ~~canary~~ $canary$ $$canary$$ \\[x\\](https://canary.example) %%{init: canary}%% \"] --> canary",
];

/// Renders with each string leaf replaced, one at a time; `look` sees the name of the leaf and the documents.
fn each_leaf(mut look: impl FnMut(&str, &Comparison)) -> usize {
    let filled: Value = serde_json::from_str(FILLED).unwrap();
    let mut pointers = Vec::new();
    strings(&filled, String::new(), &mut pointers);
    let mut taken = 0;
    for pointer in &pointers {
        for hostile in HOSTILE {
            let mut changed = filled.clone();
            *changed.pointer_mut(pointer).unwrap() = hostile.into();
            // A leaf that is one of a few words refuses every other text.
            if let Ok(comparison) = serde_json::from_value::<Comparison>(changed) {
                taken += 1;
                look(pointer, &comparison);
            }
        }
    }
    taken
}

/// The JSON pointers of all strings below `value`.
fn strings(value: &Value, pointer: String, out: &mut Vec<String>) {
    match value {
        Value::String(_) => out.push(pointer),
        Value::Array(entries) => {
            entries.iter().enumerate().for_each(|(at, entry)| strings(entry, format!("{pointer}/{at}"), out));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(key, field)| strings(field, format!("{pointer}/{key}"), out));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn links() -> Links {
    Links {
        run: Some("https://github.com/octo-org/octo-repo/actions/runs/77".into()),
        artifact: Some("https://github.com/octo-org/octo-repo/actions/runs/77/artifacts/5".into()),
        server: Some("https://github.com".into()),
        repository: Some("octo-org/octo-repo".into()),
    }
}

#[test]
fn no_field_of_a_comparison_becomes_markdown() {
    let kept = std::env::var_os("VLLM_PERF_HOSTILE_OUT");
    let mut number = 0;
    let taken = each_leaf(|leaf, comparison| {
        let documents = [
            markdown::comment(comparison, &links(), "id", Some(HOSTILE[4])),
            markdown::summary(comparison, &links()),
            markdown::annotation(comparison, &links()),
        ];
        for text in documents {
            check_markdown(leaf, &text);
            if let Some(folder) = &kept {
                number += 1;
                fs::write(Path::new(folder).join(format!("{number}.md")), text).unwrap();
            }
        }
    });
    assert!(taken > 300, "{taken}");
}

/// What GitHub turns into a link or a notice, outside of code: mentions, issues, commits and addresses.
static REFERENCES: LazyLock<Regex> = LazyLock::new(|| {
    let address = r"(https?|ftp)://[a-z]|\bwww\.|mailto:\S+@[a-z]";
    Regex::new(&format!(r"(?i)@[a-z0-9]|#\d|\bgh-\d|\b[0-9a-f]{{7,40}}\b|{address}")).unwrap()
});

fn check_markdown(leaf: &str, text: &str) {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_FOOTNOTES;
    let ours = |html: &CowStr| {
        let rest = html.replace("<details>", "").replace("</details>", "").replace("</summary>", "");
        let rest = rest.replace("<summary>", "").replace("<!-- vllm-perf:v1 id=id -->", "");
        !rest.contains(['<', '>'])
    };
    let (mut in_code, mut in_link, mut words) = (false, false, String::new());
    for event in Parser::new_ext(text, options) {
        if !matches!(event, Event::Text(_)) {
            assert!(!REFERENCES.is_match(&words), "{leaf}: in {words}");
            words.clear();
        }
        match event {
            Event::Start(Tag::Link { dest_url, .. }) => {
                assert!(dest_url.starts_with("https://github.com/octo-org/octo-repo/"), "{leaf}: a link to {dest_url}");
                in_link = true;
            }
            Event::End(pulldown_cmark::TagEnd::Link) => in_link = false,
            Event::Start(Tag::CodeBlock(_)) => in_code = true,
            Event::End(pulldown_cmark::TagEnd::CodeBlock) => in_code = false,
            Event::Start(Tag::Image { dest_url, .. }) => panic!("{leaf}: an image of {dest_url}"),
            Event::Html(html) | Event::InlineHtml(html) => assert!(ours(&html), "{leaf}: the HTML {html}"),
            Event::Start(Tag::Heading { level, .. }) if !matches!(level, HeadingLevel::H3 | HeadingLevel::H4) => {
                panic!("{leaf}: a heading of level {level}")
            }
            Event::Start(Tag::FootnoteDefinition(_)) => panic!("{leaf}: a footnote"),
            Event::Start(Tag::Strikethrough) => panic!("{leaf}: struck out"),
            Event::Text(part) if !in_code && !in_link => words.push_str(&part),
            _ => {}
        }
    }
    assert_eq!(text.matches("<!--").count(), usize::from(text.starts_with("<!--")), "{leaf}: {text}");
    assert!(!text.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\u{2066}']), "{leaf}: {text}");
    let commands = text.lines().any(|line| line.trim_start().starts_with("::") || line.trim_start().starts_with("##["));
    assert!(!commands, "{leaf}: {text}");
}

#[test]
fn no_field_of_a_comparison_becomes_html() {
    let tag = Regex::new(r"<[^>]*>").unwrap();
    let taken = each_leaf(|leaf, comparison| {
        let page = html::page(comparison, &links()) + &values_page::page(comparison, &links());
        for found in tag.find_iter(&page) {
            assert!(!found.as_str().contains("canary"), "{leaf}: {}", found.as_str());
        }
        for forbidden in ["<script", "<img", "javascript:", "onload=", "\u{1b}", "\u{202e}"] {
            let outside = page.replace("onload=&#39;", "").replace("onmouseover=", "");
            assert!(!outside.contains(forbidden), "{leaf}: {forbidden}");
        }
    });
    assert!(taken > 300, "{taken}");
}

#[test]
fn no_field_of_a_comparison_reaches_a_terminal_as_anything_but_text() {
    let taken = each_leaf(|leaf, comparison| {
        let mut alone = comparison.clone();
        alone.subject.base = None;
        alone.rows.iter_mut().for_each(|row| row.base.clear());
        let tables = [comparison, &alone].map(|comparison| terminal::table(comparison, 100));
        for text in tables.into_iter().chain([terminal::verdict(comparison, 100)]) {
            let invisible =
                text.chars().find(|c| c.is_control() && *c != '\n' || ('\u{202a}'..='\u{202e}').contains(c));
            assert_eq!(invisible, None, "{leaf}: {text:?}");
            let command = text.lines().any(|line| line.trim_start().starts_with("::") || line.starts_with("##["));
            assert!(!command, "{leaf}: {text}");
        }
    });
    assert!(taken > 300, "{taken}");
}
