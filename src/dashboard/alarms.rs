//! The alarms of a nightly build: series whose level changed at their newest points, and the commits that may have caused
//! it.

use std::fmt::Write;

use indexmap::IndexMap;
use serde::Serialize;
use vllm_verdict::change_points::{self, Change, State};
use vllm_verdict::metric::{self, Direction};
use vllm_verdict::number;

use super::overview::{FALSE_DISCOVERY_RATE, is_better, newest, relative, second};
use super::page_data::{Commit, LevelChange, Page, Series};
use super::series::Setting;
use crate::escape;

/// The version of `alarms.json`.
pub const SCHEMA: &str = "vllm-perf/alarms/v1";

/// Largest age of a reported change in points: until it is confirmed.
const RECENT: usize = 5;

/// Age in seconds after which a series that is no longer measured raises no alarm.
const STALE: i64 = 7 * 86_400;

/// `alarms.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alarms {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// `OWNER/NAME`.
    pub repository: String,
    pub branch: String,
    /// Date of the newest commit (RFC 3339).
    pub newest: String,
    /// Number of checked series: those of primary metrics that are still measured.
    pub series: usize,
    /// Regressions, the largest change first.
    pub alarms: Vec<Alarm>,
    /// Improvements, the largest change first.
    pub improvements: Vec<Alarm>,
}

/// A series whose level changed.
// 17 fields: the keys of an alarm in `alarms.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alarm {
    /// File of its page.
    pub file: String,
    /// Id of the series on that page.
    pub series: String,
    pub model: String,
    pub device: String,
    #[serde(rename = "type")]
    pub device_type: String,
    /// Name of the metric in its records.
    pub metric: String,
    pub unit: String,
    pub direction: Direction,
    pub parameters: IndexMap<String, String>,
    /// Level before, in `unit`.
    pub before: f64,
    /// Level after, in `unit`.
    pub after: f64,
    /// The relative change: 0.05 is +5 %.
    pub relative: f64,
    /// Two-sided p value.
    pub p: f64,
    pub state: State,
    /// The last measured commit at the level before.
    pub good: Commit,
    /// The first measured commit at the level after.
    pub bad: Commit,
    /// Page of the commits after `good` up to `bad`; one of them caused the change.
    pub compare: String,
}

/// The alarms of the pages, at a false discovery rate over all series of primary metrics.
pub fn alarms(pages: &[Page], setting: &Setting) -> Alarms {
    let newest = newest(pages);
    let watched: Vec<(&Page, &Series)> = pages
        .iter()
        .flat_map(|page| page.series.iter().map(move |series| (page, series)))
        .filter(|(page, series)| is_primary(&series.metric) && newest - last(page, series) <= STALE)
        .collect();
    let points: Vec<(usize, Vec<Change>)> = watched.iter().map(|(_, series)| points(series)).collect();
    let mut found: Vec<(bool, Alarm)> = change_points::alarms(&points, RECENT, FALSE_DISCOVERY_RATE)
        .into_iter()
        .filter_map(|(index, _)| {
            let (page, series) = watched[index];
            let change = series.changes.last()?;
            let good = (0..change.at).rev().find(|&at| series.values[at].is_some())?;
            Some((is_better(series, change), alarm(page, series, change, &page.commits[good], setting)))
        })
        .collect();
    found.sort_by(|(_, a), (_, b)| {
        let size = |it: &Alarm| it.relative.ln_1p().abs();
        size(b).total_cmp(&size(a)).then_with(|| (&a.file, &a.series).cmp(&(&b.file, &b.series)))
    });
    let (better, worse): (Vec<_>, Vec<_>) = found.into_iter().partition(|(is_better, _)| *is_better);
    let only = |list: Vec<(bool, Alarm)>| list.into_iter().map(|(_, alarm)| alarm).collect();
    Alarms {
        schema: SCHEMA,
        repository: setting.repository.clone(),
        branch: setting.branch.clone(),
        newest: pages.iter().filter_map(|page| page.commits.last()).map(|it| it.date.clone()).max().unwrap_or_default(),
        series: watched.len(),
        alarms: only(worse),
        improvements: only(better),
    }
}

