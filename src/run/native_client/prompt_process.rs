//! The prompts of a command, made by a process of their own. The chat template, the tokenizer and the data set may come from a
//! pull request: the process has a limit of memory and no secret, and ends when nobody waits for it any more.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use indexmap::IndexMap;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{SysconfVar, sysconf};
use vllm_load::prompts::Prompt;

use super::draw;
use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::serve_flags;
use crate::system::host_variables::{self, is_of_the_host, without_secrets};
use crate::system::program::{self, Program};

/// The command of this program that makes prompts.
pub const COMMAND: &str = "prompts";

/// Most memory of the process, in bytes: the largest public data sets take a third of it. At most half of the machine's.
const MEMORY: u64 = 4 << 30;

/// Status of a process that was ended for its memory.
const ABORTED: i32 = nix::sys::signal::Signal::SIGABRT as i32;

/// The prompts of `words`, flags of `vllm bench serve`. `program` is this binary. Dropping the future ends the process.
///
/// # Errors
/// The flags, the tokenizer, its chat template or the data set are missing or not valid, or need too much memory (exit 2).
pub async fn prompts(program: &Path, words: &[String], environment: &Environment) -> Result<Vec<Prompt>> {
    let mut arguments = vec![COMMAND, "--"];
    arguments.extend(words.iter().map(String::as_str));
    let variables = variables(environment);
    let process = Program {
        name: program,
        arguments: &arguments,
        variables: &host_variables::words(&variables),
        folder: None,
        stdin: b"",
        limit: Duration::MAX,
    };
    let memory = memory_limit();
    let output = program::run_within(&process, usize::try_from(memory).unwrap_or(usize::MAX)).await;
    let output = output.context("cannot make the prompts")?;
    if output.status.success() {
        return output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(read).collect();
    }
    let aborted = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(ABORTED);
    if aborted && output.message().contains("memory allocation") {
        let gibibytes = memory as f64 / f64::from(1 << 30);
        return Err(anyhow!(
            "its prompts need more than {gibibytes:.1} GiB of memory: check the chat template, the tokenizer and the data set"
        ))
        .mistake();
    }
    let message = output.message();
    let message = message.trim();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    match output.status.code() {
        Some(2) => Err(anyhow!("{message}")).mistake(),
        _ => Err(anyhow!("its prompts cannot be made ({}): {message}", output.status)).unmeasured(),
    }
}

fn read(line: &[u8]) -> Result<Prompt> {
    serde_json::from_slice(line).context("cannot read a prompt")
}

/// Variables by which the files of a model are found, and those that every program gets.
fn variables(environment: &Environment) -> IndexMap<String, String> {
    let is_of_hub = |name: &str| name.starts_with("HF_") && name != "HF_TOKEN" || name == "HUGGINGFACE_HUB_CACHE";
    without_secrets(environment, |name| is_of_the_host(name) || is_of_hub(name))
}

/// Makes the prompts of `words` in this process, as one line of JSON each. The memory of this process is limited from here on.
///
/// # Errors
/// The flags, the tokenizer, its chat template or the data set are missing or not valid (exit 2).
pub fn make(words: &[String], environment: &Environment) -> Result<String> {
    let memory = memory_limit();
    setrlimit(Resource::RLIMIT_DATA, memory, memory).context("cannot limit the memory of this process")?;
    let arguments = serve_flags::parse(words).mistake()?;
    let mut text = String::new();
    for prompt in draw::draw(&arguments, environment)? {
        text.push_str(&serde_json::to_string(&prompt).context("cannot print a prompt")?);
        text.push('\n');
    }
    Ok(text)
}

/// [`MEMORY`], or half of the memory of a smaller machine.
fn memory_limit() -> u64 {
    let value = |name| sysconf(name).ok().flatten().and_then(|value| u64::try_from(value).ok());
    let machine = value(SysconfVar::_PHYS_PAGES).zip(value(SysconfVar::PAGE_SIZE)).map(|(pages, size)| pages * size);
    machine.map_or(MEMORY, |machine| MEMORY.min(machine / 2))
}
