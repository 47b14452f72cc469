//! The expected time of the rest of a run, from its times so far, and how many pairs a budget allows.

use std::collections::HashMap;
use std::time::Duration;

use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::side::Side;

use super::session::server_count;
use super::time_spent::PassTime;
use crate::plan::Plan;
use crate::plan::suite::Case;
use crate::run::journal::Entry;

/// Guess in seconds: vLLM on a GPU imports, loads and compiles for about this long.
const SERVER: f64 = 60.0;
/// Guess in seconds: `vllm bench` imports for about this long.
const VLLM_CLIENT: f64 = 20.0;
/// Guess in seconds: `vllm bench` imports for about this long until it hands over to the Rust client.
const RUST_CLIENT: f64 = 5.0;
/// Guess in seconds for each output token of a request.
const TOKEN: f64 = 0.02;
/// Guess in seconds for a benchmark without a server.
const BENCHMARK: f64 = 120.0;

/// Times of cases and servers so far, in seconds.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    cases: HashMap<(Side, String), Mean>,
    servers: HashMap<Side, Mean>,
    /// Whether servers need no time to start: simulated, or running already.
    instant: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    fn add(&mut self, value: f64, count: f64) {
        self.sum += value;
        self.count += count;
    }

    fn value(self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

impl Costs {
    /// From the journal and the times of this run, or of an earlier run in the same folder. With `instant`, servers need no
    /// time to start.
    pub fn new(entries: &[Entry], passes: &[PassTime], instant: bool) -> Self {
        let mut costs = Self { instant, ..Self::default() };
        entries.iter().for_each(|entry| costs.learn_case(entry.side, &entry.case, entry.seconds));
        passes.iter().for_each(|pass| costs.learn_pass(pass));
        costs
    }

    /// Adds the time of a case.
    pub fn learn_case(&mut self, side: Side, case: &str, seconds: f64) {
        self.cases.entry((side, case.to_owned())).or_default().add(seconds, 1.0);
    }

    /// Adds a finished pass: its time without that of its cases is the cost of its servers.
    pub fn learn_pass(&mut self, pass: &PassTime) {
        let overhead = pass.spent.total - pass.spent.client_start - pass.spent.measuring;
        if pass.servers > 0 {
            self.servers.entry(pass.side).or_default().add(overhead.max(0.0), f64::from(pass.servers));
        }
    }

    /// How many of `cases` have run before.
    pub fn known<'a>(&self, cases: impl IntoIterator<Item = &'a Case>) -> usize {
        let known = |case: &&Case| self.measured(Side::Head, &case.name).is_some();
        cases.into_iter().filter(known).count()
    }

    fn measured(&self, side: Side, case: &str) -> Option<f64> {
        let other = if side == Side::Base { Side::Head } else { Side::Base };
        let of = |side| self.cases.get(&(side, case.to_owned())).and_then(|mean| mean.value());
        of(side).or_else(|| of(other))
    }

    /// Expected time of a case, from its earlier runs or a guess.
    pub fn case(&self, side: Side, case: &Case) -> f64 {
        // Of the targets whose servers need no time to start, only the simulated one has other benchmarks; they end at once.
        let simulated = self.instant && case.kind != Kind::Serving;
        self.measured(side, &case.name).unwrap_or_else(|| if simulated { 0.0 } else { guess(case) })
    }

    /// Expected time to start and stop `servers` servers on a side.
    pub fn servers(&self, side: Side, servers: usize) -> f64 {
        let other = if side == Side::Base { Side::Head } else { Side::Base };
        let of = |side| self.servers.get(&side).and_then(|mean| mean.value());
        let one = of(side).or_else(|| of(other)).unwrap_or(if self.instant { 0.0 } else { SERVER });
        one * servers as f64
    }
}

/// Expected time of one pass over `cases` on each side that is measured, in seconds, where a case has so many slices.
pub fn pair(costs: &Costs, plan: &Plan, cases: &[&Case], slices: impl Fn(&Case) -> u32) -> f64 {
    let servers = server_count(cases.iter().copied());
    let of_side = |side| {
        let measuring: f64 = cases.iter().map(|case| costs.case(side, case) * f64::from(slices(case))).sum();
        measuring + costs.servers(side, servers)
    };
    plan.sides.present().map(|(side, _)| of_side(side)).sum()
}

