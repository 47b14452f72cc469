//! The process around a command: its environment, its terminal, and what is printed there.

use crate::environment::Environment;
use anyhow::Context;
use anyhow::Result;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

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
