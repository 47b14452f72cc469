//! Reads the text of a recipe strictly: an unknown field, a wrong type or a bad value is an error with file, line and column.
//! The file may be untrusted: reading it takes time and memory in proportion to its length.

use std::fmt;
use std::path::Path;

use anyhow::bail;
use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::Value;
use vllm_verdict::v1::Skipped;

use super::bench_arguments;
use super::bench_config::{BenchConfig, Count, RunName, Word};
use super::checked_text::Text;
use crate::escape;
use crate::plan::suite::parallel_sizes::ParallelSizes;
use crate::plan::suite::variable_names;

/// Longest recipe that is read, in bytes: ten times the longest of perf-eval. The YAML parser's time is quadratic in the
/// nesting.
pub const LONGEST_FILE: usize = 32 * 1024;
/// Longest reason, in characters: an untrusted file must not fill a report.
const LONGEST_REASON: usize = 1000;
/// Flags of the server that the command sets itself.
const OWN_SERVER_FLAGS: [&str; 4] = ["--host", "--model", "--port", "--uds"];

/// The text of a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeFile {
    /// For messages.
    pub path: String,
    pub text: String,
}

/// A recipe.
#[derive(Debug)]
pub struct Recipe {
    pub path: String,
    pub name: String,
    /// Part of the device type: `H200`.
    pub gpu: String,
    pub num_gpus: u64,
    pub timeout_in_minutes: Option<u64>,
    pub model: String,
    pub image: Option<String>,
    pub env: IndexMap<String, String>,
    pub serve_args: Vec<String>,
    /// The parallel sizes of the server.
    pub sizes: ParallelSizes,
    /// A config that breaks a rule is there with the reason.
    pub configs: Vec<Result<BenchConfig, Skipped>>,
    /// The blocks that measure accuracy.
    pub accuracy_blocks: Vec<&'static str>,
}

impl Recipe {
    /// The value of a flag of the server; empty without one.
    pub fn flag(&self, name: &str) -> &str {
        let words = &self.serve_args;
        let value = words.iter().enumerate().rev().find_map(|(at, word)| match word.split_once('=') {
            Some((flag, value)) => (flag == name).then_some(value),
            None if word == name => words.get(at + 1).map(String::as_str),
            None => None,
        });
        value.unwrap_or_default()
    }

    /// Whether the server runs code of the model; perf-eval tells the client, too.
    pub fn trusts_remote_code(&self) -> bool {
        self.serve_args.iter().any(|word| match word.split_once('=') {
            Some((flag, value)) => {
                flag == "--trust-remote-code" && ["true", "True", "1", "yes", "Yes"].contains(&value)
            }
            None => word == "--trust-remote-code",
        })
    }
}

/// The recipe of a file.
///
/// # Errors
/// The text is not a recipe: the reason as `file:line:column: field: what is wrong`.
pub fn read(file: &RecipeFile) -> Result<Recipe, Skipped> {
    let stem = Path::new(&file.path).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let broken = |reason: String| Skipped::invalid(escape::name(&stem), reason);
    if file.text.len() > LONGEST_FILE {
        return Err(broken(format!("{}: a recipe has at most {} KiB", file.path, LONGEST_FILE / 1024)));
    }
    let text = file.text.strip_prefix('\u{feff}').unwrap_or(&file.text);
    let fields: Fields = serde_yaml::from_str(text).map_err(|error| broken(explained(&error, &file.path)))?;
    let count = fields.vllm_bench.as_ref().map_or(0, |bench| bench.configs.len());
    let config = |index: usize| {
        let seed = At { keys: &["vllm_bench", "configs"], index };
        seed.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
            let name = fields.vllm_bench.as_ref().and_then(|bench| bench.configs.get(index)?.get("name")?.as_str());
            let name = name.map_or_else(|| format!("{stem}: config {}", index + 1), escape::name);
            Skipped::invalid(name, explained(&error, &file.path))
        })
    };
    let configs = (0..count).map(config).collect();
    let blocks = [("lm_eval", fields.lm_eval.is_some()), ("bfcl", fields.bfcl.is_some())];
    let accuracy_blocks: Vec<&str> =
        blocks.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect();
    if count == 0 && accuracy_blocks.is_empty() {
        return Err(broken(format!("{}: it has no `vllm_bench.configs`", file.path)));
    }
    let ServeArgs { words: serve_args, sizes } = fields.vllm.serve_args.unwrap_or_default();
    Ok(Recipe {
        path: file.path.clone(),
        name: fields.name.map_or(stem, |name| name.0),
        gpu: fields.gpu.0,
        num_gpus: fields.num_gpus.map_or(1, |count| count.0),
        timeout_in_minutes: fields.timeout_in_minutes.map(|count| count.0),
        model: fields.vllm.model.0,
        image: fields.vllm.image.map(|image| image.0),
        env: fields.vllm.env.0,
        serve_args,
        sizes,
        configs,
        accuracy_blocks,
    })
}

