//! The measurement strategies: which cases run next, in which pairs, given what has been measured so far.

use std::str::FromStr;

use anyhow::Context;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::side::Side;
use crate::statistics::Prior;

/// Two-sided p value below which a screened row is repeated.
const SUSPICIOUS: f64 = 0.1;
/// Largest number of pairs of a `sequential` run.
pub const MOST_PAIRS: u32 = 10;

/// How the repetitions are arranged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Interleaved pairs of every case.
    #[default]
    Paired,
    /// One screening pass over every case, then interleaved pairs of the cases whose screening suggests a change.
    Screen,
    /// Interleaved pairs of every case, then as many again of the cases that are still inconclusive.
    Sequential,
    /// No pairs: values are shown without a verdict.
    Single,
}

impl Strategy {
    pub const ALL: [Self; 4] = [Self::Paired, Self::Screen, Self::Sequential, Self::Single];

    /// The name in flags, files and texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paired => "paired",
            Self::Screen => "screen",
            Self::Sequential => "sequential",
            Self::Single => "single",
        }
    }
}

impl FromStr for Strategy {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let named = Self::ALL.into_iter().find(|strategy| strategy.as_str() == text);
        named
            .with_context(|| format!("`{text}` is not a strategy: expected {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// A phase of a run, in the order in which the phases run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// A first start of each server, whose results are discarded.
    WarmUp,
    /// One pass over every case; no verdict uses its values.
    Screen,
    /// Pairs, or repetitions of head alone.
    #[default]
    Pairs,
    /// The pairs after the first look of `sequential`.
    MorePairs,
}

impl Phase {
    /// The name in texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WarmUp => "warm-up",
            Self::Screen => "screen",
            Self::Pairs => "pairs",
            Self::MorePairs => "more pairs",
        }
    }

    /// Whether this is the default, which files omit.
    pub fn is_pairs(&self) -> bool {
        *self == Self::Pairs
    }
}

/// One pass over cases: a phase and the number of the pair in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    pub phase: Phase,
    /// Number of the pair, from 1; 0 for the warm-up. `MorePairs` continues the numbers of `Pairs`.
    pub pair: u32,
}

/// The next passes: the same cases in each pass, on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    pub phase: Phase,
    /// First and last pair.
    pub pairs: (u32, u32),
    /// Names of the cases, in the order of the plan.
    pub cases: Vec<String>,
}

impl Round {
    /// The passes, in order.
    pub fn passes(&self) -> impl Iterator<Item = Pass> + use<> {
        let phase = self.phase;
        (self.pairs.0..=self.pairs.1).map(move |pair| Pass { phase, pair })
    }
}

/// The round after the phase `last` (`None` before the first round), for `pairs` pairs. `remaining` are the cases to
/// measure: all of them at the start, the [`suspicious`] ones after a screen, the undecided ones after a first look.
pub fn next(strategy: Strategy, pairs: u32, last: Option<Phase>, remaining: Vec<String>) -> Option<Round> {
    let (phase, pairs) = match (strategy, last) {
        (Strategy::Screen, None) => (Phase::Screen, (1, 1)),
        (Strategy::Screen, Some(Phase::Screen)) | (_, None) => (Phase::Pairs, (1, pairs)),
        (Strategy::Sequential, Some(Phase::Pairs)) => (Phase::MorePairs, (pairs + 1, 2 * pairs)),
        _ => return None,
    };
    (!remaining.is_empty()).then_some(Round { phase, pairs, cases: remaining })
}

/// The order of the sides in a pass: random, and determined by the seed and the pass alone.
pub fn order(seed: u64, pass: Pass) -> [Side; 2] {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Pairs and more pairs are one sequence; a screen is another.
    random.set_stream(u64::from(pass.phase == Phase::Screen));
    let draws = pass.pair.max(1);
    let base_first = (0..draws).map(|_| random.random_bool(0.5)).last().unwrap_or_default();
    if base_first { [Side::Base, Side::Head] } else { [Side::Head, Side::Base] }
}

