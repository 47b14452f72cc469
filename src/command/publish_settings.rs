//! The rules by which results of another run may have been judged: those of the base of its pull request. The artifact of
//! that run states rules of its own, which its author may have chosen.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use vllm_verdict::Untrusted;
use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::looks;
use vllm_verdict::metric;
use vllm_verdict::strategy::{self, Strategy};
use vllm_verdict::v1::{CaseFacts, Comparison, Event, Look};

use super::base_settings;
use crate::ci::event::{CiRun, is_proposal};
use crate::environment::Environment;
use crate::escape;
use crate::exit::Classify;
use crate::system::github::Github;

/// Largest noise that a row may state, as the standard deviation of a log-ratio: repetitions that differ by half.
const LARGEST_NOISE: f64 = 0.5;

/// Checks that the results of a pull request were judged by the settings of base. Returns a notice for the report where
/// those settings are not known, so that the defaults are in force.
///
/// # Errors
/// The user's mistake (exit 2): other rules were in force, or the settings of base cannot be read.
pub(super) async fn check(
    event: &Event,
    ci: &CiRun,
    comparison: &Comparison,
    explicit: Option<&Path>,
    github: Option<&Github>,
    environment: &Environment,
) -> Result<Option<String>> {
    let Some(completed) = &ci.completed_run else {
        // A job of the event itself: the settings are those that its run had.
        let (loaded, notice) = match is_proposal(event) {
            true => base_settings::of_event(event, explicit, github, environment).await?,
            false => return Ok(None),
        };
        by_rules(comparison, &loaded.config.verdict).mistake()?;
        return Ok(notice);
    };
    let unknown = "The settings of the base are not known: the default thresholds are in force.";
    let (Some(github), Some(repository)) = (github, &event.repository) else {
        by_rules(comparison, &VerdictConfig::default()).mistake()?;
        return Ok(Some(unknown.to_owned()));
    };
    let (config, notice) = match github.resolve_pull_request(completed, repository).await {
        Ok(Some(pull)) => {
            let (loaded, notice) = base_settings::of_commit(&pull.base_sha, github, repository).await?;
            (loaded.config.verdict, notice)
        }
        // Without a pull request there is no comment.
        Ok(None) | Err(_) => (VerdictConfig::default(), Some(unknown.to_owned())),
    };
    by_rules(comparison, &config).mistake()?;
    Ok(notice)
}

/// Checks thresholds, directions, primary rows and rates against the settings.
fn by_rules(comparison: &Comparison, rules: &VerdictConfig) -> Result<()> {
    let other = |what: &str| anyhow!("the results were judged by other rules than those of the base: {what}");
    let method = &comparison.method;
    let planned = looks::looks(method.strategy, strategy::MOST_PAIRS, rules.fdr);
    ensure!(same(method.fdr, rules.fdr), other("its false discovery rate"));
    let as_stated = method.looks.len() <= planned.len() && !method.looks.is_empty();
    let agrees = |(look, planned): (&Look, &Look)| {
        same(look.fdr, planned.fdr) && (method.strategy != Strategy::Sequential || look.pairs <= planned.pairs)
    };
    let rates_agree = method.looks.iter().zip(&planned).all(agrees);
    ensure!(as_stated && rates_agree, other("the false discovery rates of its analyses"));
    let mut cases: HashMap<&Untrusted, &CaseFacts> = HashMap::new();
    for case in &comparison.cases {
        let is_first = cases.insert(&case.name, case).is_none();
        ensure!(is_first, "the case `{}` is there twice", escape::name(&case.name));
    }
    check_rows(comparison)?;
    let mut measured: HashSet<(&Untrusted, &str)> = HashSet::new();
    measured.extend(comparison.rows.iter().map(|row| (&row.case, row.metric.raw())));
    let mut primary: HashMap<&Untrusted, Vec<&str>> = HashMap::new();
    for row in &comparison.rows {
        let case = cases.get(&row.case);
        let metric = case.and_then(|case| metric::of(case.kind).find(|metric| row.metric == metric.id));
        let (Some(case), Some(metric)) = (case, metric) else { return Err(other("a row has an unknown metric")) };
        let id = metric.id;
        ensure!(same(row.min_effect, rules.min_effect(metric)), other(&format!("the minimum effect of `{id}`")));
        ensure!(row.direction == rules.direction(metric), other(&format!("the direction of `{id}`")));
        let of_case = || rules.primary_of(case, |id| measured.contains(&(&case.name, id)));
        let primary = primary.entry(&case.name).or_insert_with(of_case);
        ensure!(row.primary == primary.contains(&id), other(&format!("whether `{id}` is primary")));
    }
    Ok(())
}

