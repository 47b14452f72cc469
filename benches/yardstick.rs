//! False alarms and power of the verdicts (`vllm_verdict::compare`) and of other rules, on simulated reports with known
//! changes. `cargo bench --bench yardstick` prints a table; the seed is fixed, so it is reproducible.
//!
//! The simulation: 60 primary rows (12 cases of 5 metrics). A repetition of a row has a random
//! effect, Student t with 4 degrees of freedom scaled to 1 to 4 % (one size a row), and measuring noise of a third of that.
//! All rows of a repetition share 0.5 %. The machine drifts within a job: a random walk of 0.2 % a repetition and a trend
//! of up to 1 %. Between jobs it differs by 2 % (all rows) and 1 % (each row): this affects the rules that compare jobs.
//! A shift makes the 10 rows of 2 cases worse.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, StudentT};
use statrs::distribution::{ContinuousCDF, StudentsT};
use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::metric::{self, Direction, Metric};
use vllm_verdict::noise::{AaRow, AaRun, MeasuredOn, Noise, SCHEMA};
use vllm_verdict::repetition::{Measurement, Outcome, Repetition};
use vllm_verdict::statistics::percentile;
use vllm_verdict::v1::{CaseFacts, Comparison, DeviceName, Look, Subject, Verdict};
use vllm_verdict::{self, Input};

const CASES: usize = 12;
const SHIFTED_CASES: usize = 2;
/// Reports without any change, and reports with a change, for each size of it.
const NULL_REPORTS: usize = 1000;
const SHIFTED_REPORTS: usize = 300;
/// Reports that share a suite: its rows' noise, its A/A runs and its history.
const REPORTS_A_SUITE: usize = 50;
const SHIFTS: [f64; 4] = [0.0, 0.02, 0.05, 0.10];
/// A/A pairs of a row in a calibrated store.
const AA_PAIRS: usize = 20;
/// Nightly runs of main for the rules over history.
const HISTORY: usize = 30;

/// A suite on a machine: the part that is the same in all jobs.
struct Simulation {
    cases: Vec<CaseFacts>,
    metrics: Vec<&'static Metric>,
    /// Size of the random effect of each row, case by case.
    deviation: Vec<f64>,
}

/// The logarithm of every row in every repetition of one job, in the order of time.
type Job = Vec<Vec<f64>>;

impl Simulation {
    fn new(random: &mut ChaCha8Rng) -> Self {
        let case = |number: usize| {
            let case = vllm_verdict::v1::CaseFacts::named(
                &format!("serving_test{number}_qps_inf_concurrency_8"),
                Kind::Serving,
            );
            CaseFacts { measured_by: MeasuredBy::Native, ..case }
        };
        let metrics: Vec<&Metric> = metric::of(Kind::Serving).filter(|metric| metric.primary).collect();
        let deviation = (0..CASES * metrics.len()).map(|_| random.random_range(0.01..0.04)).collect();
        Self { cases: (0..CASES).map(case).collect(), metrics, deviation }
    }

    /// One job with this number of repetitions.
    fn job(&self, repetitions: usize, random: &mut ChaCha8Rng) -> Job {
        let normal = |deviation: f64, random: &mut ChaCha8Rng| deviation * standard(random);
        let machine = normal(0.02, random);
        let rows: Vec<f64> = self.deviation.iter().map(|_| normal(0.01, random)).collect();
        let trend = random.random_range(-0.01..0.01);
        let mut walk = 0.0;
        let mut job = Vec::new();
        for time in 0..repetitions {
            walk += normal(0.002, random);
            let shared = machine + trend * time as f64 / repetitions as f64 + walk + normal(0.005, random);
            let own = self
                .deviation
                .iter()
                .zip(&rows)
                .map(|(deviation, row)| shared + row + deviation * (heavy(random) + standard(random) / 3.0));
            job.push(own.collect());
        }
        job
    }

