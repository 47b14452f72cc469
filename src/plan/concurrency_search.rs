//! The adaptive search of upstream's suite: the largest concurrency at which a test still meets its latency targets.
//! It decides what to measure next; `run/search_run.rs` measures it.

use std::collections::BTreeMap;

use anyhow::{anyhow, ensure};
use serde::{Deserialize, Serialize};
use vllm_verdict::repetition::{Measurement, Outcome};

use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::suite::{Case, Selection};

/// The latency targets of the search, and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// `SLA_TTFT_MS`: highest TTFT in milliseconds, of the 99th percentile or, where there is none, the mean.
    pub ttft_ms: f64,
    /// `SLA_TPOT_MS`: the same for TPOT.
    pub tpot_ms: f64,
    /// `ADAPTIVE_MAX_PROBES`: most measurements of one test at one request rate, in addition to those of the suite.
    pub max_probes: usize,
    /// `ADAPTIVE_MAX_CONCURRENCY`: highest concurrency to try.
    pub max_concurrency: u64,
}

impl Search {
    /// Upstream's variables; `None` unless `ENABLE_ADAPTIVE_CONCURRENCY=1`.
    ///
    /// # Errors
    /// The user's mistake (exit 2): a variable that is not a number above 0.
    pub fn read(env: &Environment) -> anyhow::Result<Option<Self>> {
        if !env.is_on("ENABLE_ADAPTIVE_CONCURRENCY").map_err(|why| anyhow!(why)).mistake()? {
            return Ok(None);
        }
        let number = |name: &str, default: f64, whole: bool| -> anyhow::Result<f64> {
            let Some(text) = env.get(name) else { return Ok(default) };
            let number = text.parse().unwrap_or(f64::NAN);
            let right = number > 0.0 && number <= 1e9 && (!whole || number.fract() == 0.0);
            ensure!(right, "{name} must be a {} above 0, not `{text}`", if whole { "whole number" } else { "number" });
            Ok(number)
        };
        let read = || -> anyhow::Result<Self> {
            Ok(Self {
                ttft_ms: number("SLA_TTFT_MS", 3000.0, false)?,
                tpot_ms: number("SLA_TPOT_MS", 100.0, false)?,
                max_probes: number("ADAPTIVE_MAX_PROBES", 8.0, true)? as usize,
                max_concurrency: number("ADAPTIVE_MAX_CONCURRENCY", 1024.0, true)? as u64,
            })
        };
        read().map(Some).mistake()
    }

    /// Whether a case met both targets. A case without numbers did not.
    pub fn is_met(&self, outcome: &Outcome) -> bool {
        let Outcome::Measured(measured) = outcome else { return false };
        let within = |metric: &str, most: f64| value(measured, metric).is_some_and(|value| value <= most);
        within("ttft_ms", self.ttft_ms) && within("tpot_ms", self.tpot_ms)
    }

    /// The next concurrency to try, after the suite's own (`listed`) and the `probes` so far: whether each was met.
    /// Between the largest met and the smallest missed it bisects; where all were met it goes up by the last gap of the
    /// list, doubled each time.
    pub fn next(&self, listed: &BTreeMap<u64, bool>, probes: &BTreeMap<u64, bool>) -> Option<u64> {
        if probes.len() >= self.max_probes || listed.is_empty() {
            return None;
        }
        let bracket = Bracket::of(listed.iter().chain(probes));
        let met = bracket.last_pass.unwrap_or(0);
        let next = match bracket.first_fail {
            Some(missed) => met + (missed - met) / 2,
            None => {
                let top = listed.keys().next_back().copied()?;
                let below = listed.keys().rev().nth(1).copied().unwrap_or(0);
                let doubled = probes.keys().filter(|concurrency| **concurrency > top).count().min(32) as u32;
                met.saturating_add((top - below).saturating_mul(2_u64.pow(doubled))).min(self.max_concurrency)
            }
        };
        (next > met).then_some(next)
    }
}

fn value(measured: &Measurement, metric: &str) -> Option<f64> {
    ["p99", "mean"].iter().find_map(|of| measured.metrics.get(&format!("{of}_{metric}"))).copied()
}

