//! The commands: what each one does, in the words of the library. What a command prints goes through `Shell`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cli::{BenchCommand, Command};
use crate::environment::Environment;
use crate::exit::{Classify, Exit};

mod base;
mod bench;
mod calibrate;
mod compare;
mod config;
mod dashboard;
mod identity;
mod matrix;
mod plan;
pub mod plugin;
mod prepare;
mod publish;
mod records;
mod report;
mod run;
mod settings;
mod sim;
mod verdict;

/// What the process around us is like.
#[derive(Debug)]
pub struct Shell {
    /// The environment.
    pub environment: Environment,
    /// This binary.
    pub program: PathBuf,
    /// Whether someone watches standard error.
    pub terminal: bool,
    /// Columns of standard output.
    pub width: usize,
}

impl Shell {
    /// Looks at the process once.
    ///
    /// # Errors
    /// When the path of this binary is unknown.
    pub fn new(environment: Environment) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let terminal = std::io::stderr().is_terminal() && environment.get("CI").is_none();
        let width = environment.get("COLUMNS").and_then(|text| text.parse().ok()).unwrap_or(120);
        Ok(Self { environment, program, terminal, width })
    }

    /// Prints to standard output. A reader that has gone away is no error.
    pub fn print(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes());
        if !text.ends_with('\n') {
            let _ = out.write_all(b"\n");
        }
    }

    /// One line to standard error.
    pub fn say(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Prints a value as JSON.
    ///
    /// # Errors
    /// Never for our own types.
    pub fn print_json<T: serde::Serialize>(&self, value: &T) -> Result<()> {
        self.print(&serde_json::to_string_pretty(value).context("cannot print as JSON")?);
        Ok(())
    }
}

/// Does what was asked.
///
/// # Errors
/// Whatever the command could not do, with its exit code.
pub async fn dispatch(command: Command, shell: &Shell) -> Result<Exit> {
    match command {
        Command::Plan(arguments) => plan::plan(&arguments, shell).await,
        Command::Run(arguments) => run::run(&arguments, shell).await,
        Command::Calibrate(mut arguments) => calibrate::calibrate(&mut arguments, shell).await,
        Command::Publish(arguments) => publish::publish(&arguments, shell).await,
        Command::Verdict(arguments) => verdict::verdict(&arguments, shell),
        Command::Compare(arguments) => compare::compare(&arguments, shell).await,
        Command::Report(arguments) => report::report(&arguments, shell),
        Command::Records(arguments) => records::records(&arguments, shell).await,
        Command::Dashboard(arguments) => dashboard::dashboard(&arguments, shell).await,
        Command::Matrix(arguments) => matrix::matrix(&arguments, shell).await,
        Command::Config(arguments) => config::config(&arguments, shell),
        Command::Bench(BenchCommand::Serve(arguments)) => bench::serve(&arguments.words, shell).await,
        Command::SimServer(arguments) => sim::sim_server(&arguments, shell).await,
        Command::SimVllm(arguments) => {
            crate::sim_vllm::run(arguments.words, &shell.environment).await.map(|()| Exit::Done)
        }
        Command::Guard(_) => Err(anyhow::anyhow!("the guard runs before anything else is set up")).mistake(),
    }
}