/// Whether a metric may raise an alarm: the primary metrics of reports, and metrics that reports do not have, such as
/// `latency`, the mean of the values whose median a report compares.
fn is_primary(metric: &str) -> bool {
    match metric::ALL.iter().find(|known| known.id == metric) {
        Some(known) => known.primary,
        None => !metric.starts_with("std_"),
    }
}

/// Time of the last measurement of a series, in seconds since 1970.
fn last(page: &Page, series: &Series) -> i64 {
    let at = series.values.iter().rposition(Option::is_some);
    at.map_or(0, |at| second(&page.commits[at].date))
}

/// A series without its gaps: the number of points, and the changes by point.
fn points(series: &Series) -> (usize, Vec<Change>) {
    let before = |at: usize| series.values[..at].iter().flatten().count();
    let change = |shift: &LevelChange| {
        let LevelChange { at, before: low, after: high, p, state } = *shift;
        Change { at: before(at), before: low, after: high, p, state }
    };
    (before(series.values.len()), series.changes.iter().map(change).collect())
}

fn alarm(page: &Page, series: &Series, change: &LevelChange, good: &Commit, setting: &Setting) -> Alarm {
    let bad = &page.commits[change.at];
    Alarm {
        file: format!("{}.html", page.id),
        series: series.id.clone(),
        model: page.model.clone(),
        device: page.device.clone(),
        device_type: page.device_type.clone(),
        metric: series.metric.clone(),
        unit: series.unit.clone(),
        direction: series.direction,
        parameters: series.parameters.clone(),
        before: change.before,
        after: change.after,
        relative: relative(change),
        p: change.p,
        state: change.state,
        good: good.clone(),
        bad: bad.clone(),
        compare: format!("{}/{}/compare/{}...{}", setting.server, setting.repository, good.sha, bad.sha),
    }
}

impl Alarms {
    /// `alarms.md`.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        let Self { alarms, improvements, .. } = self;
        let _ = writeln!(
            out,
            "### {} on `{}`: {} worse, {} better\n",
            shown(&self.repository),
            shown(&self.branch),
            alarms.len(),
            improvements.len()
        );
        let _ = writeln!(
            out,
            "{} series checked, up to {}. False discovery rate: {}.",
            number::count(self.series),
            self.newest,
            number::percent(FALSE_DISCOVERY_RATE)
        );
        for (title, list) in [("Worse", alarms), ("Better", improvements)] {
            if list.is_empty() {
                continue;
            }
            let _ = write!(
                out,
                "\n#### {title}\n\n| Model | Device | Metric | Parameters | before | after | change | p | since |\n\
                 |---|---|---|---|--:|--:|--:|--:|---|\n"
            );
            list.iter().for_each(|alarm| out.push_str(&row(alarm)));
        }
        out
    }
}

fn shown(text: &str) -> String {
    escape::markdown(escape::name(text))
}

