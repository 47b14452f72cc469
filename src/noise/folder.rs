//! A/A runs in a folder store, one file a run: `<store>/noise/<device>/<time>-<id>.json`. World: files, and nothing else.
//! A file is written once and never changed, so that runs on several machines can share a store.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use sha2::{Digest, Sha256};
use url::Url;

use super::{AaRun, MeasuredOn, Noise, SCHEMA};
use crate::device::Device;
use crate::exit::Classify;
use crate::output;

impl Noise {
    /// The noise of `device` that a store knows. A store without runs of it knows none.
    ///
    /// # Errors
    /// The world's: a folder or a file that cannot be read, or a file that is no A/A run of this version. Names it.
    pub fn read(store: &Path, device: &Device) -> anyhow::Result<Self> {
        let device = MeasuredOn::from(device);
        let folder = folder_of(store, &device);
        let cannot = || format!("cannot read the noise in `{}`", folder.display());
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            entries => entries.with_context(cannot).world()?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.with_context(cannot).world()?.path();
            // A file that is still being written has no such name.
            if path.extension().is_some_and(|extension| extension == "json") {
                paths.push(path);
            }
        }
        paths.sort();
        let runs = paths.iter().map(|path| read_run(path)).collect::<anyhow::Result<Vec<AaRun>>>()?;
        Ok(Self::of(runs.into_iter().filter(|run| run.device == device)))
    }
}

fn read_run(path: &Path) -> anyhow::Result<AaRun> {
    let read = || -> anyhow::Result<AaRun> {
        let run: AaRun = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        ensure!(run.schema == SCHEMA, "its schema is `{}`: expected `{SCHEMA}`", run.schema);
        Ok(run)
    };
    read().with_context(|| format!("cannot read `{}` as an A/A run", path.display())).world()
}

/// Adds an A/A run to a store and returns its file. The same run again is the same file.
///
/// # Errors
/// The world's: the file cannot be written.
pub fn append(store: &Path, run: &AaRun) -> anyhow::Result<PathBuf> {
    let text = serde_json::to_string(run).context("cannot write the A/A run")?;
    let time: String = run.started.chars().filter(char::is_ascii_alphanumeric).collect();
    let id: String = Sha256::digest(&text).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let path = folder_of(store, &run.device).join(format!("{time}-{id}.json"));
    output::write(&path, text.as_bytes()).context("cannot keep the A/A run").world()?;
    Ok(path)
}

/// The folder that a store's name means: `file:///srv/vllm-perf` or a path.
///
/// # Errors
/// The user's mistake: any other kind of store.
pub fn store_folder(store: &str) -> anyhow::Result<PathBuf> {
    match store.split_once("://") {
        None => Ok(PathBuf::from(store)),
        Some(("file", _)) => Url::parse(store).ok().and_then(|url| url.to_file_path().ok()).ok_or_else(|| {
            anyhow!("`{store}` names no folder: expected `file:///` and an absolute path, or a path")
        }),
        Some((scheme, _)) => Err(anyhow!(
            "noise is not yet read from or kept in a `{scheme}://` store: `{store}` must be a folder, `file:///...` or a path"
        )),
    }
    .mistake()
}

/// `noise/cpu-amd-epyc-9654-96-core-96c` in the store.
fn folder_of(store: &Path, device: &MeasuredOn) -> PathBuf {
    let words = format!("{} {}", device.name, device.device_type).to_lowercase();
    let words: Vec<&str> = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    store.join("noise").join(words.join("-"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{device, run};
    use super::*;

    #[test]
    fn runs_that_were_kept_read_back_as_noise() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(Noise::read(store.path(), &device()).unwrap(), Noise::default());
        let first = run(&[Some(1.0), Some(3.0)], &[Some(2.0), Some(1.0)]);
        let later = AaRun { started: "2026-11-25T10:12:33Z".into(), ..first.clone() };
        let path = append(store.path(), &first).unwrap();
        let name = path.strip_prefix(store.path()).unwrap().display().to_string();
        assert!(name.starts_with("noise/cpu-amd-epyc-9654-96-core-96c/20261124T101233Z-"), "{name}");
        append(store.path(), &later).unwrap();
        assert_eq!(append(store.path(), &first).unwrap(), path);
        assert_eq!(Noise::read(store.path(), &device()).unwrap(), Noise::of([first, later]));
    }

    #[test]
    fn the_noise_of_another_device_type_is_not_read_even_where_its_folder_is_the_same() {
        let store = tempfile::tempdir().unwrap();
        append(store.path(), &run(&[Some(1.0)], &[Some(2.0)])).unwrap();
        let other = Device { device_type: "AMD EPYC 9654 96-Core 96c".into(), ..device() };
        assert_eq!(Noise::read(store.path(), &other).unwrap(), Noise::default());
    }

    #[test]
    fn a_file_that_is_no_such_run_is_named() {
        let store = tempfile::tempdir().unwrap();
        let path = append(store.path(), &run(&[Some(1.0)], &[Some(2.0)])).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for (spoilt, said) in [
            (text.replace("noise/v1", "noise/v2"), "its schema is `vllm-perf/noise/v2`: expected `vllm-perf/noise/v1`"),
            (text[..40].to_owned(), "EOF while parsing"),
            (text.replace("\"started\"", "\"begun\""), "unknown field `begun`"),
        ] {
            output::write(&path, spoilt.as_bytes()).unwrap();
            let error = Noise::read(store.path(), &device()).unwrap_err();
            assert_eq!(crate::exit::of(&error), crate::exit::Exit::World);
            let error = format!("{error:#}");
            assert!(error.starts_with(&format!("cannot read `{}` as an A/A run", path.display())), "{error}");
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_store_is_a_folder_and_another_kind_is_refused_by_name() {
        assert_eq!(store_folder("file:///srv/vllm%20perf").unwrap(), Path::new("/srv/vllm perf"));
        assert_eq!(store_folder("noise").unwrap(), Path::new("noise"));
        assert!(store_folder("file://host/x").is_err());
        let error = store_folder("s3://ossci-benchmarks").unwrap_err();
        assert_eq!(crate::exit::of(&error), crate::exit::Exit::Mistake);
        assert!(format!("{error:#}").starts_with("noise is not yet read from or kept in a `s3://` store"), "{error:#}");
    }
}
