//! Files that only this user can read, for options of a command whose value must not be seen in the list of processes.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use indexmap::IndexMap;
use tempfile::TempDir;

use crate::exit::Classify;
use crate::plan::suite::variable_names;

/// An option of `docker` whose value is the path of a private file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOption {
    /// `--env-file`: names and values reach a container, and no program of this machine.
    Variables(IndexMap<String, String>),
    /// `--security-opt seccomp=`: a profile.
    Seccomp(&'static str),
}

impl FileOption {
    /// The option, what stands before the path in its value, and the content of the file.
    fn parts(&self) -> Result<(&'static str, &'static str, String)> {
        let variables = match self {
            Self::Seccomp(profile) => return Ok(("--security-opt", "seccomp=", (*profile).to_owned())),
            Self::Variables(variables) => variables,
        };
        let mut content = String::new();
        for (name, value) in variables {
            variable_names::check_value(name, value).mistake()?;
            content.push_str(&format!("{name}={value}\n"));
        }
        Ok(("--env-file", "", content))
    }
}

/// A folder with the files of one command; dropping it removes it.
#[derive(Debug)]
pub struct PrivateFiles(TempDir);

impl PrivateFiles {
    /// Writes the files, and returns them with the words of the options.
    ///
    /// # Errors
    /// When a file cannot be written, or a value cannot be a line of a file of variables (the user's mistake, exit 2).
    pub fn write(options: &[FileOption]) -> Result<(Self, Vec<String>)> {
        let cannot = "cannot write the private files of a command";
        let only_ours = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("vllm-perf-").permissions(only_ours).tempdir().context(cannot)?;
        let mut words = Vec::new();
        for (number, option) in options.iter().enumerate() {
            let (option, prefix, content) = option.parts()?;
            let path = folder.path().join(number.to_string());
            let mut file = new(&path).context(cannot)?;
            file.write_all(content.as_bytes()).context(cannot)?;
            words.extend([option.to_owned(), format!("{prefix}{}", path.display())]);
        }
        Ok((Self(folder), words))
    }

    /// The folder of the files.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}

fn new(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_in_a_file_that_only_its_owner_reads_and_that_is_removed() {
        let variables = IndexMap::from([("A".to_owned(), "x y".to_owned()), ("B".to_owned(), String::new())]);
        let (files, words) = PrivateFiles::write(&[FileOption::Variables(variables)]).unwrap();
        let path = Path::new(&words[1]).to_owned();
        assert_eq!(
            (words[0].as_str(), std::fs::read_to_string(&path).unwrap().as_str()),
            ("--env-file", "A=x y\nB=\n")
        );
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(files.folder()).unwrap().permissions().mode() & 0o777, 0o700);
        drop(files);
        assert!(!path.exists());
    }

    #[test]
    fn a_value_that_would_be_two_lines_is_refused() {
        for value in ["x\nLD_PRELOAD=/evil.so", "x\r\nB=1", "x\0"] {
            let variables = IndexMap::from([("VLLM_A".to_owned(), value.to_owned())]);
            let error = PrivateFiles::write(&[FileOption::Variables(variables)]).unwrap_err().to_string();
            assert!(error.starts_with("the value of `VLLM_A` has a line break"), "{error}");
        }
    }
}
