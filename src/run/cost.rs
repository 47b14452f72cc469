//! The expected time of the rest of a run, from its times so far, and how many pairs a budget allows.

use std::collections::HashMap;
use std::time::Duration;

use vllm_verdict::side::Side;

use super::session::server_count;
use super::time_spent::PassTime;
use crate::plan::suite::Case;
use crate::plan::{Plan, estimate};
use crate::run::journal::Entry;

/// Times of cases and servers so far, in seconds.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    cases: HashMap<(Side, String), Mean>,
    servers: HashMap<Side, Mean>,
    /// Whether servers need no time to start: simulated, or running already.
    instant: bool,
    /// How long cases take on this machine, in terms of the guess from the suite.
    pace: f64,
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
        let mut costs = Self { instant, pace: 1.0, ..Self::default() };
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

    /// Takes the pace of this machine from the cases that have run, for those that have not.
    pub fn learn_pace<'a>(&mut self, cases: impl IntoIterator<Item = &'a Case>) {
        let (mut measured, mut guessed) = (0.0, 0.0);
        for case in cases {
            if let Some(seconds) = self.measured(Side::Head, &case.name) {
                measured += seconds;
                guessed += estimate::of_case(case, self.instant);
            }
        }
        if measured > 0.0 && guessed > 0.0 {
            self.pace = measured / guessed;
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
        self.measured(side, &case.name).unwrap_or_else(|| estimate::of_case(case, self.instant) * self.pace)
    }

    /// Expected time to start and stop `servers` servers on a side.
    pub fn servers(&self, side: Side, servers: usize) -> f64 {
        let other = if side == Side::Base { Side::Head } else { Side::Base };
        let of = |side| self.servers.get(&side).and_then(|mean| mean.value());
        let one = of(side).or_else(|| of(other)).unwrap_or(if self.instant { 0.0 } else { estimate::SERVER });
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

/// How many of `pairs` a budget allows, after `elapsed`, where a pair takes `pair` seconds.
pub fn fitting(budget: Option<Duration>, elapsed: Duration, pair: f64, pairs: u32) -> u32 {
    let Some(budget) = budget else { return pairs };
    let left = budget.saturating_sub(elapsed).as_secs_f64();
    if pair > 0.0 { (left / pair).floor().min(f64::from(pairs)) as u32 } else { pairs }
}

#[cfg(test)]
mod tests {
    use vllm_verdict::case::MeasuredBy;
    use vllm_verdict::strategy::Phase;

    use super::*;
    use crate::plan::suite::Command;
    use crate::run::time_spent::Spent;

    fn case(words: &str, concurrency: u64, measured_by: MeasuredBy) -> Case {
        Case { max_concurrency: Some(concurrency), measured_by, ..Case::sample(words) }
    }

    #[test]
    fn cases_that_have_not_run_are_guessed_at_the_pace_of_those_that_have() {
        let words = "vllm bench serve --num-prompts 100 --random-output-len 100";
        let [known, unknown] = [10, 20].map(|concurrency| case(words, concurrency, MeasuredBy::Native));
        let unknown = Case { name: "serving_b".to_owned(), ..unknown };
        let mut costs = Costs::new(&[], &[], true);
        assert_eq!((costs.case(Side::Head, &known), costs.case(Side::Head, &unknown)), (20.0, 10.0));
        costs.learn_case(Side::Base, &known.name, 5.0);
        costs.learn_pace([&known, &unknown]);
        assert_eq!((costs.case(Side::Head, &known), costs.case(Side::Head, &unknown)), (5.0, 2.5));
    }

    #[test]
    fn measured_times_replace_guesses_and_one_side_stands_in_for_the_other() {
        let spent = Spent { server_start: 30.0, client_start: 1.0, measuring: 9.0, total: 50.0 };
        let pass = PassTime {
            phase: Phase::WarmUp,
            pair: 0,
            side: Side::Base,
            servers: 2,
            cases: 1,
            spent,
            kept: true,
            expected: None,
        };
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
        let pass = PassTime { phase, pair, side: Side::Base, servers: 1, cases: 1, spent, kept: true, expected: None };
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
