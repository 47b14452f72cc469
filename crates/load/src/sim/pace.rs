//! The pace of the simulated vLLM, and its text form.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jiff::SignedDuration;

/// The timing of the simulated vLLM. As text: `ttft=50ms,itl=10ms,jitter=0.02,seed=1,max-num-seqs=256,startup=0s`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    /// Time to first token, from the moment when a request runs.
    pub ttft: Duration,
    /// Time between two tokens of a request.
    pub itl: Duration,
    /// Relative spread of both: the sigma of a log-normal factor with a median of 1. 0 is no spread.
    pub jitter: f64,
    /// Seed of that spread. The factors of a request depend on it and on the number of earlier requests.
    pub seed: u64,
    /// Most requests that run at once. The others wait in the order of their arrival.
    pub max_num_seqs: usize,
    /// Time from the start of the server until it is ready.
    pub startup: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            ttft: Duration::from_millis(50),
            itl: Duration::from_millis(10),
            jitter: 0.02,
            seed: 1,
            max_num_seqs: 256,
            startup: Duration::ZERO,
        }
    }
}

/// The longest time of a pace. A longer one is probably a typing error.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

const KEYS: [&str; 6] = ["ttft", "itl", "jitter", "seed", "max-num-seqs", "startup"];

impl FromStr for Pace {
    type Err = anyhow::Error;

    /// Keys may come in any order. Missing keys keep their default.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut pace = Self::default();
        for setting in text.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
            let (key, value) = setting
                .split_once('=')
                .with_context(|| format!("`{setting}` is not a setting: expected key=value, as in itl=10ms"))?;
            match key.trim() {
                "ttft" => pace.ttft = duration(key, value)?,
                "itl" => pace.itl = duration(key, value)?,
                "startup" => pace.startup = duration(key, value)?,
                "jitter" => pace.jitter = number(key, value, "a relative spread such as 0.02")?,
                "seed" => pace.seed = number(key, value, "a whole number")?,
                "max-num-seqs" => pace.max_num_seqs = number(key, value, "a whole number")?,
                unknown => bail!("`{unknown}` is not a setting of sim: did you mean `{}`?", nearest(unknown)),
            }
        }
        ensure!((0.0..=1.0).contains(&pace.jitter), "`jitter={}` is not between 0 and 1", pace.jitter);
        ensure!(pace.max_num_seqs > 0, "`max-num-seqs=0` would answer nothing: expected at least 1");
        Ok(pace)
    }
}

fn nearest(unknown: &str) -> &'static str {
    KEYS.into_iter().min_by_key(|key| strsim::levenshtein(key, unknown)).unwrap_or(KEYS[0])
}

fn number<T: FromStr>(key: &str, value: &str, expected: &str) -> anyhow::Result<T> {
    value.trim().parse().ok().with_context(|| format!("`{key}={value}`: expected {expected}"))
}

fn duration(key: &str, value: &str) -> anyhow::Result<Duration> {
    if value.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed: Option<SignedDuration> = value.trim().parse().ok();
    parsed.and_then(|duration| Duration::try_from(duration).ok()).filter(|duration| *duration <= LONGEST).with_context(
        || format!("`{key}={value}`: expected a time of at most a day with its unit, such as 10ms, 250us or 1.5s"),
    )
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ttft, itl, jitter, seed, max_num_seqs, startup } = self;
        write!(f, "ttft={},itl={},jitter={jitter},seed={seed}", Exact(*ttft), Exact(*itl))?;
        write!(f, ",max-num-seqs={max_num_seqs},startup={}", Exact(*startup))
    }
}

/// A duration in the largest unit that states it without a fraction.
struct Exact(Duration);

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.as_nanos();
        let (per_unit, unit) = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")]
            .into_iter()
            .find(|(per_unit, _)| nanoseconds.is_multiple_of(*per_unit))
            .unwrap_or((1, "ns"));
        write!(f, "{}{unit}", nanoseconds / per_unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_reads_back_as_it_was_written() {
        let text = "ttft=1500us,itl=10ms,jitter=0.02,seed=7,max-num-seqs=4,startup=2s";
        let pace: Pace = text.parse().unwrap();
        assert_eq!(pace.to_string(), text);
        assert_eq!(pace.to_string().parse::<Pace>().unwrap(), pace);
        assert_eq!(pace.ttft, Duration::from_micros(1500));
        assert_eq!("ttft=0,itl=0s".parse::<Pace>().unwrap().ttft, Duration::ZERO);
    }

    #[test]
    fn a_missing_setting_keeps_its_default() {
        assert_eq!("".parse::<Pace>().unwrap(), Pace::default());
        let pace: Pace = "itl=1.5ms".parse().unwrap();
        assert_eq!(pace, Pace { itl: Duration::from_micros(1500), ..Pace::default() });
    }

    #[test]
    fn the_error_of_a_wrong_setting_names_it_and_what_is_expected() {
        let message = |text: &str| text.parse::<Pace>().unwrap_err().to_string();
        assert_eq!(message("tfft=5ms"), "`tfft` is not a setting of sim: did you mean `ttft`?");
        assert_eq!(
            message("itl=10"),
            "`itl=10`: expected a time of at most a day with its unit, such as 10ms, 250us or 1.5s"
        );
        for wrong in ["itl=-1ms", "itl=25h"] {
            assert!(message(wrong).starts_with(&format!("`{wrong}`: expected a time of at most a day")), "{wrong}");
        }
        assert_eq!(message("fast"), "`fast` is not a setting: expected key=value, as in itl=10ms");
        assert_eq!(message("max-num-seqs=0"), "`max-num-seqs=0` would answer nothing: expected at least 1");
        assert_eq!(message("jitter=NaN"), "`jitter=NaN` is not between 0 and 1");
    }
}
