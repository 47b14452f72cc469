//! The journal of a run: one line for each finished case, written when it finishes. `run --resume` reads it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Pass, Phase};

use crate::exit::Classify;
use crate::system::exchange;
use crate::system::regular_file::{self, RESULT_LIMIT};

/// One finished case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Position in the order in which the cases ran, from 1.
    pub order: u64,
    #[serde(default, skip_serializing_if = "Phase::is_pairs")]
    pub phase: Phase,
    /// From 1; `more pairs` continues the numbers of `pairs`.
    pub repetition: u32,
    pub side: Side,
    pub case: String,
    /// RFC 3339 in UTC.
    pub started: String,
    pub seconds: f64,
    /// Why the case has no result; absent where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// Marks a pass as void: its results do not count, and it is run again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Void {
    #[serde(default, skip_serializing_if = "Phase::is_pairs")]
    pub phase: Phase,
    pub repetition: u32,
    pub side: Side,
    /// The reason.
    pub void: String,
}

/// One line of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Line {
    Case(Entry),
    Void(Void),
}

/// The journal, open for appending.
#[derive(Debug, Default)]
pub struct Journal {
    /// The file and its path; none for a journal in memory.
    file: Option<(PathBuf, File)>,
    entries: Vec<Entry>,
    voids: Vec<Void>,
    order: u64,
}

impl Journal {
    /// Begins an empty journal.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        // What stood at its path, a link or a pipe of a checkout, is not written to.
        let create = || exchange::delete(path).and_then(|()| regular_file::append(path));
        let file = create().with_context(|| format!("cannot write `{}`", path.display())).world()?;
        Ok(Self { file: Some((path.to_owned(), file)), ..Self::default() })
    }

    /// A journal that is not written, for a warm-up.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Reads the journal of an interrupted run, to append to it. A last line without its end is dropped.
    ///
    /// # Errors
    /// When it cannot be read, or a line other than the last is not an entry.
    pub fn resume(path: &Path) -> Result<Self> {
        let text = regular_file::text(path, RESULT_LIMIT)
            .with_context(|| format!("cannot read `{}`", path.display()))
            .mistake()?;
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let lines = whole
            .lines()
            .enumerate()
            .map(|(index, line)| {
                serde_json::from_str(line)
                    .with_context(|| format!("{}:{}: not a journal line", path.display(), index + 1))
            })
            .collect::<Result<Vec<Line>>>()
            .mistake()?;
        crate::system::output::write(path, whole.as_bytes()).world()?;
        let file = regular_file::append(path).with_context(|| format!("cannot write `{}`", path.display())).world()?;
        let mut journal = Self { file: Some((path.to_owned(), file)), ..Self::default() };
        for line in lines {
            match line {
                Line::Case(entry) => journal.keep(entry),
                Line::Void(void) => journal.forget(void),
            }
        }
        Ok(journal)
    }

    /// The cases of a journal that is not written any more.
    ///
    /// # Errors
    /// When it cannot be read, or has a line that is not an entry.
    pub fn read(path: &Path) -> Result<Vec<Entry>> {
        let text =
            regular_file::text(path, RESULT_LIMIT).with_context(|| format!("cannot read `{}`", path.display()))?;
        let lines = text.lines().map(serde_json::from_str).collect::<std::result::Result<Vec<Line>, _>>();
        let lines = lines.with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(lines.into_iter().filter_map(|line| if let Line::Case(entry) = line { Some(entry) } else { None }).collect())
    }

    /// The finished cases, without those of void passes, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The void passes, oldest first.
    pub fn voids(&self) -> &[Void] {
        &self.voids
    }

    /// The `order` of the next entry.
    pub fn next_order(&self) -> u64 {
        self.order + 1
    }

    /// Appends one finished case. It is on disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&mut self, entry: Entry) -> Result<()> {
        self.write(&entry)?;
        self.keep(entry);
        Ok(())
    }

    /// Marks a pass as void.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn void(&mut self, void: Void) -> Result<()> {
        self.write(&void)?;
        self.forget(void);
        Ok(())
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let cannot = || format!("cannot write `{}`", path.display());
        let mut line = serde_json::to_string(line).with_context(cannot)?;
        line.push('\n');
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).with_context(cannot).world()
    }

    fn keep(&mut self, entry: Entry) {
        self.order = entry.order;
        self.entries.push(entry);
    }

    fn forget(&mut self, void: Void) {
        self.entries
            .retain(|entry| (entry.side, entry.phase, entry.repetition) != (void.side, void.phase, void.repetition));
        self.voids.push(void);
    }

    /// The entry of one case, if it has finished.
    pub fn find(&self, side: Side, pass: Pass, case: &str) -> Option<&Entry> {
        let key = (side, pass.phase, pass.pair);
        self.entries.iter().find(|entry| (entry.side, entry.phase, entry.repetition) == key && entry.case == case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(order: u64, case: &str) -> Entry {
        Entry {
            order,
            phase: Phase::Pairs,
            repetition: 1,
            side: Side::Base,
            case: case.to_owned(),
            started: "2026-01-02T03:04:05Z".to_owned(),
            seconds: 1.5,
            failed: None,
        }
    }

    #[test]
    fn an_incomplete_last_line_is_dropped_and_the_journal_continues() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let mut journal = Journal::create(&path).unwrap();
        journal.append(entry(1, "a")).unwrap();
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str(r#"{"order":2,"repeti"#);
        crate::system::output::write(&path, text.as_bytes()).unwrap();

        let mut journal = Journal::resume(&path).unwrap();
        assert_eq!(journal.entries(), [entry(1, "a")]);
        journal.append(entry(2, "b")).unwrap();
        assert!(Journal::resume(&path).unwrap().find(Side::Base, FIRST, "b").is_some());
    }

    const FIRST: Pass = Pass { phase: Phase::Pairs, pair: 1 };

    #[test]
    fn a_void_pass_runs_again_and_the_order_continues() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let mut journal = Journal::create(&path).unwrap();
        journal.append(entry(1, "a")).unwrap();
        journal.append(Entry { phase: Phase::Screen, ..entry(2, "a") }).unwrap();
        let void = Void { phase: Phase::Pairs, repetition: 1, side: Side::Base, void: "outside load".to_owned() };
        journal.void(void.clone()).unwrap();

        let journal = Journal::resume(&path).unwrap();
        assert!(journal.find(Side::Base, FIRST, "a").is_none());
        assert!(journal.find(Side::Base, Pass { phase: Phase::Screen, pair: 1 }, "a").is_some());
        assert_eq!((journal.voids(), journal.next_order()), (&[void][..], 3));
    }

    #[test]
    fn a_broken_line_in_the_middle_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        crate::system::output::write(&path, b"{}\n").unwrap();
        let error = format!("{:#}", Journal::resume(&path).unwrap_err());
        assert!(error.contains("journal.jsonl:1: not a journal line"), "{error}");
    }
}
