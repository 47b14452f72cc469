//! What a reader can do next, at the end of a report: measure the cases of interest again, and calibrate.

use indexmap::IndexSet;
use vllm_verdict::v1::{Comparison, Row, Verdict};
use vllm_verdict::{Untrusted, number};

use super::{finding, wording};
use crate::plan::reproduce;

/// Most cases that a command to measure again names.
const MOST_CASES: usize = 5;

/// A step: what it is for, and the command.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub purpose: String,
    pub command: Untrusted,
}

/// The steps after this report; none where the command that made it is not known, or nothing is open.
pub fn steps(comparison: &Comparison) -> Vec<Step> {
    let Some(command) = wording::reproduce(comparison) else { return Vec::new() };
    let Ok(words) = shell_words::split(command.raw()) else { return Vec::new() };
    [again(comparison, &words), calibrate(comparison, &words)].into_iter().flatten().collect()
}

/// Measure the cases again that changed, fail, or are inconclusive.
fn again(comparison: &Comparison, words: &[String]) -> Option<Step> {
    let order = [Verdict::Failing, Verdict::Regressed, Verdict::NotMeasured, Verdict::Inconclusive];
    let rows = order.iter().flat_map(|verdict| finding::worst_first(comparison, *verdict));
    let cases: IndexSet<&str> = rows.map(|row| row.case.raw()).collect();
    if cases.is_empty() || cases.len() == comparison.cases.len() {
        return None;
    }
    let (all, shown) = (cases.len(), cases.len().min(MOST_CASES));
    let purpose = match all == shown {
        true => format!("Measure {} again, with 10 pairs:", number::plural(all, "case")),
        false => format!("Measure the first {shown} of {all} cases again, with 10 pairs:"),
    };
    let pattern =
        format!("^({})$", cases.iter().take(shown).map(|case| regex::escape(case)).collect::<Vec<_>>().join("|"));
    let command = with(words, &[("--only", &pattern), ("--pairs", "10")]);
    Some(Step { purpose, command: reproduce::quoted(&shell_words::join(command))?.into() })
}

/// Calibrate where rows are inconclusive that are not calibrated.
fn calibrate(comparison: &Comparison, words: &[String]) -> Option<Step> {
    let is_open = |row: &&Row| row.verdict == Verdict::Inconclusive && !row.calibrated && row.p.is_some();
    let open = finding::primary(comparison).filter(is_open).count();
    let at = words.iter().position(|word| word == "run").filter(|_| open > 0)?;
    let rows = if open == 1 { "1 row is" } else { "rows are" };
    let number = if open == 1 { String::new() } else { format!("{} ", number::count(open)) };
    let purpose = format!(
        "{number}{rows} inconclusive and not calibrated: A/A runs of base on this machine make smaller changes detectable:"
    );
    let mut command: Vec<String> = words[..at].to_vec();
    command.push("calibrate".to_owned());
    // It measures head against itself: here what is base.
    let kept = [
        ("--base", "--head"),
        ("--base-server-args", "--head-server-args"),
        ("--provider", "--provider"),
        ("--device", "--device"),
        ("--suite", "--suite"),
        ("--only", "--only"),
        ("--client", "--client"),
    ];
    for (from, to) in kept {
        match value(words, from) {
            // A value that begins with a dash is not taken for a flag.
            Some(value) if value.starts_with('-') => command.push(format!("{to}={value}")),
            Some(value) => command.extend([to.to_owned(), value]),
            None => {}
        }
    }
    command.extend(["--store", "STORE"].map(str::to_owned));
    Some(Step { purpose, command: reproduce::quoted(&shell_words::join(command))?.into() })
}

/// The value of a flag in a command.
fn value(words: &[String], flag: &str) -> Option<String> {
    let glued = format!("{flag}=");
    words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix(&glued) {
        Some(value) => Some(value.to_owned()),
        None => (word == flag).then(|| words.get(at + 1).cloned())?,
    })
}

/// The command with other values of some flags.
fn with(words: &[String], values: &[(&str, &str)]) -> Vec<String> {
    let mut command = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (flag, glued) = word.split_once('=').map_or((word.as_str(), false), |(flag, _)| (flag, true));
        if values.iter().any(|(known, _)| *known == flag) {
            if !glued {
                words.next();
            }
            continue;
        }
        command.push(word.clone());
    }
    command.extend(values.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]));
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn the_cases_of_interest_are_measured_again_and_the_noise_is_calibrated() {
        let all = steps(&example::comparison());
        let texts: Vec<String> = all.iter().map(|step| format!("{}\n{}", step.purpose, step.command.raw())).collect();
        insta::assert_snapshot!(texts.join("\n"), @"
        Measure 3 cases again, with 10 pairs:
        vllm-perf run --base image:public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo:7f42dc25b1f0c1a5e6d2a9b3c4d5e6f708192a3b-cpu --head image:public.ecr.aws/q9t5s3a7/vllm-ci-test-repo:1da94e6c0d2b7a8f9e1c3b5a7d9f0e2c4a6b8d0f-cpu --device cpu --only '^(serving_llama8B_tp2_sharegpt_qps_inf_concurrency_200|serving_llama8B_tp1_random_128_2048_qps_inf_concurrency_64|serving_llama8B_tp1_random_128_2048_qps_inf_concurrency_32)$' --pairs 10
        1 row is inconclusive and not calibrated: A/A runs of base on this machine make smaller changes detectable:
        vllm-perf calibrate --head image:public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo:7f42dc25b1f0c1a5e6d2a9b3c4d5e6f708192a3b-cpu --device cpu --only llama8B_tp1 --store STORE
        ");
    }

    #[test]
    fn a_variable_before_the_command_stays_one() {
        let mut comparison = example::comparison();
        let command = "VLLM_NO_USAGE_STATS=1 vllm-perf run --base local --head local --only 'a b'";
        comparison.subject.reproduce = Some(command.into());
        for Step { command, .. } in steps(&comparison) {
            assert!(command.raw().starts_with("VLLM_NO_USAGE_STATS=1 vllm-perf "), "{}", command.raw());
        }
    }

    #[test]
    fn without_a_command_or_an_open_case_there_is_nothing_to_do() {
        let mut comparison = example::comparison();
        comparison.rows.retain(|row| row.verdict == Verdict::Unchanged);
        assert_eq!(steps(&comparison), []);
        let mut unknown = example::comparison();
        unknown.subject.reproduce = None;
        assert_eq!(steps(&unknown), []);
    }
}
