//! Step 4: the variance that the rows of a metric have in common, fitted by moments (Smyth 2004). Rows far from their metric
//! keep their own variance, and quiet ones do not spoil the fit.

use crate::special::{digamma, trigamma, trigamma_inverse};
use crate::statistics::{LEAST_VARIANCE, mean, median};

/// Fewest rows of a metric that a prior is fitted over.
const FEWEST_ROWS: usize = 3;
/// Most weight of a prior, in parts of the row's own degrees of freedom.
const MOST_WEIGHT: f64 = 0.5;
/// Weight where the rows do not differ more than chance explains.
const NO_EXCESS: f64 = 1000.0;

/// The variance of one repetition that is expected of a row, and its weight in degrees of freedom.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Prior {
    pub weight: f64,
    pub variance: f64,
}

/// The prior of each row of each group, from their variances and degrees of freedom. Groups of fewer than three rows have none.
pub(super) fn fit(groups: &[Vec<(f64, f64)>], rho: f64) -> Vec<Vec<Prior>> {
    let large: Vec<&Vec<(f64, f64)>> = groups.iter().filter(|group| group.len() >= FEWEST_ROWS).collect();
    let spread = Spread::of(&large);
    let excess = spread.excess(&large);
    let freedom = if excess > 1e-3 { 2.0 * trigamma_inverse(excess) } else { NO_EXCESS };
    groups
        .iter()
        .map(|group| match group.len() < FEWEST_ROWS {
            true => vec![Prior::default(); group.len()],
            false => spread.priors(group, freedom, rho),
        })
        .collect()
}

/// How far the logarithms of variances are from those of their groups.
struct Spread {
    /// Robust standard deviation.
    scale: f64,
    /// Variance of a log-variance that chance gives.
    chance: f64,
}

impl Spread {
    fn of(groups: &[&Vec<(f64, f64)>]) -> Self {
        let by_chance: Vec<f64> =
            groups.iter().flat_map(|group| group.iter().map(|(_, freedom)| trigamma(freedom / 2.0))).collect();
        let chance = mean(&by_chance).unwrap_or_default();
        let from_centre = |group: &&Vec<(f64, f64)>| {
            let logs = log_variances(group);
            let centre = median(&logs).unwrap_or_default();
            logs.into_iter().map(|log| (log - centre).abs()).collect::<Vec<f64>>()
        };
        let distances: Vec<f64> = groups.iter().flat_map(from_centre).collect();
        let scale = (1.4826 * median(&distances).unwrap_or_default()).max(chance.sqrt());
        Self { scale, chance }
    }

    /// The log-variances of a group without the bias of few degrees of freedom. Quiet rows are drawn up.
    fn unbiased(&self, group: &[(f64, f64)]) -> Vec<f64> {
        let logs = log_variances(group);
        let least = median(&logs).unwrap_or_default() - 2.5 * self.scale;
        let one =
            |(log, (_, freedom)): (f64, &(f64, f64))| log.max(least) - digamma(freedom / 2.0) + (freedom / 2.0).ln();
        logs.into_iter().zip(group).map(one).collect()
    }

    /// How much more the rows differ from their groups than chance explains.
    fn excess(&self, groups: &[&Vec<(f64, f64)>]) -> f64 {
        let (mut squares, mut freedom) = (0.0, 0.0);
        for group in groups {
            let unbiased = self.unbiased(group);
            let mean = mean(&unbiased).unwrap_or_default();
            squares += unbiased.iter().map(|one| (one - mean).powi(2)).sum::<f64>();
            freedom += unbiased.len() as f64 - 1.0;
        }
        if freedom > 0.0 { squares / freedom - self.chance } else { 0.0 }
    }

    fn priors(&self, group: &[(f64, f64)], freedom: f64, rho: f64) -> Vec<Prior> {
        let logs = log_variances(group);
        let centre = median(&logs).unwrap_or_default();
        let mean = mean(&self.unbiased(group)).unwrap_or_default();
        let variance = (mean + digamma(freedom / 2.0) - (freedom / 2.0).ln()).exp();
        let of_all: f64 = group.iter().map(|(_, freedom)| freedom).sum();
        // The degrees of freedom that the common variance itself has.
        let known = of_all / (1.0 + (group.len() as f64 - 1.0) * rho * rho);
        let weight = 1.0 / (1.0 / freedom + 1.0 / known);
        let one = |(log, (_, own)): (f64, &(f64, f64))| {
            let is_far = (log - centre).abs() > 3.0 * self.scale;
            Prior { weight: if is_far { 0.0 } else { weight.min(MOST_WEIGHT * own) }, variance }
        };
        logs.into_iter().zip(group).map(one).collect()
    }
}

fn log_variances(group: &[(f64, f64)]) -> Vec<f64> {
    group.iter().map(|(variance, _)| variance.max(LEAST_VARIANCE).ln()).collect()
}
