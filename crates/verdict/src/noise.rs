//! What earlier A/A runs have shown of the noise of each row: the same build on both sides, so that every difference is
//! noise.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::case::MeasuredBy;
use crate::metric;
use crate::repetition::{Outcome, Repetition};
use crate::statistics::{Prior, mean, pair_deviation};
use crate::v1::{CaseFacts, Device, DeviceName, Subject};

/// Schema of one A/A run in a store.
pub const SCHEMA: &str = "vllm-perf/noise/v1";

/// Weight of what is known of a row's noise, in degrees of freedom.
pub const WEIGHT: f64 = 8.0;

/// Pairs that make a deviation known: of A/A runs of a row, which is then calibrated, or of all rows of a metric.
pub const ENOUGH_PAIRS: usize = 10;

/// Pooled noise is that of other rows: it is taken for larger by this factor.
const POOLED: f64 = 1.5;

/// What one A/A run showed: one object in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AaRun {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Version of vllm-perf that measured.
    pub version: String,
    /// What it was measured on.
    pub device: MeasuredOn,
    /// When the run began, RFC 3339 in UTC.
    pub started: String,
    /// One metric of one case each.
    pub rows: Vec<AaRow>,
}

/// A device whose noise is its own: name and type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredOn {
    /// Which device.
    pub name: DeviceName,
    /// Its type, e.g. `NVIDIA H100 80GB HBM3`.
    #[serde(rename = "type")]
    pub device_type: String,
}

impl From<&Device> for MeasuredOn {
    fn from(device: &Device) -> Self {
        Self { name: device.name, device_type: device.device_type.clone() }
    }
}

/// The pairs of one metric of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AaRow {
    /// Name of the case.
    pub case: String,
    /// Metric id.
    pub metric: String,
    /// Who measured it.
    pub client: MeasuredBy,
    /// `ln head - ln base` of every pair that has both values.
    pub ratios: Vec<f64>,
}

impl AaRun {
    /// What a run of one build against itself showed. A pair without a value on one side is left out.
    ///
    /// # Errors
    /// The device or the time of the measurement is unknown, or no pair has values.
    pub fn of(
        subject: &Subject,
        cases: &[CaseFacts],
        base: &[Repetition],
        head: &[Repetition],
    ) -> anyhow::Result<Self> {
        let unknown = "noise is kept of runs of vllm-perf alone: it is not known";
        let device = subject.device.as_ref().with_context(|| format!("{unknown} on which device this was measured"))?;
        let started = subject.started.clone().with_context(|| format!("{unknown} when this was measured"))?;
        let rows: Vec<AaRow> = cases.iter().flat_map(|case| rows(case, base, head)).collect();
        ensure!(!rows.is_empty(), "the A/A run has no pair with a value on both sides: there is no noise to keep");
        let version = subject.version.clone();
        Ok(Self { schema: SCHEMA.to_owned(), version, device: device.into(), started, rows })
    }
}

fn rows(case: &CaseFacts, base: &[Repetition], head: &[Repetition]) -> Vec<AaRow> {
    let row = |metric: &metric::Metric| AaRow {
        case: case.name.clone(),
        metric: metric.id.to_owned(),
        client: case.measured_by,
        ratios: pair_ratios(case, metric.id, base, head),
    };
    metric::of(case.kind).map(row).filter(|row| !row.ratios.is_empty()).collect()
}

/// `ln head - ln base` of a metric of a case in every pair that has both values.
fn pair_ratios(case: &CaseFacts, metric: &str, base: &[Repetition], head: &[Repetition]) -> Vec<f64> {
    let value = |repetition: &Repetition| match repetition.get(&case.name) {
        Some(Outcome::Measured(measurement)) => {
            measurement.metrics.get(metric).copied().filter(|value| value.is_finite() && *value > 0.0)
        }
        _ => None,
    };
    base.iter().zip(head).filter_map(|(base, head)| Some(value(head)?.ln() - value(base)?.ln())).collect()
}

/// What the pairs of a comparison show of a row's noise whether or not it changed: their log-ratios less their mean,
/// scaled so that their variance is that of pairs that were not centred.
pub(crate) fn centred_ratios(case: &CaseFacts, metric: &str, base: &[Repetition], head: &[Repetition]) -> Vec<f64> {
    let ratios = pair_ratios(case, metric, base, head);
    let (number, Some(mean)) = (ratios.len() as f64, mean(&ratios).filter(|_| ratios.len() > 1)) else {
        return Vec::new();
    };
    let scale = (number / (number - 1.0)).sqrt();
    ratios.into_iter().map(|ratio| scale * (ratio - mean)).collect()
}

/// The A/A pairs of one device, by client, metric and case.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Noise {
    native: Series,
    vllm: Series,
}

