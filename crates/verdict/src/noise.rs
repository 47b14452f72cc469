//! The noise of each row, from A/A runs: both sides run the same build, so every difference is noise.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::case::MeasuredBy;
use crate::metric;
use crate::repetition::{Repetition, measurement};
use crate::rule::CALIBRATED_WEIGHT;
use crate::statistics::{Prior, pair_deviation};
use crate::v1::{CaseFacts, Device, DeviceName, SideFacts, Subject};

/// Schema of one A/A run in a store.
pub const SCHEMA: &str = "vllm-perf/noise/v1";

/// Pairs that are needed to estimate a deviation: A/A pairs of the row, which is then calibrated, or, for a screen, of all
/// rows of its metric.
pub const ENOUGH_PAIRS: usize = 10;

/// The pairs of one A/A run, stored as one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AaRun {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Version of vllm-perf.
    pub version: String,
    /// Identity of the run, by which its pairs count once; objects of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    pub device: MeasuredOn,
    /// Start of the run, RFC 3339 in UTC.
    pub started: String,
    pub rows: Vec<AaRow>,
}

/// What an A/A run was measured on; noise is kept by the device's name and type. The simulated vLLM has noise of its own on
/// every device: it says nothing of a real server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredOn {
    pub name: DeviceName,
    /// Its type, e.g. `NVIDIA H100 80GB HBM3`.
    #[serde(rename = "type")]
    pub device_type: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub simulated: bool,
}

impl MeasuredOn {
    /// A device, with real servers or with the simulated vLLM on both sides.
    pub fn new(device: &Device, simulated: bool) -> Self {
        Self { name: device.name, device_type: device.device_type.clone(), simulated }
    }
}

/// The pairs of one metric of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AaRow {
    pub case: String,
    /// Metric id.
    pub metric: String,
    /// The load client.
    pub client: MeasuredBy,
    /// `ln head - ln base` of every pair that has both values.
    pub ratios: Vec<f64>,
}

impl AaRun {
    /// The A/A run of these repetitions of one build. Pairs without a value on one side are left out.
    ///
    /// # Errors
    /// The device or the start of the measurement is unknown, or no pair has values on both sides.
    pub fn of(
        subject: &Subject,
        cases: &[CaseFacts],
        base: &[Repetition],
        head: &[Repetition],
    ) -> anyhow::Result<Self> {
        let unknown = "noise can only be stored for runs of vllm-perf: unknown";
        let device = subject.device.as_ref().with_context(|| format!("{unknown} device"))?;
        let started = subject.started.as_ref().with_context(|| format!("{unknown} start time"))?.raw().to_owned();
        let rows: Vec<AaRow> = cases.iter().flat_map(|case| rows(case, base, head)).collect();
        ensure!(!rows.is_empty(), "the A/A run has no pair with a value on both sides, so there is no noise to store");
        let version = subject.version.raw().to_owned();
        let device = MeasuredOn::new(device, is_simulated(subject));
        Ok(Self { schema: SCHEMA.to_owned(), version, run: None, device, started, rows })
    }

    /// How many pairs it has, over all rows.
    pub fn pairs(&self) -> usize {
        self.rows.iter().map(|row| row.ratios.len()).sum()
    }
}

/// Whether both sides are the simulated vLLM.
fn is_simulated(subject: &Subject) -> bool {
    let simulated = |side: &Option<SideFacts>| {
        side.as_ref().is_some_and(|side| side.target.raw() == "sim" || side.target.raw().starts_with("sim:"))
    };
    simulated(&subject.base) && simulated(&subject.head)
}

fn rows(case: &CaseFacts, base: &[Repetition], head: &[Repetition]) -> Vec<AaRow> {
    let row = |metric: &metric::Metric| AaRow {
        case: case.name.raw().to_owned(),
        metric: metric.id.to_owned(),
        client: case.measured_by,
        ratios: pair_ratios(case, metric.id, base, head),
    };
    metric::of(case.kind).map(row).filter(|row| !row.ratios.is_empty()).collect()
}

