//! The environment of child processes: an allow-list, so that no CI variable and no token but `HF_TOKEN` is passed on.

use indexmap::IndexMap;
use vllm_verdict::v1::DeviceName;

use crate::environment::Environment;

/// Variables that are passed on: paths of programs and models, and settings of computation.
const ALLOWED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "VIRTUAL_ENV",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
const ALLOWED_PREFIXES: &[&str] = &[
    "VLLM_",
    "HF_",
    "TRANSFORMERS_",
    "CUDA_",
    "NVIDIA_",
    "NCCL_",
    "ROCR_",
    "HIP_",
    "HSA_",
    "HABANA_",
    "PT_HPU_",
    "ONEAPI_",
    "ZE_",
    "TORCH",
    "PYTORCH_",
    "OMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    "TOKENIZERS_",
    "TRITON_",
];
/// Of these, the ones that a container gets: settings of vLLM and of the model hub, not paths of the host.
const ALLOWED_INSIDE: &[&str] = &["VLLM_", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT", "TRANSFORMERS_OFFLINE"];

fn allowed(name: &str) -> bool {
    if name == "HF_TOKEN" {
        return true;
    }
    let secret = ["TOKEN", "SECRET", "PASSWORD", "KEY"].iter().any(|word| name.ends_with(word));
    let is_setting = name.starts_with("VLLM_PERF_");
    !secret
        && !is_setting
        && (ALLOWED.contains(&name) || ALLOWED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// The variables of a program on this machine, with those of `env` over them.
pub fn on_host(environment: &Environment, env: &IndexMap<String, String>) -> IndexMap<String, String> {
    let mut all: IndexMap<String, String> = environment
        .iter()
        .filter(|(name, _)| allowed(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    all.extend(env.clone());
    all
}

/// The variables of a container, with the defaults and those of `env` over them.
pub fn in_container(
    environment: &Environment,
    device: DeviceName,
    env: &IndexMap<String, String>,
) -> IndexMap<String, String> {
    let mut all: IndexMap<String, String> = environment
        .iter()
        .filter(|(name, _)| allowed(name) && ALLOWED_INSIDE.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if device.is_cpu() {
        all.insert("ON_CPU".to_owned(), "1".to_owned());
    }
    if device == DeviceName::Arm64Cpu {
        all.insert("ON_ARM64_CPU".to_owned(), "1".to_owned());
    }
    all.extend(with_defaults(environment, env));
    all
}

/// The variables that upstream sets for every command, and those of the test file over them.
pub fn with_defaults(environment: &Environment, env: &IndexMap<String, String>) -> IndexMap<String, String> {
    let mut all = IndexMap::new();
    for (name, value) in [("VLLM_LOGGING_LEVEL", "WARNING"), ("SAVE_TO_PYTORCH_BENCHMARK_FORMAT", "1")] {
        all.insert(name.to_owned(), environment.get(name).unwrap_or(value).to_owned());
    }
    all.extend(env.clone());
    all
}