/// Metric id to case name to log-ratios.
type Series = HashMap<String, HashMap<String, Vec<f64>>>;

/// What is known of a row's noise.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Known {
    /// What its variance is drawn towards; `None` where too few pairs are known.
    pub prior: Option<Prior>,
    /// A/A pairs behind it, of the row or of its metric.
    pub pairs: usize,
    /// Whether they are the row's own, and enough.
    pub calibrated: bool,
}

impl Noise {
    /// The noise that these runs showed.
    pub fn of(runs: impl IntoIterator<Item = AaRun>) -> Self {
        let mut noise = Self::default();
        for row in runs.into_iter().flat_map(|run| run.rows) {
            let series = match row.client {
                MeasuredBy::Native => &mut noise.native,
                MeasuredBy::Vllm => &mut noise.vllm,
            };
            series.entry(row.metric).or_default().entry(row.case).or_default().extend(row.ratios);
        }
        noise
    }

    /// The log-ratios of the A/A pairs of a row.
    pub fn ratios(&self, case: &CaseFacts, metric: &str) -> &[f64] {
        let series = match case.measured_by {
            MeasuredBy::Native => &self.native,
            MeasuredBy::Vllm => &self.vllm,
        };
        series.get(metric).and_then(|cases| cases.get(&case.name)).map_or(&[], Vec::as_slice)
    }

    /// What is known of a row of a report of these cases: by its own pairs where there are [`ENOUGH_PAIRS`], else by those of
    /// all rows of its metric, where those are enough.
    pub fn prior(&self, case: &CaseFacts, metric: &str, report: &[CaseFacts]) -> Known {
        self.own(case, metric).unwrap_or_else(|| self.pooled(metric, report, Vec::new()))
    }

    /// What is known of a row by its own pairs; `None` where they are too few.
    pub fn own(&self, case: &CaseFacts, metric: &str) -> Option<Known> {
        let ratios = self.ratios(case, metric);
        let s0 = pair_deviation(ratios).filter(|_| ratios.len() >= ENOUGH_PAIRS)?;
        Some(Known { prior: Some(Prior { n0: WEIGHT, s0 }), pairs: ratios.len(), calibrated: true })
    }

