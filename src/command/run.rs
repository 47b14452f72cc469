//! `vllm-perf run`: plan, wait for the images, benchmark, compare, write the output folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};

use super::prepare::{self, Prepared};
use super::{Shell, plan as plan_command};
use crate::bench::{self, Bench, Limits, SideBench};
use crate::cli::{Format, RunArgs};
use crate::compare::{self, CaseFacts, Comparison, Subject};
use crate::exit::{Classify, Exit};
use crate::journal::Journal;
use crate::output::{self, OutputFolder};
use crate::plan::{Plan, Side, SidePlan};
use crate::progress::Progress;
use crate::publish::actions;
use crate::registry::{self, Registry};
use crate::report::{Links, html, markdown, terminal, upstream};
use crate::suite::Case;
use crate::target::launch::Launch;
use crate::target::process::Processes;
use crate::target::{Target, image};
use crate::{VERSION, duration, event, host, publish, result};

/// How often a registry is asked for an image that is not there yet.
const POLL: Duration = Duration::from_secs(15);

/// Runs the benchmark. A regression is not a failure here: `verdict` tells.
pub(super) async fn run(arguments: &RunArgs, shell: &Shell) -> Result<Exit> {
    let prepared = prepare::prepare(&arguments.planning, !arguments.dry_run, shell).await?;
    if arguments.dry_run || shell.environment.get("DRY_RUN") == Some("1") {
        plan_command::print(&prepared.plan, Format::Text, shell)?;
        return Ok(Exit::Done);
    }
    if !prepared.plan.trigger.run {
        return skip(&prepared, shell);
    }
    let out = OutputFolder::at(&arguments.planning.out);
    let (plan, mut journal, _lock) = open(&out, prepared.plan, arguments.resume, shell)?;
    check_hub_token(&plan, shell).mistake()?;

    announce(&prepared.ci, &plan, shell).await;
    let processes = Processes::new(shell.program.clone());
    let interrupted = interrupt();
    tokio::pin!(interrupted);
    let work = measure(arguments, &plan, &prepared.config, &out, &processes, &mut journal, shell);
    let comparison = tokio::select! {
        comparison = work => comparison,
        signal = &mut interrupted => {
            processes.end_all().await;
            let total = plan.cases.len() * plan.pairs as usize * sides_of(&plan).len();
            shell.say(&format!(
                "interrupted: {} of {total} case runs are kept in `{}`; `vllm-perf run --resume` with the same flags goes on",
                journal.entries().len(),
                out.root().display()
            ));
            return Ok(Exit::Signal(signal));
        }
    };
    // Whatever went wrong, nothing of ours stays behind.
    processes.end_all().await;
    let comparison = comparison?;
    conclude(&prepared.ci, &plan, &comparison, &out, &journal, shell)
}

/// Says on the comment of an earlier run that a new one is under way. That this fails is no reason not to measure.
async fn announce(ci: &event::CiRun, plan: &Plan, shell: &Shell) {
    let event = &plan.event;
    let (Some(repository), Some(number), false) = (&event.repository, event.pull_request, event.fork) else { return };
    let told = async {
        let Some(github) = prepare::github(ci, &shell.environment)? else { return Ok(()) };
        let id = publish::comment_id(ci, plan.device.name.as_str());
        let Some(existing) = github.existing_comment(repository, number, &id).await? else { return Ok(()) };
        let text = markdown::under_way(&existing, ci.run_url.as_deref());
        github.sticky_comment(repository, number, &id, &text).await.map(|_| ())
    };
    let told: Result<()> = told.await;
    if let Err(error) = told {
        shell.say(&format!("cannot say on the pull request that a run is under way: {error:#}"));
    }
}

/// Says why nothing runs, where CI shows it.
fn skip(prepared: &Prepared, shell: &Shell) -> Result<Exit> {
    let text = markdown::skipped(&prepared.plan.trigger.reason);
    shell.print(&text);
    if let Some(path) = &prepared.ci.step_summary {
        actions::append_summary(path, &text)?;
    }
    if let Some(path) = &prepared.ci.output {
        actions::append_outputs(path, &[("ran", "false")])?;
    }
    Ok(Exit::Done)
}

