//! Pages of series from the points of many objects. A series is one metric of one case on one device, in the order of the
//! commits.

use std::collections::{BTreeMap, HashMap};

use indexmap::IndexMap;
use sha2::{Digest, Sha256};
use vllm_verdict::change_points::{self, Windows};
use vllm_verdict::metric::{self, Direction};

use super::page_data::{Commit, LevelChange, Page, Series};
use super::record_object::{SeriesName, date};
use super::site_cache::CachedObject;

/// Longest part of an id for each word, in characters.
const SLUG: usize = 40;

/// The settings of a site.
#[derive(Debug, Clone, Default)]
pub struct Setting {
    /// `OWNER/NAME`.
    pub repository: String,
    pub branch: String,
    /// Server of the commits' pages: `https://github.com`.
    pub server: String,
    /// Address of a CI run's page, with `{id}` for its number.
    pub run_url: Option<String>,
}

/// The pages of a site.
#[derive(Debug, Default)]
pub struct Pages {
    /// Sorted by model, device and device type.
    pub pages: Vec<Page>,
    /// Values that a later attempt at the same commit replaced.
    pub replaced: usize,
    /// The windows of the change point search, for the next build.
    pub windows: Windows,
}

/// A commit in all objects.
struct CommitRuns {
    sha: String,
    /// The earliest date in the records of the commit.
    timestamp: u64,
    /// Numbers of the first and the last run.
    first: u64,
    last: u64,
}

/// Values by commit, each with its attempt.
type Measured = HashMap<usize, ((u64, u32, u64), f64)>;

/// Metric and parameters, the key of a series on its page.
type Case = (String, Vec<(String, String)>);

/// The series of all objects, with their changes. The series numbers of the objects are indices into `names`; `known` are
/// the windows of the last build.
pub fn pages<'a>(
    names: &[SeriesName],
    objects: impl IntoIterator<Item = &'a CachedObject>,
    setting: &Setting,
    known: &Windows,
) -> Pages {
    let mut commits: Vec<CommitRuns> = Vec::new();
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut measured: Vec<Measured> = vec![Measured::new(); names.len()];
    let mut replaced = 0;
    for object in objects {
        let runs: Vec<usize> = object
            .runs
            .iter()
            .map(|run| {
                let number = *numbers.entry(&run.commit).or_insert_with(|| {
                    let (sha, id) = (run.commit.clone(), run.attempt.0);
                    commits.push(CommitRuns { sha, timestamp: run.timestamp, first: id, last: id });
                    commits.len() - 1
                });
                let commit = &mut commits[number];
                commit.timestamp = commit.timestamp.min(run.timestamp);
                commit.first = commit.first.min(run.attempt.0);
                commit.last = commit.last.max(run.attempt.0);
                number
            })
            .collect();
        for &(run, series, value) in &object.points {
            let place = || {
                let (run, series) = (run as usize, series as usize);
                let name = *object.series.get(series)? as usize;
                Some((object.runs.get(run)?.attempt, *runs.get(run)?, measured.get(name).map(|_| name)?))
            };
            // Invalid indices: the cache file was modified.
            let Some((attempt, commit, name)) = place() else { continue };
            let values = &mut measured[name];
            let old = values.get(&commit).copied();
            replaced += usize::from(old.is_some_and(|old| old != (attempt, value)));
            // Of two values of one attempt the larger is kept, so that the order of objects does not matter.
            if old.is_none_or(|old| (attempt, value.to_bits()) > (old.0, old.1.to_bits())) {
                values.insert(commit, (attempt, value));
            }
        }
    }
    let measured = names.iter().zip(measured).filter(|(_, values)| !values.is_empty());
    let mut grouped: BTreeMap<[&str; 3], Vec<(Case, Measured)>> = BTreeMap::new();
    for (name, values) in measured {
        let place = [name.model.as_str(), name.device.as_str(), name.device_type.as_str()];
        grouped.entry(place).or_default().push(((name.metric.clone(), name.parameters.clone()), values));
    }
    let pages = grouped.into_iter().map(|(place, series)| page(place, series, &commits, setting)).collect();
    let mut pages = Pages { pages, replaced, windows: Windows::default() };
    pages.windows = mark(&mut pages.pages, known);
    pages
}

