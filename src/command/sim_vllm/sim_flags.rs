//! The command line of the simulated `vllm`.

use std::str::FromStr;

use anyhow::{Context, Result};

/// The words after a subcommand. vLLM has hundreds of flags; the simulation uses a few and ignores the others.
pub struct SimFlags {
    first: Option<String>,
    named: Vec<(String, Option<String>)>,
}

impl SimFlags {
    /// Parses `--name value`, `--name=value` and `--name`, with `-` or `_`, and a first word that is not a flag.
    pub fn parse(words: &[&str]) -> Self {
        let mut named: Vec<(String, Option<String>)> = Vec::new();
        for word in words {
            if let Some(flag) = word.strip_prefix("--") {
                let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
                named.push((name.replace('_', "-"), value.map(str::to_owned)));
            } else if let Some((_, value @ None)) = named.last_mut() {
                *value = Some((*word).to_owned());
            }
        }
        let first = words.first().filter(|word| !word.starts_with('-')).map(|word| (*word).to_owned());
        Self { first, named }
    }

    /// The last value of a flag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.named.iter().rev().find(|(flag, _)| flag == name).and_then(|(_, value)| value.as_deref())
    }

    /// The value of a flag, parsed.
    ///
    /// # Errors
    /// The value is not a `T`.
    pub fn value<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        self.get(name)
            .map(|value| value.parse().ok().with_context(|| format!("`--{name} {value}`: not a number in range")))
            .transpose()
    }

    /// The model: the first word, or `--model`.
    ///
    /// # Errors
    /// There is neither.
    pub fn model(&self) -> Result<&str> {
        self.first.as_deref().or_else(|| self.get("model")).context("no model: give its name, or --model NAME")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_parsed_in_every_spelling_and_the_last_one_is_used() {
        let words = "org/model --max_num_seqs 256 --trust-remote-code --port=81 --max-num-seqs 4 --enforce-eager";
        let flags = SimFlags::parse(&words.split(' ').collect::<Vec<_>>());
        assert_eq!(flags.model().unwrap(), "org/model");
        assert_eq!(flags.value::<usize>("max-num-seqs").unwrap(), Some(4));
        assert_eq!(flags.get("port"), Some("81"));
        assert_eq!(flags.get("trust-remote-code"), None);
        assert_eq!(flags.get("host"), None);
    }
}
