//! Suites of serving cases: their names and metrics, the noise of their rows, and stored A/A pairs.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::metric::{self, Direction, Metric};
use vllm_verdict::noise::{AaRow, AaRun, MeasuredOn, Noise, SCHEMA};
use vllm_verdict::v1::{CaseFacts, DeviceName};

/// Primary metrics of a serving case.
pub const METRICS: usize = 5;

/// A range of the noise of rows: the standard deviation of the logarithm of a repetition. Its logarithm is uniform.
#[derive(Clone, Copy)]
pub struct Range {
    pub name: &'static str,
    least: f64,
    most: f64,
}

pub const QUIET: Range = Range { name: "1-4 %", least: 0.01, most: 0.04 };
pub const LOUD: Range = Range { name: "5-20 %", least: 0.05, most: 0.20 };

/// A suite on a machine. A row is a metric of a case; its number is `case * METRICS + metric`.
pub struct Suite {
    pub cases: Vec<CaseFacts>,
    pub metrics: Vec<&'static Metric>,
    /// The noise of each row.
    pub deviations: Vec<f64>,
}

impl Suite {
    /// A suite with this number of rows.
    pub fn new(rows: usize, range: Range, random: &mut ChaCha8Rng) -> Self {
        let case = |number: usize| CaseFacts {
            measured_by: MeasuredBy::Native,
            ..CaseFacts::named(&format!("serving_test{number}_qps_inf_concurrency_8"), Kind::Serving)
        };
        let metrics: Vec<&Metric> = metric::of(Kind::Serving).filter(|metric| metric.primary).collect();
        let cases: Vec<CaseFacts> = (0..rows.div_ceil(METRICS)).map(case).collect();
        let (least, most) = (range.least.ln(), range.most.ln());
        let deviations = (0..cases.len() * METRICS).map(|_| random.random_range(least..most).exp()).collect();
        Self { cases, metrics, deviations }
    }

    pub fn metric(&self, row: usize) -> &'static Metric {
        self.metrics[row % METRICS]
    }

    /// The sign of a slower row: less throughput, more latency.
    pub fn worse(&self, row: usize) -> f64 {
        match self.metric(row).direction {
            Direction::Higher => -1.0,
            Direction::Lower => 1.0,
        }
    }

    /// Rows of which this change is at least the minimum effect.
    pub fn open_to(&self, change: f64) -> Vec<usize> {
        let config = VerdictConfig::default();
        (0..self.deviations.len()).filter(|row| config.min_effect(self.metric(*row)) < change).collect()
    }

    /// This number of stored A/A pairs of each row, with normal noise.
    pub fn noise(&self, pairs: usize, random: &mut ChaCha8Rng) -> Noise {
        if pairs == 0 {
            return Noise::default();
        }
        let mut row = |at: usize| {
            let mut normal = || -> f64 { random.sample(StandardNormal) };
            let ratio = |_| self.deviations[at] * (normal() - normal());
            AaRow {
                case: self.cases[at / METRICS].name.raw().to_owned(),
                metric: self.metric(at).id.to_owned(),
                client: MeasuredBy::Native,
                ratios: (0..pairs).map(ratio).collect(),
            }
        };
        Noise::of([AaRun {
            schema: SCHEMA.to_owned(),
            version: String::new(),
            run: None,
            device: MeasuredOn { name: DeviceName::Cpu, device_type: "simulated".to_owned(), simulated: false },
            started: "2026-01-01T00:00:00Z".to_owned(),
            rows: (0..self.deviations.len()).map(&mut row).collect(),
        }])
    }
}
