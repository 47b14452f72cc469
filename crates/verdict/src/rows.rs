//! Compares repetitions: the rows, the overall rows, and the verdict of the report.

use std::collections::HashSet;

use crate::counts;
use crate::criteria::{Criterion, VerdictConfig};
use crate::explain;
use crate::input::Input;
use crate::metric;
use crate::noise::Noise;
use crate::problems;
use crate::repetition::{Measurement, Repetition, measurement};
use crate::rule::{self, Judged, JudgedOverall, JudgedRow, Numbers, Sample};
use crate::side::Side;
use crate::statistics::{hodges_lehmann, relative};
use crate::strategy::Strategy;
use crate::untrusted::Untrusted;
use crate::v1::{
    CaseFacts, Comparison, Conduct, Failed, Look, Method, OverallRow, RepetitionValue, Row, SCHEMA, Verdict,
};

/// The reason of an inconclusive row whose case ran in the screen alone.
const SCREENED: &str = "not repeated: the screening pass saw no change";

/// Compares the repetitions of base and head. Rows are in the order of the cases, and of `metric::ALL` within a case. A
/// metric that no repetition of either side has (TTFT of an embedding test) has no row; a case without any measurement has
/// its primary rows as `not measured`. Repetitions beyond those of the other side are not used.
pub fn compare(input: Input) -> Comparison {
    conducted(input, Conduct::default(), None)
}

/// [`compare`] for a run of vllm-perf. `screen` is the screening pass of base and head.
pub fn conducted(input: Input, conduct: Conduct, screen: Option<[Repetition; 2]>) -> Comparison {
    let Input { subject, mut cases, base, head, skipped, planned_pairs, seed, verdict, noise, looks } = input;
    let pairs = base.len().min(head.len());
    let paired = pairs > 1 && conduct.held.is_none();
    let looks = if paired { taken(looks, pairs as u32) } else { Vec::new() };
    let looks = if looks.is_empty() { vec![Look { pairs: pairs as u32, fdr: verdict.fdr }] } else { looks };
    let strategy = match looks.len() {
        _ if conduct.strategy == Strategy::Screen && conduct.held.is_none() => Strategy::Screen,
        _ if !paired => Strategy::Single,
        _ if conduct.strategy == Strategy::Sequential => Strategy::Sequential,
        1 => Strategy::Paired,
        _ => Strategy::Sequential,
    };
    let until = if paired { pairs } else { usize::MAX };
    let sides = [&base, &head].map(|side| &side[..side.len().min(until)]);
    let only_screened = conduct.screened();
    let screen_sides = screen.as_ref().map(|[base, head]| [std::slice::from_ref(base), std::slice::from_ref(head)]);
    let is_screened = |case: &CaseFacts| screen_sides.is_some() && only_screened.contains(&case.name);
    for case in &mut cases {
        let screen = screen_sides.filter(|_| is_screened(case));
        problems::add_all(case, screen.unwrap_or(sides));
    }
    let (screened, open): (Vec<&CaseFacts>, Vec<&CaseFacts>) = cases.iter().partition(|case| is_screened(case));
    let open: Vec<Draft<'_>> = open.into_iter().flat_map(|case| drafts_of(case, sides, &verdict, &noise)).collect();
    let of_screen = screen_sides.into_iter().flat_map(|sides| screened.iter().map(move |case| (*case, sides)));
    let screened: Vec<Draft<'_>> =
        of_screen.flat_map(|(case, sides)| drafts_of(case, sides, &verdict, &noise)).collect();
    let rate = looks.last().map_or(verdict.fdr, |look| look.fdr);
    let Rows { mut rows, overall, blocked, ratio, rho } = if paired {
        tested(&open, looks.len() as u32, rate)
    } else {
        let held = conduct.held.as_ref().map(Untrusted::raw);
        Rows { rows: untested(&open, held), ..Rows::default() }
    };
    rows.extend(untested(&screened, Some(SCREENED)));
    in_order_of(&cases, &mut rows);

    let counts = counts::count(&rows, &only_screened);
    let pairs = pairs as u32;
    Comparison {
        schema: SCHEMA.to_owned(),
        verdict: counts::of_report(&counts, &overall, rows.is_empty()),
        counts,
        subject,
        method: Method { strategy, pairs, planned_pairs, seed, fdr: verdict.fdr, looks, blocked, ratio, rho },
        cases,
        rows,
        overall,
        skipped,
        conduct,
    }
}

/// The looks that were taken with this number of pairs: none after the first one that includes all of them.
fn taken(planned: Vec<Look>, pairs: u32) -> Vec<Look> {
    let mut looks: Vec<Look> = Vec::new();
    for look in planned {
        if looks.last().is_some_and(|before| before.pairs >= pairs) {
            break;
        }
        looks.push(Look { pairs: look.pairs.min(pairs), ..look });
    }
    looks
}

