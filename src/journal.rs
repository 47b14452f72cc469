//! The journal of a run: one line per finished case, written as it finishes. `run --resume` reads it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::exit::Classify;
use crate::plan::Side;

/// One finished case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Position in the order in which things ran, from 1.
    pub order: u64,
    /// Which repetition, from 1.
    pub repetition: u32,
    /// Which side.
    pub side: Side,
    /// Name of the case.
    pub case: String,
    /// When it began, RFC 3339 in UTC.
    pub started: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Why it gave no numbers; absent where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// The journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    entries: Vec<Entry>,
}

impl Journal {
    /// Begins an empty journal.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write `{}`", path.display())).world()?;
        Ok(Self { path: path.to_owned(), file, entries: Vec::new() })
    }

    /// Reads what an interrupted run left, and goes on behind it. A last line that was cut off does not count.
    ///
    /// # Errors
    /// When it cannot be read, or a line other than the last is no entry.
    pub fn resume(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display())).mistake()?;
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let entries = whole
            .lines()
            .enumerate()
            .map(|(index, line)| {
                serde_json::from_str(line)
                    .with_context(|| format!("{}:{}: not a journal line", path.display(), index + 1))
            })
            .collect::<Result<Vec<Entry>>>()
            .mistake()?;
        crate::output::write(path, whole.as_bytes()).world()?;
        let file = File::options()
            .append(true)
            .open(path)
            .with_context(|| format!("cannot write `{}`", path.display()))
            .world()?;
        Ok(Self { path: path.to_owned(), file, entries })
    }

    /// What is in it, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Appends one finished case; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&mut self, entry: Entry) -> Result<()> {
        let cannot = || format!("cannot write `{}`", self.path.display());
        let mut line = serde_json::to_string(&entry).with_context(cannot)?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data()).with_context(cannot).world()?;
        self.entries.push(entry);
        Ok(())
    }

    /// The entry of one case, if it has finished.
    pub fn find(&self, side: Side, repetition: u32, case: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.side == side && entry.repetition == repetition && entry.case == case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(order: u64, case: &str) -> Entry {
        Entry {
            order,
            repetition: 1,
            side: Side::Base,
            case: case.to_owned(),
            started: "2026-01-02T03:04:05Z".to_owned(),
            seconds: 1.5,
            failed: None,
        }
    }

    #[test]
    fn a_line_that_was_cut_off_is_forgotten_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let mut journal = Journal::create(&path).unwrap();
        journal.append(entry(1, "a")).unwrap();
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str(r#"{"order":2,"repeti"#);
        crate::output::write(&path, text.as_bytes()).unwrap();

        let mut journal = Journal::resume(&path).unwrap();
        assert_eq!(journal.entries(), [entry(1, "a")]);
        journal.append(entry(2, "b")).unwrap();
        assert!(Journal::resume(&path).unwrap().find(Side::Base, 1, "b").is_some());
    }

    #[test]
    fn a_broken_line_in_the_middle_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        crate::output::write(&path, b"{}\n").unwrap();
        let error = format!("{:#}", Journal::resume(&path).unwrap_err());
        assert!(error.contains("journal.jsonl:1: not a journal line"), "{error}");
    }
}
