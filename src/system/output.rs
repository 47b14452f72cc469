//! The output folder: its layout, and atomic writes.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::{Pass, Phase};

use crate::exit::Classify;

/// Beginning of the names that files have while they are written.
const TEMPORARY: &str = ".vllm-perf-";

/// Beginning of the name of a slice's folder.
const SLICE: &str = "slice-";

/// Deletes the files that a killed process was writing directly in a folder.
///
/// # Errors
/// When one cannot be deleted.
pub fn delete_unfinished(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) && entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes a file under a temporary name in its folder, then renames it: it is there completely or not at all, also after a
/// power cut. It is on disk when this returns.
///
/// # Errors
/// When the folder cannot be made or the file cannot be written.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    place(path, content, true)
}

/// [`write`] without waiting for the disk, for files that are easily made again.
///
/// # Errors
/// As of [`write`].
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    place(path, content, false)
}

/// Deletes a file, if it is there.
///
/// # Errors
/// When it cannot be deleted.
pub fn delete(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// The `.json` files directly in a folder whose names are wanted, in order; none without the folder.
///
/// # Errors
/// When the folder cannot be read, or has more than `most` of them.
pub fn json_files(folder: &Path, most: usize, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read the folder `{}`", folder.display());
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(cannot)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(cannot)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|end| end == "json") && is_wanted(&name) {
            paths.push(path);
        }
        ensure!(paths.len() <= most, "`{}` has more than {most} such files", folder.display());
    }
    paths.sort();
    Ok(paths)
}

/// Waits until the names in a folder are on disk. A file system that cannot do that for folders is not an error.
///
/// # Errors
/// When the folder cannot be opened, or the disk fails.
pub fn sync_folder(folder: &Path) -> std::io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

fn place(path: &Path, content: &[u8], is_synced: bool) -> Result<()> {
    let cannot = || format!("cannot write `{}`", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(cannot)?;
    let mut file = match tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied && path.is_file() => {
            return overwrite(path, content).with_context(cannot);
        }
        file => file.with_context(cannot)?,
    };
    file.write_all(content).with_context(cannot)?;
    let mut permissions = file.as_file().metadata().with_context(cannot)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    file.as_file().set_permissions(permissions).with_context(cannot)?;
    if is_synced {
        // The content is on disk before its name is.
        file.as_file().sync_all().with_context(cannot)?;
    }
    file.persist(path).with_context(cannot)?;
    if is_synced {
        sync_folder(folder).with_context(cannot)?;
    }
    Ok(())
}

/// Writes a file where it is: in the folder for the results of a container, it may make no other (`exchange.rs`).
fn overwrite(path: &Path, content: &[u8]) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).truncate(true).open(path)?.write_all(content)
}

/// Makes `folder`, below `root`, and returns its absolute path. A link on the way would lead what is written to another
/// place.
///
/// # Errors
/// Something other than a folder is on the way (the user's mistake, exit 2), or a folder cannot be made (exit 4).
pub fn make_folders(root: &Path, folder: &Path) -> Result<PathBuf> {
    let cannot = || format!("cannot make the folder `{}`", folder.display());
    std::fs::create_dir_all(root).with_context(cannot).world()?;
    let mut path = root.canonicalize().with_context(cannot).world()?;
    for part in folder.strip_prefix(root).with_context(cannot)? {
        path.push(part);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(anyhow!("`{}` is not a folder: remove it", path.display())).mistake(),
            Err(_) => {
                std::fs::create_dir(&path).with_context(cannot).world()?;
                path.parent().map_or(Ok(()), sync_folder).with_context(cannot).world()?;
            }
        }
    }
    Ok(path)
}

/// The folder of a slice of the repetition in `folder`: the first one has that of the repetition.
pub fn slice(folder: &Path, slice: u32) -> PathBuf {
    if slice < 2 { folder.to_owned() } else { folder.join(format!("{SLICE}{slice}")) }
}

