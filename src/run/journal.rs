//! The journal of a run: one line for each finished slice of a case, written when it finishes, and one for each choice of
//! the number of slices. `run --resume` reads it.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Pass, Phase};

use crate::exit::Classify;
use crate::system::regular_file::{self, RESULT_LIMIT};
use crate::system::{exchange, output};

/// One finished slice of a case.
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
    /// From 1; a case without a server has one in each repetition.
    #[serde(default = "first_slice", skip_serializing_if = "is_first_slice")]
    pub slice: u32,
    /// RFC 3339 in UTC.
    pub started: String,
    pub seconds: f64,
    /// Why the case has no result; absent where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

fn first_slice() -> u32 {
    1
}

fn is_first_slice(slice: &u32) -> bool {
    *slice == 1
}

/// The number of slices that was chosen for the cases of a server, and from which costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// Number of the server in the plan, as in the name of its log.
    pub server: usize,
    pub slices: u32,
    /// Seconds that the server took to start.
    pub restart_seconds: f64,
    /// Seconds that one slice of its cases took.
    pub slice_seconds: f64,
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
    Choice(Choice),
}

/// The journal, open for appending.
#[derive(Debug, Default)]
pub struct Journal {
    /// The file and its path; none for a journal in memory.
    file: Option<(PathBuf, File)>,
    entries: Vec<Entry>,
    voids: Vec<Void>,
    choices: Vec<Choice>,
    order: u64,
    /// The first line of a case, whatever became of its pass.
    first: Option<Entry>,
}

/// What a resumed run measures again, and why: one sentence each.
pub type Lost = Vec<String>;

impl Journal {
    /// Begins an empty journal.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        // What stood at its path, a link or a pipe of a checkout, is not written to.
        let create = || {
            exchange::delete(path)?;
            let file = regular_file::append(path)?;
            output::sync_folder(path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
            Ok::<_, std::io::Error>(file)
        };
        let file = create().with_context(|| format!("cannot write `{}`", path.display())).world()?;
        Ok(Self { file: Some((path.to_owned(), file)), ..Self::default() })
    }