fn page(place: [&str; 3], mut series: Vec<(Case, Measured)>, commits: &[CommitRuns], setting: &Setting) -> Page {
    let mut order: Vec<usize> = series.iter().flat_map(|(_, values)| values.keys().copied()).collect();
    order.sort_by(|&a, &b| {
        let key = |at: usize| (commits[at].timestamp, commits[at].first, &commits[at].sha);
        key(a).cmp(&key(b))
    });
    order.dedup();
    series.sort_by(|(a, _), (b, _)| a.cmp(b));
    let commit = |&at: &usize| {
        let CommitRuns { sha, timestamp, last, .. } = &commits[at];
        Commit {
            sha: sha.clone(),
            date: date(*timestamp).unwrap_or_default(),
            url: format!("{}/{}/commit/{sha}", setting.server, setting.repository),
            run: setting.run_url.as_ref().map(|url| url.replace("{id}", &last.to_string())),
        }
    };
    let of_case = |((metric, parameters), values): (Case, Measured)| {
        let (unit, direction) = facts(&metric);
        let words: Vec<&str> = parameters.iter().flat_map(|(name, value)| [name.as_str(), value]).collect();
        Series {
            id: id(&[&metric], &words),
            unit: unit.to_owned(),
            direction,
            values: order.iter().map(|at| values.get(at).map(|(_, value)| *value)).collect(),
            changes: Vec::new(),
            parameters: parameters.into_iter().collect::<IndexMap<String, String>>(),
            metric,
        }
    };
    let [model, device, device_type] = place;
    Page {
        id: id(&place, &[]),
        model: model.to_owned(),
        device: device.to_owned(),
        device_type: device_type.to_owned(),
        repository: setting.repository.clone(),
        commits: order.iter().map(commit).collect(),
        series: series.into_iter().map(of_case).collect(),
    }
}

/// Finds the changes of every series.
fn mark(pages: &mut [Page], known: &Windows) -> Windows {
    let all = || pages.iter().flat_map(|page| &page.series);
    let measured = |series: &Series| -> Vec<f64> { series.values.iter().flatten().copied().collect() };
    let values: Vec<Vec<f64>> = all().map(measured).collect();
    let (found, windows) = change_points::changes_of_all(&values, known);
    for (series, changes) in pages.iter_mut().flat_map(|page| &mut page.series).zip(found) {
        let places: Vec<usize> = (0..series.values.len()).filter(|&at| series.values[at].is_some()).collect();
        let shift = |change: change_points::Change| {
            let change_points::Change { before, after, p, state, .. } = change;
            LevelChange { at: places[change.at], before, after, p, state }
        };
        series.changes = changes.into_iter().map(shift).collect();
    }
    windows
}

/// Unit and direction of a metric. Records have a few metrics that reports do not have.
fn facts(metric: &str) -> (&'static str, Direction) {
    if let Some(known) = metric::ALL.iter().find(|known| known.id == metric) {
        return (known.unit, known.direction);
    }
    match metric {
        "latency" => ("s", Direction::Lower),
        _ if metric.ends_with("_ms") => ("ms", Direction::Lower),
        _ if metric.contains("throughput") || metric.ends_with("_per_second") => ("", Direction::Higher),
        _ => ("", Direction::Lower),
    }
}