/// The slice whose folder has this name; none of the first one.
pub fn slice_of(name: &str) -> Option<u32> {
    let slice = name.strip_prefix(SLICE)?.parse().ok()?;
    (slice > 1 && name == format!("{SLICE}{slice}")).then_some(slice)
}

/// The paths of an output folder.
#[derive(Debug, Clone)]
pub struct OutputFolder(PathBuf);

impl OutputFolder {
    /// The folder at `root`; nothing is made yet.
    pub fn at(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// A file directly in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The folder of one repetition: `base/01`. Repetition 0 is the warm-up.
    pub fn repetition(&self, side: Side, repetition: u32) -> PathBuf {
        self.0.join(side.as_str()).join(format!("{repetition:02}"))
    }

    /// The folder of a pass: that of its repetition, or `screen/<side>` for a screen. The warm-up is repetition 0.
    pub fn pass(&self, side: Side, pass: Pass) -> PathBuf {
        match pass.phase {
            Phase::Screen => self.0.join("screen").join(side.as_str()),
            Phase::WarmUp | Phase::Pairs | Phase::MorePairs => self.repetition(side, pass.pair),
        }
    }

    /// The first free folder for a void pass.
    pub fn void(&self, side: Side, pass: Pass) -> PathBuf {
        let name =
            |number| format!("{}-{}-{:02}-{number}", pass.phase.as_str().replace(' ', "-"), side.as_str(), pass.pair);
        let mut paths = (1_u32..).map(|number| self.0.join("void").join(name(number)));
        paths.find(|path| !path.exists()).unwrap_or_default()
    }

    /// One line for each pass: how its time was spent.
    pub fn passes(&self) -> PathBuf {
        self.file("passes.jsonl")
    }

    pub fn plan(&self) -> PathBuf {
        self.file("plan.json")
    }

    /// One line for each finished case.
    pub fn journal(&self) -> PathBuf {
        self.file("journal.jsonl")
    }

    /// Every row with the numbers it was computed from.
    pub fn comparison(&self) -> PathBuf {
        self.file("comparison.json")
    }

    /// Dashboard records of head, one file for each model.
    pub fn records(&self) -> PathBuf {
        self.file("records")
    }

    /// Records that still have to be uploaded.
    pub fn spool(&self) -> PathBuf {
        self.file("spool")
    }

    /// Rows of head for perf-eval's dashboard, one file for each case, until they are sent.
    pub fn rows(&self) -> PathBuf {
        self.file("rows")
    }

    /// Where clients write their results while they run.
    pub fn exchange(&self) -> PathBuf {
        self.file(".exchange")
    }

    /// Head's results, merged over the repetitions.
    pub fn results(&self) -> PathBuf {
        self.file("results")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_whole_file_and_leaves_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a").join("b.json");
        write(&path, b"long first content").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn further_slices_have_folders_of_their_own() {
        let repetition = Path::new("base/01");
        let folders: Vec<PathBuf> = (1..=3).map(|number| slice(repetition, number)).collect();
        assert_eq!(folders, ["base/01", "base/01/slice-2", "base/01/slice-3"].map(PathBuf::from));
        let read = ["slice-2", "slice-16", "slice-1", "slice-02", "slice-x", "02"].map(slice_of);
        assert_eq!(read, [Some(2), Some(16), None, None, None, None]);
    }

    #[test]
    fn what_a_killed_process_was_writing_is_deleted_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".vllm-perf-x1", "a.json", ".hidden"] {
            write(&folder.path().join(name), b"x").unwrap();
        }
        std::fs::create_dir(folder.path().join(".vllm-perf-folder")).unwrap();
        delete_unfinished(folder.path()).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".hidden", ".vllm-perf-folder", "a.json"]);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = write(Path::new("/proc/none/a.json"), b"").unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot write `/proc/none/a.json`"), "{error:#}");
    }
}
