//! `vllm-perf records`: dashboard records from a results folder.

use anyhow::{Context, Result};

use super::{Shell, prepare};
use crate::cli::RecordsArgs;
use crate::config::Config;
use crate::environment::Environment;
use crate::event::{self, Event, Provider};
use crate::exit::{Classify, Exit};
use crate::record::{self, Choice, Identity, Runner};
use crate::{device, git, host, output, result};

/// Prints one record a line, or writes them to a file. Cases that may not be published are named on standard error, and
/// then the exit code is 3.
pub(super) async fn records(arguments: &RecordsArgs, shell: &Shell) -> Result<Exit> {
    let folder = result::read_folder(&arguments.results).mistake()?;
    let identity = identity(arguments, &shell.environment).await?;
    let records = record::records(&identity, &folder.cases, Choice::default()).mistake()?;
    let mut lines = String::new();
    for record in &records.records {
        lines += &serde_json::to_string(record).context("cannot write a record as JSON")?;
        lines.push('\n');
    }
    match &arguments.output {
        Some(path) => output::write(path, lines.as_bytes()).world()?,
        None => shell.print(&lines),
    }
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
    Ok(if records.refused.is_empty() { Exit::Done } else { Exit::Unmeasured })
}

/// Whose records they are: what the flags say, else what CI says, else what the machine is.
async fn identity(arguments: &RecordsArgs, environment: &Environment) -> Result<Identity> {
    let event = match arguments.event.provider.named().unwrap_or_else(|| event::detect(environment)) {
        Provider::Local => None,
        _ => Some(prepare::event(&arguments.event, &[], environment)?.0),
    };
    let of_event = |field: fn(&Event) -> &Option<String>| event.as_ref().and_then(|event| field(event).clone());
    let number = |name: &str| environment.get(name).and_then(|text| text.parse().ok());
    let commit = arguments.commit.clone().or_else(|| of_event(|it| &it.head_sha)).unwrap_or_default();
    let timestamp = match arguments.timestamp {
        Some(timestamp) => timestamp,
        None => committed(&commit).await.mistake()?,
    };
    Ok(Identity {
        repository: arguments.repository.clone().or_else(|| of_event(|it| &it.repository)).unwrap_or_default(),
        branch: arguments.branch.clone().or_else(|| of_event(|it| &it.branch)).unwrap_or_default(),
        commit,
        timestamp,
        workflow_id: arguments.workflow_id.or_else(|| number("GITHUB_RUN_ID")).unwrap_or_default(),
        job_id: arguments.job_id.unwrap_or_default(),
        run_attempt: arguments
            .run_attempt
            .or_else(|| number("GITHUB_RUN_ATTEMPT").and_then(|attempt| u32::try_from(attempt).ok()))
            .unwrap_or(1),
        runner: runner(arguments, environment)?,
    })
}

/// When the commit was made, in seconds since 1970.
async fn committed(commit: &str) -> Result<u64> {
    let unknown = || format!("git does not know the date of the commit `{commit}`: give --timestamp SECONDS");
    let date: jiff::Timestamp = git::date(commit).await.with_context(unknown)?.parse().with_context(unknown)?;
    u64::try_from(date.as_second()).with_context(unknown)
}

fn runner(arguments: &RecordsArgs, environment: &Environment) -> Result<Runner> {
    let device = device::resolve(
        arguments.device.name.0,
        arguments.device.device_type.as_deref(),
        arguments.device.device_count,
        &Config::default().devices,
        &device::probe(environment),
    )?;
    let host = host::host()?;
    let accelerator = !device.name.is_cpu();
    Ok(Runner {
        name: device.name.as_str().to_owned(),
        gpu_info: if accelerator { device.device_type.clone() } else { String::new() },
        gpu_count: if accelerator { device.count } else { 0 },
        device_type: device.device_type,
        cpu_info: std::env::consts::ARCH.to_owned(),
        cpu_count: host.cores,
        avail_mem_in_gb: host.memory_gib as u32,
    })
}