    /// The change of a row that is worse by `shift`, as a logarithm; 0 for rows without a change.
    fn shift(&self, row: usize, shift: f64) -> f64 {
        let worse = match self.metrics[row % self.metrics.len()].direction {
            Direction::Higher => -shift.ln_1p(),
            Direction::Lower => shift.ln_1p(),
        };
        if row / self.metrics.len() < SHIFTED_CASES { worse } else { 0.0 }
    }

    /// Pairs of one job, each in random order.
    fn pairs(&self, pairs: usize, shift: f64, random: &mut ChaCha8Rng) -> [Job; 2] {
        let job = self.job(2 * pairs, random);
        let mut sides = [Vec::new(), Vec::new()];
        for pair in job.chunks(2) {
            let first = usize::from(random.random_bool(0.5));
            sides[0].push(pair[first].clone());
            sides[1]
                .push(pair[1 - first].iter().enumerate().map(|(row, value)| value + self.shift(row, shift)).collect());
        }
        sides
    }

    fn repetition(&self, values: &[f64]) -> Repetition {
        let of_case = |(case, values): (&CaseFacts, &[f64])| {
            let metrics =
                self.metrics.iter().zip(values).map(|(metric, value)| (metric.id.to_owned(), 100.0 * value.exp()));
            (case.name.raw().to_owned(), Outcome::Measured(Measurement::new(case.kind, metrics.collect())))
        };
        self.cases.iter().zip(values.chunks(self.metrics.len())).map(of_case).collect()
    }

    /// Noise from this number of A/A pairs of each row, in jobs of five pairs.
    fn noise(&self, pairs: usize, random: &mut ChaCha8Rng) -> Noise {
        let mut ratios = vec![Vec::new(); self.deviation.len()];
        while ratios[0].len() < pairs {
            let [base, head] = self.pairs(5, 0.0, random);
            for (row, ratios) in ratios.iter_mut().enumerate() {
                ratios.extend(base.iter().zip(&head).map(|(base, head)| head[row] - base[row]));
            }
        }
        let row = |(at, ratios): (usize, Vec<f64>)| AaRow {
            case: self.cases[at / self.metrics.len()].name.raw().to_owned(),
            metric: self.metrics[at % self.metrics.len()].id.to_owned(),
            client: MeasuredBy::Native,
            ratios: ratios.into_iter().take(pairs).collect(),
        };
        Noise::of([AaRun {
            schema: SCHEMA.to_owned(),
            version: vllm_perf::VERSION.to_owned(),
            run: None,
            device: MeasuredOn { name: DeviceName::Cpu, device_type: "simulated".to_owned(), simulated: false },
            started: "2026-01-01T00:00:00Z".to_owned(),
            rows: ratios.into_iter().enumerate().map(row).collect(),
        }])
    }

    fn compare(&self, [base, head]: &[Job; 2], pairs: usize, noise: &Noise, looks: Vec<Look>) -> Comparison {
        let side = |job: &Job| job.iter().take(pairs).map(|values| self.repetition(values)).collect();
        vllm_verdict::compare(Input {
            subject: Subject::default(),
            cases: self.cases.clone(),
            base: side(base),
            head: side(head),
            skipped: Vec::new(),
            planned_pairs: pairs as u32,
            seed: 1,
            verdict: VerdictConfig::default(),
            noise: noise.clone(),
            looks,
        })
    }
}

fn standard(random: &mut ChaCha8Rng) -> f64 {
    Normal::new(0.0, 1.0).map_or(0.0, |normal| normal.sample(random))
}

/// Student t with 4 degrees of freedom, scaled to a variance of 1.
fn heavy(random: &mut ChaCha8Rng) -> f64 {
    StudentT::new(4.0).map_or(0.0, |student| student.sample(random) / 2.0_f64.sqrt())
}

/// The result of a rule on one report.
#[derive(Clone, Copy, Default)]
struct Outcomes {
    /// Unchanged rows that the rule called changed.
    alarms: usize,
    /// Worse rows that the rule called regressed.
    found: usize,
    /// Average number of pairs of a case.
    pairs: f64,
}

/// The results of a rule on many reports.
#[derive(Clone, Copy, Default)]
struct Tally {
    reports: usize,
    alarmed: usize,
    alarms: usize,
    found: usize,
    pairs: f64,
}

