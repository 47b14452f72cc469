//! A plan as the command that reproduces the run.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use vllm_verdict::strategy::{MOST_PAIRS, Strategy};
use vllm_verdict::v1::DeviceName;

use crate::duration;
use crate::environment::{Environment, is_secret_name};
use crate::plan::Plan;
use crate::plan::config::ImagesConfig;
use crate::plan::image::Reference;
use crate::plan::target::Target;
use crate::plan::wheel::Wheel;

/// Parts of flags of a server that load code or files, or change where it listens.
const LOADING: [&str; 16] = [
    "code",
    "plugin",
    "middleware",
    "tokenizer",
    "model",
    "config",
    "cls",
    "class",
    "lora",
    "dir",
    "file",
    "template",
    "parser",
    "host",
    "port",
    "key",
];
/// Longest expression of `--only`, in bytes.
const ONLY_LIMIT: usize = 300;

/// Upstream's variables that decide what is measured: by how their values are checked in an untrusted report.
const NUMBERS: [&str; 8] = [
    "PROMPTS_PER_CONCURRENCY",
    "MIN_NUM_PROMPTS",
    "MAX_NUM_PROMPTS",
    "ENABLE_ADAPTIVE_CONCURRENCY",
    "SLA_TTFT_MS",
    "SLA_TPOT_MS",
    "ADAPTIVE_MAX_PROBES",
    "ADAPTIVE_MAX_CONCURRENCY",
];
const FILTERS: [&str; 3] = ["TEST_SELECTOR", "MODEL_FILTER", "DTYPE_FILTER"];
const TEST_FILES: [&str; 4] = ["SERVING_JSON", "LATENCY_JSON", "THROUGHPUT_JSON", "STARTUP_JSON"];
/// The running server that the client is sent to.
const REMOTE: [&str; 2] = ["REMOTE_HOST", "REMOTE_PORT"];

/// What a plan was made with and does not hold itself.
#[derive(Debug)]
pub struct MadeWith<'a> {
    pub suite: &'a Path,
    /// Flags with values, as they were given.
    pub flags: Vec<(&'static str, String)>,
    pub environment: &'a Environment,
}

impl Plan {
    /// The command, for a machine that has the targets, with the variables before it.
    pub fn reproduce(&self, made_with: &MadeWith<'_>) -> String {
        let mut words: Vec<String> = ["vllm-perf", "run"].map(String::from).to_vec();
        for (side, planned) in self.sides.present() {
            words.extend([format!("--{}", side.as_str()), planned.target.to_string()]);
            if !planned.server_args.is_empty() {
                words.push(format!("--{}-server-args={}", side.as_str(), shell_words::join(&planned.server_args)));
            }
        }
        if self.sides.base.is_none() {
            let recorded = self.recorded_base.as_ref().map(|folder| format!("results:{}", folder.display()));
            words.extend(["--base".to_owned(), recorded.unwrap_or_else(|| "none".to_owned())]);
        }
        let mut add = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
        add("--provider", "local".to_owned());
        add("--device", self.device.name.to_string());
        add("--suite", made_with.suite.display().to_string());
        for (flag, value) in &made_with.flags {
            add(flag, value.clone());
        }
        if let Some(tier) = self.tier {
            add("--tier", tier.as_str().to_owned());
        }
        let has_two_sides = self.sides.base.is_some();
        if has_two_sides && (self.strategy != Strategy::Paired || self.tier.is_some()) {
            add("--strategy", self.strategy.as_str().to_owned());
        }
        add("--pairs", self.pairs.to_string());
        add("--seed", self.seed.to_string());
        let variables = self.variables(made_with.environment);
        variables.into_iter().chain([shell_words::join(words)]).collect::<Vec<_>>().join(" ")
    }

    /// `NAME=value` of every variable that changes what is measured.
    fn variables(&self, environment: &Environment) -> Vec<String> {
        let is_local = self.sides.present().any(|(_, side)| matches!(side.target, Target::Local(_) | Target::Wheel(_)));
        // A `vllm` of this machine gets its own as they are.
        let matters = |name: &str| is_known(name) && (is_local || !name.starts_with("VLLM_")) && !is_secret_name(name);
        let found = environment.iter().filter(|(name, _)| matters(name));
        found.map(|(name, value)| assignment(name, value)).collect()
    }
}

fn assignment(name: &str, value: &str) -> String {
    format!("{name}={}", shell_words::quote(value))
}

/// Upstream's variables that decide what is measured, and those of vLLM itself.
fn is_known(name: &str) -> bool {
    let upstream = [&NUMBERS[..], &FILTERS, &TEST_FILES, &REMOTE].concat();
    upstream.contains(&name) || name.starts_with("VLLM_") && !name.starts_with("VLLM_PERF_")
}

