//! What a store knows of the noise of the primary rows, and how much is missing.

use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::metric;
use vllm_verdict::noise::{ENOUGH_PAIRS, Noise};
use vllm_verdict::number::plural;
use vllm_verdict::v1::CaseFacts;

use crate::escape;

/// How many A/A pairs the primary rows have, and their noise.
#[derive(Debug, PartialEq)]
pub struct KnownNoise {
    /// Each row with its A/A pairs and its noise (log-ratio of a pair), where it is known.
    rows: Vec<(String, usize, Option<f64>)>,
    /// Pairs of the row that has the fewest.
    pub least: usize,
    /// The row that has the fewest pairs.
    pub worst: String,
    /// Pairs that every row needs.
    needed: usize,
    /// Relative standard error at which the noise of a row counts as known.
    precision: f64,
}

impl KnownNoise {
    /// From the noise of a store, for the primary rows of `cases`.
    pub fn of(noise: &Noise, cases: &[CaseFacts], verdict: &VerdictConfig, precision: f64) -> Self {
        let primary = |case: &CaseFacts| {
            let primary = verdict.primary_of(case, |id| !noise.ratios(case, id).is_empty());
            metric::of(case.kind).filter(move |metric| primary.contains(&metric.id))
        };
        let row = |(case, metric): (&CaseFacts, &metric::Metric)| {
            let s0 = noise.own(case, metric.id).map(|prior| prior.s0);
            (format!("{} of {}", metric.label, escape::name(&case.name)), noise.ratios(case, metric.id).len(), s0)
        };
        let all = cases.iter().flat_map(|case| primary(case).map(move |metric| (case, metric)));
        // A metric that no run has measured (TTFT of an embedding test) has no row.
        let measured = |case: &CaseFacts| metric::of(case.kind).any(|metric| !noise.ratios(case, metric.id).is_empty());
        let rows: Vec<(String, usize, Option<f64>)> = all
            .filter(|(case, metric)| !measured(case) || !noise.ratios(case, metric.id).is_empty())
            .map(row)
            .collect();
        let (worst, least) = rows
            .iter()
            .min_by_key(|(_, pairs, _)| *pairs)
            .map_or_else(Default::default, |(row, pairs, _)| (row.clone(), *pairs));
        Self { rows, least, worst, needed: needed(precision), precision }
    }

    /// Whether every row has the pairs that it needs.
    pub fn is_complete(&self) -> bool {
        self.least >= self.needed
    }

    /// Pairs that are missing for the row with the fewest.
    pub fn missing(&self) -> u32 {
        u32::try_from(self.needed.saturating_sub(self.least)).unwrap_or(u32::MAX)
    }

    /// `3 of 5 primary rows have the 14 A/A pairs ...`.
    pub fn sentence(&self) -> String {
        let done = self.rows.iter().filter(|(_, pairs, _)| *pairs >= self.needed).count();
        format!(
            "{done} of {} have the {} A/A pairs for a noise estimate within {:.0} %; the row with the fewest has {}",
            plural(self.rows.len(), "primary row"),
            self.needed,
            self.precision * 100.0,
            self.least
        )
    }

    /// One line for each row.
    pub fn table(&self) -> String {
        let line = |(row, pairs, s0): &(String, usize, Option<f64>)| {
            let noise = s0.map_or("unknown".to_owned(), |s0| format!("{:.1} %", s0.exp_m1() * 100.0));
            let error =
                if *pairs > 1 { format!(" ± {:.0} % of it", relative_error(*pairs) * 100.0) } else { String::new() };
            format!("{row}: {}, noise of a pair {noise}{error}", plural(*pairs, "pair"))
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Relative standard error of the standard deviation of this many normal values.
fn relative_error(pairs: usize) -> f64 {
    (2.0 * (pairs as f64 - 1.0)).sqrt().recip()
}

/// The fewest pairs that are enough for a verdict and give the wanted relative standard error.
fn needed(precision: f64) -> usize {
    (ENOUGH_PAIRS..).find(|pairs| relative_error(*pairs) <= precision).unwrap_or(ENOUGH_PAIRS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finer_precision_needs_more_pairs_and_none_needs_fewer_than_a_verdict() {
        assert_eq!([0.5, 0.25, 0.2, 0.1, 0.05].map(needed), [10, 10, 14, 51, 201]);
    }
}
