//! Where external programs are: their absolute paths, from the operator's `PATH`.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::system::regular_file;

/// Most bytes of the first line of a script.
const LONGEST_LINE: u64 = 512;

/// `path` without empty and relative entries: a program would be looked for in the current folder, which may be a
/// checkout of a pull request.
pub fn absolute(path: &str) -> String {
    let entries: Vec<&str> = path.split(':').filter(|entry| entry.starts_with('/')).collect();
    entries.join(":")
}

/// The absolute path of the program `name` in the folders of `path`. A name with a folder is that path itself.
pub fn find(name: &Path, path: &str) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return Some(name.to_owned());
    }
    let is_program = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    absolute(path)
        .split(':')
        .filter(|folder| !folder.is_empty())
        .map(|folder| Path::new(folder).join(name))
        .find(is_program)
}

/// The absolute path of the program `name`, or the name where there is none: starting it fails then.
pub fn found(name: &str, path: Option<&str>) -> String {
    let found = find(Path::new(name), path.unwrap_or_default());
    found.as_deref().map(Path::as_os_str).and_then(OsStr::to_str).unwrap_or(name).to_owned()
}

/// The program that a script names in its first line.
pub fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut line = Vec::new();
    let file = regular_file::open_followed(script).ok()?;
    BufReader::new(file.take(LONGEST_LINE)).read_until(b'\n', &mut line).ok()?;
    let text = String::from_utf8(line).ok()?;
    let program = text.strip_prefix("#!")?.split_whitespace().next()?;
    Some(PathBuf::from(program)).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_and_empty_entries_of_the_path_are_not_searched() {
        for (path, expected) in [
            ("/usr/bin:/bin", "/usr/bin:/bin"),
            (".:/usr/bin::bin:./x:../y:~/z:/bin:", "/usr/bin:/bin"),
            (":", ""),
            ("", ""),
        ] {
            assert_eq!(absolute(path), expected, "{path}");
        }
    }

    #[test]
    fn a_program_is_an_executable_file_in_an_absolute_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        crate::system::output::write(&folder.path().join("docker"), b"").unwrap();
        std::fs::create_dir(folder.path().join("git")).unwrap();
        let path = format!("{root}:.:");
        assert_eq!(find(Path::new("docker"), &path), None, "it cannot be executed");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path().join("docker"), mode).unwrap();
        assert_eq!(find(Path::new("docker"), &path), Some(folder.path().join("docker")));
        assert_eq!(find(Path::new("git"), &path), None, "it is a folder");
        assert_eq!(find(Path::new("Cargo.toml"), ".:"), None);
        assert_eq!(find(Path::new("./docker"), ""), Some(PathBuf::from("./docker")));
        assert_eq!(found("docker", None), "docker");
    }
}
