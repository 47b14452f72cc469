//! Records on their way into a store, and what is in one.

use std::path::Path;

use vllm_perf::device::Device;
use vllm_perf::environment::Environment;
use vllm_perf::noise::{self, AaRun, Noise};
use vllm_perf::store::Store;

fn open(folder: &Path) -> Store {
    Store::open(&folder.display().to_string(), &Environment::default()).unwrap()
}

fn wait<T>(work: impl Future<Output = anyhow::Result<T>>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work).unwrap()
}

/// Keeps an A/A run in a folder store.
pub(super) fn keep(folder: &Path, run: &AaRun) {
    wait(noise::append(&open(folder), run));
}

/// What a folder store knows of the noise of a device.
pub(super) fn known(folder: &Path, device: &Device) -> Noise {
    wait(Noise::read(&open(folder), device))
}
