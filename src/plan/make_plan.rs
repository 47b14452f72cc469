//! Joins everything that was decided into a plan, and checks it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use indexmap::IndexMap;
use sha2::{Digest, Sha256};
use vllm_verdict::case::Kind;
use vllm_verdict::side::Side;
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::{Device, Event, Provider, Skipped};

use crate::escape;
use crate::exit::Classify;
use crate::names::Commit;
use crate::plan::base::{Base, NamedSide};
use crate::plan::build::{Build, ChosenBuild};
use crate::plan::concurrency_search::Search;
use crate::plan::config::ImagesConfig;
use crate::plan::estimate::Estimates;
use crate::plan::image::{self, Pipeline};
use crate::plan::suite::Case;
use crate::plan::target::Target;
use crate::plan::tier::{self, TierName};
use crate::plan::wheel::Wheel;
use crate::plan::{Plan, SCHEMA, SidePlan, Sides, Trigger};

/// Everything that a plan is made of.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    pub event: Event,
    pub trigger: Trigger,
    pub device: Device,
    /// Where images are.
    pub images: &'a ImagesConfig,
    pub sides: SideInputs<'a>,
    /// What the suite holds for the device.
    pub cases: Vec<Case>,
    /// What it left out.
    pub skipped: Vec<Skipped>,
    pub search: Option<Search>,
    pub runs: Arrangement,
}

/// How the runs are arranged.
#[derive(Debug, Clone, Default)]
pub struct Arrangement {
    pub tier: Option<TierName>,
    /// Longest time of the run. Cases that are not expected to fit are left out.
    pub budget: Option<Duration>,
    /// Whether the cases are selected by the budget, as a tier does. Without, it only ends the run.
    pub is_fitted: bool,
    /// By default `paired`, or `single` without a base that runs.
    pub strategy: Option<Strategy>,
    /// Repetitions a side; by default 5, or 10 where the run may end earlier.
    pub pairs: Option<u32>,
    /// Seed of the order inside each pair; by default from the head commit.
    pub seed: Option<u64>,
    /// Number of the CI run, for the seed where there is no head commit.
    pub run: Option<u64>,
}

/// What is known of both sides.
#[derive(Debug, Clone, Default)]
pub struct SideInputs<'a> {
    /// `None`: neither the user nor the event names one.
    pub base: Option<Base>,
    /// What commits are measured as, where a side is named by its commit.
    pub build: Option<ChosenBuild>,
    /// `None`: the event's commit. The image of a commit is looked for where the event's is: for a pull request in the
    /// pull requests' repository, else in main's.
    pub head: Option<NamedSide>,
    /// `--base-server-args`: words, quoted as for a shell.
    pub base_server_args: Option<&'a str>,
    /// `--head-server-args`: words, quoted as for a shell.
    pub head_server_args: Option<&'a str>,
}

/// Makes the plan.
///
/// # Errors
/// The user's mistake (exit 2): a commit that is not a full hash, words that a shell could not split, or words for a
/// server that runs already; and, where the decision is to run, a side that is not named, no case to measure, no
/// repetition, or a strategy that does not fit.
pub fn make(inputs: Inputs<'_>) -> anyhow::Result<Plan> {
    join(inputs).mistake()
}

fn join(inputs: Inputs<'_>) -> anyhow::Result<Plan> {
    let sides = sides(&inputs)?;
    if inputs.trigger.run {
        check(&inputs, &sides)?;
    }
    let default = if sides.base.is_some() { Strategy::Paired } else { Strategy::Single };
    let strategy = inputs.runs.strategy.unwrap_or(default);
    let seed = inputs.runs.seed.unwrap_or_else(|| seed(&sides, &inputs.event, inputs.runs.run));
    let pairs = inputs.runs.pairs.unwrap_or_else(|| strategy.default_pairs());
    let instant = sides.present().map(|(_, side)| side.target.is_instant()).collect();
    let estimates = Estimates::new(instant, strategy, pairs);
    let Inputs { mut cases, mut skipped, .. } = inputs;
    let mut notices = Vec::new();
    let Arrangement { tier, budget, .. } = inputs.runs;
    if let Some(budget) = budget.filter(|_| inputs.runs.is_fitted) {
        let left_out = tier::fit(&mut cases, budget, tier, &estimates);
        notices.extend(tier::sentence(left_out.len(), tier, budget));
        skipped.extend(left_out);
    }
    let expected = estimates.expected(&cases, budget.map(|budget| budget.as_secs_f64()));
    let recorded_base = match inputs.sides.base {
        Some(Base::Recorded(folder)) => Some(folder),
        _ => None,
    };
    Ok(Plan {
        schema: SCHEMA.to_owned(),
        strategy,
        trigger: inputs.trigger,
        event: inputs.event,
        device: inputs.device,
        sides,
        recorded_base,
        build_reason: inputs.sides.build.map(|chosen| chosen.reason),
        fallback: None,
        notices,
        images: IndexMap::new(),
        expected: (!cases.is_empty()).then_some(expected),
        cases,
        skipped,
        tier,
        budget: budget.map(|budget| budget.as_secs_f64()),
        search: inputs.search,
        pairs,
        seed,
    })
}

