//! What the pages show, and the files that carry it: scripts, because a page that is opened from a file may not fetch, and
//! tables for other programs. Pure.

use std::fmt::Write;

use anyhow::{Context, Result};
use indexmap::IndexMap;
use serde::Serialize;
use vllm_verdict::change_points::State;
use vllm_verdict::metric::Direction;

/// Everything that the overview shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Site {
    /// Date of the newest commit (RFC 3339): what "the last 7 days" are counted back from.
    pub newest: String,
    /// `OWNER/NAME`.
    pub repository: String,
    /// Branch whose commits are shown.
    pub branch: String,
    /// Every page, sorted by model, device and device type.
    pub pages: Vec<Summary>,
    /// What moved in the last 30 days, what got worse first, the largest change first.
    pub moved: Vec<Move>,
}

/// A page, as the overview lists it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Of the characters `a-z`, `0-9` and `-`; the same in every build.
    pub id: String,
    /// File of the page, beside the overview.
    pub file: String,
    /// Model, as its records name it.
    pub model: String,
    /// Device: `cuda`, `cpu`, ...
    pub device: String,
    /// Device type.
    #[serde(rename = "type")]
    pub device_type: String,
    /// How many series it has.
    pub series: usize,
    /// How many commits were measured.
    pub commits: usize,
    /// The newest of them.
    pub last: LastCommit,
}

/// The newest commit of a page.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LastCommit {
    /// Full hash.
    pub sha: String,
    /// Date (RFC 3339).
    pub date: String,
}

/// A change of a series' level in the last 30 days.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Move {
    /// Id of the page.
    pub page: String,
    /// Id of the series on that page.
    pub series: String,
    /// 7 or 30: the shorter span that it lies in.
    pub days: u32,
    /// Full hash of the first commit of the new level.
    pub at: String,
    /// Its date (RFC 3339).
    pub date: String,
    /// Level before, in `unit`.
    pub before: f64,
    /// Level after, in `unit`.
    pub after: f64,
    /// After relative to before: 0.05 is +5 %.
    pub relative: f64,
    /// Two-sided p value.
    pub p: f64,
    /// How far it can be relied on.
    pub state: State,
    /// Metric, by the name of its records.
    pub metric: String,
    /// Unit of the values; empty where it is not known.
    pub unit: String,
    /// Which way is better.
    pub direction: Direction,
    /// The parameters of the series.
    pub parameters: IndexMap<String, String>,
    /// Whether it is for the better.
    pub better: bool,
}

/// All series of a model on a device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    /// Of the characters `a-z`, `0-9` and `-`; the same in every build.
    pub id: String,
    /// Model, as its records name it.
    pub model: String,
    /// Device: `cuda`, `cpu`, ...
    pub device: String,
    /// Device type.
    #[serde(rename = "type")]
    pub device_type: String,
    /// `OWNER/NAME`.
    pub repository: String,
    /// Commits that were measured, the oldest first.
    pub commits: Vec<Commit>,
    /// The series, sorted by metric and parameters.
    pub series: Vec<Series>,
}

/// A commit that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Commit {
    /// Full hash.
    pub sha: String,
    /// Date (RFC 3339).
    pub date: String,
    /// Its page.
    pub url: String,
    /// The page of the CI run, where it is known.
    pub run: Option<String>,
}

/// One metric of one case over the commits of its page.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Of the characters `a-z`, `0-9` and `-`; the same in every build.
    pub id: String,
    /// Metric, by the name of its records.
    pub metric: String,
    /// Unit of the values; empty where it is not known.
    pub unit: String,
    /// Which way is better.
    pub direction: Direction,
    /// What tells it from the other series of its metric.
    pub parameters: IndexMap<String, String>,
    /// A value for each commit of the page, where it was measured.
    pub values: Vec<Option<f64>>,
    /// Where the level changed, in order.
    pub changes: Vec<Shift>,
}

/// A change of a series' level, by the commits of its page.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shift {
    /// Index of the first commit of the new level.
    pub at: usize,
    /// Level before, in the series' unit.
    pub before: f64,
    /// Level after, in the series' unit.
    pub after: f64,
    /// Two-sided p value.
    pub p: f64,
    /// How far it can be relied on.
    pub state: State,
}

