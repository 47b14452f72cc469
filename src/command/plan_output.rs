//! A plan, printed.

use anyhow::Result;

use crate::command::shared_flags::Format;
use crate::plan::{Plan, plan_text};
use crate::system::shell::Shell;

/// Prints a plan as text or JSON.
///
/// # Errors
/// As of [`Shell::print_json`].
pub fn print(plan: &Plan, format: Format, shell: &Shell) -> Result<()> {
    match format {
        Format::Text => shell.print(&plan_text::text(plan)),
        Format::Json => shell.print_json(plan)?,
    }
    Ok(())
}
