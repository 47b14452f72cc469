//! `vllm-perf records`: dashboard records from a results folder or from an import, printed or added to a store.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use vllm_verdict::v1::{Device, Provider};

use super::identity::identity;
use super::{Shell, prepare, settings};
use crate::cli::RecordsArgs;
use crate::config::Config;
use crate::environment::Environment;
use crate::exit::{Classify, Exit};
use crate::record::{self, Identity, Records};
use crate::store::{Added, Store};
use crate::{device, event, output, result};

/// Longest import that is read, in bytes.
const IMPORT_LIMIT: u64 = 256 << 20;

/// Prints one record a line, or writes them to a file or adds them to a store. Cases that may not be published are named on
/// standard error, and then the exit code is 3.
pub(super) async fn records(arguments: &RecordsArgs, shell: &Shell) -> Result<Exit> {
    let (config, _) = settings::of_checkout(arguments.config.as_deref())?;
    let records = match arguments.results.extension().is_some_and(|extension| extension == "js") {
        true => import(arguments, &config, shell).await?,
        false => {
            let folder = result::read_folder(&arguments.results).mistake()?;
            let identity = own(arguments, &config, shell).await?;
            record::records(&identity, &folder.cases, config.records.rules).mistake()?
        }
    };
    if let Some(place) = &arguments.store {
        add(&records, &Store::open(place, &shell.environment)?, shell).await?;
    } else {
        let lines: String = record::objects(&records.records)?.into_values().collect();
        match &arguments.output {
            Some(path) => output::write(path, lines.as_bytes()).world()?,
            None => shell.print(&lines),
        }
    }
    tell(&records, shell);
    if records == Records::default() {
        shell.say(&format!("`{}` holds nothing to make records of", arguments.results.display()));
    }
    Ok(if records.refused.is_empty() { Exit::Done } else { Exit::Unmeasured })
}

/// Says what has no records of its own, and why.
pub(super) fn tell(records: &Records, shell: &Shell) {
    for collision in &records.collisions {
        shell.say(&format!(
            "{} stands for {} in the dashboard, which cannot tell them apart",
            collision.kept,
            collision.dropped.join(", ")
        ));
    }
    for (case, reason) in &records.refused {
        shell.say(&format!("{case} is not published: {reason}"));
    }
}

async fn add(records: &Records, store: &Store, shell: &Shell) -> Result<()> {
    let (mut written, mut there) = (0, 0);
    for (key, lines) in record::objects(&records.records)? {
        match store.add(&key.to_string(), lines.as_bytes()).await? {
            Added::Written => written += 1,
            Added::AlreadyThere => {
                there += 1;
                shell.say(&format!("already there, left as it is: {key}"));
            }
        }
    }
    shell.print(&format!("{written} objects added to `{}`, {there} already there", store.place()));
    Ok(())
}

/// The identity of a results folder.
async fn own(arguments: &RecordsArgs, config: &Config, shell: &Shell) -> Result<Identity> {
    let environment = &shell.environment;
    let event = match arguments.event.provider.named().unwrap_or_else(|| event::detect(environment)) {
        Provider::Local => None,
        _ => Some(prepare::event(&arguments.event, &[], environment)?.0),
    };
    let device = device(arguments, config, shell)?;
    identity(&arguments.identity, event.as_ref(), device, &config.records, environment).await
}

fn device(arguments: &RecordsArgs, config: &Config, shell: &Shell) -> Result<Device> {
    let said = &arguments.device;
    let probe = device::probe(&shell.environment);
    device::resolve(said.name.0, said.device_type.as_deref(), said.device_count, &config.devices, &probe)
}

/// The records of github-action-benchmark's data.js.
async fn import(arguments: &RecordsArgs, config: &Config, shell: &Shell) -> Result<Records> {
    let said = &arguments.device;
    if said.name.0.is_none() || said.device_type.is_none() {
        return Err(anyhow!("a data.js does not say what it was measured on: give --device and --device-type"))
            .mistake();
    }
    let cannot = || format!("cannot import `{}`", arguments.results.display());
    let text = read(&arguments.results).with_context(cannot).mistake()?;
    // Commit, date and numbers are the file's; the machine of today is not the one that measured.
    let (device, environment) = (device(arguments, config, shell)?, Environment::default());
    let mut base = identity(&arguments.identity, None, device, &config.records, &environment).await?;
    (base.runner.cpu_info, base.runner.cpu_count, base.runner.avail_mem_in_gb) = Default::default();
    record::import(&text, &base, arguments.model.as_deref(), config.records.rules.collision)
        .with_context(cannot)
        .mistake()
}

fn read(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path)?.len();
    anyhow::ensure!(size <= IMPORT_LIMIT, "it has {size} bytes; at most {IMPORT_LIMIT} are read");
    Ok(std::fs::read_to_string(path)?)
}
