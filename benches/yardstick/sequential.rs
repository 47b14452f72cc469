//! Sequential runs: pairs used, false alarms and power, beside runs of seven and ten pairs.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use vllm_verdict::looks::looks;
use vllm_verdict::noise::Noise;
use vllm_verdict::strategy::{MOST_PAIRS, Strategy};
use vllm_verdict::v1::Comparison;

use crate::report::{Change, FDR, Report, is_alarm};
use crate::suite::{LOUD, QUIET, Range, Suite};
use crate::world::{NORMAL, World};
use crate::{scaled, workers};

const ROWS: usize = 30;
const REPORTS: usize = 800;

/// As in the table of power.
const PLAIN: World = World { name: "correlation .2", correlation: 0.2, ..NORMAL };
const WORLDS: [World; 6] = [
    PLAIN,
    NORMAL,
    World { name: "t3", heavy_tails: true, ..NORMAL },
    World { name: "correlation .5", correlation: 0.5, ..NORMAL },
    World { name: "pairs share twice the noise", shared_by_pairs: 2.0, ..NORMAL },
    World { name: "drift 10 %", drift: 0.10, ..NORMAL },
];
const CHANGES: [Change; 4] =
    [Change::AllRows(0.03), Change::AllRows(0.05), Change::AllRows(0.10), Change::OneRow(0.10)];

/// A line of the table.
struct Scenario {
    world: World,
    range: Range,
    change: Change,
}

/// Shares of reports with a finding (without a change: any; else: that of the change), and how long the runs are.
#[derive(Default)]
struct Tally {
    sequential: f64,
    seven: f64,
    ten: f64,
    pairs: f64,
    /// Share of the runs that end at each look.
    ended: [f64; 4],
}

impl Scenario {
    fn tally(&self, reports: usize, seed: u64) -> Tally {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let looks = looks(Strategy::Sequential, MOST_PAIRS, FDR);
        let part = 1.0 / reports as f64;
        let mut tally = Tally::default();
        for _ in 0..reports {
            let suite = Suite::new(ROWS, self.range, random);
            let pairs = MOST_PAIRS as usize;
            let report = Report::new(&suite, &self.world, self.change, pairs, Noise::default(), random);
            let count = |comparison: &Comparison| match self.change {
                Change::None => part * f64::from(u8::from(is_alarm(comparison))),
                _ => part * f64::from(u8::from(report.is_found(comparison))),
            };
            let last = report.sequential(&looks);
            tally.sequential += count(&last);
            tally.seven += count(&report.compared(7, Vec::new()));
            tally.ten += count(&report.compared(pairs, Vec::new()));
            tally.pairs += part * f64::from(last.method.pairs);
            if let Some(at) = looks.iter().position(|look| look.pairs == last.method.pairs) {
                tally.ended[at] += part;
            }
        }
        tally
    }

    fn name(&self) -> String {
        format!("{}, {}: {}", self.range.name, self.world.name, self.change.name())
    }
}

/// Prints the table, a line for each world and change.
pub fn print(factor: f64) {
    let reports = scaled(REPORTS, factor);
    let mut scenarios = Vec::new();
    for range in [QUIET, LOUD] {
        scenarios.extend(WORLDS.map(|world| Scenario { world, range, change: Change::None }));
        scenarios.extend(CHANGES.map(|change| Scenario { world: PLAIN, range, change }));
    }
    let numbered: Vec<(u64, &Scenario)> = (2_000_000..).zip(&scenarios).collect();
    let tallies = workers::map(&numbered, |(seed, scenario)| scenario.tally(reports, *seed));
    println!("Sequential: looks at 3, 5, 7 and 10 pairs; {ROWS} rows, {reports} reports each. Reports with a finding:");
    println!(
        "{:<46}{:>11}{:>8}{:>8}{:>8}{:>9}{:>6}{:>6}{:>6}",
        "noise, world: change", "sequential", "N = 7", "N = 10", "pairs", "end at 3", "5", "7", "10"
    );
    for (scenario, tally) in scenarios.iter().zip(&tallies) {
        let Tally { sequential, seven, ten, pairs, ended: [at_3, at_5, at_7, at_10] } = tally;
        println!(
            "{:<46}{sequential:>11.3}{seven:>8.3}{ten:>8.3}{pairs:>8.2}{at_3:>9.2}{at_5:>6.2}{at_7:>6.2}{at_10:>6.2}",
            scenario.name()
        );
    }
}
