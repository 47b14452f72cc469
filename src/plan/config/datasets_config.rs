//! `datasets` in the config file: where the data sets that test files name are looked for.

use std::path::PathBuf;

use indexmap::IndexMap;

use super::FOLDER;
use super::scalar::{Scalar, valid};
use super::section::{Keys, Section, Walk};
use super::value_kinds::{ListOf, MapOf, Optional};
use crate::names::Repository;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatasetsConfig {
    /// Of this machine.
    pub folders: Vec<PathBuf>,
    /// By the name of the file.
    pub files: IndexMap<String, DatasetFile>,
}

/// A file that is a data set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatasetFile {
    /// The repository of the Hugging Face hub that has it.
    pub repository: Option<String>,
    pub sha256: Option<String>,
}

impl Section for DatasetsConfig {
    fn keys(&mut self, walk: &mut impl Walk) {
        walk.key(
            "folders",
            "Folders of this machine in which data sets are looked for, after the folder of the run, that of the suite and the Hugging Face cache.",
            &mut self.folders,
            ListOf { of: FOLDER, item: None },
        );
        walk.key(
            "files",
            "By file name, where a data set is downloaded from and its checksum. The repository of ShareGPT is known.",
            &mut self.files,
            MapOf { key: NAME, value: Keys::default(), default: |_| DatasetFile::default(), item: None },
        );
    }
}

impl Section for DatasetFile {
    fn keys(&mut self, walk: &mut impl Walk) {
        walk.key(
            "repository",
            "Repository of data sets on the Hugging Face hub that has the file, `owner/name`.",
            &mut self.repository,
            Optional { value: REPOSITORY, none: "that of a known data set" },
        );
        walk.key(
            "sha256",
            "Checksum of the file. A file with another one is not used.",
            &mut self.sha256,
            Optional { value: SHA256, none: "not checked" },
        );
    }
}

const NAME: Scalar<String> = Scalar::text("the name of a file", r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$", |text| {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let is_name = plain && (1..=200).contains(&text.len()) && !text.starts_with(['.', '-']);
    valid(is_name, text, "the name of a file: expected letters, digits and ._-")
});

const REPOSITORY: Scalar<String> =
    Scalar::text("a repository", "^[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}$", |text| {
        valid(Repository::is_valid(text), text, "a repository: expected `owner/name`")
    });

const SHA256: Scalar<String> = Scalar::text("a checksum", "^[0-9a-f]{64}$", |text| {
    let is_sha256 = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    valid(is_sha256, text, "a checksum: expected the 64 digits that `sha256sum` prints")
});
