//! Upstream's `benchmark_results.json` as a comparison of single runs: two files, or the parallel layouts of one. Rows are
//! matched as upstream's compare script matches them: by what was measured, not by the name of the test.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, anyhow};
use indexmap::IndexMap;
use vllm_verdict::case::Kind;
use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::noise::Noise;
use vllm_verdict::repetition::{Measurement, Outcome, Repetition};
use vllm_verdict::statistics::mean;
use vllm_verdict::v1::{CaseFacts, Comparison, Skipped, Subject};
use vllm_verdict::{Input, compare};

use crate::exit::Classify;
use crate::result::case_files::kind_of;
use crate::result::identity;
use crate::result::upstream_table::{self, Cell, METRICS, Record, TEST_NAME};

/// The columns that identify a serving row, of those that both files have; without any of them the test's name does.
const KEY: [&str; 6] = ["Model", "Dataset Name", "Input Len", "Output Len", "# of max concurrency.", "qps"];

/// Most rows that are named as left out.
const MOST_BROKEN: usize = 100;

/// The columns of the parallel layout. They identify a row where a file has several.
const LAYOUT: [&str; 2] = ["TP Size", "PP Size"];

/// The columns that rows of one key must have in common to be compared.
const ALIKE: [&str; 3] = ["TP Size", "PP Size", "GPU"];

/// Compares the texts of two `benchmark_results.json`. Each file is one unpaired run, so every row is `inconclusive`,
/// with its values and its change. Rows with the same key are averaged; a row of one file alone is `not measured`, as are rows
/// of different layouts or devices.
///
/// # Errors
/// The user's mistake: a text that is not such a file.
pub fn compare_tables(base: &str, head: &str, subject: Subject, verdict: VerdictConfig) -> anyhow::Result<Comparison> {
    let base = upstream_table::read(base).context("cannot read base's benchmark_results.json").mistake()?;
    let head = upstream_table::read(head).context("cannot read head's benchmark_results.json").mistake()?;
    let skipped = [("base", base.broken), ("head", head.broken)].into_iter().flat_map(|(side, broken)| {
        broken.into_iter().map(move |(row, why)| Skipped::invalid(format!("{row} of {side}"), why))
    });
    let skipped = skipped.take(MOST_BROKEN).collect();
    let (base, head) = (base.records, head.records);
    let mut key = key_columns(&[&base, &head]);
    if [&base, &head].into_iter().any(|file| has_several_layouts(file)) {
        key.extend(LAYOUT);
    }
    Ok(Comparison { skipped, ..compare_records(&base, &head, subject, verdict, &key, &ALIKE) })
}

fn has_several_layouts(file: &[Record]) -> bool {
    let layout = |record: &Record| LAYOUT.map(|column| text(record, column));
    let layouts: BTreeSet<_> = file.iter().map(layout).filter(|layout| layout.iter().any(Option::is_some)).collect();
    layouts.len() > 1
}

fn text(record: &Record, column: &str) -> Option<String> {
    record.get(column).and_then(Option::as_ref).map(Cell::to_string)
}

/// Compares the parallel layouts that one `benchmark_results.json` holds: the serving rows of the smallest tensor and
/// pipeline parallel size as base, against those of each other one. `subject` gets the names of both.
///
/// # Errors
/// The user's mistake: a text that is not such a file, or one with fewer than two layouts.
pub fn compare_layouts(
    text: &str,
    subject: impl Fn([&str; 2]) -> Subject,
    verdict: &VerdictConfig,
) -> anyhow::Result<Vec<Comparison>> {
    let mut layouts: BTreeMap<(i64, i64), Vec<Record>> = BTreeMap::new();
    for record in upstream_table::read(text).context("cannot read the benchmark_results.json").mistake()?.records {
        let size = |column: &str| match record.get(column) {
            Some(Some(Cell::Integer(size))) => Some(*size),
            Some(Some(Cell::Float(size))) => Some(*size as i64),
            _ => None,
        };
        if let Some(tensor) = size("TP Size") {
            layouts.entry((tensor, size("PP Size").unwrap_or(1))).or_default().push(record);
        }
    }
    let mut layouts =
        layouts.into_iter().map(|((tensor, pipeline), rows)| (format!("TP {tensor} x PP {pipeline}"), rows));
    let (Some((first, base)), others) = (layouts.next(), layouts.collect::<Vec<_>>()) else {
        return Err(anyhow!("no row has a `TP Size`: give two files to compare")).mistake();
    };
    if others.is_empty() {
        return Err(anyhow!("every row has the layout {first}: give two files to compare, or one with several"))
            .mistake();
    }
    let compared = |(layout, head): (String, Vec<Record>)| {
        let key = key_columns(&[&base, &head]);
        compare_records(&base, &head, subject([&first, &layout]), verdict.clone(), &key, &["GPU"])
    };
    Ok(others.into_iter().map(compared).collect())
}

