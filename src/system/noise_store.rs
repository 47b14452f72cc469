//! A/A runs in a store, one object a run: `noise/<device>/<time>-<id>.json`. An object is written once and
//! never changed, so that runs on several machines can share a store.

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use vllm_verdict::noise::{AaRun, MeasuredOn, Noise, SCHEMA};
use vllm_verdict::v1::Device;

use crate::system::store::Store;
use crate::system::store::object_key::segment;

/// Objects that are read at once.
const AT_ONCE: usize = 16;

/// The noise of `device` in a store; empty where the store has no runs of it. An object that is not an A/A run of this
/// version is left out; `say` gets its name and the reason.
///
/// # Errors
/// External: a store that cannot be read.
pub async fn read(store: &Store, device: &Device, say: impl Fn(&str)) -> Result<Noise> {
    let device = MeasuredOn::from(device);
    let entries = store.list(&folder_of(&device)).await.context("cannot read the noise of A/A runs")?;
    let keys = entries.into_iter().map(|entry| entry.key).filter(|key| key.ends_with(".json"));
    let runs = stream::iter(keys).map(|key| read_run(store, key)).buffered(AT_ONCE);
    let runs: Vec<Result<AaRun>> = runs.try_collect().await?;
    let mut known = Vec::new();
    for run in runs {
        match run {
            Ok(run) => known.push(run),
            Err(error) => say(&format!("left out: {error:#}")),
        }
    }
    Ok(Noise::of(known.into_iter().filter(|run| run.device == device)))
}

/// The outer error is of the store, the inner one of the object.
async fn read_run(store: &Store, key: String) -> Result<Result<AaRun>> {
    let content = store.read(&key).await?;
    let read = || -> Result<AaRun> {
        let run: AaRun = serde_json::from_slice(&content)?;
        ensure!(run.schema == SCHEMA, "its schema is `{}`: expected `{SCHEMA}`", run.schema);
        Ok(run)
    };
    Ok(read().with_context(|| format!("cannot read `{key}` in the store `{}` as an A/A run", store.place())))
}

/// Adds an A/A run to a store and returns its key. The same run again is the same object.
///
/// # Errors
/// External: it cannot be written.
pub async fn append(store: &Store, run: &AaRun) -> Result<String> {
    let text = serde_json::to_string(run).context("cannot write the A/A run")?;
    let time: String = run.started.chars().filter(char::is_ascii_alphanumeric).collect();
    let id: String = Sha256::digest(&text).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let key = format!("{}/{time}-{id}.json", folder_of(&run.device));
    store.add(&key, text.as_bytes()).await.context("cannot add the A/A run")?;
    Ok(key)
}

/// `noise/cpu-amd-epyc-9654-96-core-96c`.
fn folder_of(device: &MeasuredOn) -> String {
    let words = format!("{} {}", device.name, device.device_type).to_lowercase();
    let words: Vec<&str> = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    format!("noise/{}", segment(&words.join("-")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vllm_verdict::case::MeasuredBy;
    use vllm_verdict::noise::AaRow;
    use vllm_verdict::v1::DeviceName;

    use super::*;
    use crate::environment::Environment;
    use crate::system::output;

    fn device() -> Device {
        Device {
            name: DeviceName::Cpu,
            device_type: "AMD_EPYC_9654_96-Core_96c".into(),
            count: 2,
            image_suffix: "-cpu".into(),
        }
    }

    fn run(ratios: &[f64]) -> AaRun {
        let row = AaRow {
            case: "latency_a".into(),
            metric: "median_latency".into(),
            client: MeasuredBy::Vllm,
            ratios: ratios.to_vec(),
        };
        AaRun {
            schema: SCHEMA.to_owned(),
            version: "0.1.0".into(),
            device: (&device()).into(),
            started: "2026-11-24T10:12:33Z".into(),
            rows: vec![row],
        }
    }

    fn store(folder: &Path) -> Store {
        Store::open(&folder.display().to_string(), &Environment::default()).unwrap()
    }

    #[tokio::test]
    async fn added_runs_read_back_as_noise() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        assert_eq!(read(&store, &device(), |_| ()).await.unwrap(), Noise::default());
        let first = run(&[0.5, -0.5]);
        let later = AaRun { started: "2026-11-25T10:12:33Z".into(), ..first.clone() };
        let key = append(&store, &first).await.unwrap();
        assert!(key.starts_with("noise/cpu-amd-epyc-9654-96-core-96c/20261124T101233Z-"), "{key}");
        append(&store, &later).await.unwrap();
        assert_eq!(append(&store, &first).await.unwrap(), key);
        assert_eq!(read(&store, &device(), |_| ()).await.unwrap(), Noise::of([first, later]));
    }

    #[tokio::test]
    async fn the_noise_of_another_device_type_is_not_read_even_where_its_folder_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        append(&store, &run(&[0.25])).await.unwrap();
        let other = Device { device_type: "AMD EPYC 9654 96-Core 96c".into(), ..device() };
        assert_eq!(read(&store, &other, |_| ()).await.unwrap(), Noise::default());
    }

    #[tokio::test]
    async fn an_object_that_is_not_a_run_is_named_and_the_others_count() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let key = append(&store, &run(&[0.25])).await.unwrap();
        let good = run(&[0.5]);
        append(&store, &good).await.unwrap();
        let path = folder.path().join(&key);
        let text = std::fs::read_to_string(&path).unwrap();
        for (content, expected) in [
            (text.replace("noise/v1", "noise/v2"), "its schema is `vllm-perf/noise/v2`: expected `vllm-perf/noise/v1`"),
            (text[..40].to_owned(), "EOF while parsing"),
            (String::new(), "EOF while parsing"),
            (text.replace("\"started\"", "\"begun\""), "missing field `started`"),
        ] {
            output::write(&path, content.as_bytes()).unwrap();
            let said = std::cell::RefCell::new(Vec::new());
            let noise = read(&store, &device(), |text| said.borrow_mut().push(text.to_owned())).await.unwrap();
            assert_eq!(noise, Noise::of([good.clone()]));
            let said = said.into_inner().join("\n");
            assert!(said.starts_with(&format!("left out: cannot read `{key}` in the store `")), "{said}");
            assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
        }
    }
}
