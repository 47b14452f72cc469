//! Reads the comparison of an output folder that may come from an untrusted pull request: one file with a fixed name, with
//! limits that are enforced before parsing, and values that are checked before use. Nothing in it is executed.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use nix::fcntl::OFlag;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use vllm_verdict::v1::{Comparison, RepetitionValue, Row, SCHEMA};
use vllm_verdict::{Untrusted, metric};

use crate::exit::Classify;
use crate::names::{Commit, Repository};
use crate::plan::config::ImagesConfig;
use crate::plan::reproduce;
use crate::system::regular_file;

const FILE: &str = "comparison.json";
/// Largest file, in bytes: ten times a report of 500 rows.
const FILE_LIMIT: u64 = 8 << 20;
/// Longest text, in bytes: the command to reproduce a run.
const TEXT_LIMIT: usize = 16 << 10;
/// Longest name (case, test, metric, unit), in bytes.
const NAME_LIMIT: usize = 300;
/// Longest list.
const LIST_LIMIT: usize = 10_000;
/// Most values of a row on one side. A run has at most ten pairs.
const VALUE_LIMIT: usize = 100;
/// Most slices of one repetition.
const SLICE_LIMIT: usize = 16;
/// Most values of all rows together: 10,000 rows of ten pairs.
const TOTAL_LIMIT: usize = 200_000;
/// Most notices.
const NOTICE_LIMIT: usize = 20;

/// Reads `comparison.json` of a folder.
///
/// # Errors
/// The user's mistake: a file that is missing, too large, a link or not a comparison of this version; a text or list over
/// its limit; a value that a comparison cannot have. The command that reproduces the run is dropped unless it only runs a
/// benchmark of the simulated vLLM or of `images`.
pub fn read(folder: &Path, images: &ImagesConfig) -> anyhow::Result<Comparison> {
    let path = folder.join(FILE);
    let read = || {
        let text = contents(&path)?;
        serde_json::from_str::<Bounded>(&text)?;
        let mut comparison: Comparison = serde_json::from_str(&text)?;
        check(&comparison)?;
        vllm_verdict::recheck(&comparison)?;
        let command = comparison.subject.reproduce.take();
        comparison.subject.reproduce =
            command.and_then(|command| reproduce::checked(command.raw(), images).ok()).map(Untrusted::from);
        Ok(comparison)
    };
    read().map_err(|error: anyhow::Error| error.context(format!("cannot read {}", path.display()))).mistake()
}

fn contents(path: &Path) -> anyhow::Result<String> {
    // Links are not followed, and opening a pipe does not block.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => {
            bail!("it is a symbolic link; only regular files are read")
        }
        opened => opened.context("is this the output folder of a run?")?,
    };
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "it is not a regular file");
    ensure!(metadata.len() <= FILE_LIMIT, "it has {} bytes; at most {FILE_LIMIT} are read", metadata.len());
    text(file)
}

fn text(file: File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT).read_to_end(&mut bytes)?;
    Ok(regular_file::utf8(bytes)?)
}

/// Any JSON with texts and lists within their limits; its values are discarded.
struct Bounded;

