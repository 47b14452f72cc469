//! A store in a folder: an object is a file. A file appears whole, under a new name.

use std::fs::Metadata;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::object_key;
use super::stored_object::{Added, OBJECT_LIMIT, StoredObject};
use crate::system::output;

/// Most nested folders: a key of records has eight segments.
const DEPTH: usize = 16;

/// The folder; it need not exist.
#[derive(Debug, Clone)]
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    /// The files below a prefix, in no order. Files with names that are not keys come from elsewhere and are left out.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<StoredObject>> {
        let mut entries = Vec::new();
        let root = if prefix.is_empty() { self.0.clone() } else { self.path(prefix)? };
        walk(&root, prefix, DEPTH, &mut entries)?;
        Ok(entries)
    }

    pub(super) fn read(&self, key: &str) -> Result<Vec<u8>> {
        let file = std::fs::File::open(self.path(key)?)?;
        let size = file.metadata()?.len();
        ensure!(size <= OBJECT_LIMIT, "it has {size} bytes; at most {OBJECT_LIMIT} are read");
        let mut content = Vec::with_capacity(usize::try_from(size)?);
        file.take(OBJECT_LIMIT).read_to_end(&mut content)?;
        Ok(content)
    }

    pub(super) fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.path(key)?.try_exists()?)
    }

    pub(super) fn add(&self, key: &str, content: &[u8]) -> Result<Added> {
        let path = self.path(key)?;
        let parent = path.parent().context("the key has no folder")?;
        std::fs::create_dir_all(parent)?;
        let mut file = tempfile::Builder::new().prefix("~").tempfile_in(parent)?;
        file.write_all(content)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(&path) {
            Ok(_) => {
                output::sync_folder(parent)?;
                Ok(Added::Written)
            }
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(Added::AlreadyThere),
            Err(error) => Err(error.error.into()),
        }
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        object_key::check(key)?;
        Ok(self.0.join(key))
    }
}

fn walk(folder: &Path, prefix: &str, depth: usize, entries: &mut Vec<StoredObject>) -> Result<()> {
    if depth == 0 {
        bail!("`{}` is too deep for a store", folder.display());
    }
    let found = match std::fs::read_dir(folder) {
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => return Ok(()),
        found => found.with_context(|| format!("cannot read the folder `{}`", folder.display()))?,
    };
    for file in found {
        let file = file?;
        let name = file.file_name();
        let Some(name) = name.to_str().filter(|name| object_key::check(name).is_ok()) else { continue };
        let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        // Links are followed; a broken link is skipped.
        let Ok(metadata) = std::fs::metadata(file.path()) else { continue };
        if metadata.is_dir() {
            walk(&file.path(), &key, depth - 1, entries)?;
        } else if metadata.is_file() {
            entries.push(entry(key, &metadata)?);
        }
    }
    Ok(())
}

fn entry(key: String, metadata: &Metadata) -> Result<StoredObject> {
    let modified: jiff::Timestamp = metadata.modified()?.try_into()?;
    let etag = Some(format!("{:x}-{:x}", modified.as_nanosecond(), metadata.len()));
    Ok(StoredObject { key, size: metadata.len(), modified, etag })
}
