//! Two of upstream's `benchmark_results.json` as a comparison of single runs. Pure. Rows are matched as upstream's own
//! compare script matches them: by what was measured, not by the name of the test.

use anyhow::Context;
use indexmap::IndexMap;

use super::{Comparison, Input, Subject, compare};
use crate::config::VerdictConfig;
use crate::exit::Classify;
use crate::noise::Noise;
use crate::result::table::{self, Cell, METRICS, Record, TEST_NAME};
use crate::result::{Measurement, Outcome, Repetition};
use crate::statistics::mean;
use crate::suite::Kind;

/// What tells one serving row from another, of the columns that all rows have; the test's name where none has any.
const KEY: [&str; 6] = ["Model", "Dataset Name", "Input Len", "Output Len", "# of max concurrency.", "qps"];

/// Compares the texts of two `benchmark_results.json`. Each file is one unpaired run, so every row is `inconclusive`,
/// with its values and its change. Rows with the same key are averaged; a row of one file alone is `not measured`.
/// A text that is no such file is the user's mistake.
pub fn compare_tables(base: &str, head: &str, subject: Subject, verdict: VerdictConfig) -> anyhow::Result<Comparison> {
    let base = table::read(base).context("cannot read base's benchmark_results.json").mistake()?;
    let head = table::read(head).context("cannot read head's benchmark_results.json").mistake()?;
    let key = key_columns(&[&base, &head]);
    let mut names = IndexMap::new();
    let (base, head) = (repetition(&base, &key, &mut names), repetition(&head, &key, &mut names));
    let cases = names
        .into_values()
        .filter_map(|name| {
            let kind = crate::result::kind_of(&name)?;
            Some(crate::result::named(&name, kind))
        })
        .collect();
    Ok(compare(Input {
        subject,
        cases,
        base: vec![base],
        head: vec![head],
        skipped: Vec::new(),
        planned_pairs: 1,
        seed: 0,
        verdict,
        noise: Noise::default(),
        looks: Vec::new(),
    }))
}

fn key_columns(files: &[&Vec<Record>]) -> Vec<&'static str> {
    let has = |file: &&Vec<Record>, column: &str| file.iter().any(|record| matches!(record.get(column), Some(Some(_))));
    KEY.into_iter().filter(|column| files.iter().all(|file| has(file, column))).collect()
}

/// One file as a repetition. `names` holds the name of the case of each key: the test's name where it is not taken.
fn repetition(records: &[Record], key: &[&str], names: &mut IndexMap<String, String>) -> Repetition {
    let mut values: IndexMap<String, (Kind, IndexMap<&str, Vec<f64>>)> = IndexMap::new();
    for record in records {
        let cell = |column: &str| record.get(column).and_then(Option::as_ref);
        let Some(test) = cell(TEST_NAME).map(Cell::to_string) else { continue };
        let Some(kind) = crate::result::kind_of(&test) else { continue };
        let parts: Vec<String> = key.iter().filter_map(|column| cell(column)).map(Cell::to_string).collect();
        let id = if kind == Kind::Serving && !parts.is_empty() { parts.join(" ") } else { test.clone() };
        let taken = names.iter().any(|(other, name)| *name == test && *other != id);
        let name = names
            .entry(id.clone())
            .or_insert_with(|| if taken { format!("{test} ({})", id.replace(['/', '\\'], "_")) } else { test });
        let (_, metrics) = values.entry(name.clone()).or_insert_with(|| (kind, IndexMap::new()));
        for (column, metric, scale) in METRICS {
            if let Some(value) =
                cell(column).and_then(Cell::number).filter(|_| crate::metric::of(kind).any(|m| m.id == *metric))
            {
                metrics.entry(*metric).or_default().push(value / scale);
            }
        }
    }
    let measured = |(name, (kind, metrics)): (String, (Kind, IndexMap<&str, Vec<f64>>))| {
        let metrics = metrics.into_iter().filter_map(|(id, values)| Some((id.to_owned(), mean(&values)?))).collect();
        (name, Outcome::Measured(Measurement { kind, metrics }))
    };
    values.into_iter().map(measured).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Row, Strategy, Verdict};

    const GOLDEN: &str = include_str!("../../tests/data/results/upstream-run/golden/benchmark_results.json");

    fn compared(base: &str, head: &str) -> anyhow::Result<Comparison> {
        let subject = Subject { version: "0.1.0".into(), ..Subject::default() };
        compare_tables(base, head, subject, VerdictConfig::default())
    }

    fn row<'a>(comparison: &'a Comparison, case: &str, metric: &str) -> &'a Row {
        comparison.rows.iter().find(|row| row.case == case && row.metric == metric).unwrap()
    }

    #[test]
    fn a_file_against_itself_has_every_row_and_no_verdict() {
        let comparison = compared(GOLDEN, GOLDEN).unwrap();
        assert_eq!((comparison.method.strategy, comparison.cases.len()), (Strategy::Single, 8));
        assert!(comparison.rows.iter().all(|row| row.verdict == Verdict::Inconclusive && row.estimate == Some(0.0)));
        let latency = row(&comparison, "latency_tinyllama_tp1", "median_latency");
        assert_eq!((latency.base[0], latency.unit.as_str()), (0.2871881804999248, "s"));
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
        assert_eq!(row(&comparison, name, "request_throughput").head, [53.29659972974467]);
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
        assert_eq!((row.base.as_slice(), row.head.as_slice()), ([2.0].as_slice(), [4.0].as_slice()));
    }

    #[test]
    fn a_column_that_one_file_lacks_does_not_tell_rows_apart_and_nan_is_an_empty_cell() {
        let base = r#"[{"Test name": "serving_a_qps_1", "Model": "m", "Input Len": 64, "Median TTFT (ms)": 2.0}]"#;
        let head = r#"[{"Test name": "serving_b_qps_1", "Model": "m", "Input Len": NaN, "Median TTFT (ms)": 3.0}]"#;
        assert_eq!(compared(base, head).unwrap().cases.len(), 1);
        let head = head.replace("NaN", "64.0");
        assert_eq!(compared(base, &head).unwrap().cases.len(), 1);
        let head = head.replace("64.0", "128");
        assert_eq!(compared(base, &head).unwrap().cases.len(), 2);
    }

    #[test]
    fn a_text_that_is_no_such_file_is_a_mistake_that_says_where() {
        let error = compared("{}", GOLDEN).unwrap_err();
        assert_eq!(crate::exit::of(&error), crate::exit::Exit::Mistake);
        assert!(format!("{error:#}").contains("base's benchmark_results.json: invalid type: map"), "{error:#}");
    }
}
