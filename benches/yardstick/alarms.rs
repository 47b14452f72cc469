//! False alarms: the share of reports without any change in which a row or an overall row is a finding.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use vllm_verdict::noise::Noise;

use crate::report::{Change, Report, is_alarm};
use crate::suite::{LOUD, QUIET, Range, Suite};
use crate::world::{NORMAL, World};
use crate::{scaled, workers};

const WORLDS: [World; 18] = [
    NORMAL,
    World { name: "t3", heavy_tails: true, ..NORMAL },
    World { name: "correlation .2", correlation: 0.2, ..NORMAL },
    World { name: "correlation .5", correlation: 0.5, ..NORMAL },
    World { name: "correlation .8", correlation: 0.8, ..NORMAL },
    World { name: "correlation .5, t3", correlation: 0.5, heavy_tails: true, ..NORMAL },
    World { name: "a fifth of the rows without noise", constant_rows: 0.2, ..NORMAL },
    World { name: "pairs share as much noise", shared_by_pairs: 1.0, ..NORMAL },
    World { name: "pairs share twice the noise", shared_by_pairs: 2.0, ..NORMAL },
    World { name: "drift 10 %", drift: 0.10, ..NORMAL },
    World { name: "drift 30 %", drift: 0.30, ..NORMAL },
    World { name: "AR(1) of .6", autoregression: 0.6, ..NORMAL },
    World { name: "a step of 10 %", step: 0.10, ..NORMAL },
    World { name: "first of a pair 5 % slower", first_slower: 0.05, ..NORMAL },
    World { name: "outlier repetitions, 5 %", outlier_repetitions: 0.05, ..NORMAL },
    World { name: "outlier values, 3 %", outlier_rows: 0.03, ..NORMAL },
    World { name: "failures, 2 %", failures: 0.02, ..NORMAL },
    World { name: "a burst of 20 %", burst: 0.20, ..NORMAL },
];

/// Rows of a report, and how many reports there are of each size.
const SIZES: [(usize, usize); 4] = [(5, 2000), (30, 800), (60, 400), (200, 120)];
const PAIRS: [usize; 3] = [3, 5, 10];
/// The largest share that is expected.
const EXPECTED: f64 = 0.03;

/// One number of the table.
struct Cell {
    world: World,
    range: Range,
    rows: usize,
    pairs: usize,
    reports: usize,
    seed: u64,
}

impl Cell {
    fn share(&self) -> f64 {
        let random = &mut ChaCha8Rng::seed_from_u64(self.seed);
        let mut alarm = |_: &usize| {
            let suite = Suite::new(self.rows, self.range, random);
            let report = Report::new(&suite, &self.world, Change::None, self.pairs, Noise::default(), random);
            is_alarm(&report.compared(self.pairs, Vec::new()))
        };
        (0..self.reports).filter(&mut alarm).count() as f64 / self.reports as f64
    }

    fn error_of_expected(&self) -> f64 {
        (EXPECTED * (1.0 - EXPECTED) / self.reports as f64).sqrt()
    }
}

/// Prints the table, a line for each world and range of noise.
pub fn print(factor: f64) {
    let mut cells = Vec::new();
    for world in WORLDS {
        for range in [QUIET, LOUD] {
            for (rows, reports) in SIZES {
                for pairs in PAIRS {
                    let seed = cells.len() as u64;
                    cells.push(Cell { world, range, rows, pairs, reports: scaled(reports, factor), seed });
                }
            }
        }
    }
    let shares = workers::map(&cells, Cell::share);
    print_head(&cells);
    let columns = SIZES.len() * PAIRS.len();
    for (cells, shares) in cells.chunks(columns).zip(shares.chunks(columns)) {
        print!("{:<34}{:>7}", cells[0].world.name, cells[0].range.name);
        for (at, share) in shares.iter().enumerate() {
            print!("{}{share:>6.3}", if at % PAIRS.len() == 0 { "  " } else { "" });
        }
        println!();
    }
    print_summary(&cells, &shares);
}

fn print_head(cells: &[Cell]) {
    println!(
        "False alarms: reports without a change in which a row or an overall row is a finding (expected: {EXPECTED})"
    );
    let of_sizes = |label: &str, value: &dyn Fn(&Cell) -> String| {
        print!("{label:<41}");
        cells.iter().step_by(PAIRS.len()).take(SIZES.len()).for_each(|cell| print!("{:>20}", value(cell)));
        println!();
    };
    of_sizes("rows", &|cell| cell.rows.to_string());
    of_sizes("reports", &|cell| cell.reports.to_string());
    of_sizes("standard error of .03", &|cell| format!("{:.3}", cell.error_of_expected()));
    print!("{:<34}{:>7}", "pairs", "noise");
    SIZES.iter().for_each(|_| print!("  {}", PAIRS.map(|pairs| format!("{pairs:>6}")).concat()));
    println!();
}

fn print_summary(cells: &[Cell], shares: &[f64]) {
    for (rows, _) in SIZES {
        let of_size: Vec<(f64, f64)> = cells
            .iter()
            .zip(shares)
            .filter(|(cell, _)| cell.rows == rows)
            .map(|(cell, share)| (*share, cell.error_of_expected()))
            .collect();
        let number = of_size.len();
        let mean = of_size.iter().map(|(share, _)| share).sum::<f64>() / number as f64;
        let largest = of_size.iter().map(|(share, _)| *share).fold(0.0, f64::max);
        let above = of_size.iter().filter(|(share, _)| *share > EXPECTED).count();
        let clearly = of_size.iter().filter(|(share, error)| *share > EXPECTED + 2.0 * error).count();
        println!(
            "{rows} rows: mean {mean:.4}, largest {largest:.3}; above {EXPECTED}: {above} of {number}, by two standard errors: {clearly}"
        );
    }
}
