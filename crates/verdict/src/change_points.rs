//! Change points in the history of main. A series is one metric of one case on one device, in the order of its commits.

mod split;
mod verify;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use serde::{Deserialize, Serialize};

use crate::statistics::benjamini_hochberg;
use verify::CONFIRMED_BY;

/// Points in a window of the search for candidates; windows overlap by half.
const WINDOW: usize = 60;

/// A change of the level of a series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The first point of the new level.
    pub at: usize,
    /// Level before, in the metric's unit.
    pub before: f64,
    /// Level after, in the metric's unit.
    pub after: f64,
    /// Two-sided p value, corrected for the choice of the place.
    pub p: f64,
    pub state: State,
}

impl Change {
    /// The relative change: 0.05 is +5 %.
    pub fn relative(&self) -> f64 {
        self.after / self.before - 1.0
    }
}

/// How many points have followed a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Fewer than five points have followed.
    Provisional,
    /// At least five points have followed.
    Confirmed,
}

impl State {
    /// The name in files and texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisional => "provisional",
            Self::Confirmed => "confirmed",
        }
    }
}

/// The changes of a series, in order. Values that are not positive and finite are skipped.
pub fn changes(values: &[f64]) -> Vec<Change> {
    found(values, &Windows::default(), &mut Windows::default())
}

/// The changes of many series, computed on all processors, and the windows of these series for the next call. Windows in
/// `known` are not searched again; the changes are the same with and without `known`.
pub fn changes_of_all(series: &[Vec<f64>], known: &Windows) -> (Vec<Vec<Change>>, Windows) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let search = |part: &[Vec<f64>]| {
        let mut seen = Windows::default();
        let changes: Vec<Vec<Change>> = part.iter().map(|values| found(values, known, &mut seen)).collect();
        (changes, seen)
    };
    let mut all = (Vec::with_capacity(series.len()), Windows::default());
    std::thread::scope(|scope| {
        let parts = series.chunks(series.len().div_ceil(threads).max(1));
        let started: Vec<_> = parts.map(|part| (part, scope.spawn(move || search(part)))).collect();
        for (part, thread) in started {
            // A thread panics only on a bug; repeating its work here reports that panic.
            let (changes, seen) = thread.join().unwrap_or_else(|_| search(part));
            all.0.extend(changes);
            all.1.0.extend(seen.0);
        }
    });
    all
}

/// The candidates of windows, by a hash of their values. The hash may differ between builds of this library: a window that
/// is not found is searched again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows(BTreeMap<u64, Vec<usize>>);

fn found(values: &[f64], known: &Windows, seen: &mut Windows) -> Vec<Change> {
    let usable = |value: &f64| *value > 0.0 && value.is_finite();
    let places: Vec<usize> = (0..values.len()).filter(|&place| usable(&values[place])).collect();
    let logs: Vec<f64> = places.iter().map(|&place| values[place].ln()).collect();
    let change = |change: verify::TestedSplit| Change {
        at: places[change.at],
        before: change.before.exp(),
        after: change.after.exp(),
        p: change.p,
        state: if logs.len() - change.at < CONFIRMED_BY { State::Provisional } else { State::Confirmed },
    };
    verify::verified(&logs, candidates(&logs, known, seen)).into_iter().map(change).collect()
}