/// The seed of the order: from a hash of the head commit, so that neither side is first in all runs, and a run that is
/// resumed or repeated has the same order. Without a commit, from the identity of the CI run, or else from the target.
fn seed(sides: &Sides, event: &Event, run: Option<u64>) -> u64 {
    let head = sides.head.as_ref();
    let commit = head.and_then(|head| head.commit.as_ref()).map(ToString::to_string).or_else(|| event.head_sha.clone());
    let text =
        commit.or_else(|| run.map(|number| number.to_string())).or_else(|| head.map(|head| head.target.to_string()));
    let hash = Sha256::digest(text.unwrap_or_default());
    u64::from(u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]))
}

/// Checks what only a plan that runs needs.
fn check(inputs: &Inputs<'_>, sides: &Sides) -> anyhow::Result<()> {
    ensure!(sides.head.is_some(), missing(Side::Head, inputs.event.provider));
    ensure!(inputs.sides.base.is_some(), missing(Side::Base, inputs.event.provider));
    ensure!(inputs.runs.pairs != Some(0), "--pairs 0: at least 1 is needed");
    let strategy = inputs.runs.strategy.unwrap_or_default();
    ensure!(
        strategy == Strategy::Single || inputs.runs.strategy.is_none() || sides.base.is_some(),
        "--strategy {} needs two sides that run, and no base does: name another --base, or leave the strategy out",
        strategy.as_str()
    );
    match inputs.cases.is_empty() {
        true => Err(no_case(&inputs.skipped)),
        false => Ok(()),
    }
}

fn missing(side: Side, provider: Provider) -> String {
    let flag = side.as_str();
    let targets = "a commit, image:REF, wheel:COMMIT, local[:PATH], remote:URL or sim";
    match (side, provider) {
        (Side::Head, Provider::Local) => format!("--{flag} is missing: a local run needs {targets}"),
        (Side::Base, Provider::Local) => format!("--{flag} is missing: a local run needs {targets}, or `none`"),
        (Side::Head, _) => format!("the event names no head commit: pass --{flag} ({targets})"),
        (Side::Base, _) => format!(
            "the commit to measure against is not known: fetch the history (`fetch-depth: 0`), \
             or pass --{flag} ({targets}, or `none`)"
        ),
    }
}

fn no_case(skipped: &[Skipped]) -> anyhow::Error {
    // A kind without a file is rarely why, and a test that cannot be run is the first to correct.
    let is_kind = |skipped: &&Skipped| Kind::ALL.iter().any(|kind| kind.as_str() == skipped.name.raw());
    let invalid: Vec<&Skipped> = skipped.iter().filter(|skipped| skipped.invalid).collect();
    let (kinds, tests): (Vec<&Skipped>, Vec<&Skipped>) = skipped.iter().partition(is_kind);
    let skipped = if invalid.is_empty() { [tests, kinds].concat() } else { invalid };
    let reasons: Vec<String> = skipped
        .iter()
        .take(3)
        .map(|skipped| format!("{} ({})", escape::name(&skipped.name), escape::sentence(&skipped.reason)))
        .collect();
    let more = if skipped.len() > 3 { format!(" and {} more", skipped.len() - 3) } else { String::new() };
    match reasons.is_empty() {
        true => anyhow!("no case to measure: the test files contain no tests"),
        false => anyhow!("no case to measure: left out were {}{more}", reasons.join(", ")),
    }
}