fn compare_records(
    base: &[Record],
    head: &[Record],
    subject: Subject,
    verdict: VerdictConfig,
    key: &[&str],
    alike: &[&str],
) -> Comparison {
    let mut names = IndexMap::new();
    let unlike = unlike(base, head, key, alike);
    let (base, head) = (repetition(base, key, &mut names), repetition(head, key, &mut names));
    let unlike =
        unlike.into_iter().filter_map(|(id, difference)| Some((names.get(&id)?.clone(), difference))).collect();
    let mut base = vec![base];
    identity::keep_apart(&mut base, &unlike);
    let cases = names
        .into_values()
        .filter_map(|name| {
            let kind = kind_of(&name)?;
            Some(CaseFacts::named(&name, kind))
        })
        .collect();
    compare(Input {
        subject,
        cases,
        base,
        head: vec![head],
        skipped: Vec::new(),
        planned_pairs: 1,
        seed: 0,
        verdict,
        noise: Noise::default(),
        looks: Vec::new(),
    })
}

fn key_columns(files: &[&[Record]]) -> Vec<&'static str> {
    let has = |file: &&[Record], column: &str| file.iter().any(|record| matches!(record.get(column), Some(Some(_))));
    KEY.into_iter().filter(|column| files.iter().all(|file| has(file, column))).collect()
}

/// What identifies a row: its values in the key's columns, or the name of its test.
fn id_of(record: &Record, key: &[&str]) -> Option<(Kind, String)> {
    let test = text(record, TEST_NAME)?;
    let kind = kind_of(&test)?;
    let parts: Vec<String> = key.iter().filter_map(|column| text(record, column)).collect();
    Some((kind, if kind == Kind::Serving && !parts.is_empty() { parts.join(" ") } else { test }))
}

/// By key, the values of a file in each of some columns.
type Values = BTreeMap<String, Vec<BTreeSet<String>>>;

fn values(file: &[Record], key: &[&str], columns: &[&str]) -> Values {
    let mut values = Values::new();
    for record in file {
        let Some((_, id)) = id_of(record, key) else { continue };
        let known = values.entry(id).or_insert_with(|| vec![BTreeSet::new(); columns.len()]);
        for (known, column) in known.iter_mut().zip(columns) {
            known.extend(text(record, column));
        }
    }
    values
}

/// The keys whose rows in the two files differ in a column of `alike`, with the difference.
fn unlike(base: &[Record], head: &[Record], key: &[&str], alike: &[&str]) -> IndexMap<String, String> {
    let mut of_head = values(head, key, alike);
    let differing = |(id, of_base): (String, Vec<BTreeSet<String>>)| {
        let sets = of_base.into_iter().zip(of_head.remove(&id)?);
        let words = |values: BTreeSet<String>| values.into_iter().collect::<Vec<_>>().join("/");
        let differences: Vec<String> = alike
            .iter()
            .zip(sets)
            .filter(|(_, (one, other))| !one.is_empty() && !other.is_empty() && one != other)
            .map(|(column, (one, other))| format!("{column} {} and {}", words(one), words(other)))
            .collect();
        (!differences.is_empty()).then(|| (id, differences.join(", ")))
    };
    values(base, key, alike).into_iter().filter_map(differing).collect()
}