/// Checks that the rows are those of the cases, each once, and that their stated noise could be that of a measurement.
fn check_rows(comparison: &Comparison) -> Result<()> {
    let mut seen: HashMap<&Untrusted, HashSet<&str>> = HashMap::new();
    for row in &comparison.rows {
        let (case, metric) = (escape::name(&row.case), escape::name(&row.metric));
        ensure!(seen.entry(&row.case).or_default().insert(row.metric.raw()), "`{metric}` of `{case}` has two rows");
        ensure!(
            row.s0.is_none_or(|s0| s0 <= LARGEST_NOISE),
            "the noise of `{metric}` of `{case}` is beyond any measurement"
        );
    }
    for case in &comparison.cases {
        let name = escape::name(&case.name);
        let Some(rows) = seen.get(&case.name) else { return Err(anyhow!("the case `{name}` has no row")) };
        for family in ["ttft_ms", "tpot_ms"] {
            let primary = metric::of(case.kind).filter(|metric| metric.primary && metric.id.ends_with(family));
            let (present, absent): (Vec<&metric::Metric>, Vec<&metric::Metric>) =
                primary.partition(|metric| rows.contains(metric.id));
            if let (Some(present), Some(absent)) = (present.first(), absent.first()) {
                return Err(anyhow!("the case `{name}` has `{}` and lacks `{}`", present.id, absent.id));
            }
        }
    }
    Ok(())
}

fn same(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9
}

#[cfg(test)]
mod tests {
    use vllm_verdict::criteria::MinEffect;
    use vllm_verdict::metric::Direction;

    use super::*;

    fn real() -> Comparison {
        serde_json::from_str(include_str!("../../tests/data/comparison/comparison.json")).unwrap()
    }

    #[test]
    fn results_by_the_rules_of_the_base_are_accepted() {
        by_rules(&real(), &VerdictConfig::default()).unwrap();
    }

    #[test]
    fn results_by_rules_of_their_own_are_refused() {
        let refusal = |tamper: fn(&mut Comparison)| {
            let mut comparison = real();
            tamper(&mut comparison);
            by_rules(&comparison, &VerdictConfig::default()).unwrap_err().to_string()
        };
        let refusals = [
            refusal(|it| it.rows[0].min_effect = 0.9),
            refusal(|it| it.rows[0].primary = !it.rows[0].primary),
            refusal(|it| it.rows[0].direction = Direction::Lower),
            refusal(|it| it.rows[0].metric = "made_up".into()),
            refusal(|it| it.cases.push(it.cases[0].clone())),
            refusal(|it| it.method.fdr = 1e-9),
            refusal(|it| it.method.looks[0].fdr = 1e-9),
            refusal(|it| it.method.looks.push(it.method.looks[0])),
            refusal(|it| it.method.strategy = Strategy::Sequential),
        ];
        let why = refusals
            .map(|refusal| refusal.replace("the results were judged by other rules than those of the base: ", ""));
        insta::assert_snapshot!(why.join("\n"), @r"
        the minimum effect of `output_throughput`
        whether `output_throughput` is primary
        the direction of `output_throughput`
        a row has an unknown metric
        the case `serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4` is there twice
        its false discovery rate
        the false discovery rates of its analyses
        the false discovery rates of its analyses
        the false discovery rates of its analyses
        ");
        let strict = MinEffect { throughput: 0.001, ..MinEffect::default() };
        let strict = VerdictConfig { min_effect: strict, ..VerdictConfig::default() };
        assert!(by_rules(&real(), &strict).is_err(), "the base's are not the defaults");
    }
}
