//! The environment and the terminal of this process.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::environment::Environment;
use crate::system::sink::Sink;
use crate::system::terminal_width;

/// The environment and the terminal of this process.
#[derive(Debug)]
pub struct Shell {
    pub environment: Environment,
    /// What everything is printed through.
    pub sink: Sink,
    /// Path of this binary.
    pub program: PathBuf,
    /// Whether standard error is a terminal, outside CI.
    pub terminal: bool,
    /// Columns of a table on standard output.
    pub width: usize,
}

impl Shell {
    /// Reads the state of this process.
    ///
    /// # Errors
    /// When the path of this binary is unknown.
    pub fn new(environment: Environment) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let terminal = std::io::stderr().is_terminal() && environment.get("CI").is_none();
        let width = terminal_width::of(&environment, &std::io::stdout());
        let sink = Sink::new(&environment);
        Ok(Self { environment, sink, program, terminal, width })
    }

    /// Prints to standard output. A closed pipe is not an error.
    pub fn print(&self, text: &str) {
        self.sink.out(text);
    }

    /// Prints a line to standard error.
    pub fn say(&self, text: &str) {
        self.sink.err(text);
    }

    /// Prints a value as JSON.
    ///
    /// # Errors
    /// A value that has no JSON form, which none of vllm-perf's types is.
    pub fn print_json<T: serde::Serialize>(&self, value: &T) -> Result<()> {
        self.sink.out_json(&serde_json::to_string_pretty(value).context("cannot print as JSON")?);
        Ok(())
    }
}