    /// What is known of the rows of a metric in a report by the A/A pairs of all of them, and by what the report's own pairs
    /// show ([`centred_ratios`] of all of them).
    pub(crate) fn pooled(&self, metric: &str, report: &[CaseFacts], own: Vec<f64>) -> Known {
        let mut ratios = own;
        let shown = ratios.len();
        ratios.extend(report.iter().flat_map(|case| self.ratios(case, metric)));
        let s0 = pair_deviation(&ratios).filter(|_| ratios.len() >= ENOUGH_PAIRS);
        let prior = s0.map(|s0| Prior { n0: WEIGHT, s0: POOLED * s0 });
        Known { prior, pairs: ratios.len() - shown, calibrated: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Kind;
    use crate::repetition::Measurement;
    use crate::v1::Subject;

    fn case(name: &str, client: MeasuredBy) -> CaseFacts {
        CaseFacts { measured_by: client, ..CaseFacts::named(name, Kind::Latency) }
    }

    fn repetitions(values: &[Option<f64>]) -> Vec<Repetition> {
        let outcome = |value: &Option<f64>| match value {
            Some(value) => Outcome::Measured(Measurement {
                kind: Kind::Latency,
                metrics: [("median_latency".to_owned(), *value)].into_iter().collect(),
                warnings: Vec::new(),
            }),
            None => Outcome::Failed("it crashed".into()),
        };
        values.iter().map(|value| [("latency_a".to_owned(), outcome(value))].into_iter().collect()).collect()
    }

    fn subject() -> Subject {
        Subject {
            version: "0.1.0".into(),
            device: Some(device()),
            started: Some("2026-11-24T10:12:33Z".into()),
            ..Subject::default()
        }
    }

    fn of(subject: &Subject, base: &[Option<f64>], head: &[Option<f64>]) -> anyhow::Result<AaRun> {
        AaRun::of(subject, &[case("latency_a", MeasuredBy::Vllm)], &repetitions(base), &repetitions(head))
    }

    fn device() -> Device {
        Device {
            name: DeviceName::Cpu,
            device_type: "AMD_EPYC_9654_96-Core_96c".into(),
            count: 2,
            image_suffix: "-cpu".into(),
        }
    }

    fn run(base: &[Option<f64>], head: &[Option<f64>]) -> AaRun {
        of(&subject(), base, head).unwrap()
    }

    fn row(case: &str, client: MeasuredBy, ratios: &[f64]) -> AaRow {
        AaRow { case: case.into(), metric: "median_latency".into(), client, ratios: ratios.to_vec() }
    }

    fn noise(rows: Vec<AaRow>) -> Noise {
        Noise::of([AaRun { rows, ..run(&[Some(1.0)], &[Some(1.0)]) }])
    }

    #[test]
    fn a_pair_is_the_same_repetition_of_both_sides_and_counts_where_both_have_a_value() {
        let values = [Some(1.0), None, Some(2.0), Some(f64::NAN), Some(0.0)];
        let run = run(&values, &[Some(2.0), Some(1.0), Some(1.0), Some(1.0), Some(1.0)]);
        let ln2 = std::f64::consts::LN_2;
        assert_eq!(run.rows, [row("latency_a", MeasuredBy::Vllm, &[ln2, -ln2])]);
    }

    #[test]
    fn a_run_without_a_device_a_time_or_a_pair_keeps_no_noise() {
        let refusal = |subject: &Subject| of(subject, &[Some(1.0)], &[Some(1.0)]).unwrap_err().to_string();
        let mut folders = subject();
        folders.started = None;
        assert!(refusal(&folders).ends_with("it is not known when this was measured"));
        folders.device = None;
        assert!(refusal(&folders).ends_with("it is not known on which device this was measured"));
        assert!(of(&subject(), &[None, Some(1.0)], &[Some(1.0), None]).is_err());
    }

    #[test]
    fn ten_pairs_of_a_row_calibrate_it_and_fewer_are_pooled_over_the_rows_of_the_report() {
        let (few, own) = ([0.03, -0.03], [0.01, -0.01, 0.01, -0.01, 0.01, -0.01, 0.01, -0.01, 0.01, -0.01]);
        let noise = noise(vec![
            row("latency_a", MeasuredBy::Vllm, &few),
            row("latency_b", MeasuredBy::Vllm, &own),
            row("latency_elsewhere", MeasuredBy::Vllm, &[0.5; 20]),
        ]);
        let cases = ["latency_a", "latency_b"].map(|name| case(name, MeasuredBy::Vllm));
        let known = |at: usize| noise.prior(&cases[at], "median_latency", &cases);
        assert_eq!((known(1).calibrated, known(1).pairs), (true, 10));
        assert_eq!(known(1).prior, pair_deviation(&own).map(|s0| Prior { n0: 8.0, s0 }));
        assert_eq!((known(0).calibrated, known(0).pairs), (false, 12));
        let pooled = pair_deviation(&[few.as_slice(), own.as_slice()].concat()).unwrap();
        assert_eq!(known(0).prior, Some(Prior { n0: 8.0, s0: 1.5 * pooled }));
        assert_eq!(noise.prior(&cases[0], "avg_latency", &cases), Known::default());
        let alone = noise.prior(&cases[0], "median_latency", &cases[..1]);
        assert_eq!(alone, Known { prior: None, pairs: 2, calibrated: false }, "too few to tell anything");
    }

    #[test]
    fn the_pairs_of_a_comparison_show_noise_and_no_shift() {
        let (base, head) = ([1.0, 2.0, 4.0].map(Some), [3.0, 3.0, 15.0].map(Some));
        let of = |head: &[Option<f64>]| {
            let facts = case("latency_a", MeasuredBy::Vllm);
            centred_ratios(&facts, "median_latency", &repetitions(&base), &repetitions(head))
        };
        let ratios = of(&head);
        // d = np.log([3, 1.5, 3.75]); np.var(d, ddof=1)
        let variance = ratios.iter().map(|ratio| ratio * ratio).sum::<f64>() / 3.0;
        assert!((variance - 0.22830579).abs() < 1e-8, "{variance}");
        let doubled = of(&head.map(|value| value.map(|value| 2.0 * value)));
        assert!(ratios.iter().zip(&doubled).all(|(a, b)| (a - b).abs() < 1e-12));
        assert_eq!(of(&head[..1]), [0.0; 0]);
    }

    #[test]
    fn what_one_client_showed_says_nothing_of_the_other() {
        let noise = noise(vec![row("latency_a", MeasuredBy::Native, &[0.01; 10])]);
        let by_vllm = [case("latency_a", MeasuredBy::Vllm)];
        assert_eq!(noise.prior(&by_vllm[0], "median_latency", &by_vllm), Known::default());
    }

    #[test]
    fn runs_of_one_row_add_up() {
        let of = |ratios: &[f64]| AaRun {
            rows: vec![row("latency_a", MeasuredBy::Vllm, ratios)],
            ..run(&[Some(1.0)], &[Some(1.0)])
        };
        let noise = Noise::of([of(&[0.01, 0.02]), of(&[-0.01])]);
        assert_eq!(noise.ratios(&case("latency_a", MeasuredBy::Vllm), "median_latency"), [0.01, 0.02, -0.01]);
    }
}
