//! `vllm-perf records`: dashboard records from a results folder or from an import, printed or added to a store.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use indexmap::IndexMap;
use vllm_verdict::number;
use vllm_verdict::v1::{Device, Provider};

use super::identity_flags::identity;
use super::{base_settings, record_notices};
use crate::command::event_flags::EventArgs;
use crate::command::identity_flags::IdentityArgs;
use crate::command::shared_flags::DeviceArgs;
use crate::environment::Environment;
use crate::exit::{Classify, Exit};
use crate::plan::config::Config;
use crate::plan::device;
use crate::report::records::{self, Identity, Records};
use crate::run::collect;
use crate::run::fingerprint::Fingerprint;
use crate::system::shell::Shell;
use crate::system::store::object_key::RecordKey;
use crate::system::store::{Added, Store};
use crate::system::{output, probe, regular_file, results_folder};

/// Largest import, in bytes.
const IMPORT_LIMIT: u64 = 256 << 20;

/// Prints the records, one in each line, writes them to a file, or adds them to a store. Cases that are not published are
/// reported on standard error, and the exit code is 3 then.
pub async fn records(arguments: &RecordsArgs, shell: &Shell) -> Result<Exit> {
    let config = base_settings::of_job(arguments.config.as_deref(), shell).await?.config;
    let records = match arguments.results.extension().is_some_and(|extension| extension == "js") {
        true => import(arguments, &config, shell).await?,
        false => {
            let folder = results_folder::read_folder(&arguments.results).mistake()?;
            let identity = own(arguments, &config, shell).await?;
            records::records(&identity, &folder.cases, config.records.rules).mistake()?
        }
    };
    let objects = records::objects(&records.records, config.records.spelling.model_key)?;
    if let Some(place) = &arguments.store {
        add(&objects, &Store::open(place, &shell.environment)?, shell).await?;
    } else {
        let lines: String = objects.into_values().collect();
        match &arguments.output {
            Some(path) => output::write(path, lines.as_bytes()).world()?,
            None => shell.sink.out_json(&lines),
        }
    }
    record_notices::print(&records, shell);
    if records == Records::default() {
        shell.say(&format!("`{}` contains no results", arguments.results.display()));
    }
    Ok(if records.refused.is_empty() { Exit::Done } else { Exit::Unmeasured })
}

async fn add(objects: &IndexMap<RecordKey, String>, store: &Store, shell: &Shell) -> Result<()> {
    let (mut written, mut there) = (0, 0);
    for (key, lines) in objects {
        match store.add(&key.to_string(), lines.as_bytes()).await? {
            Added::Written => written += 1,
            Added::AlreadyThere => {
                there += 1;
                shell.say(&format!("already in the store, not replaced: {key}"));
            }
        }
    }
    shell.print(&format!("{} added to `{}`, {there} already there", number::plural(written, "object"), store.place()));
    Ok(())
}

/// The identity of a results folder.
async fn own(arguments: &RecordsArgs, config: &Config, shell: &Shell) -> Result<Identity> {
    let environment = &shell.environment;
    let event = match arguments.event.provider(environment) {
        Provider::Local => None,
        _ => Some(arguments.event.read(&[], environment).await?.0),
    };
    let fingerprint = collect::fingerprint(&arguments.results);
    let probe = probe::probe(environment).await;
    let device = device(&arguments.device, fingerprint.as_ref(), config, &probe)?;
    let mut identity = identity(&arguments.identity, event.as_ref(), device, &config.records, environment).await?;
    if let Some(host) = fingerprint.as_ref().and_then(Fingerprint::host) {
        (identity.runner.cpu_count, identity.runner.avail_mem_in_gb) = (host.cores, host.memory_gib as u32);
    }
    Ok(identity)
}

/// The device of the flags, or else the one that measured, where that is known, or else this machine's.
fn device(
    flags: &DeviceArgs,
    measured: Option<&Fingerprint>,
    config: &Config,
    probe: &device::Probe,
) -> Result<Device> {
    let Some(Fingerprint { device_type, device_count, .. }) = measured.filter(|known| known.device_count > 0) else {
        let device_type = flags.device_type.as_deref();
        return device::resolve(flags.name.0, device_type, flags.device_count, &config.devices, probe);
    };
    let is_here = probe.found.iter().find(|found| found.device_type == *device_type).map(|found| found.name);
    let Some(name) = flags.name.0.or(is_here) else {
        return Err(anyhow!(
            "{} beside the results names `{device_type}`, which this machine does not have: pass --device NAME",
            collect::ENVIRONMENT
        ))
        .mistake();
    };
    let (device_type, count) = (flags.device_type.as_ref().unwrap_or(device_type), *device_count);
    device::resolve(Some(name), Some(device_type), flags.device_count.or(Some(count)), &config.devices, probe)
}

