//! The check that models can be loaded from the Hugging Face hub, before anything starts.

use std::path::Path;

use anyhow::{Result, anyhow};

use crate::environment::Environment;
use crate::plan::Plan;
use crate::plan::target::Target;

/// Checks that there is a token where models come from the hub: not where they are folders, the hub is offline, or no
/// real vLLM serves.
///
/// # Errors
/// A token that is missing, or that does not have the form of one.
pub fn check(plan: &Plan, environment: &Environment) -> Result<()> {
    let token = environment.get("HF_TOKEN");
    if token.is_some_and(|token| !token.starts_with("hf_")) {
        return Err(anyhow!("HF_TOKEN is not a Hugging Face token: it must begin with `hf_`"));
    }
    let loads = plan
        .sides
        .present()
        .any(|(_, side)| matches!(side.target, Target::Image(_) | Target::Wheel(_) | Target::Local(_)));
    let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().any(|name| environment.get(name) == Some("1"));
    let from_hub = plan.cases.iter().find(|case| !Path::new(&case.model).is_dir());
    match from_hub {
        Some(case) if loads && !offline && token.is_none() => Err(anyhow!(
            "`{}` needs the model `{}` from the Hugging Face hub: set HF_TOKEN, or HF_HUB_OFFLINE=1 where it is cached",
            case.name,
            case.model
        )),
        _ => Ok(()),
    }
}
