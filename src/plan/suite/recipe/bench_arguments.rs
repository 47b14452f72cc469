//! `args` of a recipe's config: further flags of `vllm bench serve`, as words. Flags that the command sets itself are errors.

use std::fmt;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_yaml::Value;

use super::checked_text::Text;
use crate::plan::serve_flags::flag_names;

/// What the command of a run sets itself.
const OWN: [&str; 23] = [
    "backend",
    "base-url",
    "dataset-name",
    "dataset-path",
    "endpoint",
    "host",
    "ignore-eos",
    "max-concurrency",
    "model",
    "num-prompts",
    "port",
    "random-input-len",
    "random-output-len",
    "result-dir",
    "result-filename",
    "save-result",
    "append-result",
    "skip-tokenizer-init",
    "speed-bench-category",
    "speed-bench-dataset-subset",
    "speed-bench-output-len",
    "trust-remote-code",
    "help",
];

/// Further flags, each with its words.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BenchArguments(Vec<(String, Vec<String>)>);

impl BenchArguments {
    /// The words of the command line.
    pub fn words(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().flat_map(|(_, words)| words.iter().cloned())
    }

    /// The value of a flag, where it has one.
    pub fn value(&self, flag: &str) -> Option<&str> {
        let (_, words) = self.0.iter().find(|(name, _)| name == flag)?;
        words.get(1).map(String::as_str)
    }
}

impl<'de> Deserialize<'de> for BenchArguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ArgumentsVisitor)
    }
}

struct ArgumentsVisitor;

impl<'de> Visitor<'de> for ArgumentsVisitor {
    type Value = BenchArguments;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of flags of `vllm bench serve`")
    }

    fn visit_unit<E: Error>(self) -> Result<BenchArguments, E> {
        Ok(BenchArguments::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BenchArguments, A::Error> {
        let mut arguments = BenchArguments::default();
        while let Some(FlagName(name)) = map.next_key()? {
            if arguments.0.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format_args!("`--{name}` is set twice")));
            }
            let FlagWords(values) = map.next_value()?;
            let flag = format!("--{name}");
            let words = values.into_iter().flat_map(|value| std::iter::once(flag.clone()).chain(value)).collect();
            arguments.0.push((name, words));
        }
        Ok(arguments)
    }
}

/// The full name of a flag, without its hyphens.
struct FlagName(String);

impl<'de> Deserialize<'de> for FlagName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("the name of a flag", |text| name(text).map(Self)))
    }
}

fn name(text: &str) -> anyhow::Result<String> {
    let plain = text.trim_start_matches('-').replace('_', "-");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    ensure!(!plain.is_empty() && plain.bytes().all(is_plain), "`{text}` is not the name of a flag");
    let full = flag_names::full(&format!("--{plain}")).map_err(anyhow::Error::msg)?.into_owned();
    let name = full.strip_prefix("--").context("a flag begins with `--`")?.to_owned();
    ensure!(
        !OWN.contains(&name.as_str()),
        "`{text}` is set by the command itself: use the fields of the config, such as `num_prompts` or `backend`"
    );
    Ok(name)
}

/// The values of a flag, one for each time that it stands on the command line; `None` is a bare flag.
struct FlagWords(Vec<Option<String>>);

impl<'de> Deserialize<'de> for FlagWords {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = match Value::deserialize(deserializer)? {
            Value::Bool(true) => vec![None],
            Value::Bool(false) | Value::Null => Vec::new(),
            Value::Sequence(values) => {
                values.iter().map(|value| word(value).map(Some)).collect::<Result<_, _>>().map_err(D::Error::custom)?
            }
            value => vec![Some(word(&value).map_err(D::Error::custom)?)],
        };
        Ok(Self(values))
    }
}

/// A value as one word, as Python writes it; an object or a list as JSON.
pub(super) fn word(value: &Value) -> Result<String, String> {
    Ok(match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) if number.is_infinite() => "inf".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Sequence(_) | Value::Mapping(_) => {
            serde_json::to_string(value).map_err(|error| format!("it cannot be written as JSON: {error}"))?
        }
        Value::Tagged(_) => return Err("a value with a tag is not read".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(yaml: &str) -> Result<String, String> {
        let arguments: BenchArguments = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
        Ok(shell_words::join(arguments.words()))
    }

    #[test]
    fn every_kind_of_value_becomes_the_words_of_perf_eval() {
        for (yaml, expected) in [
            ("num_warmups: 128", "--num-warmups 128"),
            ("--disable-tqdm: true", "--disable-tqdm"),
            ("{disable_tqdm: false, seed: null}", ""),
            ("{temperature: 0.5, request_rate: inf}", "--temperature 0.5 --request-rate inf"),
            ("header: [a=1, b=2]", "--header 'a=1' --header 'b=2'"),
            ("goodput: [{ttft: 1}, true]", "--goodput '{\"ttft\":1}' --goodput True"),
            ("extra_body: {top_k: 1, stop: [a]}", "--extra-body '{\"top_k\":1,\"stop\":[\"a\"]}'"),
            ("some_flag_of_later: a b", "--some-flag-of-later 'a b'"),
            ("num_warm: 3", "--num-warmups 3"),
            ("~", ""),
        ] {
            assert_eq!(words(yaml).as_deref(), Ok(expected), "{yaml}");
        }
    }

    #[test]
    fn what_the_command_sets_itself_cannot_be_set_however_it_is_spelled() {
        for name in OWN {
            let spelled = name.replace('-', "_");
            for key in [name.to_owned(), spelled.clone(), format!("--{name}"), format!("--{spelled}")] {
                assert!(words(&format!("{key}: 1")).is_err(), "{key}");
            }
        }
        for yaml in ["num_prom: 5", "max_conc: 5", "\"\": 1", "--: 1", "\"a b\": 1", "{seed: 1, --seed: 2}", "[a]"] {
            assert!(words(yaml).is_err(), "{yaml}");
        }
        insta::assert_snapshot!(words("seed: 1\nnum_prompts: 5").unwrap_err(), @"`num_prompts` is set by the command itself: use the fields of the config, such as `num_prompts` or `backend` at line 2 column 1");
    }
}
