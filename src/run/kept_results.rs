//! The results that a resumed run can keep. Cases that failed, and cases whose files were lost or damaged, are measured
//! again.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;
use vllm_verdict::case::Kind;
use vllm_verdict::number::plural;
use vllm_verdict::repetition::Outcome;
use vllm_verdict::strategy::{Pass, Phase};

use super::journal::{Entry, Journal, Lost};
use crate::plan::Plan;
use crate::result::{self, Commands};
use crate::system::output::{self, OutputFolder};
use crate::system::regular_file::{self, RESULT_LIMIT};

/// Forgets the cases that are measured again; returns which and why.
pub fn check(plan: &Plan, out: &OutputFolder, journal: &mut Journal) -> Lost {
    let mut lost = Lost::new();
    let mut failed = 0;
    // What a screen found decides what is repeated: it stays as it was once the repetitions have begun.
    let is_screened = journal.entries().iter().any(|entry| entry.phase != Phase::Screen);
    journal.measure_again(|entry| match &entry.failed {
        Some(_) => {
            let is_again = entry.phase != Phase::Screen || !is_screened;
            failed += usize::from(is_again);
            is_again
        }
        None => {
            let damage = damage(plan, out, entry);
            lost.extend(damage.as_ref().map(|damage| format!("{damage}: {} is measured again", entry.case)));
            damage.is_some()
        }
    });
    if failed > 0 {
        lost.push(format!("{} failed before and {} measured again", plural(failed, "case run"), are(failed)));
    }
    lost
}

fn are(number: usize) -> &'static str {
    if number == 1 { "is" } else { "are" }
}

/// What is wrong with the files of a case that has a result, if anything is.
fn damage(plan: &Plan, out: &OutputFolder, entry: &Entry) -> Option<String> {
    // A probe of a search is not in the plan.
    let kind = plan.cases.iter().find(|case| case.name == entry.case).map_or(Kind::Serving, |case| case.kind);
    let pass = Pass { phase: entry.phase, pair: entry.repetition };
    let folder = output::slice(&out.pass(entry.side, pass), entry.slice);
    let damaged = |suffix: &str, is_needed: bool, is_whole: &dyn Fn(&str) -> bool| {
        let path = folder.join(format!("{}.{suffix}", entry.case));
        let problem = problem(&path, is_needed, is_whole)?;
        Some(format!("`{}` {problem}", path.strip_prefix(out.root()).unwrap_or(&path).display()))
    };
    damaged("json", true, &|text| matches!(result::parse(kind, text), Ok(Outcome::Measured(_))))
        .or_else(|| damaged("commands", true, &|text| serde_json::from_str::<Commands>(text).is_ok()))
        .or_else(|| damaged("pytorch.json", false, &|text| serde_json::from_str::<Value>(text).is_ok()))
}

