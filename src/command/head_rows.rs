//! Rows of head for perf-eval's dashboard in the output folder, where an endpoint for them is configured.

use anyhow::{Context, Result};
use vllm_verdict::v1::Comparison;

use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::Plan;
use crate::plan::config::Config;
use crate::plan::target::Target;
use crate::report::perf_row::{PerfRow, RowFacts};
use crate::result::case_files::Folder;
use crate::system::output::{self, OutputFolder};
use crate::system::shell::Shell;

/// The endpoint of rows: a variable in place of the config.
pub const ENDPOINT: &str = "VLLM_PERF_ROWS";
/// The variable by which perf-eval marks a nightly run.
const NIGHTLY: &str = "NIGHTLY";

/// Writes `rows/<case>.json`, or prints why a case has none.
pub(super) fn write(
    results: &Folder,
    plan: &Plan,
    comparison: &Comparison,
    config: &Config,
    (out, shell): (&OutputFolder, &Shell),
) -> Result<()> {
    if config.records.rows.is_none() && shell.environment.get(ENDPOINT).is_none() {
        return Ok(());
    }
    let facts = match facts(plan, comparison, &shell.environment) {
        Ok(facts) => facts,
        Err(error) => {
            shell.say(&format!("no rows: {error:#}"));
            return Ok(());
        }
    };
    for (name, files) in &results.cases {
        match PerfRow::of(files, &facts) {
            Ok(row) => {
                let text = serde_json::to_string(&row).context("cannot write a row as JSON")? + "\n";
                output::write(&out.rows().join(format!("{name}.json")), text.as_bytes()).world()?;
            }
            Err(error) => shell.say(&format!("{name} has no row: {error:#}")),
        }
    }
    Ok(())
}

fn facts(plan: &Plan, comparison: &Comparison, environment: &Environment) -> Result<RowFacts> {
    let head = plan.sides.head.as_ref().context("there is no head")?;
    anyhow::ensure!(head.server_args.is_empty(), "head was measured with custom server arguments");
    let image = match &head.target {
        Target::Image(reference) => reference.clone(),
        other => other.to_string(),
    };
    let started = comparison.subject.started.as_ref().context("the start of the run is not known")?;
    let started: jiff::Timestamp = started.raw().parse().context("the start of the run is not a date")?;
    Ok(RowFacts {
        date: started.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        device: plan.device.gpu_type().to_lowercase(),
        image,
        nightly: environment.get(NIGHTLY) == Some("1"),
    })
}
