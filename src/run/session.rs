//! Runs a plan: the rounds of its strategy, interleaved passes with a fresh server for each, every finished case in the
//! journal. Passes, servers and cases are in `bench/`.

use crate::run::{collect, cost};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::Result;
use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::metric;
use vllm_verdict::noise::Noise;
use vllm_verdict::repetition::{Outcome, Repetition};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{self, Pass, Phase, Round, Strategy};
use vllm_verdict::v1::{CaseFacts, Comparison, Conduct, Look, SideFacts};

use crate::environment::Environment;
use crate::plan::suite::{Case, Command};
use crate::plan::target::Target;
use crate::plan::{Plan, SidePlan};
use crate::run::cost::Costs;
use crate::run::journal::Journal;
use crate::run::launch::Launch;
use crate::run::progress::Progress;
use crate::run::time_spent::{Spent, Times};
use crate::system::host::outside_load::Seen;
use crate::system::output::OutputFolder;
use crate::system::process::Processes;

/// Limits of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a server may take to answer.
    pub server: Duration,
    /// How long one case may take.
    pub case: Duration,
    /// No further pair begins that would end after this.
    pub budget: Option<Duration>,
    /// Share of the processors that others may take while a repetition is measured; above it, it is repeated.
    pub outside_load: f64,
}

/// One side, ready to start.
#[derive(Debug)]
pub struct SideBench {
    /// What was decided.
    pub plan: SidePlan,
    /// How its commands start.
    pub launch: Launch,
    /// What is learnt of it while it runs.
    pub facts: SideFacts,
    /// Servers that did not start, and how often in a row.
    failed_starts: Vec<(Command, u32)>,
}

impl SideBench {
    /// A side that has not run yet.
    pub fn new(plan: SidePlan, launch: Launch) -> Self {
        Self { plan, launch, facts: SideFacts::default(), failed_starts: Vec::new() }
    }

    pub(super) fn failures(&self, server: &Command) -> u32 {
        self.failed_starts.iter().find(|(command, _)| command == server).map_or(0, |(_, times)| *times)
    }

    pub(super) fn count_start(&mut self, server: &Command, started: bool) {
        let times = if started { 0 } else { self.failures(server) + 1 };
        self.failed_starts.retain(|(command, _)| command != server);
        self.failed_starts.push((server.clone(), times));
    }
}

/// Everything that a run works with.
#[derive(Debug)]
pub struct Bench<'a> {
    /// What to run.
    pub plan: &'a Plan,
    /// Where it goes.
    pub output: &'a OutputFolder,
    /// Base, unless there is none.
    pub base: Option<SideBench>,
    /// Head.
    pub head: SideBench,
    /// Who starts and ends processes.
    pub processes: &'a Processes,
    /// Who tells.
    pub progress: &'a Progress,
    /// How long things may take.
    pub limits: Limits,
    /// For the native client.
    pub environment: &'a Environment,
    /// When a change is called one.
    pub verdict: &'a VerdictConfig,
    /// What A/A runs have shown of the rows' noise.
    pub noise: &'a Noise,
    /// Where time went.
    pub times: Times,
    /// What things cost, as far as it is known.
    pub costs: Costs,
    /// What the pass under way has taken and seen.
    pub under_way: UnderWay,
    /// Files of models that are in memory already.
    pub read: BTreeSet<PathBuf>,
    /// Head's image, where it is still on its way while base warms up.
    pub arriving: Option<Arriving<'a>>,
}

/// Something that is fetched beside other work: what is known of its side when it is here.
pub struct Arriving<'a>(pub Pin<Box<dyn Future<Output = Result<SideFacts>> + 'a>>);

impl fmt::Debug for Arriving<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Arriving")
    }
}

/// What a pass has taken and seen so far.
#[derive(Debug, Default)]
pub struct UnderWay {
    pub(super) spent: Spent,
    pub(super) servers: u32,
    pub(super) cases: u32,
    pub(super) seen: Seen,
    pub(super) watched: f64,
}

/// The serving cases by server, in the order of the plan: cases with equal servers share one. The other kinds have none.
pub(super) fn servers<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Vec<(Option<&'a Command>, Vec<&'a Case>)> {
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

/// How many servers the cases need.
pub(super) fn server_count<'a>(cases: impl IntoIterator<Item = &'a Case>) -> usize {
    servers(cases).iter().filter(|(server, _)| server.is_some()).count()
}

