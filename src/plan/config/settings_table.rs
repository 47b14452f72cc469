//! The value of each setting and where it came from: what `vllm-perf config show` prints.

use std::fmt;

use serde::Serialize;

use super::config_text::LoadedConfig;
use super::section::{Keys, Kind};

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its path in the config file: `verdict.min_effect.p99`. A flag that is not in the file has its own name.
    pub key: String,
    /// Its value as in a config file; a list with commas; `none` where there is none.
    pub value: String,
    pub source: Source,
}

/// Where a setting came from, from the strongest to the weakest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The command line.
    Flag,
    /// A `VLLM_PERF_*` variable.
    Environment,
    /// This config file.
    File(String),
    /// Built in.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment => f.write_str("environment"),
            Self::File(file) => f.write_str(file),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Every setting in force, in the order of the declarations.
pub fn settings(loaded: &LoadedConfig) -> Vec<Setting> {
    let mut shown = Vec::new();
    Keys::default().show(&mut loaded.config.clone(), "", &mut shown);
    let source = |key: &str| match &loaded.file {
        Some(file) if loaded.keys.contains(key) => Source::File(file.clone()),
        _ => Source::Default,
    };
    shown.into_iter().map(|(key, value)| Setting { source: source(&key), key, value }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(settings: &[Setting]) -> String {
        let line = |setting: &Setting| format!("{} = {} ({:?})\n", setting.key, setting.value, setting.source);
        settings.iter().map(line).collect()
    }

    #[test]
    fn every_setting_has_its_source() {
        let text = "trigger: {labels: [bench]}\ndevices: {rocm: {label: amd}}\nimages: {wait: 75s}\nverdict: {min_effect: {p99: 0.07}}\n";
        let settings = settings(&LoadedConfig::read(text, "vllm-perf.yml").unwrap());
        insta::assert_snapshot!(shown(&settings), @r#"
        trigger.labels = bench (File("vllm-perf.yml"))
        trigger.branches = main (Default)
        trigger.forks = labelled (Default)
        trigger.require_label_after_push = true for forks (Default)
        devices.rocm.image_suffix = "" (Default)
        devices.rocm.label = amd (File("vllm-perf.yml"))
        images.pull_request = public.ecr.aws/q9t5s3a7/vllm-ci-test-repo (Default)
        images.main = public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo (Default)
        images.rocm = docker.io/rocm/vllm-ci (Default)
        images.wait = 1m15s (File("vllm-perf.yml"))
        sides = auto (Default)
        wheels.index = https://wheels.vllm.ai (Default)
        container.memory = nine tenths of the machine's (Default)
        container.shm_size = 16g (Default)
        container.pids = 16384 (Default)
        container.volumes =  (Default)
        container.devices =  (Default)
        container.options =  (Default)
        suite = .buildkite/performance-benchmarks/tests (Default)
        allowed_folders =  (Default)
        datasets.folders =  (Default)
        tiers.pr.only = all cases (Default)
        tiers.pr.strategy = sequential for pr, else that of `strategy` (Default)
        tiers.pr.pairs = those of the strategy (Default)
        tiers.pr.budget = 45m for pr, else no limit (Default)
        tiers.pr.label = perf-full for full (Default)
        tiers.full.only = all cases (Default)
        tiers.full.strategy = sequential for pr, else that of `strategy` (Default)
        tiers.full.pairs = those of the strategy (Default)
        tiers.full.budget = 45m for pr, else no limit (Default)
        tiers.full.label = perf-full for full (Default)
        strategy = paired, or single without a base (Default)
        environment.max_outside_load = 20% (Default)
        environment.max_distortion = 5% (Default)
        verdict.min_effect.throughput = 2% (Default)
        verdict.min_effect.median = 3% (Default)
        verdict.min_effect.p99 = 7% (File("vllm-perf.yml"))
        verdict.primary.metrics = output_throughput, median_ttft_ms, p99_ttft_ms, median_tpot_ms, p99_tpot_ms, median_latency, tokens_per_second, avg_cold_startup_time, avg_warm_startup_time (Default)
        verdict.primary.cases = all (Default)
        verdict.fdr = 0.02 (Default)
        store = none (Default)
        records.benchmark = vLLM benchmark (Default)
        records.branch = {branch} (Default)
        records.model_key = kept (Default)
        records.collision = highest (Default)
        records.failed_share = 0% (Default)
        records.build_number_offset = none (Default)
        records.uploader = none (Default)
        records.rows = none (Default)
        matrix.default_size = 1 (Default)
        "#);
    }

    #[test]
    fn without_a_file_everything_is_the_default() {
        let settings = settings(&LoadedConfig::default());
        assert!(settings.iter().all(|setting| setting.source == Source::Default));
        assert_eq!(
            serde_json::to_string(&settings[0]).unwrap(),
            r#"{"key":"trigger.labels","value":"perf-benchmarks, ready","source":"default"}"#
        );
        let from_file = serde_json::to_string(&Source::File("a.yml".to_owned())).unwrap();
        assert_eq!(from_file, r#"{"file":"a.yml"}"#);
    }
}
