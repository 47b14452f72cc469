//! The config file as JSON Schema, for editors and for `vllm-perf config schema`. Pure.

use serde_json::{Value, json};
use vllm_verdict::metric;
use vllm_verdict::v1::DeviceName;

use super::verdict_keys::{FAMILIES, METRICS};

/// The name of a runner, or a part of one.
const RUNNER: &str = "^[A-Za-z0-9._-]{1,100}$";

/// JSON Schema (draft 2020-12) of `vllm-perf.yml`. It knows the keys and types that [`parse`](crate::plan::config::parse) knows.
pub fn schema() -> Value {
    let devices: serde_json::Map<String, Value> =
        DeviceName::ALL.into_iter().map(|name| (name.to_string(), device())).collect();
    let runners: serde_json::Map<String, Value> =
        DeviceName::ALL.into_iter().map(|name| (name.to_string(), self::sizes())).collect();
    let sizes = FAMILIES.into_iter().map(|(name, words)| (name.to_owned(), share(words)));
    let sizes =
        sizes.chain(metric::ALL.iter().map(|metric| (metric.id.to_owned(), share(&format!("{}.", metric.label)))));
    let sizes: serde_json::Map<String, Value> = sizes.collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vllm-perf.yml",
        "description": "Settings of vllm-perf. Every key is optional: the defaults are vLLM's own.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "trigger": section("When to benchmark.", json!({
                "labels": {
                    "description": "Labels that a pull request must all have, exact names. With none, every pull request runs.",
                    "type": "array",
                    "items": label(),
                },
                "branches": {
                    "description": "Branches where a push runs without labels, exact names.",
                    "type": "array",
                    "items": {"type": "string", "pattern": r"^(?!refs/)[^\s*?\[\\^~:]+$"},
                },
            })),
            "devices": {
                "description": "The devices of the matrix. A device's label narrows a pull request's run to it.",
                "type": "object",
                "minProperties": 1,
                "additionalProperties": false,
                "properties": devices,
            },
            "images": section("Where images are, without tags.", json!({
                "pull_request": image("Repository of pull requests' images."),
                "main": image("Repository of main's images."),
                "rocm": image("Repository of ROCm images, of both."),
                "wait": {
                    "description": "How long to wait for an image that is not there yet: `90m`, `1h30m`.",
                    "type": "string",
                    "pattern": r"^\s*([0-9.]+\s*(h|m|min|s|ms)\s*)+$",
                },
            })),
            "suite": {"description": "Folder of the test files.", "type": "string", "minLength": 1},
            "strategy": {
                "description": "How the runs are arranged; by default `paired`, or `single` without a base.",
                "enum": ["paired", "screen", "sequential", "single"],
            },
            "environment": section("What else may go on while something is measured.", json!({
                "max_outside_load": share("What other programs may take of the processors; above it, a repetition is repeated, at most twice."),
            })),
            "verdict": section("When a change is called one.", json!({
                "min_effect": section("Relative changes below which nothing is called a change, by family or by metric.", Value::Object(sizes)),
                "direction": {
                    "description": "Which way of a metric is better, where the default is not to hold.",
                    "type": "object",
                    "additionalProperties": {"enum": ["higher", "lower"]},
                    "propertyNames": {"enum": *METRICS},
                },
                "primary": section("Which rows may raise an alarm: those of these metrics in these cases.", json!({
                    "metrics": {"description": "Metrics by id.", "type": "array", "minItems": 1, "items": {"enum": *METRICS}},
                    "cases": {
                        "description": "A regular expression that the names of the cases match; every case without it.",
                        "type": "string",
                        "format": "regex",
                    },
                })),
                "fdr": share("False discovery rate over the primary rows of a report: 5 %, or 1 % where a verdict blocks a merge."),
            })),
            "store": {
                "description": "Where records and results of main are kept: `s3://`, `gs://` or `az://` and a bucket, or `file:///FOLDER`.",
                "type": "string",
                "pattern": "^((s3|gs|az)://|file:///).+$",
            },
            "records": section("What becomes of records.", json!({
                "collision": {
                    "description": "Of the cases that the dashboard cannot tell apart, the one at which concurrency is published.",
                    "enum": ["highest", "lowest"],
                },
                "failed_share": share("Share of failed requests above which a case has no records; 0 without it."),
                "build_number_offset": {
                    "description": "On Buildkite, whose ids are no numbers: what the number of the build is raised by to be that of the run.",
                    "type": "integer",
                    "minimum": 0,
                },
                "uploader": {
                    "description": "The API that takes records in place of the store; VLLM_PERF_UPLOADER_USERNAME and VLLM_PERF_UPLOADER_PASSWORD are its credentials.",
                    "type": "string",
                    "pattern": "^(https://|http://(localhost|127\\.0\\.0\\.1|\\[::1\\])[:/]).+$",
                },
            })),
            "matrix": section("Where the models of the suite are measured: what `vllm-perf matrix` goes by.", json!({
                "runners": {
                    "description": "For each device the runners that have room for a tensor-parallel size.",
                    "type": "object",
                    "additionalProperties": false,
                    "properties": runners,
                },
                "skip": {
                    "description": "Models by name, and the runners that they are not measured on, each by a part of its name.",
                    "type": "object",
                    "additionalProperties": {"type": "array", "items": {"type": "string", "pattern": RUNNER}},
                    "propertyNames": {"pattern": r"^\S+$"},
                },
                "types": {
                    "description": "Device types of runners, as records carry them.",
                    "type": "object",
                    "additionalProperties": {"type": "string", "pattern": r"\S", "maxLength": 200},
                    "propertyNames": {"pattern": RUNNER},
                },
                "default_size": {
                    "description": "Tensor-parallel size of a model whose test names none.",
                    "type": "integer",
                    "minimum": 1,
                },
            })),
        },
    })
}

