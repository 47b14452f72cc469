//! The measurement strategies: which cases run next, in which pairs, given what has been measured so far.

use std::str::FromStr;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::side::Side;
use crate::statistics::Prior;
use crate::student::Student;

/// Two-sided p value below which a screened row is repeated.
const SUSPICIOUS: f64 = 0.1;
/// Pairs of a run that takes no looks, where nobody says how many.
pub const DEFAULT_PAIRS: u32 = 5;
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
    /// Interleaved pairs of every case, with looks at 3, 5, 7 and 10: the first one with a reason ends the run.
    Sequential,
    /// No pairs: values are shown without a verdict.
    Single,
}

impl Strategy {
    pub const ALL: [Self; 4] = [Self::Paired, Self::Screen, Self::Sequential, Self::Single];

    /// Pairs where nobody says how many: a sequential run may end before its last look.
    pub fn default_pairs(self) -> u32 {
        if self == Self::Sequential { MOST_PAIRS } else { DEFAULT_PAIRS }
    }

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
    /// The pairs after the first look of a `sequential` run.
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

/// The round after the one that ended with the phase and the pair `last` (`None` before the first round), up to the next
/// of the `looks`, which are numbers of pairs. `remaining` are the cases to measure: all of them at the start, the [`suspicious`] ones after a screen, none where
/// a look ends the run.
pub fn next(strategy: Strategy, looks: &[u32], last: Option<(Phase, u32)>, remaining: Vec<String>) -> Option<Round> {
    if strategy == Strategy::Screen && last.is_none() {
        return (!remaining.is_empty()).then_some(Round { phase: Phase::Screen, pairs: (1, 1), cases: remaining });
    }
    let done = last.filter(|(phase, _)| *phase != Phase::Screen).map_or(0, |(_, pair)| pair);
    let until = looks.iter().copied().find(|pairs| *pairs > done)?;
    let phase = if done == 0 { Phase::Pairs } else { Phase::MorePairs };
    (!remaining.is_empty()).then_some(Round { phase, pairs: (done + 1, until), cases: remaining })
}

/// The order of the sides in a pass. It alternates, so that neither is first more often; bit 0 of the seed gives the first.
pub fn order(seed: u64, pass: Pass) -> [Side; 2] {
    let base_first = (seed ^ u64::from(pass.pair.max(1))) & 1 == 1;
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
    match noise {
        Some(Prior { n0, s0 }) => 2.0 * Student::new(n0).tail(change / s0) < SUSPICIOUS,
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
        let step = |strategy, pairs: u32, last, left: &[&str]| {
            let looks = if strategy == Sequential { vec![3.min(pairs), 5.min(pairs), 7, 10] } else { vec![pairs] };
            shown(next(strategy, &looks, last, names(left)))
        };
        insta::assert_snapshot!([
            step(Paired, 5, None, &["a", "b"]),
            step(Paired, 5, Some((Phase::Pairs, 5)), &["a", "b"]),
            step(Single, 5, None, &["a"]),
            step(Screen, 5, None, &["a", "b"]),
            step(Screen, 5, Some((Phase::Screen, 1)), &["b"]),
            step(Screen, 5, Some((Phase::Screen, 1)), &[]),
            step(Screen, 5, Some((Phase::Pairs, 5)), &["b"]),
            step(Sequential, 10, None, &["a", "b"]),
            step(Sequential, 10, Some((Phase::Pairs, 3)), &["a", "b"]),
            step(Sequential, 10, Some((Phase::MorePairs, 7)), &["a", "b"]),
            step(Sequential, 10, Some((Phase::MorePairs, 7)), &[]),
            step(Sequential, 10, Some((Phase::MorePairs, 10)), &["a"]),
            step(Sequential, 4, Some((Phase::Pairs, 3)), &["a"]),
            step(Sequential, 2, None, &["a"]),
        ].join("\n"), @r"
        pairs (1, 5): a b
        end
        pairs (1, 5): a
        screen (1, 1): a b
        pairs (1, 5): b
        end
        end
        pairs (1, 3): a b
        more pairs (4, 5): a b
        more pairs (8, 10): a b
        end
        end
        more pairs (4, 4): a
        pairs (1, 2): a
        ");
    }

    #[test]
    fn the_order_alternates_and_a_bit_of_the_seed_says_who_is_first() {
        let firsts =
            |seed| -> Vec<Side> { (1..=5).map(|pair| order(seed, Pass { phase: Phase::Pairs, pair })[0]).collect() };
        use Side::{Base, Head};
        assert_eq!(firsts(6), [Base, Head, Base, Head, Base]);
        assert_eq!(firsts(7), [Head, Base, Head, Base, Head]);
        let later = order(6, Pass { phase: Phase::MorePairs, pair: 4 });
        assert_eq!(later[0], Head, "the pairs after a look continue those before it");
        order(u64::MAX, Pass { phase: Phase::WarmUp, pair: 0 });
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
