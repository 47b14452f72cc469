//! The CI matrix: which models are benchmarked on which runners. Pure. The tensor-parallel size of a model chooses the
//! runners, and what is skipped is data in the config file. `matrix/` prints it for GitHub and for Buildkite.

pub mod buildkite_pipeline;
pub mod github_matrix;

use std::collections::HashSet;

use serde::Serialize;
use vllm_verdict::v1::DeviceName;

use crate::plan::config::MatrixConfig;
use crate::plan::suite::ServedModel;

/// One job of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// Where it runs: a runner's label, or an agents' queue.
    pub runner: String,
    /// What it measures on.
    pub device: DeviceName,
    /// Device type of the runner, where the config says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
    /// The one model that it measures, as the test files spell it.
    pub model: String,
    /// The commit that it measures, where that is not the event's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// Which part of the matrix is wanted; an empty list wants all.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Whole names of models; upper and lower case are the same.
    pub models: Vec<String>,
    /// Parts of names of runners; upper and lower case are the same.
    pub runners: Vec<String>,
}

/// The jobs for the models of a device, in the order of the test files and then of the runners, each pair once.
///
/// It is the rule of the daily workflow's generator (pytorch/pytorch-integration-testing,
/// `.github/scripts/generate_vllm_benchmark_matrix.py`): a model counts where it stands first, its size there chooses the
/// runners, and a skip is a part of a runner's name.
pub fn pairs(device: DeviceName, models: &[ServedModel], config: &MatrixConfig, wanted: &Wanted) -> Vec<Pair> {
    let mut seen = HashSet::new();
    let chosen = models.iter().filter(|model| seen.insert(model.name.to_lowercase()) && wanted.model(&model.name));
    let jobs = chosen.flat_map(|model| {
        let runners = config.runners_of(device, model.size.unwrap_or(config.default_size));
        let kept = runners.iter().filter(|runner| wanted.runner(runner) && !config.skips(&model.name, runner));
        kept.map(|runner| Pair {
            runner: runner.clone(),
            device,
            device_type: config.types.get(runner).cloned(),
            model: model.name.clone(),
            commit: None,
        })
    });
    let mut once = HashSet::new();
    jobs.filter(|pair| once.insert((pair.runner.clone(), pair.model.to_lowercase()))).collect()
}

/// The sizes among the wanted models of a device for which the config has no runner, each once.
pub fn homeless(device: DeviceName, models: &[ServedModel], config: &MatrixConfig, wanted: &Wanted) -> Vec<u64> {
    let mut seen = HashSet::new();
    let first = models.iter().filter(|model| seen.insert(model.name.to_lowercase()) && wanted.model(&model.name));
    let mut sizes: Vec<u64> = first.map(|model| model.size.unwrap_or(config.default_size)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.retain(|size| config.runners_of(device, *size).is_empty());
    sizes
}

impl Wanted {
    fn model(&self, name: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
    }

    /// Whether jobs on this runner are wanted.
    pub fn runner(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.runners.is_empty() || self.runners.iter().any(|wanted| name.contains(&wanted.to_lowercase()))
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

    fn named(pairs: &[Pair]) -> Vec<(&str, &str)> {
        pairs.iter().map(|pair| (pair.runner.as_str(), pair.model.as_str())).collect()
    }

    #[test]
    fn the_pairs_are_those_of_the_daily_workflows_generator() {
        let read = |name: &str| std::fs::read_to_string(Path::new(DATA).join(name)).unwrap();
        let config = config(&read("daily.yml"));
        let expected: IndexMap<String, Expected> = serde_json::from_str(&read("expected.json")).unwrap();
        for (name, Expected { models, runners, pairs: expected }) in expected {
            let wanted = Wanted { models, runners };
            let mut all = Vec::new();
            for device in config.runners.keys() {
                let files =
                    suite_folder::serving(&Path::new(DATA).join("daily"), &Environment::default(), *device).unwrap();
                let models = suite::models(&files).unwrap();
                assert_eq!(homeless(*device, &models, &config, &wanted), [0; 0], "{device}");
                all.extend(pairs(*device, &models, &config, &wanted));
            }
            // The generator puts names of models in lower case, with which `MODEL_FILTER` would find no test.
            let all: Vec<(String, String)> = all.into_iter().map(|it| (it.runner, it.model.to_lowercase())).collect();
            assert_eq!(all, expected, "{name}");
            assert_eq!(HashSet::<&(String, String)>::from_iter(&all).len(), all.len(), "{name}: a pair stands twice");
        }
    }

    #[test]
    fn a_model_counts_once_with_its_first_size() {
        let config = config("matrix: {runners: {cuda: {1: [small], 4: [large]}}}");
        let models = [model("a/B", 4), model("a/b", 1), model("c", 1)];
        let got = pairs(DeviceName::Cuda, &models, &config, &Wanted::default());
        assert_eq!(named(&got), [("large", "a/B"), ("small", "c")]);
        assert_eq!(pairs(DeviceName::Cpu, &models, &config, &Wanted::default()), []);
    }

    #[test]
    fn a_runner_that_stands_twice_for_a_size_is_one_job() {
        let config = config("matrix: {runners: {cpu: {1: [x, x]}}}");
        assert_eq!(pairs(DeviceName::Cpu, &[model("m", 1)], &config, &Wanted::default()).len(), 1);
    }

    #[test]
    fn a_size_without_a_runner_is_told() {
        let config = config("matrix: {default_size: 8, runners: {cpu: {1: [x]}}}");
        let models = [model("m", 2), ServedModel { name: "n".to_owned(), size: None }, model("o", 1), model("p", 2)];
        assert_eq!(homeless(DeviceName::Cpu, &models, &config, &Wanted::default()), [2, 8]);
        let wanted = Wanted { models: vec!["O".to_owned()], ..Wanted::default() };
        assert_eq!(homeless(DeviceName::Cpu, &models, &config, &wanted), [0; 0]);
    }
}
