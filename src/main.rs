//! The binary: reads arguments and environment once, runs the command, prints its error and exits with its code.

use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use vllm_perf::command::{self, arguments};
use vllm_perf::environment::{Environment, NOT_UTF8};
use vllm_perf::exit::{self, Classify, Exit};
use vllm_perf::system::shell::Shell;
use vllm_perf::system::sink::Sink;
use vllm_perf::system::{process, program_path};

fn main() -> ExitCode {
    process::shut_to_other_processes();
    let environment = environment();
    let sink = Sink::new(environment.as_ref().unwrap_or(&Environment::default()));
    let environment = match environment {
        Ok(environment) => environment,
        Err(error) => return finish(Err(error), &sink),
    };
    std::panic::set_hook(Box::new({
        let sink = sink.clone();
        move |panic| sink.err(&panic.to_string())
    }));
    let words = match words() {
        Ok(words) => words,
        Err(error) => return finish(Err(error), &sink),
    };
    let called = words.first().and_then(|word| Path::new(word).file_name()?.to_str()).unwrap_or_default();
    // An image of the simulated vLLM has this binary under the name `vllm`.
    if called == "vllm" {
        return finish(command::run_as_vllm(words[1..].to_vec(), &environment), &sink);
    }
    let words = match command::plugin_options::words(words, &environment) {
        Ok(words) => words,
        Err(error) => return finish(Err(error), &sink),
    };
    let cli = match arguments::parse(&words, &environment) {
        Ok(cli) => cli,
        Err(error) => {
            // It repeats what was typed. The texts of `--help` and `--version` are ours.
            if error.use_stderr() {
                sink.err(&arguments::one_line(&error));
            } else {
                let _ = error.print();
            }
            return ExitCode::from(if error.use_stderr() { Exit::Mistake.code() } else { 0 });
        }
    };
    if let arguments::Command::Guard(arguments) = &cli.command {
        return match vllm_perf::system::guard::run(&arguments.words, arguments.container.as_deref(), &arguments.remove)
        {
            Ok(code) => ExitCode::from(code),
            Err(error) => finish(Err(error), &sink),
        };
    }
    let shell = match Shell::new(environment) {
        Ok(shell) => shell,
        Err(error) => return finish(Err(error), &sink),
    };
    finish(command::run(cli.command, &shell), &sink)
}

/// The one place where the process environment is read.
#[expect(clippy::disallowed_methods, reason = "everything else gets the environment as an argument")]
fn environment() -> anyhow::Result<Environment> {
    let environment = Environment::of_process(std::env::vars_os()).map_err(|why| anyhow!(why)).mistake()?;
    let variables = environment.all().map(|(name, value)| match name {
        "PATH" => (name.to_owned(), program_path::absolute(value)),
        _ => (name.to_owned(), value.to_owned()),
    });
    Ok(variables.collect())
}

/// The words of the command line, the program's name first.
fn words() -> anyhow::Result<Vec<String>> {
    let name = std::env::args_os().take(1).map(|name| Ok(name.to_string_lossy().into_owned()));
    let words = (1..).zip(std::env::args_os().skip(1)).map(|(number, word)| {
        let word = word.into_string();
        word.map_err(|word| anyhow!("argument {number}, `{}`, {NOT_UTF8}", word.to_string_lossy())).mistake()
    });
    name.chain(words).collect()
}

fn finish(result: anyhow::Result<Exit>, sink: &Sink) -> ExitCode {
    let exit = result.unwrap_or_else(|error| {
        sink.err(&format!("error: {error:#}"));
        exit::of(&error)
    });
    ExitCode::from(exit.code())
}