impl<'de> Deserialize<'de> for Bounded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Bounded {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bounded JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self, E> {
        if text.len() > TEXT_LIMIT {
            return Err(E::custom(format!("a text of {} bytes: at most {TEXT_LIMIT}", text.len())));
        }
        Ok(self)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self, E> {
        if number.is_finite() { Ok(self) } else { Err(E::custom(format!("{number} is not a finite number"))) }
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        let mut entries = 0;
        while list.next_element::<Self>()?.is_some() {
            entries += 1;
            if entries > LIST_LIMIT {
                return Err(A::Error::custom(format!("a list of more than {LIST_LIMIT} entries")));
            }
        }
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

/// Checks the lengths of lists, which decide how long everything else takes.
fn check_lengths(comparison: &Comparison) -> anyhow::Result<()> {
    let most = |what: &str, length: usize, limit: usize| -> anyhow::Result<()> {
        ensure!(length <= limit, "{length} {what}: at most {limit}");
        Ok(())
    };
    for row in &comparison.rows {
        let sides = [&row.base, &row.head];
        most("values of a row on one side", sides.map(Vec::len).into_iter().fold(0, usize::max), VALUE_LIMIT)?;
        let slices = sides.into_iter().flatten().flatten().map(RepetitionValue::slices).fold(0, usize::max);
        most("slices of a repetition", slices, SLICE_LIMIT)?;
    }
    let values = |row: &Row| row.base.iter().chain(&row.head).flatten().map(RepetitionValue::slices).sum::<usize>();
    most("values", comparison.rows.iter().map(values).sum(), TOTAL_LIMIT)?;
    most("overall rows", comparison.overall.len(), metric::ALL.len())?;
    for case in &comparison.cases {
        most("failures of a case", case.problems.len(), 2 * VALUE_LIMIT)?;
        most("warnings of a case", case.warnings.len(), 2 * VALUE_LIMIT)?;
    }
    most("notices", comparison.conduct.notices.len(), NOTICE_LIMIT)?;
    most("servers with slices", comparison.conduct.slices.len(), 2 * comparison.cases.len())?;
    for server in &comparison.conduct.slices {
        most("slices of a repetition", server.slices as usize, SLICE_LIMIT)?;
        most("cases of a server", server.cases, comparison.cases.len())?;
    }
    most("looks", comparison.method.looks.len(), VALUE_LIMIT)?;
    for side in comparison.subject.base.iter().chain(&comparison.subject.head) {
        most("server arguments", side.server_args.len(), VALUE_LIMIT)?;
    }
    most("labels", comparison.subject.event.as_ref().map_or(0, |event| event.labels.len()), VALUE_LIMIT)
}

/// Checks that the types do not express.
fn check(comparison: &Comparison) -> anyhow::Result<()> {
    ensure!(comparison.schema == SCHEMA, "its schema is `{}`: expected `{SCHEMA}`", shown(&comparison.schema));
    check_lengths(comparison)?;
    let names: HashSet<&Untrusted> = comparison.cases.iter().map(|case| &case.name).collect();
    ensure!(names.len() == comparison.cases.len(), "two of its cases have the same name");
    for case in &comparison.cases {
        name("case", case.name.raw())?;
        name("test", case.test.raw())?;
        label("model", case.model.raw())?;
        label("request rate", case.request_rate.as_ref().map_or("", Untrusted::raw))?;
    }
    for row in &comparison.rows {
        ensure!(names.contains(&row.case), "a row names the case `{}`, which is not listed", shown(row.case.raw()));
        name("metric", row.metric.raw())?;
        label("metric label", row.label.raw())?;
        label("unit", row.unit.raw())?;
        let values = row.base.iter().chain(&row.head).flatten().flat_map(RepetitionValue::values);
        let changes = [row.estimate, row.deviation, row.low, row.high, row.p, row.q, row.detectable, row.s0];
        let numbers = [row.min_effect, row.n0].into_iter().chain(changes.into_iter().flatten());
        for value in values.chain(numbers) {
            ensure!(
                value.is_finite(),
                "the row {} of {} contains the number {value}",
                shown(row.metric.raw()),
                shown(row.case.raw())
            );
        }
    }
    for row in &comparison.overall {
        name("metric", row.metric.raw())?;
        label("metric label", row.label.raw())?;
    }
    for skipped in &comparison.skipped {
        label("skipped test", skipped.name.raw())?;
    }
    let subject = &comparison.subject;
    if let Some(event) = &subject.event {
        let repository = event.repository.as_deref().unwrap_or("owner/name");
        ensure!(Repository::is_valid(repository), "`{}` is not a repository", shown(repository));
        for commit in event.head_sha.iter().chain(&event.base_sha) {
            ensure!(Commit::is_hash(commit), "`{}` is not a commit hash", shown(commit));
        }
        for text in event.labels.iter().chain(&event.branch).chain(&event.base_branch).chain(&event.action) {
            label("label or branch", text)?;
        }
    }
    for side in subject.base.iter().chain(&subject.head) {
        if let Some(commit) = &side.commit {
            ensure!(Commit::is_hash(commit.raw()), "`{}` is not a commit hash", shown(commit.raw()));
        }
        label("version", side.vllm_version.as_ref().map_or("", Untrusted::raw))?;
    }
    if let Some(device) = &subject.device {
        label("device type", &device.device_type)?;
    }
    Ok(())
}

/// A name that becomes part of a path: it must not leave the folder.
fn name(what: &str, text: &str) -> anyhow::Result<()> {
    label(what, text)?;
    let leaves_folder = text.contains("..") || text.contains(['/', '\\']);
    ensure!(!text.is_empty() && !leaves_folder, "the {what} name `{}` could lead out of the folder", shown(text));
    Ok(())
}

fn label(what: &str, text: &str) -> anyhow::Result<()> {
    ensure!(text.len() <= NAME_LIMIT, "a {what} has {} bytes: at most {NAME_LIMIT}", text.len());
    ensure!(!text.chars().any(char::is_control), "the {what} `{}` contains control characters", shown(text));
    Ok(())
}

/// Untrusted text for an error: short, on one line, without escape sequences.
fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use vllm_verdict::side::Side;
    use vllm_verdict::v1::{Problem, Row, ServerSlices};

    use super::*;

    const REAL: &str = include_str!("../../tests/data/comparison/comparison.json");

    fn real() -> Comparison {
        serde_json::from_str(REAL).unwrap()
    }

    fn refusal_of(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), text);
        sentence(folder.path())
    }

