//! Finds the config file and reads it. World: the file system, nothing else.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::exit::{Classify, Exit};
use crate::plan::config::LONGEST_FILE;

/// Where a repository may keep its config file, relative to its root.
pub const PLACES: [&str; 3] = ["vllm-perf.yml", ".github/vllm-perf.yml", ".buildkite/vllm-perf.yml"];

/// The config file's path and text: `explicit` where it is given, else the one of [`PLACES`] below `root` that exists.
/// Without any there is none, and the defaults hold.
///
/// # Errors
/// The user's mistake: `explicit` does not exist, two places have a file, or the file is no text of at most
/// [`LONGEST_FILE`] bytes. The world's: the file cannot be read.
pub fn find(root: &Path, explicit: Option<&Path>) -> anyhow::Result<Option<(PathBuf, String)>> {
    let found: Vec<PathBuf> = match explicit {
        Some(path) => vec![path.to_owned()],
        None => PLACES.iter().map(|place| root.join(place)).filter(|path| path.exists()).collect(),
    };
    match found.as_slice() {
        [] => Ok(None),
        [path] => read(path).map(|text| Some((path.clone(), text))),
        [one, other, ..] => two(one, other).mistake(),
    }
}

fn two(one: &Path, other: &Path) -> anyhow::Result<Option<(PathBuf, String)>> {
    bail!("both `{}` and `{}` exist: remove one, or choose with --config", one.display(), other.display())
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let limit = LONGEST_FILE as u64 + 1;
    File::open(path)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .map_err(|error| (blame(error.kind()), error))
        .or_else(|(exit, error)| Err(error).exit(exit))
        .with_context(|| format!("cannot read the config file `{}`", path.display()))?;
    Ok(text)
}

fn blame(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::InvalidData => {
            Exit::Mistake
        }
        _ => Exit::World,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    /// A repository with these files, all empty but for their own name.
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
    fn each_place_is_looked_at() {
        for place in PLACES {
            let root = repository(&[place]);
            let (path, text) = find(root.path(), None).unwrap().unwrap();
            assert_eq!((path, text), (root.path().join(place), format!("# {place}\n")));
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
        assert_eq!(find(root.path(), Some(&named)).unwrap().unwrap().0, named);
    }

    #[test]
    fn a_named_file_that_is_missing_or_no_text_is_a_mistake() {
        let root = repository(&["a/b"]);
        std::io::Write::write_all(&mut File::create(root.path().join("binary")).unwrap(), b"\xff\xfe\x00").unwrap();
        for file in ["nowhere.yml", "a", "a/b/c", "binary"] {
            let error = find(root.path(), Some(&root.path().join(file))).unwrap_err();
            assert_eq!(exit::of(&error), Exit::Mistake, "{file}: {error:#}");
            assert!(format!("{error:#}").contains(&format!("{file}`: ")), "{error:#}");
        }
    }
}
