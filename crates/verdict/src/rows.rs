//! Compares repetitions: the rows, and the verdicts of cases and reports.

use std::collections::{HashMap, HashSet};

use crate::criteria::VerdictConfig;
use crate::input::Input;
use crate::metric::{self, Metric};
use crate::noise::{self, Noise, NoiseEstimate};
use crate::repetition::{Measurement, Outcome, Repetition, measurement};
use crate::rule::{self, Criterion, Draft, Evidence};
use crate::side::Side;
use crate::statistics;
use crate::strategy::Strategy;
use crate::untrusted::Untrusted;
use crate::v1::{CaseFacts, Comparison, Conduct, Counts, Look, Method, Problem, Row, SCHEMA, Verdict};

/// The reason of an inconclusive row whose case ran in the screen alone.
const SCREENED: &str = "not repeated: the screening pass saw no change";

/// Compares the repetitions of base and head. Rows are in the order of the cases, and of `metric::ALL` within a case. A
/// metric that no repetition of either side has (TTFT of an embedding test) has no row; a case without any measurement has
/// its primary rows as `not measured`.
pub fn compare(input: Input) -> Comparison {
    conducted(input, Conduct::default(), None)
}

/// [`compare`] for a run of vllm-perf. `screen` is the screening pass of base and head.
pub fn conducted(input: Input, conduct: Conduct, screen: Option<[Repetition; 2]>) -> Comparison {
    let Input { subject, mut cases, base, head, skipped, planned_pairs, seed, verdict, noise, looks } = input;
    let pairs = base.len().min(head.len()) as u32;
    let paired = base.len() == head.len() && base.len() > 1 && conduct.held.is_none();
    let looks = if paired { possible(looks, pairs) } else { Vec::new() };
    let looks = if looks.is_empty() { vec![Look { pairs, fdr: verdict.fdr }] } else { looks };
    let strategy = match looks.len() {
        _ if conduct.strategy == Strategy::Screen && conduct.held.is_none() => Strategy::Screen,
        _ if !paired => Strategy::Single,
        1 => Strategy::Paired,
        _ => Strategy::Sequential,
    };

    let mut judged: HashMap<Untrusted, Vec<Row>> = HashMap::new();
    let mut keep = |rows: Vec<Row>, number: u32, of: &HashSet<Untrusted>| {
        judged.retain(|case, _| !of.contains(case));
        for row in rows {
            judged.entry(row.case.clone()).or_default().push(Row { look: number, ..row });
        }
        let undecided = judged.iter().filter(|(_, rows)| is_undecided(rows));
        undecided.map(|(case, _)| case.clone()).collect::<HashSet<Untrusted>>()
    };
    let all = cases.iter().map(|case| case.name.clone());
    let only_screened = conduct.screened();
    let (screened, mut open): (HashSet<Untrusted>, HashSet<Untrusted>) =
        all.partition(|case| only_screened.contains(case));
    if let Some([base, head]) = screen.as_ref().filter(|_| !screened.is_empty()) {
        let sides = [std::slice::from_ref(base), std::slice::from_ref(head)];
        add_all_problems(&mut cases, &screened, sides);
        keep(judge(&cases, &screened, sides, &verdict, &noise, Some(SCREENED)), 1, &screened);
    }
    for (number, look) in (1..).zip(&looks) {
        let until = if paired { look.pairs as usize } else { usize::MAX };
        let sides = [&base, &head].map(|side| &side[..side.len().min(until)]);
        add_all_problems(&mut cases, &open, sides);
        let config = VerdictConfig { fdr: look.fdr, ..verdict.clone() };
        let rows = judge(&cases, &open, sides, &config, &noise, conduct.held.as_ref().map(Untrusted::raw));
        let undecided = keep(rows, number, &open);
        open.retain(|case| undecided.contains(case));
    }
    let rows: Vec<Row> = cases.iter().filter_map(|case| judged.remove(&case.name)).flatten().collect();

    let counts = count(&rows, &conduct);
    Comparison {
        schema: SCHEMA.to_owned(),
        verdict: overall(&counts, rows.is_empty()),
        counts,
        subject,
        method: Method { strategy, pairs, planned_pairs, seed, fdr: looks.iter().map(|look| look.fdr).sum(), looks },
        cases,
        rows,
        skipped,
        conduct,
    }
}

/// The cases that are still `inconclusive`, in order.
pub fn undecided(comparison: &Comparison) -> Vec<&str> {
    let of_cases = comparison.rows.chunk_by(|a, b| a.case == b.case);
    of_cases.filter(|rows| is_undecided(rows)).map(|rows| rows[0].case.raw()).collect()
}

/// The looks that are possible with this number of pairs: none after the first one that includes all of them.
fn possible(planned: Vec<Look>, pairs: u32) -> Vec<Look> {
    let mut looks: Vec<Look> = Vec::new();
    for look in planned {
        if looks.last().is_some_and(|before| before.pairs >= pairs) {
            break;
        }
        looks.push(Look { pairs: look.pairs.min(pairs), ..look });
    }
    looks
}

