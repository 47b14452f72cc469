//! A/A runs in a store, one object a run: `noise/<device>/<time>-<id>.json`. An object is written once and
//! never changed, so that runs on several machines can share a store.

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use vllm_verdict::noise::{AaRun, MeasuredOn, Noise, SCHEMA};

use crate::system::store::Store;
use crate::system::store::object_key::segment;

/// Objects that are read at once.
const AT_ONCE: usize = 16;

/// The noise of a store, and the objects that are not used.
#[derive(Debug, Default, PartialEq)]
pub struct Known {
    pub noise: Noise,
    /// Why each object that is not an A/A run of this version is left out.
    pub left_out: Vec<String>,
}

/// The noise of `device` in a store; empty where the store has no runs of it. `except` is the identity of a run whose own
/// pairs are left out. An object that is damaged does not take the others with it.
///
/// # Errors
/// External: a store that cannot be read.
pub async fn read(store: &Store, device: &MeasuredOn, except: Option<&str>) -> Result<Known> {
    let entries = store.list(&folder_of(device)).await.context("cannot read the noise of A/A runs")?;
    let keys = entries.into_iter().map(|entry| entry.key).filter(|key| key.ends_with(".json"));
    let runs = stream::iter(keys).map(|key| read_run(store, key)).buffered(AT_ONCE);
    let runs: Vec<Result<AaRun, String>> = runs.try_collect().await?;
    let (mut read, mut left_out) = (Vec::new(), Vec::new());
    for run in runs {
        match run {
            Ok(run) => read.push(run),
            Err(why) => left_out.push(why),
        }
    }
    let is_used = |run: &AaRun| run.device == *device && (except.is_none() || run.run.as_deref() != except);
    Ok(Known { noise: Noise::of(read.into_iter().filter(is_used)), left_out })
}

/// The outer error is that of the store, the inner one that of the object.
async fn read_run(store: &Store, key: String) -> Result<Result<AaRun, String>> {
    let content = store.read(&key).await?;
    let read = || -> Result<AaRun> {
        let run: AaRun = serde_json::from_slice(&content)?;
        ensure!(run.schema == SCHEMA, "its schema is `{}`: expected `{SCHEMA}`", run.schema);
        Ok(run)
    };
    Ok(read().map_err(|error| {
        format!("`{key}` in the store `{}` is not an A/A run and is left out: {error:#}", store.place())
    }))
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
    let simulated = if device.simulated { " simulated" } else { "" };
    let words = format!("{} {}{simulated}", device.name, device.device_type).to_lowercase();
    let words: Vec<&str> = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    format!("noise/{}", segment(&words.join("-")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vllm_verdict::case::MeasuredBy;
    use vllm_verdict::noise::AaRow;
    use vllm_verdict::v1::{Device, DeviceName};

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

    fn on() -> MeasuredOn {
        MeasuredOn::new(&device(), false)
    }

    async fn noise(store: &Store, device: &MeasuredOn) -> Noise {
        read(store, device, None).await.unwrap().noise
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
            run: None,
            device: on(),
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
        assert_eq!(noise(&store, &on()).await, Noise::default());
        let first = run(&[0.5, -0.5]);
        let later = AaRun { started: "2026-11-25T10:12:33Z".into(), ..first.clone() };
        let key = append(&store, &first).await.unwrap();
        assert!(key.starts_with("noise/cpu-amd-epyc-9654-96-core-96c/20261124T101233Z-"), "{key}");
        append(&store, &later).await.unwrap();
        assert_eq!(append(&store, &first).await.unwrap(), key);
        assert_eq!(noise(&store, &on()).await, Noise::of([first, later]));
    }

    #[tokio::test]
    async fn the_noise_of_another_device_type_is_not_read_even_where_its_folder_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        append(&store, &run(&[0.25])).await.unwrap();
        let other = Device { device_type: "AMD EPYC 9654 96-Core 96c".into(), ..device() };
        assert_eq!(noise(&store, &MeasuredOn::new(&other, false)).await, Noise::default());
    }

    #[tokio::test]
    async fn the_noise_of_the_simulated_vllm_and_that_of_real_servers_are_apart() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let simulated = MeasuredOn::new(&device(), true);
        let key = append(&store, &AaRun { device: simulated.clone(), ..run(&[0.25]) }).await.unwrap();
        assert!(key.starts_with("noise/cpu-amd-epyc-9654-96-core-96c-simulated/"), "{key}");
        assert_eq!(noise(&store, &on()).await, Noise::default());
        append(&store, &run(&[0.5])).await.unwrap();
        assert_eq!(noise(&store, &on()).await, Noise::of([run(&[0.5])]));
        assert_eq!(noise(&store, &simulated).await, Noise::of([run(&[0.25])]));
    }

    #[tokio::test]
    async fn the_pairs_of_a_run_count_once_and_never_for_itself() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let of = |id: &str, ratios: &[f64]| AaRun { run: Some(id.to_owned()), ..run(ratios) };
        for run in [of("a", &[0.25]), of("a", &[0.25, 0.5]), of("b", &[0.125])] {
            append(&store, &run).await.unwrap();
        }
        assert_eq!(noise(&store, &on()).await, Noise::of([of("a", &[0.25, 0.5]), of("b", &[0.125])]));
        let others = read(&store, &on(), Some("a")).await.unwrap().noise;
        assert_eq!(others, Noise::of([of("b", &[0.125])]));
    }

    #[tokio::test]
    async fn an_object_that_is_not_a_run_is_named_and_the_others_count() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let key = append(&store, &run(&[0.25])).await.unwrap();
        let other = AaRun { started: "2026-11-25T10:12:33Z".into(), ..run(&[0.5]) };
        append(&store, &other).await.unwrap();
        let path = folder.path().join(&key);
        let text = std::fs::read_to_string(&path).unwrap();
        for (content, expected) in [
            (text.replace("noise/v1", "noise/v2"), "its schema is `vllm-perf/noise/v2`: expected `vllm-perf/noise/v1`"),
            (text[..40].to_owned(), "EOF while parsing"),
            (String::new(), "EOF while parsing"),
            (text.replace("\"started\"", "\"begun\""), "missing field `started`"),
        ] {
            output::write(&path, content.as_bytes()).unwrap();
            let known = read(&store, &on(), None).await.unwrap();
            assert_eq!(known.noise, Noise::of([other.clone()]));
            let [why] = &known.left_out[..] else { panic!("{:?}", known.left_out) };
            assert!(why.starts_with(&format!("`{key}` in the store `")), "{why}");
            assert!(why.contains(expected), "{why}");
        }
    }
}
