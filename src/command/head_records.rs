//! Dashboard records of head in the output folder. A run without enough information for them does not fail.

use anyhow::Result;
use vllm_verdict::v1::Provider;

use crate::command::{identity_flags, record_notices};
use crate::exit::Classify;
use crate::plan::Plan;
use crate::plan::config::Config;
use crate::report::records::{self, Records};
use crate::result::case_files::Folder;
use crate::system::output::{self, OutputFolder};
use crate::system::shell::Shell;

/// Writes `records/benchmark_results_<model>.json`, one record a line; or prints why there are none.
pub(super) async fn write(
    results: &Folder,
    plan: &Plan,
    config: &Config,
    out: &OutputFolder,
    shell: &Shell,
) -> Result<()> {
    match of(results, plan, config, shell).await {
        Ok(records) => {
            for (key, lines) in records::objects(&records.records, config.records.spelling.model_key)? {
                output::write(&out.records().join(key.file_name()), lines.as_bytes()).world()?;
            }
            record_notices::print(&records, shell);
        }
        Err(error) => shell.say(&format!("no dashboard records: {error:#}")),
    }
    Ok(())
}

async fn of(results: &Folder, plan: &Plan, config: &Config, shell: &Shell) -> Result<Records> {
    let head = plan.sides.head.as_ref();
    if plan.event.provider == Provider::Local {
        anyhow::bail!("this is not a CI run; `vllm-perf records RESULTS` makes them with an identity from flags");
    }
    if head.is_some_and(|head| !head.server_args.is_empty()) {
        anyhow::bail!("head was measured with custom server arguments");
    }
    let mut flags = identity_flags::from_variables(&shell.environment)?;
    flags.commit = head.and_then(|head| head.commit.clone());
    let device = plan.device.clone();
    let identity =
        identity_flags::identity(&flags, Some(&plan.event), device, &config.records, &shell.environment).await?;
    records::records(&identity, &results.cases, config.records.rules)
}
