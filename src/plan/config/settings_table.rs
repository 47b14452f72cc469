//! Which value each setting has and where it came from: what `vllm-perf config show` prints. Pure.

use std::fmt;

use serde::Serialize;
use vllm_verdict::criteria::CasePattern;
use vllm_verdict::metric::Direction;

use super::config_text::{ConfigFile, DeviceFile};
use super::{Config, DeviceConfig};
use crate::duration;

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its place in the config file, with dots: `verdict.min_effect.p99`. A flag without a key has its own name.
    pub key: String,
    /// Its value, as the config file would say it; a list with commas; `none` where there is none.
    pub value: String,
    /// Where it came from.
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

/// Every setting of `config`, in the order of the config file. `file` is the text that `config` was read from and its
/// name, as they were given to [`parse`](crate::plan::config::parse).
///
/// # Errors
/// Those of [`parse`](crate::plan::config::parse).
pub fn settings(config: &Config, file: Option<(&str, &str)>) -> anyhow::Result<Vec<Setting>> {
    let (said, name) = match file {
        Some((text, name)) => (ConfigFile::read(text, name)?, name),
        None => (ConfigFile::default(), ""),
    };
    let setting = |key: &str, value: String, in_file: bool| Setting {
        key: key.to_owned(),
        value,
        source: if in_file { Source::File(name.to_owned()) } else { Source::Default },
    };
    let device = |(name, device): (_, &DeviceConfig)| {
        let said: Option<&DeviceFile> = said.devices.as_ref().and_then(|devices| devices.get(name));
        let key = |field: &str| format!("devices.{name}.{field}");
        let label = device.label.clone().unwrap_or_else(|| "none".to_owned());
        [
            setting(
                &key("image_suffix"),
                format!("{:?}", device.image_suffix),
                said.is_some_and(|d| d.image_suffix.is_some()),
            ),
            setting(&key("label"), label, said.is_some_and(|d| d.label.is_some())),
        ]
    };
    let Config { trigger, devices, images, suite, strategy, environment, verdict, store, records, matrix } = config;
    let strategy = strategy.map_or("paired, or single without a base", |strategy| strategy.as_str());
    let effect = &verdict.min_effect;
    let size = |(key, share): (&str, f64)| {
        setting(&format!("verdict.min_effect.{key}"), percent(share), said.verdict.min_effect.contains_key(key))
    };
    let direction = |(key, direction): (&&str, &Direction)| {
        setting(&format!("verdict.direction.{key}"), direction.as_str().to_owned(), true)
    };
    let primary = &said.verdict.primary;
    let none = || "none".to_owned();
    let cases = verdict.primary.cases.as_ref().map_or("all", CasePattern::as_str);
    let mut all = vec![
        setting("trigger.labels", trigger.labels.join(", "), said.trigger.labels.is_some()),
        setting("trigger.branches", trigger.branches.join(", "), said.trigger.branches.is_some()),
    ];
    all.extend(devices.iter().flat_map(device));
    all.extend([
        setting("images.pull_request", images.pull_request.clone(), said.images.pull_request.is_some()),
        setting("images.main", images.main.clone(), said.images.main.is_some()),
        setting("images.rocm", images.rocm.clone(), said.images.rocm.is_some()),
        setting("images.wait", duration::setting(images.wait), said.images.wait.is_some()),
        setting("suite", suite.display().to_string(), said.suite.is_some()),
        setting("strategy", strategy.to_owned(), said.strategy.is_some()),
        setting(
            "environment.max_outside_load",
            percent(environment.max_outside_load),
            said.environment.max_outside_load.is_some(),
        ),
    ]);
    let families = [("throughput", effect.throughput), ("median", effect.median), ("p99", effect.p99)];
    all.extend(families.into_iter().chain(effect.metrics.iter().map(|(key, share)| (*key, *share))).map(size));
    all.extend(verdict.direction.iter().map(direction));
    all.extend([
        setting("verdict.primary.metrics", verdict.primary.metrics.join(", "), primary.metrics.is_some()),
        setting("verdict.primary.cases", cases.to_owned(), primary.cases.is_some()),
        setting("verdict.fdr", verdict.fdr.to_string(), said.verdict.fdr.is_some()),
        setting("store", store.clone().unwrap_or_else(none), said.store.is_some()),
        setting("records.collision", records.rules.collision.as_str().to_owned(), said.records.collision.is_some()),
        setting("records.failed_share", percent(records.rules.failed_share), said.records.failed_share.is_some()),
        setting(
            "records.build_number_offset",
            records.build_number_offset.map_or_else(none, |number| number.to_string()),
            said.records.build_number_offset.is_some(),
        ),
        setting("records.uploader", records.uploader.clone().unwrap_or_else(none), said.records.uploader.is_some()),
    ]);
    let sizes = matrix.runners.iter().flat_map(|(device, sizes)| {
        sizes.iter().map(move |(size, runners)| (format!("runners.{device}.{size}"), runners.join(", ")))
    });
    let skips = matrix.skip.iter().map(|(model, runners)| (format!("skip.{model}"), runners.join(", ")));
    let types = matrix.types.iter().map(|(runner, text)| (format!("types.{runner}"), text.clone()));
    all.extend(sizes.chain(skips).chain(types).map(|(key, value)| setting(&format!("matrix.{key}"), value, true)));
    let size = matrix.default_size.to_string();
    all.push(setting("matrix.default_size", size, said.matrix.default_size.is_some()));
    Ok(all)
}

