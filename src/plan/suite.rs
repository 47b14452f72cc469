//! The cases of vLLM's test files: from the texts of files to argument vectors. `system/suite_folder.rs` reads the files.

pub mod client_flags;
pub mod command_text;
pub mod data_set_file;
pub mod example_suite;
pub mod parallel_sizes;
pub mod parameters;
pub mod recipe;
pub mod selection;
pub mod strict_json;
pub mod suite_case;
pub mod test_file;
pub mod variable_names;

use std::collections::HashSet;

use anyhow::{Context, anyhow, bail, ensure};
use indexmap::IndexMap;
use vllm_verdict::case::MeasuredBy;
use vllm_verdict::v1::{Device, Skipped};

use crate::exit::Classify;
use crate::plan::serve_flags::{self, flag_names};
use parallel_sizes::ParallelSizes;
use test_file::{Broken, Test};

pub use command_text::{commands_json, of_slice, placed};
pub use selection::Selection;
pub use suite_case::{Case, Command, RUST_CLIENT};
pub use test_file::{FileName, SuiteFile, file_names};

/// Most cases of a suite: the largest of vLLM's has 140.
const MOST_CASES: usize = 10_000;

/// The cases of `files` that `selection` keeps and `device` can run, in upstream's order, and what is left out.
///
/// # Errors
/// The user's mistake (exit 2): a file that does not have the format of vLLM's suite; the text names file and position. A test
/// that breaks a rule is left out alone as [`Skipped::invalid`], and its reason names file, test and field.
pub fn cases(files: &[SuiteFile], selection: &Selection, device: &Device) -> anyhow::Result<(Vec<Case>, Vec<Skipped>)> {
    select(files, selection, device).mistake()
}

/// A model that a serving test serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedModel {
    /// As the test file spells it.
    pub name: String,
    /// How many devices its server needs, where the test names a parallel size.
    pub size: Option<u64>,
}

/// The models of serving tests, one for each test, in the order of the files; and why tests that break a rule have none.
///
/// # Errors
/// The user's mistake (exit 2), as of [`cases`].
pub fn models(files: &[SuiteFile]) -> anyhow::Result<(Vec<ServedModel>, Vec<Skipped>)> {
    let model = |test: Test| match parallel_sizes(&test).with_context(|| test.place()) {
        Ok(sizes) => Ok(ServedModel { name: test.model, size: sizes.is_named().then(|| sizes.devices()) }),
        Err(why) => Err(Broken { name: test.name, why }),
    };
    let (mut models, mut broken) = (Vec::new(), Vec::new());
    for file in files {
        for test in test_file::tests(file).mistake()? {
            match test.and_then(model) {
                Ok(model) => models.push(model),
                Err(why) => broken.push(why.skipped()),
            }
        }
    }
    Ok((models, broken))
}

/// The cases that are kept so far.
struct Kept<'a> {
    selection: &'a Selection,
    device: &'a Device,
    cases: Vec<Case>,
    names: HashSet<String>,
    skipped: Vec<Skipped>,
    /// Tests that break a rule. They are first in the plan, and in the error of one without cases.
    broken: Vec<Skipped>,
}

fn select(files: &[SuiteFile], selection: &Selection, device: &Device) -> anyhow::Result<(Vec<Case>, Vec<Skipped>)> {
    let (cases, names) = (Vec::new(), HashSet::new());
    let mut kept = Kept { selection, device, cases, names, skipped: Vec::new(), broken: Vec::new() };
    for file in files {
        for test in test_file::tests(file)? {
            if let Err(broken) = test.and_then(|test| kept.add(test)) {
                kept.leave_out(broken);
            }
        }
    }
    kept.skipped.splice(0..0, kept.broken);
    Ok((kept.cases, kept.skipped))
}

