//! The record of the PyTorch benchmark database, schema v3: one metric of one case.

use anyhow::{Result, ensure};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::record_identity::{Identity, NAME_LENGTH, Runner};
use super::record_parameters::BenchmarkInfo;
use crate::system::store::object_key::RecordKey;

/// The version of the schema.
pub const SCHEMA: &str = "v3";

/// The name that the dashboard selects records by.
pub(super) const BENCHMARK: &str = "vLLM benchmark";

/// One record of the benchmark database: one metric of one case. The database rejects a whole file if the type of a field
/// differs from these.
// 13 fields: the columns of the database's schema v3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The commit's date, in seconds since 1970.
    pub timestamp: u64,
    /// Always [`SCHEMA`].
    pub schema_version: String,
    pub name: String,
    /// `owner/name`.
    pub repo: String,
    /// Branch of the commit.
    pub head_branch: String,
    /// Full hash of the commit.
    pub head_sha: String,
    /// Number of the CI run; later runs have larger numbers.
    pub workflow_id: u64,
    /// Attempt of that run, from 1.
    pub run_attempt: u32,
    /// Job of that run.
    pub job_id: u64,
    /// Exactly one.
    pub runners: Vec<Runner>,
    pub benchmark: Benchmark,
    pub model: Model,
    pub metric: Metric,
}

/// The benchmark of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Benchmark {
    /// Always [`BENCHMARK`].
    pub name: String,
    pub extra_info: BenchmarkInfo,
}

/// The served model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// As in the command.
    pub name: String,
}

/// A metric of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Upstream's name, which includes the unit.
    pub name: String,
    /// All iterations of a latency test, otherwise one value.
    pub benchmark_values: Vec<f64>,
    /// Further numbers of the case that are not metrics of the dashboard.
    pub extra_info: IndexMap<String, Fact>,
}

/// A further number or text of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fact {
    Count(u64),
    Number(f64),
    Text(String),
}

impl Record {
    /// Checks a record of a folder, which may be untrusted.
    ///
    /// # Errors
    /// A value that the database rejects or the dashboard cannot show.
    pub fn check(&self) -> Result<()> {
        ensure!(self.schema_version == SCHEMA, "its schema is `{}`", self.schema_version);
        ensure!(self.name == BENCHMARK && self.benchmark.name == BENCHMARK, "its benchmark is not `{BENCHMARK}`");
        let [runner] = self.runners.as_slice() else { anyhow::bail!("it has {} runners", self.runners.len()) };
        let identity = Identity {
            repository: self.repo.clone(),
            branch: self.head_branch.clone(),
            commit: self.head_sha.clone(),
            timestamp: self.timestamp,
            workflow_id: self.workflow_id,
            job_id: self.job_id,
            run_attempt: self.run_attempt,
            runner: runner.clone(),
        };
        identity.check()?;
        check_name(&self.model.name)?;
        check_values(&self.metric.name, &self.metric.benchmark_values)
    }

    /// The key of its object in a store.
    pub fn key(&self) -> RecordKey {
        let device_type = self.runners.first().map_or("", |runner| &runner.device_type);
        RecordKey::new(&self.repo, &self.head_branch, &self.head_sha, device_type, &self.model.name)
    }
}

pub(super) fn check_values(name: &str, values: &[f64]) -> Result<()> {
    ensure!(!values.is_empty() && values.iter().all(|value| value.is_finite()), "`{name}` has no value");
    ensure!(values.iter().all(|value| *value >= 0.0), "`{name}` is negative");
    Ok(())
}

/// Rejects names that the dashboard's pages cannot show.
pub(super) fn check_name(model: &str) -> Result<()> {
    let shown: String = model.chars().take(60).collect();
    ensure!(
        !model.is_empty() && model.chars().count() <= NAME_LENGTH,
        "the model's name `{shown}` is too long or empty"
    );
    let bad = model
        .chars()
        .find(|character| matches!(character, ';' | '+' | '<' | '>' | '"' | '\\') || character.is_control());
    match bad {
        Some(bad) => anyhow::bail!("the model's name `{shown}` has {bad:?}, which breaks the dashboard's pages"),
        None => Ok(()),
    }
}
