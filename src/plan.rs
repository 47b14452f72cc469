//! The plan: everything that was decided before anything starts, as one value that prints as JSON and reads back.

pub mod concurrency_search;
pub mod config;
pub mod device;
pub mod image;
pub mod plan_text;
pub mod reproduce;
pub mod serve_flags;
pub mod suite;
pub mod target;

use crate::names;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail, ensure};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{MOST_PAIRS, Strategy};
use vllm_verdict::v1::{Device, Event, Provider, Skipped};

use crate::exit::Classify;
use crate::plan::concurrency_search::Search;
use crate::plan::config::ImagesConfig;
use crate::plan::image::Source;
use crate::plan::suite::Case;
use crate::plan::target::Target;

pub use plan_text::text;

/// Schema of `plan.json`.
pub const SCHEMA: &str = "vllm-perf/plan/v1";

/// A side of the comparison: a target, and the commit that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SidePlan {
    /// What serves.
    pub target: Target,
    /// The commit, where it is known.
    pub commit: Option<String>,
    /// Words appended to the server command of this side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_args: Vec<String>,
}

/// Both sides. There is no base where the user said `--base none`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sides {
    /// What head is measured against.
    pub base: Option<SidePlan>,
    /// What is measured.
    pub head: Option<SidePlan>,
}

impl Sides {
    /// The sides that there are, base first.
    pub fn present(&self) -> impl Iterator<Item = (Side, &SidePlan)> {
        let sides = [(Side::Base, &self.base), (Side::Head, &self.head)];
        sides.into_iter().filter_map(|(side, plan)| plan.as_ref().map(|plan| (side, plan)))
    }
}

/// Another base than was wanted, because its image is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// The commit whose image is missing.
    pub wanted: String,
    /// The commit that is base instead.
    pub used: String,
    /// How many commits it is behind.
    pub behind: u32,
}

/// The decision: benchmark this event, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// Whether to benchmark.
    pub run: bool,
    /// Why; for a skip, also what would make it run.
    pub reason: String,
}

/// Schema `vllm-perf/plan/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The decision.
    pub trigger: Trigger,
    /// What happened.
    pub event: Event,
    /// What is measured on.
    pub device: Device,
    /// What is compared.
    pub sides: Sides,
    /// Output folder of an earlier run whose head is base; nothing of base runs then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_base: Option<PathBuf>,
    /// Another base than was wanted, because its image is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// What a reader of the report has to know of how it was decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// What the registry says of the images, where it was asked: `is there`, or what is missing.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub images: IndexMap<String, String>,
    /// What is measured, in order.
    pub cases: Vec<Case>,
    /// What is left out, and why.
    pub skipped: Vec<Skipped>,
    /// What the largest concurrency is searched for, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// How the runs are arranged.
    #[serde(default)]
    pub strategy: Strategy,
    /// How many repetitions a side: of all cases, of those that a screen suspects, or up to the first look.
    pub pairs: u32,
    /// Seed of the order inside each pair.
    pub seed: u64,
}

/// Everything that a plan is made of.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// What happened.
    pub event: Event,
    /// The decision about it.
    pub trigger: Trigger,
    /// What is measured on.
    pub device: Device,
    /// Where images are.
    pub images: &'a ImagesConfig,
    /// `--base`: a target, a commit or `none`.
    pub base: Option<&'a str>,
    /// Output folder of an earlier run whose head is base, in place of `base`.
    pub recorded_base: Option<PathBuf>,
    /// `--head`: a target, or a commit whose image is looked for where the event's is: for a pull request in the pull
    /// requests' repository, else in main's.
    pub head: Option<&'a str>,
    /// `--base-server-args`: words, quoted as for a shell.
    pub base_server_args: Option<&'a str>,
    /// `--head-server-args`: words, quoted as for a shell.
    pub head_server_args: Option<&'a str>,
    /// Full hash of the commit that head is measured against: the merge base, or what main was before a push.
    pub merge_base: Option<&'a str>,
    /// What the suite holds for the device.
    pub cases: Vec<Case>,
    /// What it left out.
    pub skipped: Vec<Skipped>,
    /// What the largest concurrency is searched for.
    pub search: Option<Search>,
    /// How the runs are arranged; where nobody says, in pairs if there is a base.
    pub strategy: Option<Strategy>,
    /// Repetitions a side.
    pub pairs: u32,
    /// Seed of the order inside each pair.
    pub seed: u64,
}

/// Joins everything that was decided.
///
/// # Errors
/// The user's mistake (exit 2): see [`side`]; and, where the decision is to run, a side that nothing names, no case to
/// measure, or no repetition.
pub fn make(inputs: Inputs<'_>) -> anyhow::Result<Plan> {
    join(inputs).mistake()
}