    /// A journal that is not written, for a warm-up.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Reads the journal of an interrupted run, to append to it. A line that is damaged is dropped and named: its case is
    /// measured again. So is every case where there is no journal.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn resume(path: &Path) -> Result<(Self, Lost)> {
        let cannot = || format!("cannot read `{}`", path.display());
        let (bytes, mut lost) = match regular_file::bytes(path, RESULT_LIMIT) {
            Ok(bytes) => (bytes, Lost::new()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                (Vec::new(), vec![format!("`{}` is missing: every case is measured again", path.display())])
            }
            Err(error) => return Err(error).with_context(cannot).mistake(),
        };
        let (mut whole, mut lines) = (String::new(), Vec::new());
        for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let read = std::str::from_utf8(line).ok().filter(|line| line.ends_with('\n'));
            match read.and_then(|text| Some((text, serde_json::from_str::<Line>(text).ok()?))) {
                Some((text, read)) => {
                    whole.push_str(text);
                    lines.push(read);
                }
                None => lost.push(format!(
                    "{}:{}: not a journal line: its case is measured again",
                    path.display(),
                    index + 1
                )),
            }
        }
        output::write(path, whole.as_bytes()).world()?;
        let file = regular_file::append(path).with_context(|| format!("cannot write `{}`", path.display())).world()?;
        let mut journal = Self { file: Some((path.to_owned(), file)), ..Self::default() };
        for line in lines {
            match line {
                Line::Case(entry) => journal.keep(entry),
                Line::Void(void) => journal.forget(void),
                Line::Choice(choice) => journal.take(choice),
            }
        }
        Ok((journal, lost))
    }

    /// Forgets cases without a line in the file: they are measured again, and their new lines take the place of the old.
    pub fn measure_again(&mut self, mut is_lost: impl FnMut(&Entry) -> bool) {
        self.entries.retain(|entry| !is_lost(entry));
    }

    /// When the first case began, RFC 3339 in UTC. It stays the same however often the run is resumed.
    pub fn begun(&self) -> Option<&str> {
        self.first.as_ref().map(|entry| entry.started.as_str())
    }

    /// The identity of the run, from the first line of a case: the same however often the run is resumed.
    pub fn run_id(&self) -> Option<String> {
        let line = serde_json::to_string(self.first.as_ref()?).ok()?;
        Some(Sha256::digest(line).iter().take(8).map(|byte| format!("{byte:02x}")).collect())
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

    /// The number of slices that was chosen for the cases of a server.
    pub fn choice(&self, server: usize) -> Option<&Choice> {
        self.choices.iter().find(|choice| choice.server == server)
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

    /// Records a number of slices.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn choose(&mut self, choice: Choice) -> Result<()> {
        self.write(&choice)?;
        self.take(choice);
        Ok(())
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let cannot = || format!("cannot write `{}`", path.display());
        let mut line = serde_json::to_string(line).with_context(cannot)?;
        line.push('\n');
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).with_context(cannot).world()
    }

    /// A later line of a slice takes the place of an earlier one.
    fn keep(&mut self, entry: Entry) {
        self.order = self.order.max(entry.order);
        let key = |entry: &Entry| (entry.side, entry.phase, entry.repetition, entry.slice);
        self.entries.retain(|known| key(known) != key(&entry) || known.case != entry.case);
        self.first.get_or_insert_with(|| entry.clone());
        self.entries.push(entry);
    }

    fn forget(&mut self, void: Void) {
        self.entries
            .retain(|entry| (entry.side, entry.phase, entry.repetition) != (void.side, void.phase, void.repetition));
        self.voids.push(void);
    }

    /// The first choice for a server stays: repetitions were measured by it.
    fn take(&mut self, choice: Choice) {
        if self.choice(choice.server).is_none() {
            self.choices.push(choice);
        }
    }

    /// The entry of one slice of a case, if it has finished.
    pub fn find(&self, side: Side, pass: Pass, case: &str, slice: u32) -> Option<&Entry> {
        self.of_pass(side, pass).find(|entry| entry.case == case && entry.slice == slice)
    }

    /// The finished slices of a case in a pass.
    pub fn slices<'j>(&'j self, side: Side, pass: Pass, case: &'j str) -> impl Iterator<Item = &'j Entry> {
        self.of_pass(side, pass).filter(move |entry| entry.case == case)
    }

    /// The finished slices of a pass.
    pub fn of_pass(&self, side: Side, pass: Pass) -> impl Iterator<Item = &Entry> {
        let key = (side, pass.phase, pass.pair);
        self.entries.iter().filter(move |entry| (entry.side, entry.phase, entry.repetition) == key)
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
            slice: 1,
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
        output::write(&path, text.as_bytes()).unwrap();
        let (mut journal, lost) = Journal::resume(&path).unwrap();
        assert_eq!(journal.entries(), [entry(1, "a")]);
        assert!(lost[0].contains("journal.jsonl:2: not a journal line"), "{lost:?}");
        journal.append(entry(2, "b")).unwrap();
        assert!(Journal::resume(&path).unwrap().0.find(Side::Base, FIRST, "b", 1).is_some());
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

        let (journal, _) = Journal::resume(&path).unwrap();
        assert!(journal.find(Side::Base, FIRST, "a", 1).is_none());
        assert!(journal.find(Side::Base, Pass { phase: Phase::Screen, pair: 1 }, "a", 1).is_some());
        assert_eq!((journal.voids(), journal.next_order()), (&[void][..], 3));
    }

    #[test]
    fn a_damaged_line_is_dropped_and_named_and_the_lines_around_it_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let line = |order, case| serde_json::to_string(&entry(order, case)).unwrap();
        for damage in [&b"{}"[..], b"\0\0\0\0", b"\xff\xfe", b"", b"{\"order\":2"] {
            let text = [line(1, "a").as_bytes(), b"\n", damage, b"\n", line(3, "c").as_bytes(), b"\n"].concat();
            output::write(&path, &text).unwrap();
            let (journal, lost) = Journal::resume(&path).unwrap();
            assert_eq!(journal.entries(), [entry(1, "a"), entry(3, "c")], "{damage:?}");
            assert!(lost.len() == 1 && lost[0].contains("journal.jsonl:2: not a journal line"), "{lost:?}");
            assert_eq!(Journal::resume(&path).unwrap().1, Lost::new(), "it is named once");
        }
    }

    #[test]
    fn a_missing_or_empty_journal_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let (journal, lost) = Journal::resume(&path).unwrap();
        assert!(journal.entries().is_empty() && lost[0].contains("is missing"), "{lost:?}");
        let (journal, lost) = Journal::resume(&path).unwrap();
        assert!(journal.entries().is_empty() && lost.is_empty(), "{lost:?}");
    }

    #[test]
    fn a_case_that_is_measured_again_has_one_entry_and_the_run_keeps_its_identity() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let mut journal = Journal::create(&path).unwrap();
        assert_eq!((journal.begun(), journal.run_id()), (None, None));
        journal.append(Entry { failed: Some("it crashed".to_owned()), ..entry(1, "a") }).unwrap();
        journal.append(entry(2, "b")).unwrap();
        let id = journal.run_id();
        let (mut journal, _) = Journal::resume(&path).unwrap();
        journal.measure_again(|entry| entry.failed.is_some());
        assert_eq!((journal.entries().len(), journal.next_order()), (1, 3));
        journal.append(Entry { started: "2026-01-02T09:00:00Z".to_owned(), ..entry(3, "a") }).unwrap();
        let (journal, _) = Journal::resume(&path).unwrap();
        assert_eq!(journal.entries().len(), 2);
        assert!(journal.find(Side::Base, FIRST, "a", 1).unwrap().failed.is_none());
        assert_eq!((journal.begun(), journal.run_id()), (Some("2026-01-02T03:04:05Z"), id));
    }

    #[test]
    fn a_slice_has_an_entry_of_its_own_and_the_first_choice_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let mut journal = Journal::create(&path).unwrap();
        journal.append(entry(1, "a")).unwrap();
        let choice = Choice { server: 1, slices: 2, restart_seconds: 3.0, slice_seconds: 1.0 };
        journal.choose(choice.clone()).unwrap();
        journal.append(Entry { slice: 2, ..entry(2, "a") }).unwrap();
        journal.choose(Choice { slices: 4, ..choice.clone() }).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(!lines[0].contains("slice") && lines[2].contains("\"slice\":2"), "{text}");
        assert_eq!(lines[1], r#"{"server":1,"slices":2,"restart_seconds":3.0,"slice_seconds":1.0}"#);

        let (mut journal, lost) = Journal::resume(&path).unwrap();
        assert_eq!(lost, Lost::new());
        assert_eq!((journal.choice(1), journal.choice(2)), (Some(&choice), None));
        let orders = |journal: &Journal| journal.slices(Side::Base, FIRST, "a").map(|it| it.order).collect::<Vec<_>>();
        assert_eq!(orders(&journal), [1, 2]);
        let void = Void { phase: Phase::Pairs, repetition: 1, side: Side::Base, void: "outside load".to_owned() };
        journal.void(void).unwrap();
        assert_eq!(orders(&journal), [0; 0], "all slices of a void pass are measured again");
        assert_eq!(journal.choice(1), Some(&choice), "and as many");
    }
}
