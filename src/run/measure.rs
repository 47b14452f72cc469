//! The middle of a run: images, sides, passes, and what they say.

use crate::run::search_run;
use std::time::Duration;

use anyhow::{Context, Result};
use indexmap::IndexMap;
use vllm_verdict::Input;
use vllm_verdict::noise::{AaRun, Noise};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Phase, Strategy};
use vllm_verdict::v1::{CaseFacts, Comparison, Conduct, DeviceName, Found, SideFacts, Subject};

use super::recorded::Recorded;
use super::run_folder;
use crate::command::plan_command;
use crate::command::planning_flags::Planning;
use crate::command::run_command::Timeouts;
use crate::exit::Classify;
use crate::plan::concurrency_search::Summary;
use crate::plan::config::Config;
use crate::plan::target::Target;
use crate::plan::{Fallback, Plan, SidePlan};
use crate::run::cost::Costs;
use crate::run::journal::Journal;
use crate::run::launch::Launch;
use crate::run::progress::Progress;
use crate::run::session::{self, Arriving, Bench, Limits, SideBench};
use crate::run::time_spent::Times;
use crate::run::{collect, fingerprint};
use crate::system::output::OutputFolder;
use crate::system::process::Processes;
use crate::system::registry::{self, Registry};
use crate::system::shell::Shell;
use crate::system::store::Store;
use crate::system::{docker, git, host, noise_store};
use crate::{VERSION, duration};

/// How often a registry is asked for an image that is not there yet.
const POLL: Duration = Duration::from_secs(15);

/// What measuring needs.
pub struct Measure<'a> {
    pub planning: &'a Planning,
    pub timeouts: &'a Timeouts,
    /// No further pair begins that would end after this.
    pub budget: Option<Duration>,
    pub plan: &'a Plan,
    pub config: &'a Config,
    pub out: &'a OutputFolder,
    pub processes: &'a Processes,
    pub shell: &'a Shell,
}

