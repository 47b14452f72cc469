//! The CI matrix: which models are benchmarked on which runners. The runners of a model are those that the config file
//! lists for its tensor-parallel size, without those that it skips. `matrix/` formats the jobs for GitHub and Buildkite.

pub mod buildkite_pipeline;
pub mod github_matrix;

use std::collections::HashSet;

use serde::Serialize;
use vllm_verdict::v1::DeviceName;

use crate::plan::config::MatrixConfig;
use crate::plan::suite::ServedModel;

/// One job of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MatrixJob {
    /// Label of the runner on GitHub, queue of the agents on Buildkite.
    pub runner: String,
    pub device: DeviceName,
    /// Device type of the runner, if the config has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
    /// The model that it measures, as spelled in the test files.
    pub model: String,
    /// The commit that it measures, if that is not the event's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// Which part of the matrix is requested. An empty list selects everything.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Full names of models, compared without case.
    pub models: Vec<String>,
    /// Parts of the names of runners, compared without case.
    pub runners: Vec<String>,
}

/// The jobs for the models of a device, in the order of the test files and then of the runners, without duplicates.
///
/// The rule is that of the daily workflow's generator (pytorch/pytorch-integration-testing,
/// `.github/scripts/generate_vllm_benchmark_matrix.py`): the first test of a model determines its size, the size determines
/// the runners, and a runner is skipped by a part of its name.
pub fn jobs(device: DeviceName, models: &[ServedModel], config: &MatrixConfig, filter: &JobFilter) -> Vec<MatrixJob> {
    let mut seen = HashSet::new();
    let chosen =
        models.iter().filter(|model| seen.insert(model.name.to_lowercase()) && filter.selects_model(&model.name));
    let jobs = chosen.flat_map(|model| {
        let runners = config.runners_of(device, model.size.unwrap_or(config.default_size));
        let selected =
            runners.iter().filter(|runner| filter.selects_runner(runner) && !config.skips(&model.name, runner));
        selected.map(|runner| MatrixJob {
            runner: runner.clone(),
            device,
            device_type: config.types.get(runner).cloned(),
            model: model.name.clone(),
            commit: None,
        })
    });
    let mut kept = HashSet::new();
    jobs.filter(|job| kept.insert((job.runner.clone(), job.model.to_lowercase()))).collect()
}

/// The sizes of the selected models of a device for which the config has no runner, sorted and without duplicates.
pub fn sizes_without_runner(
    device: DeviceName,
    models: &[ServedModel],
    config: &MatrixConfig,
    filter: &JobFilter,
) -> Vec<u64> {
    let mut seen = HashSet::new();
    let first =
        models.iter().filter(|model| seen.insert(model.name.to_lowercase()) && filter.selects_model(&model.name));
    let mut sizes: Vec<u64> = first.map(|model| model.size.unwrap_or(config.default_size)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.retain(|size| config.runners_of(device, *size).is_empty());
    sizes
}

impl JobFilter {
    fn selects_model(&self, name: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|model| model.eq_ignore_ascii_case(name))
    }

    pub fn selects_runner(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.runners.is_empty() || self.runners.iter().any(|part| name.contains(&part.to_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use indexmap::IndexMap;
    use serde::Deserialize;

    use super::*;
    use crate::environment::Environment;
    use crate::plan::{config, suite};
    use crate::system::suite_files::SuiteFiles;
    use crate::system::suite_folder;

    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/matrix");

    #[derive(Deserialize)]
    struct Expected {
        models: Vec<String>,
        runners: Vec<String>,
        pairs: Vec<(String, String)>,
    }

    fn model(name: &str, size: u64) -> ServedModel {
        ServedModel { name: name.to_owned(), size: Some(size) }
    }

    fn config(text: &str) -> MatrixConfig {
        config::parse(text, "vllm-perf.yml").unwrap().matrix
    }

    fn named(jobs: &[MatrixJob]) -> Vec<(&str, &str)> {
        jobs.iter().map(|job| (job.runner.as_str(), job.model.as_str())).collect()
    }

    #[test]
    fn the_jobs_are_those_of_the_daily_workflows_generator() {
        let read = |name: &str| std::fs::read_to_string(Path::new(DATA).join(name)).unwrap();
        let config = config(&read("daily.yml"));
        let expected: IndexMap<String, Expected> = serde_json::from_str(&read("expected.json")).unwrap();
        for (name, Expected { models, runners, pairs: expected }) in expected {
            let filter = JobFilter { models, runners };
            let mut all = Vec::new();
            for device in config.runners.keys() {
                let files = suite_folder::serving(
                    &Path::new(DATA).join("daily"),
                    &Environment::default(),
                    *device,
                    &SuiteFiles::Everywhere,
                )
                .unwrap();
                let models = suite::models(&files).unwrap().0;
                assert_eq!(sizes_without_runner(*device, &models, &config, &filter), [0; 0], "{device}");
                all.extend(jobs(*device, &models, &config, &filter));
            }
            // The generator puts names of models in lower case, with which `MODEL_FILTER` would match no test.
            let all: Vec<(String, String)> =
                all.into_iter().map(|job| (job.runner, job.model.to_lowercase())).collect();
            assert_eq!(all, expected, "{name}");
            assert_eq!(HashSet::<&(String, String)>::from_iter(&all).len(), all.len(), "{name}: a duplicate job");
        }
    }

    #[test]
    fn a_model_is_listed_once_with_its_first_size() {
        let config = config("matrix: {runners: {cuda: {1: [small], 4: [large]}}}");
        let models = [model("a/B", 4), model("a/b", 1), model("c", 1)];
        let got = jobs(DeviceName::Cuda, &models, &config, &JobFilter::default());
        assert_eq!(named(&got), [("large", "a/B"), ("small", "c")]);
        assert_eq!(jobs(DeviceName::Cpu, &models, &config, &JobFilter::default()), []);
    }

    #[test]
    fn a_duplicate_runner_of_a_size_gives_one_job() {
        let config = config("matrix: {runners: {cpu: {1: [x, x]}}}");
        assert_eq!(jobs(DeviceName::Cpu, &[model("m", 1)], &config, &JobFilter::default()).len(), 1);
    }

    #[test]
    fn a_size_without_a_runner_is_reported() {
        let config = config("matrix: {default_size: 8, runners: {cpu: {1: [x]}}}");
        let models = [model("m", 2), ServedModel { name: "n".to_owned(), size: None }, model("o", 1), model("p", 2)];
        assert_eq!(sizes_without_runner(DeviceName::Cpu, &models, &config, &JobFilter::default()), [2, 8]);
        let filter = JobFilter { models: vec!["O".to_owned()], ..JobFilter::default() };
        assert_eq!(sizes_without_runner(DeviceName::Cpu, &models, &config, &filter), [0; 0]);
    }
}
