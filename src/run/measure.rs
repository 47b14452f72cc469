//! Measures a plan: opens the store of noise, prepares the sides, runs the rounds and compares.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use vllm_verdict::Input;
use vllm_verdict::noise::{AaRun, MeasuredOn, Noise};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Pass, Phase, Strategy};
use vllm_verdict::v1::{CaseFacts, Comparison, Conduct, Found, Subject};

use crate::VERSION;
use crate::exit::Classify;
use crate::plan::concurrency_search::Summary;
use crate::plan::config::Config;
use crate::plan::suite::data_set_file::DataSetFiles;
use crate::plan::target::Target;
use crate::plan::{Plan, SidePlan};
use crate::run::build_fetch::BuildFetch;
use crate::run::container_options::ContainerLimits;
use crate::run::cost::Costs;
use crate::run::journal::Journal;
use crate::run::launch::Launch;
use crate::run::progress::Progress;
use crate::run::recorded::Recorded;
use crate::run::run_state::{HeadFetch, RunState};
use crate::run::session::{self, Limits, Session};
use crate::run::side_run::SideRun;
use crate::run::time_spent::Times;
use crate::run::{collect, interim_analysis, mounted_data_sets, notices, rounds, run_folder, search_run, slices};
use crate::system::output::OutputFolder;
use crate::system::process::Processes;
use crate::system::shell::Shell;
use crate::system::store::Store;
use crate::system::{docker, host, noise_store, results_folder};

/// What the person can do about noise that could not be stored.
const NOT_STORED: &str =
    "the report is complete, but the noise of this A/A run is not in the store (--resume with the same flags adds it)";

/// What a run has measured.
pub struct Measured {
    pub comparison: Comparison,
    /// Why the noise of an A/A run is not in the store. `--resume` adds it.
    pub not_stored: Option<anyhow::Error>,
}

/// The inputs of a measurement.
pub struct Measure<'a> {
    pub plan: &'a Plan,
    pub config: &'a Config,
    pub data_sets: &'a DataSetFiles,
    pub limits: Limits,
    /// How long to wait for an image or a wheel that is missing.
    pub wait: Duration,
    /// Whether a store that cannot be read is an error in every run; else only in an A/A run, which writes to it.
    pub is_store_required: bool,
    /// The command that repeats the run, for the report.
    pub reproduce: String,
    pub out: &'a OutputFolder,
    /// Random name of this run, for its containers.
    pub id: String,
    pub processes: &'a Processes,
    pub shell: &'a Shell,
}