/// A command with the variables before it, with every word quoted; `None` if it is not a `vllm-perf` command, or has other
/// variables.
pub fn quoted(command: &str) -> Option<String> {
    let words = shell_words::split(command).ok()?;
    let (variables, words) = words.split_at(words.iter().take_while(|word| is_assignment(word)).count());
    let assignments = variables.iter().map(|word| {
        let (name, value) = word.split_once('=')?;
        is_known(name).then(|| assignment(name, value))
    });
    let assignments = assignments.collect::<Option<Vec<_>>>()?;
    let is_ours = words.first().is_some_and(|word| word == "vllm-perf");
    is_ours.then(|| assignments.into_iter().chain([shell_words::join(words)]).collect::<Vec<_>>().join(" "))
}

/// The command of an untrusted report, built again word by word, for readers who paste it into a shell: it can only be
/// [`Plan::reproduce`] of the simulated vLLM or of images in the repositories of `images`.
///
/// # Errors
/// The first word that such a command does not have.
pub fn checked(command: &str, images: &ImagesConfig) -> Result<String> {
    let words = shell_words::split(command).context("it is not a command")?;
    let (variables, words) = words.split_at(words.iter().take_while(|word| is_assignment(word)).count());
    let assignments = variables.iter().map(|word| checked_assignment(word)).collect::<Result<Vec<_>>>()?;
    let [program, run, arguments @ ..] = words else { bail!("it is too short") };
    ensure!((program.as_str(), run.as_str()) == ("vllm-perf", "run"), "`{program} {run}` is not `vllm-perf run`");
    let mut checked = vec![program.clone(), run.clone()];
    let mut seen = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(word) = arguments.next() {
        checked.push(word.clone());
        let flag = word.split('=').next().unwrap_or(word);
        ensure!(!seen.contains(&flag), "`{flag}` is given twice");
        seen.push(flag);
        if let Some((flag, value)) = word.split_once('=') {
            check_value(flag, value, images)?;
            continue;
        }
        let value = arguments.next().with_context(|| format!("`{word}` has no value"))?;
        check_value(word, value, images)?;
        checked.push(value.clone());
    }
    Ok(assignments.into_iter().chain([shell_words::join(checked)]).collect::<Vec<_>>().join(" "))
}

/// Whether a word before a command sets a variable.
fn is_assignment(word: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    word.split_once('=').is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(is_of_name))
}

/// A variable before the command: only those that select what is measured.
fn checked_assignment(word: &str) -> Result<String> {
    let (name, value) = word.split_once('=').context("it is not a variable")?;
    let is_right = match name {
        _ if NUMBERS.contains(&name) => value.parse::<f64>().is_ok_and(f64::is_finite) && is_plain(value),
        _ if FILTERS.contains(&name) => is_pattern(value),
        _ if TEST_FILES.contains(&name) => is_plain(value) && !value.contains('/') && value.ends_with(".json"),
        _ => bail!("`{name}` is not one of its variables"),
    };
    ensure!(is_right, "`{value}` is not accepted for `{name}`");
    Ok(assignment(name, value))
}

/// Whether a text can be an expression that selects cases.
fn is_pattern(value: &str) -> bool {
    value.len() <= ONLY_LIMIT && !value.starts_with('-') && !value.contains(char::is_control)
}

/// Whether a text can be the type of a device.
fn is_device_type(value: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" ._@()+-".contains(&byte);
    !value.is_empty() && value.len() <= 100 && !value.starts_with('-') && value.bytes().all(plain)
}

fn check_value(flag: &str, value: &str, images: &ImagesConfig) -> Result<()> {
    let is_right = match flag {
        "--base" if value == "none" => true,
        "--base" | "--head" => match value.parse()? {
            Target::Sim(_) => true,
            Target::Image(reference) => is_of(&reference.parse()?, images),
            // The folders of a wheel or a checkout are of another machine.
            Target::Wheel(Wheel::Commit { checkout: None, .. } | Wheel::Version { .. }) => true,
            Target::Wheel(_) | Target::Local(_) | Target::Remote(_) => false,
        },
        "--base-server-args" | "--head-server-args" => {
            shell_words::split(value).is_ok_and(|words| words.iter().all(|word| is_harmless(word)))
        }
        "--provider" => value == "local",
        "--device" => value.parse::<DeviceName>().is_ok(),
        "--suite" => is_plain(value) && !value.starts_with(['/', '-']) && value.split('/').all(|part| part != ".."),
        "--only" => is_pattern(value),
        "--device-type" => is_device_type(value),
        "--device-count" => value.parse::<u32>().is_ok(),
        "--client" => ["auto", "native", "vllm", "vllm-rs"].contains(&value),
        "--budget" | "--server-timeout" | "--case-timeout" => is_plain(value) && duration::parse(value).is_ok(),
        "--tier" => ["pr", "full"].contains(&value),
        "--strategy" => Strategy::ALL.iter().any(|known| known.as_str() == value),
        "--pairs" => value.parse().is_ok_and(|pairs: u32| (1..=MOST_PAIRS).contains(&pairs)),
        "--seed" => value.parse::<u64>().is_ok(),
        _ => bail!("`{flag}` is not one of its flags"),
    };
    ensure!(is_right, "`{value}` is not accepted for `{flag}`");
    Ok(())
}