/// The sides. The commit of an image is the one in its tag, and that of a wheel its own; that of any other head is the event's; that of any other base
/// is not known.
fn sides(inputs: &Inputs<'_>) -> anyhow::Result<Sides> {
    let Inputs { event, device, images, sides: named, .. } = inputs;
    let pull_request = event.pull_request.is_some() || event.name.starts_with("pull_request");
    let head_pipeline = if pull_request { Pipeline::PullRequest } else { Pipeline::Main };
    let build = named.build.as_ref().map(|chosen| chosen.build).unwrap_or_default();
    let of_commit = |side: Side, commit: &Commit, pipeline| -> anyhow::Result<_> {
        // The number of the build of another commit is not known.
        let of_run = side == Side::Head && event.head_sha.as_deref() == Some(commit.as_str());
        let target = build.target(device, commit, pipeline, images, inputs.runs.run.filter(|_| of_run));
        Ok(Some((target.with_context(|| format!("cannot plan {}", side.as_str()))?, Some(commit.to_string()))))
    };
    let of_target = |target: &Target, other: Option<&str>| {
        let commit = match target {
            Target::Image(reference) => image::commit_of(reference),
            Target::Wheel(wheel) => wheel.commit().map(Commit::as_str),
            _ => other,
        };
        Some((target.clone(), commit.map(str::to_owned)))
    };
    let base = match &named.base {
        Some(Base::Commit(commit)) => of_commit(Side::Base, commit, Pipeline::Main)?,
        Some(Base::Target(target)) => of_target(target, None),
        Some(Base::None | Base::Recorded(_)) | None => None,
    };
    let head = match (&named.head, event.head_sha.as_deref()) {
        (Some(NamedSide::Commit(commit)), _) => of_commit(Side::Head, commit, head_pipeline)?,
        (Some(NamedSide::Target(target)), event_commit) => of_target(target, event_commit),
        (None, Some(commit)) => {
            let commit: Commit = commit.parse().context("cannot plan head")?;
            match (&named.base, build) {
                // There are wheels of main alone.
                (Some(Base::Commit(base)), Build::Wheel) if pull_request => {
                    Some((over(base), Some(commit.to_string())))
                }
                _ => of_commit(Side::Head, &commit, head_pipeline)?,
            }
        }
        (None, None) => None,
    };
    Ok(Sides {
        base: with_server_args(Side::Base, base, named.base_server_args)?,
        head: with_server_args(Side::Head, head, named.head_server_args)?,
    })
}

/// The wheel of a commit of main with the Python files of the current folder over it.
fn over(base: &Commit) -> Target {
    Target::Wheel(Wheel::Commit { commit: base.clone(), variant: None, checkout: Some(PathBuf::from(".")) })
}

fn with_server_args(
    side: Side,
    known: Option<(Target, Option<String>)>,
    words: Option<&str>,
) -> anyhow::Result<Option<SidePlan>> {
    let Some((target, commit)) = known else { return Ok(None) };
    let (flag, words) = (side.as_str(), words.unwrap_or_default());
    let server_args =
        shell_words::split(words).with_context(|| format!("cannot split --{flag}-server-args `{words}` into words"))?;
    ensure!(
        server_args.is_empty() || !matches!(target, Target::Remote(_)),
        "--{flag}-server-args cannot reach `{target}`: that server runs already"
    );
    Ok(Some(SidePlan { target, commit, server_args }))
}

#[cfg(test)]
mod tests {
    use vllm_verdict::case::MeasuredBy;
    use vllm_verdict::v1::{DeviceName, LabelsSource};

    use super::*;
    use crate::exit::{self, Exit};
    use crate::plan::plan_text::text;
    use crate::plan::suite::Command;

    const HEAD: &str = "1da94e673c257373280026f75ceb4effac80e892";
    const BASE: &str = "7f42dc20bb2800d09faa72b26f25d54e26f1b694";

    fn images() -> ImagesConfig {
        ImagesConfig::default()
    }

    fn device() -> Device {
        let device_type = "AMD_EPYC_9654_96-Core_96c".to_owned();
        Device { name: DeviceName::Cpu, device_type, count: 2, image_suffix: "-cpu".to_owned() }
    }

