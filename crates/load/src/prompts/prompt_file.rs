//! Files of data sets: what is wrong with one is said with its line and column.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

/// The whole file.
///
/// # Errors
/// It is not there, or not UTF-8.
pub fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}, the file of --dataset-path", path.display()))
}

/// A file that is one JSON value.
///
/// # Errors
/// It is not there, or not that value: the text says in which line and column.
pub fn json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = text(path)?;
    serde_json::from_str(&text).map_err(|error| wrong(path, error.line(), &error))
}

/// A file of one JSON value a line, each with the number of its line. Empty lines are none.
///
/// # Errors
/// It is not there, or a line is not that value.
pub fn json_lines<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Vec<(usize, T)>> {
    let text = text(path)?;
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    lines
        .map(|(line, number)| {
            serde_json::from_str(line).map(|value| (number, value)).map_err(|error| wrong(path, number, &error))
        })
        .collect()
}

fn wrong(path: &Path, line: usize, error: &serde_json::Error) -> anyhow::Error {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    anyhow!("{}, line {line}, column {}: {what}", path.display(), error.column())
}