/// One file as a repetition. `names` holds the case name of each key: the test's name, unless another key has it.
fn repetition(records: &[Record], key: &[&str], names: &mut IndexMap<String, String>) -> Repetition {
    let mut values: IndexMap<String, (Kind, IndexMap<&str, Vec<f64>>)> = IndexMap::new();
    for record in records {
        let cell = |column: &str| record.get(column).and_then(Option::as_ref);
        let (Some(test), Some((kind, id))) = (text(record, TEST_NAME), id_of(record, key)) else { continue };
        let taken = names.iter().any(|(other, name)| *name == test && *other != id);
        let name = names
            .entry(id.clone())
            .or_insert_with(|| if taken { format!("{test} ({})", id.replace(['/', '\\'], "_")) } else { test });
        let (_, metrics) = values.entry(name.clone()).or_insert_with(|| (kind, IndexMap::new()));
        for (column, metric, scale) in METRICS {
            if let Some(value) =
                cell(column).and_then(Cell::number).filter(|_| vllm_verdict::metric::of(kind).any(|m| m.id == *metric))
            {
                metrics.entry(*metric).or_default().push(value / scale);
            }
        }
    }
    let measured = |(name, (kind, metrics)): (String, (Kind, IndexMap<&str, Vec<f64>>))| {
        let metrics = metrics.into_iter().filter_map(|(id, values)| Some((id.to_owned(), mean(&values)?))).collect();
        (name, Outcome::Measured(Measurement::new(kind, metrics)))
    };
    values.into_iter().map(measured).collect()
}

#[cfg(test)]
mod tests {
    use vllm_verdict::strategy::Strategy;
    use vllm_verdict::v1::{Row, SideFacts, Verdict};

    use vllm_verdict::side::Side;

    use super::*;

    const GOLDEN: &str = include_str!("../../tests/data/results/upstream-run/golden/benchmark_results.json");

    fn compared(base: &str, head: &str) -> anyhow::Result<Comparison> {
        let subject = Subject { version: "0.1.0".into(), ..Subject::default() };
        compare_tables(base, head, subject, VerdictConfig::default())
    }