    fn event(provider: Provider) -> Event {
        let local = provider == Provider::Local;
        let known = |text: &str| (!local).then(|| text.to_owned());
        Event {
            provider,
            name: if local { "local".to_owned() } else { "pull_request".to_owned() },
            action: known("labeled"),
            changed_label: known("ready"),
            repository: known("vllm-project/vllm"),
            branch: known("faster"),
            head_sha: known(HEAD),
            base_sha: None,
            base_branch: known("main"),
            pull_request: (!local).then_some(31337),
            labels: vec!["perf-benchmarks".to_owned(), "ready".to_owned()],
            labels_source: LabelsSource::Api,
            configuration: None,
            fork: false,
        }
    }

    fn case(name: &str, concurrency: u64, server: &str) -> Case {
        let env = [("VLLM_CPU_KVCACHE_SPACE".to_owned(), "40".to_owned())].into();
        Case {
            name: format!("{name}_qps_inf_concurrency_{concurrency}"),
            test: name.to_owned(),
            max_concurrency: Some(concurrency),
            server: Some(Command { env, ..Command::sample(server) }),
            ..Case::sample(&format!("vllm bench serve --max-concurrency {concurrency} --metadata a="))
        }
    }

    fn inputs(provider: Provider, images: &ImagesConfig) -> Inputs<'_> {
        let mut latency = case("latency_a", 1, "unused");
        latency.name = "latency_a".to_owned();
        latency.kind = Kind::Latency;
        latency.server = None;
        latency.client.argv = shell_words::split("vllm bench latency --output-json results/latency_a.json").unwrap();
        latency.measured_by = MeasuredBy::Vllm;
        Inputs {
            event: event(provider),
            trigger: Trigger { run: true, reason: "it has the labels perf-benchmarks and ready".to_owned() },
            device: device(),
            images,
            sides: SideInputs {
                base: (provider != Provider::Local).then(|| Base::Commit(BASE.parse().unwrap())),
                ..SideInputs::default()
            },
            cases: vec![
                case("serving_a", 8, "vllm serve m --dtype bfloat16"),
                case("serving_b", 8, "vllm serve m --dtype half --hf-overrides '{\"a\": 1}'"),
                case("serving_a", 16, "vllm serve m --dtype bfloat16"),
                latency,
            ],
            skipped: vec![Skipped::new("startup", "no file `startup-tests-cpu.json`")],
            search: None,
            runs: Arrangement { seed: Some(1), ..Arrangement::default() },
        }
    }

    fn base(text: &str) -> Option<Base> {
        Some(Base::read(text).unwrap())
    }

    fn head(text: &str) -> Option<NamedSide> {
        Some(NamedSide::read(Side::Head, text).unwrap())
    }

    fn mistake(inputs: Inputs<'_>) -> String {
        let error = make(inputs).unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake);
        format!("{error:#}")
    }

    #[test]
    fn a_pull_request_compares_its_image_with_that_of_the_merge_base() {
        let images = images();
        let sides = make(inputs(Provider::Github, &images)).unwrap().sides;
        let shown = |side: Option<SidePlan>| side.map(|side| (side.target.to_string(), side.commit)).unwrap();
        let image = |repository: &str, commit: &str| {
            (format!("image:public.ecr.aws/q9t5s3a7/{repository}:{commit}-cpu"), Some(commit.to_owned()))
        };
        assert_eq!(shown(sides.head), image("vllm-ci-test-repo", HEAD));
        assert_eq!(shown(sides.base), image("vllm-ci-postmerge-repo", BASE));

        let mut push = inputs(Provider::Buildkite, &images);
        push.event.name = "push".to_owned();
        push.event.pull_request = None;
        assert_eq!(shown(make(push).unwrap().sides.head), image("vllm-ci-postmerge-repo", HEAD));
    }

    #[test]
    fn a_target_has_a_commit_only_where_it_is_known() {
        let images = images();
        let mut other = inputs(Provider::Github, &images);
        (other.sides.base, other.sides.head) = (base("local"), head("image:vllm:nightly"));
        let sides = make(other).unwrap().sides;
        assert_eq!([sides.base, sides.head].map(|side| side.unwrap().commit), [None, None]);
        let mut given = inputs(Provider::Github, &images);
        given.sides = SideInputs {
            base: base(&format!("image:localhost:5000/vllm:{BASE}-cpu")),
            head: head("sim:itl=10ms"),
            head_server_args: Some("--max-num-seqs 4 --x 'a b'"),
            ..SideInputs::default()
        };
        let sides = make(given).unwrap().sides;
        assert_eq!(sides.base.unwrap().commit.as_deref(), Some(BASE));
        let head = sides.head.unwrap();
        assert_eq!((head.target.to_string().as_str(), head.commit.as_deref()), ("sim:itl=10ms", Some(HEAD)));
        assert_eq!(head.server_args, ["--max-num-seqs", "4", "--x", "a b"]);
    }

    #[test]
    fn a_side_that_is_not_named_is_an_error() {
        let images = images();
        let with = |base, head, head_server_args| Inputs {
            sides: SideInputs { base, head, head_server_args, ..SideInputs::default() },
            ..inputs(Provider::Local, &images)
        };
        let alone = || with(base("none"), head("local"), None);
        assert_eq!(make(alone()).unwrap().sides.base, None);
        let errors = [
            mistake(with(base("local"), None, None)),
            mistake(with(None, head("local"), None)),
            mistake(with(base("none"), head("local"), Some("'a"))),
            mistake(with(base("none"), head("remote:http://h:1"), Some("--a"))),
            mistake(Inputs { sides: SideInputs::default(), ..inputs(Provider::Github, &images) }),
            mistake(Inputs { cases: Vec::new(), ..alone() }),
            mistake(Inputs { runs: Arrangement { pairs: Some(0), ..Arrangement::default() }, ..alone() }),
        ];
        insta::assert_snapshot!(errors.join("\n"), @"
        --head is missing: a local run needs a commit, image:REF, wheel:COMMIT, local[:PATH], remote:URL or sim
        --base is missing: a local run needs a commit, image:REF, wheel:COMMIT, local[:PATH], remote:URL or sim, or `none`
        cannot split --head-server-args `'a` into words: missing closing quote
        --head-server-args cannot reach `remote:http://h:1/`: that server runs already
        the commit to measure against is not known: fetch the history (`fetch-depth: 0`), or pass --base (a commit, image:REF, wheel:COMMIT, local[:PATH], remote:URL or sim, or `none`)
        no case to measure: left out were startup (no file `startup-tests-cpu.json`)
        --pairs 0: at least 1 is needed
        ");
    }

    #[test]
    fn a_recorded_base_is_in_the_plan_and_nothing_of_it_runs() {
        let images = images();
        let mut recorded = inputs(Provider::Github, &images);
        recorded.sides.base = Some(Base::Recorded("earlier".into()));
        let plan = make(recorded).unwrap();
        assert_eq!((plan.sides.base, plan.recorded_base), (None, Some("earlier".into())));
        assert_eq!(plan.strategy, Strategy::Single);
    }

    #[test]
    fn fields_of_a_newer_minor_version_are_ignored() {
        let images = images();
        let plan = make(inputs(Provider::Github, &images)).unwrap();
        let newer = serde_json::to_string(&plan).unwrap().replace(r#"{"schema""#, r#"{"new": 1, "schema""#);
        let newer =
            newer.replace(r#"{"target""#, r#"{"new": 1, "target""#).replace(r#"{"argv""#, r#"{"new": 1, "argv""#);
        assert_eq!(serde_json::from_str::<Plan>(&newer).unwrap(), plan);
    }

    #[test]
    fn a_skipped_event_is_planned_without_sides() {
        let images = images();
        let mut skipped = inputs(Provider::Local, &images);
        skipped.trigger = Trigger { run: false, reason: "no label".to_owned() };
        skipped.cases.clear();
        assert_eq!(make(skipped).unwrap().sides, Sides { base: None, head: None });
    }

    #[test]
    fn a_plan_is_read_back_as_it_was_written() {
        let images = images();
        let mut given = inputs(Provider::Github, &images);
        given.sides.head_server_args = Some("--max-num-seqs 4");
        let plan = make(given).unwrap();
        let text = serde_json::to_string_pretty(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        let mut short = plan;
        short.cases.truncate(1);
        insta::assert_snapshot!(serde_json::to_string_pretty(&short).unwrap(), @r#"
        {
          "schema": "vllm-perf/plan/v1",
          "trigger": {
            "run": true,
            "reason": "it has the labels perf-benchmarks and ready"
          },
          "event": {
            "provider": "github",
            "name": "pull_request",
            "action": "labeled",
            "changed_label": "ready",
            "repository": "vllm-project/vllm",
            "branch": "faster",
            "head_sha": "1da94e673c257373280026f75ceb4effac80e892",
            "base_sha": null,
            "base_branch": "main",
            "pull_request": 31337,
            "labels": [
              "perf-benchmarks",
              "ready"
            ],
            "labels_source": "api",
            "fork": false
          },
          "device": {
            "name": "cpu",
            "type": "AMD_EPYC_9654_96-Core_96c",
            "count": 2,
            "image_suffix": "-cpu"
          },
          "sides": {
            "base": {
              "target": "image:public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo:7f42dc20bb2800d09faa72b26f25d54e26f1b694-cpu",
              "commit": "7f42dc20bb2800d09faa72b26f25d54e26f1b694"
            },
            "head": {
              "target": "image:public.ecr.aws/q9t5s3a7/vllm-ci-test-repo:1da94e673c257373280026f75ceb4effac80e892-cpu",
              "commit": "1da94e673c257373280026f75ceb4effac80e892",
              "server_args": [
                "--max-num-seqs",
                "4"
              ]
            }
          },
          "cases": [
            {
              "name": "serving_a_qps_inf_concurrency_8",
              "kind": "serving",
              "test": "serving_a",
              "model": "m",
              "request_rate": "inf",
              "max_concurrency": 8,
              "server": {
                "argv": [
                  "vllm",
                  "serve",
                  "m",
                  "--dtype",
                  "bfloat16"
                ],
                "env": {
                  "VLLM_CPU_KVCACHE_SPACE": "40"
                }
              },
              "client": {
                "argv": [
                  "vllm",
                  "bench",
                  "serve",
                  "--max-concurrency",
                  "8",
                  "--metadata",
                  "a="
                ],
                "env": {}
              },
              "measured_by": "native"
            }
          ],
          "skipped": [
            {
              "name": "startup",
              "reason": "no file `startup-tests-cpu.json`"
            }
          ],
          "expected": {
            "least": 12160.0,
            "most": 12160.0
          },
          "strategy": "paired",
          "pairs": 5,
          "seed": 1
        }
        "#);
    }

    #[test]
    fn the_text_shows_every_command_in_full() {
        let images = images();
        let mut given = inputs(Provider::Github, &images);
        given.sides.head_server_args = Some("--max-num-seqs 4");
        insta::assert_snapshot!(text(&make(given).unwrap()), @r#"
        decision  run: it has the labels perf-benchmarks and ready
        event     pull_request #31337 of vllm-project/vllm at 1da94e673c257373280026f75ceb4effac80e892, labels perf-benchmarks, ready
        device    cpu: AMD_EPYC_9654_96-Core_96c, 2 NUMA nodes
        base      image:public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo:7f42dc20bb2800d09faa72b26f25d54e26f1b694-cpu
        head      image:public.ecr.aws/q9t5s3a7/vllm-ci-test-repo:1da94e673c257373280026f75ceb4effac80e892-cpu
                  server with --max-num-seqs 4
        runs      5 interleaved pairs, seed 1
        time      about 3 h 23 min (6.76 NUMA node hours), from the suite alone
        cases     4 cases on 2 servers: 3 measured by the native client, 1 by vllm bench

        server 1 of 2, 2 cases
          $ VLLM_CPU_KVCACHE_SPACE=40 vllm serve m --dtype bfloat16
          serving_a_qps_inf_concurrency_8
            $ vllm bench serve --max-concurrency 8 --metadata a=
          serving_a_qps_inf_concurrency_16
            $ vllm bench serve --max-concurrency 16 --metadata a=

        server 2 of 2, 1 case
          $ VLLM_CPU_KVCACHE_SPACE=40 vllm serve m --dtype half --hf-overrides '{"a": 1}'
          serving_b_qps_inf_concurrency_8
            $ vllm bench serve --max-concurrency 8 --metadata a=

        latency, 1 case
          latency_a
            $ vllm bench latency --output-json results/latency_a.json

        left out
          startup: no file `startup-tests-cpu.json`
        "#);
    }

    #[test]
    fn the_text_of_a_skip_has_the_reason_and_no_command() {
        let images = images();
        let mut skip = inputs(Provider::Local, &images);
        skip.trigger = Trigger { run: false, reason: "the label `ready` is missing: add it to run".to_owned() };
        insta::assert_snapshot!(text(&make(skip).unwrap()), @"
        decision  skip: the label `ready` is missing: add it to run
        event     local, labels perf-benchmarks, ready
        device    cpu: AMD_EPYC_9654_96-Core_96c, 2 NUMA nodes
        ");
    }
}
