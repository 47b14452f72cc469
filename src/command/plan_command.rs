//! `vllm-perf plan`: prints the decision and the exact commands; starts nothing.

use anyhow::{Result, anyhow};
use clap::Args;
use clap::builder::BoolishValueParser;
use indexmap::IndexMap;

use crate::command::planning_flags::Planning;
use crate::command::prepare::{self, Prepared};
use crate::command::shared_flags::Format;
use crate::command::{needed_data_sets, plan_output};
use crate::exit::{Classify, Exit};
use crate::plan::target::Target;
use crate::system::availability::{Availability, Published};
use crate::system::shell::Shell;

/// Prints the plan. An image that the registry lacks, or a wheel that the index lacks, is an external failure (exit 4).
pub async fn plan(arguments: &PlanArgs, shell: &Shell) -> Result<Exit> {
    let Prepared { mut plan, config, .. } =
        prepare::prepare(&arguments.planning, arguments.fetch_labels, shell).await?;
    let (mut missing, mut states) = (Vec::new(), IndexMap::new());
    if arguments.check_images {
        let index = config.wheels.url()?;
        let availability = Availability::new(&index, plan.device.name, &shell.environment)?;
        for target in plan.sides.builds() {
            let name = match target {
                Target::Image(reference) => reference.clone(),
                other => other.to_string(),
            };
            let state = availability.find(target).await?;
            if let Published::Missing { what, .. } = &state {
                missing.push(format!("{what} missing: {name}"));
            }
            states.insert(name, state.to_string());
        }
    }
    plan.images = states;
    plan_output::print(&plan, arguments.format, shell)?;
    if let Some(sentence) = config.container.sentence().filter(|_| plan.sides.has_image()) {
        shell.say(&sentence);
    }
    needed_data_sets::sentences(&plan, &config, shell)?.iter().for_each(|sentence| shell.say(sentence));
    if missing.is_empty() {
        return Ok(Exit::Done);
    }
    Err(anyhow!("{}: `run` waits for it, as long as --wait allows", missing.join(", "))).world()
}

/// `vllm-perf plan`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  vllm-perf plan --suite example --base sim --head sim:itl=12ms")]
pub struct PlanArgs {
    #[command(flatten)]
    pub planning: Planning,
    /// text or json
    #[arg(long, env = "VLLM_PERF_FORMAT", value_enum, default_value = "text", hide_possible_values = true)]
    pub format: Format,
    /// Check that the images exist in the registry, and the wheels in the index
    #[arg(long, env = "VLLM_PERF_CHECK_IMAGES", value_parser = BoolishValueParser::new())]
    pub check_images: bool,
    /// Ask GitHub's API for the current labels (needs GITHUB_TOKEN)
    #[arg(long, env = "VLLM_PERF_FETCH_LABELS", value_parser = BoolishValueParser::new())]
    pub fetch_labels: bool,
}