    fn row<'a>(comparison: &'a Comparison, case: &str, metric: &str) -> &'a Row {
        comparison.rows.iter().find(|row| row.case == case && row.metric == metric).unwrap()
    }

    #[test]
    fn rows_of_another_layout_or_device_are_not_compared() {
        let of = |tp: u32, gpu: &str, tokens: f64| {
            format!(
                r#"{{"Test name": "serving_a", "Model": "m", "qps": "inf", "TP Size": {tp}, "PP Size": 1, "GPU": "{gpu}", "Output Tput (tok/s)": {tokens}}}"#
            )
        };
        let verdicts = |base: &[String], head: &[String]| {
            let compared = compared(&format!("[{}]", base.join(",")), &format!("[{}]", head.join(","))).unwrap();
            let row = |row: &Row| format!("{} {}: {}", row.case.raw(), row.verdict.as_str(), row.why.raw());
            compared.rows.iter().filter(|row| row.metric == "output_throughput").map(row).collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(verdicts(&[of(1, "8xH100", 9.0)], &[of(4, "8xH200", 9.0)]), @"serving_a not measured: base has no value: not compared, the sides measured different things: TP Size 1 and 4, GPU 8xH100 and 8xH200 (repetition 1)");
        let both = [of(1, "8xH100", 9.0), of(4, "8xH100", 30.0)];
        let apart = verdicts(&both, &both);
        assert_eq!(apart.lines().filter(|line| line.contains("inconclusive")).count(), 2, "{apart}");
    }

    #[test]
    fn a_file_against_itself_has_every_row_and_no_verdict() {
        let comparison = compared(GOLDEN, GOLDEN).unwrap();
        assert_eq!((comparison.method.strategy, comparison.cases.len()), (Strategy::Single, 8));
        assert!(comparison.rows.iter().all(|row| row.verdict == Verdict::Inconclusive && row.estimate == Some(0.0)));
        let latency = row(&comparison, "latency_tinyllama_tp1", "median_latency");
        assert_eq!((latency.numbers(Side::Base)[0], latency.unit.raw()), (0.2871881804999248, "s"));
    }

    #[test]
    fn serving_rows_are_matched_by_what_was_measured_and_others_by_name() {
        let renamed = GOLDEN
            .replace("serving_tinyllama", "serving_renamed")
            .replace("latency_tinyllama", "latency_renamed")
            .replace("26.648299864872335", "53.29659972974467");
        let comparison = compared(GOLDEN, &renamed).unwrap();
        assert_eq!(comparison.cases.len(), 9);
        let name = "serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4";
        assert_eq!(row(&comparison, name, "request_throughput").numbers(Side::Head), [53.29659972974467]);
        for name in ["latency_tinyllama_tp1", "latency_renamed_tp1"] {
            assert_eq!(row(&comparison, name, "median_latency").verdict, Verdict::NotMeasured);
        }
    }

    #[test]
    fn rows_of_the_same_key_are_averaged() {
        let file = |tput: [f64; 2]| {
            let row = |value: f64| {
                format!(r#"{{"Test name": "serving_a_qps_1", "Model": "m", "Median TTFT (ms)": {value}}}"#)
            };
            format!("[{}, {}]", row(tput[0]), row(tput[1]))
        };
        let comparison = compared(&file([1.0, 3.0]), &file([4.0, 4.0])).unwrap();
        let row = row(&comparison, "serving_a_qps_1", "median_ttft_ms");
        assert_eq!((row.numbers(Side::Base), row.numbers(Side::Head)), (vec![2.0], vec![4.0]));
    }

    #[test]
    fn a_column_that_one_file_lacks_is_not_part_of_the_key_and_nan_is_an_empty_cell() {
        let base = r#"[{"Test name": "serving_a_qps_1", "Model": "m", "Input Len": 64, "Median TTFT (ms)": 2.0}]"#;
        let head = r#"[{"Test name": "serving_b_qps_1", "Model": "m", "Input Len": NaN, "Median TTFT (ms)": 3.0}]"#;
        assert_eq!(compared(base, head).unwrap().cases.len(), 1);
        let head = head.replace("NaN", "64.0");
        assert_eq!(compared(base, &head).unwrap().cases.len(), 1);
        let head = head.replace("64.0", "128");
        assert_eq!(compared(base, &head).unwrap().cases.len(), 2);
    }

    #[test]
    fn a_text_that_is_not_such_a_file_is_a_mistake_with_its_position() {
        let error = compared("{}", GOLDEN).unwrap_err();
        assert_eq!(crate::exit::of(&error), crate::exit::Exit::Mistake);
        assert!(format!("{error:#}").contains("base's benchmark_results.json: invalid type: map"), "{error:#}");
    }

    #[test]
    fn a_single_file_is_split_by_its_parallel_layouts() {
        let of = |text: &str| {
            let subject = |sides: [&str; 2]| {
                let side = |words: &str| Some(SideFacts { target: words.into(), ..SideFacts::default() });
                Subject { base: side(sides[0]), head: side(sides[1]), ..Subject::default() }
            };
            compare_layouts(text, subject, &VerdictConfig::default())
        };
        let two = GOLDEN.replace(r#""TP Size": 1"#, r#""TP Size": 2"#).replace("26.648299864872335", "53.3");
        let both = format!("{},{}", GOLDEN.trim_end().trim_end_matches(']'), two.trim_start().trim_start_matches('['));
        let comparisons = of(&both).unwrap();
        assert_eq!(comparisons.len(), 1);
        let target = |side: &Option<SideFacts>| side.as_ref().unwrap().target.clone();
        let subject = &comparisons[0].subject;
        assert_eq!([target(&subject.base), target(&subject.head)], ["TP 1 x PP 1", "TP 2 x PP 1"]);
        assert_eq!(comparisons[0].cases.len(), 6, "serving alone");
        let row =
            row(&comparisons[0], "serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4", "request_throughput");
        assert_eq!((row.numbers(Side::Base), row.numbers(Side::Head)), (vec![26.648299864872335], vec![53.3]));
        for (text, expected) in [(GOLDEN, "every row has the layout TP 1 x PP 1"), ("[]", "no row has a `TP Size`")] {
            let error = of(text).unwrap_err();
            assert_eq!(crate::exit::of(&error), crate::exit::Exit::Mistake);
            assert!(format!("{error:#}").starts_with(expected), "{error:#}");
        }
    }

    #[test]
    fn a_column_in_another_unit_is_another_column() {
        let file = |column: &str| format!(r#"[{{"Test name": "latency_a", "{column}": 2.0}}]"#);
        let comparison = compared(&file("Mean latency (ms)"), &file("Mean latency (s)")).unwrap();
        let row = row(&comparison, "latency_a", "avg_latency");
        assert_eq!((row.verdict, row.numbers(Side::Base)), (Verdict::NotMeasured, vec![0.002]));
        assert_eq!(row.why, "head has no value: `avg_latency` is missing from its results");
    }
}