/// The rows of the open cases with their verdicts, as one family of tests. With `held`, nothing is tested, and `held` is
/// the reason.
fn judge(
    cases: &[CaseFacts],
    open: &HashSet<Untrusted>,
    [base, head]: [&[Repetition]; 2],
    config: &VerdictConfig,
    noise: &Noise,
    held: Option<&str>,
) -> Vec<Row> {
    let mut pooled: HashMap<&str, NoiseEstimate> = HashMap::new();
    let mut known = |case: &CaseFacts, metric: &'static Metric| {
        noise.own(case, metric.id).unwrap_or_else(|| {
            *pooled.entry(metric.id).or_insert_with(|| {
                let own = cases.iter().flat_map(|case| noise::centred_ratios(case, metric.id, base, head));
                noise.pooled(metric.id, cases, own.collect())
            })
        })
    };
    let drafts: Vec<Draft> = cases
        .iter()
        .filter(|case| open.contains(&case.name))
        .flat_map(|case| rows_of(case, base, head, config).map(move |criterion| (case, criterion)))
        .map(|(case, criterion)| Draft::new(case, criterion, base, head, known(case, criterion.metric)))
        .map(|draft| match held {
            Some(held) => draft.held(held),
            None => draft,
        })
        .collect();

    let tested = |draft: &Draft| match draft.evidence {
        Evidence::Tested(shift) if draft.criterion.primary => Some(shift.p()),
        _ => None,
    };
    let p: Vec<f64> = drafts.iter().filter_map(tested).collect();
    let mut adjusted = statistics::benjamini_hochberg(&p).into_iter();
    let judged = |draft: Draft| {
        let q = tested(&draft).and_then(|_| adjusted.next());
        rule::judge(draft, q, p.len(), config.fdr)
    };
    drafts.into_iter().map(judged).collect()
}

/// The metrics that have a row: those of any repetition, the primary ones that one should have and lacks, or all primary
/// ones if no repetition has a measurement.
fn rows_of<'a>(
    case: &'a CaseFacts,
    base: &'a [Repetition],
    head: &'a [Repetition],
    config: &'a VerdictConfig,
) -> impl Iterator<Item = Criterion> {
    let measured: Vec<_> =
        base.iter().chain(head).filter_map(|repetition| measurement(repetition, case.name.raw())).collect();
    metric::of(case.kind).map(|metric| Criterion::new(config, case.name.raw(), metric)).filter(move |criterion| {
        if measured.is_empty() {
            return criterion.primary;
        }
        let id = criterion.metric.id;
        let is_missing = |measurement: &Measurement| measurement.missing.iter().any(|missing| missing == id);
        measured.iter().any(|measurement| measurement.metrics.contains_key(id) || is_missing(measurement))
    })
}

/// Adds the failures of the repetitions of a side, and their warnings, unless the case already lists them.
pub(super) fn add_problems(case: &mut CaseFacts, side: Side, repetitions: &[Repetition]) {
    for (number, repetition) in (1..).zip(repetitions) {
        let reason = match repetition.get(case.name.raw()) {
            Some(Outcome::Measured(measurement)) => {
                for reason in &measurement.warnings {
                    let warning = Problem { side, repetition: number, reason: reason.as_str().into() };
                    if !case.warnings.contains(&warning) {
                        case.warnings.push(warning);
                    }
                }
                continue;
            }
            Some(Outcome::Failed(reason)) => reason.as_str(),
            None => "there is no result",
        };
        if !case.problems.iter().any(|known| (known.side, known.repetition) == (side, number)) {
            case.problems.push(Problem { side, repetition: number, reason: reason.into() });
        }
    }
}

fn add_all_problems(cases: &mut [CaseFacts], of: &HashSet<Untrusted>, [base, head]: [&[Repetition]; 2]) {
    for case in cases.iter_mut().filter(|case| of.contains(&case.name)) {
        add_problems(case, Side::Base, base);
        add_problems(case, Side::Head, head);
        add_other_work(case, [base, head]);
    }
}

/// Output tokens of the sides that differ by a larger share are different amounts of work.
const SAME_WORK: f64 = 0.01;

/// Adds a warning where the answers of the sides have different numbers of tokens: rates and times are then those of
/// different work.
fn add_other_work(case: &mut CaseFacts, [base, head]: [&[Repetition]; 2]) {
    let of = |side: &[Repetition]| {
        let tokens = side.iter().filter_map(|repetition| measurement(repetition, case.name.raw())?.output_tokens);
        let tokens: Vec<f64> = tokens.map(|tokens| tokens as f64).collect();
        statistics::mean(&tokens)
    };
    let (Some(base), Some(head)) = (of(base), of(head)) else { return };
    if (base - head).abs() <= SAME_WORK * base.max(head) {
        return;
    }
    let reason = format!(
        "its answers have {head:.0} tokens on average over the repetitions, those of base {base:.0}: the sides did different work"
    );
    let warning = Problem { side: Side::Head, repetition: 1, reason: reason.into() };
    if !case.warnings.contains(&warning) {
        case.warnings.push(warning);
    }
}