fn join(inputs: Inputs<'_>) -> anyhow::Result<Plan> {
    let Inputs { event, trigger, device, images, .. } = inputs;
    let pull_request = event.pull_request.is_some() || event.name.starts_with("pull_request");
    let head_source = if pull_request { Source::PullRequest } else { Source::Main };
    let of = |which, spec, commit, source, server_args: Option<&str>| {
        side(which, SideInputs { spec, commit, source, server_args: server_args.unwrap_or_default() }, &device, images)
    };
    let head_sha = event.head_sha.as_deref();
    let base = if inputs.recorded_base.is_some() { Some("none") } else { inputs.base };
    let sides = Sides {
        base: of(Side::Base, base, inputs.merge_base, Source::Main, inputs.base_server_args)?,
        head: of(Side::Head, inputs.head, head_sha, head_source, inputs.head_server_args)?,
    };
    if trigger.run {
        ensure!(sides.head.is_some(), missing(Side::Head, event.provider));
        ensure!(sides.base.is_some() || base == Some("none"), missing(Side::Base, event.provider));
        ensure!(inputs.pairs > 0, "--pairs 0: at least 1 is needed");
        let strategy = inputs.strategy.unwrap_or_default();
        ensure!(
            strategy == Strategy::Single || inputs.strategy.is_none() || sides.base.is_some(),
            "--strategy {} needs two sides that run, and no base does: name another --base, or leave the strategy out",
            strategy.as_str()
        );
        ensure!(
            strategy != Strategy::Sequential || 2 * inputs.pairs <= MOST_PAIRS,
            "--pairs {}: `sequential` may double them, and {MOST_PAIRS} are the most: give at most {}",
            inputs.pairs,
            MOST_PAIRS / 2
        );
        if inputs.cases.is_empty() {
            return Err(no_case(&inputs.skipped));
        }
    }
    let alone = if sides.base.is_some() { Strategy::Paired } else { Strategy::Single };
    Ok(Plan {
        schema: SCHEMA.to_owned(),
        strategy: inputs.strategy.unwrap_or(alone),
        trigger,
        event,
        device,
        sides,
        recorded_base: inputs.recorded_base,
        fallback: None,
        notices: Vec::new(),
        images: IndexMap::new(),
        cases: inputs.cases,
        skipped: inputs.skipped,
        search: inputs.search,
        pairs: inputs.pairs,
        seed: inputs.seed,
    })
}

fn missing(side: Side, provider: Provider) -> String {
    let flag = side.as_str();
    let targets = "a commit, image:REF, local[:PATH], remote:URL or sim";
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
    let reasons: Vec<String> =
        skipped.iter().take(3).map(|skipped| format!("{} ({})", skipped.name, skipped.reason)).collect();
    let more = if skipped.len() > 3 { format!(" and {} more", skipped.len() - 3) } else { String::new() };
    match reasons.is_empty() {
        true => anyhow!("no case to measure: the test files hold no test"),
        false => anyhow!("no case to measure: left out were {}{more}", reasons.join(", ")),
    }
}

/// What is known of a side before it is one.
#[derive(Debug, Clone, Copy)]
pub struct SideInputs<'a> {
    /// What the user says: a target, a full commit hash or, for base, `none`.
    pub spec: Option<&'a str>,
    /// The commit that the event names for this side, a full hash.
    pub commit: Option<&'a str>,
    /// Which pipeline builds the image of a commit here.
    pub source: Source,
    /// Words appended to the server command, quoted as for a shell.
    pub server_args: &'a str,
}

