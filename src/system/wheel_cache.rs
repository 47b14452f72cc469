//! The cache of what wheels are installed into, on this machine: a folder an environment, complete or not used.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::environment::Environment;
use crate::exit::Classify;
use crate::system::output;
use crate::system::regular_file;
use crate::system::shell::Shell;

/// File in a folder of the cache that says that it is complete, and what it holds.
const COMPLETE: &str = "vllm-perf.json";

/// Most bytes of that file.
const COMPLETE_LIMIT: u64 = 64 << 10;

/// How often a folder is tried that another program is filling.
const PAUSE: Duration = Duration::from_millis(200);

/// The cache folder of this user.
#[derive(Debug, Clone)]
pub struct WheelCache {
    root: PathBuf,
}

/// What a complete environment holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// File name of the wheel.
    pub file: String,
    /// SHA-256 of the wheel, in hexadecimal digits.
    pub sha256: String,
}

/// A folder of the cache that no other program fills at the same time.
#[derive(Debug)]
pub struct Slot {
    pub folder: PathBuf,
    _lock: File,
}

impl WheelCache {
    /// The folder of `VLLM_PERF_CACHE`, or `vllm-perf` in the user's cache folder.
    ///
    /// # Errors
    /// The user's mistake (exit 2): there is no such folder and no home folder.
    pub fn of(environment: &Environment) -> Result<Self> {
        let set = |name: &str| environment.get(name).filter(|text| !text.is_empty()).map(PathBuf::from);
        let root = set("VLLM_PERF_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("vllm-perf")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/vllm-perf")))
            .context("wheels are installed into a cache folder: set VLLM_PERF_CACHE to one");
        let root = root.mistake()?;
        std::fs::create_dir_all(&root)
            .with_context(|| {
                format!("cannot make the cache folder `{}`: set VLLM_PERF_CACHE to another", root.display())
            })
            .mistake()?;
        let root = root.canonicalize().with_context(|| format!("cannot find `{}`", root.display())).world()?;
        Ok(Self { root })
    }

    /// The path of something in the cache.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// What a folder of the cache holds; `None` where it is not complete.
    pub fn held<T: DeserializeOwned>(folder: &Path) -> Option<T> {
        let text = regular_file::text(&folder.join(COMPLETE), COMPLETE_LIMIT).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Says that a folder is complete.
    ///
    /// # Errors
    /// Exit 4: it cannot be written.
    pub fn complete<T: Serialize>(folder: &Path, held: &T) -> Result<()> {
        let text = serde_json::to_string_pretty(held).context("cannot write what a wheel's environment holds")?;
        output::write(&folder.join(COMPLETE), text.as_bytes()).world()
    }

    /// The folder `name` for this program alone. It waits while another program fills it.
    ///
    /// # Errors
    /// Exit 4: the folder above it cannot be written.
    pub async fn slot(&self, name: &str, shell: &Shell) -> Result<Slot> {
        let folder = self.path(name);
        let path = folder.with_extension("lock");
        let cannot = || format!("cannot write `{}`", path.display());
        std::fs::create_dir_all(folder.parent().unwrap_or(&folder)).with_context(cannot).world()?;
        let lock = File::options().create(true).append(true).open(&path).with_context(cannot).world()?;
        let mut is_told = false;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Slot { folder, _lock: lock }),
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(error)) => return Err(error).with_context(cannot).world(),
            }
            if !std::mem::replace(&mut is_told, true) {
                shell.say(&format!("waiting for another vllm-perf that fills `{}`", folder.display()));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Slot {
    /// Deletes what an interrupted program left in the folder.
    ///
    /// # Errors
    /// Exit 4: it cannot be deleted.
    pub fn clear(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot delete `{}`", self.folder.display())).world()
            }
            _ => Ok(()),
        }
    }
}

/// A name of fixed length for a text, of letters and digits.
pub fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())[..32].to_owned()
}

/// SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
/// Exit 4: the file cannot be read.
pub fn hash_of(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read `{}`", path.display());
    let mut file =
        regular_file::open_followed(path).map_err(|error| anyhow!("{error:#}")).with_context(cannot).world()?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash).with_context(cannot).world()?;
    Ok(hex(&hash.finalize()))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
