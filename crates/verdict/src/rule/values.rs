//! Step 0: one logarithm for each repetition. A value of 0 is neither a failure nor a logarithm: a row that has one is not
//! tested, because leaving it out would select the others.

use super::shift::{self, Shift};
use crate::statistics::walsh;
use crate::v1::RepetitionValue;

/// The logarithms of a row; `None` where a repetition has no value.
#[derive(Debug, Clone)]
pub(super) struct Values {
    base: Vec<Option<f64>>,
    head: Vec<Option<f64>>,
    pub has_zero: bool,
    /// Whether each side has any value, 0 included. A repetition in which most slices failed has none.
    pub has_base: bool,
    pub has_head: bool,
    whole: Option<(Vec<f64>, Vec<f64>)>,
}

impl Values {
    pub fn new(base: &[Option<RepetitionValue>], head: &[Option<RepetitionValue>]) -> Self {
        let has_zero = base.iter().chain(head).flatten().any(RepetitionValue::has_zero);
        let is_value = |value: &RepetitionValue| value.has_zero() || reduced(value).is_some();
        let any = |side: &[Option<RepetitionValue>]| side.iter().flatten().any(is_value);
        let (has_base, has_head) = (any(base), any(head));
        let logs = |side: &[Option<RepetitionValue>]| -> Vec<Option<f64>> {
            side.iter().map(|value| reduced(value.as_ref()?)).collect()
        };
        let (base, head) = (logs(base), logs(head));
        let all = |side: &[Option<f64>]| side.iter().copied().collect::<Option<Vec<f64>>>();
        let whole = all(&base).zip(all(&head));
        let whole = whole.filter(|(base, head)| !has_zero && base.len() == head.len() && base.len() > 1);
        Self { base, head, has_zero, has_base, has_head, whole }
    }

    /// The logarithms of both sides, where no repetition lacks one.
    pub fn sides(&self) -> Option<(&[f64], &[f64])> {
        self.whole.as_ref().map(|(base, head)| (base.as_slice(), head.as_slice()))
    }

    /// Planned repetitions of the longer side.
    pub fn pairs(&self) -> usize {
        self.base.len().max(self.head.len())
    }

    /// The shift of the row; `None` where it is not tested.
    pub fn shift(&self, blocked: bool) -> Option<Shift> {
        if self.has_zero || self.base.len() != self.head.len() {
            return None;
        }
        shift::shift(&self.base, &self.head, blocked)
    }
}

/// The logarithm of a repetition: the Hodges-Lehmann mean of those of its slices. `None` where more than half of the slices
/// failed: so did the repetition.
fn reduced(value: &RepetitionValue) -> Option<f64> {
    let logs: Vec<f64> = value.values().filter(|value| value.is_finite() && *value > 0.0).map(f64::ln).collect();
    (2 * logs.len() >= value.slices()).then(|| walsh(&logs)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_is_the_mean_of_its_slices_and_fails_with_more_than_half_of_them() {
        let slices = |values: &[Option<f64>]| reduced(&RepetitionValue::Slices(values.to_vec()));
        // float(np.exp(walsh(np.log([2, 4, 16])))) with rule.py: the median of 2, 2.83, 4, 5.66, 8, 16
        let whole = slices(&[Some(2.0), Some(4.0), Some(16.0)]).unwrap().exp();
        assert!((whole - (4.0_f64 * 32.0_f64.sqrt()).sqrt()).abs() < 1e-12, "{whole}");
        assert_eq!(slices(&[Some(2.0), None]), Some(2.0_f64.ln()));
        assert_eq!(slices(&[Some(2.0), None, None]), None);
        assert_eq!(reduced(&RepetitionValue::One(1.0)), Some(0.0));
    }

    #[test]
    fn a_row_with_a_zero_has_no_shift_and_one_with_a_hole_is_not_whole() {
        let row = |base: &[f64], head: &[Option<f64>]| {
            let one = |value: f64| Some(RepetitionValue::One(value));
            Values::new(
                &base.iter().map(|value| one(*value)).collect::<Vec<_>>(),
                &head.iter().map(|value| value.and_then(one)).collect::<Vec<_>>(),
            )
        };
        let zero = row(&[0.0, 1.0, 2.0], &[Some(1.0), Some(2.0), Some(3.0)]);
        assert!(zero.has_zero && zero.shift(false).is_none() && zero.sides().is_none());
        let hole = row(&[1.5, 1.0, 2.0], &[Some(1.0), None, Some(3.0)]);
        assert!(hole.sides().is_none() && hole.shift(false).is_some());
        assert!(row(&[1.0, 1.0], &[Some(1.0), Some(2.0)]).sides().is_some());
    }

    #[test]
    fn a_side_without_a_repetition_of_enough_slices_has_no_value() {
        let one = [Some(RepetitionValue::One(1.0))];
        let slices = |values: &[Option<f64>]| Values::new(&[Some(RepetitionValue::Slices(values.to_vec()))], &one);
        assert!(!slices(&[Some(1.0), None, None]).has_base && !slices(&[None]).has_base);
        assert!(slices(&[Some(1.0), None]).has_base);
        assert!(slices(&[Some(0.0), None, None]).has_base, "a 0 is a value");
    }
}