/// `ln head - ln base` of a metric of a case in every pair that has both values.
fn pair_ratios(case: &CaseFacts, metric: &str, base: &[Repetition], head: &[Repetition]) -> Vec<f64> {
    let value = |repetition| {
        let value = measurement(repetition, case.name.raw())?.metrics.get(metric).copied();
        value.filter(|value: &f64| value.is_finite() && *value > 0.0)
    };
    base.iter().zip(head).filter_map(|(base, head)| Some(value(head)?.ln() - value(base)?.ln())).collect()
}

/// The A/A pairs of one device, by client, metric and case.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Noise {
    native: Series,
    vllm: Series,
    vllm_rs: Series,
}

/// Metric id to case name to log-ratios.
type Series = HashMap<String, HashMap<String, Vec<f64>>>;

/// Each run once: of those with one identity, the one with the most pairs.
fn once(runs: impl IntoIterator<Item = AaRun>) -> Vec<AaRun> {
    let mut kept: Vec<AaRun> = Vec::new();
    for run in runs {
        match kept.iter_mut().find(|known| run.run.is_some() && known.run == run.run && known.device == run.device) {
            Some(known) if known.pairs() >= run.pairs() => {}
            Some(known) => *known = run,
            None => kept.push(run),
        }
    }
    kept
}