/// Expected time of a case from its command alone.
fn guess(case: &Case) -> f64 {
    if case.kind != Kind::Serving {
        return BENCHMARK;
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

/// How many of `pairs` a budget allows, after `elapsed`, where a pair takes `pair` seconds.
pub fn fitting(budget: Option<Duration>, elapsed: Duration, pair: f64, pairs: u32) -> u32 {
    let Some(budget) = budget else { return pairs };
    let left = budget.saturating_sub(elapsed).as_secs_f64();
    if pair > 0.0 { (left / pair).floor().min(f64::from(pairs)) as u32 } else { pairs }
}

#[cfg(test)]
mod tests {
    use vllm_verdict::strategy::Phase;

    use super::*;
    use crate::plan::suite::Command;
    use crate::run::time_spent::Spent;

    fn case(words: &str, concurrency: u64, measured_by: MeasuredBy) -> Case {
        Case { max_concurrency: Some(concurrency), measured_by, ..Case::sample(words) }
    }

    #[test]
    fn a_simulated_benchmark_is_not_expected_to_take_as_long_as_a_real_one() {
        let latency = Case { kind: Kind::Latency, ..case("vllm bench latency", 1, MeasuredBy::Vllm) };
        let guessed = |instant| Costs::new(&[], &[], instant).case(Side::Head, &latency);
        assert_eq!((guessed(false), guessed(true)), (BENCHMARK, 0.0));
    }

    #[test]
    fn a_guess_follows_prompts_lengths_rates_and_concurrency() {
        let words = "vllm bench serve --request-rate inf --num-prompts 200 --random-output-len 100";
        assert_eq!(guess(&case(words, 10, MeasuredBy::Native)), 40.0);
        assert_eq!(guess(&case(words, 10, MeasuredBy::Vllm)), 60.0);
        let slow = "vllm bench serve --request-rate 2 --num-prompts 200 --random-output-len 100";
        assert_eq!(guess(&case(slow, 100, MeasuredBy::Native)), 100.0);
    }

    #[test]
    fn measured_times_replace_guesses_and_one_side_stands_in_for_the_other() {
        let spent = Spent { server_start: 30.0, client_start: 1.0, measuring: 9.0, total: 50.0 };
        let pass =
            PassTime { phase: Phase::WarmUp, pair: 0, side: Side::Base, servers: 2, cases: 1, spent, kept: true };
        let mut costs = Costs::new(&[], &[pass], false);
        let case = case("vllm bench serve", 1, MeasuredBy::Native);
        assert_eq!(costs.known([&case]), 0);
        costs.learn_case(Side::Base, "serving_a", 8.0);
        costs.learn_case(Side::Base, "serving_a", 12.0);
        assert_eq!((costs.case(Side::Head, &case), costs.servers(Side::Head, 1)), (10.0, 20.0));
        assert_eq!(costs.known([&case]), 1);
        assert_eq!(Costs::new(&[], &[], true).servers(Side::Base, 3), 0.0);
    }

    #[test]
    fn a_pair_takes_the_time_of_all_slices_on_both_sides_and_that_of_their_servers() {
        let case =
            Case { server: Some(Command::sample("vllm serve a")), ..case("vllm bench serve", 1, MeasuredBy::Native) };
        let spent = Spent { server_start: 30.0, client_start: 0.0, measuring: 10.0, total: 40.0 };
        let (phase, pair) = (Phase::Pairs, 1);
        let pass = PassTime { phase, pair, side: Side::Base, servers: 1, cases: 1, spent, kept: true };
        let mut costs = Costs::new(&[], &[pass], false);
        costs.learn_case(Side::Base, &case.name, 10.0);
        let plan = Plan { cases: vec![case], ..Plan::sample() };
        let seconds = |slices: u32| super::pair(&costs, &plan, &[&plan.cases[0]], |_| slices);
        assert_eq!((seconds(1), seconds(4)), (2.0 * 40.0, 2.0 * 70.0));
    }

    #[test]
    fn a_pair_that_would_end_after_the_budget_is_not_planned() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        assert_eq!(fitting(None, minutes(500), 600.0, 5), 5);
        assert_eq!(fitting(Some(minutes(60)), minutes(5), 600.0, 10), 5);
        assert_eq!(fitting(Some(minutes(600)), minutes(5), 600.0, 10), 10);
        assert_eq!(fitting(Some(minutes(1)), minutes(5), 600.0, 5), 0);
    }
}
