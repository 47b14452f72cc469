//! Files of data sets. An error names the line and the column.

use std::path::Path;

use serde::Deserialize;

use super::input_file;
use super::prompt_error::PromptError;

/// The text of a file.
///
/// # Errors
/// It cannot be read, or it is not UTF-8.
pub fn text(path: &Path) -> Result<String, PromptError> {
    input_file::text(path, input_file::DATA_SET)
        .map_err(|error| PromptError::UnreadableFile { path: path.to_owned(), error })
}

/// A file that is one JSON value.
///
/// # Errors
/// It cannot be read, or it is not such a value.
pub fn json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, PromptError> {
    let text = text(path)?;
    serde_json::from_str(&text).map_err(|error| invalid(path, error.line(), &error))
}

/// A file of JSON lines. Gives each value with the number of its line. Empty lines are skipped.
///
/// # Errors
/// It cannot be read, or a line is not such a value.
pub fn json_lines<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Vec<(usize, T)>, PromptError> {
    let text = text(path)?;
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    lines
        .map(|(line, number)| {
            serde_json::from_str(line).map(|value| (number, value)).map_err(|error| invalid(path, number, &error))
        })
        .collect()
}

fn invalid(path: &Path, line: usize, error: &serde_json::Error) -> PromptError {
    let text = error.to_string();
    let cause = text.split(" at line ").next().unwrap_or(&text);
    PromptError::InvalidFile(format!("{}, line {line}, column {}: {cause}", path.display(), error.column()))
}
