//! The cases of vLLM's test files: from the texts of files to argument vectors. `system/suite_folder.rs` reads the files.

pub mod client_flags;
pub mod command_text;
pub mod parameters;
pub mod selection;
pub mod strict_json;
pub mod suite_case;
pub mod test_file;
pub mod variable_names;

use std::collections::HashSet;

use anyhow::{Context, bail, ensure};
use indexmap::IndexMap;
use vllm_verdict::case::MeasuredBy;
use vllm_verdict::v1::{Device, Skipped};

use crate::exit::Classify;
use crate::plan::serve_flags;
use test_file::Test;

pub use command_text::{commands_json, placed};
pub use selection::Selection;
pub use suite_case::{Case, Command};
pub use test_file::{FileName, SuiteFile, file_names};

/// Most cases of a suite: the largest of vLLM's has 140.
const MOST_CASES: usize = 10_000;

/// The cases of `files` that `selection` keeps and `device` can run, in upstream's order, and what is left out.
///
/// # Errors
/// The user's mistake (exit 2): a file that does not have the format of vLLM's suite; the text names file, test and field.
pub fn cases(files: &[SuiteFile], selection: &Selection, device: &Device) -> anyhow::Result<(Vec<Case>, Vec<Skipped>)> {
    select(files, selection, device).mistake()
}

/// A model that a serving test serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedModel {
    /// As the test file spells it.
    pub name: String,
    /// Tensor-parallel size, where the test names one.
    pub size: Option<u64>,
}

/// The models of serving tests, one for each test, in the order of the files.
///
/// # Errors
/// The user's mistake (exit 2), as of [`cases`].
pub fn models(files: &[SuiteFile]) -> anyhow::Result<Vec<ServedModel>> {
    let model = |test: Test| {
        let key =
            ["tensor_parallel_size", "tp"].into_iter().find(|key| parameters::value(&test.parameters, key).is_some());
        let size = key.map(|key| parallel(&test, key)).transpose().with_context(|| test.place())?;
        Ok(ServedModel { name: test.model, size })
    };
    let tests = files.iter().map(test_file::tests).collect::<anyhow::Result<Vec<_>>>().mistake()?;
    tests.into_iter().flatten().map(model).collect::<anyhow::Result<_>>().mistake()
}

fn select(files: &[SuiteFile], selection: &Selection, device: &Device) -> anyhow::Result<(Vec<Case>, Vec<Skipped>)> {
    let (mut cases, mut skipped) = (Vec::new(), Vec::new());
    for file in files {
        for test in test_file::tests(file)? {
            let place = test.place();
            if let Some(reason) = reason_to_skip(&test, selection, device).context(place.clone())? {
                skipped.push(Skipped { name: test.name.into(), reason: reason.into() });
                continue;
            }
            let mut kept = cases_of(&test, selection).context(place)?;
            let all = kept.len();
            if let Some(only) = &selection.only {
                kept.retain(|case| only.is_match(&case.name));
                match all - kept.len() {
                    0 => {}
                    out if out == all => skipped.push(Skipped {
                        name: test.name.into(),
                        reason: format!("no case of it matches --only `{only}`").into(),
                    }),
                    out => skipped.push(Skipped {
                        name: test.name.into(),
                        reason: format!("{out} of its {all} cases do not match --only `{only}`").into(),
                    }),
                }
            }
            cases.append(&mut kept);
            ensure!(cases.len() <= MOST_CASES, "{}: the suite has more than {MOST_CASES} cases", file.path);
        }
    }
    let mut names = HashSet::new();
    if let Some(duplicate) = cases.iter().find(|case| !names.insert(case.name.as_str())) {
        bail!("two cases are named `{}`: result files would overwrite each other", duplicate.name);
    }
    Ok((cases, skipped))
}

fn reason_to_skip(test: &Test, selection: &Selection, device: &Device) -> anyhow::Result<Option<String>> {
    if let Some(reason) = selection.reason_to_skip(test) {
        return Ok(Some(reason));
    }
    let tensor = parallel(test, "tensor_parallel_size")?;
    let (needed, what) = if device.name.is_cpu() {
        (tensor.saturating_mul(parallel(test, "pipeline_parallel_size")?), "NUMA node")
    } else {
        (tensor, "device")
    };
    if needed > u64::from(device.count) && !selection.remote {
        let plural = if needed == 1 { "" } else { "s" };
        return Ok(Some(format!(
            "needs {needed} {what}{plural} (tensor x pipeline parallel), {} has {}; --device-count overrides the count",
            device.name, device.count
        )));
    }
    let Some(load) = &test.load else { return Ok(None) };
    let client = load.client.get("model").and_then(|model| model.as_str()).unwrap_or("none");
    if client != test.model {
        return Ok(Some(format!("server and client model differ: `{}` and `{client}`", test.model)));
    }
    Ok(None)
}

