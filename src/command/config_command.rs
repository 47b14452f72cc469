//! `vllm-perf config`: the settings in force, their schema, and a check of a file.

use std::path::PathBuf;

use anyhow::Result;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches, Subcommand};
use tabled::builder::Builder;
use tabled::settings::Style;

use super::base_settings;
use crate::command::planning_flags::Planning;
use crate::command::shared_flags::Format;
use crate::exit::Exit;
use crate::plan::config::{self, Setting, Source};
use crate::system::shell::Shell;

/// Shows or checks the settings.
pub(super) async fn config(command: &ConfigCommand, shell: &Shell) -> Result<Exit> {
    match command {
        ConfigCommand::Show { flags, planning, format } => show(flags, planning, *format, shell).await?,
        ConfigCommand::Schema => shell.print_json(&config::schema())?,
        ConfigCommand::Check { file } => {
            base_settings::of_checkout(Some(file))?;
            shell.print(&format!("{}: no mistakes", file.display()));
        }
    }
    Ok(Exit::Done)
}

async fn show(flags: &MatchedFlags, planning: &Planning, format: Format, shell: &Shell) -> Result<()> {
    let (event, ci) = planning.event.read(&planning.labels, &shell.environment).await?;
    let github = planning.event.github(&ci, &shell.environment)?;
    let explicit = planning.config.as_deref();
    let (loaded, notice) = base_settings::of_event(&event, explicit, github.as_ref(), &shell.environment).await?;
    if let Some(notice) = notice {
        shell.say(&notice);
    }
    let mut settings = config::settings(&loaded);
    for setting in flags.settings() {
        match settings.iter_mut().find(|other| other.key == setting.key) {
            Some(other) => *other = setting,
            None => settings.push(setting),
        }
    }
    if planning.runs.pairs.is_none() {
        let strategy = planning.runs.strategy.or(loaded.config.strategy).unwrap_or_default();
        let value = strategy.default_pairs().to_string();
        settings.push(Setting { key: "pairs".to_owned(), value, source: Source::Default });
    }
    match format {
        Format::Json => shell.print_json(&settings)?,
        Format::Text => {
            let mut table = Builder::default();
            table.push_record(["setting", "value", "from"]);
            for Setting { key, value, source } in settings {
                table.push_record([key, value, source.to_string()]);
            }
            shell.print(&table.build().with(Style::blank()).to_string());
        }
    }
    Ok(())
}

/// The flags of the command as clap matched them, which is the only place that has the source of each value.
#[derive(Debug, Clone)]
pub struct MatchedFlags(ArgMatches);

impl MatchedFlags {
    /// The planning flags that have a value, as settings.
    fn settings(&self) -> Vec<Setting> {
        let planning = Planning::augment_args(clap::Command::new("show"));
        planning.get_arguments().filter_map(|flag| self.setting(flag)).collect()
    }

    fn setting(&self, flag: &clap::Arg) -> Option<Setting> {
        let values = self.0.get_raw(flag.get_id().as_str())?;
        let source = match self.0.value_source(flag.get_id().as_str())? {
            ValueSource::CommandLine => Source::Flag,
            ValueSource::EnvVariable => Source::Environment,
            _ => Source::Default,
        };
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        Some(Setting { key: flag.get_long()?.to_owned(), value: values.join(", "), source })
    }
}

impl FromArgMatches for MatchedFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(matches.clone()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = matches.clone();
        Ok(())
    }
}

/// It adds no flag of its own.
impl Args for MatchedFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command
    }
}

/// `vllm-perf config ...`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the settings in force and where each came from
    #[command(before_help = "Example:\n  vllm-perf config show --format json")]
    Show {
        // The first field: the later ones take their values out of the matches.
        #[command(flatten)]
        flags: MatchedFlags,
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