/// A row before its verdict.
struct Draft<'a> {
    case: &'a CaseFacts,
    criterion: Criterion,
    sides: [&'a [Repetition]; 2],
    base: Vec<Option<RepetitionValue>>,
    head: Vec<Option<RepetitionValue>>,
    failed: Failed,
    calibrated: Option<f64>,
    aa_pairs: usize,
}

fn drafts_of<'a>(
    case: &'a CaseFacts,
    sides: [&'a [Repetition]; 2],
    config: &'a VerdictConfig,
    noise: &'a Noise,
) -> impl Iterator<Item = Draft<'a>> {
    let failed = problems::failed(case, sides);
    let ran = ran(case, sides);
    criteria_of(case, sides, config).map(move |criterion| {
        let id = criterion.metric.id;
        let [base, head] = sides.map(|side| {
            let values = side.iter().enumerate().filter(|(at, _)| ran.contains(at));
            values.map(|(_, repetition)| value(case, id, repetition)).collect()
        });
        let own = noise.own(case, id);
        let aa_pairs = noise.ratios(case, id).len();
        Draft { case, criterion, sides, base, head, failed, calibrated: own.map(|prior| prior.s0), aa_pairs }
    })
}

/// The pairs in which a case ran on a side. A case that was given up has no later ones.
fn ran(case: &CaseFacts, [base, head]: [&[Repetition]; 2]) -> HashSet<usize> {
    let has = |side: &[Repetition], at: usize| side.get(at).is_some_and(|one| one.contains_key(case.name.raw()));
    (0..base.len().max(head.len())).filter(|at| has(base, *at) || has(head, *at)).collect()
}

/// The value of a metric of a case in a repetition, with its slices where there are several. A negative one is none: no metric
/// can be.
fn value(case: &CaseFacts, metric: &str, repetition: &Repetition) -> Option<RepetitionValue> {
    let measurement = measurement(repetition, case.name.raw())?;
    let value = measurement.metrics.get(metric).copied().filter(|value| value.is_finite() && *value >= 0.0)?;
    let slices = measurement.slices.get(metric).cloned();
    Some(slices.map_or(RepetitionValue::One(value), RepetitionValue::Slices))
}

/// The metrics that have a row: those of any repetition, the primary ones that one should have and lacks, or all primary
/// ones if no repetition has a measurement.
fn criteria_of<'a>(
    case: &'a CaseFacts,
    [base, head]: [&'a [Repetition]; 2],
    config: &'a VerdictConfig,
) -> impl Iterator<Item = Criterion> + use<'a> {
    let measured: Vec<_> =
        base.iter().chain(head).filter_map(|repetition| measurement(repetition, case.name.raw())).collect();
    let is_measured = !measured.is_empty();
    let has = move |id: &str| {
        let is_missing = |measurement: &Measurement| measurement.missing.iter().any(|missing| missing == id);
        measured.iter().any(|measurement| measurement.metrics.contains_key(id) || is_missing(measurement))
    };
    let primary = config.primary_of(case, &has);
    metric::of(case.kind)
        .map(move |metric| Criterion::new(config, metric, primary.contains(&metric.id)))
        .filter(move |criterion| if is_measured { has(criterion.metric.id) } else { criterion.primary })
}

/// The rows and overall rows of a report, with what [`Method`] says of their noise.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    overall: Vec<OverallRow>,
    blocked: bool,
    ratio: Option<f64>,
    rho: f64,
}