impl Kept<'_> {
    /// Adds the cases of a test, or the reason why it has none.
    fn add(&mut self, test: Test) -> Result<(), Broken> {
        let name = test.name.clone();
        self.cases_of(&test).with_context(|| test.place()).map_err(|why| Broken { name, why })
    }

    fn cases_of(&mut self, test: &Test) -> anyhow::Result<()> {
        if let Some(reason) = reason_to_skip(test, self.selection, self.device)? {
            self.skipped.push(Skipped::new(test.name.as_str(), reason));
            return Ok(());
        }
        let mut kept = cases_of(test, self.selection)?;
        let reason = self.selection.keep(&mut kept);
        self.skipped.extend(reason.map(|reason| Skipped::new(test.name.as_str(), reason)));
        let mut own = HashSet::new();
        if let Some(twice) = kept.iter().find(|case| self.names.contains(&case.name) || !own.insert(&case.name)) {
            bail!("two cases are named `{}`: result files would overwrite each other", twice.name);
        }
        let count = self.cases.len() + kept.len();
        ensure!(count <= MOST_CASES, "with its cases the suite has {count}: at most {MOST_CASES}");
        self.names.extend(kept.iter().map(|case| case.name.clone()));
        self.cases.append(&mut kept);
        Ok(())
    }

    /// Notes a test that breaks a rule. One that nobody selects is left out as others are.
    fn leave_out(&mut self, broken: Broken) {
        let reason = self.selection.reason_to_skip_name(&broken.name);
        match reason {
            Some(reason) => self.skipped.push(Skipped::new(broken.name, reason)),
            None => self.broken.push(broken.skipped()),
        }
    }
}

fn reason_to_skip(test: &Test, selection: &Selection, device: &Device) -> anyhow::Result<Option<String>> {
    if let Some(reason) = selection.reason_to_skip(test) {
        return Ok(Some(reason));
    }
    let needed = parallel_sizes(test)?.devices();
    if needed > u64::from(device.count) && !selection.remote {
        let what = if device.name.is_cpu() { "NUMA node" } else { "device" };
        let plural = if needed == 1 { "" } else { "s" };
        return Ok(Some(format!(
            "needs {needed} {what}{plural} (tensor x pipeline x data parallel), {} has {}; --device-count overrides the count",
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

/// The parallel sizes of the server of a test, or of its benchmark.
fn parallel_sizes(test: &Test) -> anyhow::Result<ParallelSizes> {
    let words = parameters::words(test.section(), &test.parameters, &[])?;
    ParallelSizes::of(&words).with_context(|| format!("`{}`", test.section()))
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
        client_reason: None,
        slices: None,
    })
}

fn serving_cases(test: &Test, load: &test_file::Load, selection: &Selection) -> anyhow::Result<Vec<Case>> {
    let mut argv = words(["vllm", "serve"]);
    argv.push(test.model.clone());
    argv.extend(parameters::words(test.section(), &test.parameters, &["model"])?);
    let server = Command { argv, env: parameters::environment("server_environment_variables", &test.env)? };
    let omitted: &[&str] = if selection.prompts_per_concurrency.is_some() { &["num_prompts"] } else { &[] };
    let client = full_names(parameters::words("client_parameters", &load.client, omitted)?)?;
    if omitted.is_empty() {
        check_prompts(load)?;
    }
    client_flags::check(&client).context("`client_parameters`")?;
    let metadata = [
        format!("tensor_parallel_size={}", parallel_sizes(test)?.tensor_or_default()),
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
                client_reason: None,
                slices: None,
            });
        }
    }
    Ok(cases)
}

/// Checks the number of prompts, where the test names one.
fn check_prompts(load: &test_file::Load) -> anyhow::Result<()> {
    let Some(value) = parameters::value(&load.client, "num_prompts") else { return Ok(()) };
    let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
    ensure!(
        number.is_some_and(|number| number > 0),
        "`client_parameters.num_prompts` must be a whole number from 1, not {value}"
    );
    Ok(())
}

