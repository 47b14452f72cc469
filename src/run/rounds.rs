//! Runs a plan: the rounds of its strategy, each a series of interleaved passes over both sides.

use anyhow::Result;
use indexmap::IndexMap;
use vllm_verdict::Untrusted;
use vllm_verdict::looks::End;
use vllm_verdict::number::plural;
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{self, Pass, Phase, Round, Strategy};
use vllm_verdict::v1::{Conduct, ExpectedTime, TimeRange};

use super::run_state::RunState;
use super::session::Session;
use super::{cost, interim_analysis, repeated_pass, search_run, slices, warm_up};
use crate::duration;
use crate::plan::estimate;
use crate::plan::suite::Case;
use crate::run::journal::{Entry, Journal};

/// Runs what the journal does not have yet and returns how the run was conducted. Failed cases are in the journal; the
/// error is an output folder that cannot be read or written.
pub async fn run(session: &Session<'_>, state: &mut RunState<'_>, journal: &mut Journal) -> Result<Conduct> {
    Rounds { session, state, journal, is_warm: false, is_out_of_budget: false, given_up: IndexMap::new() }.run().await
}

/// The rounds of a run in progress.
struct Rounds<'r, 's, 'a> {
    session: &'r Session<'s>,
    state: &'r mut RunState<'a>,
    journal: &'r mut Journal,
    is_warm: bool,
    /// Whether a round ended because of the budget.
    is_out_of_budget: bool,
    /// Why cases are not measured any more, and how many at once.
    given_up: IndexMap<String, usize>,
}

