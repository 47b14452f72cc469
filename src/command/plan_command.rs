//! `vllm-perf plan`: the decision and the exact commands, with nothing started.

use crate::command::planning_flags::Planning;
use anyhow::{Result, anyhow};
use clap::Args;
use clap::builder::BoolishValueParser;

use super::prepare;
use crate::command::arguments::Format;
use crate::exit::{Classify, Exit};
use crate::plan::{self, Plan};
use crate::run::image_fetch::images;
use crate::system::registry::{self, ImageState, Registry};
use crate::system::shell::Shell;

/// Prints the plan.
pub async fn plan(arguments: &PlanArgs, shell: &Shell) -> Result<Exit> {
    let mut plan = prepare::prepare(&arguments.planning, arguments.fetch_labels, shell).await?.plan;
    let mut missing = Vec::new();
    if arguments.check_images {
        let architecture = registry::architecture(plan.device.name);
        let registry = Registry::new(registry::PAUSE, architecture, &shell.environment)?;
        for reference in images(&plan) {
            let state = registry.find(&reference).await?;
            if state != ImageState::Present {
                missing.push(reference.clone());
            }
            plan.images.insert(reference, state.to_string());
        }
    }
    print(&plan, arguments.format, shell)?;
    if missing.is_empty() {
        return Ok(Exit::Done);
    }
    Err(anyhow!("image missing: {}: `run` waits for it, as long as --wait allows", missing.join(", "))).world()
}

/// Prints a plan in a format.
pub fn print(plan: &Plan, format: Format, shell: &Shell) -> Result<()> {
    match format {
        Format::Text => shell.print(&plan::text(plan)),
        Format::Json => shell.print_json(plan)?,
    }
    Ok(())
}

/// `vllm-perf plan`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf plan --suite examples/suite --device cpu --base sim --head sim:itl=12ms"
)]
pub struct PlanArgs {
    /// What to plan.
    #[command(flatten)]
    pub planning: Planning,
    /// text or json
    #[arg(long, env = "VLLM_PERF_FORMAT", value_enum, default_value = "text", hide_possible_values = true)]
    pub format: Format,
    /// Ask the registry whether the images are there
    #[arg(long, env = "VLLM_PERF_CHECK_IMAGES", value_parser = BoolishValueParser::new())]
    pub check_images: bool,
    /// Ask GitHub's API for the labels of now (needs GITHUB_TOKEN)
    #[arg(long, env = "VLLM_PERF_FETCH_LABELS", value_parser = BoolishValueParser::new())]
    pub fetch_labels: bool,
}