impl Tally {
    fn add(&mut self, outcomes: Outcomes) {
        self.reports += 1;
        self.alarmed += usize::from(outcomes.alarms > 0);
        self.alarms += outcomes.alarms;
        self.found += outcomes.found;
        self.pairs += outcomes.pairs;
    }

    fn a_report(&self, number: usize) -> f64 {
        number as f64 / self.reports.max(1) as f64
    }
}

/// The result of the verdicts. With a shift of 0, every change is a false alarm.
fn of_verdicts(simulation: &Simulation, comparison: &Comparison, shift: f64) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for row in &comparison.rows {
        let shifted = shift > 0.0 && simulation.cases[..SHIFTED_CASES].iter().any(|case| case.name == row.case);
        outcomes.found += usize::from(shifted && row.verdict == Verdict::Regressed);
        outcomes.alarms += usize::from(!shifted && matches!(row.verdict, Verdict::Regressed | Verdict::Improved));
        let pairs = comparison.method.looks[row.look as usize - 1].pairs;
        outcomes.pairs += f64::from(pairs) / comparison.rows.len() as f64;
    }
    outcomes
}

/// The result of another rule: `calls` is -1 (better), 0 or 1 (worse) for a row.
fn of_rule(simulation: &Simulation, shift: f64, calls: impl Fn(usize) -> i8) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for row in 0..simulation.deviation.len() {
        let shifted = shift > 0.0 && simulation.shift(row, shift) != 0.0;
        outcomes.found += usize::from(shifted && calls(row) == 1);
        outcomes.alarms += usize::from(!shifted && calls(row) != 0);
    }
    outcomes
}

/// The data of the other rules: a history of main. They also use one run or five runs of head in other jobs.
struct OtherRules {
    history: Vec<Vec<f64>>,
}

impl OtherRules {
    /// The result of each rule, with its name.
    fn results(&self, simulation: &Simulation, shift: f64, random: &mut ChaCha8Rng) -> [(&'static str, Outcomes); 4] {
        let mut head = simulation.job(5, random);
        for values in &mut head {
            values.iter_mut().enumerate().for_each(|(row, value)| *value += simulation.shift(row, shift));
        }
        let base = simulation.job(5, random);
        // Differences as "worse": positive for more latency and for less throughput.
        let sign = |row: usize| match simulation.metrics[row % simulation.metrics.len()].direction {
            Direction::Higher => -1.0,
            Direction::Lower => 1.0,
        };
        let call = |size: f64, limit: f64| {
            if size > limit {
                1
            } else if size < -limit {
                -1
            } else {
                0
            }
        };
        let of_row = |row: usize| self.history.iter().map(|values| values[row]).collect::<Vec<f64>>();
        let ratio = |row: usize| call(sign(row) * (head[0][row] - base[0][row]), 0.05_f64.ln_1p());
        let student = |row: usize| {
            let past = of_row(row);
            let (mean, deviation) = moments(&past);
            let limit = quantile(0.99, past.len() as f64 - 1.0) * deviation;
            // One-sided: only worse values raise an alarm.
            i8::from(sign(row) * (head[0][row] - mean) > limit)
        };
        let fences = |row: usize| {
            let past = of_row(row);
            let changes: Vec<f64> = past.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
            let [low, high] = [25.0, 75.0].map(|percent| percentile(&changes, percent).unwrap_or_default());
            let last = past.last().copied().unwrap_or_default();
            call(sign(row) * (head[0][row] - last), high + 3.0 * (high - low))
        };
        let ranks = |row: usize| {
            let values = |job: &Job| job.iter().map(|values| sign(row) * values[row]).collect::<Vec<f64>>();
            let (base, head) = (values(&base), values(&head));
            let wins = head.iter().flat_map(|h| base.iter().map(move |b| usize::from(h > b))).sum::<usize>();
            // Exact two-sided p < 0.05 of five against five: U of 2 or less (p = 0.032).
            if wins >= 23 {
                1
            } else if wins <= 2 {
                -1
            } else {
                0
            }
        };
        [
            ("ratio of 5 %, single runs of two jobs", of_rule(simulation, shift, ratio)),
            ("one-sided t at 0.99 over history", of_rule(simulation, shift, student)),
            ("Q3 + 3 IQR over history", of_rule(simulation, shift, fences)),
            ("Mann-Whitney 5 v 5 of two jobs", of_rule(simulation, shift, ranks)),
        ]
    }
}

fn moments(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (values.len() as f64 - 1.0)).sqrt())
}

