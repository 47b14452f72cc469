//! The options of a Buildkite step, as flags. They are one JSON text, and their names are those of the flags. They are
//! checked against `plugin.yml`, which the agent does not do by default.

use anyhow::{Context, Result, bail, ensure};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use super::arguments;
use crate::environment::Environment;
use crate::exit::Classify;

/// The definition of the plugin in this repository.
const PLUGIN: &str = include_str!("../../plugin.yml");

#[derive(Deserialize)]
struct Plugin {
    configuration: Configuration,
}

#[derive(Deserialize)]
struct Configuration {
    properties: IndexMap<String, Property>,
}

/// The schema of an option, with only the keywords of JSON Schema that `plugin.yml` uses.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Property {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(rename = "description")]
    _description: String,
    #[serde(rename = "enum", default)]
    choices: Vec<String>,
    minimum: Option<i64>,
    maximum: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    String,
    Integer,
    Boolean,
}

/// Adds the plugin's options to the words of the command line, if the hook requests it. An option does not replace a flag
/// on the command line.
///
/// # Errors
/// The user's mistake: an option that the plugin does not have, or a value that the option does not allow.
pub fn words(mut words: Vec<String>, environment: &Environment) -> Result<Vec<String>> {
    if environment.get("VLLM_PERF_PLUGIN") != Some("true") {
        return Ok(words);
    }
    let Some(text) = environment.get("BUILDKITE_PLUGIN_CONFIGURATION") else { return Ok(words) };
    let options = options(text).mistake()?;
    let definition = arguments::definition(environment);
    let Some(command) = words.get(1).and_then(|name| definition.find_subcommand(name)) else { return Ok(words) };
    let takes = |name: &str| command.get_arguments().any(|argument| argument.get_long() == Some(name));
    let typed = words.clone();
    for (name, value) in options {
        let flag = format!("--{name}");
        if typed.iter().any(|word| *word == flag || word.starts_with(&format!("{flag}="))) {
            continue;
        }
        if takes(&name) {
            words.push(format!("{flag}={value}"));
        } else if name == "out" && ["publish", "verdict"].contains(&command.get_name()) && typed.len() == 2 {
            // These commands take the output folder as an argument, not as a flag.
            words.push(value);
        }
    }
    Ok(words)
}

/// The options of a step, as the words of flags.
fn options(text: &str) -> Result<IndexMap<String, String>> {
    let options: IndexMap<String, Value> =
        serde_json::from_str(text).context("cannot read BUILDKITE_PLUGIN_CONFIGURATION as a map of options")?;
    let plugin: Plugin = serde_yaml::from_str(PLUGIN).context("cannot read plugin.yml")?;
    let known = plugin.configuration.properties;
    options
        .into_iter()
        .map(|(name, value)| {
            let Some(property) = known.get(&name) else {
                let nearest = known.keys().max_by(|a, b| strsim::jaro(a, &name).total_cmp(&strsim::jaro(b, &name)));
                let hint = nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"));
                bail!("the plugin has no option `{name}`{hint}");
            };
            let value = property.word(&value).with_context(|| format!("the plugin's option `{name}`"))?;
            Ok((name, value))
        })
        .collect()
}

impl Property {
    /// The value as a word for the command line.
    fn word(&self, value: &Value) -> Result<String> {
        let word = match (self.kind, value) {
            (Kind::String, Value::String(text)) => text.clone(),
            (Kind::Boolean, Value::Bool(value)) => value.to_string(),
            (Kind::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => number.to_string(),
            _ => bail!("`{value}` is not {}", self.expected()),
        };
        let allowed = self.choices.is_empty() || self.choices.contains(&word);
        let number = value.as_i64();
        let above = self.minimum.is_none_or(|least| number.is_some_and(|number| number >= least));
        let below = self.maximum.is_none_or(|most| number.is_some_and(|number| number <= most));
        ensure!(allowed && above && below, "`{word}` is not {}", self.expected());
        Ok(word)
    }

    fn expected(&self) -> String {
        match (self.kind, self.choices.as_slice()) {
            (Kind::String, []) => "a text: quote it".to_owned(),
            (Kind::String, choices) => format!("one of {}", choices.join(", ")),
            (Kind::Boolean, _) => "true or false, without quotes".to_owned(),
            (Kind::Integer, _) => match (self.minimum, self.maximum) {
                (Some(least), Some(most)) => format!("a whole number, {least} to {most}, without quotes"),
                _ => "a whole number, without quotes".to_owned(),
            },
        }
    }
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
        let options_of_publish =
            r#"{"config": "ci/perf.yml", "store": "s3://b", "comment-failure": "error", "pairs": 3}"#;
        assert_eq!(
            with(options_of_publish, "vllm-perf publish").unwrap(),
            "vllm-perf publish --config=ci/perf.yml --store=s3://b --comment-failure=error"
        );
        assert_eq!(with(options, "vllm-perf verdict").unwrap(), "vllm-perf verdict --fail-on=never perf");
    }

    #[test]
    fn a_flag_on_the_command_line_wins_over_an_option() {
        assert_eq!(with(r#"{"pairs": 3}"#, "vllm-perf run --pairs 5").unwrap(), "vllm-perf run --pairs 5");
    }

    #[test]
    fn an_unknown_option_and_an_invalid_value_are_named() {
        let refused = |options: &str| {
            let error = with(options, "vllm-perf run").unwrap_err();
            assert_eq!(crate::exit::of(&error), crate::exit::Exit::Mistake);
            format!("{error:#}")
        };
        for (options, said) in [
            (r#"{"devise": "cpu"}"#, "the plugin has no option `devise`; did you mean `device`?"),
            (r#"{"device-count": 2}"#, "the plugin has no option `device-count`; did you mean `device`?"),
            (
                r#"{"pairs": null}"#,
                "the plugin's option `pairs`: `null` is not a whole number, 1 to 10, without quotes",
            ),
            (
                r#"{"pairs": "3"}"#,
                "the plugin's option `pairs`: `\"3\"` is not a whole number, 1 to 10, without quotes",
            ),
            (r#"{"pairs": 99}"#, "the plugin's option `pairs`: `99` is not a whole number, 1 to 10, without quotes"),
            (r#"{"pairs": 2.5}"#, "the plugin's option `pairs`: `2.5` is not a whole number, 1 to 10, without quotes"),
            (r#"{"only": ["a", "b"]}"#, "the plugin's option `only`: `[\"a\",\"b\"]` is not a text: quote it"),
            (r#"{"bin": 3}"#, "the plugin's option `bin`: `3` is not a text: quote it"),
            (
                r#"{"fail-on": "improved"}"#,
                "the plugin's option `fail-on`: `improved` is not one of regressed, inconclusive, never",
            ),
        ] {
            assert_eq!(refused(options), said);
        }
        for broken in ["[]", "{\"pairs\": 3", "null"] {
            let error = refused(broken);
            assert!(error.starts_with("cannot read BUILDKITE_PLUGIN_CONFIGURATION as a map of options"), "{error}");
        }
    }
}
