//! The prompts of a command of `bench serve`.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Map;
use vllm_load::Api;
use vllm_load::prompts::{self, Prompt, PromptError, Tokenizer};

use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::serve_flags::{Arguments, DatasetName};
use crate::system::model_folder;

/// The prompts of `arguments`.
///
/// # Errors
/// The tokenizer or the data set is missing or not valid (exit 2).
pub fn draw(arguments: &Arguments, env: &Environment) -> Result<Vec<Prompt>> {
    let id = arguments.model.tokenizer_id();
    let tokenizer = open_tokenizer(id, env)?;
    if arguments.dataset.dataset_name == DatasetName::Random {
        if tokenizer.is_none() && arguments.server.backend.api() == Api::Chat {
            return missing_tokenizer(id, "chat").mistake();
        }
        let spec = arguments.lengths.random_prompts(&arguments.dataset);
        return prompts::random(&spec, tokenizer.as_ref()).map_err(name_flag).mistake();
    }
    let Some(tokenizer) = tokenizer else {
        return missing_tokenizer(id, arguments.dataset.dataset_name.as_str()).mistake();
    };
    from_file(arguments, &tokenizer).mistake()
}

fn missing_tokenizer<T>(id: &str, needs: &str) -> Result<T> {
    bail!(
        "no tokenizer.json for `{id}` in its folder or the Hugging Face cache, and {needs} needs it: give --tokenizer FOLDER"
    )
}

fn from_file(arguments: &Arguments, tokenizer: &Tokenizer) -> Result<Vec<Prompt>> {
    let name = arguments.dataset.dataset_name.as_str();
    let path =
        arguments.dataset.dataset_path.as_deref().with_context(|| format!("{name} needs --dataset-path FILE"))?;
    let selection = arguments.dataset.selection();
    let mut drawn = match arguments.dataset.dataset_name {
        DatasetName::Random => bail!("random prompts have no file"),
        DatasetName::Sharegpt => prompts::sharegpt(path, &selection, arguments.lengths.sharegpt_output_len, tokenizer),
        DatasetName::Custom => {
            let none = Map::new();
            let variables = arguments.dataset.chat_template_kwargs.as_ref().unwrap_or(&none);
            let template = (!arguments.dataset.skip_chat_template).then_some(variables);
            prompts::custom(path, &selection, arguments.lengths.custom_output_len(), template, tokenizer)
        }
        DatasetName::Sonnet => {
            let bare = arguments.server.backend.api() == Api::Chat;
            prompts::sonnet(path, &selection, &arguments.lengths.sonnet_lengths(), bare, tokenizer)
        }
    }
    .map_err(name_flag)?;
    if drawn.is_empty() {
        bail!("{} has no prompt that {name} can use: every one is too short, too long or missing", path.display());
    }
    if !arguments.dataset.no_oversample {
        prompts::repeat(&mut drawn, &selection);
    }
    Ok(drawn)
}

/// Adds to an error the flag that fixes it.
fn name_flag(error: PromptError) -> anyhow::Error {
    let fix = match &error {
        PromptError::NoTokens { .. } => "raise --random-input-len",
        PromptError::UnreadableFile { .. } => "check --dataset-path",
        PromptError::NotText { .. } => "use --client vllm",
        PromptError::NoOutputLength { .. } => "add it, or give --custom-output-len",
        PromptError::ShortInput { .. } => "raise --sonnet-input-len",
        PromptError::LongLines { .. } => "raise --sonnet-input-len or lower --sonnet-prefix-len",
        PromptError::NoChatTemplate { .. } => {
            "give --skip-chat-template, or --tokenizer with the folder of a chat model"
        }
        PromptError::InvalidFile(_) | PromptError::ChatTemplate { .. } => return error.into(),
    };
    anyhow!("{:#}; {fix}", anyhow::Error::from(error))
}

/// The tokenizer of `model`; `None` if its files are not on this machine.
///
/// # Errors
/// A file of the tokenizer is not valid (exit 2).
pub fn open_tokenizer(model: &str, env: &Environment) -> Result<Option<Tokenizer>> {
    find_tokenizer(model, env).map(|folder| Tokenizer::read(&folder)).transpose().mistake()
}

