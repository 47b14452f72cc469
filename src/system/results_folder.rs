//! Reads folders of result files, one folder a repetition. The folder may be untrusted: links are not followed, and no
//! file may be larger than [`LIMIT`].

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use vllm_verdict::repetition::Outcome;

use crate::exit::Classify;
use crate::result::case_files::{CaseFiles, Folder, kind_of};
use crate::result::{self, Commands, parse};
use crate::system::{output, perf_eval_folder, regular_file};

/// Largest file that is read, in bytes: 64 MiB. A detailed result has about 1 kB a request of 32 tokens.
pub const LIMIT: u64 = 64 << 20;

/// Reads `<case>.json` and `<case>.commands` of one repetition, with those of its further slices in `slice-2/` and so on; other
/// files are ignored. A result that cannot be read is a failed case with the reason, so that the other cases still count.
pub fn read_folder(dir: &Path) -> anyhow::Result<Folder> {
    let mut further: Vec<(u32, PathBuf)> = Vec::new();
    for entry in entries(dir)? {
        let slice = entry.file_name().to_str().and_then(output::slice_of);
        let is_folder = || entry.file_type().is_ok_and(|kind| kind.is_dir());
        further.extend(slice.filter(|_| is_folder()).map(|slice| (slice, entry.path())));
    }
    further.sort();
    let first = read_slice(dir)?;
    if further.is_empty() {
        return Ok(first);
    }
    let further = further.into_iter().map(|(_, path)| read_slice(&path)).collect::<anyhow::Result<Vec<Folder>>>()?;
    Ok(result::of_slices(&[vec![first], further].concat()))
}

fn read_slice(dir: &Path) -> anyhow::Result<Folder> {
    let mut names = Vec::new();
    for entry in entries(dir)? {
        let is_file = entry.file_type().with_context(|| format!("cannot read {}", entry.path().display()))?.is_file();
        names.extend(entry.file_name().into_string().ok().filter(|_| is_file));
    }
    names.sort();
    let mut folder = Folder::default();
    for name in &names {
        let Some(case) = name.strip_suffix(".json").or_else(|| name.strip_suffix(".commands")) else { continue };
        let Some(kind) = kind_of(case).filter(|_| !folder.cases.contains_key(case)) else { continue };
        let read = |suffix: &str| {
            let file = format!("{case}.{suffix}");
            names.binary_search(&file).ok().map(|_| read_text(&dir.join(file))).transpose()
        };
        let commands = read("commands").and_then(|text| {
            let Some(text) = text else { return Ok(Commands::default()) };
            let path = dir.join(format!("{case}.commands"));
            serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))
        });
        // Without its commands a result still has its numbers.
        let (commands, warning) = match commands {
            Ok(commands) => (commands, None),
            Err(error) => (Commands::default(), Some(format!("{error:#}"))),
        };
        let (text, unread) = match read("json") {
            Ok(text) => (text, None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let mut outcome = match (&text, unread) {
            (_, Some(unread)) => Outcome::Failed(unread),
            (Some(text), None) => parse(kind, text).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}"))),
            (None, None) => Outcome::Failed("the benchmark left no result file".to_owned()),
        };
        if let Outcome::Measured(measurement) = &mut outcome {
            measurement.warnings.extend(warning);
        }
        folder.cases.insert(case.to_owned(), CaseFiles { kind, text, commands, outcome });
    }
    perf_eval_folder::add(dir, &names, &mut folder);
    Ok(folder)
}

/// Reads the repetitions of a folder: its `01/ 02/ ...` in order, or else the folder itself as the only one. Of an
/// output folder, those of head. A folder without a single result is the user's mistake.
pub fn repetitions(dir: &Path) -> anyhow::Result<Vec<Folder>> {
    Ok(numbered_repetitions(dir)?.into_iter().map(|(_, folder)| folder).collect())
}

/// The same with their numbers.
pub fn numbered_repetitions(dir: &Path) -> anyhow::Result<Vec<(u32, Folder)>> {
    let read = |(number, path): (u32, PathBuf)| Ok((number, read_folder(&path)?));
    let folders = numbered(dir)?.into_iter().map(read).collect::<anyhow::Result<Vec<(u32, Folder)>>>()?;
    if folders.iter().all(|(_, folder)| folder.cases.is_empty()) {
        return Err(no_results(dir)).mistake();
    }
    Ok(folders)
}