/// The records of github-action-benchmark's data.js.
async fn import(arguments: &RecordsArgs, config: &Config, shell: &Shell) -> Result<Records> {
    let flags = &arguments.device;
    if flags.name.0.is_none() || flags.device_type.is_none() {
        return Err(anyhow!("a data.js does not contain the device: set --device and --device-type")).mistake();
    }
    let cannot = || format!("cannot import `{}`", arguments.results.display());
    let text = read(&arguments.results).with_context(cannot).mistake()?;
    // Commit, date and numbers are the file's; the current machine is not the one that measured.
    let (probe, environment) = (probe::probe(&shell.environment).await, Environment::default());
    let device = device(flags, None, config, &probe)?;
    let mut base = identity(&arguments.identity, None, device, &config.records, &environment).await?;
    (base.runner.cpu_info, base.runner.cpu_count, base.runner.avail_mem_in_gb) = Default::default();
    records::import(&text, &base, arguments.model.as_deref(), config.records.rules.collision)
        .with_context(cannot)
        .mistake()
}

fn read(path: &Path) -> Result<String> {
    Ok(regular_file::text_followed(path, IMPORT_LIMIT)?)
}

/// `vllm-perf records`.
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  vllm-perf records results/ --repository vllm-project/vllm --branch main --commit \"$(git rev-parse HEAD)\" \\\n    --workflow-id 20362340534 --job-id 58585533990 --device cpu\n\n  vllm-perf records data.js --store file:///srv/vllm-perf --device cpu --device-type AMD_EPYC_9654_96c --model opt-125m",
    after_long_help = "A data.js is github-action-benchmark's. Benchmarks in it whose name contains a metric of the dashboard (median_ttft_ms, \"Median TTFT\", p99_tpot, tokens_per_second, latency ...) become records; tp2, qps_4, concurrency_8 and random_128_16 in the rest of the name become parameters. Other benchmarks are reported and skipped. The run number is the date of the measurement."
)]
pub struct RecordsArgs {
    /// Results folder of vllm-perf or upstream, or a data.js
    #[arg(value_name = "RESULTS")]
    pub results: PathBuf,
    #[command(flatten)]
    pub event: EventArgs,
    #[command(flatten)]
    pub identity: IdentityArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Model for a data.js, instead of the name of each suite in it
    #[arg(long, env = "VLLM_PERF_MODEL", value_name = "NAME")]
    pub model: Option<String>,
    /// Store to add the records to, instead of standard output: a folder, file:///, s3://, gs:// or az://
    #[arg(long, env = "VLLM_PERF_RECORDS_STORE", value_name = "STORE", conflicts_with = "output")]
    pub store: Option<String>,
    /// File for all records, instead of standard output
    #[arg(long, env = "VLLM_PERF_RECORDS_OUTPUT", value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Config file, instead of vllm-perf.yml
    #[arg(long, env = "VLLM_PERF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use vllm_verdict::v1::DeviceName;

    use super::*;
    use crate::command::shared_flags::DeviceChoice;

    #[test]
    fn records_name_the_device_that_measured_and_not_that_of_this_machine() {
        let found = |name, device_type: &str| device::ProbedDevice { name, device_type: device_type.into(), count: 1 };
        let probe = device::Probe { found: vec![found(DeviceName::Cpu, "AMD_EPYC_2c")], ..device::Probe::default() };
        let of = |name: Option<DeviceName>, measured: Option<(&str, u32)>| {
            let flags = DeviceArgs { name: DeviceChoice(name), device_type: None, device_count: None };
            let measured = measured.map(|(device_type, device_count)| Fingerprint {
                device_type: device_type.into(),
                device_count,
                ..Fingerprint::default()
            });
            let device = device(&flags, measured.as_ref(), &Config::default(), &probe);
            device.map(|device| (device.name, device.device_type, device.count))
        };
        assert_eq!(of(None, None).unwrap(), (DeviceName::Cpu, "AMD_EPYC_2c".into(), 1));
        assert_eq!(of(None, Some(("AMD_EPYC_2c", 2))).unwrap(), (DeviceName::Cpu, "AMD_EPYC_2c".into(), 2));
        let h100 = (DeviceName::Cuda, "NVIDIA H100".to_owned(), 8);
        assert_eq!(of(Some(DeviceName::Cuda), Some(("NVIDIA H100", 8))).unwrap(), h100);
        let error = of(None, Some(("NVIDIA H100", 8))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "environment.json beside the results names `NVIDIA H100`, which this machine does not have: pass --device NAME"
        );
    }
}