/// The fields of a recipe. Those that decide when perf-eval runs it are read and not used.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    name: Option<RunName>,
    gpu: Word,
    num_gpus: Option<Count>,
    #[serde(rename = "nightly")]
    _nightly: Option<bool>,
    #[serde(rename = "bench_only")]
    _bench_only: Option<bool>,
    timeout_in_minutes: Option<Count>,
    vllm: ServerFields,
    vllm_bench: Option<BenchFields>,
    lm_eval: Option<IgnoredAny>,
    bfcl: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerFields {
    model: Word,
    image: Option<Word>,
    #[serde(default)]
    env: Variables,
    serve_args: Option<ServeArgs>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BenchFields {
    /// Untyped, so that one that breaks a rule loses only itself.
    #[serde(default)]
    configs: Vec<Value>,
    /// What perf-eval writes into its rows in place of what the recipe says.
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
}

/// The variables of the server, as texts.
#[derive(Default)]
struct Variables(IndexMap<String, String>);

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VariablesVisitor)
    }
}

struct VariablesVisitor;

impl<'de> Visitor<'de> for VariablesVisitor {
    type Value = Variables;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of variables")
    }

    fn visit_unit<E: Error>(self) -> Result<Variables, E> {
        Ok(Variables::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Variables, A::Error> {
        let mut variables = IndexMap::new();
        while let Some(VariableName(name)) = map.next_key()? {
            let text = bench_arguments::word(&map.next_value::<Value>()?).map_err(A::Error::custom)?;
            variable_names::check_value(&name, &text).map_err(A::Error::custom)?;
            if variables.insert(name.clone(), text).is_some() {
                return Err(A::Error::custom(format_args!("`{name}` is set twice")));
            }
        }
        Ok(Variables(variables))
    }
}

struct VariableName(String);

impl<'de> Deserialize<'de> for VariableName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("the name of a variable", |name| {
            variable_names::check(name)?;
            Ok(Self(name.to_owned()))
        }))
    }
}

/// The words of the server. perf-eval splits them at spaces alone: a quote is part of its word.
#[derive(Default)]
struct ServeArgs {
    words: Vec<String>,
    sizes: ParallelSizes,
}

impl<'de> Deserialize<'de> for ServeArgs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("the words of the server in one text", |text| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            let name = |word: &String| word.split('=').next().unwrap_or_default().replace('_', "-");
            if let Some(own) = words.iter().find(|word| OWN_SERVER_FLAGS.contains(&name(word).as_str())) {
                bail!("`{own}` is set by the command itself");
            }
            Ok(Self { sizes: ParallelSizes::of(&words)?, words })
        }))
    }
}

