//! Folders into which clients write their results. Each holds nothing of ours: results are copied out of it by name, and
//! whatever else is there is deleted with it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::system::output::OutputFolder;
use crate::system::regular_file::{self, RESULT_LIMIT};

/// Deepest folder that is made removable: nothing of vLLM's is deeper.
const DEEPEST: u32 = 200;

/// A folder for the results of one server or benchmark; dropping it deletes it.
#[derive(Debug)]
pub struct Exchange {
    path: PathBuf,
    /// The folder as it was made, whatever stands at its path later.
    folder: File,
}

impl Exchange {
    /// Makes a fresh folder in the output folder, where only this user can enter. Names that begin with a dot are not
    /// uploaded as artifacts.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(out: &OutputFolder) -> Result<Self> {
        let parent = out.exchange();
        let cannot = || format!("cannot make a folder in `{}`", parent.display());
        match DirBuilder::new().mode(0o700).create(&parent) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error).with_context(cannot),
            _ => {}
        }
        if !std::fs::symlink_metadata(&parent).with_context(cannot)?.is_dir() {
            bail!("`{}` is not a folder: remove it", parent.display());
        }
        std::fs::set_permissions(&parent, Permissions::from_mode(0o700)).with_context(cannot)?;
        let path = parent.canonicalize().with_context(cannot)?.join(format!("{:016x}", rand::random::<u64>()));
        // A container's user may write into the files that are made for it, and make no others: those could belong to a
        // user whose files we cannot delete.
        DirBuilder::new().mode(0o755).create(&path).with_context(cannot)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).with_context(cannot)?;
        let folder = File::open(&path).with_context(cannot)?;
        Ok(Self { path, folder })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes empty files that any user may write, for a client in a container whose user is not ours.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub fn expect(&self, names: &[String]) -> Result<()> {
        for name in names {
            let path = self.path.join(name);
            let cannot = || format!("cannot make `{}`", path.display());
            delete(&path).with_context(cannot)?;
            let file = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path).with_context(cannot)?;
            file.set_permissions(Permissions::from_mode(0o666)).with_context(cannot)?;
        }
        Ok(())
    }

    /// The result `name` that a client wrote; `None` where it wrote none. It is deleted here.
    ///
    /// # Errors
    /// It is not a regular file of bounded size.
    pub fn take(&self, name: &str) -> Result<Option<String>> {
        let read = regular_file::text_in(&self.folder, name, RESULT_LIMIT);
        let _ = delete(&self.path.join(name));
        match read {
            Ok(text) if text.is_empty() => Ok(None),
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(anyhow!("cannot use the result `{name}`: {error}")),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let _ = delete(&self.path);
        if let Some(parent) = self.path.parent() {
            // Where it is empty.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// Deletes what killed or interrupted clients left in the output folder.
///
/// # Errors
/// When something cannot be deleted.
pub fn clear(out: &OutputFolder) -> Result<()> {
    let path = out.exchange();
    delete(&path).with_context(|| format!("cannot delete `{}`", path.display()))
}

/// Deletes whatever is at `path`; links are not followed.
///
/// # Errors
/// When something is still there.
pub fn delete(path: &Path) -> std::io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.is_dir() {
        return std::fs::remove_file(path);
    }
    if std::fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    // A folder of ours that lost its permissions.
    open_up(path, 0);
    std::fs::remove_dir_all(path)
}

fn open_up(path: &Path, depth: u32) {
    if depth > DEEPEST || !std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        return;
    }
    let _ = std::fs::set_permissions(path, Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        open_up(&entry.path(), depth + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn exchange() -> (tempfile::TempDir, OutputFolder, Exchange) {
        let folder = tempfile::tempdir().unwrap();
        let out = OutputFolder::at(folder.path());
        let exchange = Exchange::make(&out).unwrap();
        (folder, out, exchange)
    }

    #[test]
    fn a_result_is_taken_once_and_everything_else_is_deleted_with_the_folder() {
        let (folder, out, exchange) = exchange();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&out.exchange()), mode(exchange.path())), (0o700, 0o755));
        exchange.expect(&["a.json".to_owned(), "b.json".to_owned()]).unwrap();
        assert_eq!(mode(&exchange.path().join("a.json")), 0o666);
        crate::system::output::write(&exchange.path().join("a.json"), b"{}").unwrap();
        assert_eq!(exchange.take("a.json").unwrap().as_deref(), Some("{}"));
        assert_eq!(exchange.take("a.json").unwrap(), None);
        assert_eq!(exchange.take("b.json").unwrap(), None, "it is empty");
        symlink("/etc", exchange.path().join("etc")).unwrap();
        let deep = exchange.path().join("d/e");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::set_permissions(&deep, Permissions::from_mode(0)).unwrap();
        drop(exchange);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists());
    }

    #[test]
    fn a_result_that_is_a_link_a_pipe_or_a_folder_is_an_error_and_is_deleted() {
        let (_folder, _out, exchange) = exchange();
        let inside = |name: &str| exchange.path().join(name);
        symlink("/proc/self/environ", inside("link.json")).unwrap();
        nix::unistd::mkfifo(&inside("pipe.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir_all(inside("folder.json/x")).unwrap();
        crate::system::output::write(&inside("host"), b"secret").unwrap();
        std::fs::hard_link(inside("host"), inside("hard.json")).unwrap();
        File::create(inside("large.json")).unwrap().set_len(RESULT_LIMIT + 1).unwrap();
        for name in ["link.json", "pipe.json", "folder.json", "hard.json", "large.json"] {
            let error = exchange.take(name).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot use the result `{name}`: it ")), "{error}");
            assert!(!inside(name).exists(), "{name}");
        }
    }

    #[test]
    fn results_are_read_from_the_folder_that_was_made_even_if_another_stands_at_its_path() {
        let (folder, _out, exchange) = exchange();
        let planted = folder.path().join("planted");
        std::fs::create_dir(&planted).unwrap();
        crate::system::output::write(&planted.join("a.json"), b"{}").unwrap();
        std::fs::rename(exchange.path(), folder.path().join("moved")).unwrap();
        symlink(&planted, exchange.path()).unwrap();
        assert_eq!(exchange.take("a.json").unwrap(), None);
    }

    #[test]
    fn a_planted_link_in_place_of_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = OutputFolder::at(folder.path());
        symlink("/tmp", out.exchange()).unwrap();
        assert!(Exchange::make(&out).unwrap_err().to_string().contains("is not a folder"));
        clear(&out).unwrap();
        assert!(Exchange::make(&out).is_ok() && Path::new("/tmp").is_dir());
    }
}