/// A parallel size of the test, or else vLLM's default.
fn parallel(test: &Test, key: &str) -> anyhow::Result<u64> {
    let Some(value) = parameters::value(&test.parameters, key) else { return Ok(1) };
    match value.as_u64().or_else(|| value.as_str()?.parse().ok()) {
        Some(size) if size > 0 => Ok(size),
        _ => bail!("`{}.{key}` must be a whole number from 1, not {value}", test.section()),
    }
}

fn cases_of(test: &Test, selection: &Selection) -> anyhow::Result<Vec<Case>> {
    match &test.load {
        Some(load) => serving_cases(test, load, selection),
        None => Ok(vec![offline_case(test)?]),
    }
}

fn offline_case(test: &Test) -> anyhow::Result<Case> {
    let mut argv = words(["vllm", "bench", test.kind.as_str(), "--output-json"]);
    argv.push(format!("results/{}.json", test.name));
    argv.extend(parameters::words(test.section(), &test.parameters, &[])?);
    Ok(Case {
        name: test.name.clone(),
        kind: test.kind,
        test: test.name.clone(),
        model: test.model.clone(),
        request_rate: None,
        max_concurrency: None,
        server: None,
        client: Command { argv, env: parameters::environment("environment_variables", &test.env)? },
        measured_by: MeasuredBy::Vllm,
    })
}

