//! Values of flags, other than words and numbers.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value};
use vllm_load::Api;

/// A backend of `vllm bench serve`, which selects the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Completions.
    Vllm,
    /// Completions.
    Openai,
    /// Chat completions.
    OpenaiChat,
    /// Embeddings.
    OpenaiEmbeddings,
    /// What a pooling model gives.
    VllmPooling,
}

impl Backend {
    /// Its name in vLLM.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Openai => "openai",
            Self::OpenaiChat => "openai-chat",
            Self::OpenaiEmbeddings => "openai-embeddings",
            Self::VllmPooling => "vllm-pooling",
        }
    }

    /// Its interface.
    pub fn api(self) -> Api {
        match self {
            Self::Vllm | Self::Openai => Api::Completions,
            Self::OpenaiChat => Api::Chat,
            Self::OpenaiEmbeddings => Api::Embeddings,
            Self::VllmPooling => Api::Pooling,
        }
    }
}

/// The kind of data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetName {
    /// Random tokens.
    Random,
    /// Conversations in the format of ShareGPT.
    Sharegpt,
    /// JSON lines.
    Custom,
    /// Lines of a text.
    Sonnet,
}

impl DatasetName {
    /// Its name in vLLM.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Sharegpt => "sharegpt",
            Self::Custom => "custom",
            Self::Sonnet => "sonnet",
        }
    }
}

/// A time of a request that has statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Timing {
    /// Time to first token.
    Ttft,
    /// Time per output token after the first.
    Tpot,
    /// Inter-token latency.
    Itl,
    /// End-to-end latency.
    E2el,
    /// From the due time of a request to its sending; with --max-concurrency only.
    ClientQueueTime,
    /// The sum of these two; with --max-concurrency and a finite --request-rate only.
    E2elIncludingClientQueue,
}

impl Timing {
    /// All timings, in the order of a result.
    pub const ALL: [Self; 6] =
        [Self::Ttft, Self::Tpot, Self::Itl, Self::E2el, Self::ClientQueueTime, Self::E2elIncludingClientQueue];

    /// Its name in the keys of a result.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::Tpot => "tpot",
            Self::Itl => "itl",
            Self::E2el => "e2el",
            Self::ClientQueueTime => "client_queue_time",
            Self::E2elIncludingClientQueue => "e2el_including_client_queue",
        }
    }
}

/// The longest time of a good request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// TTFT, TPOT or E2EL.
    pub timing: Timing,
    pub milliseconds: f64,
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, limit) = text.split_once(':').ok_or("expected METRIC:MILLISECONDS, such as ttft:200")?;
        let timings = [Timing::Ttft, Timing::Tpot, Timing::E2el];
        let timing = timings.into_iter().find(|timing| timing.as_str() == name);
        let timing = timing.ok_or_else(|| format!("`{name}` is none of ttft, tpot and e2el"))?;
        match limit.parse::<f64>() {
            Ok(milliseconds) if milliseconds >= 0.0 => Ok(Self { timing, milliseconds }),
            _ => Err(format!("`{limit}` is not a number of milliseconds")),
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.timing.as_str(), self.milliseconds)
    }
}

/// The parser of KEY=VALUE.
pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// The parser of a JSON object.
pub(super) fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for timing in Timing::ALL {
            assert_eq!(timing.to_possible_value().unwrap().get_name(), timing.as_str());
            assert_eq!(serde_json::to_string(&timing).unwrap(), format!("{:?}", timing.as_str()));
        }
        for backend in Backend::value_variants() {
            assert_eq!(backend.to_possible_value().unwrap().get_name(), backend.as_str());
            assert_eq!(serde_json::to_string(backend).unwrap(), format!("{:?}", backend.as_str()));
        }
        for dataset in DatasetName::value_variants() {
            assert_eq!(dataset.to_possible_value().unwrap().get_name(), dataset.as_str());
            assert_eq!(serde_json::to_string(dataset).unwrap(), format!("{:?}", dataset.as_str()));
        }
    }

    #[test]
    fn an_objective_is_a_metric_and_milliseconds() {
        let objective: Objective = "tpot:12.5".parse().unwrap();
        assert_eq!(objective, Objective { timing: Timing::Tpot, milliseconds: 12.5 });
        assert_eq!(objective.to_string(), "tpot:12.5");
        for text in ["ttft", "itl:5", "ttft:-1", "ttft:fast", "ttft:nan"] {
            assert!(text.parse::<Objective>().is_err(), "{text}");
        }
    }
}
