//! Whether and how the engine compiled the model, from the commands of a case. The dashboard keys by it: eager and compiled
//! runs of one test are two series.

use serde::Deserialize;
use vllm_verdict::case::Kind;

use crate::result::case_files::CaseFiles;
use crate::result::command_words;

/// What the commands of a case say about compilation. Texts are empty where no command sets them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Compilation {
    /// `compilation_config.mode`.
    pub mode: String,
    pub optimization_level: String,
    pub use_compile: bool,
}

/// The compilation of a case. The metadata of a client's command, which vLLM's own records hold, has priority over the flags of
/// the engine. A test with `eager` in its name is eager, by upstream's rule.
pub(super) fn compilation(case: &str, files: &CaseFiles) -> Compilation {
    let commands = &files.commands;
    let (engine, client) = match files.kind {
        Kind::Serving => (&commands.server_command, &commands.client_command),
        Kind::Latency => (&commands.latency_command, &None),
        Kind::Startup => (&commands.startup_command, &None),
        Kind::Throughput => (&commands.throughput_command, &None),
    };
    let engine = EngineFlags::of(&command_words(engine.as_deref().unwrap_or_default()));
    let client = command_words(client.as_deref().unwrap_or_default());
    let metadata = |key: &str| {
        let mut values = client.iter().filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        values.find(|value| !value.is_empty()).map(str::to_owned)
    };
    let mode = metadata("compilation_config.mode").or(engine.mode).unwrap_or_default();
    let optimization_level = metadata("optimization_level").or(engine.level).unwrap_or_default();
    // An explicit mode wins over the mode of the level, as it does in the engine.
    let is_off = if mode.is_empty() { optimization_level == "0" } else { is_no_mode(&mode) };
    Compilation { use_compile: !is_off && !engine.is_eager && !case.contains("eager"), mode, optimization_level }
}

/// Whether a mode is that of no compilation: vLLM takes its number or its name.
fn is_no_mode(mode: &str) -> bool {
    mode == "0" || mode.eq_ignore_ascii_case("none")
}

/// The flags of an engine that decide about compilation. Of repeated flags the last counts.
#[derive(Debug, Default)]
struct EngineFlags {
    is_eager: bool,
    mode: Option<String>,
    level: Option<String>,
}

/// The part of `--compilation-config` that is read. Before `mode` it was called `level`.
#[derive(Deserialize)]
struct CompilationConfig {
    #[serde(alias = "level")]
    mode: Option<Mode>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Mode {
    Number(u64),
    Name(String),
}

impl EngineFlags {
    fn of(words: &[String]) -> Self {
        let mut flags = Self::default();
        for (at, word) in words.iter().enumerate().filter(|(_, word)| word.starts_with('-')) {
            let next = || words.get(at + 1).filter(|next| !next.starts_with('-')).map(String::as_str);
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), next()),
            };
            flags.read(&name.replace('_', "-"), value);
        }
        flags
    }

    fn read(&mut self, name: &str, value: Option<&str>) {
        let text = value.map(str::to_owned);
        match name {
            "--enforce-eager" => self.is_eager = value.is_none_or(|value| !value.eq_ignore_ascii_case("false")),
            "--no-enforce-eager" => self.is_eager = false,
            "--optimization-level" | "-O" => self.level = value.map(level),
            "--compilation-config" | "-cc" => self.mode = value.and_then(mode).or(self.mode.take()),
            "--compilation-config.mode"
            | "--compilation-config.level"
            | "-cc.mode"
            | "-cc.level"
            | "-O.mode"
            | "-O.level" => self.mode = text,
            // `-O2` and `-cc{...}`: a short flag with its value.
            _ => match (name.strip_prefix("-O"), name.strip_prefix("-cc")) {
                (Some(short), _) if !short.starts_with('.') => self.level = Some(level(short)),
                (_, Some(short)) if short.starts_with('{') => self.mode = mode(short).or(self.mode.take()),
                _ => {}
            },
        }
    }
}

/// A level as its number: vLLM takes `2` and `O2`.
fn level(text: &str) -> String {
    text.strip_prefix(['O', 'o']).unwrap_or(text).to_owned()
}

