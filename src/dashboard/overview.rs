//! The data of the overview: a summary of every page, and the recent changes.

use std::collections::BTreeSet;

use vllm_verdict::metric::Direction;
use vllm_verdict::statistics::benjamini_hochberg;

use super::page_data::{LastCommit, LevelChange, Move, Page, Series, Site, Summary};
use super::series::Setting;

/// False discovery rate of the listed changes.
pub const FALSE_DISCOVERY_RATE: f64 = 0.05;

const DAY: i64 = 86_400;

/// The overview of the pages. Days are counted back from the newest commit rather than from today, so that the same store
/// gives the same site.
pub fn site(pages: &[Page], setting: &Setting) -> Site {
    let metrics: BTreeSet<String> =
        pages.iter().flat_map(|page| &page.series).map(|series| series.metric.clone()).collect();
    Site {
        newest: pages.iter().filter_map(|page| page.commits.last()).map(|it| it.date.clone()).max().unwrap_or_default(),
        repository: setting.repository.clone(),
        branch: setting.branch.clone(),
        pages: pages.iter().map(summary).collect(),
        metrics: metrics.into_iter().collect(),
        moved: recent_changes(pages),
    }
}

fn summary(page: &Page) -> Summary {
    let last = page.commits.last().map(|it| LastCommit { sha: it.sha.clone(), date: it.date.clone() });
    Summary {
        id: page.id.clone(),
        file: format!("{}.html", page.id),
        model: page.model.clone(),
        device: page.device.clone(),
        device_type: page.device_type.clone(),
        series: page.series.len(),
        commits: page.commits.len(),
        last: last.unwrap_or_default(),
    }
}

/// The changes of the last 30 days at the false discovery rate, those for the worse first, the largest first.
fn recent_changes(pages: &[Page]) -> Vec<Move> {
    let newest = newest(pages);
    let mut moved: Vec<Move> = Vec::new();
    // A series without a recent change counts as one test with p = 1.
    let mut still = 0;
    for (page, series) in pages.iter().flat_map(|page| page.series.iter().map(move |series| (page, series))) {
        let before = moved.len();
        for change in &series.changes {
            let commit = &page.commits[change.at];
            let days = match newest - second(&commit.date) {
                age if age <= 7 * DAY => 7,
                age if age <= 30 * DAY => 30,
                _ => continue,
            };
            moved.push(of_change(page, series, change, days));
        }
        still += usize::from(moved.len() == before);
    }
    let p: Vec<f64> = moved.iter().map(|it| it.p).chain(std::iter::repeat_n(1.0, still)).collect();
    let mut adjusted = benjamini_hochberg(&p).into_iter();
    moved.retain(|_| adjusted.next().is_some_and(|q| q <= FALSE_DISCOVERY_RATE));
    let size = |it: &Move| it.relative.ln_1p().abs();
    moved.sort_by(|a, b| {
        let key = |it: &Move| (it.page.clone(), it.series.clone(), it.at.clone());
        a.better.cmp(&b.better).then(size(b).total_cmp(&size(a))).then_with(|| key(a).cmp(&key(b)))
    });
    moved
}

fn of_change(page: &Page, series: &Series, change: &LevelChange, days: u32) -> Move {
    let commit = &page.commits[change.at];
    Move {
        page: page.id.clone(),
        series: series.id.clone(),
        days,
        at: commit.sha.clone(),
        date: commit.date.clone(),
        before: change.before,
        after: change.after,
        relative: relative(change),
        p: change.p,
        state: change.state,
        metric: series.metric.clone(),
        unit: series.unit.clone(),
        direction: series.direction,
        parameters: series.parameters.clone(),
        better: is_better(series, change),
    }
}

/// The date of the newest commit, in seconds since 1970.
pub(super) fn newest(pages: &[Page]) -> i64 {
    pages.iter().filter_map(|page| page.commits.last()).map(|commit| second(&commit.date)).max().unwrap_or_default()
}

/// A date of a commit, in seconds since 1970.
pub(super) fn second(date: &str) -> i64 {
    date.parse::<jiff::Timestamp>().map_or(0, |date| date.as_second())
}

/// The relative change of the level.
pub(super) fn relative(change: &LevelChange) -> f64 {
    change.after / change.before - 1.0
}

/// Whether a change is for the better.
pub(super) fn is_better(series: &Series, change: &LevelChange) -> bool {
    match series.direction {
        Direction::Higher => change.after > change.before,
        Direction::Lower => change.after < change.before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::series::tests::{name, object, pages, setting, sha};

    /// One commit a day; from day 40 latency is worse by 10 %, from day 55 throughput is better by 20 %.
    fn of(days: usize) -> Site {
        let of_day = |day: usize| {
            let noise = 1.0 + 0.004 * ((day * 7 % 5) as f64 - 2.0);
            let latency = 100.0 * noise * if day >= 40 { 1.1 } else { 1.0 };
            let throughput = 900.0 * noise * if day >= 55 { 1.2 } else { 1.0 };
            let values = [
                (name("a", "median_ttft_ms", "1"), latency),
                (name("a", "output_throughput", "1"), throughput),
                (name("b", "median_ttft_ms", "1"), 50.0 * noise),
            ];
            (day, values)
        };
        site(&pages(&object((0..days).map(of_day))), &setting())
    }

    #[test]
    fn recent_changes_are_counted_from_the_newest_commit_with_regressions_first() {
        let moved: Vec<(u32, bool, String)> = of(62).moved.into_iter().map(|it| (it.days, it.better, it.at)).collect();
        assert_eq!(moved, [(30, false, sha(40)), (7, true, sha(55))]);
        // 31 days after the first change.
        let later: Vec<String> = of(72).moved.into_iter().map(|it| it.at).collect();
        assert_eq!(later, [sha(55)]);
    }

    #[test]
    fn a_summary_has_the_newest_commit_of_its_page() {
        let site = of(62);
        let lines: Vec<(&str, usize, usize)> =
            site.pages.iter().map(|it| (it.model.as_str(), it.series, it.commits)).collect();
        assert_eq!(lines, [("a", 2, 62), ("b", 1, 62)]);
        assert_eq!(site.pages[0].last.sha, sha(61));
        assert_eq!(site.newest, site.pages[0].last.date);
        assert_eq!(site.metrics, ["median_ttft_ms", "output_throughput"]);
        assert_eq!(super::site(&[], &setting()).pages, []);
    }
}
