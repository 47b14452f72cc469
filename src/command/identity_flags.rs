//! The identity of dashboard records: from flags and variables, or else from CI, git and the machine.

use anyhow::{Context, Result};
use clap::Args;
use vllm_verdict::v1::{Device, Event, Provider};

use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::config::RecordsConfig;
use crate::report::records::{Identity, Runner};
use crate::system::git::Git;
use crate::system::host;

/// The identity of results measured on `device`. Unknown fields are empty, and the records are then refused.
///
/// # Errors
/// The user's mistake: no flag gives the commit's date, and git does not know it.
pub async fn identity(
    flags: &IdentityArgs,
    event: Option<&Event>,
    device: Device,
    config: &RecordsConfig,
    environment: &Environment,
) -> Result<Identity> {
    let of_event = |field: fn(&Event) -> &Option<String>| event.and_then(|event| field(event).clone());
    let number = |name: &str| number(environment, name);
    // Buildkite's ids are UUIDs; the number of a build grows, as the number of a run must.
    let build = match (event.map(|event| event.provider), config.build_number_offset) {
        (Some(Provider::Buildkite), Some(offset)) => {
            number("BUILDKITE_BUILD_NUMBER")?.map(|build| offset.saturating_add(build))
        }
        _ => None,
    };
    let commit = flags.commit.clone().or_else(|| of_event(|it| &it.head_sha)).unwrap_or_default();
    let timestamp = match flags.timestamp {
        Some(timestamp) => timestamp,
        None if commit.is_empty() => 0,
        None => committed(&commit, &Git::new(environment)).await.mistake()?,
    };
    let (run, attempt) = (number("GITHUB_RUN_ID")?, attempt(environment, "GITHUB_RUN_ATTEMPT")?);
    let branch = flags.branch.clone().or_else(|| of_event(|it| &it.branch)).unwrap_or_default();
    Ok(Identity {
        benchmark: config.benchmark.clone(),
        repository: flags.repository.clone().or_else(|| of_event(|it| &it.repository)).unwrap_or_default(),
        branch: config.spelling.of_branch(&branch),
        commit,
        timestamp,
        workflow_id: flags.workflow_id.or(run).or(build).unwrap_or_default(),
        job_id: flags.job_id.or(build).unwrap_or_default(),
        run_attempt: flags.run_attempt.or(attempt).unwrap_or(1),
        runner: runner(device)?,
    })
}

/// The flags of `records` as `run` gets them: from their variables.
///
/// # Errors
/// The user's mistake (exit 2): a variable that is not a number from 1.
pub fn from_variables(environment: &Environment) -> Result<IdentityArgs> {
    let number = |name: &str| number(environment, name);
    Ok(IdentityArgs {
        branch: environment.get("VLLM_PERF_BRANCH").map(str::to_owned),
        timestamp: number("VLLM_PERF_TIMESTAMP")?,
        workflow_id: number("VLLM_PERF_WORKFLOW_ID")?,
        job_id: number("VLLM_PERF_JOB_ID")?,
        run_attempt: attempt(environment, "VLLM_PERF_RUN_ATTEMPT")?,
        ..IdentityArgs::default()
    })
}

/// Checks the variables that [`identity`] and [`from_variables`] read at the end of a run: before it, the user can correct
/// them.
///
/// # Errors
/// The user's mistake (exit 2): a variable that is not a number from 1.
pub fn check_variables(environment: &Environment) -> Result<()> {
    from_variables(environment)?;
    attempt(environment, "GITHUB_RUN_ATTEMPT")?;
    for name in ["GITHUB_RUN_ID", "BUILDKITE_BUILD_NUMBER"] {
        number(environment, name)?;
    }
    Ok(())
}

/// The number in a variable.
fn number(environment: &Environment, name: &str) -> Result<Option<u64>> {
    let Some(text) = environment.get(name) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| *number > 0);
    number.map(Some).with_context(|| format!("{name} must be a whole number from 1, not `{text}`")).mistake()
}

fn attempt(environment: &Environment, name: &str) -> Result<Option<u32>> {
    let Some(attempt) = number(environment, name)? else { return Ok(None) };
    let attempt = u32::try_from(attempt).with_context(|| format!("{name}: `{attempt}` is too large"));
    attempt.map(Some).mistake()
}

/// When the commit was made, in seconds since 1970.
async fn committed(commit: &str, git: &Git) -> Result<u64> {
    let unknown = || format!("git does not know the date of the commit `{commit}`: give --timestamp SECONDS");
    let date: jiff::Timestamp = git.date(commit).await.with_context(unknown)?.parse().with_context(unknown)?;
    u64::try_from(date.as_second()).with_context(unknown)
}

