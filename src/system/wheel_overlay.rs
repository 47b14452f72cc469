//! A wheel with the Python files of a checkout over it, for changes that need no compiler.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use vllm_verdict::v1::DeviceName;

use super::wheel_cache::{self, WheelCache};
use super::wheel_environment::Installed;
use crate::exit::Classify;
use crate::names::Commit;
use crate::system::git::{Changed, Git};
use crate::system::regular_file;
use crate::system::shell::Shell;

/// The package in a checkout and in a wheel.
const PACKAGE: &str = "vllm";

/// What is compiled, in a checkout.
const COMPILED: [&str; 5] = ["csrc/", "cmake/", "rust/", "CMakeLists.txt", "setup.py"];

/// What a checkout changes of the commit of a wheel.
#[derive(Debug, PartialEq, Eq)]
pub struct Overlay {
    checkout: PathBuf,
    changed: Vec<Changed>,
}

/// The folder that Python looks for vLLM in before the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laid {
    pub folder: PathBuf,
    /// Of the wheel and of every file over it, in hexadecimal digits.
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Complete {
    sha256: String,
}

impl Overlay {
    /// What `checkout` changes since `base`.
    ///
    /// # Errors
    /// The user's mistake (exit 2): it is no checkout of vLLM, git does not know `base` there, or it changes what the wheel has
    /// compiled or needs.
    pub async fn of(checkout: &Path, base: &Commit, device: DeviceName, git: &Git) -> Result<Self> {
        let shown = checkout.display();
        let read = async {
            ensure!(
                checkout.join(PACKAGE).join("__init__.py").is_file(),
                "it is no checkout of vLLM (`vllm/__init__.py` is missing)"
            );
            let changed = git.changed_since(checkout, base.as_str()).await?;
            let needs = format!("requirements/{}.txt", requirements(device));
            let is_compiled =
                |path: &str| COMPILED.iter().any(|part| path == *part || part.ends_with('/') && path.starts_with(part));
            if let Some(it) = changed.iter().find(|it| is_compiled(&it.path)) {
                return Err(anyhow!("it changes `{}`, which is compiled: build a wheel or an image of it", it.path));
            }
            if let Some(it) = changed.iter().find(|it| it.path == "requirements/common.txt" || it.path == needs) {
                return Err(anyhow!(
                    "it changes `{}`, and the wheel has the packages of before: build a wheel or an image of it",
                    it.path
                ));
            }
            let inside = format!("{PACKAGE}/");
            let changed = changed.into_iter().filter(|it| it.path.starts_with(&inside)).collect();
            Ok(Self { checkout: checkout.to_owned(), changed })
        };
        read.await.with_context(|| format!("cannot put the checkout `{shown}` over the wheel of {base}")).mistake()
    }

    /// Makes the folder with the package of the wheel and the files of the checkout over it, where it is not there.
    ///
    /// # Errors
    /// The user's mistake (exit 2): the checkout has something other than a file. Exit 4: the folder cannot be made.
    pub async fn lay(&self, installed: &Installed, cache: &WheelCache, shell: &Shell) -> Result<Laid> {
        let mut parts = vec![installed.held.sha256.clone()];
        for it in &self.changed {
            let content = if it.is_deleted { String::new() } else { self.hash(&it.path)? };
            parts.push(format!("{} {content}", it.path));
        }
        let sha256 =
            wheel_cache::hex(&sha2::Digest::finalize(parts.iter().fold(sha2::Sha256::default(), |mut hash, part| {
                sha2::Digest::update(&mut hash, part.as_bytes());
                sha2::Digest::update(&mut hash, b"\n");
                hash
            })));
        let name = format!("overlays/{}", wheel_cache::key(&[&sha256, &installed.folder.display().to_string()]));
        let slot = cache.slot(&name, shell).await?;
        let laid = Laid { folder: slot.folder.clone(), sha256: sha256.clone() };
        if WheelCache::held::<Complete>(&slot.folder).is_none() {
            slot.clear()?;
            let package = slot.folder.join(PACKAGE);
            let cannot = || format!("cannot copy the package of {} to `{}`", installed.held.file, package.display());
            link_all(&installed.packages()?.join(PACKAGE), &package).with_context(cannot).world()?;
            self.changed.iter().try_for_each(|it| self.put(it, &slot.folder))?;
            WheelCache::complete(&slot.folder, &Complete { sha256 })?;
        }
        Ok(laid)
    }

    fn hash(&self, path: &str) -> Result<String> {
        let path = self.checkout.join(path);
        let is_file = std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
        ensure_file(is_file, &path)?;
        wheel_cache::hash_of(&path)
    }

    /// Puts one file of the checkout in the place of the wheel's, which other environments share.
    fn put(&self, it: &Changed, folder: &Path) -> Result<()> {
        let to = folder.join(&it.path);
        crate::system::output::delete(&to).world()?;
        if it.is_deleted {
            return Ok(());
        }
        let from = self.checkout.join(&it.path);
        let content =
            regular_file::bytes(&from, LARGEST_FILE).with_context(|| format!("cannot read `{}`", from.display()));
        crate::system::output::replace(&to, &content.mistake()?).world()
    }
}

/// Largest file of a checkout's package, in bytes.
const LARGEST_FILE: u64 = 256 << 20;

fn ensure_file(is_file: bool, path: &Path) -> Result<()> {
    match is_file {
        true => Ok(()),
        false => Err(anyhow!("`{}` is not a regular file: commit or remove it", path.display())).mistake(),
    }
}

/// The name of the requirements that a device has besides the common ones.
fn requirements(device: DeviceName) -> &'static str {
    match device {
        DeviceName::Cpu | DeviceName::Arm64Cpu => "cpu",
        other => other.as_str(),
    }
}

/// Copies a folder by hard links where the file system has them. Compiled Python is left out: it is of the replaced files.
fn link_all(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() && entry.file_name() != "__pycache__" {
            link_all(&path, &target)?;
        } else if kind.is_file() && std::fs::hard_link(&path, &target).is_err() {
            std::fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