/// Reads one item of a list in a document: at the end of `keys`, the one with this index. An error has its place in the file.
#[derive(Clone, Copy)]
struct At<'a> {
    keys: &'a [&'static str],
    index: usize,
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = BenchConfig;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<BenchConfig, D::Error> {
        match self.keys.is_empty() {
            true => deserializer.deserialize_seq(self),
            false => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = BenchConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of configs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BenchConfig, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            match self.keys.split_first() {
                Some((first, rest)) if *first == key => found = Some(map.next_value_seed(At { keys: rest, ..self })?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        found.ok_or_else(|| A::Error::custom("it has no configs"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<BenchConfig, A::Error> {
        for _ in 0..self.index {
            list.next_element::<IgnoredAny>()?;
        }
        let found = list.next_element::<BenchConfig>()?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        found.ok_or_else(|| A::Error::custom("it has no such config"))
    }
}

/// The error as `file:line:column: message`.
fn explained(error: &serde_yaml::Error, file: &str) -> String {
    let message = error.to_string();
    let text = match error.location() {
        Some(at) => {
            let (line, column) = (at.line(), at.column());
            format!("{file}:{line}:{column}: {}", message.replacen(&format!(" at line {line} column {column}"), "", 1))
        }
        None => format!("{file}: {message}"),
    };
    escape::clean(text.replace("unit value", "nothing"), LONGEST_REASON)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
name: a
gpu: H200
vllm:
  model: m
  serve_args: -tp 2
  env:
    VLLM_A: 1
vllm_bench:
  configs:
    - name: one
      input_len: 8
      output_len: 8
      num_prompts: 4
      max_concurrency: 2
    - name: two
      input_len: 8
      output_len: 8
      num_prompts: 4
      max_concurrency: [2, 4]
      args:
        seed: 1
";

    fn of(text: &str) -> Result<Recipe, Skipped> {
        read(&RecipeFile { path: "w/a.yaml".into(), text: text.into() })
    }

    /// Every reason of a recipe with one thing replaced.
    fn reasons(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        let reasons = match of(&GOOD.replacen(from, to, 1)) {
            Ok(recipe) => recipe.configs.into_iter().filter_map(Result::err).collect(),
            Err(skipped) => vec![skipped],
        };
        assert!(reasons.iter().all(|reason| reason.invalid));
        let lines = reasons.iter().map(|it| format!("{} | {}", it.name.raw(), it.reason.raw()));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_mistake_names_file_line_and_field() {
        let mistakes = [
            ("gpu: H200", "gpus: H200"),
            ("gpu: H200\n", ""),
            ("gpu: H200", "gpu: H200\nnum_gpus: 0"),
            ("gpu: H200", "gpu: H200\nnightly: sometimes"),
            ("name: a", "name: ../a"),
            ("  model: m", "  model: [m]"),
            ("  model: m", "  modell: m"),
            ("serve_args: -tp 2", "serve_args: [-tp, 2]"),
            ("serve_args: -tp 2", "serve_args: -tp 2 --port=80"),
            ("serve_args: -tp 2", "serve_args: -tp two"),
            ("VLLM_A: 1", "LD_PRELOAD: /x.so"),
            ("VLLM_A: 1", "HF_HOME: /x"),
            ("    - name: one", "    - nam: one"),
            ("input_len: 8", "input_len: eight"),
            ("input_len: 8", "input_len: 8.5"),
            ("num_prompts: 4", "num_prompts: [4, 5]"),
            ("max_concurrency: 2", "max_concurrency: []"),
            ("max_concurrency: 2", "max_concurrency: [2, 2]"),
            ("max_concurrency: 2", "repetitions: 2\n      max_concurrency: 2"),
            ("max_concurrency: 2", "dataset: sharegpt\n      max_concurrency: 2"),
            ("        seed: 1", "        num_prompts: 1"),
            ("        seed: 1", "        seed: 1\n        --seed: 2"),
            ("        seed: 1", "        result_filename: /etc/x"),
            ("  configs:", "  configs: 7\n  more:"),
        ];
        let lines: Vec<String> = mistakes.into_iter().map(|(from, to)| reasons(from, to)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        a | w/a.yaml:2:1: unknown field `gpus`, expected one of `name`, `gpu`, `num_gpus`, `nightly`, `bench_only`, `timeout_in_minutes`, `vllm`, `vllm_bench`, `lm_eval`, `bfcl`
        a | w/a.yaml:1:1: missing field `gpu`
        a | w/a.yaml:3:11: num_gpus: invalid value: integer `0`, expected a whole number from 1
        a | w/a.yaml:3:10: nightly: invalid type: string "sometimes", expected a boolean
        a | w/a.yaml:1:7: name: `../a` cannot name files: expected at most 120 letters, digits and ._-+=@,: that do not begin with `latency_`, `startup_`, `throughput_`, `bench-`, `.`, `-`
        a | w/a.yaml:4:10: vllm.model: invalid type: sequence, expected a word
        a | w/a.yaml:4:3: vllm: unknown field `modell`, expected one of `model`, `image`, `env`, `serve_args`
        a | w/a.yaml:5:15: vllm.serve_args: invalid type: sequence, expected the words of the server in one text
        a | w/a.yaml:5:15: vllm.serve_args: `--port=80` is set by the command itself
        a | w/a.yaml:5:15: vllm.serve_args: `-tp` must be a whole number from 1, not `two`
        a | w/a.yaml:7:5: vllm.env: a test file may not set `LD_PRELOAD`: it decides about which code programs load, outside of the server under test
        a | w/a.yaml:7:5: vllm.env: a test file may not set `HF_HOME`: it decides about credentials, outside of the server under test
        a: config 1 | w/a.yaml:10:7: vllm_bench.configs[0]: unknown field `nam`, expected one of `name`, `backend`, `dataset`, `input_len`, `output_len`, `num_prompts`, `max_concurrency`, `repetitions`, `args`, `speed_bench_dataset_subset`, `speed_bench_category`
        one | w/a.yaml:11:18: vllm_bench.configs[0].input_len: invalid type: string "eight", expected a whole number from 1
        one | w/a.yaml:11:18: vllm_bench.configs[0].input_len: invalid type: floating point `8.5`, expected a whole number from 1
        one | w/a.yaml:10:7: vllm_bench.configs[0]: `num_prompts` may be a list only where `max_concurrency` is one
        one | w/a.yaml:14:24: vllm_bench.configs[0].max_concurrency: the list is empty
        one | w/a.yaml:10:7: vllm_bench.configs[0]: `max_concurrency` has 2 twice
        one | w/a.yaml:10:7: vllm_bench.configs[0]: `repetitions` must be an odd number up to 15, not 2
        one | w/a.yaml:10:7: vllm_bench.configs[0]: `dataset: sharegpt` is not measured: only `random` is
        two | w/a.yaml:21:9: vllm_bench.configs[1].args: `num_prompts` is set by the command itself: use the fields of the config, such as `num_prompts` or `backend`
        two | w/a.yaml:21:9: vllm_bench.configs[1].args: `--seed` is set twice
        two | w/a.yaml:21:9: vllm_bench.configs[1].args: `result_filename` is set by the command itself: use the fields of the config, such as `num_prompts` or `backend`
        a | w/a.yaml:9:12: vllm_bench.configs: invalid type: integer `7`, expected a sequence
        "#);
    }

    #[test]
    fn a_recipe_without_a_load_or_one_that_is_too_long_is_left_out() {
        let reason = |text: &str| of(text).unwrap_err().reason.raw().to_owned();
        assert_eq!(reason("gpu: H200\nvllm: {model: m}"), "w/a.yaml: it has no `vllm_bench.configs`");
        assert_eq!(reason(&"#".repeat(LONGEST_FILE + 1)), "w/a.yaml: a recipe has at most 32 KiB");
        let accuracy = of("gpu: H200\nvllm: {model: m}\nlm_eval: {tasks: []}").unwrap();
        assert_eq!((accuracy.name.as_str(), accuracy.accuracy_blocks), ("a", vec!["lm_eval"]));
    }

    #[test]
    fn words_of_the_server_keep_their_quotes() {
        let text = GOOD.replace("-tp 2", "'-tp 2  --compilation-config {\"mode\":0} --trust-remote-code=true'");
        let recipe = of(&text).unwrap();
        assert_eq!(recipe.serve_args[3], "{\"mode\":0}");
        assert!(recipe.trusts_remote_code());
        assert_eq!((recipe.flag("-tp"), recipe.flag("--dtype")), ("2", ""));
        assert!(!of(GOOD).unwrap().trusts_remote_code());
    }
}
