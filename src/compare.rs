//! Results against results: rows, each with a verdict and the numbers behind it. Pure.

mod conduct;
mod rule;
pub mod upstream;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::config::{MinEffect, VerdictConfig};
use crate::device::Device;
use crate::event::Event;
use crate::metric::{self, Direction, Family};
use crate::plan::Side;
use crate::result::{Outcome, Repetition};
use crate::statistics;
use crate::strategy;
use crate::suite::{Case, Kind, MeasuredBy, Skipped};
use rule::{Draft, Evidence};

pub use crate::strategy::Strategy;
pub use conduct::{Conduct, PhaseTime, SideTime};
pub(crate) use rule::min_effect;

/// Schema of `comparison.json`.
pub const SCHEMA: &str = "vllm-perf/comparison/v1";

/// What may be said of a row or of a whole report. The order is that of importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Worse: significant after correction, and at least the minimum effect.
    Regressed,
    /// Either side has no value.
    #[serde(rename = "not measured")]
    NotMeasured,
    /// Better, by the same rule.
    Improved,
    /// The 90 % interval lies inside ±5 %.
    Unchanged,
    /// The runs cannot tell.
    Inconclusive,
}

impl Verdict {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regressed => "regressed",
            Self::NotMeasured => "not measured",
            Self::Improved => "improved",
            Self::Unchanged => "unchanged",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// Base against head: every row and every number behind it. The one input of every rendering.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The whole report's verdict.
    pub verdict: Verdict,
    /// Primary rows by verdict.
    pub counts: Counts,
    /// What was compared, where and how.
    pub subject: Subject,
    /// How verdicts were reached.
    pub method: Method,
    /// The cases, in the order of the plan.
    pub cases: Vec<CaseFacts>,
    /// One metric of one case each; a case's rows stand together.
    pub rows: Vec<Row>,
    /// Tests that were left out, and why.
    pub skipped: Vec<Skipped>,
    /// How the run was conducted; empty where folders are compared.
    #[serde(default)]
    pub conduct: Conduct,
}

/// Primary rows by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Worse.
    pub regressed: usize,
    /// Better.
    pub improved: usize,
    /// The same.
    pub unchanged: usize,
    /// Cannot tell.
    pub inconclusive: usize,
    /// Cannot tell either: run once, in a screen that saw nothing suspicious. Not among the inconclusive ones here.
    #[serde(default)]
    pub screened: usize,
    /// No value.
    pub not_measured: usize,
}

/// One metric of one case, base against head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Name of the case.
    pub case: String,
    /// Metric id.
    pub metric: String,
    /// Words for people.
    pub label: String,
    /// Unit of `base` and `head`.
    pub unit: String,
    /// Which way is better.
    pub direction: Direction,
    /// Which minimum effect applies.
    pub family: Family,
    /// Whether it may raise an alarm.
    pub primary: bool,
    /// One value a repetition.
    pub base: Vec<f64>,
    /// One value a repetition.
    pub head: Vec<f64>,
    /// Relative change, Hodges-Lehmann: 0.05 is +5 %.
    pub estimate: Option<f64>,
    /// Lower end of the 95 % interval of the relative change.
    pub low: Option<f64>,
    /// Upper end of the 95 % interval of the relative change.
    pub high: Option<f64>,
    /// Two-sided p value.
    pub p: Option<f64>,
    /// Benjamini-Hochberg adjusted p value; primary rows only.
    pub q: Option<f64>,
    /// Smallest relative change that this row would have shown with 80 % power.
    pub detectable: Option<f64>,
    /// What may be said.
    pub verdict: Verdict,
    /// One sentence: why.
    pub why: String,
}

/// What is known of a case, for its label and its chart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFacts {
    /// Unique name.
    pub name: String,
    /// What it measures.
    pub kind: Kind,
    /// Name of the test that it comes from.
    pub test: String,
    /// Model.
    pub model: String,
    /// Request rate as text (`inf`), serving only.
    pub request_rate: Option<String>,
    /// Concurrency, serving only.
    pub max_concurrency: Option<u64>,
    /// Who measured it.
    pub measured_by: MeasuredBy,
    /// Why a side has no value, where one has none.
    pub problems: Vec<Problem>,
}