/// The runners of one device.
fn sizes() -> Value {
    json!({
        "description": "Runners by tensor-parallel size.",
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "string", "pattern": RUNNER}},
        "propertyNames": {"pattern": "^0*[1-9][0-9]*$"},
    })
}

fn section(description: &str, properties: Value) -> Value {
    json!({"description": description, "type": "object", "additionalProperties": false, "properties": properties})
}

fn device() -> Value {
    section(
        "One device.",
        json!({
            "image_suffix": {
                "description": "Suffix of the image tag: `-cpu` in `<commit>-cpu`.",
                "type": "string",
                "pattern": "^[A-Za-z0-9_.-]{0,64}$",
            },
            "label": label(),
        }),
    )
}

fn label() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9 ._:/+-]{1,50}$"})
}

fn image(description: &str) -> Value {
    let pattern = "^([a-z0-9][a-z0-9._-]*(:[0-9]+)?/)?[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$";
    json!({"description": description, "type": "string", "pattern": pattern, "maxLength": 255})
}

fn share(description: &str) -> Value {
    json!({
        "description": format!("{description} `2%` or `0.02`."),
        "anyOf": [
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            {"type": "string", "pattern": r"^[0-9.]+\s*%?$"},
        ],
    })
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
verdict: {min_effect: {throughput: 2%, median: 3%, p99: 8%}, fdr: 0.05}
store: s3://ossci-benchmarks
"#;

    fn accepts(text: &str) -> bool {
        let instance: Value = serde_yaml::from_str(text).unwrap();
        jsonschema::validator_for(&schema()).unwrap().is_valid(&instance)
    }

    /// The keys that `parse` names as valid beside an unknown key below `path`.
    fn parsed_keys(path: &[&str]) -> Vec<String> {
        let nested = path.iter().rev().fold("{zzz: 1}".to_owned(), |inner, key| format!("{{{key}: {inner}}}"));
        let error = format!("{:#}", parse(&nested, "vllm-perf.yml").unwrap_err());
        let valid = error.split_once("Valid here: ").unwrap_or_else(|| panic!("{error}")).1;
        valid.split(", ").map(str::to_owned).collect()
    }

    fn compare(schema: &Value, path: &mut Vec<&str>, compared: &mut usize) {
        let Some(properties) = schema["properties"].as_object() else { return };
        let mut keys: Vec<_> = properties.keys().cloned().collect();
        let mut parsed = parsed_keys(path);
        keys.sort();
        parsed.sort();
        assert_eq!(keys, parsed, "below {path:?}");
        assert_eq!(schema["additionalProperties"], false, "below {path:?}");
        *compared += 1;
        for (key, inner) in properties {
            path.push(Box::leak(key.clone().into_boxed_str()));
            compare(inner, path, compared);
            path.pop();
        }
    }

    #[test]
    fn the_schema_has_the_keys_that_are_read() {
        let mut compared = 0;
        compare(&schema(), &mut Vec::new(), &mut compared);
        assert_eq!(
            compared,
            11 + DeviceName::ALL.len(),
            "root, trigger, devices and each, images, environment, verdict, min_effect, primary, records, matrix and its runners"
        );
    }

    #[test]
    fn the_documented_example_is_valid_and_is_the_default() {
        assert!(accepts(EXAMPLE));
        let default = crate::plan::config::Config { store: Some("s3://ossci-benchmarks".into()), ..Default::default() };
        assert_eq!(parse(EXAMPLE, "vllm-perf.yml").unwrap(), default);
    }

    #[test]
    fn schema_and_parser_agree_on_values() {
        for (text, right) in [
            ("images: {wait: 1h 30min}", true),
            ("images: {wait: 90}", false),
            ("images: {main: 'localhost:5000/a/b'}", true),
            ("images: {main: 'a/b:tag'}", false),
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
            assert_eq!(accepts(text), right, "schema: {text}");
            assert_eq!(parse(text, "vllm-perf.yml").is_ok(), right, "parser: {text}");
        }
    }
}
