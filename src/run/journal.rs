//! The journal of a run: one line per finished case, written as it finishes. `run --resume` reads it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Pass, Phase};

use crate::exit::Classify;

/// One finished case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Position in the order in which things ran, from 1.
    pub order: u64,
    /// Which phase of the run.
    #[serde(default, skip_serializing_if = "Phase::is_pairs")]
    pub phase: Phase,
    /// Which repetition, from 1; more pairs go on counting where the pairs ended.
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

/// Word that a pass does not count: what it measured is void, and it is run again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Void {
    /// Which phase.
    #[serde(default, skip_serializing_if = "Phase::is_pairs")]
    pub phase: Phase,
    /// Which repetition.
    pub repetition: u32,
    /// Which side.
    pub side: Side,
    /// Why.
    pub void: String,
}

/// One line.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Line {
    Case(Entry),
    Void(Void),
}

/// The journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
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
        let file = File::create(path).with_context(|| format!("cannot write `{}`", path.display())).world()?;
        Ok(Self { path: path.to_owned(), file, entries: Vec::new(), voids: Vec::new(), order: 0 })
    }

    /// Reads what an interrupted run left, and goes on behind it. A last line that was cut off does not count.
    ///
    /// # Errors
    /// When it cannot be read, or a line other than the last is no entry.
    pub fn resume(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display())).mistake()?;
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
        let file = File::options()
            .append(true)
            .open(path)
            .with_context(|| format!("cannot write `{}`", path.display()))
            .world()?;
        let mut journal = Self { path: path.to_owned(), file, entries: Vec::new(), voids: Vec::new(), order: 0 };
        for line in lines {
            match line {
                Line::Case(entry) => journal.keep(entry),
                Line::Void(void) => journal.forget(void),
            }
        }
        Ok(journal)
    }

    /// The cases of a journal that nobody writes any more.
    ///
    /// # Errors
    /// When it cannot be read, or holds a line that is no entry.
    pub fn read(path: &Path) -> Result<Vec<Entry>> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let lines = text.lines().map(serde_json::from_str).collect::<std::result::Result<Vec<Line>, _>>();
        let lines = lines.with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(lines.into_iter().filter_map(|line| if let Line::Case(entry) = line { Some(entry) } else { None }).collect())
    }

    /// The cases in it that count, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The passes that did not count, oldest first.
    pub fn voids(&self) -> &[Void] {
        &self.voids
    }

    /// Position of the next case in the order in which things ran.
    pub fn next_order(&self) -> u64 {
        self.order + 1
    }

    /// Appends one finished case; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&mut self, entry: Entry) -> Result<()> {
        self.write(&entry)?;
        self.keep(entry);
        Ok(())
    }

    /// Voids what a pass has measured so far.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn void(&mut self, void: Void) -> Result<()> {
        self.write(&void)?;
        self.forget(void);
        Ok(())
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let cannot = || format!("cannot write `{}`", self.path.display());
        let mut line = serde_json::to_string(line).with_context(cannot)?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data()).with_context(cannot).world()
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
    fn a_line_that_was_cut_off_is_forgotten_and_the_rest_goes_on() {
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
    fn a_void_pass_runs_again_and_the_order_goes_on() {
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
