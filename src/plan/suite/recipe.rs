//! The cases of recipes in the format of vllm-project/perf-eval: one YAML file for a model, a device and the loads on it.
//! Of its blocks only `vllm` and `vllm_bench` are measured. `system/recipe_folder.rs` reads the files.

pub mod bench_arguments;
pub mod bench_config;
mod checked_text;
pub mod recipe_text;

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, ensure};
use indexmap::IndexMap;
use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::v1::{Device, Skipped};

use crate::escape;
use crate::plan::serve_flags;
use crate::plan::suite::client_flags;
use crate::plan::suite::selection::Selection;
use crate::plan::suite::suite_case::{Case, Command};
use bench_config::{BenchConfig, BenchRun};
use recipe_text::{Recipe, RecipeFile};

/// Most cases of all recipes.
const MOST_CASES: usize = 10_000;
/// Longest name of a case, in bytes: files are named after it.
const LONGEST_NAME: usize = 180;

/// What recipes give.
#[derive(Debug, Default, PartialEq)]
pub struct RecipeCases {
    pub cases: Vec<Case>,
    pub skipped: Vec<Skipped>,
    /// Sentences about what a recipe asks for and does not get.
    pub notices: Vec<String>,
}

/// The cases of recipes that `selection` keeps and `device` can run, in the order of the files, and what is left out. A case has
/// the name of its run, `<config>-conc-<concurrency>`; where several recipes have a run of that name, the recipe's before it. A
/// recipe or a config that breaks a rule is left out alone as [`Skipped::invalid`], and its reason names file and line.
pub fn cases(files: &[RecipeFile], selection: &Selection, device: &Device) -> RecipeCases {
    let (mut recipes, mut broken) = (Vec::new(), Vec::new());
    for file in files {
        match recipe_text::read(file) {
            Ok(recipe) => recipes.push(recipe),
            Err(skipped) => broken.push(skipped),
        }
    }
    let shared = shared_names(&recipes);
    let mut found = Found { selection, device, shared, names: BTreeSet::new(), all: RecipeCases::default() };
    for recipe in &recipes {
        found.add(recipe);
    }
    let mut all = found.all;
    all.notices = notices(&recipes, &all.cases);
    all.skipped.splice(0..0, broken);
    all
}

/// The names of runs that several recipes have.
fn shared_names(recipes: &[Recipe]) -> BTreeSet<String> {
    let mut uses: HashMap<String, usize> = HashMap::new();
    for recipe in recipes {
        let runs = recipe.configs.iter().flatten().flat_map(BenchConfig::runs);
        let names: BTreeSet<String> = runs.map(|run| run.name).collect();
        names.into_iter().for_each(|name| *uses.entry(name).or_default() += 1);
    }
    uses.into_iter().filter(|(_, uses)| *uses > 1).map(|(name, _)| name).collect()
}

struct Found<'a> {
    selection: &'a Selection,
    device: &'a Device,
    shared: BTreeSet<String>,
    names: BTreeSet<String>,
    all: RecipeCases,
}

