//! Tiers: which cases of the suite an event measures, in how many pairs and in which time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vllm_verdict::number::plural;
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::{Event, Provider, Skipped};

use crate::duration;
use crate::plan::config::TiersConfig;
use crate::plan::estimate::Estimates;
use crate::plan::suite::Case;

/// The name of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TierName {
    Pr,
    Full,
}

/// A tier, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    pub name: TierName,
    pub only: Option<String>,
    pub strategy: Option<Strategy>,
    pub pairs: Option<u32>,
    pub budget: Option<Duration>,
}

/// Longest time that the author of a pull request waits.
const PR_BUDGET: Duration = Duration::from_secs(45 * 60);

/// The label that asks for the whole suite on a pull request.
const FULL_LABEL: &str = "perf-full";

impl TierName {
    /// `pr` or `full`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pr => "pr",
            Self::Full => "full",
        }
    }

    /// The tier of an event; `None` for a local run, which measures what its flags say.
    pub fn of(event: &Event, config: &TiersConfig) -> Option<Self> {
        if event.provider == Provider::Local {
            return None;
        }
        let has = |label: Option<&str>| label.is_some_and(|label| event.labels.iter().any(|known| known == label));
        let is_proposal = event.pull_request.is_some() || event.name.starts_with("pull_request");
        let label = config.full.label.as_deref().or(Some(FULL_LABEL));
        Some(if is_proposal && !has(label) { Self::Pr } else { Self::Full })
    }

    /// The tier, as the config has it. `strategy` is that of the config for all runs.
    pub fn tier(self, config: &TiersConfig, strategy: Option<Strategy>) -> Tier {
        let (of_file, own_strategy, own_budget) = match self {
            Self::Pr => (&config.pr, Some(Strategy::Sequential), Some(PR_BUDGET)),
            Self::Full => (&config.full, None, None),
        };
        Tier {
            name: self,
            only: of_file.only.clone(),
            strategy: of_file.strategy.or(strategy).or(own_strategy),
            pairs: of_file.pairs,
            budget: of_file.budget.or(own_budget),
        }
    }
}

/// The labels that choose a tier, which start a benchmark as the labels of devices do.
pub fn labels(config: &TiersConfig) -> impl Iterator<Item = &str> {
    [config.pr.label.as_deref(), config.full.label.as_deref().or(Some(FULL_LABEL))].into_iter().flatten()
}

/// Leaves out the cases that are not expected to fit into `budget`, in the order of the suite, and says so of each. The
/// cheapest case stays where none fits.
pub fn fit(cases: &mut Vec<Case>, budget: Duration, tier: Option<TierName>, estimates: &Estimates) -> Vec<Skipped> {
    let mut kept: Vec<Case> = Vec::new();
    let mut skipped = Vec::new();
    for case in std::mem::take(cases) {
        kept.push(case);
        if estimates.least(&kept) > budget.as_secs_f64()
            && let Some(case) = kept.pop()
        {
            skipped.push(case);
        }
    }
    if kept.is_empty() {
        let cheapest = |one: &(usize, &Case), other: &(usize, &Case)| {
            let cost = |case: &Case| estimates.least(std::slice::from_ref(case));
            cost(one.1).total_cmp(&cost(other.1))
        };
        let at = skipped.iter().enumerate().min_by(|one, other| cheapest(one, other)).map(|(at, _)| at);
        kept.extend(at.map(|at| skipped.remove(at)));
    }
    *cases = kept;
    let whole = tier.map_or_else(String::new, |_| "; `--tier full` measures it".to_owned());
    let reason = |case: &Case| {
        let pass = duration::text_of_seconds(estimates.case(case));
        let budget = duration::text(budget);
        format!("about {pass} a measurement, which does not fit into {budget}{whole}")
    };
    skipped.iter().map(|case| Skipped::new(case.name.as_str(), reason(case).as_str())).collect()
}

/// What was left out, in one sentence; `None` where nothing was.
pub fn sentence(left_out: usize, tier: Option<TierName>, budget: Duration) -> Option<String> {
    let (cases, budget) = (plural(left_out, "case"), duration::text(budget));
    let of = tier.map_or_else(String::new, |tier| format!("Tier `{}`: ", tier.as_str()));
    (left_out > 0).then(|| format!("{of}left out {cases} of the suite, which would not fit into {budget}."))
}