impl Rounds<'_, '_, '_> {
    async fn run(mut self) -> Result<Conduct> {
        let plan = self.session.plan;
        let mut conduct = Conduct { strategy: plan.strategy, ..Conduct::default() };
        self.estimate();
        let mut cases: Vec<String> = plan.cases.iter().map(|case| case.name.clone()).collect();
        let mut last = None;
        let looks = interim_analysis::looks(plan, self.session.verdict);
        let looks: Vec<u32> = looks.iter().map(|look| look.pairs).collect();
        while let Some(round) = strategy::next(plan.strategy, &looks, last, cases) {
            let ran = self.round(&round).await?;
            let planned = round.pairs.1 + 1 - round.pairs.0;
            if ran < planned && std::mem::take(&mut self.is_out_of_budget) {
                let notice = self.left_out(&round, ran, planned);
                self.session.progress.say(&notice);
                conduct.notices.push(notice.into());
            }
            cases = match (plan.strategy, round.phase) {
                (Strategy::Screen, Phase::Screen) => self.after_screen(&mut conduct)?,
                (Strategy::Sequential, _) if ran == planned => self.after_look(&round, &conduct)?,
                _ => Vec::new(),
            };
            last = Some((round.phase, round.pairs.1));
        }
        conduct.notices.extend(self.given_up.iter().map(no_further).map(Untrusted::from));
        // A resumed run with nothing to do has no warm-up; the report names head's image all the same.
        self.state.fetch_head().await?;
        conduct.phases = self.state.times.phases();
        conduct.spent = self.state.times.sides();
        let warmed = self.state.times.expected();
        let planned = plan.expected.filter(|_| warmed.is_some());
        conduct.expected = planned.map(|planned| ExpectedTime { planned, warmed, devices: plan.device.count });
        Ok(conduct)
    }

    fn left_out(&self, round: &Round, ran: u32, planned: u32) -> String {
        format!(
            "The budget of {} left out {} of {planned} {} of {}.",
            duration::text(self.session.limits.budget.unwrap_or_default()),
            planned - ran,
            if self.state.base.is_some() { "pairs" } else { "repetitions" },
            plural(round.cases.len(), "case"),
        )
    }

    /// The cases to repeat in pairs; the others are recorded as screened.
    fn after_screen(&self, conduct: &mut Conduct) -> Result<Vec<String>> {
        let all = &self.session.plan.cases;
        let suspicious = interim_analysis::suspicious(self.session, self.journal)?;
        let names = all.iter().map(|case| &case.name);
        conduct.screened = names.filter(|case| !suspicious.contains(case)).map(|case| case.as_str().into()).collect();
        let screen = self.state.times.phases().into_iter().find(|phase| phase.phase == Phase::Screen);
        self.session.progress.say(&format!(
            "screened {} in {}; {} to repeat in pairs",
            plural(all.len(), "case"),
            duration::text_of_seconds(screen.map_or(0.0, |screen| screen.seconds)),
            plural(suspicious.len(), "case"),
        ));
        Ok(suspicious)
    }

    /// The cases to measure further: all of them, or none where the look after the round ends the run.
    fn after_look(&self, round: &Round, conduct: &Conduct) -> Result<Vec<String>> {
        let end = interim_analysis::end(self.session, self.journal, conduct)?;
        let found = match end {
            Some(End::Finding) => "there is a finding",
            Some(End::Unchanged) => "every row is unchanged",
            Some(End::Futile) => "no row is near a finding",
            None => "not decided yet",
        };
        let (pairs, all) = (round.pairs.1, self.session.plan.pairs);
        let more = if end.is_some() && pairs < all { "; the run ends here" } else { "" };
        self.session.progress.say(&format!("look after {}: {found}{more}", plural(pairs as usize, "pair")));
        Ok(if end.is_some() { Vec::new() } else { round.cases.clone() })
    }

    /// The time that the pairs may take, in seconds.
    fn pairs_time(&self) -> TimeRange {
        let plan = self.session.plan;
        let cases: Vec<&Case> = plan.cases.iter().collect();
        let pass = cost::pair(&self.state.costs, plan, &cases, |case| self.foreseen(case));
        let (first, all) = estimate::pairs(plan.strategy, plan.pairs);
        TimeRange { least: pass * f64::from(first), most: pass * f64::from(all) }
    }

    /// Takes the pace of this machine from the warm-up, and says again how long the run may take.
    fn estimate_again(&mut self) -> Result<()> {
        self.state.costs.learn_pace(&self.session.plan.cases);
        let TimeRange { least, most } = self.pairs_time();
        let begun = self.session.begun.elapsed().as_secs_f64();
        let budget = self.session.limits.budget.map_or(f64::INFINITY, |budget| budget.as_secs_f64());
        let least = begun + least;
        let most = (begun + most).min(budget.max(least));
        let more = duration::range_of_seconds(least - begun, most - begun);
        self.session.progress.say(&format!("expected time from here: {more} (from the warm-up)"));
        self.state.times.expect(TimeRange { least, most })
    }

    /// Prints how long a new run may take, and what that is known from.
    fn estimate(&self) {
        if !self.journal.entries().is_empty() {
            return;
        }
        let plan = self.session.plan;
        let TimeRange { least, most } = self.pairs_time();
        let time = duration::range_of_seconds(least, most);
        let (known, all) = (self.state.costs.known(&plan.cases), plan.cases.len());
        let source = match known {
            0 => "estimated from the suite; refined after the first pass".to_owned(),
            known if known < all => {
                format!("from an earlier run of {known} of the {all} cases, the others are a guess")
            }
            _ => "from an earlier run of these cases".to_owned(),
        };
        self.session.progress.say(&format!("expected time after the warm-up: {time} ({source})"));
    }

    /// The slices that a case is expected to have in each repetition, before their number is chosen.
    fn foreseen(&self, case: &Case) -> u32 {
        let (plan, costs) = (self.session.plan, &self.state.costs);
        if !slices::is_by_cost(plan, case) {
            return self.slices(case);
        }
        let group = plan.cases.iter().filter(|other| other.server == case.server);
        slices::worth(costs.servers(Side::Head, 1), group.map(|case| costs.case(Side::Head, case)).sum())
    }

    /// The slices of a case in each repetition, 1 before their number is chosen.
    fn slices(&self, case: &Case) -> u32 {
        slices::of_case(self.session.plan, self.journal, Pass { phase: Phase::Pairs, pair: 1 }, case)
    }

    /// Expected time of one pass on each side, in seconds.
    fn pair_seconds(&self, pass: Pass, cases: &[&Case]) -> f64 {
        let slices = |case: &Case| slices::of_case(self.session.plan, self.journal, pass, case);
        cost::pair(&self.state.costs, self.session.plan, cases, slices)
    }

    /// Runs a round as far as the budget allows, and returns how many of its pairs are done.
    async fn round(&mut self, round: &Round) -> Result<u32> {
        let (session, plan) = (self.session, self.session.plan);
        let progress = session.progress;
        let cases: Vec<&Case> = plan.cases.iter().filter(|case| round.cases.contains(&case.name)).collect();
        let passes: Vec<Pass> = round.passes().collect();
        let (mut done, mut announced, mut expected) = (0, 0, 0);
        for (index, pass) in passes.iter().enumerate() {
            let in_pass = self.in_pass(*pass, &cases);
            // Slices that were chosen since the last pass are more than was expected.
            let all = in_pass * passes.len() as u64;
            progress.expect_more(all.saturating_sub(expected));
            expected = all;
            progress.skip(self.finished(*pass, &cases));
            if self.is_finished(*pass, &cases) {
                done += 1;
                continue;
            }
            if !std::mem::replace(&mut self.is_warm, true) {
                warm_up::warm_up(session, self.state, &cases).await?;
                let is_warmed = self.state.times.passes().iter().any(|pass| pass.phase == Phase::WarmUp);
                if is_warmed && self.state.times.expected().is_none() {
                    self.estimate_again()?;
                }
            }
            let Some(cases) = self.not_given_up(&cases) else { break };
            let pair = self.pair_seconds(*pass, &cases);
            let remaining = (passes.len() - index) as u32;
            let fit = cost::fitting(session.limits.budget, session.begun.elapsed(), pair, remaining);
            // The first pair of a round always runs, or the round would have no result. A second look needs none.
            let fit = if index > 0 || round.phase == Phase::MorePairs { fit } else { fit.max(1) };
            if fit == 0 {
                self.is_out_of_budget = true;
                break;
            }
            let planned = done + fit;
            if fit < remaining && planned != announced {
                announced = planned;
                progress.say(&format!("the budget allows about {planned} of {} pairs", passes.len()));
            }
            progress.set_remaining(duration::of_seconds(pair * f64::from(fit)));
            progress.group(&match round.phase {
                Phase::Screen => format!("Screen of {}", plural(cases.len(), "case")),
                _ => format!("Pair {} of {}", pass.pair, round.pairs.1),
            });
            self.state.pair_begun = session.begun.elapsed();
            for side in strategy::order(plan.seed, *pass) {
                // What the other side cannot have need not be measured.
                let Some(cases) = self.not_given_up(&cases) else { break };
                if let Some(mut run) = self.state.pass(session, side, *pass, self.journal) {
                    repeated_pass::measure(&mut run, &cases).await?;
                }
            }
            progress.end_group();
            done += 1;
        }
        Ok(done)
    }

    /// The cases that neither side has given up; `None` where there are none. The others are measured no further.
    fn not_given_up<'c>(&mut self, cases: &[&'c Case]) -> Option<Vec<&'c Case>> {
        let mut not_given_up = Vec::new();
        let mut reasons: IndexMap<String, usize> = IndexMap::new();
        for case in cases {
            match self.given_up_by(case) {
                Some(reason) => *reasons.entry(reason).or_default() += 1,
                None => not_given_up.push(*case),
            }
        }
        for (reason, number) in reasons {
            if !self.given_up.contains_key(&reason) {
                self.session.progress.say(&no_further((&reason, &number)));
            }
            let known = self.given_up.entry(reason).or_default();
            *known = number.max(*known);
        }
        (!not_given_up.is_empty()).then_some(not_given_up)
    }

    /// Which side has given a case up, and because of what.
    fn given_up_by(&self, case: &Case) -> Option<String> {
        let sides = [(Side::Base, self.state.base.as_ref()), (Side::Head, Some(&self.state.head))];
        sides.into_iter().find_map(|(side, run)| Some(format!("{}: {}", side.as_str(), run?.cause(case)?)))
    }

    /// Whether everything in a pass has finished, on both sides.
    fn is_finished(&self, pass: Pass, cases: &[&Case]) -> bool {
        let is_done = |side, case| search_run::is_done(self.session, self.journal, side, pass, case);
        self.session.plan.sides.present().all(|(side, _)| cases.iter().all(|case| is_done(side, case)))
    }

    /// How many case runs a pass has, on both sides together.
    fn in_pass(&self, pass: Pass, cases: &[&Case]) -> u64 {
        let plan = self.session.plan;
        let slices = cases.iter().map(|case| u64::from(slices::of_case(plan, self.journal, pass, case))).sum::<u64>();
        slices * plan.sides.present().count() as u64
    }

    /// How many of them have finished.
    fn finished(&self, pass: Pass, cases: &[&Case]) -> u64 {
        let is_of_round = |entry: &&Entry| cases.iter().any(|case| case.name == entry.case);
        let of_side = |side| self.journal.of_pass(side, pass).filter(is_of_round).count() as u64;
        self.session.plan.sides.present().map(|(side, _)| of_side(side)).sum()
    }
}

/// The notice about cases that are not measured any more.
fn no_further((reason, number): (&String, &usize)) -> String {
    format!("{} not measured further: {reason}.", plural(*number, "case"))
}