/// The concurrencies between which the targets begin to be missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bracket {
    /// The largest concurrency below `first_fail` that met the targets.
    pub last_pass: Option<u64>,
    /// The smallest concurrency that did not.
    pub first_fail: Option<u64>,
}

impl Bracket {
    /// Of concurrencies that were tried, each with whether it met the targets.
    pub fn of<'a>(tried: impl Iterator<Item = (&'a u64, &'a bool)>) -> Self {
        let tried: BTreeMap<u64, bool> = tried.map(|(concurrency, met)| (*concurrency, *met)).collect();
        let first_fail = tried.iter().find(|(_, met)| !**met).map(|(concurrency, _)| *concurrency);
        let below = tried.range(..first_fail.unwrap_or(u64::MAX));
        Self { last_pass: below.last().map(|(concurrency, _)| *concurrency), first_fail }
    }
}

/// The result of a search: `<test>_qps_<qps>_sla_summary.json`, with upstream's keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub test_name: String,
    pub qps: String,
    pub sla_ttft_ms: f64,
    pub sla_tpot_ms: f64,
    pub static_last_pass: Option<u64>,
    pub static_first_fail: Option<u64>,
    pub final_last_pass: Option<u64>,
    pub final_first_fail: Option<u64>,
}

impl Summary {
    /// The summary of the search for one test at one request rate.
    pub fn new(
        search: &Search,
        test: &str,
        rate: &str,
        listed: &BTreeMap<u64, bool>,
        probes: &BTreeMap<u64, bool>,
    ) -> Self {
        let (first, last) = (Bracket::of(listed.iter()), Bracket::of(listed.iter().chain(probes)));
        Self {
            test_name: test.to_owned(),
            qps: rate.to_owned(),
            sla_ttft_ms: search.ttft_ms,
            sla_tpot_ms: search.tpot_ms,
            static_last_pass: first.last_pass,
            static_first_fail: first.first_fail,
            final_last_pass: last.last_pass,
            final_first_fail: last.first_fail,
        }
    }

    /// Name of the summary's file.
    pub fn file(test: &str, rate: &str) -> String {
        format!("{test}_qps_{rate}_sla_summary.json")
    }
}

/// A case of the suite at another concurrency. Its number of prompts follows the concurrency where the selection sets
/// prompts per concurrency.
pub fn at(case: &Case, concurrency: u64, selection: &Selection) -> Case {
    let rate = case.request_rate.as_deref().unwrap_or_default();
    let name = format!("{}_qps_{rate}_concurrency_{concurrency}", case.test);
    let prompts = selection.num_prompts(concurrency).map(|prompts| prompts.to_string());
    let mut client = case.client.clone();
    for index in 1..client.argv.len() {
        let replaced = match client.argv[index - 1].as_str() {
            "--max-concurrency" => Some(concurrency.to_string()),
            "--result-filename" => Some(format!("{name}.json")),
            "--num-prompts" => prompts.clone(),
            _ => None,
        };
        if let Some(replaced) = replaced {
            client.argv[index] = replaced;
        }
    }
    Case { name, max_concurrency: Some(concurrency), client, ..case.clone() }
}

#[cfg(test)]
mod tests {
    use vllm_verdict::case::Kind;

    use super::*;

    const SEARCH: Search = Search { ttft_ms: 3000.0, tpot_ms: 100.0, max_probes: 8, max_concurrency: 1024 };

    /// A search whose targets are met up to `limit`: the concurrencies tried, the last pass and the first failure.
    fn searched(search: &Search, listed: &[u64], limit: u64) -> (Vec<u64>, Option<u64>, Option<u64>) {
        let listed: BTreeMap<u64, bool> = listed.iter().map(|at| (*at, *at <= limit)).collect();
        let (mut probes, mut order) = (BTreeMap::new(), Vec::new());
        while let Some(next) = search.next(&listed, &probes) {
            order.push(next);
            assert_eq!(probes.insert(next, next <= limit), None, "{next} was tried before");
        }
        let summary = Summary::new(search, "serving_a", "inf", &listed, &probes);
        (order, summary.final_last_pass, summary.final_first_fail)
    }