/// A side: what the user says, else the image of the event's commit, else nothing. An image that the user names stands
/// for the commit in its tag, another head target for the event's commit; any other stands for none that is known.
///
/// # Errors
/// A spec that is no target and no full hash, `none` for head, words that a shell could not split, or words for a server
/// that runs already.
pub fn side(
    side: Side,
    inputs: SideInputs<'_>,
    device: &Device,
    images: &ImagesConfig,
) -> anyhow::Result<Option<SidePlan>> {
    let flag = side.as_str();
    let image_of = |commit: &str| -> anyhow::Result<_> {
        let image = image::reference(device, commit, inputs.source, images)?;
        Ok((Target::Image(image), Some(commit.to_owned())))
    };
    let (target, commit) = match (inputs.spec, inputs.commit) {
        (Some("none"), _) if side == Side::Base => return Ok(None),
        (Some("none"), _) => bail!("--head none: head is what is measured; only --base may be `none`"),
        (Some(spec), commit) => {
            match spec_kind(spec).with_context(|| format!("cannot use --{flag} {}", target::without_user(spec)))? {
                Spec::Commit => image_of(spec)?,
                Spec::Target(target) => {
                    let commit = match (&target, side) {
                        (Target::Image(reference), _) => image::commit_of(reference),
                        (_, Side::Head) => commit,
                        (_, Side::Base) => None,
                    };
                    let commit = commit.map(str::to_owned);
                    (target, commit)
                }
            }
        }
        (None, Some(commit)) => image_of(commit).with_context(|| format!("cannot plan {flag}"))?,
        (None, None) => return Ok(None),
    };
    let server_args = shell_words::split(inputs.server_args)
        .with_context(|| format!("cannot split --{flag}-server-args `{}` into words", inputs.server_args))?;
    ensure!(
        server_args.is_empty() || !matches!(target, Target::Remote(_)),
        "--{flag}-server-args cannot reach `{target}`: that server runs already"
    );
    Ok(Some(SidePlan { target, commit, server_args }))
}

enum Spec {
    Commit,
    Target(Target),
}