fn quantile(probability: f64, freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::INFINITY, |student| student.inverse_cdf(probability))
}

fn main() {
    let mut table: Vec<(String, [Tally; SHIFTS.len()])> = Vec::new();
    let mut add = |name: String, at: usize, outcomes: Outcomes| {
        let place = table.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            table.push((name, Default::default()));
            table.len() - 1
        });
        table[place].1[at].add(outcomes);
    };
    for (at, shift) in SHIFTS.into_iter().enumerate() {
        let reports = if at == 0 { NULL_REPORTS } else { SHIFTED_REPORTS };
        for suite in 0..reports / REPORTS_A_SUITE {
            let mut random = ChaCha8Rng::seed_from_u64(1000 * at as u64 + suite as u64);
            let world = Simulation::new(&mut random);
            let known = [
                ("calibrated", world.noise(AA_PAIRS, &mut random)),
                ("pooled", world.noise(5, &mut random)),
                ("not calibrated", Noise::default()),
            ];
            let history = (0..HISTORY).filter_map(|_| world.job(1, &mut random).pop()).collect();
            let others = OtherRules { history };
            for _ in 0..REPORTS_A_SUITE {
                let pairs = world.pairs(10, shift, &mut random);
                for (words, noise) in &known {
                    for number in [3, 5, 10] {
                        let comparison = world.compare(&pairs, number, noise, Vec::new());
                        add(
                            format!("vllm-perf, paired N={number}, {words}"),
                            at,
                            of_verdicts(&world, &comparison, shift),
                        );
                    }
                    let comparison = world.compare(
                        &pairs,
                        10,
                        noise,
                        vllm_verdict::looks::looks(vllm_verdict::strategy::Strategy::Sequential, 10, 0.02),
                    );
                    add(format!("vllm-perf, sequential 5 to 10, {words}"), at, of_verdicts(&world, &comparison, shift));
                }
                for (name, outcomes) in others.results(&world, shift, &mut random) {
                    add(name.to_owned(), at, outcomes);
                }
            }
        }
    }
    table.sort_by_key(|(name, _)| (!name.starts_with("vllm-perf"), !name.contains("paired")));
    print(&table);
}

fn print(table: &[(String, [Tally; SHIFTS.len()])]) {
    let rows = CASES * 5;
    println!(
        "{NULL_REPORTS} reports of {rows} rows without a change; {SHIFTED_REPORTS} with {} rows worse by 2, 5 or 10 %",
        SHIFTED_CASES * 5
    );
    println!(
        "{:<40} {:>13} {:>12} {:>7} {:>6} {:>6} {:>6}",
        "rule", "false alarms", "reports with", "pairs", "found", "found", "found"
    );
    println!("{:<40} {:>13} {:>12} {:>7} {:>6} {:>6} {:>6}", "", "a report", "any", "a case", "2 %", "5 %", "10 %");
    for (name, tallies) in table {
        let null = &tallies[0];
        let found = |tally: &Tally| tally.a_report(tally.found) / (SHIFTED_CASES * 5) as f64;
        let pairs = null.pairs / null.reports as f64;
        let pairs = if pairs > 0.0 { format!("{pairs:.1}") } else { "-".to_owned() };
        println!(
            "{name:<40} {:>13.3} {:>12.3} {pairs:>7} {:>6.2} {:>6.2} {:>6.2}",
            null.a_report(null.alarms),
            null.a_report(null.alarmed),
            found(&tallies[1]),
            found(&tallies[2]),
            found(&tallies[3]),
        );
    }
}