/// Places where the level may have changed: the splits of every window. Windows begin at fixed places, so a new point
/// affects the last two at most.
fn candidates(logs: &[f64], known: &Windows, seen: &mut Windows) -> Vec<usize> {
    let mut found = Vec::new();
    let mut begin = 0;
    loop {
        let end = (begin + WINDOW).min(logs.len());
        let window = &logs[begin..end];
        let hash = hash(window);
        let splits = known.0.get(&hash).or_else(|| seen.0.get(&hash)).cloned();
        // `known` may come from a file that was modified.
        let splits = splits.filter(|splits| splits.iter().all(|&at| (1..window.len()).contains(&at)));
        let splits = splits.unwrap_or_else(|| split::splits(window));
        found.extend(splits.iter().map(|at| begin + at));
        seen.0.insert(hash, splits);
        if end == logs.len() {
            break;
        }
        begin += WINDOW / 2;
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn hash(window: &[f64]) -> u64 {
    let mut hasher = DefaultHasher::new();
    window.iter().for_each(|value| hasher.write_u64(value.to_bits()));
    hasher.finish()
}

/// The series whose level changed among their last `recent` points, by the newest change of each, at a false discovery rate
/// over all series. Each is the index of the series and its change, the smallest p value first.
pub fn alarms(series: &[(usize, Vec<Change>)], recent: usize, false_discovery_rate: f64) -> Vec<(usize, Change)> {
    let newest: Vec<Option<Change>> = series
        .iter()
        .map(|(points, changes)| changes.last().copied().filter(|change| change.at + recent >= *points))
        .collect();
    let p: Vec<f64> = newest.iter().map(|change| change.map_or(1.0, |change| change.p)).collect();
    let adjusted = benjamini_hochberg(&p);
    let mut alarms: Vec<(usize, Change)> = newest
        .into_iter()
        .enumerate()
        .filter(|(index, _)| adjusted[*index] <= false_discovery_rate)
        .filter_map(|(index, change)| Some((index, change?)))
        .collect();
    alarms.sort_by(|(_, a), (_, b)| a.p.total_cmp(&b.p));
    alarms
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal};

    /// A series around 100 with noise of 2 %: `shift(place)` is added to the level's logarithm.
    fn series(seed: u64, points: usize, shift: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        (0..points)
            .map(|place| {
                let noise: f64 = StandardNormal.sample(&mut random);
                100.0 * (shift(place) + 0.02 * noise).exp()
            })
            .collect()
    }

    fn step(at: usize, size: f64) -> impl Fn(usize) -> f64 {
        move |place| if place >= at { size.ln_1p() } else { 0.0 }
    }

    #[test]
    fn a_step_is_found_at_its_place_with_its_size() {
        let mut false_alarms = 0;
        for seed in 0..20 {
            let found = changes(&series(seed, 250, step(120, 0.10)));
            false_alarms += found.len() - 1;
            assert!(found[0].at.abs_diff(120) <= 1, "{found:?}");
            assert!((found[0].relative() - 0.10).abs() < 0.02, "{found:?}");
            assert_eq!(found[0].state, State::Confirmed);
        }
        assert!(false_alarms <= 1, "{false_alarms}");
    }

    #[test]
    fn a_constant_level_rarely_has_a_change_and_a_spike_is_not_a_change() {
        let moved = |shift: &dyn Fn(usize) -> f64| {
            (0..20).filter(|seed| !changes(&series(*seed, 250, shift)).is_empty()).collect::<Vec<u64>>()
        };
        let spiked = |place| if place == 100 || place == 180 { 0.5 } else { 0.0 };
        for seeds in [moved(&|_| 0.0), moved(&spiked)] {
            assert!(seeds.len() <= 1, "{seeds:?}");
        }
    }

    #[test]
    fn a_fresh_change_is_provisional_until_five_points_have_followed() {
        let values = series(1, 103, step(100, 0.2));
        let found = changes(&values);
        assert_eq!((found.len(), found[0].at, found[0].state), (1, 100, State::Provisional));
        let values = series(1, 105, step(100, 0.2));
        assert_eq!(changes(&values)[0].state, State::Confirmed);
        assert_eq!(changes(&series(1, 101, step(100, 0.2))), [], "one point may be a spike");
    }

    #[test]
    fn two_steps_are_two_changes_and_a_step_back_is_one_too() {
        let there_and_back = |place| if (100..150).contains(&place) { 0.1 } else { 0.0 };
        let found = changes(&series(3, 250, there_and_back));
        let places: Vec<usize> = found.iter().map(|change| change.at).collect();
        assert_eq!(places.len(), 2, "{found:?}");
        assert!(places[0].abs_diff(100) <= 1 && places[1].abs_diff(150) <= 1, "{places:?}");
        assert!(found[0].relative() > 0.0 && found[1].relative() < 0.0);
    }

    #[test]
    fn known_windows_do_not_change_the_result() {
        let all: Vec<Vec<f64>> = (0..6).map(|seed| series(seed, 400, step(100 + 40 * seed as usize, 0.1))).collect();
        let before: Vec<Vec<f64>> = all.iter().map(|values| values[..399].to_vec()).collect();
        let (_, known) = changes_of_all(&before, &Windows::default());
        let (cold, windows) = changes_of_all(&all, &Windows::default());
        assert_eq!(changes_of_all(&all, &known), (cold.clone(), windows.clone()));
        assert_eq!(cold, all.iter().map(|values| changes(values)).collect::<Vec<_>>());
        // Windows begin at 0, 30, ..., 360; only the last includes the new point.
        let new = windows.0.keys().filter(|hash| !known.0.contains_key(hash)).count();
        assert_eq!(new, 6);
        assert_eq!(changes_of_all(&[], &known), (Vec::new(), Windows::default()));
    }

    #[test]
    fn values_that_are_not_measurements_are_skipped() {
        let mut values = series(7, 120, step(60, 0.1));
        for (place, value) in [(10, 0.0), (11, f64::NAN), (12, -1.0), (13, f64::INFINITY)] {
            values[place] = value;
        }
        let found = changes(&values);
        assert!(found.len() == 1 && found[0].at.abs_diff(60) <= 1, "{found:?}");
        for few in [vec![], vec![1.0], vec![0.0; 50], vec![5.0; 50]] {
            assert_eq!(changes(&few), []);
        }
    }

    #[test]
    fn alarms_are_held_to_a_false_discovery_rate_over_all_series() {
        let change = |at, p| Change { at, before: 1.0, after: 1.1, p, state: State::Provisional };
        let mut series =
            vec![(100, vec![change(20, 1e-9)]), (100, vec![change(97, 1e-6)]), (100, vec![change(98, 9e-4)])];
        assert_eq!(alarms(&series, 5, 0.05).iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
        series.extend(std::iter::repeat_n((100, Vec::new()), 200));
        assert_eq!(alarms(&series, 5, 0.05).iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1]);
    }
}