fn serving_cases(test: &Test, load: &test_file::Load, selection: &Selection) -> anyhow::Result<Vec<Case>> {
    let mut argv = words(["vllm", "serve"]);
    argv.push(test.model.clone());
    argv.extend(parameters::words(test.section(), &test.parameters, &["model"])?);
    let server = Command { argv, env: parameters::environment("server_environment_variables", &test.env)? };
    let omitted: &[&str] = if selection.prompts_per_concurrency.is_some() { &["num_prompts"] } else { &[] };
    let client = parameters::words("client_parameters", &load.client, omitted)?;
    client_flags::check(&client).context("`client_parameters`")?;
    let metadata = [
        format!("tensor_parallel_size={}", parallel(test, "tensor_parallel_size")?),
        format!("compilation_config.mode={}", parameters::text(&test.parameters, "compilation_config.mode")),
        format!("optimization_level={}", parameters::text(&test.parameters, "optimization_level")),
    ];
    let concurrencies = load.concurrencies()?;
    let count = load.rates.len().saturating_mul(concurrencies.len());
    ensure!(count <= MOST_CASES, "`qps_list` and `max_concurrency_list` make {count} cases: at most {MOST_CASES}");

    let mut cases = Vec::new();
    for rate in &load.rates {
        // Parsing costs more than the rest of a case, and its result does not depend on the concurrency.
        let mut supported = None;
        for &concurrency in &concurrencies {
            let name = format!("{}_qps_{rate}_concurrency_{concurrency}", test.name);
            let mut argv = words(["vllm", "bench", "serve", "--save-result", "--result-dir", "results/"]);
            argv.extend(["--result-filename".into(), format!("{name}.json"), "--request-rate".into(), rate.clone()]);
            argv.extend(["--max-concurrency".into(), concurrency.to_string()]);
            if let Some(prompts) = selection.num_prompts(concurrency) {
                argv.extend(["--num-prompts".into(), prompts.to_string()]);
            }
            argv.push("--metadata".into());
            argv.extend(metadata.iter().chain(&client).cloned());
            argv.extend(selection.remote_words());
            let parses = || serve_flags::parse(argv.get(3..).unwrap_or_default()).is_ok();
            let measured_by = if *supported.get_or_insert_with(parses) { MeasuredBy::Native } else { MeasuredBy::Vllm };
            cases.push(Case {
                name,
                kind: test.kind,
                test: test.name.clone(),
                model: test.model.clone(),
                request_rate: Some(rate.clone()),
                max_concurrency: Some(concurrency),
                server: Some(server.clone()),
                client: Command { argv, env: IndexMap::new() },
                measured_by,
            });
        }
    }
    Ok(cases)
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;
    use vllm_verdict::case::Kind;
    use vllm_verdict::v1::DeviceName;

    use super::*;
    use crate::exit::{self, Exit};

    const UPSTREAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/vllm-suite");

    fn device(name: DeviceName, count: u32) -> Device {
        let image_suffix = name.image_suffix().to_owned();
        Device { name, device_type: name.to_string(), count, image_suffix }
    }

    fn upstream(name: &str) -> SuiteFile {
        let kind = Kind::ALL.into_iter().find(|kind| name.starts_with(kind.as_str())).unwrap_or(Kind::Serving);
        let text = std::fs::read_to_string(Path::new(UPSTREAM).join(name)).unwrap();
        SuiteFile { kind, path: name.to_owned(), text }
    }

    fn serving(text: &str) -> SuiteFile {
        SuiteFile { kind: Kind::Serving, path: "tests/serving-tests-cpu.json".to_owned(), text: text.to_owned() }
    }

    fn error_of(file: SuiteFile) -> String {
        let error = cases(&[file], &Selection::default(), &device(DeviceName::Cpu, 8)).unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake);
        format!("{error:#}")
    }

    fn selected(variables: &[(&str, &str)], only: Option<&str>, count: u32) -> (Vec<Case>, Vec<Skipped>) {
        let selection = Selection::read(&variables.iter().copied().collect(), only).unwrap();
        cases(&[upstream("serving-tests-cpu.json")], &selection, &device(DeviceName::Cpu, count)).unwrap()
    }

    #[derive(Deserialize)]
    struct Expected {
        server_command: String,
        client_command: String,
        gpu_type: String,
    }

    #[test]
    fn every_command_equals_the_one_that_upstreams_script_prints() {
        let text =
            std::fs::read_to_string(Path::new(UPSTREAM).join("expected-commands/serving-tests-cpu.json")).unwrap();
        let expected: IndexMap<String, Expected> = serde_json::from_str(&text).unwrap();
        let (cases, skipped) = selected(&[], None, 8);
        let cpu = device(DeviceName::Cpu, 8);

        assert_eq!((cases.len(), skipped), (expected.len(), Vec::new()));
        for case in &cases {
            let expected = &expected[&case.name];
            let written: Expected = serde_json::from_str(&commands_json(case, cpu.gpu_type(), &[])).unwrap();
            let words = |line: &str| shell_words::split(line).unwrap();
            assert_eq!(words(&written.server_command), words(&expected.server_command), "{}", case.name);
            assert_eq!(words(&written.client_command), words(&expected.client_command), "{}", case.name);
            assert_eq!(written.gpu_type, expected.gpu_type);
        }
        let native = cases.iter().filter(|case| case.measured_by == MeasuredBy::Native).count();
        assert_eq!((native, cases.len()), (70, 70), "the native client has both data sets of the file");
    }

    #[test]
    fn every_file_of_upstream_gives_its_cases() {
        for (name, device_name, count, cases_expected, skipped_expected) in [
            ("serving-tests-cpu.json", DeviceName::Cpu, 1, 35, 5),
            ("serving-tests-cpu-text.json", DeviceName::Cpu, 1, 140, 0),
            ("serving-tests-cpu-asr.json", DeviceName::Cpu, 1, 7, 0),
            ("serving-tests-cpu-embed.json", DeviceName::Cpu, 1, 3, 0),
            ("serving-tests-arm64-cpu.json", DeviceName::Arm64Cpu, 2, 56, 0),
            ("serving-tests-hpu.json", DeviceName::Hpu, 8, 24, 0),
            ("serving-tests-hpu.json", DeviceName::Hpu, 2, 12, 3),
            ("latency-tests.json", DeviceName::Cuda, 8, 3, 0),
            ("latency-tests.json", DeviceName::Cuda, 1, 1, 2),
            ("latency-tests-cpu.json", DeviceName::Cpu, 1, 0, 1),
            ("latency-tests-arm64-cpu.json", DeviceName::Arm64Cpu, 1, 1, 0),
            ("latency-tests-hpu.json", DeviceName::Hpu, 8, 6, 0),
            ("throughput-tests.json", DeviceName::Cuda, 8, 3, 0),
            ("throughput-tests-cpu.json", DeviceName::Cpu, 2, 1, 0),
            ("throughput-tests-arm64-cpu.json", DeviceName::Arm64Cpu, 1, 1, 0),
            ("throughput-tests-hpu.json", DeviceName::Hpu, 8, 6, 0),
        ] {
            let (cases, skipped) =
                cases(&[upstream(name)], &Selection::default(), &device(device_name, count)).unwrap();
            assert_eq!((cases.len(), skipped.len()), (cases_expected, skipped_expected), "{name} on {count}");
        }
    }

    #[test]
    fn the_other_kinds_are_one_command_each() {
        let arm = device(DeviceName::Arm64Cpu, 1);
        let (latency, _) = cases(&[upstream("latency-tests-arm64-cpu.json")], &Selection::default(), &arm).unwrap();
        insta::assert_snapshot!(latency[0].client.line(&[]), @"VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 VLLM_ENGINE_ITERATION_TIMEOUT_S=120 VLLM_CPU_KVCACHE_SPACE=40 vllm bench latency --output-json results/latency_llama8B_tp1.json --model meta-llama/Llama-3.1-8B-Instruct --tensor-parallel-size 1 --load-format dummy --dtype bfloat16 --distributed-executor-backend mp --block-size 128 --trust-remote-code --disable-log-stats --enforce-eager --max-num-batched-tokens 2048 --max-num-seqs 256 --num-iters-warmup 5 --num-iters 15");
        let hpu = device(DeviceName::Hpu, 8);
        let (throughput, _) = cases(&[upstream("throughput-tests-hpu.json")], &Selection::default(), &hpu).unwrap();
        insta::assert_snapshot!(throughput[4].client.line(&[]), @"PT_HPU_LAZY_MODE=1 PT_HPU_ENABLE_LAZY_COLLECTIVES=1 VLLM_CONTIGUOUS_PA=1 VLLM_DEFRAG=1 vllm bench throughput --output-json results/throughput_llama4_maverick_17b128e_instruct_fp8.json --model meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8 --tensor-parallel-size 8 --dataset-path ./ShareGPT_V3_unfiltered_cleaned_split.json --dataset-name sharegpt --num-prompts 1000 --backend vllm --max-model-len 2048 --max-num-seqs 512 --async-scheduling --enable-expert-parallel");
        let (serving, _) = cases(&[upstream("serving-tests-hpu.json")], &Selection::default(), &hpu).unwrap();
        insta::assert_snapshot!(serving[1].client.line(&[]), @"vllm bench serve --save-result --result-dir results/ --result-filename serving_llama8B_tp1_sharegpt_qps_4_concurrency_200.json --request-rate 4 --max-concurrency 200 --metadata tensor_parallel_size=1 compilation_config.mode= optimization_level= --model meta-llama/Meta-Llama-3.1-8B-Instruct --backend vllm --dataset-name sharegpt --dataset-path ./ShareGPT_V3_unfiltered_cleaned_split.json --temperature 0 --num-prompts 200");
    }

    #[test]
    fn upstreams_malformed_file_gives_line_and_column() {
        insta::assert_snapshot!(error_of(upstream("serving-tests.json")), @"serving-tests.json:35:5: not valid JSON: expected `,` or `]`");
    }

    #[test]
    fn upstreams_other_formats_are_refused_by_name() {
        insta::assert_snapshot!(error_of(upstream("genai-perf-tests.json")), @"genai-perf-tests.json: this is upstream's genai-perf format (tests with `common_parameters`), which is not run: give a file of serving, latency, startup or throughput tests");
        insta::assert_snapshot!(error_of(upstream("nightly-tests.json")), @"nightly-tests.json: this is upstream's nightly (vLLM against other engines) format (tests with `common_parameters`), which is not run: give a file of serving, latency, startup or throughput tests");
    }

    #[test]
    fn a_mistake_in_a_file_names_file_test_and_field() {
        let errors = [
            r#"[{"test_name": "x_serving"}]"#,
            r#"[{"qps_list": [1]}]"#,
            r#"[{"test_name": "serving_a", "qps_list": [1], "server_parameters": {}}]"#,
            r#"[{"test_name": "serving_a", "server_parameters": {"model": "m"}, "client_parameters": {"model": "m"}}]"#,
            r#"[{"test_name": "serving_a", "qps_list": 5}]"#,
            r#"[{"test_name": "serving_a", "qps_list": ["fast"]}]"#,
            r#"[{"test_name": "serving_a", "qps_list": [1], "max_concurrency_list": [0]}]"#,
            r#"[{"test_name": "serving_a", "qps_list": [1], "max_concurency_list": [8]}]"#,
            r#"[{"test_name": "serving_a/../../b", "qps_list": [1]}]"#,
            r#"{"defaults": {"qps": [1]}, "tests": []}"#,
            r#"{"tests": {}}"#,
            "[7]",
            "7",
            "[{\"test_name\": \"serving_a\",\n  \"server_parameters\": {\"model\": \"m\", \"dtype\": \"a\", \"dtype\": \"b\"}}]",
        ]
        .map(|text| error_of(serving(text)));
        insta::assert_snapshot!(errors.join("\n"), @r#"
        tests/serving-tests-cpu.json: test `x_serving`: `test_name` must begin with `serving_`
        tests/serving-tests-cpu.json: test 1: `test_name` is missing
        tests/serving-tests-cpu.json: test `serving_a`: `server_parameters.model` is missing
        tests/serving-tests-cpu.json: test `serving_a`: `qps_list` is missing: give the test or the defaults a list like [1, "inf"]
        tests/serving-tests-cpu.json: test `serving_a`: `qps_list` must be a list of request rates: numbers or "inf", not 5
        tests/serving-tests-cpu.json: test `serving_a`: `qps_list` must hold numbers above 0 or "inf", not `fast`
        tests/serving-tests-cpu.json: test `serving_a`: `max_concurrency_list` must hold whole numbers from 1
        tests/serving-tests-cpu.json: test `serving_a`: unknown field `max_concurency_list`: expected one of test_name, qps_list, max_concurrency_list, server_environment_variables, server_parameters, client_parameters
        tests/serving-tests-cpu.json: test `serving_a/../../b`: `test_name` may hold only letters, digits and ._-+=@,: because files are named after it
        tests/serving-tests-cpu.json: `defaults`: unknown field `qps`: expected one of qps_list, max_concurrency_list, server_environment_variables, server_parameters, client_parameters
        tests/serving-tests-cpu.json: `tests` must be an array of tests, not {}
        tests/serving-tests-cpu.json: test 1: expected an object, not 7
        tests/serving-tests-cpu.json: expected an array of tests, or an object with `defaults` and `tests`
        tests/serving-tests-cpu.json:2:59: the key `dtype` is duplicated in one object
        "#);
    }

    #[test]
    fn a_mistake_in_a_parameter_is_named_too() {
        let test = |server: &str, client: &str, more: &str| {
            error_of(serving(&format!(
                r#"[{{"test_name": "serving_a", "qps_list": [1], "server_parameters": {{"model": "m"{server}}},
                     "client_parameters": {{"model": "m"{client}}}{more}}}]"#
            )))
        };
        let errors = [
            test("", "", ""),
            test(r#", "tensor_parallel_size": "two""#, "", ""),
            test(r#", "chat_template": "'x""#, "", r#", "max_concurrency_list": [1]"#),
            test("", r#", "num_prompts": null"#, r#", "max_concurrency_list": [1]"#),
            test("", "", r#", "max_concurrency_list": [1], "server_environment_variables": {"A": "b c"}"#),
            test("", "", r#", "max_concurrency_list": [1, 1]"#),
        ];
        insta::assert_snapshot!(errors.join("\n"), @r#"
        tests/serving-tests-cpu.json: test `serving_a`: `max_concurrency_list` is missing, and so is `client_parameters.num_prompts`, its default
        tests/serving-tests-cpu.json: test `serving_a`: `server_parameters.tensor_parallel_size` must be a whole number from 1, not "two"
        tests/serving-tests-cpu.json: test `serving_a`: `server_parameters.chat_template`: cannot split "'x" into words: missing closing quote
        tests/serving-tests-cpu.json: test `serving_a`: `client_parameters.num_prompts`: null is not a value: write "" for a bare flag, or leave the key out
        tests/serving-tests-cpu.json: test `serving_a`: `server_environment_variables.A`: "b c" is 2 words: quote it inside the string
        two cases are named `serving_a_qps_1_concurrency_1`: result files would overwrite each other
        "#);
    }

    #[test]
    fn two_tests_of_one_name_are_an_error() {
        let test = r#"{"test_name": "latency_a", "parameters": {"model": "m"}}"#;
        let text = format!("[{test}, {test}]");
        let file = SuiteFile { kind: Kind::Latency, path: "latency-tests.json".to_owned(), text };
        insta::assert_snapshot!(error_of(file), @"latency-tests.json: test `latency_a`: `test_name` is duplicated: names must be unique");
    }

    #[test]
    fn everything_that_is_left_out_has_a_reason() {
        let reasons = |variables: &[_], only, count| {
            let (cases, skipped) = selected(variables, only, count);
            let first = skipped.first().map(|skipped| format!("{}: {}", skipped.name.raw(), skipped.reason.raw()));
            format!("{} cases, {} skipped, {}", cases.len(), skipped.len(), first.unwrap_or_default())
        };
        let lines = [
            reasons(&[], None, 1),
            reasons(&[("REMOTE_HOST", "gpu1")], None, 1),
            reasons(&[("TEST_SELECTOR", "tp1_random")], None, 1),
            reasons(&[("MODEL_FILTER", "meta-llama/Llama-3.1-8B")], None, 1),
            reasons(&[("DTYPE_FILTER", "bfloat16")], None, 8),
            reasons(&[], Some("tp1_random_128_2048.*(64|128)$"), 8),
        ];
        insta::assert_snapshot!(lines.join("\n"), @"
        35 cases, 5 skipped, serving_llama8B_tp2_sharegpt: needs 2 NUMA nodes (tensor x pipeline parallel), cpu has 1; --device-count overrides the count
        70 cases, 0 skipped, 
        28 cases, 6 skipped, serving_llama8B_tp1_sharegpt: does not match TEST_SELECTOR `tp1_random`
        0 cases, 10 skipped, serving_llama8B_tp1_sharegpt: its model `meta-llama/Llama-3.1-8B-Instruct` is not MODEL_FILTER `meta-llama/Llama-3.1-8B`
        70 cases, 0 skipped, 
        2 cases, 10 skipped, serving_llama8B_tp1_sharegpt: no case of it matches --only `tp1_random_128_2048.*(64|128)$`
        ");
    }

    #[test]
    fn a_test_whose_client_names_another_model_is_skipped() {
        let text = r#"[{"test_name": "serving_a", "qps_list": [1], "max_concurrency_list": [1],
            "server_parameters": {"model": "m"}, "client_parameters": {"model": "n"}}]"#;
        let (cases, skipped) = cases(&[serving(text)], &Selection::default(), &device(DeviceName::Cpu, 1)).unwrap();
        assert_eq!((cases.len(), skipped[0].reason.raw()), (0, "server and client model differ: `m` and `n`"));
    }

    #[test]
    fn prompts_per_concurrency_replaces_the_files_number_and_remote_words_come_last() {
        let variables = [("PROMPTS_PER_CONCURRENCY", "5"), ("REMOTE_HOST", "gpu1"), ("REMOTE_PORT", "8001")];
        let (cases, _) = selected(&variables, Some("tp1_random_128_128_qps_inf_concurrency_16$"), 1);
        insta::assert_snapshot!(cases[0].client.line(&[]), @"vllm bench serve --save-result --result-dir results/ --result-filename serving_llama8B_tp1_random_128_128_qps_inf_concurrency_16.json --request-rate inf --max-concurrency 16 --num-prompts 80 --metadata tensor_parallel_size=1 compilation_config.mode= optimization_level= --model meta-llama/Llama-3.1-8B-Instruct --backend vllm --ignore-eos --temperature 0 --dataset-name random --random-input-len 128 --random-output-len 128 --host=gpu1 --port=8001");
    }

    #[test]
    fn a_test_overrides_defaults_and_metadata_follows_the_server() {
        let text = r#"{
            "defaults": {"qps_list": [0.5, "inf"], "server_parameters": {"model": "m", "dtype": "auto", "seed": 1},
                         "client_parameters": {"model": "m", "num_prompts": 20}},
            "tests": [{"test_name": "serving_a",
                       "server_parameters": {"seed": 2, "dtype": "half", "compilation_config.mode": 3,
                                             "optimization_level": "2", "tensor_parallel_size": 2},
                       "client_parameters": {"backend": "openai-embeddings"}}]
        }"#;
        let (cases, _) = cases(&[serving(text)], &Selection::default(), &device(DeviceName::Cuda, 2)).unwrap();
        let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["serving_a_qps_0.5_concurrency_20", "serving_a_qps_inf_concurrency_20"]);
        assert_eq!(cases[0].measured_by, MeasuredBy::Vllm);
        let lines = [cases[0].server.as_ref().unwrap().line(&[]), cases[0].client.line(&[])].join("\n");
        insta::assert_snapshot!(lines, @"
        vllm serve m --dtype half --seed 2 --compilation-config.mode 3 --optimization-level 2 --tensor-parallel-size 2
        vllm bench serve --save-result --result-dir results/ --result-filename serving_a_qps_0.5_concurrency_20.json --request-rate 0.5 --max-concurrency 20 --metadata tensor_parallel_size=2 compilation_config.mode=3 optimization_level=2 --model m --num-prompts 20 --backend openai-embeddings
        ");
    }
}