/// Primary rows by verdict.
pub(super) fn count(rows: &[Row], conduct: &Conduct) -> Counts {
    let only_screened = conduct.screened();
    let screened = |row: &Row| row.verdict == Verdict::Inconclusive && only_screened.contains(&row.case);
    let primary = || rows.iter().filter(|row| row.primary);
    let of = |verdict: Verdict| primary().filter(|row| row.verdict == verdict && !screened(row)).count();
    Counts {
        screened: primary().filter(|row| screened(row)).count(),
        regressed: of(Verdict::Regressed),
        improved: of(Verdict::Improved),
        unchanged: of(Verdict::Unchanged),
        inconclusive: of(Verdict::Inconclusive),
        not_measured: of(Verdict::NotMeasured),
    }
}

/// Whether more pairs could decide a case.
fn is_undecided(rows: &[Row]) -> bool {
    let counts = count(rows, &Conduct::default());
    counts.inconclusive > 0 && overall(&counts, false) == Verdict::Inconclusive
}

/// The verdict of a report, by precedence: one regressed row makes it `regressed`; else one row that was not measured makes
/// it `not measured`, because it may hide a regression; else one improved row makes it `improved`, although other rows may
/// be inconclusive; else one inconclusive row makes it `inconclusive`, because `unchanged` is a statement about every row.
/// With secondary rows alone (embedding tests) it is `inconclusive`; without any row it is `not measured`.
pub(super) fn overall(counts: &Counts, no_rows: bool) -> Verdict {
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
    fn the_verdict_of_a_report_follows_the_precedence_of_its_rows() {
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
    fn a_metric_that_a_result_lacks_loses_its_own_row_alone() {
        let case = CaseFacts::named("latency_a", crate::case::Kind::Latency);
        let repetition = |missing: &[&str]| -> Repetition {
            let values = [("median_latency", 1.0), ("p99_latency", 2.0)];
            let metrics = values.into_iter().filter(|(id, _)| !missing.contains(id));
            let metrics = metrics.map(|(id, value)| (id.to_owned(), value)).collect();
            let missing = missing.iter().map(|id| (*id).to_owned()).collect();
            let measurement = Measurement { missing, ..Measurement::new(case.kind, metrics) };
            [("latency_a".to_owned(), Outcome::Measured(measurement))].into_iter().collect()
        };
        for (base, head, why) in [
            (vec!["median_latency"], vec!["median_latency"], "head has no value"),
            (vec!["median_latency"], vec![], "base has no value"),
            (vec![], vec!["median_latency"], "head has no value"),
        ] {
            let compared = compare(Input {
                subject: crate::v1::Subject::default(),
                cases: vec![case.clone()],
                base: vec![repetition(&base), repetition(&base)],
                head: vec![repetition(&head), repetition(&head)],
                skipped: Vec::new(),
                planned_pairs: 2,
                seed: 0,
                verdict: VerdictConfig::default(),
                noise: Noise::default(),
                looks: Vec::new(),
            });
            let row = &compared.rows[0];
            assert_eq!((row.metric.raw(), row.verdict), ("median_latency", Verdict::NotMeasured));
            assert!(row.why.raw().starts_with(why) && row.why.raw().contains("`median_latency` is missing"), "{row:?}");
            assert_ne!(compared.rows[1].verdict, Verdict::NotMeasured);
        }
    }

    #[test]
    fn answers_of_different_lengths_are_told_as_different_work() {
        let warnings = |base: [u64; 2], head: [u64; 2]| {
            let mut case = CaseFacts::named("serving_a", crate::case::Kind::Serving);
            let side = |tokens: [u64; 2]| {
                tokens.map(|tokens| -> Repetition {
                    let measured = Measurement {
                        output_tokens: Some(tokens),
                        ..Measurement::new(case.kind, [("output_throughput".to_owned(), 1.0)].into_iter().collect())
                    };
                    [("serving_a".to_owned(), Outcome::Measured(measured))].into_iter().collect()
                })
            };
            let (base, head) = (side(base), side(head));
            for _ in 0..2 {
                add_other_work(&mut case, [&base, &head]);
            }
            case.warnings.iter().map(|warning| warning.reason.raw().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(warnings([256, 256], [256, 255]), Vec::<String>::new());
        let expected = "its answers have 64 tokens on average over the repetitions, those of base 256: the sides did different work";
        assert_eq!(warnings([256, 256], [64, 64]), [expected]);
    }

    #[test]
    fn a_report_without_primary_rows_is_inconclusive_and_one_without_rows_is_not_measured() {
        assert_eq!(overall(&Counts::default(), false), Verdict::Inconclusive);
        assert_eq!(overall(&Counts::default(), true), Verdict::NotMeasured);
    }
}
