//! Whether commits are measured as images or as wheels: by the flag, the config, or what this machine has.

use vllm_verdict::v1::Event;

use crate::ci::event::is_proposal;
use crate::environment::Environment;
use crate::plan::base::{Base, NamedSide};
use crate::plan::build::{Build, ChosenBuild};
use crate::plan::config::{CommitSides, Config};
use crate::system::docker;

/// The build of the sides that are named by a commit; `None` where no side is, so that nothing has to be chosen.
pub async fn choose(
    flag: Option<CommitSides>,
    config: &Config,
    (base, head): (Option<&Base>, Option<&NamedSide>),
    event: &Event,
    environment: &Environment,
) -> Option<ChosenBuild> {
    let is_base = matches!(base, Some(Base::Commit(_)));
    let is_head = match head {
        Some(head) => matches!(head, NamedSide::Commit(_)),
        None => event.head_sha.is_some(),
    };
    if !is_base && !is_head {
        return None;
    }
    let source = if flag.is_some() { "--sides" } else { "`sides` in vllm-perf.yml" };
    let (build, reason) = match flag.unwrap_or(config.sides) {
        CommitSides::Image => (Build::Image, format!("images, because {source} says so")),
        CommitSides::Wheel => (Build::Wheel, format!("wheels, because {source} says so")),
        CommitSides::Auto => match docker::answers(environment).await {
            Ok(()) => (Build::Image, "images, because a container engine answers".to_owned()),
            // An engine that is down must not let the code of a pull request out of its container.
            Err(_) if is_proposal(event) => {
                let where_asked = "only where --sides or `sides` in vllm-perf.yml says `wheel`";
                (
                    Build::Image,
                    format!("images, because the code of a pull request runs without a container {where_asked}"),
                )
            }
            Err(error) => (Build::Wheel, format!("wheels, because no container engine answers ({error:#})")),
        },
    };
    Some(ChosenBuild { build, reason })
}
