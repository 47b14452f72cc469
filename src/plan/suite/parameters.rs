//! Parameters of a test as words of a command line, as upstream's script and its shell make them.

use anyhow::{Context, bail, ensure};
use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::variable_names;

/// A JSON object of a test file, in the order of the file.
pub type Parameters = Map<String, Value>;

/// The words of `parameters`, without those named in `omitted` (spelled with `_`).
///
/// `{"tensor_parallel_size": 1}` is `--tensor-parallel-size 1`. `""` is a bare flag; a string is split as a POSIX
/// shell would; any other value is its JSON text in one word.
///
/// # Errors
/// `null`, or a string that a shell could not split; the text names `section` and key.
pub fn words(section: &str, parameters: &Parameters, omitted: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    for (key, value) in parameters {
        if omitted.contains(&key.replace('-', "_").as_str()) {
            continue;
        }
        words.push(format!("--{}", key.replace('_', "-")));
        words.extend(split(value).with_context(|| format!("`{section}.{key}`"))?);
    }
    Ok(words)
}

/// The variables of a test, each a single word.
///
/// # Errors
/// A variable that a test file may not set, `null`, or a string of several words; the text names `section` and variable.
pub fn environment(section: &str, parameters: &Parameters) -> anyhow::Result<IndexMap<String, String>> {
    let mut variables = IndexMap::new();
    for (name, value) in parameters {
        variable_names::check(name).with_context(|| format!("`{section}.{name}`"))?;
        let words = split(value).with_context(|| format!("`{section}.{name}`"))?;
        ensure!(words.len() <= 1, "`{section}.{name}`: {value} is {} words: quote it inside the string", words.len());
        let value = words.concat();
        variable_names::check_value(name, &value).with_context(|| format!("`{section}.{name}`"))?;
        variables.insert(name.clone(), value);
    }
    Ok(variables)
}

fn split(value: &Value) -> anyhow::Result<Vec<String>> {
    match value {
        Value::Null => bail!("null is not a value: write \"\" for a bare flag, or leave the key out"),
        Value::String(text) => shell_words::split(text).with_context(|| format!("cannot split {value} into words")),
        other => Ok(vec![other.to_string()]),
    }
}

/// The value of `key` (spelled with `_`), however the file spells it.
pub fn value<'a>(parameters: &'a Parameters, key: &str) -> Option<&'a Value> {
    parameters.iter().find(|(name, _)| name.replace('-', "_") == key).map(|(_, value)| value)
}

/// The value of `key` as text, empty where it is unset.
pub fn text(parameters: &Parameters, key: &str) -> String {
    match value(parameters, key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(json: &str) -> Parameters {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn every_kind_of_value_becomes_the_words_that_a_shell_would_pass() {
        for (json, expected) in [
            (r#"{"tensor_parallel_size": 1}"#, vec!["--tensor-parallel-size", "1"]),
            (r#"{"max-model-len": 256, "dtype": "bfloat16"}"#, vec!["--max-model-len", "256", "--dtype", "bfloat16"]),
            (r#"{"ignore-eos": "", "temperature": 0}"#, vec!["--ignore-eos", "--temperature", "0"]),
            (
                r#"{"gpu-memory-utilization": 0.95, "eager": true}"#,
                vec!["--gpu-memory-utilization", "0.95", "--eager", "true"],
            ),
            (
                r#"{"compilation_config": {"mode": 3, "pass": ["a"]}}"#,
                vec!["--compilation-config", r#"{"mode":3,"pass":["a"]}"#],
            ),
            (r#"{"compilation_config": "'{\"mode\":\"NONE\"}'"}"#, vec!["--compilation-config", r#"{"mode":"NONE"}"#]),
            (
                r#"{"middleware": "a \"b c\" $HOME *.py {x,y}"}"#,
                vec!["--middleware", "a", "b c", "$HOME", "*.py", "{x,y}"],
            ),
        ] {
            assert_eq!(words("parameters", &parameters(json), &[]).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn an_omitted_key_is_left_out_in_either_spelling() {
        let given = parameters(r#"{"num-prompts": 5, "num_prompts": 6, "seed": 1}"#);
        assert_eq!(words("client_parameters", &given, &["num_prompts"]).unwrap(), ["--seed", "1"]);
    }

    #[test]
    fn what_a_shell_could_not_split_names_section_and_key() {
        let open = words("server_parameters", &parameters(r#"{"chat_template": "'a"}"#), &[]).unwrap_err();
        insta::assert_snapshot!(format!("{open:#}"), @r#"`server_parameters.chat_template`: cannot split "'a" into words: missing closing quote"#);
        let null = words("parameters", &parameters(r#"{"seed": null}"#), &[]).unwrap_err();
        insta::assert_snapshot!(format!("{null:#}"), @r#"`parameters.seed`: null is not a value: write "" for a bare flag, or leave the key out"#);
    }

    #[test]
    fn a_variable_keeps_its_order_and_is_one_word() {
        let given = parameters(r#"{"VLLM_B": 1, "VLLM_A": "'x y'", "EMPTY": ""}"#);
        let variables = environment("environment_variables", &given).unwrap();
        let shown: Vec<String> = variables.iter().map(|(name, value)| format!("{name}=[{value}]")).collect();
        assert_eq!(shown, ["VLLM_B=[1]", "VLLM_A=[x y]", "EMPTY=[]"]);
        for bad in [r#"{"A": "x y"}"#, r#"{"A=B": 1}"#, r#"{"1A": 1}"#, r#"{"": 1}"#, r#"{"A": null}"#] {
            assert!(environment("environment_variables", &parameters(bad)).is_err(), "{bad}");
        }
    }
}
