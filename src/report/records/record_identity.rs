//! The identity of records: commit, CI run and runner.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::escape;
use crate::names::Repository;
use crate::plan::config::record_rules::unshown;

/// Longest published name, in characters.
pub(super) const NAME_LENGTH: usize = 200;

/// The fields that all records of a run share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the benchmark, which the dashboard's pages select records by.
    pub benchmark: String,
    /// `owner/name`.
    pub repository: String,
    /// Branch of the commit, as the records spell it.
    pub branch: String,
    /// Full hash of the commit.
    pub commit: String,
    /// Date of the commit, in seconds since 1970; the same for every record of a commit.
    pub timestamp: u64,
    /// Number of the CI run, which grows: GitHub's run id.
    pub workflow_id: u64,
    /// The job of that run.
    pub job_id: u64,
    /// Attempt of that run, from 1.
    pub run_attempt: u32,
    pub runner: Runner,
}

/// The machine of the measurement. Its key in the dashboard is name and type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// `cuda`, `rocm`, `hpu`, `xpu`, `cpu` or `arm64-cpu`.
    pub name: String,
    /// Device type.
    #[serde(rename = "type")]
    pub device_type: String,
    /// Architecture of the processor.
    pub cpu_info: String,
    /// Logical processors.
    pub cpu_count: u32,
    /// Memory, in GiB.
    pub avail_mem_in_gb: u32,
    /// Device type of the accelerator; empty without one.
    pub gpu_info: String,
    /// Accelerators.
    pub gpu_count: u32,
}

impl Identity {
    /// Checks that the database accepts it.
    ///
    /// # Errors
    /// A missing or invalid field, with the flag that sets it.
    pub fn check(&self) -> Result<()> {
        check_name("benchmark", &self.benchmark)?;
        ensure!(!self.repository.is_empty(), "the repository is unknown: --repository OWNER/NAME");
        ensure!(
            Repository::is_valid(&self.repository),
            "`{}` is not a repository: --repository OWNER/NAME",
            escape::name(&self.repository)
        );
        ensure!(!self.branch.is_empty(), "the branch is unknown: --branch NAME");
        for (text, flag) in [
            (&self.repository, "--repository"),
            (&self.branch, "--branch"),
            (&self.runner.device_type, "--device-type"),
        ] {
            let length = text.chars().count();
            let right = length <= NAME_LENGTH && !text.contains(char::is_control);
            ensure!(
                right,
                "{flag} has {length} characters, or contains control characters: at most {NAME_LENGTH} are allowed"
            );
        }
        ensure!(
            crate::names::Commit::is_full(&self.commit),
            "`{}` is not a full commit hash: --commit with 40 hexadecimal digits",
            self.commit
        );
        ensure!(self.timestamp > 0, "the date of the commit is unknown: --timestamp SECONDS");
        for (id, flag, hint) in [
            (
                self.workflow_id,
                "--workflow-id (VLLM_PERF_WORKFLOW_ID)",
                "the dashboard orders runs by a number that grows, as GitHub's run id does",
            ),
            (self.job_id, "--job-id (VLLM_PERF_JOB_ID)", "on GitHub it is `${{ job.check_run_id }}`"),
        ] {
            ensure!(
                id > 0,
                "{flag} is not set: {hint}; where ids are UUIDs, as on Buildkite, set a number in the same range or \
                 `records: {{build_number_offset: N}}` in the config"
            );
        }
        ensure!(!self.runner.name.is_empty() && !self.runner.device_type.is_empty(), "the device is unknown: --device");
        Ok(())
    }
}

/// Rejects the name of a model or a benchmark that the dashboard's pages cannot show.
pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    let shown: String = name.chars().take(60).collect();
    ensure!(
        !name.is_empty() && name.chars().count() <= NAME_LENGTH,
        "the {what}'s name `{shown}` is too long or empty"
    );
    match unshown(name) {
        Some(bad) => anyhow::bail!("the {what}'s name `{shown}` has {bad:?}, which breaks the dashboard's pages"),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(in crate::report::records) mod tests {
    use super::*;

    pub(in crate::report::records) fn identity() -> Identity {
        Identity {
            benchmark: crate::plan::config::record_rules::BENCHMARK.into(),
            repository: "vllm-project/vllm".into(),
            branch: "main".into(),
            commit: "0123456789abcdef0123456789abcdef01234567".into(),
            timestamp: 1_790_000_000,
            workflow_id: 20_362_340_534,
            job_id: 58_585_533_990,
            run_attempt: 1,
            runner: Runner {
                name: "cpu".into(),
                device_type: "AMD_EPYC_2c".into(),
                cpu_info: "x86_64".into(),
                cpu_count: 2,
                avail_mem_in_gb: 24,
                ..Runner::default()
            },
        }
    }

    #[test]
    fn what_is_missing_is_named_with_its_flag() {
        type Change = fn(&mut Identity);
        let changes: [(Change, &str); 9] = [
            (|it| it.branch = "x".repeat(10_000), "--branch has 10000 characters"),
            (|it| it.runner.device_type = "a\nb".into(), "--device-type"),
            (|it| it.repository = "vllm".into(), "--repository"),
            (|it| it.branch.clear(), "--branch"),
            (|it| it.commit.truncate(7), "--commit"),
            (|it| it.timestamp = 0, "--timestamp"),
            (|it| it.workflow_id = 0, "--workflow-id"),
            (|it| it.job_id = 0, "--job-id"),
            (|it| it.runner.name.clear(), "--device"),
        ];
        for (change, flag) in changes {
            let mut identity = identity();
            change(&mut identity);
            let error = identity.check().unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
        identity().check().unwrap();
    }
}
