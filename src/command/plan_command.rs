//! `vllm-perf plan`: prints the decision and the exact commands; starts nothing.

use anyhow::{Result, anyhow};
use clap::Args;
use clap::builder::BoolishValueParser;

use crate::command::planning_flags::Planning;
use crate::command::prepare::{self, Prepared};
use crate::command::shared_flags::Format;
use crate::command::{needed_data_sets, plan_output};
use crate::exit::{Classify, Exit};
use crate::system::registry::{self, ImageState, Registry};
use crate::system::shell::Shell;

/// Prints the plan. An image that the registry lacks is an external failure (exit 4).
pub async fn plan(arguments: &PlanArgs, shell: &Shell) -> Result<Exit> {
    let Prepared { mut plan, config, .. } =
        prepare::prepare(&arguments.planning, arguments.fetch_labels, shell).await?;
    let mut missing = Vec::new();
    if arguments.check_images {
        let architecture = registry::architecture(plan.device.name);
        let registry = Registry::new(registry::PAUSE, architecture, &shell.environment)?;
        for reference in plan.sides.images() {
            let state = registry.find(&reference).await?;
            if state != ImageState::Present {
                missing.push(reference.clone());
            }
            plan.images.insert(reference, state.to_string());
        }
    }
    plan_output::print(&plan, arguments.format, shell)?;
    if let Some(sentence) = config.container.sentence().filter(|_| !plan.sides.images().is_empty()) {
        shell.say(&sentence);
    }
    needed_data_sets::sentences(&plan, &config, shell)?.iter().for_each(|sentence| shell.say(sentence));
    if missing.is_empty() {
        return Ok(Exit::Done);
    }
    Err(anyhow!("image missing: {}: `run` waits for it, as long as --wait allows", missing.join(", "))).world()
}

/// `vllm-perf plan`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf plan --suite examples/suite --device cpu --base sim --head sim:itl=12ms"
)]
pub struct PlanArgs {
    #[command(flatten)]
    pub planning: Planning,
    /// text or json
    #[arg(long, env = "VLLM_PERF_FORMAT", value_enum, default_value = "text", hide_possible_values = true)]
    pub format: Format,
    /// Check that the images exist in the registry
    #[arg(long, env = "VLLM_PERF_CHECK_IMAGES", value_parser = BoolishValueParser::new())]
    pub check_images: bool,
    /// Ask GitHub's API for the current labels (needs GITHUB_TOKEN)
    #[arg(long, env = "VLLM_PERF_FETCH_LABELS", value_parser = BoolishValueParser::new())]
    pub fetch_labels: bool,
}