/// Opens the output folder: a new one, or what an interrupted run left. An earlier finished run is moved aside, never lost.
fn open(out: &OutputFolder, plan: Plan, resume: bool, shell: &Shell) -> Result<(Plan, Journal, File)> {
    let root = out.root().display();
    if resume {
        let text = std::fs::read_to_string(out.plan())
            .with_context(|| format!("nothing to resume: cannot read `{}`", out.plan().display()))
            .mistake()?;
        let before: Plan =
            serde_json::from_str(&text).with_context(|| format!("cannot read `{}`", out.plan().display())).mistake()?;
        if (&before.cases, &before.sides, before.pairs, before.seed)
            != (&plan.cases, &plan.sides, plan.pairs, plan.seed)
        {
            return Err(anyhow!("`{root}` holds a run of another plan: resume it with the flags that it began with"))
                .mistake();
        }
        let lock = lock(out)?;
        return Ok((before, Journal::resume(&out.journal())?, lock));
    }
    if out.journal().exists() && !out.comparison().exists() {
        return Err(anyhow!("`{root}` holds a run that did not finish: go on with --resume, or give another --out"))
            .mistake();
    }
    if out.journal().exists() {
        let aside = aside(out.root());
        std::fs::rename(out.root(), &aside).with_context(|| format!("cannot move `{root}` aside")).world()?;
        shell.say(&format!("the run that was in `{root}` is now in `{}`", aside.display()));
    }
    std::fs::create_dir_all(out.root()).with_context(|| format!("cannot make the folder `{root}`")).world()?;
    let lock = lock(out)?;
    let text = serde_json::to_string_pretty(&plan).context("cannot write the plan")?;
    output::write(&out.plan(), text.as_bytes()).world()?;
    let journal = Journal::create(&out.journal())?;
    Ok((plan, journal, lock))
}

/// The first name beside `root` that is free.
fn aside(root: &Path) -> PathBuf {
    let name = root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    (1_u32..)
        .map(|number| root.with_file_name(format!("{name}.{number}")))
        .find(|path| !path.exists())
        .unwrap_or_default()
}

fn lock(out: &OutputFolder) -> Result<File> {
    let root = out.root().display();
    let folder = File::open(out.root()).with_context(|| format!("cannot open `{root}`")).world()?;
    folder
        .try_lock()
        .map_err(|_| anyhow!("another vllm-perf is at work in `{root}`: wait for it, or give another --out"))
        .mistake()?;
    Ok(folder)
}

/// Models come from the hub with a token, unless they are folders, the hub is not asked, or nothing real serves.
fn check_hub_token(plan: &Plan, shell: &Shell) -> Result<()> {
    let environment = &shell.environment;
    let token = environment.get("HF_TOKEN");
    if token.is_some_and(|token| !token.starts_with("hf_")) {
        return Err(anyhow!("HF_TOKEN is no Hugging Face token: it must begin with `hf_`"));
    }
    let loads = sides_of(plan).iter().any(|(_, side)| matches!(side.target, Target::Image(_) | Target::Local(_)));
    let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().any(|name| environment.get(name) == Some("1"));
    let from_hub = plan.cases.iter().find(|case| !Path::new(&case.model).is_dir());
    match from_hub {
        Some(case) if loads && !offline && token.is_none() => Err(anyhow!(
            "`{}` needs the model `{}` from the Hugging Face hub: set HF_TOKEN, or HF_HUB_OFFLINE=1 where it is cached",
            case.name,
            case.model
        )),
        _ => Ok(()),
    }
}

fn sides_of(plan: &Plan) -> Vec<(Side, &SidePlan)> {
    [(Side::Base, &plan.sides.base), (Side::Head, &plan.sides.head)]
        .into_iter()
        .filter_map(|(side, planned)| planned.as_ref().map(|planned| (side, planned)))
        .collect()
}

/// Resolves when CI or a person wants an end, to the number of the signal.
async fn interrupt() -> u8 {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut stream) => {
            stream.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => 2,
        () = wait(SignalKind::terminate()) => 15,
        () = wait(SignalKind::hangup()) => 1,
    }
}

