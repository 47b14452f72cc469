//! Finds the config file and reads its text.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::exit::{Classify, Exit};
use crate::plan::config::LONGEST_FILE;
use crate::system::regular_file;

/// Where a repository may keep its config file, relative to its root.
pub const PLACES: [&str; 3] = ["vllm-perf.yml", ".github/vllm-perf.yml", ".buildkite/vllm-perf.yml"];

/// A config file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    pub path: PathBuf,
    pub text: String,
}

/// The config file: `explicit` if it is given, else the one of [`PLACES`] below `root` that exists, if any.
///
/// # Errors
/// The user's mistake: `explicit` does not exist, two of the places have a file, or the file is not a text. At most
/// [`LONGEST_FILE`] bytes and one more are read. An external failure: the file cannot be read.
pub fn find(root: &Path, explicit: Option<&Path>) -> anyhow::Result<Option<ConfigFile>> {
    let paths: Vec<PathBuf> = match explicit {
        Some(path) => vec![path.to_owned()],
        None => PLACES.iter().map(|place| root.join(place)).filter(|path| path.exists()).collect(),
    };
    match paths.as_slice() {
        [] => Ok(None),
        [path] => read(path).map(|text| Some(ConfigFile { path: path.clone(), text })),
        [one, other, ..] => ambiguous(one, other).mistake(),
    }
}

fn ambiguous(one: &Path, other: &Path) -> anyhow::Result<Option<ConfigFile>> {
    bail!("both `{}` and `{}` exist: remove one, or choose with --config", one.display(), other.display())
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let limit = LONGEST_FILE as u64 + 1;
    regular_file::open_followed(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .and_then(|_| regular_file::utf8(bytes))
        .map_err(|error| (exit_of(error.kind()), error))
        .or_else(|(exit, error)| Err(error).exit(exit))
        .with_context(|| format!("cannot read the config file `{}`", path.display()))
}

fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::InvalidInput
        | ErrorKind::NotFound
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidData => Exit::Mistake,
        _ => Exit::World,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::exit;

    /// A repository with these files, each with its own name as a comment.
    fn repository(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::io::Write::write_all(&mut File::create(path).unwrap(), format!("# {file}\n").as_bytes()).unwrap();
        }
        root
    }

    #[test]
    fn a_file_in_each_place_is_found() {
        for place in PLACES {
            let root = repository(&[place]);
            let file = find(root.path(), None).unwrap().unwrap();
            assert_eq!(file, ConfigFile { path: root.path().join(place), text: format!("# {place}\n") });
        }
        assert_eq!(find(repository(&[]).path(), None).unwrap(), None);
    }

    #[test]
    fn two_files_are_a_mistake_unless_one_is_named() {
        let root = repository(&PLACES[1..]);
        let error = find(root.path(), None).unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake);
        let text = error.to_string().replace(&root.path().display().to_string(), "");
        assert_eq!(
            text,
            "both `/.github/vllm-perf.yml` and `/.buildkite/vllm-perf.yml` exist: remove one, or choose with --config"
        );
        let named = root.path().join(PLACES[2]);
        assert_eq!(find(root.path(), Some(&named)).unwrap().unwrap().path, named);
    }

    #[test]
    fn a_named_file_that_is_missing_or_not_a_text_is_a_mistake() {
        let root = repository(&["a/b"]);
        std::io::Write::write_all(&mut File::create(root.path().join("binary")).unwrap(), b"\xff\xfe\x00").unwrap();
        std::os::unix::fs::symlink("/dev/zero", root.path().join("zero")).unwrap();
        nix::unistd::mkfifo(&root.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for file in ["zero", "fifo", "missing.yml", "a", "a/b/c", "binary"] {
            let error = find(root.path(), Some(&root.path().join(file))).unwrap_err();
            assert_eq!(exit::of(&error), Exit::Mistake, "{file}: {error:#}");
            assert!(format!("{error:#}").contains(&format!("{file}`: ")), "{error:#}");
        }
    }
}