impl Measure<'_> {
    /// Waits for the images, runs the plan and compares.
    pub async fn run(&self, journal: &mut Journal) -> Result<Comparison> {
        let Self { planning, timeouts, budget, plan, config, out, processes, shell } = *self;
        let (store, noise) = self.noise().await?;
        let run = run_folder::run_id(out)?;
        let images = plan_command::images(plan);
        if !images.is_empty() {
            docker::remove_leftovers(&run).await.world()?;
        }
        let planned = plan.sides.head.as_ref().context("the plan has no head").mistake()?;
        let (mut base, mut head) =
            (plan.sides.base.as_ref().map(|base| self.side(base, &run)), self.side(planned, &run));
        if let (Some(bench), Some(base)) = (&mut base, &plan.sides.base) {
            bench.facts = self.facts(Side::Base, base).await?;
        }
        // Two images: the second may come while the first warms up.
        let arriving = match images.len() {
            2 => Some(Arriving(Box::pin(self.facts(Side::Head, planned)))),
            _ => {
                head.facts = self.facts(Side::Head, planned).await?;
                None
            }
        };
        let started = journal.entries().first().map_or_else(session::now, |entry| entry.started.clone());
        let progress = Progress::new(plan.event.provider, shell.terminal);
        let times = Times::open(&out.passes());
        let mut bench = Bench {
            plan,
            output: out,
            costs: self.costs(journal, &times),
            base,
            head,
            processes,
            progress: &progress,
            limits: Limits {
                server: timeouts.server_timeout,
                case: timeouts.case_timeout,
                budget,
                outside_load: config.environment.max_outside_load,
            },
            environment: &shell.environment,
            verdict: &config.verdict,
            noise: &noise,
            times,
            under_way: Default::default(),
            read: Default::default(),
            arriving,
        };
        let ran = bench.run(journal).await;
        progress.end();
        let mut conduct = ran?;
        let recorded = plan.recorded_base.as_deref().map(Recorded::read).transpose()?;
        conduct.notices.splice(0..0, plan.notices.iter().cloned().chain(plan.fallback.iter().map(fallen_back)));
        conduct.notices.extend(repeated(journal));
        conduct.held = self.held(journal, recorded.as_ref());
        conduct.searches = search_run::found(plan, out).into_iter().map(found).collect();
        let seconds = conduct.phases.iter().map(|phase| phase.seconds).sum();
        let input = Input {
            subject: Subject {
                version: VERSION.to_owned(),
                event: Some(plan.event.clone()),
                device: Some(plan.device.clone()),
                base: match &recorded {
                    Some(recorded) => Some(recorded.facts.clone()),
                    None => bench.base.as_ref().map(|side| side.facts.clone()),
                },
                head: Some(bench.head.facts.clone()),
                host: host::host().ok(),
                started: Some(started),
                seconds: Some(seconds),
                reproduce: Some(plan.reproduce(&config.suite, planning.only.as_deref())),
            },
            cases: plan.cases.iter().map(CaseFacts::from).collect(),
            base: match recorded {
                Some(recorded) => recorded.repetitions,
                None => collect::repetitions(plan, out, journal, Side::Base)?,
            },
            head: collect::repetitions(plan, out, journal, Side::Head)?,
            skipped: plan.skipped.clone(),
            planned_pairs: if plan.strategy == Strategy::Sequential { 2 * plan.pairs } else { plan.pairs },
            seed: plan.seed,
            verdict: config.verdict.clone(),
            noise: noise.clone(),
            looks: session::looks(plan, &config.verdict),
        };
        if let (true, Some(store)) = (is_aa(plan) && conduct.held.is_none(), &store) {
            let key = noise_store::append(
                store,
                &AaRun::of(&input.subject, &input.cases, &input.base, &input.head).mistake()?,
            )
            .await?;
            shell.say(&format!("an A/A run: its noise is kept in `{}` as `{key}`", store.place()));
        }
        tell_times(&conduct, shell);
        Ok(vllm_verdict::conducted(input, conduct, collect::screen(plan, out, journal)?))
    }

    /// The store, where there is one, and the noise that it knows. Only an A/A run needs it: a store that is merely
    /// configured may be out of reach, as for a pull request, whose run has no credentials.
    async fn noise(&self) -> Result<(Option<Store>, Noise)> {
        let Some(place) = &self.config.store else { return Ok(Default::default()) };
        let read = async {
            let store = Store::open(place, &self.shell.environment)?;
            let noise = noise_store::read(&store, &self.plan.device).await?;
            Ok((Some(store), noise))
        };
        match read.await {
            Err(error) if !is_aa(self.plan) && self.planning.store.is_none() => {
                self.shell.say(&format!("without the noise of A/A runs: {error:#}"));
                Ok(Default::default())
            }
            read => read,
        }
    }

    fn side(&self, planned: &SidePlan, run: &str) -> SideBench {
        let launch = Launch {
            target: planned.target.clone(),
            program: self.shell.program.clone(),
            environment: self.shell.environment.clone(),
            device: self.plan.device.name,
            gpu_type: self.plan.device.gpu_type_lines(),
            run: run.to_owned(),
        };
        SideBench::new(planned.clone(), launch)
    }

    /// What is known of a side before it runs. Its image is here then.
    async fn facts(&self, side: Side, planned: &SidePlan) -> Result<SideFacts> {
        let mut facts = SideFacts {
            target: planned.target.to_string(),
            commit: planned.commit.clone(),
            server_args: planned.server_args.clone(),
            ..SideFacts::default()
        };
        if let Some(commit) = &planned.commit {
            facts.dated = git::date(commit).await;
        }
        if let Target::Image(reference) = &planned.target {
            let wait = self.timeouts.wait.unwrap_or(self.config.images.wait);
            fetch_image(reference, self.plan.device.name, wait, self.shell).await?;
            let digest = docker::digest(reference).await.world()?;
            run_folder::check_digest(self.out, side, reference, &digest)?;
            facts.image_digest = Some(digest);
            if facts.dated.is_none() {
                facts.dated = docker::built(reference).await;
            }
        }
        Ok(facts)
    }

    /// What cases and servers cost, by this run so far or else by the one that was in the folder before.
    fn costs(&self, journal: &Journal, times: &Times) -> Costs {
        let instant = self.plan.sides.present().all(|(_, side)| session::is_instant(&side.target));
        if !journal.entries().is_empty() {
            return Costs::new(journal.entries(), times.passes(), instant);
        }
        let before = run_folder::latest_aside(self.out.root()).map(|path| OutputFolder::at(&path));
        let before =
            before.and_then(|before| Some((Journal::read(&before.journal()).ok()?, Times::open(&before.passes()))));
        match before {
            Some((entries, times)) => Costs::new(&entries, times.passes(), instant),
            None => Costs::new(&[], &[], instant),
        }
    }

    /// Why nothing may be called a change: nobody wants it, or the repetitions were measured in different environments.
    fn held(&self, journal: &Journal, recorded: Option<&Recorded>) -> Option<String> {
        let (plan, out) = (self.plan, self.out);
        let mut found: Vec<_> = recorded.into_iter().flat_map(Recorded::fingerprints).collect();
        for (side, _) in plan.sides.present() {
            for pass in collect::passes(journal, side) {
                let fingerprint = collect::fingerprint(&out.pass(side, pass));
                found.extend(fingerprint.map(|fingerprint| (side, pass.pair, fingerprint)));
            }
        }
        match fingerprint::mismatch(&found) {
            Some(mismatch) => Some(mismatch),
            None if recorded.is_some() => {
                Some("base was measured at another time than head, not in pairs with it".to_owned())
            }
            None if plan.strategy == Strategy::Single && plan.sides.base.is_some() => {
                Some("the strategy is `single`, which calls no change".to_owned())
            }
            None => None,
        }
    }
}

