//! Commands as lines of a shell, as `.commands` files next to results, and with another folder for their results.

use serde::Serialize;
use vllm_verdict::case::Kind;

use crate::plan::suite::suite_case::{Case, Command};

impl Command {
    /// The command as one line of a POSIX shell, variables first, with `more` words at its end.
    pub fn line(&self, more: &[String]) -> String {
        let variables = self.env.iter().map(|(name, value)| format!("{name}={}", shell_words::quote(value)));
        let words = self.argv.iter().chain(more).map(|word| quoted(word));
        variables.chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// `word` for a shell. `name=value` stays readable: only its value is quoted.
fn quoted(word: &str) -> String {
    match word.split_once('=') {
        Some((name, "")) if shell_words::quote(name) == name => word.to_owned(),
        Some((name, value)) if shell_words::quote(name) == name && !name.is_empty() => {
            format!("{name}={}", shell_words::quote(value))
        }
        _ => shell_words::quote(word).into_owned(),
    }
}

/// The client of a further slice: with a seed of its own, because a server that has seen the prompts of the first slice answers
/// them from its prefix cache.
pub fn of_slice(argv: &[String], slice: u32) -> Vec<String> {
    let mut words = argv.to_vec();
    let Some(more) = slice.checked_sub(1).filter(|more| *more > 0) else { return words };
    let seeded = |text: &str| text.parse::<u64>().map(|seed| (seed + u64::from(more)).to_string());
    for at in 0..words.len() {
        if let Some(Ok(seed)) = words[at].strip_prefix("--seed=").map(seeded) {
            words[at] = format!("--seed={seed}");
            return words;
        }
        if at > 0
            && words[at - 1] == "--seed"
            && let Ok(seed) = seeded(&words[at])
        {
            words[at] = seed;
            return words;
        }
    }
    // The default of `vllm bench serve` is 0.
    words.extend(["--seed".to_owned(), more.to_string()]);
    words
}

/// `argv` with upstream's `results/` folder, where the result goes, replaced by `dir`.
pub fn placed(argv: &[String], dir: &str) -> Vec<String> {
    let dir = dir.trim_end_matches('/');
    let mut placed = argv.to_vec();
    for at in 1..placed.len() {
        if matches!(placed[at - 1].as_str(), "--result-dir" | "--output-json")
            && let Some(rest) = placed[at].strip_prefix("results/")
        {
            placed[at] = format!("{dir}/{rest}");
        }
    }
    placed
}

/// Upstream's `<case>.commands` file, JSON. `gpu_type` is `Device::gpu_type`; `server_args` are the words that the side adds.
pub fn commands_json(case: &Case, gpu_type: &str, server_args: &[String]) -> String {
    let client = case.client.line(&[]);
    let mut commands = Commands { gpu_type, ..Commands::default() };
    match case.kind {
        Kind::Serving => {
            commands.server_command = case.server.as_ref().map(|server| server.line(server_args));
            commands.client_command = Some(client);
        }
        Kind::Latency => commands.latency_command = Some(client),
        Kind::Startup => commands.startup_command = Some(client),
        Kind::Throughput => commands.throughput_command = Some(client),
    }
    // A struct of texts: this cannot fail.
    let text = serde_json::to_string_pretty(&commands).unwrap_or_default();
    text + "\n"
}

#[derive(Default, Serialize)]
struct Commands<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    server_command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    startup_command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throughput_command: Option<String>,
    gpu_type: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        shell_words::split(text).unwrap()
    }

    fn case(kind: Kind, server: Option<Command>, client: &str) -> Case {
        let mut case = Case { kind, server, ..Case::sample(client) };
        case.client.env.insert("A".to_owned(), "1".to_owned());
        case
    }

    #[test]
    fn a_line_splits_into_the_words_that_it_was_made_of() {
        let argv = ["vllm", "serve", "a b", "--x={\"mode\":1}", "mode=", "=", "it's", "", "--é"].map(str::to_owned);
        let command = Command { argv: argv.to_vec(), env: [("A".to_owned(), "x y".to_owned())].into() };
        let line = command.line(&[]);
        insta::assert_snapshot!(line, @r#"A='x y' vllm serve 'a b' --x='{"mode":1}' mode= '=' 'it'\''s' '' --é"#);
        assert_eq!(split(&line)[1..], argv);
    }

    #[test]
    fn only_the_folder_of_the_result_changes() {
        let serve = split("vllm bench serve --save-result --result-dir results/ --result-filename results/a.json");
        assert_eq!(
            placed(&serve, "out/head/01/")[4..],
            split("--result-dir out/head/01/ --result-filename results/a.json")
        );
        let latency = split("vllm bench latency --output-json results/x.json --model results/m");
        assert_eq!(placed(&latency, "/o")[3..], split("--output-json /o/x.json --model results/m"));
    }

    #[test]
    fn the_commands_file_has_the_keys_of_its_kind() {
        let server = Command { argv: split("vllm serve m"), env: [("B".to_owned(), "2".to_owned())].into() };
        let serving = case(Kind::Serving, Some(server), "vllm bench serve");
        insta::assert_snapshot!(commands_json(&serving, "cpu", &split("--max-num-seqs 4")), @r#"
        {
          "server_command": "B=2 vllm serve m --max-num-seqs 4",
          "client_command": "A=1 vllm bench serve",
          "gpu_type": "cpu"
        }
        "#);
        let latency = case(Kind::Latency, None, "vllm bench latency");
        insta::assert_snapshot!(commands_json(&latency, "H100", &[]), @r#"
        {
          "latency_command": "A=1 vllm bench latency",
          "gpu_type": "H100"
        }
        "#);
    }
}
