//! The keys of objects in a store: only characters that every store keeps unchanged, and no `..`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};
use sha2::{Digest, Sha256};

/// Longest segment of a key, in bytes: a file system takes 255, with the name of a temporary file 20 fewer.
const SEGMENT_LIMIT: usize = 200;
/// Prefix of the name of a file of records.
const FILE: &str = "benchmark_results_";

/// The key of a model's records: `v3/OWNER/NAME/BRANCH/HASH/DEVICE_TYPE/benchmark_results_MODEL.json`. Characters that a key
/// cannot hold are replaced; the records have the real names of device and model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// `OWNER/NAME`.
    pub repository: String,
    pub branch: String,
    /// Full hash of the commit.
    pub commit: String,
    pub device_type: String,
    pub model: String,
}

impl RecordKey {
    /// The key for these names; a character that a key cannot hold becomes `_`.
    pub fn new(repository: &str, branch: &str, commit: &str, device_type: &str, model: &str) -> Self {
        let (owner, name) = repository.split_once('/').unwrap_or((repository, ""));
        Self {
            repository: format!("{}/{}", segment(owner), segment(name)),
            branch: segment(branch),
            commit: segment(commit),
            device_type: segment(device_type),
            model: segment(model),
        }
    }

    /// The prefix of the keys of a branch.
    pub fn branch_prefix(repository: &str, branch: &str) -> String {
        let key = Self::new(repository, branch, "", "", "");
        format!("v3/{}/{}", key.repository, key.branch)
    }

    /// The last segment of the key.
    pub fn file_name(&self) -> String {
        format!("{FILE}{}.json", self.model)
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { repository, branch, commit, device_type, .. } = self;
        write!(f, "v3/{repository}/{branch}/{commit}/{device_type}/{}", self.file_name())
    }
}

impl FromStr for RecordKey {
    type Err = Error;

    /// # Errors
    /// It is not the key of records.
    fn from_str(key: &str) -> Result<Self> {
        let read = || {
            check(key).ok()?;
            let segments: Vec<&str> = key.split('/').collect();
            let ["v3", owner, name, branch, commit, device_type, file] = segments.as_slice() else { return None };
            let model = file.strip_prefix(FILE)?.strip_suffix(".json")?;
            Some(Self {
                repository: format!("{owner}/{name}"),
                branch: (*branch).to_owned(),
                commit: (*commit).to_owned(),
                device_type: (*device_type).to_owned(),
                model: model.to_owned(),
            })
        };
        let expected = "v3/OWNER/NAME/BRANCH/HASH/DEVICE_TYPE/benchmark_results_MODEL.json";
        read().with_context(|| format!("`{key}` is not a key of records: expected `{expected}`"))
    }
}

/// Whether every store keeps a key unchanged.
///
/// # Errors
/// It has a character that some store encodes, or a segment that is empty, only dots, or too long.
pub fn check(key: &str) -> Result<()> {
    let shown: String = key.chars().take(80).collect();
    for segment in key.split('/') {
        ensure!(
            !segment.is_empty() && !segment.bytes().all(|byte| byte == b'.'),
            "`{shown}` has a segment that is empty or only dots"
        );
        ensure!(segment.chars().all(is_allowed), "`{shown}` has a character other than A-Z a-z 0-9 . _ - /");
        ensure!(segment.len() < 256, "`{shown}` has a segment of more than 255 characters");
    }
    Ok(())
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || "._-".contains(character)
}

/// One segment of a key. A long text is cut and gets a hash of the whole at its end, so that two long texts differ.
pub fn segment(text: &str) -> String {
    let segment: String = text.chars().map(|character| if is_allowed(character) { character } else { '_' }).collect();
    // `.` and `..` are paths, not names.
    if segment.bytes().all(|byte| byte == b'.') {
        return "_".repeat(segment.len().max(1));
    }
    if segment.len() <= SEGMENT_LIMIT {
        return segment;
    }
    let hash: String = Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{hash}", &segment[..SEGMENT_LIMIT - hash.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    fn key(repository: &str, branch: &str, device_type: &str, model: &str) -> RecordKey {
        RecordKey::new(repository, branch, HASH, device_type, model)
    }

    #[test]
    fn a_key_has_no_encoded_character_and_no_parent_folder() {
        let gpu = key("vllm-project/vllm", "main", "NVIDIA H100 80GB HBM3", "meta-llama/Meta-Llama-3.1-8B-Instruct");
        assert_eq!(
            gpu.to_string(),
            "v3/vllm-project/vllm/main/0123456789abcdef0123456789abcdef01234567/NVIDIA_H100_80GB_HBM3/benchmark_results_meta-llama_Meta-Llama-3.1-8B-Instruct.json"
        );
        let hostile = key("../..", "..", "AMD_EPYC_2c", "../../é%2e");
        assert_eq!(
            hostile.to_string(),
            "v3/__/__/__/0123456789abcdef0123456789abcdef01234567/AMD_EPYC_2c/benchmark_results_.._..___2e.json"
        );
    }

    #[test]
    fn every_key_of_records_is_valid_and_reads_back() {
        let long = "x".repeat(10_000);
        for name in ["a/b", "../", "'\"", "🚀 fast", "a;b", "a+b", "<script>", "", ".", "a\nb", &long] {
            for key in [
                key("vllm-project/vllm", "main", "cpu", name),
                key("vllm-project/vllm", name, "cpu", "m"),
                key("vllm-project/vllm", "main", name, "m"),
                key(name, "main", "cpu", "m"),
            ] {
                let text = key.to_string();
                check(&text).unwrap();
                assert_eq!(text.parse::<RecordKey>().unwrap(), key, "{text}");
            }
        }
    }

    #[test]
    fn two_long_names_with_the_same_beginning_differ() {
        let of = |end: &str| key("a/b", "main", "cpu", &format!("{}{end}", "x".repeat(10_000)));
        assert_ne!(of("1"), of("2"));
    }

    #[test]
    fn a_text_that_is_not_a_key_of_records_is_refused() {
        for text in [
            "",
            "v3/a/b/main/c/cpu/results.json",
            "v3/a/b/main/c/benchmark_results_m.json",
            "v2/a/b/main/c/cpu/benchmark_results_m.json",
            "noise/cpu/a.json",
            "v3/a/b/../c/cpu/benchmark_results_m.json",
        ] {
            assert!(text.parse::<RecordKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_prefix_of_a_branch_is_where_its_keys_are() {
        let prefix = RecordKey::branch_prefix("vllm-project/vllm", "feature/x");
        assert_eq!(prefix, "v3/vllm-project/vllm/feature_x");
        assert!(key("vllm-project/vllm", "feature/x", "cpu", "m").to_string().starts_with(&format!("{prefix}/")));
    }
}
