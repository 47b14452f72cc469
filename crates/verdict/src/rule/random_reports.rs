//! Random reports with everything that the rule distinguishes: shared noise, changes, holes, zeros, slices, stored noise, rows
//! without noise or with fewer pairs, secondary metrics.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::Serialize;

use super::reference::Given;
use crate::case::Kind;
use crate::metric::{self, Family, Metric};
use crate::v1::{Failed, RepetitionValue};

/// A report, as the reference reads it.
#[derive(Serialize)]
pub(super) struct Report {
    pub rows: Vec<Given>,
    pub fdr: f64,
}

type Side = Vec<Option<RepetitionValue>>;

/// What the rows of a report have in common.
struct Traits {
    pairs: usize,
    slices: usize,
    /// Noise that both sides of a pair share, and that all rows of a repetition share.
    of_pairs: Vec<f64>,
    of_repetitions: [Vec<f64>; 2],
    /// Change of head in all rows.
    change: f64,
    /// Size of the noise of a row.
    deviation: f64,
    /// How often a value or a slice is absent, and how often it is 0.
    holes: f64,
    zeros: f64,
    /// How often a row has stored A/A pairs.
    calibrated: f64,
}

impl Traits {
    fn new(random: &mut ChaCha8Rng) -> Self {
        let pairs = random.random_range(2..=10);
        let one_of = |random: &mut ChaCha8Rng, choices: &[f64]| choices.choose(random).copied().unwrap_or_default();
        let shared = one_of(random, &[0.0, 0.0, 0.03, 0.2]);
        let of_repetition = one_of(random, &[0.0, 0.01, 0.05]);
        let mut series = |deviation: f64| (0..pairs).map(|_| deviation * normal(random)).collect::<Vec<f64>>();
        let of_pairs = series(shared);
        let of_repetitions = [series(of_repetition), series(of_repetition)];
        let slices = *[1, 1, 1, 2, 3, 4].choose(random).unwrap();
        Self {
            pairs,
            slices,
            of_pairs,
            of_repetitions,
            change: one_of(random, &[0.0, 0.0, 0.03, -0.05, 0.1]),
            deviation: one_of(random, &[0.005, 0.02, 0.1]),
            holes: one_of(random, &[0.0, 0.0, 0.02, 0.25]),
            zeros: one_of(random, &[0.0, 0.0, 0.01]),
            calibrated: one_of(random, &[0.0, 0.0, 0.3]),
        }
    }

    fn row(&self, case: &str, metric: &Metric, random: &mut ChaCha8Rng) -> Given {
        let deviation = match random.random_bool(0.1) {
            true => 0.0,
            false => self.deviation * random.random_range(-1.0_f64..1.0).exp(),
        };
        let level = random.random_range(-2.0..8.0);
        let change = self.change + if random.random_bool(0.05) { 0.2 * normal(random) } else { 0.0 };
        let pairs = if random.random_bool(0.03) { random.random_range(0..=self.pairs) } else { self.pairs };
        let [mut base, mut head] = [(0, 0.0), (1, change)].map(|(side, change)| {
            let alone = random.random_bool(0.005);
            let length = if alone { random.random_range(0..=pairs) } else { pairs };
            let centre = |at: usize| level + change + self.of_pairs[at] + self.of_repetitions[side][at];
            (0..length).map(|at| self.repetition(centre(at), deviation, random)).collect::<Side>()
        });
        measured(&mut base);
        measured(&mut head);
        let failed = random.random_bool(0.3).then(|| failed(&base, &head, random));
        let min_effect = match metric.family {
            Family::Throughput => 0.02,
            Family::Median => 0.03,
            Family::P99 => 0.08,
        };
        let is_calibrated = random.random_bool(self.calibrated);
        Given {
            case: case.to_owned(),
            kind: metric.kind,
            metric: metric.id.to_owned(),
            direction: metric.direction,
            min_effect: if random.random_bool(0.1) { random.random_range(0.005..0.2) } else { min_effect },
            primary: metric.primary != random.random_bool(0.02),
            base,
            head,
            s0: is_calibrated.then(|| self.deviation * random.random_range(0.0..4.0)),
            aa_pairs: if is_calibrated { random.random_range(5..30) } else { 0 },
            failed,
        }
    }

    fn repetition(&self, centre: f64, deviation: f64, random: &mut ChaCha8Rng) -> Option<RepetitionValue> {
        let mut value = |holes: f64| {
            let value = (centre + deviation * normal(random)).exp();
            let value = if random.random_bool(self.zeros) { 0.0 } else { value };
            (!random.random_bool(holes)).then_some(value)
        };
        if self.slices == 1 {
            return value(self.holes).map(RepetitionValue::One);
        }
        value(self.holes / 2.0)?;
        Some(RepetitionValue::Slices((0..self.slices).map(|_| value(self.holes)).collect()))
    }
}

/// The report of a seed: 1 to 200 rows, most of them small.
pub(super) fn report(seed: u64) -> Report {
    let random = &mut ChaCha8Rng::seed_from_u64(seed);
    let traits = Traits::new(random);
    let number = 200.0_f64.powf(random.random_range(0.0..1.0)).round() as usize;
    let often = random.random_range(0.3..=1.0);
    let mut rows = Vec::new();
    let mut cases = 0;
    while rows.len() < number {
        let kind = if random.random_bool(0.6) { Kind::Serving } else { *Kind::ALL.choose(random).unwrap() };
        let case = format!("{}_{cases}", kind.as_str());
        for metric in metric::of(kind) {
            if random.random_bool(often) {
                rows.push(traits.row(&case, metric, random));
            }
        }
        cases += 1;
    }
    rows.truncate(number);
    Report { rows, fdr: *[0.02, 0.02, 0.01, 0.001].choose(random).unwrap() }
}

/// Makes the zeros of a side without any other repetition positive. Such a row is `inconclusive` by the text of the contract,
/// `not_measured` by the reference.
fn measured(side: &mut Side) {
    let is_positive =
        |value: &RepetitionValue| value.values().count() == value.slices() && value.values().all(|value| value > 0.0);
    if side.iter().flatten().any(is_positive) {
        return;
    }
    let positive = |value: &mut f64| *value = if *value > 0.0 { *value } else { 1.0 };
    for value in side.iter_mut().flatten() {
        match value {
            RepetitionValue::One(value) => positive(value),
            RepetitionValue::Slices(values) => values.iter_mut().flatten().for_each(positive),
        }
    }
}

/// Failures are absent values; not each absent value is a failure.
fn failed(base: &Side, head: &Side, random: &mut ChaCha8Rng) -> Failed {
    let [base, head] = [base, head].map(|side| {
        let absent = side.iter().filter(|value| value.is_none()).count();
        random.random_range(0..=absent)
    });
    Failed { base, head }
}

fn normal(random: &mut ChaCha8Rng) -> f64 {
    random.sample(StandardNormal)
}
