//! The rule: from the values of a report to its numbers and verdicts. One file a step, in the order of the steps:
//!
//! 0. [`values`]: one logarithm for each repetition
//! 1. [`blocking`]: whether pairs share enough noise that differences inside pairs pay
//! 2. [`shift`]: the estimate of a row and the variance of one repetition
//! 3. [`correlation`]: how much the cases of a metric move together
//! 4. [`prior`]: the variance that the rows of a metric have in common
//! 5. [`test`](mod@test): standard error, p value and interval; and what the report could have detected (step 10)
//! 6. [`overall`]: one row for all cases of a metric
//! 7. [`family`]: the correction for many rows
//! 8. [`decision`]: the verdict of a row, and failures (step 9)
//!
//! [`sample`] and [`row_numbers`] are what goes in and what comes out. Every function is pure. Effects are log-ratios, so swapping the sides only swaps `regressed` and `improved`: a minimum
//! effect of 3 % is a factor of 1.03 in either direction.

mod blocking;
mod correlation;
mod decision;
mod family;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod oracle;
mod overall;
mod prior;
#[cfg(test)]
mod random_reports;
#[cfg(test)]
mod reference;
mod row_numbers;
mod sample;
mod shift;
mod test;
mod values;

use std::collections::HashMap;

use indexmap::IndexMap;

use crate::case::Kind;
use crate::v1::Verdict;

pub(crate) use decision::UNCHANGED;
pub(crate) use row_numbers::Numbers;
pub(crate) use sample::Sample;
pub(crate) use test::MOST_PAIRS;

use shift::Shift;
use test::Test;
use values::Values;

/// Weight of stored A/A pairs, in degrees of freedom.
pub(crate) const CALIBRATED_WEIGHT: f64 = 8.0;

/// What the rule says of a report.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    /// In the order of the samples.
    pub rows: Vec<JudgedRow>,
    pub overall: Vec<JudgedOverall>,
    /// Whether differences inside pairs were tested.
    pub blocked: bool,
    /// The variance of differences inside pairs in parts of that inside sides; `None` without whole rows of three pairs.
    pub ratio: Option<f64>,
    /// Mean correlation between the cases of a metric.
    pub rho: f64,
}

/// The numbers and the verdict of a row.
#[derive(Debug, Clone)]
pub(crate) struct JudgedRow {
    pub verdict: Verdict,
    /// `None` where the row was not tested.
    pub numbers: Option<Numbers>,
    /// Weight of the prior in degrees of freedom, and its variance of one repetition.
    pub prior: prior::Prior,
}

/// The numbers and the verdict of an overall row.
#[derive(Debug, Clone)]
pub(crate) struct JudgedOverall {
    /// Samples that it is built from, by position.
    pub members: Vec<usize>,
    pub verdict: Verdict,
    pub numbers: Numbers,
}

