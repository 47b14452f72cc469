//! The rows of a comparison: values, statistics and verdicts.

use serde::{Deserialize, Serialize};

use crate::case::Kind;
use crate::metric::{Direction, Metric};
use crate::side::Side;
use crate::statistics::{median, walsh};
use crate::untrusted::Untrusted;

/// The verdict of a row or of a report, in order of importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The case fails on head and not on base. Rows only: such a report is `regressed`.
    Failing,
    /// Worse: significant after correction and at least the minimum effect.
    Regressed,
    /// A side has no value.
    #[serde(rename = "not measured")]
    NotMeasured,
    /// Better, by the same rule.
    Improved,
    /// The 90 % interval is within ±5 %, or within the minimum effect if that is larger.
    Unchanged,
    /// None of the above.
    Inconclusive,
}

impl Verdict {
    /// The name in files and texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Regressed => "regressed",
            Self::NotMeasured => "not measured",
            Self::Improved => "improved",
            Self::Unchanged => "unchanged",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// The value of a row in one repetition: one number, or one for each slice of the server's life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RepetitionValue {
    One(f64),
    /// `null` where a slice failed.
    Slices(Vec<Option<f64>>),
}

impl RepetitionValue {
    /// The numbers.
    pub fn values(&self) -> impl Iterator<Item = f64> {
        let one = if let Self::One(value) = self { Some(*value) } else { None };
        let slices = if let Self::Slices(values) = self { values.as_slice() } else { &[] };
        one.into_iter().chain(slices.iter().copied().flatten())
    }

    /// How many slices there are, failed ones included; 1 without slices.
    pub fn slices(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Slices(values) => values.len(),
        }
    }

    /// One number for the repetition, to show: the Hodges-Lehmann mean of the logarithms of its slices, as the rule reads it; the
    /// median where a value is 0.
    pub fn shown(&self) -> Option<f64> {
        centre(self.values().collect())
    }

    /// Whether a value is 0: it has no logarithm.
    pub fn has_zero(&self) -> bool {
        self.values().any(|value| value <= 0.0)
    }
}

/// The Hodges-Lehmann mean of the logarithms; the median where a value is 0. `None` without values.
fn centre(numbers: Vec<f64>) -> Option<f64> {
    if numbers.len() < 2 || numbers.iter().any(|number| *number <= 0.0) {
        return median(&numbers);
    }
    walsh(&numbers.into_iter().map(f64::ln).collect::<Vec<f64>>()).map(f64::exp)
}

/// One metric of one case, base against head.
// 26 fields: the keys of a row in `comparison/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the case.
    pub case: Untrusted,
    /// Metric id.
    pub metric: Untrusted,
    /// Display name of the metric.
    pub label: Untrusted,
    /// Unit of `base` and `head`.
    pub unit: Untrusted,
    pub direction: Direction,
    /// Smallest relative change that is reported as `regressed` or `improved`: 0.03 is 3 % in either direction.
    pub min_effect: f64,
    /// Whether the row counts in the verdict of the report.
    pub primary: bool,
    /// Whether its noise was estimated from A/A pairs of this row.
    pub calibrated: bool,
    /// Stored A/A pairs of the row.
    pub aa_pairs: usize,
    /// Standard deviation of log-ratios of pairs that the row's own noise is drawn to, if there is one.
    pub s0: Option<f64>,
    /// Weight of `s0`, in degrees of freedom; 0 without one.
    pub n0: f64,
    /// The look that decided the row, as an index into the looks of the method, from 1.
    pub look: u32,
    /// Values of the repetitions, in the order of the pairs; `null` where there is none.
    pub base: Vec<Option<RepetitionValue>>,
    /// Values of the repetitions, in the order of the pairs; `null` where there is none.
    pub head: Vec<Option<RepetitionValue>>,
    /// Repetitions in which the case failed.
    #[serde(default)]
    pub failed: Failed,
    /// Relative change, Hodges-Lehmann: 0.05 is +5 %.
    pub estimate: Option<f64>,
    /// Standard deviation of the logarithm of one repetition, moderated towards `s0`.
    pub deviation: Option<f64>,
    /// Degrees of freedom of `deviation`.
    #[serde(default)]
    pub freedom: Option<f64>,
    /// Lower end of the 95 % interval of the relative change.
    pub low: Option<f64>,
    /// Upper end of the 95 % interval of the relative change.
    pub high: Option<f64>,
    /// Two-sided p value.
    pub p: Option<f64>,
    /// Benjamini-Hochberg adjusted p value over the primary and overall rows; primary rows only.
    pub q: Option<f64>,
    /// Smallest relative change that is detected with 80 % power if no other row changes; primary rows only.
    pub detectable: Option<f64>,
    /// Pairs at which 1.5 times the minimum effect is detectable, if the row is inconclusive.
    #[serde(default)]
    pub needed: Option<u32>,
    pub verdict: Verdict,
    /// The reason of the verdict, one sentence.
    pub why: Untrusted,
}