impl From<&Case> for CaseFacts {
    fn from(case: &Case) -> Self {
        Self {
            name: case.name.clone(),
            kind: case.kind,
            test: case.test.clone(),
            model: case.model.clone(),
            request_rate: case.request_rate.clone(),
            max_concurrency: case.max_concurrency,
            measured_by: case.measured_by,
            problems: Vec::new(),
        }
    }
}

/// Why a side has no value for a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// Which side.
    pub side: Side,
    /// Which repetition, from 1.
    pub repetition: u32,
    /// What went wrong.
    pub reason: String,
}

/// How verdicts were reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// How the runs turned out to be arranged.
    pub strategy: Strategy,
    /// Repetitions a side that were run.
    pub pairs: u32,
    /// Repetitions a side that were planned.
    pub planned_pairs: u32,
    /// Seed of the order inside each pair.
    pub seed: u64,
    /// False discovery rate over the primary rows.
    pub fdr: f64,
    /// Smallest effects that count.
    pub min_effect: MinEffect,
}

/// What was compared, where and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Version of vllm-perf.
    pub version: String,
    /// What happened; absent when two folders are compared.
    pub event: Option<Event>,
    /// What was measured on, where it is known.
    pub device: Option<Device>,
    /// What base was.
    pub base: Option<SideFacts>,
    /// What head was.
    pub head: Option<SideFacts>,
    /// The machine, where it is known.
    pub host: Option<Host>,
    /// When the run began, RFC 3339 in UTC.
    pub started: Option<String>,
    /// How long it took, in seconds.
    pub seconds: Option<f64>,
    /// One command that measures this again.
    pub reproduce: Option<String>,
}

/// What a side was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SideFacts {
    /// The target or the folder, as the user would write it.
    pub target: String,
    /// The commit that it stands for.
    pub commit: Option<String>,
    /// Digest of the image that ran.
    pub image_digest: Option<String>,
    /// Version that vLLM itself reports.
    pub vllm_version: Option<String>,
    /// Words that were appended to the server command.
    pub server_args: Vec<String>,
}

/// The machine that measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Processor model.
    pub cpu: String,
    /// Logical processors.
    pub cores: u32,
    /// Memory in GiB.
    pub memory_gib: f64,
    /// NUMA nodes.
    pub numa_nodes: u32,
    /// Kernel release.
    pub kernel: String,
    /// Frequency governor, where it can be read.
    pub governor: Option<String>,
}

/// What [`compare`] needs: what was measured on both sides, and what is known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// What is compared, where and how.
    pub subject: Subject,
    /// The cases, in the order of the plan.
    pub cases: Vec<CaseFacts>,
    /// Repetitions of base in order; none where there is no base.
    pub base: Vec<Repetition>,
    /// Repetitions of head in order.
    pub head: Vec<Repetition>,
    /// Tests that were left out, and why.
    pub skipped: Vec<Skipped>,
    /// Repetitions a side that were planned.
    pub planned_pairs: u32,
    /// Seed of the order inside each pair.
    pub seed: u64,
    /// When a change is called one.
    pub verdict: VerdictConfig,
}

/// Compares what was measured. Rows stand in the order of the cases, and of `metric::ALL` within a case. A metric that
/// no repetition of either side has (TTFT of an embedding test) has no row; a case that nobody could measure has its
/// primary rows, `not measured`.
pub fn compare(input: Input) -> Comparison {
    conducted(input, Conduct::default(), None)
}

