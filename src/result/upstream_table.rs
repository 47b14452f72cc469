//! The tables of upstream's `benchmark_results.json`: columns, cells, and the metric of each column.

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::result::python_json::plain;

/// One row of a table: column to cell; an empty cell is `None`.
pub type Record = IndexMap<String, Option<Cell>>;

/// The column that every table begins with.
pub const TEST_NAME: &str = "Test name";

/// Columns that hold a metric: the column, the id of the metric (see `metric::ALL`), and how many of the column's units
/// make one of the metric's.
pub const METRICS: &[(&str, &str, f64)] = &[
    ("Tput (req/s)", "request_throughput", 1.0),
    ("Total Token Tput (tok/s)", "total_token_throughput", 1.0),
    ("Output Tput (tok/s)", "output_throughput", 1.0),
    ("Mean TTFT (ms)", "mean_ttft_ms", 1.0),
    ("Median TTFT (ms)", "median_ttft_ms", 1.0),
    ("P99 TTFT (ms)", "p99_ttft_ms", 1.0),
    ("Mean TPOT (ms)", "mean_tpot_ms", 1.0),
    ("Median", "median_tpot_ms", 1.0),
    ("P99", "p99_tpot_ms", 1.0),
    ("Mean ITL (ms)", "mean_itl_ms", 1.0),
    ("Median ITL (ms)", "median_itl_ms", 1.0),
    ("P99 ITL (ms)", "p99_itl_ms", 1.0),
    ("Mean latency (ms)", "avg_latency", 1000.0),
    ("Median latency (ms)", "median_latency", 1000.0),
    ("P99 latency (ms)", "p99_latency", 1000.0),
    ("Tput (req/s)", "requests_per_second", 1.0),
    ("Tput (tok/s)", "tokens_per_second", 1.0),
];

/// A cell of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// A count or a setting.
    Integer(i64),
    /// A measured value or a setting.
    Float(f64),
    /// A flag that is on or off.
    Boolean(bool),
    /// Anything else.
    Text(String),
}

impl Cell {
    /// The value of a number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            Self::Boolean(_) | Self::Text(_) => None,
        }
    }

    /// A word of a command, typed as upstream types it: `64` and `0.5` are numbers, `inf` and `1e3` are texts.
    pub(crate) fn of_word(word: &str) -> Self {
        let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
        let plain = unsigned.ends_with(|c: char| c.is_ascii_digit())
            && unsigned.chars().all(|c| c.is_ascii_digit() || c == '.');
        match (word.parse(), word.parse(), word) {
            (Ok(integer), _, _) => Self::Integer(integer),
            (_, Ok(float), _) if plain => Self::Float(float),
            (_, _, "true" | "True" | "TRUE" | "") => Self::Boolean(true),
            (_, _, "false" | "False" | "FALSE") => Self::Boolean(false),
            _ => Self::Text(word.to_owned()),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Boolean(value) => f.write_str(if *value { "True" } else { "False" }),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// The rows of a table, and why others could not be read.
#[derive(Debug, Default, PartialEq)]
pub struct Table {
    pub records: Vec<Record>,
    /// Position and reason of each row that is left out.
    pub broken: Vec<(String, String)>,
}

/// Reads the text of a `benchmark_results.json`, upstream's or vllm-perf's. A row that is not one is left out alone, and a
/// cell that holds anything but a number, a text or a yes or no is empty.
///
/// # Errors
/// A text that is not an array, with the position.
pub fn read(text: &str) -> anyhow::Result<Table> {
    // pandas writes NaN for a cell that a row lacks.
    let rows: Vec<Value> = serde_json::from_str(&plain(text))?;
    let mut table = Table::default();
    for (number, row) in (1..).zip(rows) {
        match row {
            Value::Object(cells) => {
                let cell = |(column, cell)| (column, Cell::deserialize(cell).ok());
                table.records.push(cells.into_iter().map(cell).collect());
            }
            other => {
                let shown: String = other.to_string().chars().take(60).collect();
                table.broken.push((format!("row {number}"), format!("it is `{shown}` and not an object")));
            }
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_row_or_cell_loses_only_itself() {
        let text = r#"[{"Test name": "latency_a", "GPU": NaN, "x": [1], "P99 latency (ms)": 5}, null, 7, {"Test name": "latency_b"}]"#;
        let table = read(text).unwrap();
        let cells: Vec<Option<String>> =
            table.records[0].values().map(|cell| cell.as_ref().map(Cell::to_string)).collect();
        assert_eq!(cells, [Some("latency_a".to_owned()), None, None, Some("5".to_owned())]);
        assert_eq!(table.records.len(), 2);
        let broken: Vec<String> = table.broken.iter().map(|(row, why)| format!("{row}: {why}")).collect();
        assert_eq!(broken, ["row 2: it is `null` and not an object", "row 3: it is `7` and not an object"]);
        for other in ["{}", "", "[", "7"] {
            assert!(read(other).is_err(), "{other}");
        }
    }
}