/// `data/index.js`.
///
/// # Errors
/// Never for our own types.
pub fn index_script(site: &Site) -> Result<String> {
    script("index", site)
}

/// `data/<page id>.js`.
///
/// # Errors
/// Never for our own types.
pub fn page_script(page: &Page) -> Result<String> {
    script("page", page)
}

/// A call of `vllmPerf.<name>`. What could end a script or a line of one is written as an escape of the string it is in:
/// these characters stand nowhere else in JSON.
fn script<T: Serialize>(name: &str, value: &T) -> Result<String> {
    let json = serde_json::to_string(value).context("cannot write the data of a page")?;
    let mut out = String::with_capacity(json.len() + 32);
    let _ = write!(out, "vllmPerf.{name}(");
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", character as u32);
            }
            other => out.push(other),
        }
    }
    out.push_str(");\n");
    Ok(out)
}

/// `data/<page id>.csv`: a line for each commit and series that was measured there (RFC 4180).
pub fn table(page: &Page) -> String {
    let mut out = String::from("commit,date,metric,unit,parameters,value,change\r\n");
    for series in &page.series {
        let parameters: Vec<String> = series.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let what = [&series.metric, &series.unit, &parameters.join(" ")].map(|text| cell(text)).join(",");
        let mut changes = series.changes.iter().peekable();
        for (at, (commit, value)) in page.commits.iter().zip(&series.values).enumerate() {
            let change = changes.next_if(|change| change.at == at).map_or("", |change| change.state.as_str());
            if let Some(value) = value {
                let _ = write!(out, "{},{},{what},{value},{change}\r\n", commit.sha, commit.date);
            }
        }
    }
    out
}

/// Quoted where it has to be. A spreadsheet would take a text that begins so for a formula: it gets an apostrophe before.
fn cell(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    } else {
        format!("{guard}{text}")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::dashboard) fn page(model: &str) -> Page {
        let commit = |sha: &str| Commit {
            sha: sha.repeat(40),
            date: "2026-08-03T14:05:00Z".into(),
            url: format!("https://github.com/vllm-project/vllm/commit/{}", sha.repeat(40)),
            run: None,
        };
        Page {
            id: "m-cpu-0".into(),
            model: model.into(),
            device: "cpu".into(),
            device_type: "AMD_EPYC_2c".into(),
            repository: "vllm-project/vllm".into(),
            commits: vec![commit("a"), commit("b")],
            series: vec![Series {
                id: "median-ttft-ms-0".into(),
                metric: "median_ttft_ms".into(),
                unit: "ms".into(),
                direction: Direction::Lower,
                parameters: IndexMap::from([("request_rate".to_owned(), "inf".to_owned())]),
                values: vec![None, Some(41.7)],
                changes: vec![Shift { at: 1, before: 40.0, after: 41.7, p: 1e-9, state: State::Provisional }],
            }],
        }
    }

    #[test]
    fn a_script_cannot_be_ended_by_what_is_in_it_and_holds_the_same_value() {
        let hostile = "</script><script>alert(1)</script>\u{2028}\u{2029}&lt; \"'`";
        let text = page_script(&page(hostile)).unwrap();
        assert!(!text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{text}");
        let json = text.strip_prefix("vllmPerf.page(").and_then(|text| text.strip_suffix(");\n")).unwrap();
        let read: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(read["model"], hostile);
    }

    #[test]
    fn a_table_has_a_line_for_each_value_and_no_formula() {
        let mut page = page("m");
        page.series[0].metric = "=cmd|' /C calc'!A0".into();
        page.series[0].parameters.insert("dataset_name".into(), "a,\"b\"\n".into());
        insta::assert_snapshot!(table(&page).replace("\r\n", "\n"), @r#"
        commit,date,metric,unit,parameters,value,change
        bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb,2026-08-03T14:05:00Z,'=cmd|' /C calc'!A0,ms,"request_rate=inf dataset_name=a,""b""
        ",41.7,provisional
        "#);
    }
}
