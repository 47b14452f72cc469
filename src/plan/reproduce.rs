//! A plan as the command that reproduces the run.

use std::path::Path;

use vllm_verdict::strategy::Strategy;

use crate::plan::Plan;

impl Plan {
    /// The command, for a machine that has the targets. `suite` and `only` are those that the plan was made with.
    pub fn reproduce(&self, suite: &Path, only: Option<&str>) -> String {
        let mut words: Vec<String> = ["vllm-perf", "run"].map(String::from).to_vec();
        for (side, planned) in self.sides.present() {
            words.extend([format!("--{}", side.as_str()), planned.target.to_string()]);
            if !planned.server_args.is_empty() {
                words.push(format!("--{}-server-args={}", side.as_str(), shell_words::join(&planned.server_args)));
            }
        }
        if self.sides.base.is_none() {
            let recorded = self.recorded_base.as_ref().map(|folder| format!("results:{}", folder.display()));
            words.extend(["--base".to_owned(), recorded.unwrap_or_else(|| "none".to_owned())]);
        }
        words.extend([
            "--provider".to_owned(),
            "local".to_owned(),
            "--device".to_owned(),
            self.device.name.to_string(),
        ]);
        words.extend(["--suite".to_owned(), suite.display().to_string()]);
        if let Some(only) = only {
            words.extend(["--only".to_owned(), only.to_owned()]);
        }
        if matches!(self.strategy, Strategy::Screen | Strategy::Sequential) {
            words.extend(["--strategy".to_owned(), self.strategy.as_str().to_owned()]);
        }
        words.extend(["--pairs".to_owned(), self.pairs.to_string(), "--seed".to_owned(), self.seed.to_string()]);
        shell_words::join(words)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::plan::Plan;

    #[test]
    fn the_command_names_both_sides_and_quotes_words_with_spaces() {
        let plan: Plan = serde_json::from_str(
            r#"{"schema": "vllm-perf/plan/v1", "trigger": {"run": true, "reason": ""},
                "event": {"provider": "local", "name": "local", "action": null, "changed_label": null, "repository": null,
                  "branch": null, "head_sha": null, "base_sha": null, "base_branch": null, "pull_request": null,
                  "labels": [], "labels_source": "flag", "fork": false},
                "device": {"name": "cpu", "type": "AMD_EPYC_2c", "count": 1, "image_suffix": "-cpu"},
                "sides": {"base": {"target": "local", "commit": null},
                  "head": {"target": "sim:itl=12ms", "commit": null, "server_args": ["--max-num-seqs", "1"]}},
                "cases": [], "skipped": [], "pairs": 3, "seed": 7}"#,
        )
        .unwrap();
        insta::assert_snapshot!(
            plan.reproduce(Path::new("my suite"), Some("_c(1|8)$")),
            @"vllm-perf run --base local --head 'sim:itl=12ms' '--head-server-args=--max-num-seqs 1' --provider local --device cpu --suite 'my suite' --only '_c(1|8)$' --pairs 3 --seed 7"
        );
    }
}
