//! `vllm-perf plan`: the decision and the exact commands, with nothing started.

use anyhow::{Result, anyhow};

use super::{Shell, prepare};
use crate::cli::{Format, PlanArgs};
use crate::exit::{Classify, Exit};
use crate::plan::{self, Plan};
use crate::registry::{self, Found, Registry};
use crate::target::Target;

/// Prints the plan.
pub(super) async fn plan(arguments: &PlanArgs, shell: &Shell) -> Result<Exit> {
    let mut plan = prepare::prepare(&arguments.planning, arguments.fetch_labels, shell).await?.plan;
    let mut missing = Vec::new();
    if arguments.check_images {
        let architecture = registry::architecture(plan.device.name);
        let registry = Registry::new(registry::PAUSE, architecture, &shell.environment)?;
        for reference in images(&plan) {
            let found = registry.find(&reference).await?;
            if found != Found::Here {
                missing.push(reference.clone());
            }
            plan.images.insert(reference, found.to_string());
        }
    }
    print(&plan, arguments.format, shell)?;
    if missing.is_empty() {
        return Ok(Exit::Done);
    }
    Err(anyhow!("image missing: {}: `run` waits for it, as long as --wait allows", missing.join(", "))).world()
}

/// Prints a plan in a format.
pub(super) fn print(plan: &Plan, format: Format, shell: &Shell) -> Result<()> {
    match format {
        Format::Text => shell.print(&plan::text(plan)),
        Format::Json => shell.print_json(plan)?,
    }
    Ok(())
}

/// The images that a plan needs.
pub(super) fn images(plan: &Plan) -> Vec<String> {
    let sides = [&plan.sides.base, &plan.sides.head];
    let mut images: Vec<String> = sides
        .into_iter()
        .flatten()
        .filter_map(|side| match &side.target {
            Target::Image(reference) => Some(reference.clone()),
            _ => None,
        })
        .collect();
    images.dedup();
    images
}