    #[test]
    fn the_search_bisects_between_the_last_pass_and_the_first_failure() {
        assert_eq!(searched(&SEARCH, &[12, 16, 24, 64], 41), (vec![44, 34, 39, 41, 42], Some(41), Some(42)));
        assert_eq!(searched(&SEARCH, &[12, 16], 12), (vec![14, 13], Some(12), Some(13)));
        assert_eq!(searched(&SEARCH, &[8], 0), (vec![4, 2, 1], None, Some(1)));
    }

    #[test]
    fn where_all_pass_the_search_goes_up_by_doubled_gaps_and_then_bisects() {
        assert_eq!(searched(&SEARCH, &[4, 8], 30), (vec![12, 20, 36, 28, 32, 30, 31], Some(30), Some(31)));
        let high = Search { max_concurrency: 50, ..SEARCH };
        assert_eq!(searched(&high, &[4, 8], 1000), (vec![12, 20, 36, 50], Some(50), None));
    }

    #[test]
    fn the_search_ends_when_its_probes_are_used_up() {
        let few = Search { max_probes: 2, ..SEARCH };
        assert_eq!(searched(&few, &[12, 64], 41), (vec![38, 51], Some(38), Some(51)));
        assert_eq!(searched(&SEARCH, &[], 41), (vec![], None, None));
    }

    #[test]
    fn the_99th_percentile_decides_and_the_mean_where_there_is_none() {
        let outcome = |metrics: &[(&str, f64)]| {
            let metrics = metrics.iter().map(|(id, value)| ((*id).to_owned(), *value)).collect();
            Outcome::Measured(Measurement::new(Kind::Serving, metrics))
        };
        let tpot = ("p99_tpot_ms", 100.0);
        assert!(SEARCH.is_met(&outcome(&[("p99_ttft_ms", 3000.0), tpot])));
        assert!(!SEARCH.is_met(&outcome(&[("p99_ttft_ms", 3001.0), ("mean_ttft_ms", 10.0), tpot])));
        assert!(SEARCH.is_met(&outcome(&[("mean_ttft_ms", 10.0), tpot])));
        assert!(!SEARCH.is_met(&outcome(&[tpot])));
        assert!(!SEARCH.is_met(&Outcome::Failed("3 of 8 requests failed".to_owned())));
    }

    #[test]
    fn a_bad_value_of_a_variable_is_named() {
        let read = |variables: &[(&'static str, &'static str)]| Search::read(&variables.iter().copied().collect());
        assert_eq!(read(&[("SLA_TTFT_MS", "1")]).unwrap(), None);
        let on = ("ENABLE_ADAPTIVE_CONCURRENCY", "1");
        assert_eq!(read(&[on]).unwrap(), Some(SEARCH));
        let error = read(&[on, ("ADAPTIVE_MAX_PROBES", "2.5")]).unwrap_err();
        assert_eq!(error.to_string(), "ADAPTIVE_MAX_PROBES must be a whole number above 0, not `2.5`");
    }

    #[test]
    fn a_probe_is_the_case_at_another_concurrency() {
        let words = "vllm bench serve --result-dir results/ --result-filename serving_a_qps_2_concurrency_8.json \
                     --request-rate 2 --max-concurrency 8 --num-prompts 40 --model m";
        let case = Case {
            name: "serving_a_qps_2_concurrency_8".to_owned(),
            request_rate: Some("2".to_owned()),
            max_concurrency: Some(8),
            ..Case::sample(words)
        };
        let selection = Selection { prompts_per_concurrency: Some(5), ..Selection::default() };
        let probe = at(&case, 12, &selection);
        assert_eq!((probe.name.as_str(), probe.max_concurrency), ("serving_a_qps_2_concurrency_12", Some(12)));
        let expected = words.replace("concurrency_8", "concurrency_12").replace("concurrency 8", "concurrency 12");
        assert_eq!(
            shell_words::join(&probe.client.argv),
            shell_words::join(shell_words::split(&expected.replace("40", "60")).unwrap())
        );
        assert!(at(&case, 12, &Selection::default()).client.argv.contains(&"40".to_owned()));
    }
}