/// The folder of `model`, if it has a `tokenizer.json`.
pub fn find_tokenizer(model: &str, env: &Environment) -> Option<PathBuf> {
    model_folder::folder(model, env).filter(|folder| folder.join("tokenizer.json").is_file())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use sha2::{Digest, Sha256};
    use vllm_load::prompts::Content;

    use super::*;
    use crate::exit::{self, Exit};
    use crate::plan::serve_flags;
    use crate::system::output;

    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

    /// The prompts of vLLM 0.32 for `flags`, written by `tests/data/datasets/parity.py`.
    #[derive(Deserialize)]
    struct Expected {
        dataset: String,
        flags: String,
        begin_token: bool,
        prompt_tokens: Vec<usize>,
        output_tokens: Vec<usize>,
        sha256: Vec<String>,
    }

    fn arguments(text: &str) -> Arguments {
        serve_flags::parse(&shell_words::split(text).unwrap()).unwrap()
    }

    /// A folder with the tokenizer of tiny-llama, which begins every text with `<s>`.
    fn with_begin_token() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| format!("{DATA}/tiny-llama/{name}");
        let mut tokenizer: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path("tokenizer.json")).unwrap()).unwrap();
        tokenizer["post_processor"] = serde_json::json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
        });
        let text = tokenizer.to_string();
        output::write(&folder.path().join("tokenizer.json"), text.as_bytes()).unwrap();
        std::fs::copy(path("tokenizer_config.json"), folder.path().join("tokenizer_config.json")).unwrap();
        folder
    }

    #[test]
    fn prompts_are_those_of_vllm_letter_for_letter() {
        let begin = with_begin_token();
        let rows: Vec<Expected> =
            serde_json::from_str(&std::fs::read_to_string(format!("{DATA}/datasets/expected.json")).unwrap()).unwrap();
        for row in &rows {
            let path = match row.dataset.as_str() {
                "random" => String::new(),
                "custom" => format!("--dataset-path {DATA}/datasets/custom.jsonl"),
                "sonnet" => format!("--dataset-path {DATA}/datasets/sonnet.txt"),
                _ => format!("--dataset-path {DATA}/datasets/sharegpt.json"),
            };
            let tiny = format!("{DATA}/tiny-llama");
            let model = if row.begin_token { begin.path().display().to_string() } else { tiny };
            let flags = format!("--model {model} --dataset-name {} {path} {}", row.dataset, row.flags);
            let prompts = draw(&arguments(&flags), &Environment::default()).unwrap();
            let tokens: Vec<usize> = prompts.iter().map(|prompt| prompt.tokens).collect();
            assert_eq!(tokens, row.prompt_tokens, "{flags}");
            let output_tokens: Vec<usize> = prompts.iter().map(|prompt| prompt.output_tokens).collect();
            assert_eq!(output_tokens, row.output_tokens, "{flags}");
            for (prompt, expected) in prompts.iter().zip(&row.sha256) {
                let Content::Text(text) = &prompt.content else { panic!("expected a text: {flags}") };
                let digest: String = Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(&digest, expected, "{flags}: {text:?}");
            }
        }
        assert!(rows.len() >= 14, "only {} rows", rows.len());
    }

    fn refused(flags: &str) -> String {
        let error = draw(&arguments(flags), &Environment::default()).unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake, "{error:#}");
        format!("{error:#}").replace(DATA, "DATA")
    }

    #[test]
    fn the_error_of_a_data_set_has_its_position_and_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            output::write(&path, text.as_bytes()).unwrap();
            path.display().to_string()
        };
        let of = |dataset: &str, path: &str, flags: &str| {
            let text =
                refused(&format!("--model {DATA}/tiny-llama --dataset-name {dataset} --dataset-path {path} {flags}"));
            text.replace(&folder.path().display().to_string(), "FOLDER")
        };
        insta::assert_snapshot!(of("sharegpt", "none.json", ""), @"cannot read none.json: No such file or directory (os error 2); check --dataset-path");
        insta::assert_snapshot!(of("sharegpt", &file("a.json", "[{\"conversations\": [\n  {\"value\": 7}]}]"), ""), @"FOLDER/a.json, line 2, column 13: invalid type: integer `7`, expected a string");
        insta::assert_snapshot!(of("sharegpt", &file("b.json", "[{\"conversations\": []}]"), ""), @"FOLDER/b.json has no prompt that sharegpt can use: every one is too short, too long or missing");
        let image = r#"[{"image": "cat.png", "conversations": [{"value": "what is on this picture?"}, {"value": "a cat on a red mat"}]}]"#;
        insta::assert_snapshot!(of("sharegpt", &file("c.json", image), ""), @"conversation 1 of FOLDER/c.json has an image or a video, and only text can be sent; use --client vllm");
        insta::assert_snapshot!(of("custom", &file("a.jsonl", "{\"prompt\": \"hi\"}\n\n{\"prompt\" \"hi\"}\n"), ""), @"FOLDER/a.jsonl, line 3, column 11: expected `:`");
        insta::assert_snapshot!(of("custom", &file("b.jsonl", "{\"text\": \"hi\"}\n"), ""), @"FOLDER/b.jsonl, line 1, column 14: missing field `prompt`");
        insta::assert_snapshot!(of("custom", &file("c.jsonl", "{\"prompt\": \"hi\"}\n"), "--custom-output-len -1"), @"FOLDER/c.jsonl, line 1: no `output_tokens` of at least 1; add it, or give --custom-output-len");
        insta::assert_snapshot!(of("custom", &file("d.json", "{}"), ""), @"FOLDER/d.json is not named `*.jsonl`: the custom data set is JSON lines");
        insta::assert_snapshot!(of("sonnet", &file("e.txt", "a rose\n"), "--sonnet-input-len 10"), @"an input length of 10 is not more than the 34 tokens that every prompt begins with; raise --sonnet-input-len");
        insta::assert_snapshot!(refused("--model none --dataset-name custom --dataset-path a.jsonl"), @"no tokenizer.json for `none` in its folder or the Hugging Face cache, and custom needs it: give --tokenizer FOLDER");
        insta::assert_snapshot!(refused("--model none --backend openai-chat --endpoint /v1/chat/completions"), @"no tokenizer.json for `none` in its folder or the Hugging Face cache, and chat needs it: give --tokenizer FOLDER");
    }
}
