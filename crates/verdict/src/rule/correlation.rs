//! Step 3: the mean correlation between the cases of a metric over repetitions: what a slow server start moves together.

use crate::statistics::mean;

/// The mean, over groups of at least two rows, of the mean correlation of the residuals inside sides; 0 to 1.
pub(super) fn rho(groups: &[Vec<(&[f64], &[f64])>]) -> f64 {
    let means: Vec<f64> = groups.iter().filter(|rows| rows.len() > 1).map(|rows| mean_correlation(rows)).collect();
    mean(&means).map_or(0.0, |mean| mean.clamp(0.0, 1.0))
}

fn mean_correlation(rows: &[(&[f64], &[f64])]) -> f64 {
    let residuals: Vec<Vec<f64>> =
        rows.iter().map(|(base, head)| scaled([centred(base), centred(head)].concat())).collect();
    let length = residuals.first().map_or(0, Vec::len);
    // The sum of all correlations is the squared length of the sum of the rows.
    let of_all: f64 = (0..length).map(|at| residuals.iter().map(|row| row[at]).sum::<f64>().powi(2)).sum();
    let number = rows.len() as f64;
    (of_all - number) / (number * (number - 1.0))
}

/// The values less their mean, with length 1.
pub(super) fn standardized(values: &[f64]) -> Vec<f64> {
    scaled(centred(values))
}

fn centred(values: &[f64]) -> Vec<f64> {
    let mean = mean(values).unwrap_or_default();
    values.iter().map(|value| value - mean).collect()
}

fn scaled(mut values: Vec<f64>) -> Vec<f64> {
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt().max(1e-12);
    values.iter_mut().for_each(|value| *value /= length);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_move_alike_have_a_correlation_of_one_and_opposite_ones_count_as_none() {
        let (up, down) = ([0.0, 1.0, 2.0], [2.0, 1.0, 0.0]);
        let of = |rows: &[(&[f64], &[f64])]| rho(&[rows.to_vec()]);
        assert!((of(&[(&up, &down), (&up, &down)]) - 1.0).abs() < 1e-12);
        assert_eq!(of(&[(&up, &down), (&down, &up)]), 0.0);
        assert_eq!(of(&[(&up, &down)]), 0.0, "one row has nothing to correlate with");
    }
}