/// The numbers and verdicts of a report at the false discovery rate `fdr`.
pub(crate) fn judge(samples: &[Sample<'_>], fdr: f64) -> Judged {
    let values: Vec<Values> = samples.iter().map(|sample| Values::new(sample.base, sample.head)).collect();
    let whole = whole_rows(samples, &values);
    let sides = |at: &usize| values[*at].sides();
    let (blocked, ratio) = blocking::is_blocked(&whole.iter().filter_map(sides).collect::<Vec<_>>());
    let groups = grouped(samples, &whole);
    let of_groups: Vec<_> = groups.iter().map(|group| group.iter().filter_map(sides).collect::<Vec<_>>()).collect();
    let rho = correlation::rho(&of_groups);
    let shifts: Vec<Option<Shift>> = values.iter().map(|values| values.shift(blocked)).collect();
    let priors = priors(samples, &shifts, rho);
    let tests: Vec<Option<Test>> =
        shifts.iter().zip(&priors).map(|(shift, prior)| Some(shift.as_ref()?.moderated(*prior))).collect();

    let overall = overall::rows(samples, &values, &tests, &groups, blocked);
    let tested: Vec<usize> = (0..samples.len()).filter(|at| samples[*at].primary && tests[*at].is_some()).collect();
    let p_of_rows: Vec<f64> = tested.iter().filter_map(|at| tests[*at].map(|test| test.p())).collect();
    let p_of_overall: Vec<f64> = overall.iter().map(|(_, test)| test.p()).collect();
    let family = family::adjust(&p_of_rows, &p_of_overall);
    let q_of: HashMap<usize, f64> = tested.into_iter().zip(family.rows.iter().copied()).collect();

    let row = |(at, sample): (usize, &Sample<'_>)| {
        let level = fdr * family.level_of_rows;
        let numbers =
            tests[at].map(|test| Numbers::new(sample, test, q_of.get(&at).copied(), level, fdr, values[at].pairs()));
        let verdict =
            decision::of_row(sample, &values[at], numbers.as_ref().map(|numbers| (&numbers.test, numbers.q)), fdr);
        JudgedRow { verdict, numbers, prior: priors[at] }
    };
    let rows = samples.iter().enumerate().map(row).collect();
    let pairs = whole.first().map_or(0, |at| values[*at].pairs());
    let of_all = |((members, test), q): ((Vec<usize>, Test), &f64)| {
        let sample = &samples[members[0]];
        let numbers = Numbers::new(sample, test, Some(*q), fdr * family.level_of_overall, fdr, pairs);
        let verdict = decision::of_test(sample, &numbers.test, numbers.q, fdr);
        JudgedOverall { members, verdict, numbers }
    };
    let overall = overall.into_iter().zip(&family.overall).map(of_all).collect();
    Judged { rows, overall, blocked, ratio, rho }
}

/// The primary rows with a value in every repetition of both sides, and as many repetitions as the longest of them.
fn whole_rows(samples: &[Sample<'_>], values: &[Values]) -> Vec<usize> {
    let whole: Vec<usize> =
        (0..samples.len()).filter(|at| samples[*at].primary && values[*at].sides().is_some()).collect();
    let most = whole.iter().map(|at| values[*at].pairs()).max().unwrap_or_default();
    whole.into_iter().filter(|at| values[*at].pairs() == most).collect()
}

/// The positions by group, in the order of the first row of each.
fn grouped(samples: &[Sample<'_>], positions: &[usize]) -> Vec<Vec<usize>> {
    let mut groups: IndexMap<(Kind, &str), Vec<usize>> = IndexMap::new();
    for at in positions {
        groups.entry(samples[*at].group()).or_default().push(*at);
    }
    groups.into_values().collect()
}

/// The prior of every row: its own stored A/A pairs, or else that of its group.
fn priors(samples: &[Sample<'_>], shifts: &[Option<Shift>], rho: f64) -> Vec<prior::Prior> {
    let tested: Vec<usize> = (0..samples.len()).filter(|at| shifts[*at].is_some()).collect();
    let (primary, secondary): (Vec<Vec<usize>>, Vec<Vec<usize>>) =
        grouped(samples, &tested).into_iter().partition(|group| samples[group[0]].primary);
    let mut priors = vec![prior::Prior::default(); samples.len()];
    for part in [primary, secondary] {
        let spread = |at: &usize| shifts[*at].as_ref().map(|shift| (shift.variance, shift.freedom));
        let variances: Vec<Vec<(f64, f64)>> =
            part.iter().map(|group| group.iter().filter_map(spread).collect()).collect();
        for (group, fitted) in part.iter().zip(prior::fit(&variances, rho)) {
            group.iter().zip(fitted).for_each(|(at, prior)| priors[*at] = prior);
        }
    }
    for at in tested {
        if let Some(s0) = samples[at].calibrated {
            priors[at] = prior::Prior { weight: CALIBRATED_WEIGHT, variance: s0 * s0 / 2.0 };
        }
    }
    priors
}