/// The rows of pairs, as one family of tests.
fn tested(drafts: &[Draft<'_>], look: u32, fdr: f64) -> Rows {
    let samples: Vec<Sample<'_>> = drafts.iter().map(Draft::sample).collect();
    let Judged { rows: judged, overall, blocked, ratio, rho } = rule::judge(&samples, fdr);
    let overall = overall.iter().map(|row| overall_row(&drafts[row.members[0]], row, fdr)).collect();
    let row = |(draft, judged): (&Draft<'_>, &JudgedRow)| Row { look, ..draft.row(judged, fdr) };
    let rows = drafts.iter().zip(&judged).map(row).collect();
    Rows { rows, overall, blocked, ratio, rho }
}

/// The rows of values without a test, for the reason `held`, if there is one.
fn untested(drafts: &[Draft<'_>], held: Option<&str>) -> Vec<Row> {
    drafts
        .iter()
        .map(|draft| {
            let has_base = !draft.sides[0].is_empty();
            if draft.lacks(Side::Head) || (has_base && draft.lacks(Side::Base)) {
                return draft.blank(Verdict::NotMeasured, explain::missing(draft.case, &draft.criterion, draft.sides));
            }
            let why = match held {
                Some(held) => held.to_owned(),
                None if !has_base => "there is no base to compare with".to_owned(),
                None => explain::untested(&draft.base, &draft.head),
            };
            let row = draft.blank(Verdict::Inconclusive, why);
            let logs = |side| row.numbers(side).into_iter().map(f64::ln).collect::<Vec<f64>>();
            let (base, head) = (logs(Side::Base), logs(Side::Head));
            let finite = base.iter().chain(&head).all(|log| log.is_finite());
            Row { estimate: hodges_lehmann(&base, &head).filter(|_| finite).map(relative), ..row }
        })
        .collect()
}

impl Draft<'_> {
    fn sample(&self) -> Sample<'_> {
        Sample {
            kind: self.case.kind,
            metric: self.criterion.metric.id,
            direction: self.criterion.direction,
            min_effect: self.criterion.min_effect,
            primary: self.criterion.primary,
            base: &self.base,
            head: &self.head,
            failed: [self.failed.base, self.failed.head],
            calibrated: self.calibrated,
        }
    }

    fn side(&self, side: Side) -> &[Option<RepetitionValue>] {
        match side {
            Side::Base => &self.base,
            Side::Head => &self.head,
        }
    }

    fn lacks(&self, side: Side) -> bool {
        self.side(side).iter().all(Option::is_none)
    }

    /// One number for each repetition, where it has a value.
    fn shown(&self, side: Side) -> Vec<Option<f64>> {
        self.side(side).iter().map(|value| value.as_ref()?.shown()).collect()
    }

    fn row(&self, judged: &JudgedRow, fdr: f64) -> Row {
        let (base, head) = (self.shown(Side::Base), self.shown(Side::Head));
        let why = match (judged.verdict, &judged.numbers) {
            (Verdict::Failing, _) => explain::failing(self.case, self.failed, base.len().max(head.len())),
            (Verdict::NotMeasured, _) => explain::missing(self.case, &self.criterion, self.sides),
            (_, None) => explain::untested(&self.base, &self.head),
            (verdict, Some(numbers)) => {
                let survivors = verdict == Verdict::Inconclusive && self.failed.head > self.failed.base;
                let why = explain::tested(numbers, verdict, self.criterion.min_effect, fdr);
                if survivors { format!("head failed more often than base; {why}") } else { why }
            }
        };
        let holes = if judged.verdict == Verdict::Failing { String::new() } else { explain::holes(&base, &head) };
        let row = self.blank(judged.verdict, why + &holes);
        let prior = judged.prior;
        let has_prior = prior.weight > 0.0;
        let row = Row {
            s0: has_prior.then(|| (2.0 * prior.variance).sqrt()),
            n0: prior.weight,
            calibrated: self.calibrated.is_some() && judged.numbers.is_some(),
            ..row
        };
        match &judged.numbers {
            Some(numbers) => with_numbers(row, numbers),
            None => row,
        }
    }

    /// The row without any number but its values.
    fn blank(&self, verdict: Verdict, why: String) -> Row {
        let Criterion { metric, direction, min_effect, primary } = self.criterion;
        Row {
            direction,
            min_effect,
            primary,
            aa_pairs: self.aa_pairs,
            base: self.base.clone(),
            head: self.head.clone(),
            failed: self.failed,
            verdict,
            why: why.into(),
            ..Row::empty(&self.case.name, metric)
        }
    }
}

fn with_numbers(row: Row, numbers: &Numbers) -> Row {
    let test = &numbers.test;
    let (low, high) = test.interval(0.95);
    Row {
        estimate: Some(relative(test.estimate)),
        deviation: Some(test.deviation()),
        freedom: Some(test.freedom),
        low: Some(relative(low)),
        high: Some(relative(high)),
        p: Some(test.p()),
        q: numbers.q,
        detectable: numbers.detectable,
        needed: numbers.needed,
        ..row
    }
}

fn overall_row(first: &Draft<'_>, judged: &JudgedOverall, fdr: f64) -> OverallRow {
    let Criterion { metric, direction, min_effect, .. } = first.criterion;
    let (numbers, test) = (&judged.numbers, &judged.numbers.test);
    let (low, high) = test.interval(0.95);
    OverallRow {
        kind: first.case.kind,
        metric: metric.id.into(),
        label: metric.label.into(),
        direction,
        min_effect,
        cases: judged.members.len(),
        estimate: relative(test.estimate),
        deviation: test.deviation(),
        freedom: test.freedom,
        low: relative(low),
        high: relative(high),
        p: test.p(),
        q: numbers.q.unwrap_or(1.0),
        detectable: numbers.detectable.unwrap_or_default(),
        needed: numbers.needed,
        verdict: judged.verdict,
        why: explain::tested(numbers, judged.verdict, min_effect, fdr).into(),
    }
}

/// Sorts the rows by the order of the cases.
fn in_order_of(cases: &[CaseFacts], rows: &mut [Row]) {
    let order: std::collections::HashMap<&Untrusted, usize> =
        cases.iter().enumerate().map(|(at, case)| (&case.name, at)).collect();
    rows.sort_by_key(|row| order.get(&row.case).copied());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repetition::Outcome;

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
}
