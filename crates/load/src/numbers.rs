//! Statistics of many values, with numpy's formulas.

/// The values in ascending order.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The mean; 0 without values.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The standard deviation of the population (numpy's `std`); 0 without values.
pub fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / values.len().max(1) as f64).sqrt()
}

/// The `p`-th percentile (0 to 100) of ascending values, linear between two of them (numpy's default); 0 without values.
pub fn percentile(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let position = p / 100.0 * last as f64;
    let below = sorted.get(position.floor() as usize).copied().unwrap_or_default();
    let above = sorted.get(position.ceil() as usize).copied().unwrap_or(below);
    below + (above - below) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_interpolated_and_the_deviation_is_that_of_the_population() {
        let values = sorted(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(percentile(&values, 50.0), 2.5);
        assert_eq!(percentile(&values, 75.0), 3.25);
        assert_eq!(percentile(&values, 100.0), 4.0);
        assert_eq!(deviation(&values), 1.25_f64.sqrt());
        assert_eq!((percentile(&[], 99.0), mean(&[]), deviation(&[])), (0.0, 0.0, 0.0));
    }
}
