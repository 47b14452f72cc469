//! The binary: reads arguments and environment once, runs the command, prints its error and exits with its code.

use std::path::Path;
use std::process::ExitCode;

use vllm_perf::command::{self, arguments};
use vllm_perf::environment::Environment;
use vllm_perf::exit::{self, Exit};
use vllm_perf::system::shell::Shell;
use vllm_perf::system::sink::Sink;
use vllm_perf::system::{process, program_path};

fn main() -> ExitCode {
    process::shut_to_other_processes();
    let environment = environment();
    let sink = Sink::new(&environment);
    std::panic::set_hook(Box::new({
        let sink = sink.clone();
        move |panic| sink.err(&panic.to_string())
    }));
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
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
                sink.err(&error.render().to_string());
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
fn environment() -> Environment {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .map(|(name, value)| if name == "PATH" { (name, program_path::absolute(&value)) } else { (name, value) })
        .collect()
}

fn finish(result: anyhow::Result<Exit>, sink: &Sink) -> ExitCode {
    let exit = result.unwrap_or_else(|error| {
        sink.err(&format!("error: {error:#}"));
        exit::of(&error)
    });
    ExitCode::from(exit.code())
}
