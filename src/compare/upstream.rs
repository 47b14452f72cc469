//! Two of upstream's `benchmark_results.json` as a comparison of single runs. Pure. Rows are matched as upstream's own
//! compare script matches them: by what was measured, not by the name of the test.

use anyhow::Context;
use indexmap::IndexMap;
use regex::Regex;

use super::{Comparison, Input, Subject, compare};
use crate::config::VerdictConfig;
use crate::exit::Classify;
use crate::report::upstream::{Cell, METRICS, TEST_NAME};
use crate::result::{Measurement, Outcome, Repetition};
use crate::statistics::mean;
use crate::suite::Kind;

/// What tells one serving row from another, of the columns that all rows have; the test's name where none has any.
const KEY: [&str; 6] = ["Model", "Dataset Name", "Input Len", "Output Len", "# of max concurrency.", "qps"];

type Record = IndexMap<String, Option<Cell>>;

/// Compares the texts of two `benchmark_results.json`. Each file is one unpaired run, so every row is `inconclusive`,
/// with its values and its change. Rows with the same key are averaged; a row of one file alone is `not measured`.
/// A text that is no such file is the user's mistake.
pub fn compare_tables(base: &str, head: &str, subject: Subject, verdict: VerdictConfig) -> anyhow::Result<Comparison> {
    let base = read(base).context("cannot read base's benchmark_results.json").mistake()?;
    let head = read(head).context("cannot read head's benchmark_results.json").mistake()?;
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
    }))
}

fn read(text: &str) -> anyhow::Result<Vec<Record>> {
    // pandas writes NaN for a cell that a row lacks.
    let literal = Regex::new(r#"([^\\]":\s*)NaN\b"#).context("cannot read NaN cells")?;
    Ok(serde_json::from_str(&literal.replace_all(text, "${1}null"))?)
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
        let name = names.entry(id.clone()).or_insert_with(|| if taken { format!("{test} ({id})") } else { test });
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
