//! `vllm-perf config`: the settings in force, their schema, and a check of a file.

use clap::Subcommand;
use std::path::Path;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{base_settings, setting_overrides};
use crate::command::planning_flags::Planning;
use crate::command::shared_flags::Format;
use crate::exit::{Classify, Exit};
use crate::plan::config;
use crate::system::shell::Shell;

/// Shows or checks.
pub(super) fn config(command: &ConfigCommand, definition: &clap::Command, shell: &Shell) -> Result<Exit> {
    match command {
        ConfigCommand::Show { planning, format } => {
            let (settings, file) = base_settings::of_checkout(planning.config.as_deref())?;
            let file = file.as_ref().map(|(path, text)| (path.as_str(), text.as_str()));
            let mut settings = config::settings(&settings, file).mistake()?;
            setting_overrides::override_settings(&mut settings, planning, definition, &shell.environment);
            match format {
                Format::Json => shell.print_json(&settings)?,
                Format::Text => {
                    let mut table = tabled::builder::Builder::default();
                    table.push_record(["setting", "value", "from"]);
                    for setting in &settings {
                        table.push_record([setting.key.clone(), setting.value.clone(), setting.source.to_string()]);
                    }
                    let mut table = table.build();
                    table.with(tabled::settings::Style::blank());
                    shell.print(&table.to_string());
                }
            }
        }
        ConfigCommand::Schema => shell.print_json(&config::schema())?,
        ConfigCommand::Check { file } => check(file, shell)?,
    }
    Ok(Exit::Done)
}

fn check(file: &Path, shell: &Shell) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display())).mistake()?;
    config::parse(&text, &file.display().to_string()).mistake()?;
    shell.print(&format!("{}: no mistakes", file.display()));
    Ok(())
}

/// `vllm-perf config ...`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the settings in force and where each came from
    #[command(before_help = "Example:\n  vllm-perf config show --format json")]
    Show {
        /// Flags whose effect to show.
        #[command(flatten)]
        planning: Box<Planning>,
        /// text or json
        #[arg(long, env = "VLLM_PERF_FORMAT", value_enum, default_value = "text", hide_possible_values = true)]
        format: Format,
    },
    /// Print the JSON Schema of the config file
    #[command(before_help = "Example:\n  vllm-perf config schema > vllm-perf.schema.json")]
    Schema,
    /// Check a config file
    #[command(before_help = "Example:\n  vllm-perf config check .github/vllm-perf.yml")]
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}