fn is_of(reference: &Reference, images: &ImagesConfig) -> bool {
    [&images.pull_request, &images.main, &images.rocm].into_iter().any(|template| {
        template.repository().parse().is_ok_and(|known: Reference| {
            (&known.registry, &known.repository) == (&reference.registry, &reference.repository)
        })
    })
}

/// Whether a word of a server's arguments is a plain flag or value: no path, and none of the flags that load code.
fn is_harmless(word: &str) -> bool {
    let plain = word.len() <= 40 && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".=-_".contains(&byte));
    plain && !LOADING.iter().any(|part| word.to_ascii_lowercase().contains(part))
}

/// Whether a word has only letters, digits and punctuation that no shell reads.
fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._=:/,+-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const IMAGE: &str = "image:public.ecr.aws/q9t5s3a7/vllm-ci-test-repo:1da94e673c257373280026f75ceb4effac80e892-cpu";

    #[test]
    fn a_command_of_a_plan_is_accepted_as_it_is() {
        let images = ImagesConfig::default();
        for command in [
            "vllm-perf run --base sim --head sim:itl=12ms --provider local --device cpu --suite examples/suite --pairs 3 --seed 7",
            "MODEL_FILTER='a/b c' PROMPTS_PER_CONCURRENCY=5 SERVING_JSON=mine.json vllm-perf run --base sim --head sim --device-type 'NVIDIA H100 80GB' --device-count 8 --client native --strategy single --budget 90m",
            &format!(
                "vllm-perf run --head {IMAGE} '--head-server-args=--max-num-seqs 1' --base none --only '_c(1|8)$'"
            ),
        ] {
            let again = checked(command, &images).unwrap();
            assert_eq!(shell_words::split(&again).unwrap(), shell_words::split(command).unwrap());
        }
    }

    #[test]
    fn a_command_that_could_do_anything_else_is_refused_with_the_word() {
        let images = ImagesConfig::default();
        let refusals = [
            "vllm-perf guard -- sh -c 'curl https://e.org | sh'",
            "vllm-perf publish out",
            "sh run",
            "vllm-perf run --head local:./evil",
            "vllm-perf run --head remote:http://169.254.169.254/",
            "vllm-perf run --head image:evil.example/vllm:main",
            "vllm-perf run --head image:public.ecr.aws/q9t5s3a7/vllm-ci-test-repo.evil:main",
            "vllm-perf run --base ../evil",
            "vllm-perf run --head sim --config evil.yml",
            "vllm-perf run --head sim --out /home/me",
            "vllm-perf run --head sim --store=s3://evil",
            "vllm-perf run --head sim --suite ../evil",
            "vllm-perf run --head sim --pairs 99",
            "vllm-perf run --head sim '--head-server-args=$(id)'",
            "vllm-perf run --head sim '--head-server-args=--trust-remote-code'",
            "vllm-perf run --head sim '--head-server-args=--tokenizer evil/canary'",
            "vllm-perf run --head local",
            "vllm-perf run --head sim --head local:vllm",
            "vllm-perf run --head",
            "vllm-perf run ; id",
            "LD_PRELOAD=evil.so vllm-perf run --head sim",
            "VLLM_PERF_HEAD=local:./evil vllm-perf run --base sim",
            "SERVING_JSON=../evil.json vllm-perf run --head sim",
            "MAX_NUM_PROMPTS='$(id)' vllm-perf run --head sim",
            "vllm-perf run --head sim --client ./evil",
            "vllm-perf run --head sim --budget '$(id)'",
            "vllm-perf run --head sim --device-type '`id`'",
        ]
        .map(|command| checked(command, &images).unwrap_err().to_string());
        insta::assert_snapshot!(refusals.join("\n"), @"
        `vllm-perf guard` is not `vllm-perf run`
        `vllm-perf publish` is not `vllm-perf run`
        `sh run` is not `vllm-perf run`
        `local:./evil` is not accepted for `--head`
        `remote:http://169.254.169.254/` is not accepted for `--head`
        `image:evil.example/vllm:main` is not accepted for `--head`
        `image:public.ecr.aws/q9t5s3a7/vllm-ci-test-repo.evil:main` is not accepted for `--head`
        `../evil` is not a target: expected image:REF, wheel:COMMIT, local[:PATH], remote:URL or sim[:key=value,...]; did you mean `local:../evil`?
        `--config` is not one of its flags
        `--out` is not one of its flags
        `--store` is not one of its flags
        `../evil` is not accepted for `--suite`
        `99` is not accepted for `--pairs`
        `$(id)` is not accepted for `--head-server-args`
        `--trust-remote-code` is not accepted for `--head-server-args`
        `--tokenizer evil/canary` is not accepted for `--head-server-args`
        `local` is not accepted for `--head`
        `--head` is given twice
        `--head` has no value
        `;` is not one of its flags
        `LD_PRELOAD` is not one of its variables
        `VLLM_PERF_HEAD` is not one of its variables
        `../evil.json` is not accepted for `SERVING_JSON`
        `$(id)` is not accepted for `MAX_NUM_PROMPTS`
        `./evil` is not accepted for `--client`
        `$(id)` is not accepted for `--budget`
        ``id`` is not accepted for `--device-type`
        ");
    }

    fn plan(strategy: &str, base: &str) -> Plan {
        let text = r#"{"schema": "vllm-perf/plan/v1", "trigger": {"run": true, "reason": ""},
                "event": {"provider": "local", "name": "local", "action": null, "changed_label": null, "repository": null,
                  "branch": null, "head_sha": null, "base_sha": null, "base_branch": null, "pull_request": null,
                  "labels": [], "labels_source": "flag", "fork": false},
                "device": {"name": "cpu", "type": "AMD_EPYC_2c", "count": 1, "image_suffix": "-cpu"},
                "sides": {"base": BASE,
                  "head": {"target": "sim:itl=12ms", "commit": null, "server_args": ["--max-num-seqs", "1"]}},
                "cases": [], "skipped": [], "strategy": "STRATEGY", "pairs": 3, "seed": 7}"#;
        serde_json::from_str(&text.replace("BASE", base).replace("STRATEGY", strategy)).unwrap()
    }

    fn command(plan: &Plan, flags: &[(&'static str, &str)], variables: &[(&str, &str)]) -> String {
        let flags = flags.iter().map(|(flag, value)| (*flag, (*value).to_owned())).collect();
        let environment = variables.iter().copied().collect();
        plan.reproduce(&MadeWith { suite: Path::new("my suite"), flags, environment: &environment })
    }

    const LOCAL: &str = r#"{"target": "local", "commit": null}"#;

    #[test]
    fn the_command_names_both_sides_and_quotes_words_with_spaces() {
        insta::assert_snapshot!(
            command(&plan("paired", LOCAL), &[("--only", "_c(1|8)$")], &[]),
            @"vllm-perf run --base local --head 'sim:itl=12ms' '--head-server-args=--max-num-seqs 1' --provider local --device cpu --suite 'my suite' --only '_c(1|8)$' --pairs 3 --seed 7"
        );
    }

    #[test]
    fn a_strategy_is_named_unless_it_is_the_default_of_the_sides() {
        for (strategy, base, expected) in [
            ("single", LOCAL, Some("--strategy single")),
            ("screen", LOCAL, Some("--strategy screen")),
            ("sequential", LOCAL, Some("--strategy sequential")),
            ("paired", LOCAL, None),
            ("single", "null", None),
        ] {
            let command = command(&plan(strategy, base), &[], &[]);
            assert_eq!(command.contains("--strategy"), expected.is_some(), "{command}");
            assert!(command.contains(expected.unwrap_or_default()), "{command}");
        }
    }

    #[test]
    fn variables_that_change_what_is_measured_stand_before_the_command() {
        let variables = [
            ("PROMPTS_PER_CONCURRENCY", "3"),
            ("MODEL_FILTER", "a/b c"),
            ("VLLM_USE_V1", "0"),
            ("VLLM_API_KEY", "canary"),
            ("VLLM_PERF_OUT", "out"),
            ("PATH", "/bin"),
            ("SLA_TTFT_MS", ""),
        ];
        let local = command(&plan("paired", LOCAL), &[("--client", "vllm"), ("--device-count", "4")], &variables);
        insta::assert_snapshot!(local, @"MODEL_FILTER='a/b c' PROMPTS_PER_CONCURRENCY=3 VLLM_USE_V1=0 vllm-perf run --base local --head 'sim:itl=12ms' '--head-server-args=--max-num-seqs 1' --provider local --device cpu --suite 'my suite' --client vllm --device-count 4 --pairs 3 --seed 7");
        let simulated = command(&plan("single", "null"), &[], &variables);
        assert!(simulated.starts_with("MODEL_FILTER='a/b c' PROMPTS_PER_CONCURRENCY=3 vllm-perf run "), "{simulated}");
    }
}
