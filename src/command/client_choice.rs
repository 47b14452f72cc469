//! The choice of the client that measures each serving case.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use vllm_load::prompts;
use vllm_verdict::case::MeasuredBy;

use crate::command::planning_flags::Client;
use crate::environment::Environment;
use crate::plan::serve_flags::DatasetName;
use crate::plan::suite::Case;
use crate::plan::target::Target;
use crate::plan::{Plan, serve_flags};
use crate::run::native_client;

/// Why the native client cannot read a custom data set, by its path.
type DataSets = HashMap<PathBuf, Option<String>>;

/// Sets the client of each serving case, the same on both sides: the native client if it knows all the flags and has the
/// model's tokenizer (the simulated server needs none).
///
/// # Errors
/// `--client native`, and a case that it cannot measure.
pub fn choose(plan: &mut Plan, choice: Client, environment: &Environment) -> Result<()> {
    let simulated = plan.sides.present().all(|(_, side)| matches!(side.target, Target::Sim(_)));
    // One file is the data set of many cases.
    let mut data_sets = DataSets::new();
    for case in plan.cases.iter_mut().filter(|case| case.server.is_some()) {
        case.measured_by = match (choice, check_native(case, simulated, environment, &mut data_sets)) {
            (Client::Vllm, _) | (Client::Auto, Err(_)) => MeasuredBy::Vllm,
            (Client::Native | Client::Auto, Ok(())) => MeasuredBy::Native,
            (Client::Native, Err(error)) => {
                let name = &case.name;
                return Err(error.context(format!("the native client cannot measure `{name}`; use --client auto")));
            }
        };
    }
    Ok(())
}

/// Whether the native client can measure a case; the error is the reason why not.
fn check_native(case: &Case, simulated: bool, environment: &Environment, data_sets: &mut DataSets) -> Result<()> {
    // The suite has parsed the flags before; to parse them again costs as much as the rest of the plan.
    if simulated && case.measured_by == MeasuredBy::Native {
        return Ok(());
    }
    let arguments = serve_flags::parse(case.client.argv.get(3..).unwrap_or_default())?;
    let tokenizer = arguments.model.tokenizer_id();
    ensure!(
        simulated || native_client::draw::find_tokenizer(tokenizer, environment).is_some(),
        "no tokenizer.json of `{tokenizer}` in its folder or the Hugging Face cache"
    );
    if let Some(path) = &arguments.dataset.dataset_path {
        ensure!(path.is_file(), "no file {} on this machine", path.display());
        if arguments.dataset.dataset_name == DatasetName::Custom {
            let check = || prompts::check_custom(path).err().map(|error| format!("{:#}", anyhow::Error::from(error)));
            let problem = data_sets.entry(path.clone()).or_insert_with(check);
            ensure!(problem.is_none(), "{}", problem.as_deref().unwrap_or_default());
        }
    }
    Ok(())
}