/// The folders of [`repetitions`] with their numbers; 1 for a folder that is the only one.
pub fn numbered(dir: &Path) -> anyhow::Result<Vec<(u32, PathBuf)>> {
    let head = dir.join("head");
    let dir = if head.is_dir() { &head } else { dir };
    let mut numbered: Vec<(u32, PathBuf)> = Vec::new();
    for entry in entries(dir)? {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        numbered.extend(number.filter(|_| entry.path().is_dir()).map(|number| (number, entry.path())));
    }
    numbered.sort();
    Ok(match numbered.is_empty() {
        true => vec![(1, dir.to_owned())],
        false => numbered,
    })
}

/// The error for a folder without a result.
pub fn no_results(dir: &Path) -> anyhow::Error {
    anyhow!(
        "{} holds no results: expected serving_<test>_qps_<rate>_concurrency_<n>.json and the like, bench-<config>-conc-<n>.json of perf-eval, or folders 01/ 02/ ... of them",
        dir.display()
    )
}

fn entries(dir: &Path) -> anyhow::Result<Vec<fs::DirEntry>> {
    fs::read_dir(dir)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot read the results folder {}", dir.display()))
        .mistake()
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    regular_file::text_followed(path, LIMIT).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use vllm_verdict::case::Kind;
    use vllm_verdict::v1::CaseFacts;

    use super::*;
    use crate::result::case_files::{facts, kind_of};

    const UPSTREAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/results/upstream-run");

    #[test]
    fn an_upstream_folder_gives_its_cases_without_records_and_tables() {
        let folder = read_folder(Path::new(UPSTREAM)).unwrap();
        insta::assert_snapshot!(folder.cases.keys().cloned().collect::<Vec<_>>().join("\n"), @r"
        latency_tinyllama_tp1
        serving_tinyllama_tp1_random_256_16_qps_inf_concurrency_1
        serving_tinyllama_tp1_random_256_16_qps_inf_concurrency_4
        serving_tinyllama_tp1_random_256_16_qps_inf_concurrency_8
        serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_1
        serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_4
        serving_tinyllama_tp1_random_64_32_qps_inf_concurrency_8
        startup_tinyllama_tp1
        throughput_tinyllama_tp1
        ");
        assert!(folder.cases.values().all(|case| matches!(case.outcome, Outcome::Measured(_))));
        assert!(folder.cases.values().all(|case| case.commands.gpu_type == "cpu"));
        assert!(facts([&folder]).iter().all(|facts| facts.model == "models/tiny-llama"));
    }

    #[test]
    fn a_case_with_no_result_or_a_truncated_one_has_failed_and_the_others_count() {
        let dir = tempfile::tempdir().unwrap();
        let folder = read_folder(Path::new(UPSTREAM)).unwrap();
        for (name, text) in folder.files().unwrap() {
            match name.as_str() {
                "latency_tinyllama_tp1.json" => continue,
                "startup_tinyllama_tp1.json" => write(&dir.path().join(name), &text[..100]),
                _ => write(&dir.path().join(name), &text),
            }
        }
        let read = read_folder(dir.path()).unwrap();
        assert_eq!(read.cases.len(), folder.cases.len());
        let failures: Vec<&Outcome> =
            read.cases.values().map(|case| &case.outcome).filter(|it| matches!(it, Outcome::Failed(_))).collect();
        insta::assert_debug_snapshot!(failures, @r#"
        [
            Failed(
                "the benchmark left no result file",
            ),
            Failed(
                "cannot read the result as one of `startup`: EOF while parsing a list at line 4 column 22",
            ),
        ]
        "#);
    }

    #[test]
    fn an_empty_a_huge_and_an_unreadable_file_lose_only_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let whole = r#"{"tokens_per_second": 10.0, "requests_per_second": 1.0}"#;
        for name in ["good", "no_commands", "odd_commands"] {
            write(&path(&format!("throughput_{name}.json")), whole);
        }
        write(&path("throughput_no_commands.commands"), "");
        write(&path("throughput_odd_commands.commands"), "7");
        write(&path("throughput_empty.json"), "");
        write(&path("throughput_list.json"), "7");
        fs::File::create(path("throughput_huge.json")).unwrap().set_len(LIMIT + 1).unwrap();
        fs::File::create(path("throughput_huge.commands")).unwrap().set_len(LIMIT + 1).unwrap();
        std::io::Write::write_all(&mut fs::File::create(path("throughput_binary.json")).unwrap(), b"\xff{}").unwrap();
        let read = read_folder(dir.path()).unwrap();
        let told = |name: &str| match &read.cases[&format!("throughput_{name}")].outcome {
            Outcome::Measured(measurement) => measurement.warnings.join(", "),
            Outcome::Failed(reason) => format!("failed: {reason}"),
        };
        assert_eq!(told("good"), "");
        assert!(
            told("no_commands").starts_with("cannot read ") && told("odd_commands").contains("odd_commands.commands")
        );
        for (name, why) in [
            ("empty", "EOF while parsing a value"),
            ("list", "cannot read the result as one of `throughput`"),
            ("huge", "it has more than 67108864 bytes"),
            ("binary", "it is not UTF-8 text"),
        ] {
            assert!(told(name).starts_with("failed: ") && told(name).contains(why), "{}", told(name));
        }
    }

    #[test]
    fn numbered_folders_are_repetitions_in_numeric_order() {
        let dir = tempfile::tempdir().unwrap();
        for number in ["10", "02", "01", "notes"] {
            let folder = dir.path().join("head").join(number);
            fs::create_dir_all(&folder).unwrap();
            write(&folder.join("throughput_x.json"), &format!(r#"{{"tokens_per_second": {}}}"#, number.len()));
            write(&folder.join(format!("latency_{number}.commands")), "{}");
        }
        let repetitions = repetitions(dir.path()).unwrap();
        let first: Vec<&str> = repetitions.iter().map(|folder| folder.cases.keys().next().unwrap().as_str()).collect();
        assert_eq!(first, ["latency_01", "latency_02", "latency_10"]);
    }

    #[test]
    fn further_slices_are_read_with_their_repetition() {
        let dir = tempfile::tempdir().unwrap();
        for (folder, rate) in [("", 4.0), ("slice-3", 2.0), ("slice-2", 16.0), ("slice-x", 99.0)] {
            let folder = dir.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            write(&folder.join("throughput_x.json"), &format!(r#"{{"tokens_per_second": {rate}}}"#));
        }
        let folder = read_folder(dir.path()).unwrap();
        let Outcome::Measured(measurement) = &folder.cases["throughput_x"].outcome else { panic!("not measured") };
        assert_eq!(measurement.slices["tokens_per_second"], [4.0, 16.0, 2.0].map(Some));
        std::os::unix::fs::symlink(dir.path().join("slice-x"), dir.path().join("slice-4")).unwrap();
        assert_eq!(read_folder(dir.path()).unwrap(), folder, "a link is not followed");
    }

    #[test]
    fn a_folder_that_is_missing_or_empty_is_a_mistake() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("missing")] {
            let error = repetitions(&path).unwrap_err();
            assert_eq!(crate::exit::of(&error), crate::exit::Exit::Mistake, "{error:#}");
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(
            format!("{UPSTREAM}/latency_tinyllama_tp1.json"),
            dir.path().join("latency_tinyllama_tp1.json"),
        )
        .unwrap();
        assert!(read_folder(dir.path()).unwrap().cases.is_empty());
    }

    #[test]
    fn test_rate_and_concurrency_are_read_from_names_and_numbers_sort_as_numbers() {
        let named = |name: &str| {
            let facts = CaseFacts::named(name, kind_of(name).unwrap());
            (facts.test, facts.request_rate, facts.max_concurrency)
        };
        assert_eq!(named("serving_a_qps_0.5_concurrency_16"), ("serving_a".into(), Some("0.5".into()), Some(16)));
        assert_eq!(named("serving_a_qps_inf"), ("serving_a".into(), Some("inf".into()), None));
        assert_eq!(named("latency_a_qps_1"), ("latency_a_qps_1".into(), None, None));
        let mut folder = Folder::default();
        for concurrency in [16, 4] {
            let case = CaseFiles {
                kind: Kind::Serving,
                text: None,
                commands: Commands::default(),
                outcome: Outcome::Failed(String::new()),
            };
            folder.cases.insert(format!("serving_a_qps_inf_concurrency_{concurrency}"), case);
        }
        let order: Vec<Option<u64>> = facts([&folder]).iter().map(|facts| facts.max_concurrency).collect();
        assert_eq!(order, [Some(4), Some(16)]);
    }

    #[expect(clippy::disallowed_methods, reason = "a test lays out the folder that it reads")]
    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
    }
}
