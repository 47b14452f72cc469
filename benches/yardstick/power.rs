//! Power: how often a change is found, beside the numbers that are expected: those of the simulation by which the rule was
//! chosen. All rows of a repetition have a correlation of .2: with it the two simulations agree, and real runs have 0 to .3.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::report::{Change, Report};
use crate::suite::{LOUD, QUIET, Range, Suite};
use crate::world::{NORMAL, World};
use crate::{scaled, workers};

const ROWS: usize = 30;
const REPORTS: usize = 1000;
const PAIRS: [usize; 4] = [3, 5, 7, 10];
/// Stored A/A pairs of a calibrated row.
const AA_PAIRS: usize = 20;

const PLAIN: World = World { name: "", correlation: 0.2, ..NORMAL };
const SHARED: World = World { name: ", pairs share twice that", shared_by_pairs: 2.0, ..PLAIN };
const DRIFT: World = World { name: ", drift 10 %", drift: 0.10, ..PLAIN };

/// A line of the table.
struct Scenario {
    range: Range,
    world: World,
    change: Change,
    aa_pairs: usize,
    /// The expected numbers at [`PAIRS`].
    expected: [f64; 4],
}

const fn scenario(range: Range, world: World, change: Change, expected: [f64; 4]) -> Scenario {
    Scenario { range, world, change, aa_pairs: 0, expected }
}

const fn calibrated(change: Change, expected: [f64; 4]) -> Scenario {
    Scenario { range: QUIET, world: PLAIN, change, aa_pairs: AA_PAIRS, expected }
}

const UNKNOWN: f64 = f64::NAN;

const SCENARIOS: [Scenario; 10] = [
    scenario(QUIET, PLAIN, Change::OneRow(0.05), [0.05, 0.35, 0.57, 0.72]),
    scenario(QUIET, PLAIN, Change::OneRow(0.10), [0.39, 0.87, 0.95, 0.99]),
    scenario(QUIET, PLAIN, Change::AllRows(0.03), [0.46, 0.90, 0.98, 1.0]),
    scenario(QUIET, PLAIN, Change::AllRows(0.05), [0.89, 1.0, 1.0, 1.0]),
    scenario(LOUD, PLAIN, Change::AllRows(0.10), [0.21, 0.55, 0.76, 0.94]),
    scenario(QUIET, SHARED, Change::AllRows(0.05), [0.51, 0.98, 1.0, 1.0]),
    scenario(QUIET, DRIFT, Change::AllRows(0.03), [0.02, 0.41, 0.88, 0.99]),
    scenario(LOUD, PLAIN, Change::OneRow(0.10), [UNKNOWN, 0.01, UNKNOWN, 0.10]),
    calibrated(Change::OneRow(0.05), [UNKNOWN, 0.39, UNKNOWN, UNKNOWN]),
    calibrated(Change::OneRow(0.10), [0.62, UNKNOWN, UNKNOWN, UNKNOWN]),
];

impl Scenario {
    fn name(&self) -> String {
        let stored = if self.aa_pairs > 0 { format!(", {} A/A pairs", self.aa_pairs) } else { String::new() };
        let red = if matches!(self.change, Change::AllRows(_)) { ", report red" } else { "" };
        format!("{}{}: {}{red}{stored}", self.range.name, self.world.name, self.change.name())
    }

    fn found(&self, pairs: usize, reports: usize, seed: u64) -> f64 {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut found = |_: &usize| {
            let suite = Suite::new(ROWS, self.range, random);
            let noise = suite.noise(self.aa_pairs, random);
            let report = Report::new(&suite, &self.world, self.change, pairs, noise, random);
            report.is_found(&report.compared(pairs, Vec::new()))
        };
        (0..reports).filter(&mut found).count() as f64 / reports as f64
    }
}

/// Prints the table, a line for each scenario.
pub fn print(factor: f64) {
    let reports = scaled(REPORTS, factor);
    let cells: Vec<(usize, usize)> =
        (0..SCENARIOS.len()).flat_map(|scenario| PAIRS.map(|pairs| (scenario, pairs))).collect();
    let found =
        workers::map(&cells, |&(at, pairs)| SCENARIOS[at].found(pairs, reports, 1_000_000 + (at * 100 + pairs) as u64));
    let error = 0.5 / (reports as f64).sqrt();
    println!("Power: {ROWS} rows, {reports} reports each (standard error at most {error:.3}); found / expected");
    println!("{:<58}{}", "noise: change", PAIRS.map(|pairs| format!("{:>14}", format!("N = {pairs}"))).concat());
    for (scenario, found) in SCENARIOS.iter().zip(found.chunks(PAIRS.len())) {
        print!("{:<58}", scenario.name());
        for (found, expected) in found.iter().zip(scenario.expected) {
            let expected = if expected.is_nan() { "-".to_owned() } else { format!("{expected:.2}") };
            print!("{:>14}", format!("{found:.2} / {expected:>4}"));
        }
        println!();
    }
}