fn row(alarm: &Alarm) -> String {
    let label = metric::ALL.iter().find(|known| known.id == alarm.metric).map(|known| known.label);
    let parameters: Vec<String> = alarm.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let decimals = number::decimals([alarm.before, alarm.after]);
    let value = |value: f64| format!("{} {}", number::value(value, decimals), alarm.unit);
    let short = |commit: &Commit| format!("[{}]({})", &commit.sha[..7.min(commit.sha.len())], commit.url);
    format!(
        "| {} | {} ({}) | {} | {} | {} | {} | **{}** | {} | {} ([after {}]({})), {} |\n",
        shown(&alarm.model),
        shown(&alarm.device),
        shown(&alarm.device_type),
        label.map_or_else(|| shown(&alarm.metric), str::to_owned),
        escape::markdown(escape::sentence(parameters.join(" "))),
        value(alarm.before).trim_end(),
        value(alarm.after).trim_end(),
        number::change(alarm.relative),
        number::chance(alarm.p),
        short(&alarm.bad),
        &alarm.good.sha[..7.min(alarm.good.sha.len())],
        alarm.compare,
        alarm.state.as_str(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::record_object::SeriesName;
    use crate::dashboard::series::tests::{name, object, pages, setting, sha};
    use crate::dashboard::site_cache::CachedObject;

    fn noise(day: usize) -> f64 {
        1.0 + 0.004 * ((day * 7 % 5) as f64 - 2.0)
    }

    /// One commit a day; in the last four, latency is worse, throughput is better, and the standard deviation is larger.
    fn store(model: &str) -> (Vec<SeriesName>, Vec<CachedObject>) {
        let of_day = |day: usize| {
            let moved = day >= 40;
            let values = [
                (name(model, "median_ttft_ms", "inf"), 100.0 * noise(day) * if moved { 1.1 } else { 1.0 }),
                (name(model, "output_throughput", "inf"), 900.0 * noise(day) * if moved { 1.2 } else { 1.0 }),
                (name(model, "std_ttft_ms", "inf"), 9.0 * noise(day) * if moved { 2.0 } else { 1.0 }),
                (name(model, "median_tpot_ms", "inf"), 9.0 * noise(day)),
            ];
            (day, values)
        };
        object((0..44).map(of_day))
    }

    #[test]
    fn a_regression_is_an_alarm_with_the_commits_that_may_have_caused_it() {
        let alarms = alarms(&pages(&store("meta-llama/a|b<script>")), &setting());
        assert_eq!((alarms.series, alarms.alarms.len(), alarms.improvements.len()), (3, 1, 1));
        assert_eq!((&alarms.alarms[0].good.sha, &alarms.alarms[0].bad.sha), (&sha(39), &sha(40)));
        insta::assert_snapshot!(alarms.markdown(), @r"
        ### vllm-project/vllm on `main`: 1 worse, 1 better

        3 series checked, up to 2026-11-03T14:13:20Z. False discovery rate: 5 %.

        #### Worse

        | Model | Device | Metric | Parameters | before | after | change | p | since |
        |---|---|---|---|--:|--:|--:|--:|---|
        | meta-llama/a&#124;b&lt;script&gt; | cpu (AMD\_EPYC\_2c) | Median TTFT | request\_rate=inf | 100.0 ms | 109.9 ms | **+9.9 %** | < 0.0001 | [0000000](https://github.com/vllm-project/vllm/commit/0000000000000000000000000000000000000028) ([after 0000000](https://github.com/vllm-project/vllm/compare/0000000000000000000000000000000000000027...0000000000000000000000000000000000000028)), provisional |

        #### Better

        | Model | Device | Metric | Parameters | before | after | change | p | since |
        |---|---|---|---|--:|--:|--:|--:|---|
        | meta-llama/a&#124;b&lt;script&gt; | cpu (AMD\_EPYC\_2c) | Output throughput | request\_rate=inf | 900 tok/s | 1,079 tok/s | **+19.9 %** | < 0.0001 | [0000000](https://github.com/vllm-project/vllm/commit/0000000000000000000000000000000000000028) ([after 0000000](https://github.com/vllm-project/vllm/compare/0000000000000000000000000000000000000027...0000000000000000000000000000000000000028)), provisional |
        ");
    }

    #[test]
    fn an_old_change_and_a_change_on_a_device_that_is_no_longer_measured_are_not_alarms() {
        let of_day = |days: usize, gone: usize| {
            let of_day = |day: usize| {
                let value = 100.0 * noise(day) * if day >= 40 { 1.1 } else { 1.0 };
                let mut values = vec![(name("b", "median_ttft_ms", "1"), 50.0)];
                if day < gone {
                    values.push((name("a", "median_ttft_ms", "1"), value));
                }
                (day, values)
            };
            alarms(&pages(&object((0..days).map(of_day))), &setting()).alarms.len()
        };
        assert_eq!([of_day(45, 99), of_day(46, 99)], [1, 0], "confirmed last night");
        assert_eq!([of_day(51, 44), of_day(52, 44)], [1, 0], "eight days ago");
    }
}