/// A share in percent, without the dust of binary fractions: 0.07 is `7%`.
fn percent(share: f64) -> String {
    format!("{}%", (share * 1e8).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::config::parse;

    fn shown(settings: &[Setting]) -> String {
        let line = |setting: &Setting| format!("{} = {} ({:?})\n", setting.key, setting.value, setting.source);
        settings.iter().map(line).collect()
    }

    #[test]
    fn every_setting_says_where_it_came_from() {
        let text = "trigger: {labels: [bench]}\ndevices: {rocm: {label: amd}}\nimages: {wait: 75s}\nverdict: {min_effect: {p99: 0.07}}\n";
        let config = parse(text, "vllm-perf.yml").unwrap();
        let settings = settings(&config, Some((text, "vllm-perf.yml"))).unwrap();
        insta::assert_snapshot!(shown(&settings), @r#"
        trigger.labels = bench (File("vllm-perf.yml"))
        trigger.branches = main (Default)
        devices.rocm.image_suffix = "" (Default)
        devices.rocm.label = amd (File("vllm-perf.yml"))
        images.pull_request = public.ecr.aws/q9t5s3a7/vllm-ci-test-repo (Default)
        images.main = public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo (Default)
        images.rocm = docker.io/rocm/vllm-ci (Default)
        images.wait = 1m15s (File("vllm-perf.yml"))
        suite = .buildkite/performance-benchmarks/tests (Default)
        strategy = paired, or single without a base (Default)
        environment.max_outside_load = 20% (Default)
        verdict.min_effect.throughput = 2% (Default)
        verdict.min_effect.median = 3% (Default)
        verdict.min_effect.p99 = 7% (File("vllm-perf.yml"))
        verdict.primary.metrics = output_throughput, median_ttft_ms, p99_ttft_ms, median_tpot_ms, p99_tpot_ms, median_latency, tokens_per_second, avg_cold_startup_time, avg_warm_startup_time (Default)
        verdict.primary.cases = all (Default)
        verdict.fdr = 0.05 (Default)
        store = none (Default)
        records.collision = highest (Default)
        records.failed_share = 0% (Default)
        records.build_number_offset = none (Default)
        records.uploader = none (Default)
        matrix.default_size = 1 (Default)
        "#);
    }

    #[test]
    fn without_a_file_everything_is_the_default() {
        let settings = settings(&Config::default(), None).unwrap();
        assert!(settings.iter().all(|setting| setting.source == Source::Default));
        assert_eq!(
            serde_json::to_string(&settings[0]).unwrap(),
            r#"{"key":"trigger.labels","value":"perf-benchmarks, ready","source":"default"}"#
        );
        let from_file = serde_json::to_string(&Source::File("a.yml".to_owned())).unwrap();
        assert_eq!(from_file, r#"{"file":"a.yml"}"#);
    }
}
