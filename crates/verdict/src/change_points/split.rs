//! Candidate splits of a window: the E-divisive method of Matteson and James (2014) in one dimension. The permutations
//! have a fixed seed.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Permutations of the best split.
const PERMUTATIONS: usize = 999;

/// Largest share of permutations with a statistic as large as the observed one. Candidates are verified afterwards.
const SHARE: f64 = 0.05;

/// Fewest points of a segment.
const SHORTEST: usize = 2;

/// The splits of a window, in no order: index of the first point after each.
pub(super) fn splits(window: &[f64]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut segments = vec![(0, window.len())];
    while let Some((begin, end)) = segments.pop() {
        let Some((at, energy)) = best(&window[begin..end]) else { continue };
        if is_significant(&window[begin..end], at, energy) {
            found.push(begin + at);
            segments.push((begin, begin + at));
            segments.push((begin + at, end));
        }
    }
    found
}

/// The split with the largest energy statistic, and that statistic.
fn best(segment: &[f64]) -> Option<(usize, f64)> {
    let length = segment.len();
    if length < 2 * SHORTEST {
        return None;
    }
    let distances = |from: &[f64], point: f64| from.iter().map(|value| (value - point).abs()).sum::<f64>();
    // Moving one point from the right to the left changes each sum by that point's distances.
    let (mut left, mut between) = (0.0, 0.0);
    let mut right: f64 = (0..length).map(|place| distances(&segment[place + 1..], segment[place])).sum();
    let mut best: Option<(usize, f64)> = None;
    for at in 1..length {
        let point = segment[at - 1];
        let (to_left, to_right) = (distances(&segment[..at - 1], point), distances(&segment[at..], point));
        left += to_left;
        right -= to_right;
        between += to_right - to_left;
        if at < SHORTEST || length - at < SHORTEST {
            continue;
        }
        let energy = energy(at, length - at, between, left, right);
        if best.is_none_or(|(_, most)| energy > most) {
            best = Some((at, energy));
        }
    }
    best.filter(|(_, energy)| *energy > 0.0)
}

/// The energy statistic of two segments from the sums of distances between them and within each.
fn energy(left_count: usize, right_count: usize, between: f64, left: f64, right: f64) -> f64 {
    let (n, m) = (left_count as f64, right_count as f64);
    let mean = |sum: f64, count: f64| if count > 1.0 { sum / (count * (count - 1.0) / 2.0) } else { 0.0 };
    n * m / (n + m) * (2.0 * between / (n * m) - mean(left, n) - mean(right, m))
}

/// Whether the observed statistic is larger than that of almost all permutations of the segment, split at the same place.
fn is_significant(segment: &[f64], at: usize, observed: f64) -> bool {
    let mut random = ChaCha8Rng::seed_from_u64(segment.len() as u64);
    let mut order: Vec<usize> = (0..segment.len()).collect();
    order.sort_by(|&a, &b| segment[a].total_cmp(&segment[b]));
    let sorted: Vec<f64> = order.iter().map(|&place| segment[place]).collect();
    let mut is_left: Vec<bool> = (0..segment.len()).map(|place| place < at).collect();
    let mut as_good = 0;
    let allowed = (SHARE * (PERMUTATIONS + 1) as f64) as usize;
    for _ in 0..PERMUTATIONS {
        is_left.shuffle(&mut random);
        if sorted_energy(&sorted, &is_left, at) >= observed {
            as_good += 1;
            if as_good + 1 > allowed {
                return false;
            }
        }
    }
    true
}

/// The energy statistic of sorted values, each marked as left or right, in one pass: the distances of a value to the smaller
/// ones are its value times their number, minus their sum.
fn sorted_energy(sorted: &[f64], is_left: &[bool], left_count: usize) -> f64 {
    let (mut lefts, mut left_sum, mut rights, mut right_sum) = (0.0, 0.0, 0.0, 0.0);
    let (mut left, mut right, mut between) = (0.0, 0.0, 0.0);
    for (value, is_left) in sorted.iter().zip(is_left) {
        let (to_lefts, to_rights) = (value * lefts - left_sum, value * rights - right_sum);
        if *is_left {
            left += to_lefts;
            between += to_rights;
            lefts += 1.0;
            left_sum += value;
        } else {
            right += to_rights;
            between += to_lefts;
            rights += 1.0;
            right_sum += value;
        }
    }
    energy(left_count, sorted.len() - left_count, between, left, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_split_is_where_the_level_changes() {
        let segment = [1.0, 1.1, 0.9, 1.0, 2.0, 2.1, 1.9, 2.0];
        let (at, value) = best(&segment).unwrap();
        assert_eq!(at, 4);
        // By the definition: 4 * 4 / 8 * (2 * mean |x - y| - mean |x - x'| - mean |y - y'|)
        let between: f64 = segment[..4].iter().flat_map(|x| segment[4..].iter().map(move |y| (x - y).abs())).sum();
        let within = |half: &[f64]| -> f64 {
            (0..4).flat_map(|i| (i + 1..4).map(move |j| (i, j))).map(|(i, j)| (half[i] - half[j]).abs()).sum::<f64>()
                / 6.0
        };
        let expected = 2.0 * (2.0 * between / 16.0 - within(&segment[..4]) - within(&segment[4..]));
        assert!((value - expected).abs() < 1e-12, "{value} {expected}");
    }

    #[test]
    fn one_pass_over_sorted_values_gives_the_same_energy() {
        let segment = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.3];
        let (at, value) = best(&segment).unwrap();
        let mut order: Vec<usize> = (0..segment.len()).collect();
        order.sort_by(|&a, &b| segment[a].total_cmp(&segment[b]));
        let sorted: Vec<f64> = order.iter().map(|&place| segment[place]).collect();
        let is_left: Vec<bool> = order.iter().map(|&place| place < at).collect();
        assert!((sorted_energy(&sorted, &is_left, at) - value).abs() < 1e-12);
    }

    #[test]
    fn short_and_constant_windows_are_not_split() {
        assert!(splits(&[]).is_empty());
        assert!(splits(&[1.0, 2.0, 3.0]).is_empty());
        assert!(splits(&[1.0; 60]).is_empty());
    }
}