/// The words with the full names of their flags: other programs read the command, which do not know beginnings of flags.
fn full_names(words: Vec<String>) -> anyhow::Result<Vec<String>> {
    let full = |word: String| flag_names::full(&word).map(String::from).map_err(|why| anyhow!(why));
    words.into_iter().map(full).collect::<anyhow::Result<_>>().context("`client_parameters`")
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

    /// The error of a file, or why its only test is left out.
    fn error_of(file: SuiteFile) -> String {
        match cases(&[file], &Selection::default(), &device(DeviceName::Cpu, 8)) {
            Ok((cases, skipped)) => {
                let invalid: Vec<&Skipped> = skipped.iter().filter(|skipped| skipped.invalid).collect();
                assert_eq!((cases.len(), invalid.len()), (0, 1));
                invalid[0].reason.raw().to_owned()
            }
            Err(error) => {
                assert_eq!(exit::of(&error), Exit::Mistake);
                format!("{error:#}")
            }
        }
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
            r#"{"defaults": {"qps": [1]}, "tests": [{"test_name": "serving_a"}]}"#,
            r#"{"defaults": 7, "tests": [{"test_name": "serving_a"}]}"#,
            r#"{"defaults": {"qps_list": [1], "qps_list": [2]}, "tests": [{"test_name": "serving_a"}]}"#,
            r#"{"tests": [], "tests": []}"#,
            r#"{"tests": [], "comment": "x"}"#,
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
        tests/serving-tests-cpu.json: `defaults` must be an object, not 7
        tests/serving-tests-cpu.json: `defaults`: the key `qps_list` is duplicated
        tests/serving-tests-cpu.json: the key `tests` is duplicated
        tests/serving-tests-cpu.json: unknown field `comment`: expected one of defaults, tests
        tests/serving-tests-cpu.json: `tests` must be an array of tests, not {}
        tests/serving-tests-cpu.json: test 1: expected an object, not 7
        tests/serving-tests-cpu.json: expected an array of tests, or an object with `defaults` and `tests`
        tests/serving-tests-cpu.json: test `serving_a`: the key `dtype` is duplicated in `server_parameters`
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
            test("", r#", "num_prompts": "many""#, r#", "max_concurrency_list": [1]"#),
            test("", r#", "num_prompts": -3"#, r#", "max_concurrency_list": [1]"#),
            test("", "", r#", "max_concurrency_list": [1], "server_environment_variables": {"A": "b c"}"#),
            test("", "", r#", "max_concurrency_list": [1, 1]"#),
        ];
        insta::assert_snapshot!(errors.join("\n"), @r#"
        tests/serving-tests-cpu.json: test `serving_a`: `max_concurrency_list` is missing, and so is `client_parameters.num_prompts`, its default
        tests/serving-tests-cpu.json: test `serving_a`: `server_parameters`: `--tensor-parallel-size` must be a whole number from 1, not `two`
        tests/serving-tests-cpu.json: test `serving_a`: `server_parameters.chat_template`: cannot split "'x" into words: missing closing quote
        tests/serving-tests-cpu.json: test `serving_a`: `client_parameters.num_prompts`: null is not a value: write "" for a bare flag, or leave the key out
        tests/serving-tests-cpu.json: test `serving_a`: `client_parameters.num_prompts` must be a whole number from 1, not "many"
        tests/serving-tests-cpu.json: test `serving_a`: `client_parameters.num_prompts` must be a whole number from 1, not -3
        tests/serving-tests-cpu.json: test `serving_a`: `server_environment_variables.A`: "b c" is 2 words: quote it inside the string
        tests/serving-tests-cpu.json: test `serving_a`: two cases are named `serving_a_qps_1_concurrency_1`: result files would overwrite each other
        "#);
    }

    #[test]
    fn a_beginning_of_a_flag_is_written_in_full_and_an_ambiguous_one_breaks_the_test() {
        let test = |flag: &str| {
            serving(&format!(
                r#"[{{"test_name": "serving_a", "qps_list": [1], "max_concurrency_list": [1], "server_parameters": {{"model": "m"}},
                     "client_parameters": {{"model": "m", "{flag}": 4}}}}]"#
            ))
        };
        for flag in ["num_prompt", "num-p", "num_prompts"] {
            let (cases, _) = cases(&[test(flag)], &Selection::default(), &device(DeviceName::Cpu, 8)).unwrap();
            assert!(cases[0].client.line(&[]).ends_with("--model m --num-prompts 4"), "{flag}");
            assert_eq!(cases[0].measured_by, MeasuredBy::Native);
        }
        insta::assert_snapshot!(error_of(test("num")), @"tests/serving-tests-cpu.json: test `serving_a`: `client_parameters`: `--num` is ambiguous: it can be --num-prompts, --num-warmups");
    }

    #[test]
    fn of_two_tests_of_one_name_the_second_is_left_out() {
        let test = r#"{"test_name": "latency_a", "parameters": {"model": "m"}}"#;
        let text = format!("[{test}, {test}]");
        let file = SuiteFile { kind: Kind::Latency, path: "latency-tests.json".to_owned(), text };
        let (cases, skipped) = cases(&[file], &Selection::default(), &device(DeviceName::Cpu, 8)).unwrap();
        assert_eq!((cases.len(), skipped[0].invalid), (1, true));
        insta::assert_snapshot!(skipped[0].reason.raw(), @"latency-tests.json: test `latency_a`: `test_name` is duplicated: names must be unique");
    }

    #[test]
    fn a_test_that_breaks_a_rule_is_left_out_alone_and_only_where_it_is_wanted() {
        let good = r#"{"test_name": "serving_good", "qps_list": [1], "max_concurrency_list": [2],
            "server_parameters": {"model": "m"}, "client_parameters": {"model": "m"}}"#;
        for bad in [
            // One of ROCm's daily tests: neither concurrencies nor a number of prompts.
            r#"{"test_name": "serving_bad", "qps_list": [1], "server_parameters": {"model": "m"}, "client_parameters": {"model": "m"}}"#,
            r#"{"test_name": "serving_bad", "qps_list": 5}"#,
            r#"{"test_name": "serving_bad", "qps_list": [1], "max_concurrency_list": [1], "server_parameters": {"model": "m", "tensor_parallel_size": "x"}, "client_parameters": {"model": "m"}}"#,
            r#"{"test_name": "serving_bad", "qps_list": [1], "max_concurrency_list": [1], "server_parameters": {"model": "m"}, "client_parameters": {"model": "m", "header": "Host=x"}}"#,
            r#"{"test_name": "serving_bad", "common_parameters": {}}"#,
            r#"{"test_name": "serving_bad/../x"}"#,
        ] {
            let file = serving(&format!("[{bad}, {good}]"));
            let selected = |only: &str, selector: &str| {
                let selection = Selection {
                    only: (!only.is_empty()).then(|| regex::Regex::new(only).unwrap()),
                    test_selector: (!selector.is_empty()).then(|| regex::Regex::new(selector).unwrap()),
                    ..Selection::default()
                };
                let (cases, skipped) =
                    cases(std::slice::from_ref(&file), &selection, &device(DeviceName::Cpu, 8)).unwrap();
                let names: Vec<String> = cases.into_iter().map(|case| case.name).collect();
                assert_eq!(names, ["serving_good_qps_1_concurrency_2"], "{bad}");
                (skipped[0].invalid, skipped[0].reason.raw().to_owned())
            };
            let (invalid, reason) = selected("", "");
            assert!(invalid && reason.starts_with("tests/serving-tests-cpu.json: test `serving_bad"), "{reason}");
            assert_eq!(selected("good", ""), (false, "does not match --only `good`".to_owned()));
            assert_eq!(selected("", "good"), (false, "does not match TEST_SELECTOR `good`".to_owned()));
        }
    }

    #[test]
    fn every_spelling_of_a_parallel_size_counts_for_devices_and_metadata() {
        let of = |parameters: &str| {
            let text = format!(
                r#"[{{"test_name": "serving_a", "qps_list": [1], "server_parameters": {{"model": "m", {parameters}}},
                     "client_parameters": {{"model": "m", "num_prompts": 1}}}}]"#
            );
            let file = serving(&text);
            let size = models(std::slice::from_ref(&file)).unwrap().0[0].size;
            let (cases, skipped) = cases(&[file], &Selection::default(), &device(DeviceName::Cuda, 4)).unwrap();
            match cases.first() {
                Some(case) => {
                    let metadata = case.client.argv.iter().find(|word| word.starts_with("tensor_parallel_size"));
                    format!("{size:?} {}", metadata.unwrap())
                }
                None => format!("{size:?} {}", skipped[0].reason.raw()),
            }
        };
        insta::assert_snapshot!([
            of(r#""tp": 2"#),
            of(r#""tensor-parallel-size": "2""#),
            of(r#""tensor_parallel_size=2": """#),
            of(r#""dtype": "half -tp 4""#),
            of(r#""dtype": "half""#),
            of(r#""tp": 2, "pp": 4"#),
            of(r#""data_parallel_size": 8"#),
            of(r#""data_parallel_size": 8, "data_parallel_size_local": 4"#),
        ].join("\n"), @"
        Some(2) tensor_parallel_size=2
        Some(2) tensor_parallel_size=2
        Some(2) tensor_parallel_size=2
        Some(4) tensor_parallel_size=4
        None tensor_parallel_size=1
        Some(8) needs 8 devices (tensor x pipeline x data parallel), cuda has 4; --device-count overrides the count
        Some(8) needs 8 devices (tensor x pipeline x data parallel), cuda has 4; --device-count overrides the count
        Some(4) tensor_parallel_size=1
        ");
    }

    #[test]
    fn the_test_that_makes_too_many_cases_is_left_out_and_those_before_it_stay() {
        let rates: Vec<u64> = (1..=60).collect();
        let concurrencies: Vec<u64> = (1..=100).collect();
        let test = |name: &str| {
            format!(
                r#"{{"test_name": "{name}", "qps_list": {rates:?}, "max_concurrency_list": {concurrencies:?},
                     "server_parameters": {{"model": "m"}}, "client_parameters": {{"model": "m"}}}}"#
            )
        };
        let file = serving(&format!("[{}, {}]", test("serving_a"), test("serving_b")));
        let (cases, skipped) = cases(&[file], &Selection::default(), &device(DeviceName::Cpu, 1)).unwrap();
        assert_eq!((cases.len(), skipped.len(), skipped[0].invalid), (6000, 1, true));
        assert!(skipped[0].reason.raw().ends_with("with its cases the suite has 12000: at most 10000"));
    }

    #[test]
    fn a_name_that_breaks_a_rule_is_shown_short_and_on_one_line() {
        let long = "x".repeat(5000);
        let file = serving(&format!(r#"[{{"test_name": "a\n{long}"}}, {{"test_name": 7}}, 8]"#));
        let (_, skipped) = cases(&[file], &Selection::default(), &device(DeviceName::Cpu, 8)).unwrap();
        assert!(skipped.iter().all(|skipped| skipped.invalid && skipped.reason.raw().len() <= 1000));
        let names: Vec<&str> = skipped.iter().map(|skipped| skipped.name.raw()).collect();
        assert!(names[0].starts_with("a?xxx") && names[0].len() == 180, "{}", names[0]);
        assert_eq!(names[1..], ["test 2", "test 3"]);
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
        35 cases, 5 skipped, serving_llama8B_tp2_sharegpt: needs 2 NUMA nodes (tensor x pipeline x data parallel), cpu has 1; --device-count overrides the count
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
