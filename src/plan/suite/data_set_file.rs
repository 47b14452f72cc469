//! The file of a case's data set, as its command names it, and where it is on this machine.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::client_flags::{FlagValue, is_flag, values};
use super::suite_case::Case;

/// Ends of names of data sets that are files. Other names are of the hub.
const ENDS: [&str; 5] = ["json", "jsonl", "txt", "csv", "parquet"];

/// The data set of a case, where it is a file. The last flag counts.
pub fn data_set_file(case: &Case) -> Option<&Path> {
    let named = values(&case.client.argv).into_iter().rev();
    let of_data_set = |it: &FlagValue<'_>| names_data_set(it.flag);
    let path = Path::new(named.filter(of_data_set).map(|it| it.value).next()?);
    let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
    let is_file = ENDS.contains(&end) || path.is_absolute() || path.starts_with(".") || path.starts_with("..");
    is_file.then_some(path)
}

/// Where the data sets of cases are on this machine, by their names in the commands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataSetFiles(IndexMap<PathBuf, PathBuf>);

impl DataSetFiles {
    /// Notes the file of a data set.
    pub fn insert(&mut self, named: &Path, file: PathBuf) {
        self.0.insert(named.to_owned(), file);
    }

    /// The file of a data set.
    pub fn get(&self, named: &Path) -> Option<&Path> {
        self.0.get(named).map(PathBuf::as_path)
    }

    /// The command with the files in place of their names, for a program on this machine.
    pub fn placed(&self, argv: &[String]) -> Vec<String> {
        let file = |value: &str| self.get(Path::new(value)).and_then(Path::to_str);
        let mut is_value = false;
        let placed = argv.iter().map(|word| {
            let inside = word.split_once('=').filter(|(flag, _)| names_data_set(flag));
            let placed = match inside {
                Some((flag, value)) => file(value).map(|file| format!("{flag}={file}")),
                None if is_value => file(word).map(str::to_owned),
                None => None,
            };
            is_value = names_data_set(word);
            placed.unwrap_or_else(|| word.clone())
        });
        placed.collect()
    }
}

/// Whether a flag can be read as `--dataset-path`, and not as a shorter one.
fn names_data_set(flag: &str) -> bool {
    flag.len() > "--data".len() && is_flag(flag, "dataset-path")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(flags: &str) -> Option<String> {
        let case = Case::sample(&format!("vllm bench throughput --model m {flags}"));
        data_set_file(&case).map(|path| path.display().to_string())
    }

    #[test]
    fn a_data_set_is_a_file_or_a_name_of_the_hub() {
        for flags in
            ["--dataset ./a.json", "--dataset-path=./a.json --num-prompts 5", "--dataset x --dataset_path ./a.json"]
        {
            assert_eq!(file(flags).as_deref(), Some("./a.json"), "{flags}");
        }
        assert_eq!(file("--dataset-path /data/a").as_deref(), Some("/data/a"));
        assert_eq!(file("--dataset-path lines.jsonl").as_deref(), Some("lines.jsonl"));
        for flags in
            ["", "--dataset-path org/name", "--dataset-name sharegpt", "--dataset-path AI-MO/aimo-validation-aime"]
        {
            assert_eq!(file(flags), None, "{flags}");
        }
    }
    #[test]
    fn the_file_of_a_data_set_replaces_its_name_and_nothing_else() {
        let mut files = DataSetFiles::default();
        files.insert(Path::new("./a.json"), PathBuf::from("/d/a.json"));
        let placed = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            files.placed(&words).join(" ")
        };
        assert_eq!(
            placed("vllm bench --dataset-path ./a.json --seed 1"),
            "vllm bench --dataset-path /d/a.json --seed 1"
        );
        assert_eq!(placed("vllm bench --dataset=./a.json"), "vllm bench --dataset=/d/a.json");
        for kept in
            ["vllm bench --dataset-path ./b.json", "vllm bench ./a.json --model ./a.json", "vllm --dataset-path"]
        {
            assert_eq!(placed(kept), kept);
        }
    }
}
