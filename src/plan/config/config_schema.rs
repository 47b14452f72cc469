//! The JSON Schema of the config file, for editors and for `vllm-perf config schema`.

use serde_json::{Value, json};

use super::Config;
use super::section::{Keys, Kind};

/// JSON Schema (draft 2020-12) of `vllm-perf.yml`.
pub fn schema() -> Value {
    let mut schema = Keys::<Config>::default().schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("vllm-perf.yml");
    schema["description"] = json!("Settings of vllm-perf. Every key is optional: the defaults are those of vLLM's CI.");
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::config::parse;

    /// The example of the documentation, with one of its two stores.
    const EXAMPLE: &str = r#"
trigger:
  labels: [perf-benchmarks, ready]     # all of them, exact names
  branches: [main]                     # a push here runs without labels
devices:                               # a device label narrows a run to those devices; none means all of `matrix`
  cpu:       {image_suffix: "-cpu",       label: perf-cpu}
  arm64-cpu: {image_suffix: "-arm64-cpu", label: perf-arm64}
  cuda:      {image_suffix: "",           label: perf-gpu}
images:
  pull_request: public.ecr.aws/q9t5s3a7/vllm-ci-test-repo
  main:         public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo
  rocm:         docker.io/rocm/vllm-ci
  wait: 90m
suite: .buildkite/performance-benchmarks/tests
verdict: {min_effect: {throughput: 2%, median: 3%, p99: 8%}, fdr: 0.02}
store: s3://ossci-benchmarks
"#;

    fn validator() -> jsonschema::Validator {
        jsonschema::validator_for(&schema()).unwrap()
    }

    #[test]
    fn the_documented_example_is_valid_and_is_the_default() {
        assert!(validator().is_valid(&serde_yaml::from_str(EXAMPLE).unwrap()));
        let default = crate::plan::config::Config { store: Some("s3://ossci-benchmarks".into()), ..Default::default() };
        assert_eq!(parse(EXAMPLE, "vllm-perf.yml").unwrap(), default);
    }

    #[test]
    fn schema_and_parser_agree_on_values() {
        let validator = validator();
        for (text, right) in [
            ("images: {wait: 1h 30min}", true),
            ("images: {wait: 90}", false),
            ("images: {main: 'localhost:5000/a/b'}", true),
            ("images: {main: 'a/b:tag'}", false),
            ("images: {main: 'a/b:nightly-{commit}'}", true),
            ("images: {rocm: 'h:5000/a:{commit}-x_{suffix}', main: 'a/b:build-{build}'}", true),
            ("images: {main: 'a/b:{suffix}'}", false),
            ("images: {main: 'a/b:${commit}'}", false),
            ("images: {main: 'a/b:{sha}{commit}'}", false),
            ("images: {main: {repository: a/b, tag: x}}", false),
            ("images: {main: a/B}", false),
            ("trigger: {labels: []}", true),
            ("trigger: {labels: [true]}", false),
            ("trigger: {labels: ['a,b']}", false),
            ("trigger: {branches: ['release/*']}", false),
            ("trigger: {branches: [refs/heads/main]}", false),
            ("devices: {}", false),
            ("devices: {gpu: {}}", false),
            ("devices: {cuda: {image_suffix: ''}}", true),
            ("devices: {cuda: {image_suffix: ':x'}}", false),
            ("strategy: screen", true),
            ("strategy: fast", false),
            ("environment: {max_outside_load: 35%}", true),
            ("environment: {max_outside_load: 1}", false),
            ("environment: {max_distortion: 10%}", true),
            ("verdict: {fdr: 0.01}", true),
            ("verdict: {fdr: 1 %}", true),
            ("verdict: {fdr: 1}", false),
            ("verdict: {fdr: -1%}", false),
            ("verdict: {min_effect: {median_ttft_ms: 5%}}", true),
            ("verdict: {min_effect: {median_ttft: 5%}}", false),
            ("verdict: {direction: {median_ttft_ms: lower}}", true),
            ("verdict: {direction: {median_ttft_ms: less}}", false),
            ("verdict: {primary: {metrics: [median_ttft_ms], cases: 'tp1'}}", true),
            ("verdict: {primary: {metrics: []}}", false),
            ("verdict: {primary: {metrics: [ttft]}}", false),
            ("store: file:///srv/x", true),
            ("store: file://srv/x", false),
            ("store: gs://bucket/prefix", true),
            ("store: http://x", false),
            ("records: {collision: lowest, failed_share: 2%}", true),
            ("records: {collision: first}", false),
            ("records: {build_number_offset: 30000000000}", true),
            ("records: {build_number_offset: -1}", false),
            ("records: {uploader: 'https://uploader.example.org/x'}", true),
            ("records: {uploader: 'http://127.0.0.1:8080/'}", true),
            ("records: {uploader: 'http://uploader.example.org/x'}", false),
            ("suite: ''", false),
            ("matrix: {runners: {cuda: {1: [linux.aws.h100, b200], 8: []}}}", true),
            ("matrix: {runners: {cuda: {0: [a]}}}", false),
            ("matrix: {runners: {cuda: {one: [a]}}}", false),
            ("matrix: {runners: {cuda: {1: ['a b']}}}", false),
            ("matrix: {runners: {cuda: {1: a}}}", false),
            ("matrix: {runners: {gpu: {1: [a]}}}", false),
            ("matrix: {skip: {Qwen/Qwen3-8B: [b200]}}", true),
            ("matrix: {skip: {'a b': [b200]}}", false),
            ("matrix: {skip: {a: ['']}}", false),
            ("matrix: {types: {a: NVIDIA H100}}", true),
            ("matrix: {types: {a: ' '}}", false),
            ("matrix: {types: {'a/b': x}}", false),
            ("matrix: {default_size: 8}", true),
            ("matrix: {default_size: 0}", false),
        ] {
            let value: Value = serde_yaml::from_str(text).unwrap();
            assert_eq!(validator.is_valid(&value), right, "schema: {text}");
            assert_eq!(parse(text, "vllm-perf.yml").is_ok(), right, "parser: {text}");
        }
    }
}
