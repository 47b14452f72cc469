//! What the documents and examples say to type: every command in them has flags that exist, and the patches of the guide
//! name what they were made for.

use std::path::Path;

use vllm_perf::environment::Environment;

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The files of a folder, with their texts.
fn folder(path: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| format!("{path}/{name}")).map(|path| (path.clone(), text(&path))).collect()
}

/// The lines of the shell blocks of a Markdown document.
fn shell_blocks(document: &str) -> String {
    let blocks = document.split("```sh\n").skip(1);
    blocks.filter_map(|block| block.split_once("```").map(|(block, _)| block)).collect()
}

/// The lines that a patch adds.
fn added(patch: &str) -> String {
    let lines = patch.lines().filter(|line| !line.starts_with("+++"));
    lines.filter_map(|line| line.strip_prefix('+')).map(|line| format!("{line}\n")).collect()
}

/// The commands of ours in shell lines, with the program's name first.
fn commands(lines: &str) -> Vec<Vec<String>> {
    let program = regex::Regex::new(r"\bvllm-perf(@[0-9.]+)? ").unwrap();
    let joined = lines.replace("\\\n", " ");
    let uncommented = joined.lines().filter(|line| !line.trim_start().starts_with('#'));
    let texts = uncommented.flat_map(|line| program.split(line).skip(1));
    let names = definition().get_subcommands().map(|command| command.get_name().to_owned()).collect::<Vec<_>>();
    let ours = texts.filter(|text| names.iter().any(|name| text.split([' ', ';', '"']).next() == Some(name)));
    ours.map(words).collect()
}

/// The words of a command, up to what ends it: `||`, `;`, the end of a substitution, or the line feed of a Python string.
fn words(text: &str) -> Vec<String> {
    let ends = ["||", "&&", ";", " | ", " >", " <", "\\n"].iter().filter_map(|end| text.find(end)).min();
    let text = text[..ends.unwrap_or(text.len())].trim();
    let inside = text.strip_suffix(")\"").unwrap_or(text);
    let words = shell_words::split(text).or_else(|_| shell_words::split(inside));
    let words = words.unwrap_or_else(|error| panic!("`{text}`: {error}"));
    let value =
        |word: String| if word.contains("$DEVICE") || word.contains("{DEVICE") { "cpu".to_owned() } else { word };
    std::iter::once("vllm-perf".to_owned()).chain(words.into_iter().map(value)).collect()
}

fn definition() -> clap::Command {
    vllm_perf::command::arguments::definition(&Environment::default())
}

/// Asserts that every command of the lines has flags that exist; returns how many there are.
fn assert_accepted(path: &str, lines: &str) -> usize {
    let commands = commands(lines);
    for words in &commands {
        if let Err(error) = definition().try_get_matches_from(words) {
            // A variable of the step may have the value.
            let is_elsewhere = error.kind() == clap::error::ErrorKind::MissingRequiredArgument;
            assert!(is_elsewhere, "{path}: `{}`: {error}", words.join(" "));
        }
    }
    commands.len()
}

#[test]
fn every_command_of_the_documents_and_examples_has_flags_that_exist() {
    let mut found = 0;
    for path in ["README.md", "docs/migrating.md", "docs/client.md", "CONTRIBUTING.md"] {
        found += assert_accepted(path, &shell_blocks(&text(path)));
    }
    for (path, text) in [folder("examples/github"), folder("examples/buildkite")].concat() {
        found += assert_accepted(&path, &text);
    }
    assert!(found > 20, "{found}");
    let wrong = std::panic::catch_unwind(|| assert_accepted("", "uvx vllm-perf@0.1.0 run --devise cpu || ran=$?\n"));
    assert!(wrong.is_err(), "a flag that does not exist must be found");
}

#[test]
fn every_patch_of_the_guide_has_our_commands_and_says_what_it_was_made_for() {
    let guide = text("docs/migrating.md");
    let commit = regex::Regex::new(r"(?m)^Repository: [\w-]+/[\w-]+\nCommit: [0-9a-f]{40}\n").unwrap();
    let patches = folder("docs/migrating");
    for (path, patch) in &patches {
        assert!(commit.is_match(patch), "{path}");
        assert!(assert_accepted(path, &added(patch)) > 0, "{path} has no command of ours");
        assert!(guide.contains(&format!("]({})", path.trim_start_matches("docs/"))), "the guide does not link {path}");
    }
    assert_eq!(patches.len(), 5);
}

#[test]
fn the_readmes_first_command_is_that_of_the_package() {
    let first = |document: &str| shell_blocks(document).lines().next().unwrap_or_default().to_owned();
    let (readme, package) = (first(&text("README.md")), first(&text("pyproject.toml")));
    assert_eq!(readme, package);
    assert!(readme.starts_with("uvx vllm-perf run --suite example "), "{readme}");
}
