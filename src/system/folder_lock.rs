//! The lock of an output folder: one run writes to it, or any number of commands read it. It is held on the folder itself,
//! so it leaves no file, follows the folder when that is moved, and ends with the process.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use crate::exit::Classify;

/// How often the folder is opened again because another one took its place.
const TRIES: u32 = 10;

/// A locked folder; dropping it unlocks it.
#[derive(Debug)]
pub struct FolderLock {
    _folder: File,
}

impl FolderLock {
    /// Locks the folder at `path` for a command that writes to it.
    ///
    /// # Errors
    /// Another command uses it (the user's mistake, exit 2), or it cannot be opened (exit 4).
    pub fn alone(path: &Path) -> Result<Self> {
        let cannot = || format!("cannot open `{}`", path.display());
        for _ in 0..TRIES {
            let folder = File::open(path).with_context(cannot).world()?;
            match folder.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    let used = "another vllm-perf is running in it: wait for it, or give another --out";
                    return Err(anyhow!("cannot use `{}`: {used}", path.display())).mistake();
                }
                // A file system without locks: nothing is known of other commands.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            // A run that ended meanwhile may have been moved aside, and its lock with it.
            if is_at(&folder, path) {
                return Ok(Self { _folder: folder });
            }
        }
        Err(anyhow!("`{}` is being replaced all the time: give another --out", path.display())).mistake()
    }

    /// Locks the folder at `path` for a command that reads it; `None` where there is no such folder.
    ///
    /// # Errors
    /// A run is writing to it (the user's mistake, exit 2).
    pub fn shared(path: &Path) -> Result<Option<Self>> {
        let Ok(folder) = File::open(path) else { return Ok(None) };
        match folder.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                Err(anyhow!("a run is in progress in `{}`: wait until it has ended", path.display())).mistake()
            }
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(Self { _folder: folder })),
        }
    }
}

/// Whether `path` still leads to `folder`.
fn is_at(folder: &File, path: &Path) -> bool {
    let key = |found: std::fs::Metadata| (found.dev(), found.ino());
    match (folder.metadata(), std::fs::metadata(path)) {
        (Ok(opened), Ok(found)) => key(opened) == key(found),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{self, Exit};

    #[test]
    fn a_folder_has_one_writer_or_many_readers() {
        let folder = tempfile::tempdir().unwrap();
        let writer = FolderLock::alone(folder.path()).unwrap();
        for refused in [FolderLock::alone(folder.path()).map(Some), FolderLock::shared(folder.path())] {
            let error = refused.unwrap_err();
            assert_eq!(exit::of(&error), Exit::Mistake);
            assert!(format!("{error:#}").contains(&folder.path().display().to_string()), "{error:#}");
        }
        drop(writer);
        let readers = [FolderLock::shared(folder.path()).unwrap(), FolderLock::shared(folder.path()).unwrap()];
        assert!(readers.iter().all(Option::is_some));
        assert!(FolderLock::alone(folder.path()).is_err());
        drop(readers);
        FolderLock::alone(folder.path()).unwrap();
    }

    #[test]
    fn a_lock_follows_its_folder_and_the_folder_that_takes_its_place_has_its_own() {
        let parent = tempfile::tempdir().unwrap();
        let (path, moved) = (parent.path().join("out"), parent.path().join("out.1"));
        std::fs::create_dir(&path).unwrap();
        let before = FolderLock::alone(&path).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        std::fs::create_dir(&path).unwrap();
        let after = FolderLock::alone(&path).unwrap();
        assert!(FolderLock::alone(&moved).is_err() && FolderLock::alone(&path).is_err());
        drop((before, after));
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_readers_and_cannot_be_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert!(FolderLock::shared(&missing).unwrap().is_none());
        assert!(format!("{:#}", FolderLock::alone(&missing).unwrap_err()).contains("missing"));
    }
}
