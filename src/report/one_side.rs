//! The texts of a report of one side, which is compared with nothing: no pairs, verdicts or intervals.

use vllm_verdict::side::Side;
use vllm_verdict::v1::{Comparison, Row};
use vllm_verdict::{Untrusted, statistics};

use super::{number, slice_method, wording};
use crate::escape;

/// What such a report is.
pub const LEAD: &str = "These are the values of one run. Nothing is compared with them.";

/// Whether a comparison has one side only: neither a base nor values of one.
pub fn is_alone(comparison: &Comparison) -> bool {
    comparison.subject.base.is_none() && comparison.rows.iter().all(|row| row.lacks(Side::Base))
}

/// What was measured and how: `head 1da94e6 with --enforce-eager`, `5 repetitions`, `52 min`, `2026-11-24 10:12 UTC`.
pub fn facts(comparison: &Comparison) -> Vec<Untrusted> {
    let head = comparison.subject.head.as_ref().and_then(|head| {
        let name = wording::side(head);
        let arguments = wording::server_args(head).map(|words| format!(" with {}", words.raw())).unwrap_or_default();
        (!name.raw().is_empty()).then(|| format!("head {}{arguments}", name.raw()))
    });
    let (repetitions, slices) = (repetitions(comparison), slice_method::most(comparison));
    let of_slices = if slices > 1 { format!(" of up to {slices} slices") } else { String::new() };
    let is_said = repetitions > 1 || slices > 1;
    let repetitions = is_said.then(|| format!("{}{of_slices}", number::plural(repetitions, "repetition")));
    // The first circumstance is how base and head were paired.
    let others = wording::circumstances(comparison).into_iter().skip(1);
    head.into_iter().chain(repetitions).chain(others).map(Untrusted::from).collect()
}

/// The largest number of repetitions of a row.
pub fn repetitions(comparison: &Comparison) -> usize {
    comparison.rows.iter().map(|row| row.numbers(Side::Head).len()).max().unwrap_or_default()
}

/// The median of a row's repetitions with its unit, or `none`; and the lowest and the highest of several.
pub fn value(row: &Row) -> [Untrusted; 2] {
    let values = row.numbers(Side::Head);
    let Some(median) = statistics::median(&values) else { return ["none".into(), Untrusted::default()] };
    let decimals = number::decimals([median]);
    let show = |value| number::value(value, decimals);
    let ends = values.iter().copied().reduce(f64::min).zip(values.iter().copied().reduce(f64::max));
    let range = ends.filter(|_| values.len() > 1).map(|(low, high)| format!("{} … {}", show(low), show(high)));
    [format!("{} {}", show(median), escape::name(&row.unit)).into(), range.unwrap_or_default().into()]
}

/// Why a row has no value.
pub fn missing(row: &Row) -> Option<String> {
    row.lacks(Side::Head).then(|| escape::sentence(&row.why))
}
