//! Results as vllm-project/perf-eval keeps them: `bench-<run>.json`, and for a run that was repeated on one server
//! `bench-<run>-run-<n>.json`, of which the former holds medians. They are read as they are named.

use std::collections::BTreeMap;
use std::path::Path;

use vllm_verdict::case::Kind;
use vllm_verdict::repetition::Outcome;

use crate::result::case_files::{CaseFiles, Folder, is_run};
use crate::result::{self, Commands};
use crate::system::regular_file::{self, RESULT_LIMIT};

/// Most repetitions of a run on one server.
const MOST_REPETITIONS: u32 = 99;

/// Adds the runs of perf-eval in `dir`, which has files of these `names`. Repetitions on one server are slices of one
/// repetition. A file that cannot be read is a failed one, so that the others still count.
pub(super) fn add(dir: &Path, names: &[String], folder: &mut Folder) {
    let mut runs: BTreeMap<&str, BTreeMap<Option<u32>, &str>> = BTreeMap::new();
    for name in names {
        if let Some((run, number)) = artefact(name) {
            runs.entry(run).or_default().insert(number, name);
        }
    }
    for (run, files) in runs {
        if folder.cases.contains_key(run) {
            continue;
        }
        let last = files.keys().flatten().next_back().copied();
        let numbers: Vec<Option<u32>> = last.map_or_else(|| vec![None], |last| (1..=last).map(Some).collect());
        let slices = numbers.into_iter().map(|number| {
            let files = files.get(&number).map_or_else(|| missing(run, number), |name| read(&dir.join(name)));
            Folder { cases: [(run.to_owned(), files)].into_iter().collect() }
        });
        folder.cases.extend(result::of_slices(&slices.collect::<Vec<Folder>>()).cases);
    }
    folder.cases.sort_unstable_keys();
}

/// The run in the name of a file, and the number of its repetition; none for the file of all repetitions.
fn artefact(name: &str) -> Option<(&str, Option<u32>)> {
    let run = name.strip_prefix("bench-")?.strip_suffix(".json")?;
    if is_run(run) {
        return Some((run, None));
    }
    let (run, number) = run.rsplit_once("-run-")?;
    let number = number.parse().ok().filter(|number| (1..=MOST_REPETITIONS).contains(number))?;
    is_run(run).then_some((run, Some(number)))
}

fn read(path: &Path) -> CaseFiles {
    match regular_file::text(path, RESULT_LIMIT) {
        Ok(text) => {
            let outcome = result::parse(Kind::Serving, &text);
            files(Some(text), outcome.unwrap_or_else(|error| Outcome::Failed(format!("{error:#}"))))
        }
        Err(error) => files(None, Outcome::Failed(format!("cannot read {}: {error}", path.display()))),
    }
}

fn missing(run: &str, number: Option<u32>) -> CaseFiles {
    let number = number.unwrap_or_default();
    files(None, Outcome::Failed(format!("`bench-{run}-run-{number}.json` is missing")))
}

fn files(text: Option<String>, outcome: Outcome) -> CaseFiles {
    CaseFiles { kind: Kind::Serving, text, commands: Commands::default(), outcome }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::output;
    use crate::system::results_folder::read_folder;

    fn serving(throughput: f64) -> String {
        format!(
            r#"{{"model_id": "m", "num_prompts": 4, "max_concurrency": 8, "completed": 4, "failed": 0, "duration": 1.0,
            "total_input_tokens": 32, "total_output_tokens": 32, "request_throughput": 4.0, "output_throughput": {throughput},
            "total_token_throughput": 64.0, "mean_ttft_ms": 4.0, "median_ttft_ms": 4.0, "p99_ttft_ms": 5.0,
            "mean_tpot_ms": 1.0, "median_tpot_ms": 1.0, "p99_tpot_ms": 2.0, "aggregation_method": "median"}}"#
        )
    }

    fn read_files(files: &[(&str, &str)]) -> Folder {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            output::write(&dir.path().join(name), text.as_bytes()).unwrap();
        }
        read_folder(dir.path()).unwrap()
    }

    fn slices(folder: &Folder, case: &str) -> Vec<Option<f64>> {
        let Outcome::Measured(measurement) = &folder.cases[case].outcome else { panic!("not measured") };
        measurement.slices.get("output_throughput").cloned().unwrap_or_default()
    }

    #[test]
    fn names_are_those_of_perf_eval() {
        assert_eq!(artefact("bench-8k-in-1k-out-conc-128.json"), Some(("8k-in-1k-out-conc-128", None)));
        assert_eq!(artefact("bench-8k-in-1k-out-conc-128-run-3.json"), Some(("8k-in-1k-out-conc-128", Some(3))));
        assert_eq!(artefact("bench-a-run-2-conc-4.json"), Some(("a-run-2-conc-4", None)));
        for name in [
            "bench-a.json",
            "bench-a-conc-x.json",
            "bench--conc-1.txt",
            "bench-a-conc-1-run-0.json",
            "bench-a-conc-1-run-100.json",
            "a-conc-1.json",
            "bench-a-conc-1-run-1.json.failed",
        ] {
            assert_eq!(artefact(name), None, "{name}");
        }
    }

    #[test]
    fn repetitions_on_one_server_are_slices_and_the_file_of_medians_is_not_one() {
        let (one, two, three) = (serving(10.0), serving(40.0), serving(20.0));
        let folder = read_files(&[
            ("bench-a-conc-8.json", &serving(99.0)),
            ("bench-a-conc-8-run-1.json", &one),
            ("bench-a-conc-8-run-2.json", &two),
            ("bench-a-conc-8-run-3.json", &three),
            ("bench-b-conc-8.json", &one),
            ("results_2026.json", "{}"),
        ]);
        assert_eq!(folder.cases.keys().collect::<Vec<_>>(), ["a-conc-8", "b-conc-8"]);
        assert_eq!(slices(&folder, "a-conc-8"), [10.0, 40.0, 20.0].map(Some));
        assert_eq!(slices(&folder, "b-conc-8"), []);
    }

    #[test]
    fn a_repetition_that_is_missing_or_broken_is_a_failed_slice() {
        let one = serving(10.0);
        let folder = read_files(&[
            ("bench-a-conc-8-run-1.json", &one),
            ("bench-a-conc-8-run-3.json", &one),
            ("bench-b-conc-8-run-1.json", "{"),
            ("bench-b-conc-8-run-2.json", &one),
            ("bench-c-conc-8.json", "7"),
        ]);
        assert_eq!(slices(&folder, "a-conc-8"), [Some(10.0), None, Some(10.0)]);
        assert_eq!(slices(&folder, "b-conc-8"), [None, Some(10.0)]);
        assert!(matches!(&folder.cases["c-conc-8"].outcome, Outcome::Failed(_)));
    }
}