fn spec_kind(spec: &str) -> anyhow::Result<Spec> {
    if names::is_full_hash(spec) {
        return Ok(Spec::Commit);
    }
    if (7..=40).contains(&spec.len()) && spec.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!("images are tagged by full hashes in lower case: pass all 40 digits (git rev-parse {spec})");
    }
    let target: Target = spec.parse().context("neither a full commit hash nor a target nor, for --base, `none`")?;
    if let Target::Image(reference) = &target {
        reference.parse::<image::Reference>()?;
    }
    Ok(Spec::Target(target))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vllm_verdict::case::{Kind, MeasuredBy};
    use vllm_verdict::v1::{DeviceName, LabelsSource};

    use super::*;
    use crate::exit::{self, Exit};
    use crate::plan::suite::Command;

    const HEAD: &str = "1da94e673c257373280026f75ceb4effac80e892";
    const BASE: &str = "7f42dc20bb2800d09faa72b26f25d54e26f1b694";

    fn images() -> ImagesConfig {
        ImagesConfig {
            pull_request: "public.ecr.aws/q9t5s3a7/vllm-ci-test-repo".to_owned(),
            main: "public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo".to_owned(),
            rocm: "docker.io/rocm/vllm-ci".to_owned(),
            wait: Duration::from_secs(5400),
        }
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
            fork: false,
        }
    }

    fn case(name: &str, concurrency: u64, server: &str) -> Case {
        let argv = |text: &str| shell_words::split(text).unwrap();
        let env = [("VLLM_CPU_KVCACHE_SPACE".to_owned(), "40".to_owned())].into();
        Case {
            name: format!("{name}_qps_inf_concurrency_{concurrency}"),
            kind: Kind::Serving,
            test: name.to_owned(),
            model: "m".to_owned(),
            request_rate: Some("inf".to_owned()),
            max_concurrency: Some(concurrency),
            server: Some(Command { argv: argv(server), env }),
            client: Command {
                argv: argv(&format!("vllm bench serve --max-concurrency {concurrency} --metadata a=")),
                env: Default::default(),
            },
            measured_by: MeasuredBy::Native,
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
            base: None,
            recorded_base: None,
            head: None,
            base_server_args: None,
            head_server_args: None,
            merge_base: (provider != Provider::Local).then_some(BASE),
            cases: vec![
                case("serving_a", 8, "vllm serve m --dtype bfloat16"),
                case("serving_b", 8, "vllm serve m --dtype half --hf-overrides '{\"a\": 1}'"),
                case("serving_a", 16, "vllm serve m --dtype bfloat16"),
                latency,
            ],
            skipped: vec![Skipped {
                name: "startup".to_owned(),
                reason: "no file `startup-tests-cpu.json`".to_owned(),
            }],
            search: None,
            strategy: None,
            pairs: 5,
            seed: 1,
        }
    }

    fn mistake(inputs: Inputs<'_>) -> String {
        let error = make(inputs).unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake);
        format!("{error:#}")
    }

    #[test]
    fn a_pull_request_measures_its_image_against_the_merge_bases() {
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
    fn a_target_stands_for_a_commit_only_where_that_is_known() {
        let images = images();
        let other = inputs(Provider::Github, &images);
        let sides = make(Inputs { base: Some("local"), head: Some("image:vllm:nightly"), ..other }).unwrap().sides;
        assert_eq!([sides.base, sides.head].map(|side| side.unwrap().commit), [None, None]);
        let tagged = format!("image:localhost:5000/vllm:{BASE}-cpu");
        let mut given = inputs(Provider::Github, &images);
        (given.base, given.head) = (Some(tagged.as_str()), Some("sim:itl=10ms"));
        given.head_server_args = Some("--max-num-seqs 4 --x 'a b'");
        let sides = make(given).unwrap().sides;
        assert_eq!(sides.base.unwrap().commit.as_deref(), Some(BASE));
        let head = sides.head.unwrap();
        assert_eq!((head.target.to_string().as_str(), head.commit.as_deref()), ("sim:itl=10ms", Some(HEAD)));
        assert_eq!(head.server_args, ["--max-num-seqs", "4", "--x", "a b"]);
    }

    #[test]
    fn nothing_is_assumed_about_a_side_that_nobody_named() {
        let images = images();
        let local = || inputs(Provider::Local, &images);
        let with = |base, head| Inputs { base, head, ..local() };
        let plan = make(with(Some("none"), Some("local"))).unwrap();
        assert_eq!(plan.sides.base, None);
        let errors = [
            mistake(with(Some("local"), None)),
            mistake(with(None, Some("local"))),
            mistake(with(Some("local"), Some("none"))),
            mistake(with(Some("1da94e6"), Some("local"))),
            mistake(with(Some("docker:x"), Some("local"))),
            mistake(with(Some("image:A B"), Some("local"))),
            mistake(Inputs { head_server_args: Some("'a"), ..with(Some("none"), Some("local")) }),
            mistake(Inputs { head_server_args: Some("--a"), ..with(Some("none"), Some("remote:http://h:1")) }),
            mistake(Inputs { merge_base: None, ..inputs(Provider::Github, &images) }),
            mistake(Inputs { cases: Vec::new(), ..with(Some("none"), Some("local")) }),
            mistake(Inputs { pairs: 0, ..with(Some("none"), Some("local")) }),
        ];
        insta::assert_snapshot!(errors.join("\n"), @"
        --head is missing: a local run needs a commit, image:REF, local[:PATH], remote:URL or sim
        --base is missing: a local run needs a commit, image:REF, local[:PATH], remote:URL or sim, or `none`
        --head none: head is what is measured; only --base may be `none`
        cannot use --base 1da94e6: images are tagged by full hashes in lower case: pass all 40 digits (git rev-parse 1da94e6)
        cannot use --base docker:x: neither a full commit hash nor a target nor, for --base, `none`: `docker:x` is not a target: expected image:REF, local[:PATH], remote:URL or sim[:key=value,...]
        cannot use --base image:A B: `A B` is not an image reference: expected [HOST/]REPOSITORY[:TAG][@sha256:DIGEST]
        cannot split --head-server-args `'a` into words: missing closing quote
        --head-server-args cannot reach `remote:http://h:1/`: that server runs already
        the commit to measure against is not known: fetch the history (`fetch-depth: 0`), or pass --base (a commit, image:REF, local[:PATH], remote:URL or sim, or `none`)
        no case to measure: left out were startup (no file `startup-tests-cpu.json`)
        --pairs 0: at least 1 is needed
        ");
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
    fn a_plan_reads_back_as_it_was_written() {
        let images = images();
        let plan =
            make(Inputs { head_server_args: Some("--max-num-seqs 4"), ..inputs(Provider::Github, &images) }).unwrap();
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
          "strategy": "paired",
          "pairs": 5,
          "seed": 1
        }
        "#);
    }

    #[test]
    fn the_text_shows_what_would_run_to_the_last_word() {
        let images = images();
        let plan = make(Inputs { head_server_args: Some("--max-num-seqs 4"), ..inputs(Provider::Github, &images) });
        insta::assert_snapshot!(text(&plan.unwrap()), @r#"
        decision  run: it has the labels perf-benchmarks and ready
        event     pull_request #31337 of vllm-project/vllm at 1da94e673c257373280026f75ceb4effac80e892, labels perf-benchmarks, ready
        device    cpu: AMD_EPYC_9654_96-Core_96c, 2 NUMA nodes
        base      image:public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo:7f42dc20bb2800d09faa72b26f25d54e26f1b694-cpu
        head      image:public.ecr.aws/q9t5s3a7/vllm-ci-test-repo:1da94e673c257373280026f75ceb4effac80e892-cpu
                  server with --max-num-seqs 4
        runs      5 interleaved pairs, seed 1
        cases     4 cases on 2 servers: 3 measured by our client, 1 by vllm bench

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
    fn the_text_of_a_skip_says_why_and_shows_no_command() {
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