impl Found<'_> {
    fn add(&mut self, recipe: &Recipe) {
        let left_out = |block: &&str| {
            Skipped::new(
                format!("{} {block}", recipe.name),
                "it measures accuracy: only `vllm_bench` of a recipe is run",
            )
        };
        self.all.skipped.extend(recipe.accuracy_blocks.iter().map(left_out));
        if let Some(reason) = self.reason_to_skip(recipe) {
            self.all.skipped.push(Skipped::new(recipe.name.as_str(), reason));
            return;
        }
        for config in &recipe.configs {
            let added = match config {
                Ok(config) => self.add_config(recipe, config).map_err(|why| {
                    let reason = format!("{}: `{}`: {why:#}", recipe.path, config.name);
                    Skipped::invalid(config.name.as_str(), reason)
                }),
                Err(skipped) => Err(skipped.clone()),
            };
            self.all.skipped.extend(added.err());
        }
    }

    /// Why the device or a variable leaves a recipe out.
    fn reason_to_skip(&self, recipe: &Recipe) -> Option<String> {
        if let Some(reason) = self.selection.other_model(&[&recipe.model], recipe.flag("--dtype")) {
            return Some(reason);
        }
        let Device { name, device_type, count, .. } = self.device;
        if self.selection.remote {
            return None;
        }
        if !name.is_cpu() && !device_type.to_lowercase().contains(&recipe.gpu.to_lowercase()) {
            return Some(format!(
                "it is for {}, and the device is {device_type}; --device-type overrides it",
                recipe.gpu
            ));
        }
        let needed = recipe.num_gpus.max(recipe.sizes.devices());
        (needed > u64::from(*count)).then(|| {
            let plural = if needed == 1 { "" } else { "s" };
            format!("needs {needed} device{plural}, {name} has {count}; --device-count overrides the count")
        })
    }

    fn add_config(&mut self, recipe: &Recipe, config: &BenchConfig) -> anyhow::Result<()> {
        let is_shared = config.runs().any(|run| self.shared.contains(&run.name));
        let test = if is_shared { format!("{}-{}", recipe.name, config.name) } else { config.name.clone() };
        if let Some(reason) = self.selection.unselected(&test) {
            self.all.skipped.push(Skipped::new(test, reason));
            return Ok(());
        }
        let runs = config.runs().map(|run| if is_shared { run.of(&recipe.name) } else { run });
        let mut cases =
            runs.map(|run| self.case(recipe, config, &test, &run)).collect::<anyhow::Result<Vec<Case>>>()?;
        let reason = self.selection.keep(&mut cases);
        self.all.skipped.extend(reason.map(|reason| Skipped::new(test.as_str(), reason)));
        for case in &cases {
            ensure!(case.name.len() <= LONGEST_NAME, "`{}` is longer than {LONGEST_NAME} bytes", case.name);
            ensure!(!self.names.contains(&case.name), "two runs are named `{}`: rename one of the configs", case.name);
        }
        ensure!(self.all.cases.len() + cases.len() <= MOST_CASES, "the recipes have more than {MOST_CASES} runs");
        self.names.extend(cases.iter().map(|case| case.name.clone()));
        self.all.cases.append(&mut cases);
        Ok(())
    }

    fn case(&self, recipe: &Recipe, config: &BenchConfig, test: &str, run: &BenchRun) -> anyhow::Result<Case> {
        let mut server = Command { argv: words(&["vllm", "serve", &recipe.model]), env: recipe.env.clone() };
        server.argv.extend(recipe.serve_args.iter().cloned());
        let prompts = self.selection.num_prompts(run.concurrency).unwrap_or(run.prompts);
        let mut argv = words(&["vllm", "bench", "serve"]);
        argv.extend(config.words(&recipe.model, prompts, run.concurrency, recipe.trusts_remote_code()));
        client_flags::check(argv.get(3..).unwrap_or_default()).context("`args`")?;
        argv.extend(words(&["--save-result", "--result-dir", "results/", "--result-filename"]));
        argv.push(format!("{}.json", run.name));
        argv.extend(self.selection.remote_words());
        let is_native = serve_flags::parse(argv.get(3..).unwrap_or_default()).is_ok();
        Ok(Case {
            name: run.name.clone(),
            kind: Kind::Serving,
            test: test.to_owned(),
            model: recipe.model.clone(),
            request_rate: Some(config.args.value("request-rate").unwrap_or("inf").to_owned()),
            max_concurrency: Some(run.concurrency),
            server: Some(server),
            client: Command { argv, env: IndexMap::new() },
            measured_by: if is_native { MeasuredBy::Native } else { MeasuredBy::Vllm },
            client_reason: None,
            slices: (config.repetitions > 1).then_some(config.repetitions),
        })
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What recipes with cases ask for and a run does not do, one sentence a kind.
fn notices(recipes: &[Recipe], cases: &[Case]) -> Vec<String> {
    let used = recipes.iter().filter(|recipe| cases.iter().any(|case| case.model == recipe.model));
    let names = |names: Vec<String>| escape::sentence(names.join(", "));
    let images: Vec<String> = used.clone().filter_map(|recipe| recipe.image.clone()).collect();
    let limits: Vec<String> = used
        .filter_map(|recipe| Some(format!("{} minutes for `{}`", recipe.timeout_in_minutes?, recipe.name)))
        .collect();
    let mut notices = Vec::new();
    if !images.is_empty() {
        notices.push(format!(
            "The image that a recipe names is not used, --base and --head name what is measured: {}.",
            names(images)
        ));
    }
    if !limits.is_empty() {
        notices.push(format!("The time limit of a recipe is not applied, --budget is: {}.", names(limits)));
    }
    notices
}

#[cfg(test)]
mod tests {
    use vllm_verdict::v1::DeviceName;

    use super::*;

    const RECIPE: &str = "\
name: tiny-h200
gpu: H200
num_gpus: 8
nightly: true
timeout_in_minutes: 180
vllm:
  model: org/tiny
  image: vllm/vllm-openai:nightly
  env: {VLLM_USE_X: 1, VLLM_Y: true}
  serve_args: >-
    -dp 2 --tensor-parallel-size=4
    --trust-remote-code
    --compilation-config {\"mode\":0}
lm_eval:
  tasks: [{name: gsm8k, num_fewshot: 5}]
bfcl: {test_categories: [multiple]}
vllm_bench:
  configs:
    - name: 1k-in-1k-out
      backend: openai
      input_len: 1024
      output_len: 512
      num_prompts: [10, 640]
      max_concurrency: [1, 64]
      repetitions: 3
      args:
        num_warmups: 64
        --disable_tqdm: true
        save-detailed: false
        burstiness: null
        label: [a, 2]
        extra_body: {top_k: 1}
    - name: chat
      backend: openai-chat
      dataset: random
      input_len: 8
      output_len: 8
      num_prompts: 4
      max_concurrency: 2
    - name: plain
      input_len: 8
      output_len: 8
      num_prompts: 4
      max_concurrency: 2
";

    fn h200() -> Device {
        Device { name: DeviceName::Cuda, device_type: "NVIDIA H200".into(), count: 8, image_suffix: String::new() }
    }

    fn file(path: &str, text: &str) -> RecipeFile {
        RecipeFile { path: path.to_owned(), text: text.to_owned() }
    }

    fn of(text: &str) -> RecipeCases {
        cases(&[file("workloads/tiny.yaml", text)], &Selection::default(), &h200())
    }

    fn skipped(found: &RecipeCases) -> Vec<(String, bool)> {
        found.skipped.iter().map(|it| (format!("{}: {}", it.name.raw(), it.reason.raw()), it.invalid)).collect()
    }

    #[test]
    fn a_run_is_the_command_that_perf_eval_makes() {
        let found = of(RECIPE);
        let lines: Vec<String> = found.cases.iter().map(|case| case.client.line(&[])).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        vllm bench serve --backend openai --model org/tiny --dataset-name random --num-prompts 10 --max-concurrency 1 --trust-remote-code --random-input-len 1024 --random-output-len 512 --ignore-eos --num-warmups 64 --disable-tqdm --label a --label 2 --extra-body '{"top_k":1}' --save-result --result-dir results/ --result-filename 1k-in-1k-out-conc-1.json
        vllm bench serve --backend openai --model org/tiny --dataset-name random --num-prompts 640 --max-concurrency 64 --trust-remote-code --random-input-len 1024 --random-output-len 512 --ignore-eos --num-warmups 64 --disable-tqdm --label a --label 2 --extra-body '{"top_k":1}' --save-result --result-dir results/ --result-filename 1k-in-1k-out-conc-64.json
        vllm bench serve --backend openai-chat --endpoint /v1/chat/completions --model org/tiny --dataset-name random --num-prompts 4 --max-concurrency 2 --trust-remote-code --random-input-len 8 --random-output-len 8 --ignore-eos --save-result --result-dir results/ --result-filename chat-conc-2.json
        vllm bench serve --model org/tiny --dataset-name random --num-prompts 4 --max-concurrency 2 --trust-remote-code --random-input-len 8 --random-output-len 8 --ignore-eos --save-result --result-dir results/ --result-filename plain-conc-2.json
        "#);
        let server = found.cases[0].server.as_ref().unwrap();
        insta::assert_snapshot!(server.line(&[]), @r#"VLLM_USE_X=1 VLLM_Y=True vllm serve org/tiny -dp 2 --tensor-parallel-size=4 --trust-remote-code --compilation-config '{"mode":0}'"#);
        assert!(found.cases.iter().all(|case| case.server.as_ref() == Some(server)), "one server for all");
        let named: Vec<_> = found
            .cases
            .iter()
            .map(|it| (it.name.as_str(), it.test.as_str(), it.max_concurrency, it.slices, it.measured_by))
            .collect();
        assert_eq!(
            named,
            [
                ("1k-in-1k-out-conc-1", "1k-in-1k-out", Some(1), Some(3), MeasuredBy::Native),
                ("1k-in-1k-out-conc-64", "1k-in-1k-out", Some(64), Some(3), MeasuredBy::Native),
                ("chat-conc-2", "chat", Some(2), None, MeasuredBy::Native),
                ("plain-conc-2", "plain", Some(2), None, MeasuredBy::Native),
            ]
        );
    }

    #[test]
    fn what_is_not_run_is_named() {
        let found = of(RECIPE);
        assert_eq!(
            skipped(&found),
            [
                ("tiny-h200 lm_eval: it measures accuracy: only `vllm_bench` of a recipe is run".to_owned(), false),
                ("tiny-h200 bfcl: it measures accuracy: only `vllm_bench` of a recipe is run".to_owned(), false),
            ]
        );
        insta::assert_snapshot!(found.notices.join("\n"), @"
        The image that a recipe names is not used, --base and --head name what is measured: vllm/vllm-openai:nightly.
        The time limit of a recipe is not applied, --budget is: 180 minutes for `tiny-h200`.
        ");
    }

    #[test]
    fn a_bad_config_loses_only_itself_and_a_bad_recipe_too() {
        let bad = RECIPE.replace("max_concurrency: [1, 64]", "max_concurrency: [1, 64, 128]");
        let found = of(&bad);
        assert_eq!(found.cases.len(), 2);
        let (reason, invalid) = skipped(&found).pop().unwrap();
        assert!(invalid);
        insta::assert_snapshot!(reason, @"1k-in-1k-out: workloads/tiny.yaml:19:7: vllm_bench.configs[0]: `num_prompts` has 2 values and `max_concurrency` has 3: they are pairs");
        let files = [file("a.yaml", "name: [a"), file("b.yaml", RECIPE)];
        let found = cases(&files, &Selection::default(), &h200());
        assert_eq!((found.cases.len(), found.skipped[0].invalid), (4, true));
        assert!(found.skipped[0].reason.raw().starts_with("a.yaml:"), "{:?}", found.skipped[0]);
    }

    #[test]
    fn a_device_that_a_recipe_is_not_for_or_that_is_too_small_leaves_it_out() {
        let reason = |device: Device| {
            let found = cases(&[file("a.yaml", RECIPE)], &Selection::default(), &device);
            assert_eq!(found.cases, []);
            found.skipped.last().unwrap().reason.raw().to_owned()
        };
        assert_eq!(
            reason(Device { device_type: "NVIDIA B200".into(), ..h200() }),
            "it is for H200, and the device is NVIDIA B200; --device-type overrides it"
        );
        let few = "needs 8 devices, cuda has 4; --device-count overrides the count";
        assert_eq!(reason(Device { count: 4, ..h200() }), few);
        // The parallel sizes count where they need more than the recipe says.
        let small = RECIPE.replace("num_gpus: 8", "num_gpus: 1");
        let found = cases(&[file("a.yaml", &small)], &Selection::default(), &Device { count: 4, ..h200() });
        assert_eq!(found.skipped.last().unwrap().reason.raw(), few);
    }

    #[test]
    fn runs_of_several_recipes_with_one_name_have_the_recipe_in_theirs() {
        let other = RECIPE.replace("tiny-h200", "large-h200").replace("name: plain", "name: alone");
        let files = [file("a.yaml", RECIPE), file("b.yaml", &other)];
        let found = cases(&files, &Selection::default(), &h200());
        let names: Vec<&str> = found.cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "tiny-h200-1k-in-1k-out-conc-1",
                "tiny-h200-1k-in-1k-out-conc-64",
                "tiny-h200-chat-conc-2",
                "plain-conc-2",
                "large-h200-1k-in-1k-out-conc-1",
                "large-h200-1k-in-1k-out-conc-64",
                "large-h200-chat-conc-2",
                "alone-conc-2",
            ]
        );
        let case = &found.cases[0];
        assert_eq!(case.test, "tiny-h200-1k-in-1k-out");
        assert!(case.client.argv.contains(&"tiny-h200-1k-in-1k-out-conc-1.json".to_owned()));
    }

    #[test]
    fn upstreams_variables_select_runs_too() {
        let of = |variables: &[(&str, &str)], only| {
            let selection = Selection::read(&variables.iter().copied().collect(), only).unwrap();
            let found = cases(&[file("a.yaml", RECIPE)], &selection, &h200());
            found.cases.iter().map(|case| case.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[], Some("conc-64$")), ["1k-in-1k-out-conc-64"]);
        assert_eq!(of(&[("TEST_SELECTOR", "^chat")], None), ["chat-conc-2"]);
        assert_eq!(of(&[("MODEL_FILTER", "org/other")], None), [""; 0]);
        assert_eq!(of(&[("MODEL_FILTER", "org/tiny")], None).len(), 4);
        let selection = Selection::read(&[("PROMPTS_PER_CONCURRENCY", "2")].into_iter().collect(), None).unwrap();
        let found = cases(&[file("a.yaml", RECIPE)], &selection, &h200());
        let line = found.cases[1].client.line(&[]);
        assert!(line.contains("--num-prompts 128 ") && !line.contains("--num-prompts 640"), "{line}");
    }
}
