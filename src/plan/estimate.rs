//! The expected time of a plan, from the suite alone: before anything has run on the machine.

use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::looks;
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::TimeRange;

use crate::plan::suite::{Case, Command};

/// Guess in seconds: vLLM on a GPU imports, loads and compiles for about this long.
pub const SERVER: f64 = 60.0;
/// Guess in seconds: `vllm bench` imports for about this long.
const VLLM_CLIENT: f64 = 20.0;
/// Guess in seconds: `vllm bench` imports for about this long until it hands over to the Rust client.
const RUST_CLIENT: f64 = 5.0;
/// Guess in seconds for each output token of a request.
const TOKEN: f64 = 0.02;
/// Guess in seconds for a benchmark without a server.
const BENCHMARK: f64 = 120.0;

/// Guesses for the sides and the pairs of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimates {
    /// Of each side, whether its servers need no time to start: simulated, or running already.
    pub instant: Vec<bool>,
    /// Pairs up to the first look, and all of them.
    pub pairs: (u32, u32),
}

impl Estimates {
    /// For sides whose servers are instant or not, and an arrangement of the runs.
    pub fn new(instant: Vec<bool>, strategy: Strategy, pairs: u32) -> Self {
        Self { instant, pairs: self::pairs(strategy, pairs) }
    }

    /// A measurement of a case on the slower side.
    pub fn case(&self, case: &Case) -> f64 {
        self.instant.iter().map(|instant| of_case(case, *instant)).fold(0.0, f64::max)
    }

    /// One pass over the cases on every side.
    pub fn pair(&self, cases: &[Case]) -> f64 {
        let servers = by_server(cases).iter().filter(|(server, _)| server.is_some()).count() as f64;
        let pass = |instant: &bool| {
            let start = if *instant { 0.0 } else { SERVER };
            let slices = |case: &Case| f64::from(case.slices.unwrap_or(1));
            cases.iter().map(|case| of_case(case, *instant) * slices(case)).sum::<f64>() + servers * start
        };
        self.instant.iter().map(pass).sum()
    }

    /// The shortest run of the cases, with its warm-up: one case of each server.
    pub fn least(&self, cases: &[Case]) -> f64 {
        self.warm_up(cases) + self.pair(cases) * f64::from(self.pairs.0)
    }

    /// The time of a run of the cases within a budget, in seconds.
    pub fn expected(&self, cases: &[Case], budget: Option<f64>) -> TimeRange {
        let least = self.least(cases);
        let most = self.warm_up(cases) + self.pair(cases) * f64::from(self.pairs.1);
        TimeRange { least, most: budget.map_or(most, |budget| most.min(budget.max(least))) }
    }

    fn warm_up(&self, cases: &[Case]) -> f64 {
        let firsts: Vec<Case> =
            by_server(cases).into_iter().filter_map(|(_, cases)| Some((*cases.first()?).clone())).collect();
        self.pair(&firsts)
    }
}

/// How many passes of each side a run has at least and at most.
pub fn pairs(strategy: Strategy, pairs: u32) -> (u32, u32) {
    match strategy {
        Strategy::Sequential => (looks::looks(strategy, pairs, 1.0).first().map_or(pairs, |look| look.pairs), pairs),
        // Where the screen sees no change.
        Strategy::Screen => (1, pairs + 1),
        Strategy::Paired | Strategy::Single => (pairs, pairs),
    }
}

/// The cases grouped by server, in the order of the plan: serving cases with equal servers share a group. Every case
/// without a server is a group of its own.
pub fn by_server<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Vec<(Option<&'a Command>, Vec<&'a Case>)> {
    let mut groups: Vec<(Option<&Command>, Vec<&Case>)> = Vec::new();
    for case in cases {
        let server = case.server.as_ref();
        match groups.iter_mut().find(|(known, _)| server.is_some() && *known == server) {
            Some((_, group)) => group.push(case),
            None => groups.push((server, vec![case])),
        }
    }
    groups
}

/// The expected time of a measurement. `instant`: its side's servers need no time to start. Of those targets only the simulated
/// one has benchmarks without a server; they end at once.
pub fn of_case(case: &Case, instant: bool) -> f64 {
    if case.kind != Kind::Serving {
        return if instant { 0.0 } else { BENCHMARK };
    }
    let number = |flag: &str| -> Option<f64> {
        let at = case.client.argv.iter().position(|word| word == flag)?;
        case.client.argv.get(at + 1)?.parse().ok()
    };
    let prompts = number("--num-prompts").unwrap_or(1000.0);
    let output = ["--random-output-len", "--sharegpt-output-len", "--sonnet-output-len", "--custom-output-len"];
    let request = output.into_iter().find_map(number).unwrap_or(128.0) * TOKEN;
    let at_once = case.max_concurrency.map_or(prompts, |concurrency| concurrency as f64).max(1.0);
    let sending =
        number("--request-rate").filter(|rate| *rate > 0.0 && rate.is_finite()).map_or(0.0, |rate| prompts / rate);
    let client = match case.measured_by {
        MeasuredBy::Native => 0.0,
        MeasuredBy::Vllm => VLLM_CLIENT,
        MeasuredBy::VllmRs => RUST_CLIENT,
    };
    (prompts / at_once * request).max(sending) + client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(words: &str, concurrency: u64, measured_by: MeasuredBy) -> Case {
        Case { max_concurrency: Some(concurrency), measured_by, ..Case::sample(words) }
    }

    #[test]
    fn a_guess_follows_prompts_lengths_rates_and_concurrency() {
        let words = "vllm bench serve --request-rate inf --num-prompts 200 --random-output-len 100";
        assert_eq!(of_case(&case(words, 10, MeasuredBy::Native), false), 40.0);
        assert_eq!(of_case(&case(words, 10, MeasuredBy::Vllm), false), 60.0);
        let slow = "vllm bench serve --request-rate 2 --num-prompts 200 --random-output-len 100";
        assert_eq!(of_case(&case(slow, 100, MeasuredBy::Native), false), 100.0);
        let latency = Case { kind: Kind::Latency, ..case("vllm bench latency", 1, MeasuredBy::Vllm) };
        assert_eq!((of_case(&latency, false), of_case(&latency, true)), (BENCHMARK, 0.0));
    }

    #[test]
    fn a_run_is_expected_to_take_its_warm_up_and_its_pairs_within_the_budget() {
        let words = "vllm bench serve --num-prompts 200 --random-output-len 100";
        let with_server = |concurrency| Case {
            server: Some(Command::sample("vllm serve m")),
            ..case(words, concurrency, MeasuredBy::Native)
        };
        // 40 s and 20 s on one server that takes 60 s to start; base runs already.
        let cases = [with_server(10), with_server(20)];
        let estimates = Estimates::new(vec![true, false], Strategy::Sequential, 10);
        assert_eq!(estimates.pairs, (3, 10));
        assert_eq!(estimates.pair(&cases), 60.0 + 120.0);
        assert_eq!(estimates.expected(&cases, None), TimeRange { least: 140.0 + 540.0, most: 140.0 + 1800.0 });
        assert_eq!(estimates.expected(&cases, Some(1000.0)).most, 1000.0);
        assert_eq!(estimates.expected(&cases, Some(100.0)), TimeRange { least: 680.0, most: 680.0 });
        assert_eq!(Estimates::new(vec![false], Strategy::Screen, 5).pairs, (1, 6));
    }
}