impl Bench<'_> {
    /// Runs what the journal does not have yet, and tells how it went. Failed cases are in the journal, not in the error.
    ///
    /// # Errors
    /// When the output folder cannot be read or written.
    pub async fn run(&mut self, journal: &mut Journal) -> Result<Conduct> {
        let begun = Instant::now();
        let plan = self.plan;
        let all: Vec<String> = plan.cases.iter().map(|case| case.name.clone()).collect();
        let mut conduct = Conduct { strategy: plan.strategy, ..Conduct::default() };
        self.estimate(journal);
        let (mut last, mut left, mut warm) = (None, all.clone(), false);
        while let Some(round) = strategy::next(plan.strategy, plan.pairs, last, left) {
            let ran = self.round(&round, begun, &mut warm, journal).await?;
            let planned = round.pairs.1 + 1 - round.pairs.0;
            if ran < planned {
                let notice = format!(
                    "The budget of {} left out {} of {planned} {} of {} cases.",
                    crate::duration::text(self.limits.budget.unwrap_or_default()),
                    planned - ran,
                    if self.base.is_some() { "pairs" } else { "repetitions" },
                    round.cases.len()
                );
                self.progress.say(&notice);
                conduct.notices.push(notice);
            }
            left = match (plan.strategy, round.phase) {
                (Strategy::Screen, Phase::Screen) => {
                    let suspicious = self.suspicious(journal)?;
                    conduct.screened = all.iter().filter(|case| !suspicious.contains(case)).cloned().collect();
                    let screens = self.times.phases().into_iter().find(|phase| phase.phase == Phase::Screen);
                    let seconds = screens.map_or(0.0, |phase| phase.seconds);
                    self.progress.say(&format!(
                        "the screen of {} cases took {}: {} of them look changed and are repeated in pairs",
                        all.len(),
                        crate::duration::text(Duration::from_secs_f64(seconds)),
                        suspicious.len()
                    ));
                    suspicious
                }
                (Strategy::Sequential, Phase::Pairs) if ran == planned => {
                    let look = self.look(journal, &conduct)?;
                    let undecided: Vec<String> =
                        vllm_verdict::undecided(&look).into_iter().map(str::to_owned).collect();
                    self.progress.say(&format!(
                        "{} of {} cases are undecided after {} pairs",
                        undecided.len(),
                        all.len(),
                        plan.pairs
                    ));
                    undecided
                }
                _ => Vec::new(),
            };
            last = Some(round.phase);
        }
        // With nothing left to run there was no warm-up, and the report names head's image all the same.
        self.arrive().await?;
        conduct.phases = self.times.phases();
        conduct.spent = self.times.sides();
        Ok(conduct)
    }

    /// Says how long the run may take, and by what that is known.
    fn estimate(&self, journal: &Journal) {
        if !journal.entries().is_empty() {
            return;
        }
        let plan = self.plan;
        let sides = plan.sides.present().map(|(side, _)| side);
        let pass: f64 = sides.map(|side| self.costs.pass(side, &plan.cases, server_count(&plan.cases))).sum();
        let time = |passes: u32| crate::duration::text(Duration::from_secs_f64(pass * f64::from(passes)));
        let time = match plan.strategy {
            Strategy::Paired | Strategy::Single => time(plan.pairs),
            Strategy::Screen => format!("{} to {}", time(1), time(plan.pairs + 1)),
            Strategy::Sequential => format!("{} to {}", time(plan.pairs), time(2 * plan.pairs)),
        };
        let (known, all) = (self.costs.known(&plan.cases), plan.cases.len());
        let by = match known {
            0 => "a guess from the suite alone; the first pass will tell more".to_owned(),
            known if known < all => {
                format!("by an earlier run of {known} of the {all} cases and a guess for the others")
            }
            _ => "by an earlier run of these cases".to_owned(),
        };
        self.progress.say(&format!("expected to take {time} after the warm-up: {by}"));
    }

    /// Runs a round, as far as the budget goes, and tells how many of its pairs are done.
    async fn round(&mut self, round: &Round, begun: Instant, warm: &mut bool, journal: &mut Journal) -> Result<u32> {
        let plan = self.plan;
        let cases: Vec<&Case> = plan.cases.iter().filter(|case| round.cases.contains(&case.name)).collect();
        let passes: Vec<_> = round.passes().collect();
        let runs = cases.len() * passes.len() * plan.sides.present().count();
        self.progress.expect_more(runs as u64);
        let (mut done, mut told) = (0, 0);
        for (index, pass) in passes.iter().enumerate() {
            let present = || plan.sides.present().map(|(side, _)| side);
            let is_done = |side, case: &&Case| self.is_done(side, *pass, case, journal);
            let kept = present().map(|side| cases.iter().filter(|case| is_done(side, case)).count()).sum::<usize>();
            self.progress.skip(kept as u64);
            if kept == cases.len() * present().count() {
                done += 1;
                continue;
            }
            if !std::mem::replace(warm, true) {
                self.warm_up(&cases).await?;
            }
            let count = server_count(cases.iter().copied());
            let pair: f64 = present().map(|side| self.costs.pass(side, cases.iter().copied(), count)).sum();
            let left = (passes.len() - index) as u32;
            let fit = cost::fitting(self.limits.budget, begun.elapsed(), pair, left);
            // The first pair of a round always runs: without it the round would say nothing. A second look needs none.
            let fit = if index > 0 || round.phase == Phase::MorePairs { fit } else { fit.max(1) };
            if fit == 0 {
                break;
            }
            let planned = done + fit;
            if fit < left && planned != told {
                told = planned;
                self.progress.say(&format!("the budget lets about {planned} of {} pairs run", passes.len()));
            }
            self.progress.left(Duration::from_secs_f64(pair * f64::from(fit)));
            self.progress.group(&match round.phase {
                Phase::Screen => format!("Screen of {} cases", cases.len()),
                _ => format!("Pair {} of {}", pass.pair, round.pairs.1),
            });
            for side in strategy::order(plan.seed, *pass) {
                self.pass(side, *pass, &cases, journal).await?;
            }
            self.progress.end_group();
            done += 1;
        }
        Ok(done)
    }

    /// Whether a case has run in a pass, and the search after it.
    pub(super) fn is_done(&self, side: Side, pass: Pass, case: &Case, journal: &Journal) -> bool {
        let entry = journal.find(side, pass, &case.name);
        entry.is_some_and(|entry| entry.failed.is_some() || !self.awaits_search(side, pass, case))
    }

    /// Waits for head's image.
    pub(super) async fn arrive(&mut self) -> Result<()> {
        if let Some(arriving) = self.arriving.take() {
            self.head.facts = arriving.0.await?;
        }
        Ok(())
    }

    pub(super) fn side(&mut self, side: Side) -> Option<&mut SideBench> {
        match side {
            Side::Base => self.base.as_mut(),
            Side::Head => Some(&mut self.head),
        }
    }

    /// The cases of which the screen suspects a primary row.
    fn suspicious(&self, journal: &Journal) -> Result<Vec<String>> {
        let Some([base, head]) = collect::screen(self.plan, self.output, journal)? else { return Ok(Vec::new()) };
        let facts: Vec<CaseFacts> = self.plan.cases.iter().map(CaseFacts::from).collect();
        let value = |repetition: &Repetition, case: &str, metric: &str| match repetition.get(case) {
            Some(Outcome::Measured(measurement)) => measurement.metrics.get(metric).copied(),
            _ => None,
        };
        let suspected = |case: &&CaseFacts| {
            let measured = |metric: &str| (value(&base, &case.name, metric), value(&head, &case.name, metric));
            let failed = [&base, &head].iter().any(|side| !matches!(side.get(&case.name), Some(Outcome::Measured(_))));
            failed
                || metric::of(case.kind).filter(|metric| self.verdict.is_primary(&case.name, metric)).any(|metric| {
                    let (base, head) = measured(metric.id);
                    let noise = self.noise.prior(case, metric.id, &facts).prior;
                    let least = self.verdict.min_effect(metric);
                    // A metric that neither side has (TTFT of an embedding test) has no row.
                    (base.is_some() || head.is_some()) && strategy::suspicious(base, head, noise, least)
                })
        };
        Ok(facts.iter().filter(suspected).map(|case| case.name.clone()).collect())
    }

    /// What the pairs so far say.
    fn look(&self, journal: &Journal, conduct: &Conduct) -> Result<Comparison> {
        let input = vllm_verdict::Input {
            subject: vllm_verdict::v1::Subject::default(),
            cases: self.plan.cases.iter().map(CaseFacts::from).collect(),
            base: collect::repetitions(self.plan, self.output, journal, Side::Base)?,
            head: collect::repetitions(self.plan, self.output, journal, Side::Head)?,
            skipped: Vec::new(),
            planned_pairs: self.plan.pairs,
            seed: self.plan.seed,
            verdict: self.verdict.clone(),
            noise: self.noise.clone(),
            looks: looks(self.plan, self.verdict),
        };
        Ok(vllm_verdict::conducted(input, conduct.clone(), None))
    }
}

/// When the pairs of a plan are looked at; once, at all of them, unless it is sequential.
pub fn looks(plan: &Plan, verdict: &VerdictConfig) -> Vec<Look> {
    if plan.strategy != Strategy::Sequential {
        return Vec::new();
    }
    let [first, second] = Look::sequential(verdict.fdr);
    vec![Look { pairs: plan.pairs, ..first }, Look { pairs: 2 * plan.pairs, ..second }]
}

/// Whether servers of a target answer at once: simulated, or running already.
pub fn is_instant(target: &Target) -> bool {
    matches!(target, Target::Sim(_) | Target::Remote(_))
}

#[expect(clippy::disallowed_methods, reason = "the journal tells when things ran")]
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
