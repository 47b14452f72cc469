//! Folders into which clients write their results. Each holds nothing of ours: results are copied out of it by name, and
//! whatever else is there is deleted with it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::system::output::{self, OutputFolder};
use crate::system::regular_file::{self, RESULT_LIMIT};

/// Longest path below which a folder is deleted where it is. The system takes paths of up to 4096 bytes.
const LONGEST_PATH: usize = 2000;

/// A folder for the results of one server or benchmark; dropping it deletes it.
#[derive(Debug)]
pub struct Exchange {
    path: PathBuf,
    /// The folder as it was made, whatever stands at its path later.
    folder: File,
    /// The user that it belongs to, where that is not ours.
    owner: Option<u32>,
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
        let owner = disowned(&folder).with_context(cannot)?;
        Ok(Self { path, folder, owner })
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
            fchown(&file, self.owner, None).with_context(cannot)?;
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

/// Gives a folder of root to a user that nobody is, so that the root of a container, which may not act for others, is not
/// its owner either. Root on this machine can still use it. Returns that user.
fn disowned(folder: &File) -> std::io::Result<Option<u32>> {
    if folder.metadata()?.uid() != 0 {
        return Ok(None);
    }
    // The image chooses the user in its container, so this one is not a fixed one.
    let user = rand::random_range(1 << 30..(1_u32 << 31) - 1);
    match fchown(folder, Some(user), None) {
        Ok(()) => Ok(Some(user)),
        // Root of a user namespace owns few users.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::PermissionDenied) => Ok(None),
        Err(error) => Err(error),
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

/// Deletes what is neither a file nor a folder in the output folder, and what a killed run was writing: nothing is written through a link that a commit
/// brought, and no upload follows one.
///
/// # Errors
/// When something cannot be deleted.
pub fn keep_files(out: &OutputFolder) -> Result<()> {
    let mut folders = vec![out.root().to_owned()];
    while let Some(folder) = folders.pop() {
        let cannot = || format!("cannot delete what is not a file in `{}`", folder.display());
        output::delete_unfinished(&folder).with_context(cannot)?;
        for entry in std::fs::read_dir(&folder).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let kind = entry.file_type().with_context(cannot)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if !kind.is_file() {
                std::fs::remove_file(entry.path()).with_context(cannot)?;
            }
        }
    }
    Ok(())
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
    if std::fs::remove_dir_all(path).is_ok() { Ok(()) } else { delete_odd(path) }
}

/// Deletes a folder that holds folders without permissions, or more of them in each other than can be open at once.
fn delete_odd(top: &Path) -> std::io::Result<()> {
    let mut waiting = vec![top.to_owned()];
    let mut emptied = Vec::new();
    while let Some(folder) = waiting.pop() {
        std::fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let mut path = entry.path();
            if !entry.file_type()?.is_dir() {
                std::fs::remove_file(&path)?;
                continue;
            }
            if path.as_os_str().len() > LONGEST_PATH {
                let nearer = top.join(format!("{:016x}", rand::random::<u64>()));
                std::fs::rename(&path, &nearer)?;
                path = nearer;
            }
            waiting.push(path);
        }
        emptied.push(folder);
    }
    // A folder comes after those that it is in.
    emptied.iter().rev().try_for_each(std::fs::remove_dir)
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
        std::fs::set_permissions(&deep, Permissions::from_mode(0o0)).unwrap();
        drop(exchange);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists());
    }

    #[test]
    fn folders_in_each_other_without_end_and_without_permissions_are_deleted() {
        let (folder, _out, exchange) = exchange();
        let mut parent: std::os::fd::OwnedFd = File::open(exchange.path()).unwrap().into();
        let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY;
        for number in 0..3000 {
            let mode = nix::sys::stat::Mode::S_IRWXU;
            nix::sys::stat::mkdirat(&parent, "deep", mode).unwrap();
            if number % 10 == 0 {
                nix::unistd::symlinkat("/etc", &parent, "etc").unwrap();
            }
            let next = nix::fcntl::openat(&parent, "deep", flags, nix::sys::stat::Mode::empty()).unwrap();
            nix::sys::stat::fchmod(&parent, nix::sys::stat::Mode::from_bits_truncate(0o500)).unwrap();
            parent = next;
        }
        delete_odd(exchange.path()).unwrap();
        drop(exchange);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists());
    }

    #[test]
    fn the_folder_of_root_belongs_to_nobody() {
        let (folder, _out, exchange) = exchange();
        exchange.expect(&["a.json".to_owned()]).unwrap();
        let owner = |path: &Path| std::fs::metadata(path).unwrap().uid();
        let owners = [owner(exchange.path()), owner(&exchange.path().join("a.json"))];
        match owner(folder.path()) {
            0 => assert!(owners[0] >= 1 << 30 && owners[0] == owners[1], "{owners:?}"),
            ours => assert_eq!(owners, [ours, ours]),
        }
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
