//! Renderings of a comparison: comment, job summary, annotation, terminal table, HTML page; and dashboard records. Text
//! from data is `Untrusted`: every rendering escapes it with `escape`.

pub mod budget;
pub mod chart;
#[cfg(test)]
pub mod example;
pub mod finding;
pub mod headline;
pub mod html;
pub mod label;
pub mod markdown;
mod markdown_tables;
pub mod method;
pub mod next_steps;
pub mod one_side;
pub mod perf_row;
pub mod ran;
pub mod records;
pub mod slice_method;
pub mod svg;
pub mod terminal;
pub mod upstream_files;
pub mod values_page;
pub mod wording;

use vllm_verdict::side::Side;
use vllm_verdict::v1::Row;
use vllm_verdict::{Untrusted, number};

use crate::escape;
use crate::names::{Commit, Repository};

/// The link targets of a rendering. They come from the CI run that publishes, never from the measured data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// Page of the CI run of the measurement.
    pub run: Option<String>,
    /// Page or file of the full report.
    pub artifact: Option<String>,
    /// Base URL of pages on GitHub, e.g. `https://github.com`.
    pub server: Option<String>,
    /// `owner/name` of the repository that holds the commits.
    pub repository: Option<String>,
}

impl Links {
    /// Page of a commit, if server and repository are known and `sha` is a hash of 7 to 64 hexadecimal digits.
    pub fn commit(&self, sha: &str) -> Option<String> {
        let server = escape::url(self.server.as_deref()?)?;
        let repository = self.repository.as_deref().filter(|name| Repository::is_valid(name))?;
        Commit::is_hash(sha).then(|| format!("{}/{repository}/commit/{sha}", server.trim_end_matches('/')))
    }

    /// Page of the run, if it is a valid link.
    fn run(&self) -> Option<String> {
        self.run.as_deref().and_then(escape::url)
    }

    /// Page of the report, if it is a valid link.
    fn artifact(&self) -> Option<String> {
        self.artifact.as_deref().and_then(escape::url)
    }
}

/// The displayed values of base and head in the row's unit, with equal decimals; empty without repetitions. Of a row that was
/// tested they are apart by the estimated change, so that the columns agree. Units are never converted, so that the numbers match `comparison.json`.
fn values(row: &Row) -> [Untrusted; 2] {
    let centres = level(row).unwrap_or_else(|| [Side::Base, Side::Head].map(|side| row.centre(side)));
    let decimals = number::decimals(centres.into_iter().flatten());
    let unit = escape::name(&row.unit);
    centres.map(|centre| {
        centre.map(|centre| format!("{} {unit}", number::value(centre, decimals))).unwrap_or_default().into()
    })
}

/// The values of a tested row: the geometric mean of both sides, half of the estimated change below and above it.
fn level(row: &Row) -> Option<[Option<f64>; 2]> {
    let (base, head) = (row.centre(Side::Base)?, row.centre(Side::Head)?);
    let change = row.estimate.filter(|_| row.p.is_some())?;
    let (level, half) = ((base * head).sqrt(), (1.0 + change).max(f64::MIN_POSITIVE).sqrt());
    Some([Some(level / half), Some(level * half)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_that_is_read_back_renders_to_the_same_bytes() {
        let comparison = example::comparison();
        let text = serde_json::to_string(&comparison).unwrap();
        let read: vllm_verdict::v1::Comparison = serde_json::from_str(&text).unwrap();
        let render = |comparison| {
            let links = Links::default();
            let comment = markdown::comment(comparison, &links, "id", None);
            [comment, terminal::table(comparison, 100), html::page(comparison, &links)]
        };
        assert_eq!(render(&comparison), render(&read));
    }

    #[test]
    fn the_values_of_a_tested_row_agree_with_its_change() {
        let mut row = example::comparison().rows[0].clone();
        row.estimate = Some(0.21);
        let [base, head] = level(&row).unwrap().map(Option::unwrap);
        assert!((head / base - 1.21).abs() < 1e-12);
        let centre = |side| row.centre(side).unwrap();
        assert!((base * head / centre(Side::Base) / centre(Side::Head) - 1.0).abs() < 1e-12);
        row.p = None;
        assert_eq!(level(&row), None);
    }

    #[test]
    fn a_commit_is_linked_only_when_it_is_a_hash() {
        let links = Links {
            server: Some("https://github.com".into()),
            repository: Some("vllm-project/vllm".into()),
            ..Links::default()
        };
        let page = links.commit("1da94e6c").unwrap();
        assert_eq!(page, "https://github.com/vllm-project/vllm/commit/1da94e6c");
        assert_eq!(links.commit("1da94e6c](https://example.org"), None);
        assert_eq!(Links::default().commit("1da94e6c"), None);
    }
}