/// Whether a primary row of a screen has to be repeated in pairs: a side has no value, the change is significant at 10 %
/// given `noise` or, without known noise, it exceeds the minimum effect.
pub fn suspicious(base: Option<f64>, head: Option<f64>, noise: Option<Prior>, min_effect: f64) -> bool {
    let (Some(base), Some(head)) = (base, head) else { return true };
    let change = (head / base).ln().abs();
    if !change.is_finite() {
        return true;
    }
    match noise.and_then(|noise| Some((noise.s0, StudentsT::new(0.0, 1.0, noise.n0).ok()?))) {
        Some((s0, distribution)) => 2.0 * distribution.sf(change / s0) < SUSPICIOUS,
        None => change > min_effect.ln_1p(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn shown(round: Option<Round>) -> String {
        round.map_or("end".to_owned(), |round| {
            format!("{} {:?}: {}", round.phase.as_str(), round.pairs, round.cases.join(" "))
        })
    }

    #[test]
    fn each_strategy_runs_its_rounds_in_order() {
        use Strategy::{Paired, Screen, Sequential, Single};
        let step = |strategy, last, left: &[&str]| shown(next(strategy, 5, last, names(left)));
        insta::assert_snapshot!([
            step(Paired, None, &["a", "b"]),
            step(Paired, Some(Phase::Pairs), &["a", "b"]),
            step(Single, None, &["a"]),
            step(Screen, None, &["a", "b"]),
            step(Screen, Some(Phase::Screen), &["b"]),
            step(Screen, Some(Phase::Screen), &[]),
            step(Screen, Some(Phase::Pairs), &["b"]),
            step(Sequential, None, &["a", "b"]),
            step(Sequential, Some(Phase::Pairs), &["a"]),
            step(Sequential, Some(Phase::Pairs), &[]),
            step(Sequential, Some(Phase::MorePairs), &["a"]),
        ].join("\n"), @r"
        pairs (1, 5): a b
        end
        pairs (1, 5): a
        screen (1, 1): a b
        pairs (1, 5): b
        end
        end
        pairs (1, 5): a b
        more pairs (6, 10): a
        end
        end
        ");
    }

    #[test]
    fn the_same_seed_gives_the_same_order_and_both_orders_occur() {
        let firsts =
            |seed| -> Vec<Side> { (1..=10).map(|pair| order(seed, Pass { phase: Phase::Pairs, pair })[0]).collect() };
        assert_eq!(firsts(1), firsts(1));
        assert_ne!(firsts(1), firsts(2));
        assert!(firsts(1).contains(&Side::Base) && firsts(1).contains(&Side::Head));
        let later = order(1, Pass { phase: Phase::MorePairs, pair: 7 });
        assert_eq!(later[0], firsts(1)[6], "a second look continues the sequence of the first");
    }

    #[test]
    fn a_screen_repeats_changes_that_noise_does_not_explain() {
        // 2 * scipy.stats.t.sf(log(1.04) / 0.02, 8) = 0.0855; with 0.03: 0.227
        let noise = |s0| Some(Prior { n0: 8.0, s0 });
        assert!(suspicious(Some(100.0), Some(104.0), noise(0.02), 0.03));
        assert!(!suspicious(Some(100.0), Some(104.0), noise(0.03), 0.03));
        assert!(!suspicious(Some(104.0), Some(100.0), noise(0.03), 0.03));
    }

    #[test]
    fn without_known_noise_a_screen_repeats_rows_above_the_minimum_effect_and_rows_without_a_value() {
        assert!(!suspicious(Some(100.0), Some(102.9), None, 0.03));
        assert!(suspicious(Some(100.0), Some(103.1), None, 0.03));
        assert!(suspicious(Some(103.1), Some(100.0), None, 0.03));
        for (base, head) in [(None, Some(1.0)), (Some(1.0), None), (Some(0.0), Some(1.0)), (Some(0.0), Some(0.0))] {
            assert!(suspicious(base, head, None, 0.03), "{base:?} {head:?}");
        }
    }
}