/// Waits for the images, runs the plan and compares.
async fn measure(
    arguments: &RunArgs,
    plan: &Plan,
    config: &crate::config::Config,
    out: &OutputFolder,
    processes: &Processes,
    journal: &mut Journal,
    shell: &Shell,
) -> Result<Comparison> {
    let run = run_id(out)?;
    let images = plan_command::images(plan);
    if !images.is_empty() {
        image::remove_leftovers(&run).await.world()?;
        fetch_images(&images, config.images.wait, shell).await?;
    }
    let side = async |planned: &SidePlan| -> Result<SideBench> {
        let launch = Launch {
            target: planned.target.clone(),
            program: shell.program.clone(),
            environment: shell.environment.clone(),
            device: plan.device.name,
            gpu_type: plan.device.gpu_type().to_owned(),
            run: run.clone(),
        };
        let mut bench = SideBench::new(planned.clone(), launch);
        if let Target::Image(reference) = &planned.target {
            bench.facts.image_digest = Some(image::digest(reference).await.world()?);
        }
        Ok(bench)
    };
    let base = match &plan.sides.base {
        Some(base) => Some(side(base).await?),
        None => None,
    };
    let head = side(plan.sides.head.as_ref().context("the plan has no head").mistake()?).await?;
    let started = journal.entries().first().map_or_else(bench::now, |entry| entry.started.clone());
    let total = plan.cases.len() as u64 * u64::from(plan.pairs) * sides_of(plan).len() as u64;
    let progress = Progress::new(total, plan.event.provider, shell.terminal);
    for _ in journal.entries() {
        progress.step();
    }
    let limits =
        Limits { server: arguments.server_timeout, case: arguments.case_timeout, budget: arguments.planning.budget };
    let begun = std::time::Instant::now();
    let mut bench = Bench {
        plan,
        output: out,
        base,
        head,
        processes,
        progress: &progress,
        limits,
        environment: &shell.environment,
    };
    let ran = bench.run(journal).await;
    progress.end();
    ran?;
    let subject = Subject {
        version: VERSION.to_owned(),
        event: Some(plan.event.clone()),
        device: Some(plan.device.clone()),
        base: bench.base.as_ref().map(|side| side.facts.clone()),
        head: Some(bench.head.facts.clone()),
        host: host::host().ok(),
        started: Some(started),
        seconds: Some(begun.elapsed().as_secs_f64()),
        reproduce: Some(reproduce(plan, &config.suite, arguments.planning.only.as_deref())),
    };
    Ok(compare::compare(compare::Input {
        subject,
        cases: plan.cases.iter().map(facts).collect(),
        base: bench::collect(plan, out, journal, Side::Base)?,
        head: bench::collect(plan, out, journal, Side::Head)?,
        skipped: plan.skipped.clone(),
        planned_pairs: plan.pairs,
        seed: plan.seed,
        verdict: config.verdict.clone(),
    }))
}

/// What a report says of a case.
fn facts(case: &Case) -> CaseFacts {
    CaseFacts {
        name: case.name.clone(),
        kind: case.kind,
        test: case.test.clone(),
        model: case.model.clone(),
        request_rate: case.request_rate.clone(),
        max_concurrency: case.max_concurrency,
        measured_by: case.measured_by,
        problems: Vec::new(),
    }
}