/// The mode in a value of `--compilation-config`: an object, or the number itself.
fn mode(text: &str) -> Option<String> {
    if text.parse::<u64>().is_ok() {
        return Some(text.to_owned());
    }
    let config: CompilationConfig = serde_json::from_str(text).ok()?;
    Some(match config.mode? {
        Mode::Number(number) => number.to_string(),
        Mode::Name(name) => name,
    })
}

#[cfg(test)]
mod tests {
    use vllm_verdict::repetition::Outcome;

    use super::*;
    use crate::result::Commands;

    fn of(case: &str, kind: Kind, commands: Commands) -> Compilation {
        compilation(case, &CaseFiles { kind, text: None, commands, outcome: Outcome::Failed(String::new()) })
    }

    /// `use_compile`, mode and level of a server's flags.
    fn served(flags: &str) -> (bool, String, String) {
        let server_command = Some(format!("A=1 vllm serve m {flags}"));
        let it = of("serving_a_qps_1_concurrency_1", Kind::Serving, Commands { server_command, ..Commands::default() });
        (it.use_compile, it.mode, it.optimization_level)
    }

    #[test]
    fn every_spelling_of_an_eager_server_is_known() {
        for flags in [
            "--enforce-eager",
            "--enforce_eager --dtype bfloat16",
            "--enforce-eager true",
            "-O0",
            "-O 0",
            "-O=0",
            "-O.level=0",
            "-O.mode 0",
            "--optimization-level 0",
            "--optimization_level=O0",
            "-cc.mode=0",
            "-cc.mode none",
            "--compilation-config.mode NONE",
            "--compilation-config 0",
            r#"--compilation-config '{"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}'"#,
            r#"--compilation-config='{"mode":"NONE"}'"#,
            r#"-cc '{"level": 0}'"#,
            r#"-cc'{"level":0}'"#,
            "-O2 -O0",
            "-O2 --compilation-config.mode 0",
        ] {
            assert!(!served(flags).0, "{flags}");
        }
    }

    #[test]
    fn every_other_server_compiles() {
        for flags in [
            "",
            "--enforce-eager --no-enforce-eager",
            "--enforce-eager=False",
            "-O1",
            "-O3",
            "--optimization-level 2",
            "-cc.mode=3",
            "-O0 -cc.mode=3",
            r#"--compilation-config '{"cudagraph_mode": "NONE"}'"#,
            "--compilation-config not-json",
            "--max-num-seqs 0 -tp 2 -dp 0 --omit-level 0",
        ] {
            assert!(served(flags).0, "{flags}");
        }
        assert_eq!(served("-O2"), (true, String::new(), "2".into()));
        assert_eq!(served("-cc.mode=3 -O=1"), (true, "3".into(), "1".into()));
    }

    #[test]
    fn the_metadata_of_the_client_and_the_name_of_the_test_count_as_upstream_reads_them() {
        let of = |case: &str, client: &str| {
            let client_command = Some(format!("vllm bench serve {client}"));
            of(case, Kind::Serving, Commands { client_command, ..Commands::default() })
        };
        assert!(!of("serving_a", "--metadata compilation_config.mode=0 optimization_level=").use_compile);
        assert!(!of("serving_a", "--metadata compilation_config.mode= optimization_level=0").use_compile);
        assert!(!of("serving_a_eager", "--metadata compilation_config.mode=3").use_compile);
        assert!(of("serving_a", "--metadata compilation_config.mode= optimization_level=").use_compile);
        assert_eq!(of("serving_a", "--metadata optimization_level=1").optimization_level, "1");
    }

    #[test]
    fn a_benchmark_without_a_server_has_its_own_flags() {
        let latency_command = Some("vllm bench latency --model m --enforce-eager".to_owned());
        assert!(!of("latency_a", Kind::Latency, Commands { latency_command, ..Commands::default() }).use_compile);
        let throughput_command = Some("vllm bench throughput --model m -O1".to_owned());
        let it = of("throughput_a", Kind::Throughput, Commands { throughput_command, ..Commands::default() });
        assert_eq!((it.use_compile, it.optimization_level.as_str()), (true, "1"));
        assert!(!of("startup_eager_a", Kind::Startup, Commands::default()).use_compile);
    }
}