/// Failed repetitions of a case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub base: usize,
    pub head: usize,
}

impl Row {
    /// The row of a metric that has no values, with a minimum effect of 0 and no reason yet.
    pub fn empty(case: &Untrusted, metric: &Metric) -> Self {
        Self {
            case: case.clone(),
            metric: metric.id.into(),
            label: metric.label.into(),
            unit: metric.unit.into(),
            direction: metric.direction,
            min_effect: 0.0,
            primary: metric.primary,
            calibrated: false,
            aa_pairs: 0,
            s0: None,
            n0: 0.0,
            look: 1,
            base: Vec::new(),
            head: Vec::new(),
            failed: Failed::default(),
            estimate: None,
            deviation: None,
            freedom: None,
            low: None,
            high: None,
            p: None,
            q: None,
            detectable: None,
            needed: None,
            verdict: Verdict::NotMeasured,
            why: Untrusted::default(),
        }
    }

    /// The values of a side.
    pub fn side(&self, side: Side) -> &[Option<RepetitionValue>] {
        match side {
            Side::Base => &self.base,
            Side::Head => &self.head,
        }
    }

    /// One number for each repetition of a side that has one.
    pub fn numbers(&self, side: Side) -> Vec<f64> {
        self.side(side).iter().flatten().filter_map(RepetitionValue::shown).collect()
    }

    /// One number for a side, to show: the Hodges-Lehmann mean of the logarithms, as the change is estimated; the median where
    /// a value is 0. `None` without values.
    pub fn centre(&self, side: Side) -> Option<f64> {
        centre(self.numbers(side))
    }

    /// Whether a side has no value.
    pub fn lacks(&self, side: Side) -> bool {
        self.side(side).iter().all(Option::is_none)
    }
}

/// One metric over all cases of a kind, base against head.
// 17 fields: the keys of an overall row in `comparison/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverallRow {
    pub kind: Kind,
    /// Metric id.
    pub metric: Untrusted,
    /// Display name of the metric.
    pub label: Untrusted,
    pub direction: Direction,
    /// Smallest relative change that is reported as `regressed` or `improved`.
    pub min_effect: f64,
    /// How many cases it is the weighted geometric mean of.
    pub cases: usize,
    /// Relative change, Hodges-Lehmann: 0.05 is +5 %.
    pub estimate: f64,
    /// Standard deviation of the logarithm of one repetition.
    pub deviation: f64,
    /// Degrees of freedom of `deviation`.
    pub freedom: f64,
    /// Lower end of the 95 % interval of the relative change.
    pub low: f64,
    /// Upper end of the 95 % interval of the relative change.
    pub high: f64,
    /// Two-sided p value.
    pub p: f64,
    /// Benjamini-Hochberg adjusted p value over the primary and overall rows.
    pub q: f64,
    /// Smallest relative change that is detected with 80 % power if no other row changes.
    pub detectable: f64,
    /// Pairs at which 1.5 times the minimum effect is detectable, if the row is inconclusive.
    #[serde(default)]
    pub needed: Option<u32>,
    pub verdict: Verdict,
    /// The reason of the verdict, one sentence.
    pub why: Untrusted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_is_a_number_a_list_of_slices_or_null() {
        let text = "[1.5,null,[1.0,null,3.0]]";
        let values: Vec<Option<RepetitionValue>> = serde_json::from_str(text).unwrap();
        let slices = RepetitionValue::Slices(vec![Some(1.0), None, Some(3.0)]);
        assert!((slices.shown().unwrap() - 3.0_f64.sqrt()).abs() < 1e-12 && slices.slices() == 3);
        assert_eq!(RepetitionValue::Slices(vec![Some(0.0), Some(3.0)]).shown(), Some(1.5));
        assert_eq!(values, [Some(RepetitionValue::One(1.5)), None, Some(slices)]);
        assert_eq!(serde_json::to_string(&values).unwrap(), text);
    }
}
