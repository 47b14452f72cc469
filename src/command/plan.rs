//! `vllm-perf plan`: the decision and the exact commands, with nothing started.

use anyhow::Result;

use super::{Shell, prepare};
use crate::cli::{Format, PlanArgs};
use crate::exit::Exit;
use crate::plan::{self, Plan};
use crate::registry::{self, Registry};
use crate::target::Target;

/// Prints the plan.
pub(super) async fn plan(arguments: &PlanArgs, shell: &Shell) -> Result<Exit> {
    let prepared = prepare::prepare(&arguments.planning, arguments.fetch_labels, shell).await?;
    print(&prepared.plan, arguments.format, shell)?;
    if arguments.check_images {
        let registry = Registry::new(registry::PAUSE, &shell.environment)?;
        for reference in images(&prepared.plan) {
            let there = registry.exists(&reference).await?;
            shell.say(&format!("{reference}: {}", if there { "is there" } else { "image missing" }));
        }
    }
    Ok(Exit::Done)
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