/// [`compare`] for a run of ours. `screen` is the one pass that a screen gave, base and head.
pub fn conducted(input: Input, conduct: Conduct, screen: Option<[Repetition; 2]>) -> Comparison {
    let Input { subject, mut cases, base, head, skipped, planned_pairs, seed, verdict } = input;
    let [screen_base, screen_head] = match screen {
        Some([base, head]) => [vec![base], vec![head]],
        None => [Vec::new(), Vec::new()],
    };
    let in_pairs = base.len() == head.len() && base.len() > 1;
    let strategy = match conduct.strategy {
        Strategy::Screen => Strategy::Screen,
        asked if in_pairs && conduct.held.is_none() => asked,
        _ => Strategy::Single,
    };
    // What a case has: the pairs in which it ran, or its only pass.
    let of_case = |case: &CaseFacts| -> (&[Repetition], &[Repetition]) {
        if conduct.is_screened(&case.name) {
            return (&screen_base, &screen_head);
        }
        let ran = |all: &[Repetition]| match conduct.first_look {
            Some(first) if !all.iter().skip(first as usize).any(|later| later.contains_key(&case.name)) => {
                all.len().min(first as usize)
            }
            _ => all.len(),
        };
        (&base[..ran(&base)], &head[..ran(&head)])
    };
    for case in &mut cases {
        let (base, head) = of_case(case);
        add_problems(case, Side::Base, base);
        add_problems(case, Side::Head, head);
    }
    let rows = match conduct.first_look.map(|first| (first as usize, strategy::looks(verdict.fdr))) {
        // Each look has its share of the rate. What the first one decided stays decided, with the numbers that it saw.
        Some((first, [fdr, later_fdr])) => {
            let early = |all| -> &[Repetition] { first_of(all, first) };
            let sides = |case: &CaseFacts| (early(of_case(case).0), early(of_case(case).1));
            let mut rows = judge(&cases, sides, &conduct, &VerdictConfig { fdr, ..verdict.clone() }, |_| true);
            let open = |row: &Row| row.verdict == Verdict::Inconclusive || row.verdict == Verdict::NotMeasured;
            let went_on = |row: &Row| {
                let case = cases.iter().find(|case| case.name == row.case);
                case.is_some_and(|case| of_case(case).1.len() > first || of_case(case).0.len() > first)
            };
            let again: HashSet<(String, String)> = rows
                .iter()
                .filter(|row| open(row) && went_on(row))
                .map(|row| (row.case.clone(), row.metric.clone()))
                .collect();
            let asked = |draft: &Draft| again.contains(&(draft.case.name.clone(), draft.metric.id.to_owned()));
            let config = VerdictConfig { fdr: later_fdr, ..verdict.clone() };
            for row in judge(&cases, of_case, &conduct, &config, asked) {
                let known = rows.iter_mut().find(|known| (&known.case, &known.metric) == (&row.case, &row.metric));
                if let Some(known) = known {
                    *known = row;
                }
            }
            rows
        }
        None => judge(&cases, of_case, &conduct, &verdict, |_| true),
    };

    let counts = count(&rows, &conduct);
    Comparison {
        schema: SCHEMA.to_owned(),
        verdict: overall(&counts, rows.is_empty()),
        counts,
        subject,
        method: Method {
            strategy,
            pairs: base.len().min(head.len()) as u32,
            planned_pairs,
            seed,
            fdr: verdict.fdr,
            min_effect: verdict.min_effect,
        },
        cases,
        rows,
        skipped,
        conduct,
    }
}

fn first_of(all: &[Repetition], first: usize) -> &[Repetition] {
    &all[..all.len().min(first)]
}

/// The rows of one look at the repetitions that `of_case` gives, of the drafts that `asked` keeps. The correction is over
/// those alone.
fn judge<'a>(
    cases: &'a [CaseFacts],
    of_case: impl Fn(&CaseFacts) -> (&'a [Repetition], &'a [Repetition]),
    conduct: &Conduct,
    verdict: &VerdictConfig,
    asked: impl Fn(&Draft) -> bool,
) -> Vec<Row> {
    let mut drafts: Vec<Draft> = Vec::new();
    for case in cases {
        let (base, head) = of_case(case);
        let held = match conduct.is_screened(&case.name) {
            true => Some("the screen ran it once a side and saw nothing suspicious, so it was not repeated"),
            false => conduct.held.as_deref(),
        };
        for metric in rows_of(case, base, head) {
            let mut draft = Draft::new(case, metric, base, head);
            if let (Some(held), Evidence::Tested(_) | Evidence::Single(_)) = (held, &draft.evidence) {
                draft.evidence = Evidence::Single(held.to_owned());
            }
            drafts.push(draft);
        }
    }
    drafts.retain(asked);

    let tested = |draft: &Draft| match draft.evidence {
        Evidence::Tested(shift) if draft.metric.primary => Some(shift.p()),
        _ => None,
    };
    let mut adjusted =
        statistics::benjamini_hochberg(&drafts.iter().filter_map(tested).collect::<Vec<_>>()).into_iter();
    drafts
        .into_iter()
        .map(|draft| {
            let q = tested(&draft).and_then(|_| adjusted.next());
            rule::judge(draft, q, verdict)
        })
        .collect()
}

