//! The options of a Buildkite step, as flags. They come as one JSON text; their names are those of the flags.

use anyhow::{Context, Result, bail};
use indexmap::IndexMap;
use serde::Deserialize;

use crate::cli;
use crate::environment::Environment;
use crate::exit::Classify;

/// Options of the hooks alone: how the binary is installed.
const HOOK_ONLY: [&str; 5] = ["install", "bin", "version", "sha256", "verify-attestation"];

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Flag(bool),
    Number(serde_json::Number),
    Text(String),
}

/// Adds the plugin's options to the words of the command line, where the hook asks for it. A flag that was typed wins.
///
/// # Errors
/// An option that no command knows, or one that is no text, number or boolean.
pub fn words(mut words: Vec<String>, environment: &Environment) -> Result<Vec<String>> {
    if environment.get("VLLM_PERF_PLUGIN") != Some("true") {
        return Ok(words);
    }
    let Some(text) = environment.get("BUILDKITE_PLUGIN_CONFIGURATION") else { return Ok(words) };
    let options: IndexMap<String, Value> =
        serde_json::from_str(text).context("cannot read BUILDKITE_PLUGIN_CONFIGURATION").mistake()?;
    let definition = cli::definition(environment);
    let flags = |command: &clap::Command| -> Vec<String> {
        command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)).collect()
    };
    // `out` is a place among the arguments of the later commands, not a flag.
    let mut known: Vec<String> =
        definition.get_subcommands().filter(|command| !command.is_hide_set()).flat_map(flags).collect();
    known.extend(HOOK_ONLY.map(str::to_owned));
    let Some(command) = words.get(1).and_then(|name| definition.find_subcommand(name)) else { return Ok(words) };
    let takes = flags(command);
    let typed = words.clone();
    for (name, value) in options {
        if !known.contains(&name) {
            let nearest = known.iter().max_by(|a, b| strsim::jaro(a, &name).total_cmp(&strsim::jaro(b, &name)));
            let hint = nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"));
            return (|| bail!("the plugin has no option `{name}`{hint}"))().mistake();
        }
        let flag = format!("--{name}");
        if typed.iter().any(|word| *word == flag || word.starts_with(&format!("{flag}="))) {
            continue;
        }
        let value = match value {
            Value::Flag(value) => value.to_string(),
            Value::Number(value) => value.to_string(),
            Value::Text(value) => value,
        };
        if takes.contains(&name) {
            words.push(format!("{flag}={value}"));
        } else if name == "out" && ["publish", "verdict"].contains(&command.get_name()) && typed.len() == 2 {
            words.push(value);
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(configuration: &str, typed: &str) -> Result<String> {
        let environment: Environment =
            [("VLLM_PERF_PLUGIN", "true"), ("BUILDKITE_PLUGIN_CONFIGURATION", configuration)].into_iter().collect();
        words(typed.split(' ').map(str::to_owned).collect(), &environment).map(|words| words.join(" "))
    }

    #[test]
    fn each_command_takes_the_options_that_it_knows() {
        let options = r#"{"device": "cpu", "pairs": 3, "fail-on": "never", "out": "perf", "install": "path"}"#;
        assert_eq!(with(options, "vllm-perf run").unwrap(), "vllm-perf run --device=cpu --pairs=3 --out=perf");
        assert_eq!(with(options, "vllm-perf verdict").unwrap(), "vllm-perf verdict --fail-on=never perf");
    }

    #[test]
    fn a_typed_flag_wins_over_an_option() {
        assert_eq!(with(r#"{"pairs": 3}"#, "vllm-perf run --pairs 5").unwrap(), "vllm-perf run --pairs 5");
    }

    #[test]
    fn an_unknown_option_is_named_with_the_nearest_one() {
        let error = with(r#"{"devise": "cpu"}"#, "vllm-perf run").unwrap_err().to_string();
        assert_eq!(error, "the plugin has no option `devise`; did you mean `device`?");
    }
}