fn problem(path: &Path, is_needed: bool, is_whole: &dyn Fn(&str) -> bool) -> Option<String> {
    match regular_file::text(path, RESULT_LIMIT) {
        Ok(text) if text.is_empty() => Some("is empty".to_owned()),
        Ok(text) => (!is_whole(&text)).then(|| "is damaged".to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => is_needed.then(|| "is missing".to_owned()),
        Err(error) => Some(format!("cannot be read ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use vllm_verdict::side::Side;

    use super::*;
    use crate::plan::suite::Case;

    fn entry(order: u64, phase: Phase, repetition: u32, failed: Option<&str>) -> Entry {
        Entry {
            order,
            phase,
            repetition,
            side: Side::Head,
            case: "throughput_a".to_owned(),
            slice: 1,
            started: "2026-01-02T03:04:05Z".to_owned(),
            seconds: 1.0,
            failed: failed.map(str::to_owned),
        }
    }

    struct Folder {
        _folder: tempfile::TempDir,
        plan: Plan,
        out: OutputFolder,
    }

    /// An output folder with the whole results of two repetitions of head.
    fn folder() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        let out = OutputFolder::at(folder.path());
        for pair in [1, 2] {
            let pass = out.pass(Side::Head, Pass { phase: Phase::Pairs, pair });
            let text = r#"{"elapsed_time": 1.0, "num_requests": 4, "total_num_tokens": 40,
                "requests_per_second": 4.0, "tokens_per_second": 40.0}"#;
            output::write(&pass.join("throughput_a.json"), text.as_bytes()).unwrap();
            output::write(&pass.join("throughput_a.commands"), b"{\"gpu_type\": \"cpu\"}").unwrap();
        }
        let case =
            Case { name: "throughput_a".to_owned(), kind: Kind::Throughput, ..Case::sample("vllm bench throughput") };
        let plan = Plan { cases: vec![case], ..Plan::sample() };
        Folder { _folder: folder, plan, out }
    }

    fn journal(entries: impl IntoIterator<Item = Entry>) -> Journal {
        let mut journal = Journal::in_memory();
        entries.into_iter().for_each(|entry| journal.append(entry).unwrap());
        journal
    }

    #[test]
    fn a_lost_empty_or_damaged_file_of_a_case_is_named_and_only_that_case_is_measured_again() {
        type Damage<'a> = (&'a str, &'a dyn Fn(&Path), &'a str);
        let write = |content: &'static [u8]| move |path: &Path| output::write(path, content).unwrap();
        let cases: [Damage<'_>; 6] = [
            ("throughput_a.json", &write(b""), "is empty"),
            ("throughput_a.json", &write(b"{\"elapsed_ti"), "is damaged"),
            ("throughput_a.json", &write(b"\xff\xff"), "cannot be read"),
            ("throughput_a.json", &|path| std::fs::remove_file(path).unwrap(), "is missing"),
            ("throughput_a.commands", &write(b""), "is empty"),
            ("throughput_a.pytorch.json", &write(b"[{"), "is damaged"),
        ];
        for (name, damage, said) in cases {
            let Folder { _folder, plan, out } = folder();
            let mut journal = journal([entry(1, Phase::Pairs, 1, None), entry(2, Phase::Pairs, 2, None)]);
            damage(&out.repetition(Side::Head, 2).join(name));
            let lost = check(&plan, &out, &mut journal);
            assert!(lost.len() == 1 && lost[0].starts_with(&format!("`head/02/{name}` {said}")), "{name}: {lost:?}");
            assert_eq!(journal.entries().iter().map(|entry| entry.repetition).collect::<Vec<_>>(), [1]);
        }
    }

    #[test]
    fn of_a_repetition_only_the_lost_slice_is_measured_again() {
        let Folder { _folder, plan, out } = folder();
        let second = Entry { slice: 2, ..entry(2, Phase::Pairs, 1, None) };
        let mut journal = journal([entry(1, Phase::Pairs, 1, None), second]);
        let lost = check(&plan, &out, &mut journal);
        assert_eq!(lost, ["`head/01/slice-2/throughput_a.json` is missing: throughput_a is measured again"]);
        assert_eq!(journal.entries().iter().map(|entry| entry.slice).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn whole_results_are_kept_without_a_word() {
        let Folder { _folder, plan, out } = folder();
        let mut journal = journal([entry(1, Phase::Pairs, 1, None), entry(2, Phase::Pairs, 2, None)]);
        assert_eq!(check(&plan, &out, &mut journal), Lost::new());
        assert_eq!(journal.entries().len(), 2);
    }

    #[test]
    fn failed_cases_are_measured_again_except_those_of_a_screen_that_was_acted_on() {
        let Folder { _folder, plan, out } = folder();
        let screen = entry(1, Phase::Screen, 1, Some("it crashed"));
        let mut only = journal([screen.clone()]);
        assert_eq!(check(&plan, &out, &mut only), ["1 case run failed before and is measured again"]);
        let mut both =
            journal([screen, entry(2, Phase::Pairs, 1, Some("it crashed")), entry(3, Phase::Pairs, 2, None)]);
        assert_eq!(check(&plan, &out, &mut both), ["1 case run failed before and is measured again"]);
        assert_eq!(both.entries().iter().map(|entry| entry.order).collect::<Vec<_>>(), [1, 3]);
    }
}
