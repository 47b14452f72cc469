//! The file of a case's data set, as its command names it.

use std::path::Path;

use super::client_flags::{FlagValue, is_flag, values};
use super::suite_case::Case;

/// Ends of names of data sets that are files. Other names are of the hub.
const ENDS: [&str; 5] = ["json", "jsonl", "txt", "csv", "parquet"];

/// The data set of a case, where it is a file. The last flag counts.
pub fn data_set_file(case: &Case) -> Option<&Path> {
    let named = values(&case.client.argv).into_iter().rev();
    let of_data_set = |it: &FlagValue<'_>| it.flag.len() > "--data".len() && is_flag(it.flag, "dataset-path");
    let path = Path::new(named.filter(of_data_set).map(|it| it.value).next()?);
    let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
    let is_file = ENDS.contains(&end) || path.is_absolute() || path.starts_with(".") || path.starts_with("..");
    is_file.then_some(path)
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
}
