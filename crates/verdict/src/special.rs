//! Special functions that the rule needs and the crate for distributions does not have.

use statrs::function::factorial::ln_binomial;
pub use statrs::function::gamma::digamma;

/// The arguments from which on the asymptotic series are used.
const LARGE: f64 = 12.0;

/// Trigamma, the second derivative of ln gamma, for positive arguments (Abramowitz and Stegun 6.4.12).
pub fn trigamma(x: f64) -> f64 {
    let (mut x, mut sum) = (x, 0.0);
    while x < LARGE {
        sum += 1.0 / (x * x);
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    sum + 1.0 / x
        + y / 2.0
        + y / x * (1.0 / 6.0 - y * (1.0 / 30.0 - y * (1.0 / 42.0 - y * (1.0 / 30.0 - y * 5.0 / 66.0))))
}

/// Tetragamma, the derivative of [`trigamma`], for positive arguments (Abramowitz and Stegun 6.4.13).
fn tetragamma(x: f64) -> f64 {
    let (mut x, mut sum) = (x, 0.0);
    while x < LARGE {
        sum -= 2.0 / (x * x * x);
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    sum - y - y / x - y * y * (0.5 - y * (1.0 / 6.0 - y * (1.0 / 6.0 - y * (0.3 - y * 5.0 / 6.0))))
}

/// The argument at which [`trigamma`] has a positive value (Smyth 2004).
pub fn trigamma_inverse(value: f64) -> f64 {
    let mut x = 0.5 + 1.0 / value;
    for _ in 0..50 {
        let at = trigamma(x);
        x += at * (1.0 - at / value) / tetragamma(x);
    }
    x
}

/// Fisher's exact test, one-sided: the chance of at least `head` failures in `pairs` repetitions of head, given all failures
/// of both sides.
pub fn fisher_greater(head: usize, base: usize, pairs: usize) -> f64 {
    let (all, pairs) = ((head + base) as u64, pairs as u64);
    let of = |number: u64| {
        (ln_binomial(pairs, number) + ln_binomial(pairs, all - number) - ln_binomial(2 * pairs, all)).exp()
    };
    (head as u64..=all.min(pairs)).map(of).sum::<f64>().min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() <= 1e-11 * expected.abs(), "{actual:e} is not {expected:e}");
    }

    #[test]
    fn the_functions_are_those_of_scipy() {
        // scipy.special.polygamma(1, x), polygamma(2, x)
        for (x, one, two) in [
            (0.5, 4.93480220054468, -16.828796644234316),
            (1.0, 1.6449340668482266, -2.404113806319188),
            (4.0, 0.28382295573711525, -0.0800397322451145),
            (37.5, 0.027025382266785015, -0.0007303268536904835),
        ] {
            assert_close(trigamma(x), one);
            assert_close(tetragamma(x), two);
        }
        for x in [0.1, 1.0, 8.0, 400.0] {
            assert!((trigamma_inverse(trigamma(x)) / x - 1.0).abs() < 1e-9, "{x}");
        }
    }

    #[test]
    fn fisher_is_that_of_scipy() {
        // scipy.stats.fisher_exact([[head, n - head], [base, n - base]], alternative="greater").pvalue
        for (head, base, pairs, expected) in [
            (3, 0, 5, 0.08333333333333333),
            (5, 1, 5, 0.02380952380952381),
            (4, 1, 5, 0.1031746031746032),
            (2, 2, 3, 0.8),
            (0, 0, 5, 1.0),
        ] {
            assert_close(fisher_greater(head, base, pairs), expected);
        }
    }
}
