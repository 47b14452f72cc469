//! History of main: where the level of a series changed. Pure. A series is one metric of one case on one device, in the
//! order of its commits.

mod split;
mod verify;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::statistics::benjamini_hochberg;

/// Points of a window in which candidates are looked for; windows overlap by half.
const WINDOW: usize = 60;

/// Fewest points on either side of a change that is confirmed.
const CONFIRMED_BY: usize = 5;

/// Fewest points after a change that is told at all: one point is a spike.
const TOLD_BY: usize = 2;

/// Largest p value of a change.
const P: f64 = 1e-3;

/// Smallest change of the level that is one, as a log-ratio: 2 %.
const SHIFT: f64 = 0.02;

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
    /// Whether enough points have followed.
    pub state: State,
}

impl Change {
    /// After relative to before: 0.05 is +5 %.
    pub fn relative(&self) -> f64 {
        self.after / self.before - 1.0
    }
}

/// How far a change can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Fewer than five points have followed.
    Provisional,
    /// At least five points have followed.
    Confirmed,
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisional => "provisional",
            Self::Confirmed => "confirmed",
        }
    }
}

/// The changes of a series, in order. Values that are not above 0 and finite are passed over.
pub fn changes(values: &[f64]) -> Vec<Change> {
    found(values, &Windows::default(), &mut Windows::default())
}

/// The changes of many series, on every processor. What was found in a window before is not looked for again: the
/// changes are the same with and without `known`. Also what the windows of these series hold, for the next time.
pub fn changes_of_all(series: &[Vec<f64>], known: &Windows) -> (Vec<Vec<Change>>, Windows) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let look = |part: &[Vec<f64>]| {
        let mut seen = Windows::default();
        let changes: Vec<Vec<Change>> = part.iter().map(|values| found(values, known, &mut seen)).collect();
        (changes, seen)
    };
    let mut all = (Vec::with_capacity(series.len()), Windows::default());
    std::thread::scope(|scope| {
        let parts = series.chunks(series.len().div_ceil(threads).max(1));
        let started: Vec<_> = parts.map(|part| (part, scope.spawn(move || look(part)))).collect();
        for (part, thread) in started {
            // A thread ends early only by a defect; then this one meets it too, and says so.
            let (changes, seen) = thread.join().unwrap_or_else(|_| look(part));
            all.0.extend(changes);
            all.1.0.extend(seen.0);
        }
    });
    all
}

/// What was found in windows of series, by a hash of their values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows(BTreeMap<u64, Vec<usize>>);

fn found(values: &[f64], known: &Windows, seen: &mut Windows) -> Vec<Change> {
    let usable = |value: &f64| *value > 0.0 && value.is_finite();
    let places: Vec<usize> = (0..values.len()).filter(|&place| usable(&values[place])).collect();
    let logs: Vec<f64> = places.iter().map(|&place| values[place].ln()).collect();
    let change = |change: verify::Found| Change {
        at: places[change.at],
        before: change.before.exp(),
        after: change.after.exp(),
        p: change.p,
        state: if logs.len() - change.at < CONFIRMED_BY { State::Provisional } else { State::Confirmed },
    };
    verify::verified(&logs, candidates(&logs, known, seen)).into_iter().map(change).collect()
}

/// Places where the level may have changed: the splits of every window. A window begins at a place of its own however long
/// the series is, so a new point touches the last two at most.
fn candidates(logs: &[f64], known: &Windows, seen: &mut Windows) -> Vec<usize> {
    let mut found = Vec::new();
    let mut begin = 0;
    loop {
        let end = (begin + WINDOW).min(logs.len());
        let window = &logs[begin..end];
        let hash = hash(window);
        let splits = known.0.get(&hash).or_else(|| seen.0.get(&hash)).cloned();
        // What an earlier look wrote down may have been changed since.
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
    let mut hasher = Sha256::new();
    window.iter().for_each(|value| hasher.update(value.to_bits().to_le_bytes()));
    hasher.finalize().iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// Which of a night's series moved: by the newest change of each among its last `recent` points, held to a false discovery
/// rate over all series. Index of the series and its change, the most certain first.
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
    fn a_step_is_found_where_it_is_and_as_large_as_it_is() {
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
    fn a_level_that_stays_has_hardly_ever_a_change_and_a_spike_is_none() {
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
    fn what_was_found_before_is_found_again_whether_or_not_it_is_known() {
        let all: Vec<Vec<f64>> = (0..6).map(|seed| series(seed, 400, step(100 + 40 * seed as usize, 0.1))).collect();
        let before: Vec<Vec<f64>> = all.iter().map(|values| values[..399].to_vec()).collect();
        let (_, known) = changes_of_all(&before, &Windows::default());
        let (cold, windows) = changes_of_all(&all, &Windows::default());
        assert_eq!(changes_of_all(&all, &known), (cold.clone(), windows.clone()));
        assert_eq!(cold, all.iter().map(|values| changes(values)).collect::<Vec<_>>());
        // Windows begin at 0, 30, ..., 360, and the last alone holds the new point.
        let new = windows.0.keys().filter(|hash| !known.0.contains_key(hash)).count();
        assert_eq!(new, 6);
        assert_eq!(changes_of_all(&[], &known), (Vec::new(), Windows::default()));
    }

    #[test]
    fn values_that_are_no_measurement_are_passed_over() {
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
    fn a_night_has_few_false_alarms_over_all_its_series() {
        let change = |at, p| Change { at, before: 1.0, after: 1.1, p, state: State::Provisional };
        let mut series =
            vec![(100, vec![change(20, 1e-9)]), (100, vec![change(97, 1e-6)]), (100, vec![change(98, 9e-4)])];
        assert_eq!(alarms(&series, 5, 0.05).iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
        series.extend(std::iter::repeat_n((100, Vec::new()), 200));
        assert_eq!(alarms(&series, 5, 0.05).iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1]);
    }
}
