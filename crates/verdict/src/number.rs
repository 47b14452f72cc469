//! Number formatting for texts: four significant digits, thousands separators, a Unicode minus sign.

/// The decimals that show the largest of `values` with four significant digits, so that values in a row line up.
pub fn decimals(values: impl IntoIterator<Item = f64>) -> usize {
    let largest = values.into_iter().map(f64::abs).fold(0.0, f64::max);
    match largest {
        0.0 => 0,
        _ if largest >= 999.95 => 0,
        _ => (3.0 - largest.log10().floor()).clamp(0.0, 6.0) as usize,
    }
}

/// `1,204` or `412.3`: a value with this number of decimals; from 10^12 on in scientific notation.
pub fn value(value: f64, decimals: usize) -> String {
    if value.abs() >= 1e12 {
        return signed(format!("{value:.3e}"));
    }
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::from(if value < 0.0 { "−" } else { "" });
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

/// `1,204`: a count.
pub fn count(count: usize) -> String {
    value(count as f64, 0)
}

/// `−9.8 %`, `+15.5 %`: a relative change (0.05 is +5 %).
pub fn change(relative: f64) -> String {
    format!("{} %", points(relative))
}

/// `−11.2 … −8.4`: an interval of relative changes, in percent.
pub fn interval(low: f64, high: f64) -> String {
    format!("{} … {}", points(low), points(high))
}

/// `1.6 %`: a share or a size without a sign; above 1,000 % without the exact number.
pub fn percent(relative: f64) -> String {
    if relative > 10.0 {
        return "more than 1,000 %".to_owned();
    }
    format!("{} %", trimmed(&format!("{:.1}", relative * 100.0)))
}

/// `0.021`, or `< 0.0001`: a p or q value.
pub fn chance(chance: f64) -> String {
    match chance {
        _ if chance < 0.0001 => "< 0.0001".to_owned(),
        _ if chance < 0.001 => format!("{chance:.4}"),
        _ if chance < 0.1 => format!("{chance:.3}"),
        _ => format!("{chance:.2}"),
    }
}

fn points(relative: f64) -> String {
    let percent = relative * 100.0;
    let text = value(percent.abs(), if percent.abs() < 99.95 { 1 } else { 0 });
    match text.as_str() {
        "0.0" => text,
        _ if percent < 0.0 => format!("−{text}"),
        _ => format!("+{text}"),
    }
}

fn signed(text: String) -> String {
    text.replace('-', "−")
}

/// A decimal number without trailing zeros: `2.50` becomes `2.5`, `3.0` becomes `3`.
pub fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// `1 row`, `2 rows`, `1,204 rows`, `2 passes`.
pub fn plural(number: usize, noun: &str) -> String {
    format!("{} {}", count(number), plural_noun(number, noun))
}

/// `row` or `rows`: the noun alone, in the form for `number`.
pub fn plural_noun(number: usize, noun: &str) -> String {
    let suffix = match number {
        1 => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{noun}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_and_head_have_the_same_decimals() {
        let show = |base: f64, head: f64| {
            let decimals = decimals([base, head]);
            format!("{} {}", value(base, decimals), value(head, decimals))
        };
        assert_eq!(show(1204.4, 991.2), "1,204 991");
        assert_eq!(show(412.31, 71.8), "412.3 71.8");
        assert_eq!(show(5.3391, 4.2), "5.339 4.200");
        assert_eq!(show(0.0, 0.000_75), "0.000000 0.000750");
        assert_eq!(show(1_234_567.0, -2.0), "1,234,567 −2");
        assert_eq!(show(1e300, 0.0), "1.000e300 0");
    }

    #[test]
    fn changes_have_a_unicode_minus_sign_and_zero_has_no_sign() {
        assert_eq!([-0.0984, 0.155, 0.0001, 12.3].map(change), ["−9.8 %", "+15.5 %", "0.0 %", "+1,230 %"]);
        assert_eq!(interval(-0.112, -0.0841), "−11.2 … −8.4");
        assert_eq!([0.05, 0.016, 10.0, 1e9].map(percent), ["5 %", "1.6 %", "1000 %", "more than 1,000 %"]);
    }

    #[test]
    fn nouns_follow_their_number() {
        assert_eq!([1, 2].map(|number| plural(number, "pass")), ["1 pass", "2 passes"]);
        assert_eq!([1, 1204].map(|number| plural(number, "row")), ["1 row", "1,204 rows"]);
    }

    #[test]
    fn trailing_zeros_are_dropped_after_a_decimal_point_only() {
        assert_eq!(["2.50", "3.0", "100", "0.05"].map(trimmed), ["2.5", "3", "100", "0.05"]);
    }
}