fn runner(device: Device) -> Result<Runner> {
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

/// The identity of records, in place of what CI gives.
#[derive(Debug, Default, Args)]
pub struct IdentityArgs {
    /// OWNER/NAME, in place of the event's
    #[arg(long, env = "VLLM_PERF_REPOSITORY", value_name = "NAME")]
    pub repository: Option<String>,
    /// Branch, in place of the event's
    #[arg(long, env = "VLLM_PERF_BRANCH", value_name = "NAME")]
    pub branch: Option<String>,
    /// Full commit hash, in place of the event's
    #[arg(long, env = "VLLM_PERF_COMMIT", value_name = "HASH")]
    pub commit: Option<String>,
    /// Date of the commit, in place of git's (seconds since 1970)
    #[arg(long, env = "VLLM_PERF_TIMESTAMP", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub timestamp: Option<u64>,
    /// Increasing number of the CI run, in place of GITHUB_RUN_ID
    #[arg(long, env = "VLLM_PERF_WORKFLOW_ID", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub workflow_id: Option<u64>,
    /// The job of the run (number)
    #[arg(long, env = "VLLM_PERF_JOB_ID", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub job_id: Option<u64>,
    /// Attempt number of the run, in place of GITHUB_RUN_ATTEMPT (number)
    #[arg(hide_short_help = true, long, env = "VLLM_PERF_RUN_ATTEMPT", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub run_attempt: Option<u32>,
}

#[cfg(test)]
mod tests {
    use vllm_verdict::v1::DeviceName;

    use super::*;

    async fn of(environment: &Environment, config: &RecordsConfig) -> Identity {
        let device = Device { name: DeviceName::Cpu, device_type: "x".into(), count: 1, image_suffix: "-cpu".into() };
        let (event, _) = crate::ci::event::buildkite_event::parse(environment);
        let flags = IdentityArgs { timestamp: Some(1), ..from_variables(environment).unwrap() };
        identity(&flags, Some(&event), device, config, environment).await.unwrap()
    }

    #[test]
    fn a_variable_that_is_no_number_is_a_mistake_that_names_it() {
        for name in [
            "VLLM_PERF_TIMESTAMP",
            "VLLM_PERF_WORKFLOW_ID",
            "VLLM_PERF_JOB_ID",
            "VLLM_PERF_RUN_ATTEMPT",
            "GITHUB_RUN_ID",
            "GITHUB_RUN_ATTEMPT",
            "BUILDKITE_BUILD_NUMBER",
        ] {
            for value in ["yesterday", "abc", "-1", "0", "1.5", "1e3", " 7", "99999999999999999999"] {
                let error = check_variables(&[(name, value)].into_iter().collect()).unwrap_err();
                assert_eq!(crate::exit::of(&error), crate::exit::Exit::Mistake);
                assert_eq!(error.to_string(), format!("{name} must be a whole number from 1, not `{value}`"));
            }
            check_variables(&[(name, "1764000000")].into_iter().collect()).unwrap();
            check_variables(&[(name, "")].into_iter().collect()).unwrap();
        }
        let large = check_variables(&[("GITHUB_RUN_ATTEMPT", "4294967296")].into_iter().collect());
        assert_eq!(large.unwrap_err().to_string(), "GITHUB_RUN_ATTEMPT: `4294967296` is too large");
    }

    #[tokio::test]
    async fn a_buildkite_build_has_a_number_where_the_config_or_a_variable_gives_one() {
        let build = [
            ("BUILDKITE_REPO", "https://github.com/vllm-project/vllm.git"),
            ("BUILDKITE_BRANCH", "main"),
            ("BUILDKITE_COMMIT", "0123456789abcdef0123456789abcdef01234567"),
            ("BUILDKITE_BUILD_NUMBER", "7"),
            ("BUILDKITE_BUILD_ID", "0190-uuid"),
        ];
        let environment: Environment = build.into_iter().collect();
        let none = of(&environment, &RecordsConfig::default()).await;
        assert!(none.check().unwrap_err().to_string().contains("ids are UUIDs"));
        let config = RecordsConfig { build_number_offset: Some(30_000_000_000), ..RecordsConfig::default() };
        let offset = of(&environment, &config).await;
        assert_eq!((offset.workflow_id, offset.job_id), (30_000_000_007, 30_000_000_007));
        offset.check().unwrap();
        let variables = build.into_iter().chain([("VLLM_PERF_WORKFLOW_ID", "5"), ("VLLM_PERF_JOB_ID", "6")]).collect();
        let flags = of(&variables, &config).await;
        assert_eq!((flags.workflow_id, flags.job_id), (5, 6));
    }
}
