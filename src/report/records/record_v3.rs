//! The record of the PyTorch benchmark database, schema v3: one metric of one case.

use anyhow::{Result, ensure};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::record_identity::{Identity, Runner, check_name};
use super::record_parameters::BenchmarkInfo;
use crate::names;
use crate::plan::config::record_rules::KeyCase;
use crate::system::store::object_key::RecordKey;

/// The version of the schema.
pub const SCHEMA: &str = "v3";

/// One record of the benchmark database: one metric of one case. The database rejects a whole file if the type of a field
/// differs from these.
// 13 fields: the columns of the database's schema v3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The commit's date, in seconds since 1970.
    pub timestamp: u64,
    /// Always [`SCHEMA`].
    pub schema_version: String,
    /// That of the benchmark.
    pub name: String,
    /// `owner/name`.
    pub repo: String,
    /// Branch of the commit, in one of the forms of the dashboard.
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
    /// The dashboard's pages select records by it.
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
        ensure!(self.name == self.benchmark.name, "it names two benchmarks");
        let [runner] = self.runners.as_slice() else { anyhow::bail!("it has {} runners", self.runners.len()) };
        let identity = Identity {
            benchmark: self.name.clone(),
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
        check_name("model", &self.model.name)?;
        check_values(&self.metric.name, &self.metric.benchmark_values)
    }

    /// The key of its object in a store. It has the plain name of the branch, however the record spells it.
    pub fn key(&self, model_key: KeyCase) -> RecordKey {
        let device_type = self.runners.first().map_or("", |runner| &runner.device_type);
        let (branch, model) = (names::plain_branch(&self.head_branch), model_key.of_model(&self.model.name));
        RecordKey::new(&self.repo, branch, &self.head_sha, device_type, &model)
    }
}

pub(super) fn check_values(name: &str, values: &[f64]) -> Result<()> {
    ensure!(!values.is_empty() && values.iter().all(|value| value.is_finite()), "`{name}` has no value");
    ensure!(values.iter().all(|value| *value >= 0.0), "`{name}` is negative");
    Ok(())
}