/// Identifies the runs of one output folder: what a killed one left is found by it.
fn run_id(out: &OutputFolder) -> Result<String> {
    let path = out.root().canonicalize().with_context(|| format!("cannot open `{}`", out.root().display())).world()?;
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    Ok(hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

/// Waits for the images that the engine does not have, and pulls them.
async fn fetch_images(images: &[String], wait: Duration, shell: &Shell) -> Result<()> {
    let mut missing = Vec::new();
    for reference in images {
        if !image::is_here(reference).await {
            missing.push(reference.clone());
        }
    }
    let registry = Registry::new(registry::PAUSE)?;
    registry::wait(&registry, &missing, wait, POLL, |missing, waited| {
        shell.say(&format!(
            "waiting for {} since {}, at most {}",
            missing.join(", "),
            duration::text(waited),
            duration::text(wait)
        ));
    })
    .await?;
    for reference in &missing {
        shell.say(&format!("pulling {reference}"));
        image::pull(reference).await.world()?;
    }
    Ok(())
}

/// One command that measures the same again, on a machine that has the targets.
fn reproduce(plan: &Plan, suite: &Path, only: Option<&str>) -> String {
    let mut words: Vec<String> = ["vllm-perf", "run"].map(String::from).to_vec();
    for (side, planned) in sides_of(plan) {
        words.extend([format!("--{}", side.as_str()), planned.target.to_string()]);
        if !planned.server_args.is_empty() {
            words.push(format!("--{}-server-args={}", side.as_str(), shell_words::join(&planned.server_args)));
        }
    }
    if plan.sides.base.is_none() {
        words.extend(["--base".to_owned(), "none".to_owned()]);
    }
    words.extend(["--provider".to_owned(), "local".to_owned(), "--device".to_owned(), plan.device.name.to_string()]);
    words.extend(["--suite".to_owned(), suite.display().to_string()]);
    if let Some(only) = only {
        words.extend(["--only".to_owned(), only.to_owned()]);
    }
    words.extend(["--pairs".to_owned(), plan.pairs.to_string(), "--seed".to_owned(), plan.seed.to_string()]);
    shell_words::join(words)
}

/// Writes what people and programs read, prints the table, and says by the exit whether everything was measured.
fn conclude(
    ci: &event::CiRun,
    plan: &Plan,
    comparison: &Comparison,
    out: &OutputFolder,
    journal: &Journal,
    shell: &Shell,
) -> Result<Exit> {
    let comment = write_reports(ci, comparison, out, shell)?;
    write_results(plan, out, journal)?;
    shell.print(&terminal::table(comparison, shell.width));
    if plan.event.provider == event::Provider::Local {
        shell.print(&format!(
            "The comment that `vllm-perf publish` would post (`{}`):\n\n{comment}",
            out.file("comment.md").display()
        ));
    }
    if let Some(path) = &ci.output {
        let verdict = comparison.verdict.as_str();
        let device = plan.device.name.as_str();
        let artifact = format!("vllm-perf-{device}-{}", publish::comment_id(ci, device));
        actions::append_outputs(
            path,
            &[
                ("ran", "true"),
                ("verdict", verdict),
                ("regressed", &comparison.counts.regressed.to_string()),
                ("improved", &comparison.counts.improved.to_string()),
                (
                    "report-dir",
                    &out.root().canonicalize().unwrap_or_else(|_| out.root().to_owned()).display().to_string(),
                ),
                ("artifact-name", &artifact),
            ],
        )?;
    }
    let failed = journal.entries().iter().filter(|entry| entry.failed.is_some()).count();
    if failed > 0 {
        shell.say(&format!("{failed} of {} case runs gave no numbers; the others are kept", journal.entries().len()));
        return Ok(Exit::Unmeasured);
    }
    Ok(Exit::Done)
}

/// Writes the comparison and its renderings; returns the comment.
pub(super) fn write_reports(
    ci: &event::CiRun,
    comparison: &Comparison,
    out: &OutputFolder,
    shell: &Shell,
) -> Result<String> {
    let repository = comparison.subject.event.as_ref().and_then(|event| event.repository.clone());
    let links = Links { run: ci.run_url.clone(), artifact: None, server: ci.server_url.clone(), repository };
    let device = comparison.subject.device.as_ref().map(|device| device.name.as_str()).unwrap_or_default();
    let comment = markdown::comment(comparison, &links, &publish::comment_id(ci, device), None);
    let json = serde_json::to_string_pretty(comparison).context("cannot write the comparison")?;
    for (name, text) in [
        ("comparison.json", json.as_str()),
        ("comment.md", &comment),
        ("summary.md", &markdown::summary(comparison, &links)),
        ("annotation.md", &markdown::annotation(comparison, &links)),
        ("report.html", &html::page(comparison, &links)),
    ] {
        output::write(&out.file(name), text.as_bytes()).world()?;
    }
    shell.say(&format!("report: {}", out.file("report.html").display()));
    Ok(comment)
}

/// Writes `results/`: head's results, merged over the repetitions, as upstream's folder.
fn write_results(plan: &Plan, out: &OutputFolder, journal: &Journal) -> Result<()> {
    let ran = |repetition: &u32| {
        journal.entries().iter().any(|entry| entry.side == Side::Head && entry.repetition == *repetition)
    };
    let folders = (1..=plan.pairs)
        .filter(ran)
        .map(|repetition| result::read_folder(&out.repetition(Side::Head, repetition)))
        .collect::<Result<Vec<_>>>()?;
    let merged = result::merge(&folders);
    let mut files = merged.files()?;
    files.push(("benchmark_results.json".to_owned(), upstream::json(&merged).context("cannot write the results")?));
    files.push((
        "benchmark_results.md".to_owned(),
        upstream::markdown(&merged, host::host().ok().as_ref()).context("cannot write the results")?,
    ));
    for (name, text) in files {
        output::write(&out.results().join(name), text.as_bytes()).world()?;
    }
    Ok(())
}