#[cfg(test)]
mod tests {
    use vllm_verdict::v1::LabelsSource;

    use super::*;
    use crate::plan::config::TierConfig;

    fn event(provider: Provider, name: &str, labels: &[&str]) -> Event {
        Event {
            provider,
            name: name.to_owned(),
            action: None,
            changed_label: None,
            repository: None,
            branch: None,
            head_sha: None,
            base_sha: None,
            base_branch: None,
            pull_request: None,
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            labels_source: LabelsSource::Payload,
            configuration: None,
            fork: false,
        }
    }

    #[test]
    fn a_pull_request_is_measured_in_tier_pr_unless_its_label_asks_for_all() {
        let config = TiersConfig::default();
        let of = |provider, name: &str, labels: &[&str]| TierName::of(&event(provider, name, labels), &config);
        assert_eq!(of(Provider::Github, "pull_request", &["ready"]), Some(TierName::Pr));
        assert_eq!(of(Provider::Github, "pull_request", &["ready", "perf-full"]), Some(TierName::Full));
        assert_eq!(of(Provider::Buildkite, "push", &[]), Some(TierName::Full));
        assert_eq!(of(Provider::Local, "local", &["perf-full"]), None);
        let own = TierConfig { label: Some("all".to_owned()), ..TierConfig::default() };
        let config = TiersConfig { full: own, ..TiersConfig::default() };
        assert_eq!(TierName::of(&event(Provider::Github, "pull_request", &["perf-full"]), &config), Some(TierName::Pr));
        assert_eq!(labels(&config).collect::<Vec<_>>(), ["all"]);
    }

    #[test]
    fn the_file_decides_before_the_defaults_of_a_tier() {
        let config = TiersConfig::default();
        let pr = TierName::Pr.tier(&config, None);
        assert_eq!((pr.strategy, pr.budget), (Some(Strategy::Sequential), Some(PR_BUDGET)));
        assert_eq!(TierName::Pr.tier(&config, Some(Strategy::Paired)).strategy, Some(Strategy::Paired));
        assert_eq!(TierName::Full.tier(&config, None).budget, None);
        let own = TierConfig {
            strategy: Some(Strategy::Screen),
            budget: Some(Duration::from_secs(60)),
            ..TierConfig::default()
        };
        let config = TiersConfig { pr: own, ..TiersConfig::default() };
        let pr = TierName::Pr.tier(&config, Some(Strategy::Paired));
        assert_eq!((pr.strategy, pr.budget), (Some(Strategy::Screen), Some(Duration::from_secs(60))));
    }

    #[test]
    fn the_cases_that_fit_are_kept_in_the_order_of_the_suite_and_never_none() {
        let case = |name: &str, prompts: u32| Case {
            name: name.to_owned(),
            ..Case::sample(&format!("vllm bench serve --num-prompts {prompts} --random-output-len 50"))
        };
        // A measurement takes a second for each prompt.
        let all = [case("a", 100), case("b", 1000), case("c", 50)];
        let estimates = Estimates { instant: vec![true, true], pairs: (3, 10) };
        let fitted = |budget| {
            let mut cases = all.to_vec();
            let skipped = fit(&mut cases, Duration::from_secs(budget), Some(TierName::Pr), &estimates);
            let names = |names: Vec<String>| names.join(" ");
            let kept = names(cases.iter().map(|case| case.name.clone()).collect());
            (kept, names(skipped.iter().map(|skipped| skipped.name.raw().to_owned()).collect()))
        };
        assert_eq!(fitted(1200), ("a c".to_owned(), "b".to_owned()));
        assert_eq!(fitted(800), ("a".to_owned(), "b c".to_owned()));
        assert_eq!(fitted(10), ("c".to_owned(), "a b".to_owned()));
        let mut cases = all.to_vec();
        let skipped = fit(&mut cases, Duration::from_secs(1200), Some(TierName::Pr), &estimates);
        let reason = skipped[0].reason.raw();
        assert_eq!(reason, "about 17 min a measurement, which does not fit into 20 min; `--tier full` measures it");
        insta::assert_snapshot!(sentence(1, Some(TierName::Pr), PR_BUDGET).unwrap(), @"Tier `pr`: left out 1 case of the suite, which would not fit into 45 min.");
        assert_eq!(sentence(0, None, PR_BUDGET), None);
    }
}
