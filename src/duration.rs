//! Durations as texts: `90m` in a config file or a flag, "1 h 30 min" for display.

use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// Longest duration that is accepted: a year. Adding it to a clock is safe everywhere.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads numbers with units from long to short, e.g. `90m`, `1h30m`, `1.5 h`, `45s`, `250ms`; `min` is `m`.
///
/// # Errors
/// No unit, an unknown unit, units out of order, or more than a year.
pub fn parse(text: &str) -> anyhow::Result<Duration> {
    let seconds = seconds(text).with_context(|| {
        format!("`{}` is not a duration: expected e.g. `90m`, `1h30m` or `45s`", text.escape_debug())
    })?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        _ => bail!("`{}` is longer than a year", text.escape_debug()),
    }
}

fn seconds(text: &str) -> anyhow::Result<f64> {
    let mut rest = text.trim();
    ensure!(!rest.is_empty(), "it is empty");
    let (mut total, mut longer) = (0.0, f64::INFINITY);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len()));
        let after = after.trim_start();
        let (unit, after) = after.split_at(after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len()));
        let scale = match unit {
            "h" => 3600.0,
            "m" | "min" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "" => bail!("a number needs a unit"),
            unit => bail!("the units are `h`, `m`, `s` and `ms`, not `{unit}`"),
        };
        ensure!(scale < longer, "each unit may be given once, from long to short");
        total += number.parse::<f64>().with_context(|| format!("`{unit}` needs a number before it"))? * scale;
        longer = scale;
        rest = after.trim_start();
    }
    Ok(total)
}

/// For display: "45 s", "1 min 30 s", "52 min", "1 h 30 min". From ten minutes on it is rounded to minutes, below a
/// second it is milliseconds.
pub fn text(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{} ms", duration.as_millis());
    }
    let exact = duration.as_secs_f64().round() as u64;
    let seconds = if exact < 600 { exact } else { (exact + 30) / 60 * 60 };
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n} {unit}")).collect::<Vec<_>>().join(" ")
}

/// A number of seconds. Negative numbers and NaN count as 0, and more than a year as a year.
pub fn of_seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.clamp(0.0, LONGEST.as_secs_f64())).unwrap_or_default()
}

/// [`text`] for [`of_seconds`].
pub fn text_of_seconds(seconds: f64) -> String {
    let duration = of_seconds(seconds);
    if duration.is_zero() { "0 s".to_owned() } else { text(duration) }
}

/// A range of seconds as [`text_of_seconds`]; one time where both are the same.
pub fn range_of_seconds(least: f64, most: f64) -> String {
    let (least, most) = (text_of_seconds(least), text_of_seconds(most));
    if least == most { least } else { format!("{least} to {most}") }
}

/// For a config file or a flag: `1h30m`, exact to the millisecond; [`parse`] reads it back.
pub fn setting(duration: Duration) -> String {
    let (seconds, milliseconds) = (duration.as_secs(), u64::from(duration.subsec_millis()));
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s"), (milliseconds, "ms")];
    let written: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if written.is_empty() { "0s".to_owned() } else { written }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_notation_of_a_duration_is_read() {
        for (written, seconds) in [
            ("90m", 5400.0),
            ("1h30m", 5400.0),
            ("1.5 h", 5400.0),
            ("1 h 30 min", 5400.0),
            ("45s", 45.0),
            ("1m30s", 90.0),
            ("250ms", 0.25),
            (" 0s ", 0.0),
        ] {
            assert_eq!(parse(written).unwrap().as_secs_f64(), seconds, "{written}");
        }
    }

    #[test]
    fn the_error_for_a_text_that_is_not_a_duration_has_the_reason_and_an_example() {
        for (written, why) in [
            ("", "it is empty"),
            ("90", "a number needs a unit"),
            ("90 minutes", "the units are `h`, `m`, `s` and `ms`, not `minutes`"),
            ("-5m", "a number needs a unit"),
            ("m", "`m` needs a number before it: cannot parse float from empty string"),
            ("1.2.3s", "`s` needs a number before it: invalid float literal"),
            ("30m1h", "each unit may be given once, from long to short"),
            ("1h1h", "each unit may be given once, from long to short"),
        ] {
            let expected = format!("`{written}` is not a duration: expected e.g. `90m`, `1h30m` or `45s`: {why}");
            assert_eq!(format!("{:#}", parse(written).unwrap_err()), expected);
        }
        let forever = "9".repeat(400) + "h";
        assert!(parse(&forever).unwrap_err().to_string().ends_with("is longer than a year"));
    }

    #[test]
    fn people_read_durations_in_the_units_that_matter() {
        let read = |seconds| text(Duration::from_secs_f64(seconds));
        assert_eq!(read(0.25), "250 ms");
        assert_eq!(read(45.0), "45 s");
        assert_eq!(read(59.7), "1 min");
        assert_eq!(read(90.0), "1 min 30 s");
        assert_eq!(read(52.0 * 60.0 + 20.0), "52 min");
        assert_eq!(read(5400.0), "1 h 30 min");
        assert_eq!(read(3599.0), "1 h");
        assert_eq!(read(7205.0), "2 h");
    }

    #[test]
    fn a_setting_is_read_back_exactly() {
        for (seconds, written) in [(5400.0, "1h30m"), (45.0, "45s"), (3605.25, "1h5s250ms"), (0.0, "0s")] {
            let duration = Duration::from_secs_f64(seconds);
            assert_eq!(setting(duration), written);
            assert_eq!(parse(written).unwrap(), duration);
        }
    }
}
