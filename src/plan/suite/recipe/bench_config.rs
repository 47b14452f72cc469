//! One config of a recipe's `vllm_bench`: the shape of a load at one or several concurrencies.

use std::fmt;

use anyhow::ensure;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};

use super::bench_arguments::BenchArguments;
use super::checked_text::Text;

/// Most repetitions of a config.
const MOST_REPETITIONS: u64 = 15;

/// A config.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchConfig {
    pub name: String,
    pub backend: Option<String>,
    /// Tokens of a prompt.
    pub input_len: u64,
    /// Tokens of an answer.
    pub output_len: u64,
    /// Prompts and concurrency of each run.
    loads: Vec<(u64, u64)>,
    /// Slices of a repetition; an odd number.
    pub repetitions: u32,
    pub args: BenchArguments,
}

/// A config at one concurrency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchRun {
    /// `<config>-conc-<concurrency>`.
    pub name: String,
    pub prompts: u64,
    pub concurrency: u64,
}

impl BenchRun {
    /// The run with the name of its recipe before its own.
    pub fn of(self, recipe: &str) -> Self {
        Self { name: format!("{recipe}-{}", self.name), ..self }
    }
}

impl BenchConfig {
    /// The runs, in the order of the file.
    pub fn runs(&self) -> impl Iterator<Item = BenchRun> + '_ {
        self.loads.iter().map(|&(prompts, concurrency)| BenchRun {
            name: format!("{}-conc-{concurrency}", self.name),
            prompts,
            concurrency,
        })
    }

    /// The words after `vllm bench serve`, without the address of the server and the file of the result.
    pub fn words(&self, model: &str, prompts: u64, concurrency: u64, trust_remote_code: bool) -> Vec<String> {
        let mut words = Vec::new();
        let mut flag = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
        if let Some(backend) = &self.backend {
            flag("--backend", backend);
            if backend == "openai-chat" {
                flag("--endpoint", "/v1/chat/completions");
            }
        }
        flag("--model", model);
        flag("--dataset-name", DATA_SET);
        flag("--num-prompts", &prompts.to_string());
        flag("--max-concurrency", &concurrency.to_string());
        words.extend(trust_remote_code.then(|| "--trust-remote-code".to_owned()));
        let mut flag = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
        flag("--random-input-len", &self.input_len.to_string());
        flag("--random-output-len", &self.output_len.to_string());
        words.push("--ignore-eos".to_owned());
        words.extend(self.args.words());
        words
    }
}

/// The only data set: that of a recipe with another has to be prepared by perf-eval.
const DATA_SET: &str = "random";

/// The fields of a config, as the file has them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    name: RunName,
    backend: Option<Word>,
    dataset: Option<String>,
    input_len: Count,
    output_len: Count,
    num_prompts: Counts,
    max_concurrency: Counts,
    repetitions: Option<Count>,
    #[serde(default)]
    args: BenchArguments,
    /// Only for the data set `speed_bench`, as in perf-eval.
    #[serde(rename = "speed_bench_dataset_subset")]
    _subset: Option<String>,
    #[serde(rename = "speed_bench_category")]
    _category: Option<String>,
}

impl Fields {
    fn checked(self) -> Result<BenchConfig, String> {
        match self.dataset.as_deref() {
            None | Some(DATA_SET) => {}
            Some(other) => return Err(format!("`dataset: {other}` is not measured: only `random` is")),
        }
        let repetitions = self.repetitions.map_or(1, |count| count.0);
        if repetitions.is_multiple_of(2) || repetitions > MOST_REPETITIONS {
            return Err(format!("`repetitions` must be an odd number up to {MOST_REPETITIONS}, not {repetitions}"));
        }
        let concurrencies = self.max_concurrency.values;
        let prompts = match (self.num_prompts.is_list, self.max_concurrency.is_list) {
            (true, false) => {
                return Err("`num_prompts` may be a list only where `max_concurrency` is one".to_owned());
            }
            (true, true) if self.num_prompts.values.len() != concurrencies.len() => {
                return Err(format!(
                    "`num_prompts` has {} values and `max_concurrency` has {}: they are pairs",
                    self.num_prompts.values.len(),
                    concurrencies.len()
                ));
            }
            (true, true) => self.num_prompts.values,
            (false, _) => self.num_prompts.values.repeat(concurrencies.len()),
        };
        if let Some(twice) = (1..concurrencies.len()).find(|at| concurrencies[..*at].contains(&concurrencies[*at])) {
            return Err(format!("`max_concurrency` has {} twice", concurrencies[twice]));
        }
        Ok(BenchConfig {
            name: self.name.0,
            backend: self.backend.map(|word| word.0),
            input_len: self.input_len.0,
            output_len: self.output_len.0,
            loads: prompts.into_iter().zip(concurrencies).collect(),
            repetitions: repetitions as u32,
            args: self.args,
        })
    }
}

impl<'de> Deserialize<'de> for BenchConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ConfigVisitor)
    }
}

/// Checks inside of the mapping, so that an error has its place.
struct ConfigVisitor;

impl<'de> Visitor<'de> for ConfigVisitor {
    type Value = BenchConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a config with `name`, `input_len`, `output_len`, `num_prompts` and `max_concurrency`")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BenchConfig, A::Error> {
        Fields::deserialize(MapAccessDeserializer::new(map))?.checked().map_err(A::Error::custom)
    }
}

/// A name that files can be named after.
pub(super) struct RunName(pub String);

impl<'de> Deserialize<'de> for RunName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("a name", |name| {
            let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+=@,:".contains(&byte);
            let refused = ["latency_", "startup_", "throughput_", "bench-", ".", "-"];
            let fits = (1..=120).contains(&name.len()) && name.bytes().all(harmless);
            ensure!(
                fits && !refused.iter().any(|beginning| name.starts_with(beginning)),
                "`{}` cannot name files: expected at most 120 letters, digits and ._-+=@,: that do not begin with {}",
                name.chars().take(60).collect::<String>(),
                refused.map(|beginning| format!("`{beginning}`")).join(", ")
            );
            Ok(Self(name.to_owned()))
        }))
    }
}

/// A text without spaces that is no flag.
pub(super) struct Word(pub String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("a word", |text| {
            let is_word = !text.is_empty()
                && !text.starts_with('-')
                && !text.contains(|c: char| c.is_whitespace() || c.is_control());
            ensure!(is_word, "`{text}` is not one word that is no flag");
            Ok(Self(text.to_owned()))
        }))
    }
}

/// A whole number from 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count(pub u64);

/// One count, or a list of them.
struct Counts {
    values: Vec<u64>,
    is_list: bool,
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor { list: false }).map(|counts| Self(counts.values[0]))
    }
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor { list: true })
    }
}

struct CountVisitor {
    /// Whether a list is taken.
    list: bool,
}

impl<'de> Visitor<'de> for CountVisitor {
    type Value = Counts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.list { "a whole number from 1, or a list of them" } else { "a whole number from 1" })
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Counts, E> {
        match value {
            0 => Err(E::invalid_value(Unexpected::Unsigned(0), &self)),
            value => Ok(Counts { values: vec![value], is_list: false }),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Counts, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(value), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Counts, A::Error> {
        if !self.list {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        let mut values = Vec::new();
        while let Some(Count(value)) = list.next_element()? {
            values.push(value);
        }
        match values.is_empty() {
            true => Err(A::Error::custom("the list is empty")),
            false => Ok(Counts { values, is_list: true }),
        }
    }
}