    fn sentence(folder: &Path) -> String {
        let error = read(folder, &ImagesConfig::default()).unwrap_err();
        assert_eq!(crate::exit::of(&error), crate::exit::Exit::Mistake);
        format!("{error:#}").replace(&folder.display().to_string(), "OUT")
    }

    #[expect(clippy::disallowed_methods, reason = "a test writes the file that it then reads")]
    fn put(folder: &Path, text: &str) {
        fs::write(folder.join(FILE), text).unwrap();
    }

    /// The real comparison with one text replaced, which must occur in it.
    fn tampered(from: &str, to: &str) -> String {
        assert!(REAL.contains(from), "{from}");
        REAL.replacen(from, to, 1)
    }

    #[test]
    fn a_real_comparison_is_read_completely() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), REAL);
        let comparison = read(folder.path(), &ImagesConfig::default()).unwrap();
        assert_eq!((comparison.rows.len(), comparison.cases.len()), (10, 2));
        assert_eq!(Comparison { subject: real().subject, ..comparison.clone() }, real());
        assert_eq!(comparison.subject.reproduce, None, "it measures programs of a machine");
    }

    #[test]
    fn a_field_of_a_newer_version_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), &tampered("\"schema\":", "\"comment\": \"**approved**\", \"schema\":"));
        assert_eq!(read(folder.path(), &ImagesConfig::default()).unwrap().rows, real().rows);
    }

    #[test]
    fn modified_files_are_refused_with_the_reason() {
        let many_rows = format!("\"base\": [{}0.0]", "1.0,".repeat(10_000));
        let refusals = [
            refusal_of(&tampered("\"high\": 0.", "\"high\": 1e999, \"was\": 0.")),
            refusal_of(&tampered("comparison/v1", "comparison/v2")),
            refusal_of(&tampered("\"why\": \"", &format!("\"why\": \"{}", "A".repeat(20_000)))),
            refusal_of(&tampered("\"why\": \"", &format!("\"why\": \"{}", "A".repeat(10 << 20)))),
            refusal_of(&tampered("\"name\": \"serving_", "\"name\": \"../../serving_")),
            refusal_of(&tampered("\"head\": [", &format!("{many_rows}, \"head\": ["))),
            refusal_of(&tampered("\"case\": \"serving_", "\"case\": \"other_")),
            refusal_of(&tampered("\"repository\": \"", "\"repository\": \"evil/../")),
            refusal_of(&REAL[..REAL.len() / 2]),
            refusal_of(&tampered("\"unit\": \"", "\"unit\": \"\\u001b]8;;x")),
        ];
        insta::assert_snapshot!(refusals.join("\n"), @r"
        cannot read OUT/comparison.json: number out of range at line 130 column 16
        cannot read OUT/comparison.json: its schema is `vllm-perf/comparison/v2`: expected `vllm-perf/comparison/v1`
        cannot read OUT/comparison.json: a text of 20057 bytes: at most 16384 at line 135 column 20069
        cannot read OUT/comparison.json: it has 10500217 bytes; at most 8388608 are read
        cannot read OUT/comparison.json: the case name `../../serving_tinyllama_tp1_random_64_32_qps_inf_concurrency` could lead out of the folder
        cannot read OUT/comparison.json: a list of more than 10000 entries at line 120 column 40016
        cannot read OUT/comparison.json: a row names the case `other_tinyllama_tp1_random_64_32_qps_inf_concurrency_4`, which is not listed
        cannot read OUT/comparison.json: `evil/../octo-org/octo-repo` is not a repository
        cannot read OUT/comparison.json: EOF while parsing a string at line 319 column 4
        cannot read OUT/comparison.json: the unit `\u{1b}]8;;xtok/s` contains control characters
        ");
    }

    #[test]
    fn longer_lists_than_a_run_writes_are_refused_with_the_reason() {
        let with = |change: &dyn Fn(&mut Comparison)| {
            let mut comparison = real();
            change(&mut comparison);
            refusal_of(&serde_json::to_string(&comparison).unwrap())
        };
        let problem = Problem { side: Side::Head, repetition: 1, reason: "x".into() };
        let slices = |slices| ServerSlices { cases: 1, slices, restart_seconds: Some(9.0), slice_seconds: Some(3.0) };
        let refusals = [
            with(&|it| it.rows[0].base = vec![Some(RepetitionValue::One(1.0)); 101]),
            with(&|it| {
                let values = vec![Some(RepetitionValue::One(1.0)); 100];
                let row = Row { base: values.clone(), head: values, ..it.rows[0].clone() };
                it.rows = vec![row; 1001];
            }),
            with(&|it| it.conduct.notices = vec!["x".into(); 21]),
            with(&|it| it.conduct.slices = vec![slices(1); 2 * it.cases.len() + 1]),
            with(&|it| it.conduct.slices = vec![slices(17)]),
            with(&|it| it.cases[0].problems = vec![problem.clone(); 201]),
            with(&|it| it.subject.head.as_mut().unwrap().server_args = vec!["x".into(); 101]),
            with(&|it| it.subject.event.as_mut().unwrap().labels = vec!["x".into(); 101]),
            with(&|it| it.cases.push(it.cases[0].clone())),
        ];
        insta::assert_snapshot!(refusals.join("\n"), @r"
        cannot read OUT/comparison.json: 101 values of a row on one side: at most 100
        cannot read OUT/comparison.json: 200200 values: at most 200000
        cannot read OUT/comparison.json: 21 notices: at most 20
        cannot read OUT/comparison.json: 5 servers with slices: at most 4
        cannot read OUT/comparison.json: 17 slices of a repetition: at most 16
        cannot read OUT/comparison.json: 201 failures of a case: at most 200
        cannot read OUT/comparison.json: 101 server arguments: at most 100
        cannot read OUT/comparison.json: 101 labels: at most 100
        cannot read OUT/comparison.json: two of its cases have the same name
        ");
    }

    #[test]
    fn a_link_a_folder_a_pipe_and_a_missing_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let missing = sentence(folder.path());
        symlink("/etc/passwd", &path).unwrap();
        let link = sentence(folder.path());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let directory = sentence(folder.path());
        fs::remove_dir(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let pipe = sentence(folder.path());
        insta::assert_snapshot!([missing, link, directory, pipe].join("\n"), @r"
        cannot read OUT/comparison.json: is this the output folder of a run?: No such file or directory (os error 2)
        cannot read OUT/comparison.json: it is a symbolic link; only regular files are read
        cannot read OUT/comparison.json: it is not a regular file
        cannot read OUT/comparison.json: it is not a regular file
        ");
    }
}