/// The metrics that have a row: those that any repetition measured, or the primary ones where none measured anything.
fn rows_of<'a>(
    case: &'a CaseFacts,
    base: &'a [Repetition],
    head: &'a [Repetition],
) -> impl Iterator<Item = &'static metric::Metric> {
    let measured: Vec<_> = base
        .iter()
        .chain(head)
        .filter_map(|repetition| match repetition.get(&case.name) {
            Some(Outcome::Measured(measurement)) => Some(measurement),
            _ => None,
        })
        .collect();
    metric::of(case.kind).filter(move |metric| {
        if measured.is_empty() {
            return metric.primary;
        }
        measured.iter().any(|measurement| measurement.metrics.contains_key(metric.id))
    })
}

/// Adds why repetitions of a side have no value, where the case does not tell yet.
fn add_problems(case: &mut CaseFacts, side: Side, repetitions: &[Repetition]) {
    for (number, repetition) in (1..).zip(repetitions) {
        let reason = match repetition.get(&case.name) {
            Some(Outcome::Measured(_)) => continue,
            Some(Outcome::Failed(reason)) => reason.clone(),
            None => "there is no result".to_owned(),
        };
        if !case.problems.iter().any(|known| (known.side, known.repetition) == (side, number)) {
            case.problems.push(Problem { side, repetition: number, reason });
        }
    }
}

fn count(rows: &[Row], conduct: &Conduct) -> Counts {
    let screened = |row: &Row| row.verdict == Verdict::Inconclusive && conduct.is_screened(&row.case);
    let of =
        |verdict: Verdict| rows.iter().filter(|row| row.primary && row.verdict == verdict && !screened(row)).count();
    Counts {
        screened: rows.iter().filter(|row| row.primary && screened(row)).count(),
        regressed: of(Verdict::Regressed),
        improved: of(Verdict::Improved),
        unchanged: of(Verdict::Unchanged),
        inconclusive: of(Verdict::Inconclusive),
        not_measured: of(Verdict::NotMeasured),
    }
}

/// The report's verdict is the worst that is certain. One regression is a regression whatever else happened; a hole in
/// the measurement may hide one, so it comes before good news; one improvement is news although other rows are
/// undecided; and `unchanged` claims something about every row, so a single undecided row makes it `inconclusive`.
/// Where only secondary metrics were measured (embedding tests) nothing may be said; without any row nothing was
/// measured.
fn overall(counts: &Counts, no_rows: bool) -> Verdict {
    match counts {
        Counts { regressed: 1.., .. } => Verdict::Regressed,
        Counts { not_measured: 1.., .. } => Verdict::NotMeasured,
        Counts { improved: 1.., .. } => Verdict::Improved,
        Counts { inconclusive: 1.., .. } | Counts { screened: 1.., .. } => Verdict::Inconclusive,
        Counts { unchanged: 1.., .. } => Verdict::Unchanged,
        _ if no_rows => Verdict::NotMeasured,
        _ => Verdict::Inconclusive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_of_a_report_is_the_worst_that_is_certain() {
        let mut counts =
            Counts { regressed: 1, improved: 1, unchanged: 1, inconclusive: 1, not_measured: 1, screened: 0 };
        let mut verdicts = vec![overall(&counts, false)];
        counts.regressed = 0;
        verdicts.push(overall(&counts, false));
        counts.not_measured = 0;
        verdicts.push(overall(&counts, false));
        counts.improved = 0;
        verdicts.push(overall(&counts, false));
        counts.inconclusive = 0;
        verdicts.push(overall(&counts, false));
        use Verdict::{Improved, Inconclusive, NotMeasured, Regressed, Unchanged};
        assert_eq!(verdicts, [Regressed, NotMeasured, Improved, Inconclusive, Unchanged]);
    }

    #[test]
    fn without_primary_rows_nothing_is_said_and_without_rows_nothing_was_measured() {
        assert_eq!(overall(&Counts::default(), false), Verdict::Inconclusive);
        assert_eq!(overall(&Counts::default(), true), Verdict::NotMeasured);
    }
}