fn found((side, summary): (Side, Summary)) -> Found {
    Found {
        side,
        test: summary.test_name,
        request_rate: summary.qps,
        ttft_ms: summary.sla_ttft_ms,
        tpot_ms: summary.sla_tpot_ms,
        largest: summary.final_last_pass,
        first_fail: summary.final_first_fail,
    }
}

/// Another base than was wanted, for the headline.
fn fallen_back(fallback: &Fallback) -> String {
    let Fallback { wanted, used, behind } = fallback;
    let commits = if *behind == 1 { "commit" } else { "commits" };
    format!("Base is {used}, {behind} {commits} before {wanted}, whose image is missing.")
}

/// Whether both sides are the same build, started in the same way.
fn is_aa(plan: &Plan) -> bool {
    let same = |base: &SidePlan, head: &SidePlan| base.target == head.target && base.server_args == head.server_args;
    match (&plan.sides.base, &plan.sides.head) {
        (Some(base), Some(head)) => same(base, head) && plan.strategy != Strategy::Single,
        _ => false,
    }
}

/// Which repetitions were repeated, and why; where they are many, how many.
fn repeated(journal: &Journal) -> Option<String> {
    let mut passes: IndexMap<String, usize> = IndexMap::new();
    for void in journal.voids() {
        let phase =
            if void.phase == Phase::Screen { "the screen".to_owned() } else { format!("{:02}", void.repetition) };
        *passes.entry(format!("{} {phase}", void.side.as_str())).or_default() += 1;
    }
    let why = &journal.voids().last()?.void;
    let named = |(pass, times): (&String, &usize)| format!("{pass} {}", if *times == 1 { "once" } else { "twice" });
    Some(match passes.len() {
        1..=3 => format!("Repeated: {}, because {why}.", passes.iter().map(named).collect::<Vec<_>>().join(", ")),
        many => format!("{many} repetitions were repeated, the last because {why}."),
    })
}

/// Prints where the time went.
fn tell_times(conduct: &Conduct, shell: &Shell) {
    for sentence in crate::report::ran::times(conduct) {
        shell.say(&sentence);
    }
}

/// Pulls an image that the engine does not have; waits until it is there.
async fn fetch_image(reference: &str, device: DeviceName, wait: Duration, shell: &Shell) -> Result<()> {
    if docker::is_here(reference).await {
        return Ok(());
    }
    shell.say(&format!("pulling {reference}"));
    // The engine may know credentials that we do not; only what it cannot have is waited for.
    if docker::pull(reference).await.is_ok() {
        return Ok(());
    }
    let registry = Registry::new(registry::PAUSE, registry::architecture(device), &shell.environment)?;
    registry::wait(&registry, &[reference.to_owned()], wait, POLL, |missing, waited| {
        shell.say(&format!(
            "waiting for {} since {}, at most {}",
            missing.join(", "),
            duration::text(waited),
            duration::text(wait)
        ));
    })
    .await?;
    shell.say(&format!("pulling {reference}"));
    docker::pull(reference).await.world()
}
