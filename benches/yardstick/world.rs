//! Simulated noise: what a machine does to the logarithms of the rows of a report in the course of a job.
//!
//! A job is a list of slots, the repetitions in the order of time: the first slot of each pair, then the second. Every row has
//! a size of noise of its own. Slowness is positive: it lowers throughput and raises latencies.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal, StudentT};

/// Size of an outlier, as a logarithm: 30 %.
const OUTLIER: f64 = 0.262;

/// A machine and its noise.
// 13 fields: the properties of noise are independent of each other.
#[derive(Clone, Copy)]
pub struct World {
    pub name: &'static str,
    /// Whether the noise is Student t with 3 degrees of freedom; else it is normal, with the same variance.
    pub heavy_tails: bool,
    /// Correlation of all rows of a repetition.
    pub correlation: f64,
    /// Correlation of a row with itself, from one repetition to the next.
    pub autoregression: f64,
    /// Noise that both sides of a pair share and that moves all rows, in parts of the row's own.
    pub shared_by_pairs: f64,
    /// Part of the rows that have no noise at all.
    pub constant_rows: f64,
    /// How much slower all rows are at the end of a job than at its beginning.
    pub drift: f64,
    /// How much slower all rows are from one moment on.
    pub step: f64,
    /// How much slower all rows are for one to four repetitions, once in a job.
    pub burst: f64,
    /// How much slower the first of each pair is.
    pub first_slower: f64,
    /// Part of the repetitions in which all rows are slower by 30 %.
    pub outlier_repetitions: f64,
    /// Part of the values that are off by 30 %, in either direction.
    pub outlier_rows: f64,
    /// Part of the repetitions of a case that fail, on both sides alike.
    pub failures: f64,
}

/// Normal noise of each value.
pub const NORMAL: World = World {
    name: "normal",
    heavy_tails: false,
    correlation: 0.0,
    autoregression: 0.0,
    shared_by_pairs: 0.0,
    constant_rows: 0.0,
    drift: 0.0,
    step: 0.0,
    burst: 0.0,
    first_slower: 0.0,
    outlier_repetitions: 0.0,
    outlier_rows: 0.0,
    failures: 0.0,
};

impl World {
    /// The slowness of each row in each slot of a job, slot by slot. `deviations` are the sizes of the noise of the rows.
    pub fn job(&self, deviations: &[f64], pairs: usize, random: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
        let common = self.common(2 * pairs, random);
        let shared = self.series(2 * pairs, random);
        let of_pairs = self.series(pairs, random);
        let mut job = vec![Vec::new(); 2 * pairs];
        for deviation in deviations {
            let deviation = if random.random_bool(self.constant_rows) { 0.0 } else { *deviation };
            let own = self.series(2 * pairs, random);
            for (slot, values) in job.iter_mut().enumerate() {
                let noise = self.correlation.sqrt() * shared[slot] + (1.0 - self.correlation).sqrt() * own[slot];
                let noise = noise + self.shared_by_pairs * of_pairs[slot / 2];
                values.push(common[slot] + deviation * noise + self.outlier(random));
            }
        }
        job
    }

    /// The slowness that all rows have in each slot.
    fn common(&self, slots: usize, random: &mut ChaCha8Rng) -> Vec<f64> {
        let step = random.random_range(0..slots);
        let burst = random.random_range(0..slots);
        let burst = burst..burst + random.random_range(1..=4);
        let mut slowness = |slot: usize| {
            let parts = [
                (true, self.drift.ln_1p() * slot as f64 / (slots - 1) as f64),
                (slot >= step, self.step.ln_1p()),
                (burst.contains(&slot), self.burst.ln_1p()),
                (slot.is_multiple_of(2), self.first_slower.ln_1p()),
                (random.random_bool(self.outlier_repetitions), OUTLIER),
            ];
            parts.iter().filter(|(applies, _)| *applies).map(|(_, size)| size).sum()
        };
        (0..slots).map(&mut slowness).collect()
    }

    fn outlier(&self, random: &mut ChaCha8Rng) -> f64 {
        match random.random_bool(self.outlier_rows) {
            true if random.random_bool(0.5) => OUTLIER,
            true => -OUTLIER,
            false => 0.0,
        }
    }

    /// Noise in the course of time, with a variance of 1.
    fn series(&self, length: usize, random: &mut ChaCha8Rng) -> Vec<f64> {
        let of_last = self.autoregression;
        let mut last = self.standard(random);
        let mut next = || {
            let value = last;
            last = of_last * value + (1.0 - of_last * of_last).sqrt() * self.standard(random);
            value
        };
        (0..length).map(|_| next()).collect()
    }

    /// Noise with a variance of 1.
    fn standard(&self, random: &mut ChaCha8Rng) -> f64 {
        match StudentT::new(3.0) {
            Ok(student) if self.heavy_tails => student.sample(random) / 3.0_f64.sqrt(),
            _ => random.sample(StandardNormal),
        }
    }
}
