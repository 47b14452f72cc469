//! The commands that made a result, as `<case>.commands` keeps them.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::plan::suite::parallel_sizes::ParallelSizes;

/// `<case>.commands`: upstream's keys, and only those that its kind of test has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Commands {
    /// The server; serving tests only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_command: Option<String>,
    /// The load client; serving tests only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_command: Option<String>,
    /// `vllm bench latency`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_command: Option<String>,
    /// `vllm bench throughput`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput_command: Option<String>,
    /// `vllm bench startup`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_command: Option<String>,
    /// Device type, a line for each device.
    pub gpu_type: String,
}

impl Commands {
    /// The model: `--model` of the measuring command, or the word after `serve`.
    pub fn model(&self) -> Option<String> {
        [&self.client_command, &self.latency_command, &self.throughput_command, &self.startup_command]
            .into_iter()
            .flatten()
            .find_map(|command| flags(command).swap_remove("--model"))
            .or_else(|| {
                let words = command_words(self.server_command.as_deref()?);
                words.iter().position(|word| word == "serve").and_then(|serve| words.get(serve + 1).cloned())
            })
    }
}

/// The flags of a command and their values. A flag without a value has an empty one; of duplicated flags the last counts.
pub fn flags(command: &str) -> IndexMap<String, String> {
    let words = command_words(command);
    let mut flags = IndexMap::new();
    for (index, word) in words.iter().enumerate().filter(|(_, word)| word.starts_with("--")) {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, value),
            None => (word.as_str(), words.get(index + 1).filter(|next| !next.starts_with("--")).map_or("", |v| v)),
        };
        flags.insert(flag.to_owned(), value.to_owned());
    }
    flags
}

/// The parallel sizes of a command. One with a value that is not a size names none.
pub fn parallel_sizes(command: &str) -> ParallelSizes {
    ParallelSizes::of(&command_words(command)).unwrap_or_default()
}

/// The words of a command.
pub fn command_words(command: &str) -> Vec<String> {
    // Hand-written files may have quotes that are not closed: white space separates most words there.
    shell_words::split(command).unwrap_or_else(|_| command.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_has_the_value_that_follows_it_or_that_it_contains() {
        let command =
            "A=1 vllm serve m --enforce-eager --dtype bfloat16 --seed=7 --limit '{\"image\": 2}' --dtype auto";
        let flags = flags(command);
        assert_eq!(flags["--enforce-eager"], "");
        assert_eq!((flags["--dtype"].as_str(), flags["--seed"].as_str()), ("auto", "7"));
        assert_eq!(flags["--limit"], r#"{"image": 2}"#);
    }

    #[test]
    fn the_model_is_that_of_the_client_or_else_of_the_server() {
        let server = Commands { server_command: Some("A=1 vllm serve org/m --tp 1".into()), ..Commands::default() };
        assert_eq!(server.model().as_deref(), Some("org/m"));
        let both = Commands { client_command: Some("vllm bench serve --model n".into()), ..server };
        assert_eq!(both.model().as_deref(), Some("n"));
        assert_eq!(Commands::default().model(), None);
    }
}
