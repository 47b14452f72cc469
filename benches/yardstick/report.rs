//! Simulated reports: a job in a world, with a change of head, and what the verdicts say of it.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::noise::Noise;
use vllm_verdict::repetition::{Measurement, Outcome, Repetition};
use vllm_verdict::v1::{Comparison, Look, Subject, Verdict};
use vllm_verdict::{Input, looks};

use crate::suite::{METRICS, Suite};
use crate::world::World;

/// The false discovery rate of the verdicts.
pub const FDR: f64 = 0.02;

/// What head changes: it makes rows worse by this much.
#[derive(Clone, Copy)]
pub enum Change {
    None,
    OneRow(f64),
    AllRows(f64),
}

impl Change {
    pub fn name(&self) -> String {
        match self {
            Self::None => "no change".to_owned(),
            Self::OneRow(size) => format!("one row {:.0} %", 100.0 * size),
            Self::AllRows(size) => format!("all rows {:.0} %", 100.0 * size),
        }
    }
}

/// The repetitions of a job.
pub struct Report<'a> {
    suite: &'a Suite,
    noise: Noise,
    sides: [Vec<Repetition>; 2],
    /// The row that is worse, where it is a single one.
    changed: Option<usize>,
}

impl<'a> Report<'a> {
    /// A job of this number of pairs. Which side is first alternates.
    pub fn new(
        suite: &'a Suite,
        world: &World,
        change: Change,
        pairs: usize,
        noise: Noise,
        random: &mut ChaCha8Rng,
    ) -> Self {
        let job = world.job(&suite.deviations, pairs, random);
        let changed = match change {
            Change::OneRow(size) => suite.open_to(size).choose(random).copied(),
            _ => None,
        };
        let of_row = |row: usize| match change {
            Change::AllRows(size) => size.ln_1p(),
            Change::OneRow(size) if changed == Some(row) => size.ln_1p(),
            _ => 0.0,
        };
        let begins = random.random_range(0..2);
        let mut sides = [Vec::new(), Vec::new()];
        for (pair, slots) in job.chunks(2).enumerate() {
            let base = (pair + begins) % 2;
            let head: Vec<f64> = slots[1 - base].iter().enumerate().map(|(row, slow)| slow + of_row(row)).collect();
            for (side, slowness) in sides.iter_mut().zip([&slots[base], &head]) {
                side.push(repetition(suite, slowness, world.failures, random));
            }
        }
        Self { suite, noise, sides, changed }
    }

    /// The comparison of the first `pairs` pairs, as a run of the looks would have it.
    pub fn compared(&self, pairs: usize, looks: Vec<Look>) -> Comparison {
        let [base, head] = [0, 1].map(|side| self.sides[side][..pairs].to_vec());
        vllm_verdict::compare(Input {
            subject: Subject::default(),
            cases: self.suite.cases.clone(),
            base,
            head,
            skipped: Vec::new(),
            planned_pairs: pairs as u32,
            seed: 1,
            verdict: VerdictConfig { fdr: FDR, ..VerdictConfig::default() },
            noise: self.noise.clone(),
            looks,
        })
    }

    /// The comparison at the look that ends a sequential run.
    pub fn sequential(&self, looks: &[Look]) -> Comparison {
        let mut comparison = None;
        for look in looks {
            let compared = self.compared(look.pairs as usize, looks.to_vec());
            let ends = looks::ends(&compared).is_some();
            comparison = Some(compared);
            if ends {
                break;
            }
        }
        comparison.unwrap_or_else(|| self.compared(self.sides[0].len(), Vec::new()))
    }

    /// Whether the change was found: the row that is worse is `regressed`, or, where all of them are, the report.
    pub fn is_found(&self, comparison: &Comparison) -> bool {
        let Some(changed) = self.changed else { return comparison.verdict == Verdict::Regressed };
        let (case, metric) = (&self.suite.cases[changed / METRICS].name, self.suite.metric(changed).id);
        let is_changed = |row: &&vllm_verdict::v1::Row| row.case == *case && row.metric.raw() == metric;
        comparison.rows.iter().filter(is_changed).any(|row| row.verdict == Verdict::Regressed)
    }
}

/// Whether a row or an overall row is a finding.
pub fn is_alarm(comparison: &Comparison) -> bool {
    let rows = comparison.rows.iter().filter(|row| row.primary).map(|row| row.verdict);
    let mut verdicts = rows.chain(comparison.overall.iter().map(|row| row.verdict));
    verdicts.any(|verdict| matches!(verdict, Verdict::Failing | Verdict::Regressed | Verdict::Improved))
}

fn repetition(suite: &Suite, slowness: &[f64], failures: f64, random: &mut ChaCha8Rng) -> Repetition {
    let mut of_case = |case: usize| {
        let facts = &suite.cases[case];
        let rows = case * METRICS..(case + 1) * METRICS;
        let value = |row: usize| (suite.metric(row).id.to_owned(), 100.0 * (suite.worse(row) * slowness[row]).exp());
        let outcome = match random.random_bool(failures) {
            true => Outcome::Failed("it failed".to_owned()),
            false => Outcome::Measured(Measurement::new(facts.kind, rows.map(value).collect())),
        };
        (facts.name.raw().to_owned(), outcome)
    };
    (0..suite.cases.len()).map(&mut of_case).collect()
}