impl Measure<'_> {
    /// Waits for the builds, runs the plan and compares.
    pub async fn run(&self, journal: &mut Journal) -> Result<Measured> {
        let Self { plan, config, out, shell, .. } = *self;
        // A base that cannot be read is known before anything is measured.
        let recorded = plan.recorded_base.as_deref().map(Recorded::read).transpose()?;
        let (store, noise) = self.noise(journal).await?;
        let progress = Progress::new(plan.event.provider, shell.terminal, shell.sink.clone());
        let session = Session {
            plan,
            output: out,
            processes: self.processes,
            progress: &progress,
            limits: self.limits,
            environment: &shell.environment,
            verdict: &config.verdict,
            noise: &noise,
            begun: Instant::now(),
        };
        let fetch = BuildFetch { out, device: plan.device.name, config, wait: self.wait, shell };
        let mut state = self.state(journal, &fetch).await?;
        let ran = rounds::run(&session, &mut state, journal).await;
        progress.end();
        let mut conduct = ran?;
        self.recall_versions(&mut state, journal);
        let started = journal.begun().map_or_else(session::now, str::to_owned);
        notices::add(&mut conduct, &session, journal, recorded.as_ref());
        conduct.searches = search_run::summaries(plan, out).into_iter().map(search_result).collect();
        conduct.slices = slices::of_servers(plan, journal);
        let subject = self.subject(&state, recorded.as_ref(), started, &conduct);
        let input = self.input(subject, recorded, journal, &noise)?;
        let not_stored = match &store {
            Some(store) if is_aa(plan) && conduct.held.is_none() => {
                self.store_noise(store, &input, journal).await.err().map(|error| error.context(NOT_STORED))
            }
            _ => None,
        };
        let comparison = vllm_verdict::conducted(input, conduct, collect::screen(plan, out, journal)?);
        Ok(Measured { comparison, not_stored })
    }

    /// Adds the noise of an A/A run to the store.
    async fn store_noise(&self, store: &Store, input: &Input, journal: &Journal) -> Result<()> {
        match AaRun::of(&input.subject, &input.cases, &input.base, &input.head) {
            Ok(aa_run) => {
                let key = noise_store::append(store, &AaRun { run: journal.run_id(), ..aa_run }).await?;
                self.shell.say(&format!("A/A run: added its noise to `{}` as `{key}`", store.place()));
            }
            // The report says what was not measured.
            Err(error) => self.shell.say(&format!("A/A run: nothing is added to `{}`: {error:#}", store.place())),
        }
        Ok(())
    }

    /// The versions that servers reported before this run was interrupted, for sides of which nothing was measured again.
    fn recall_versions(&self, state: &mut RunState<'_>, journal: &Journal) {
        let sides = [(Side::Base, state.base.as_mut()), (Side::Head, Some(&mut state.head))];
        for (side, run) in sides {
            let Some(run) = run.filter(|run| run.facts.vllm_version.is_none()) else { continue };
            let screen = Pass { phase: Phase::Screen, pair: 1 };
            let passes = std::iter::once(screen).chain(collect::passes(journal, side)).collect::<Vec<_>>();
            let version = |pass: &Pass| collect::fingerprint(&self.out.pass(side, *pass))?.vllm_version;
            run.facts.vllm_version = passes.iter().rev().find_map(version).map(Into::into);
        }
    }

    /// The store, where there is one, and its noise of this device. Only an A/A run needs it: a store from the config may be
    /// out of reach, as for a pull request, whose run has no credentials.
    async fn noise(&self, journal: &Journal) -> Result<(Option<Store>, Noise)> {
        let Some(place) = &self.config.store else { return Ok(Default::default()) };
        let read = async {
            let store = Store::open(place, &self.shell.environment)?;
            let device = MeasuredOn::new(&self.plan.device, self.is_simulated());
            // A resumed run is not compared with its own noise, which it may have added before.
            let known = noise_store::read(&store, &device, journal.run_id().as_deref()).await?;
            known.left_out.iter().for_each(|why| self.shell.say(why));
            Ok((Some(store), known.noise))
        };
        match read.await {
            Err(error) if !is_aa(self.plan) && !self.is_store_required => {
                self.shell.say(&format!("continuing without the noise of A/A runs: {error:#}"));
                Ok(Default::default())
            }
            read => read,
        }
    }

    /// Whether every side is the simulated vLLM.
    fn is_simulated(&self) -> bool {
        self.plan.sides.present().all(|(_, side)| matches!(side.target, Target::Sim(_)))
    }

    /// The sides with their builds. Of two builds, head's is fetched while base warms up.
    async fn state<'f>(&self, journal: &Journal, fetch: &'f BuildFetch<'_>) -> Result<RunState<'f>>
    where
        Self: 'f,
    {
        let plan = self.plan;
        if plan.sides.has_image() {
            docker::remove_leftovers(&run_folder::label(self.out)?, &self.shell.environment).await.world()?;
        }
        let planned = plan.sides.head.as_ref().context("the plan has no head").mistake()?;
        let (mut base, mut head) = (None, self.side(planned)?);
        if let Some(planned) = &plan.sides.base {
            let mut side = self.side(planned)?;
            side.know(fetch.facts(Side::Base, planned.clone()).await?);
            base = Some(side);
        }
        let head_fetched = fetch.facts(Side::Head, planned.clone());
        let head_fetch = match plan.sides.builds().len() {
            2 => Some(HeadFetch(Box::pin(head_fetched))),
            _ => {
                head.know(head_fetched.await?);
                None
            }
        };
        let times = Times::open(&self.out.passes());
        let costs = self.costs(journal, &times);
        let (pair_begun, read_files) = Default::default();
        Ok(RunState { base, head, times, costs, pair_begun, read_files, head_fetch })
    }

    fn side(&self, planned: &SidePlan) -> Result<SideRun> {
        let launch = Launch {
            target: planned.target.clone(),
            program: self.shell.program.clone(),
            environment: self.shell.environment.clone(),
            device: self.plan.device.name,
            gpu_type: self.plan.device.gpu_type_lines(),
            run: self.id.clone(),
            labelled_folder: run_folder::label(self.out)?,
            limits: ContainerLimits::of(&self.config.container, host::host().ok().map(|host| host.memory_gib)),
            build: None,
            mounts: mounted_data_sets::options(&self.plan.cases, self.data_sets),
            data_sets: self.data_sets.clone(),
        };
        Ok(SideRun::new(planned.clone(), launch))
    }

    /// Costs of cases and servers, from this run so far or else from the run that was in the folder before.
    fn costs(&self, journal: &Journal, times: &Times) -> Costs {
        let instant = self.plan.sides.present().all(|(_, side)| side.target.is_instant());
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

    fn subject(
        &self,
        state: &RunState<'_>,
        recorded: Option<&Recorded>,
        started: String,
        conduct: &Conduct,
    ) -> Subject {
        let base = match recorded {
            Some(recorded) => Some(recorded.facts.clone()),
            None => state.base.as_ref().map(|side| side.facts.clone()),
        };
        Subject {
            version: VERSION.into(),
            event: Some(self.plan.event.clone()),
            device: Some(self.plan.device.clone()),
            base,
            head: Some(state.head.facts.clone()),
            host: host::host().ok(),
            started: Some(started.into()),
            seconds: Some(conduct.phases.iter().map(|phase| phase.seconds).sum()),
            reproduce: Some(self.reproduce.as_str().into()),
        }
    }

    /// Everything that the comparison is computed from.
    fn input(&self, subject: Subject, recorded: Option<Recorded>, journal: &Journal, noise: &Noise) -> Result<Input> {
        let Self { plan, config, out, .. } = *self;
        Ok(Input {
            subject,
            cases: plan.cases.iter().map(CaseFacts::from).collect(),
            base: match recorded {
                // A run without a result has nothing to compare.
                Some(recorded) => recorded.repetitions(&results_folder::repetitions(out.root()).unwrap_or_default()),
                None => collect::repetitions(plan, out, journal, Side::Base)?,
            },
            head: collect::repetitions(plan, out, journal, Side::Head)?,
            skipped: plan.skipped.clone(),
            planned_pairs: plan.pairs,
            seed: plan.seed,
            verdict: config.verdict.clone(),
            noise: noise.clone(),
            looks: interim_analysis::looks(plan, &config.verdict),
        })
    }
}

fn search_result((side, summary): (Side, Summary)) -> Found {
    Found {
        side,
        test: summary.test_name.into(),
        request_rate: summary.qps.into(),
        ttft_ms: summary.sla_ttft_ms,
        tpot_ms: summary.sla_tpot_ms,
        largest: summary.final_last_pass,
        first_fail: summary.final_first_fail,
    }
}

/// Whether both sides are the same build, started in the same way.
fn is_aa(plan: &Plan) -> bool {
    let same = |base: &SidePlan, head: &SidePlan| base.target == head.target && base.server_args == head.server_args;
    match (&plan.sides.base, &plan.sides.head) {
        (Some(base), Some(head)) => same(base, head) && plan.strategy != Strategy::Single,
        _ => false,
    }
}