impl Noise {
    /// The noise of these runs. A run that is there several times, as it was before and after it was resumed, counts once,
    /// with all its pairs.
    pub fn of(runs: impl IntoIterator<Item = AaRun>) -> Self {
        let mut noise = Self::default();
        for row in once(runs).into_iter().flat_map(|run| run.rows) {
            let series = match row.client {
                MeasuredBy::Native => &mut noise.native,
                MeasuredBy::Vllm => &mut noise.vllm,
                MeasuredBy::VllmRs => &mut noise.vllm_rs,
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
            MeasuredBy::VllmRs => &self.vllm_rs,
        };
        series.get(metric).and_then(|cases| cases.get(case.name.raw())).map_or(&[], Vec::as_slice)
    }

    /// The noise of a row from its own pairs; `None` if they are too few.
    pub fn own(&self, case: &CaseFacts, metric: &str) -> Option<Prior> {
        estimated(self.ratios(case, metric))
    }

    /// The noise of a row that was measured once, for a screen: from its own pairs, or else from the pairs of all rows of its
    /// metric in the report.
    pub fn of_screen(&self, case: &CaseFacts, metric: &str, report: &[CaseFacts]) -> Option<Prior> {
        self.own(case, metric).or_else(|| {
            let ratios: Vec<f64> = report.iter().flat_map(|case| self.ratios(case, metric)).copied().collect();
            estimated(&ratios)
        })
    }
}

fn estimated(ratios: &[f64]) -> Option<Prior> {
    let s0 = pair_deviation(ratios).filter(|_| ratios.len() >= ENOUGH_PAIRS)?;
    Some(Prior { n0: CALIBRATED_WEIGHT, s0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Kind;
    use crate::repetition::{Measurement, Outcome};
    use crate::v1::Subject;

    fn case(name: &str, client: MeasuredBy) -> CaseFacts {
        CaseFacts { measured_by: client, ..CaseFacts::named(name, Kind::Latency) }
    }

    fn repetitions(values: &[Option<f64>]) -> Vec<Repetition> {
        let outcome = |value: &Option<f64>| match value {
            Some(value) => {
                let metrics = [("median_latency".to_owned(), *value)].into_iter().collect();
                Outcome::Measured(Measurement::new(Kind::Latency, metrics))
            }
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
    fn a_run_that_is_there_twice_counts_once_with_all_its_pairs() {
        let run = |id: Option<&str>, ratios: &[f64]| AaRun {
            run: id.map(str::to_owned),
            rows: vec![row("latency_a", MeasuredBy::Vllm, ratios)],
            ..run(&[Some(1.0)], &[Some(1.0)])
        };
        let pairs =
            |runs: Vec<AaRun>| Noise::of(runs).ratios(&case("latency_a", MeasuredBy::Vllm), "median_latency").to_vec();
        let (first, whole) = (run(Some("a"), &[0.1]), run(Some("a"), &[0.1, 0.2]));
        assert_eq!(pairs(vec![first.clone(), whole.clone()]), [0.1, 0.2]);
        assert_eq!(pairs(vec![whole.clone(), first.clone()]), [0.1, 0.2]);
        assert_eq!(pairs(vec![whole, run(Some("b"), &[0.3])]), [0.1, 0.2, 0.3]);
        assert_eq!(pairs(vec![run(None, &[0.1]), run(None, &[0.1])]), [0.1, 0.1], "earlier versions name no run");
    }

    #[test]
    fn only_a_run_of_two_simulated_sides_is_simulated() {
        let side = |target: &str| Some(SideFacts { target: target.into(), ..SideFacts::default() });
        for (base, head, expected) in [
            ("sim", "sim:itl=2ms", true),
            ("sim:itl=1ms", "local:vllm", false),
            ("local:simulator", "local:simulator", false),
            ("simple", "simple", false),
        ] {
            let subject = Subject { base: side(base), head: side(head), ..subject() };
            let run = of(&subject, &[Some(1.0)], &[Some(1.0)]).unwrap();
            assert_eq!(run.device.simulated, expected, "{base} {head}");
            let text = serde_json::to_string(&run).unwrap();
            assert_eq!(text.contains("simulated"), expected, "objects of real servers stay as they were: {text}");
            assert_eq!(serde_json::from_str::<AaRun>(&text).unwrap(), run);
        }
    }

    #[test]
    fn a_run_without_a_device_a_start_or_a_pair_has_no_noise() {
        let refusal = |subject: &Subject| of(subject, &[Some(1.0)], &[Some(1.0)]).unwrap_err().to_string();
        let mut folders = subject();
        folders.started = None;
        assert!(refusal(&folders).ends_with("unknown start time"));
        folders.device = None;
        assert!(refusal(&folders).ends_with("unknown device"));
        assert!(of(&subject(), &[None, Some(1.0)], &[Some(1.0), None]).is_err());
    }

    #[test]
    fn ten_pairs_of_a_row_calibrate_it_and_a_screen_may_pool_those_of_its_metric() {
        let (few, own) = ([0.03, -0.03], [0.01, -0.01, 0.01, -0.01, 0.01, -0.01, 0.01, -0.01, 0.01, -0.01]);
        let noise = noise(vec![
            row("latency_a", MeasuredBy::Vllm, &few),
            row("latency_b", MeasuredBy::Vllm, &own),
            row("latency_elsewhere", MeasuredBy::Vllm, &[0.5; 20]),
        ]);
        let cases = ["latency_a", "latency_b"].map(|name| case(name, MeasuredBy::Vllm));
        let prior = |ratios: &[f64]| pair_deviation(ratios).map(|s0| Prior { n0: 8.0, s0 });
        assert_eq!(noise.own(&cases[1], "median_latency"), prior(&own));
        assert_eq!(noise.own(&cases[0], "median_latency"), None, "too few pairs");
        let of_screen = |at: usize, report: &[CaseFacts]| noise.of_screen(&cases[at], "median_latency", report);
        assert_eq!(of_screen(1, &cases), prior(&own));
        assert_eq!(of_screen(0, &cases), prior(&[few.as_slice(), own.as_slice()].concat()));
        assert_eq!(of_screen(0, &cases[..1]), None, "too few pairs");
    }

    #[test]
    fn noise_of_one_client_is_not_used_for_the_other() {
        let noise = noise(vec![row("latency_a", MeasuredBy::Native, &[0.01; 10])]);
        let by_vllm = [case("latency_a", MeasuredBy::Vllm)];
        assert_eq!(noise.own(&by_vllm[0], "median_latency"), None);
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
