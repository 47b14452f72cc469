//! The data of the pages and its files: scripts, because a page that is opened from a file may not fetch, and CSV tables for
//! other programs.

use std::fmt::Write;

use anyhow::{Context, Result};
use indexmap::IndexMap;
use serde::Serialize;
use vllm_verdict::change_points::State;
use vllm_verdict::metric::Direction;

/// The data of the overview.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Site {
    /// Date of the newest commit (RFC 3339), from which "the last 7 days" are counted.
    pub newest: String,
    /// `OWNER/NAME`.
    pub repository: String,
    pub branch: String,
    /// Sorted by model, device and device type.
    pub pages: Vec<Summary>,
    /// The metrics of all pages, sorted: a filter by one that did not change is valid.
    pub metrics: Vec<String>,
    /// Changes of the last 30 days: regressions first, then by size.
    pub moved: Vec<Move>,
}

/// A page in the list of the overview.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Characters `a-z`, `0-9` and `-`; the same in every build.
    pub id: String,
    /// File name of the page, relative to the overview.
    pub file: String,
    pub model: String,
    /// `cuda`, `cpu`, ...
    pub device: String,
    #[serde(rename = "type")]
    pub device_type: String,
    /// Number of series.
    pub series: usize,
    /// Number of measured commits.
    pub commits: usize,
    /// The newest commit.
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

/// A change of the level of a series in the last 30 days.
// 15 fields: the keys that `overview.js` reads for a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Move {
    /// Id of the page.
    pub page: String,
    /// Id of the series on that page.
    pub series: String,
    /// 7 or 30: the shorter period that includes it.
    pub days: u32,
    /// Full hash of the first commit at the new level.
    pub at: String,
    /// Its date (RFC 3339).
    pub date: String,
    /// Level before, in `unit`.
    pub before: f64,
    /// Level after, in `unit`.
    pub after: f64,
    /// The relative change: 0.05 is +5 %.
    pub relative: f64,
    /// Two-sided p value.
    pub p: f64,
    pub state: State,
    /// Name of the metric in its records.
    pub metric: String,
    /// Empty if unknown.
    pub unit: String,
    pub direction: Direction,
    pub parameters: IndexMap<String, String>,
    /// Whether it is an improvement.
    pub better: bool,
}

/// All series of a model on a device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    /// Characters `a-z`, `0-9` and `-`; the same in every build.
    pub id: String,
    pub model: String,
    /// `cuda`, `cpu`, ...
    pub device: String,
    #[serde(rename = "type")]
    pub device_type: String,
    /// `OWNER/NAME`.
    pub repository: String,
    /// Measured commits, the oldest first.
    pub commits: Vec<Commit>,
    /// Sorted by metric and parameters.
    pub series: Vec<Series>,
}

/// A measured commit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Commit {
    /// Full hash.
    pub sha: String,
    /// Date (RFC 3339).
    pub date: String,
    /// Page of the commit.
    pub url: String,
    /// Page of the CI run, if known.
    pub run: Option<String>,
}

/// One metric of one case over the commits of its page.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Characters `a-z`, `0-9` and `-`; the same in every build.
    pub id: String,
    /// Name of the metric in its records.
    pub metric: String,
    /// Empty if unknown.
    pub unit: String,
    pub direction: Direction,
    /// What distinguishes it from other series of its metric.
    pub parameters: IndexMap<String, String>,
    /// One value for each commit of the page; `None` if it was not measured.
    pub values: Vec<Option<f64>>,
    /// Changes of the level, in order.
    pub changes: Vec<LevelChange>,
}

/// A change of the level of a series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LevelChange {
    /// Index of the first commit at the new level.
    pub at: usize,
    /// Level before, in the series' unit.
    pub before: f64,
    /// Level after, in the series' unit.
    pub after: f64,
    /// Two-sided p value.
    pub p: f64,
    pub state: State,
}

/// `data/index.js`.
///
/// # Errors
/// The data cannot be written as JSON.
pub fn index_script(site: &Site) -> Result<String> {
    script("index", site)
}

/// `data/<page id>.js`.
///
/// # Errors
/// The data cannot be written as JSON.
pub fn page_script(page: &Page) -> Result<String> {
    script("page", page)
}

/// A call of `vllmPerf.<name>`. Characters that could end a script or a line are escaped; in JSON they only occur in
/// strings.
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

/// `data/<page id>.csv`: one line for each value (RFC 4180).
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

/// A cell, quoted if necessary. Text that a spreadsheet would treat as a formula gets an apostrophe in front.
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
                changes: vec![LevelChange { at: 1, before: 40.0, after: 41.7, p: 1e-9, state: State::Provisional }],
            }],
        }
    }

    #[test]
    fn a_script_cannot_be_ended_by_its_content() {
        let hostile = "</script><script>alert(1)</script>\u{2028}\u{2029}&lt; \"'`";
        let text = page_script(&page(hostile)).unwrap();
        assert!(!text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{text}");
        let json = text.strip_prefix("vllmPerf.page(").and_then(|text| text.strip_suffix(");\n")).unwrap();
        let read: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(read["model"], hostile);
    }

    #[test]
    fn a_table_has_one_line_for_each_value_and_no_formulas() {
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