/// An id for files and links: readable words, followed by a hash of the complete words.
fn id(words: &[&str], more: &[&str]) -> String {
    let slug = |word: &&str| {
        let mut slug = String::new();
        for character in word.chars().take(10 * SLUG) {
            match character.to_ascii_lowercase() {
                plain @ ('a'..='z' | '0'..='9') => slug.push(plain),
                _ if slug.ends_with('-') || slug.is_empty() => {}
                _ => slug.push('-'),
            }
        }
        slug.chars().take(SLUG).collect::<String>().trim_end_matches('-').to_owned()
    };
    let mut parts: Vec<String> = words.iter().map(slug).filter(|slug| !slug.is_empty()).collect();
    let mut hasher = Sha256::new();
    for word in words.iter().chain(more) {
        // The length makes the hash unambiguous.
        hasher.update((word.len() as u64).to_le_bytes());
        hasher.update(word);
    }
    parts.push(hasher.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect());
    parts.join("-")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::dashboard::record_object::Run;

    pub(in crate::dashboard) fn setting() -> Setting {
        Setting {
            repository: "vllm-project/vllm".into(),
            branch: "main".into(),
            server: "https://github.com".into(),
            run_url: None,
        }
    }

    pub(in crate::dashboard) fn sha(number: usize) -> String {
        format!("{number:040x}")
    }

    pub(in crate::dashboard) fn name(model: &str, metric: &str, rate: &str) -> SeriesName {
        SeriesName {
            model: model.into(),
            device: "cpu".into(),
            device_type: "AMD_EPYC_2c".into(),
            metric: metric.into(),
            parameters: vec![("request_rate".into(), rate.into())],
        }
    }

    /// One object for each commit, given as its day and its values.
    pub(in crate::dashboard) fn object<V: AsRef<[(SeriesName, f64)]>>(
        commits: impl IntoIterator<Item = (usize, V)>,
    ) -> (Vec<SeriesName>, Vec<CachedObject>) {
        let mut names: Vec<SeriesName> = Vec::new();
        let mut number = |name: &SeriesName| {
            names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(name.clone());
                names.len() - 1
            }) as u32
        };
        let kept = commits
            .into_iter()
            .enumerate()
            .map(|(attempt, (day, values))| {
                let timestamp = 1_790_000_000 + 86_400 * day as u64;
                let run = Run { commit: sha(day), timestamp, attempt: (1000 + day as u64, attempt as u32, 1) };
                let values = values.as_ref();
                let points = values.iter().enumerate().map(|(at, (_, value))| (0, at as u32, *value)).collect();
                let series = values.iter().map(|(name, _)| number(name)).collect();
                CachedObject { runs: vec![run], series, points, ..CachedObject::default() }
            })
            .collect();
        (names, kept)
    }

    pub(in crate::dashboard) fn pages((names, kept): &(Vec<SeriesName>, Vec<CachedObject>)) -> Vec<Page> {
        super::pages(names, kept, &setting(), &Windows::default()).pages
    }

    #[test]
    fn a_page_is_a_model_on_a_device_and_a_series_a_metric_with_its_parameters() {
        let values = [
            (name("a", "median_ttft_ms", "1"), 1.0),
            (name("a", "median_ttft_ms", "inf"), 2.0),
            (name("a", "output_throughput", "1"), 3.0),
            (name("b", "median_ttft_ms", "1"), 4.0),
        ];
        let pages = pages(&object([(1, &values[..]), (0, &values[..1])]));
        let models: Vec<(&str, usize)> = pages.iter().map(|page| (page.model.as_str(), page.series.len())).collect();
        assert_eq!(models, [("a", 3), ("b", 1)]);
        let page = &pages[0];
        assert_eq!(page.commits.iter().map(|commit| commit.sha.clone()).collect::<Vec<_>>(), [sha(0), sha(1)]);
        assert_eq!(page.series[0].values, [Some(1.0), Some(1.0)]);
        assert_eq!(page.series[1].values, [None, Some(2.0)]);
        assert_eq!((page.series[2].unit.as_str(), page.series[2].direction), ("tok/s", Direction::Higher));
        assert_eq!(pages[1].commits.len(), 1);
    }

    #[test]
    fn a_commit_that_was_measured_again_has_the_value_of_its_latest_attempt() {
        let value = |value| [(name("a", "median_ttft_ms", "1"), value)];
        let (names, mut kept) = object([(0, value(1.0)), (0, value(2.0)), (1, value(3.0))]);
        let forth = super::pages(&names, &kept, &setting(), &Windows::default());
        assert_eq!(forth.pages[0].series[0].values, [Some(2.0), Some(3.0)]);
        assert_eq!(forth.replaced, 1);
        kept.reverse();
        assert_eq!(super::pages(&names, &kept, &setting(), &Windows::default()).pages, forth.pages);
    }

    #[test]
    fn invalid_indices_are_skipped() {
        let (names, mut kept) = object([(0, [(name("a", "latency", "1"), 1.0)])]);
        kept[0].points.extend([(7, 0, 1.0), (0, 7, 1.0)]);
        kept[0].series.push(7);
        kept[0].points.push((0, 1, 1.0));
        assert_eq!(pages(&(names, kept))[0].series.len(), 1);
    }

    #[test]
    fn an_id_is_readable_and_unique() {
        let hostile = ["../../etc", "<script>", "a/b", "a b", "🚀", "", "a\"b", &"x".repeat(10_000)];
        let ids: Vec<String> = hostile.iter().map(|name| id(&[name, "cpu"], &[])).collect();
        for (at, one) in ids.iter().enumerate() {
            assert!(one.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-'), "{one}");
            assert!(one.len() < 100 && !ids[..at].contains(one), "{one}");
        }
        assert_eq!(
            id(&["meta-llama/Llama-3.1-8B", "cuda", "NVIDIA H100"], &[]),
            "meta-llama-llama-3-1-8b-cuda-nvidia-h100-9c0a645e"
        );
        assert_ne!(id(&["a", "b"], &[]), id(&["ab"], &[]));
    }

    #[test]
    fn a_change_is_at_the_commit_of_the_page_where_a_series_has_gaps() {
        let steady = |number: usize| if number.is_multiple_of(2) { 100.0 } else { 101.0 };
        let of_day = |number: usize| {
            let mut values = vec![(name("a", "latency", "1"), 1.0)];
            if !number.is_multiple_of(3) {
                let value = steady(number) * if number >= 30 { 1.2 } else { 1.0 };
                values.push((name("a", "median_ttft_ms", "1"), value));
            }
            (number, values)
        };
        let pages = pages(&object((0..60).map(of_day)));
        let series = pages[0].series.iter().find(|series| series.metric == "median_ttft_ms").unwrap();
        // The thirtieth commit was not measured.
        assert_eq!(series.changes.iter().map(|change| change.at).collect::<Vec<_>>(), [31]);
        assert_eq!(series.changes[0].state, vllm_verdict::change_points::State::Confirmed);
    }
}
