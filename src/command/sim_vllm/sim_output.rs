//! Output of the simulated `vllm`.

use std::io::Write;

use anyhow::{Context, Result};

/// Prints a line to standard output.
///
/// # Errors
/// Standard output is closed.
pub fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write to standard output")
}
