//! The environment of child processes: an allow-list, so that no CI variable and no token but `HF_TOKEN` is passed on.

use indexmap::IndexMap;
use vllm_verdict::v1::DeviceName;

use crate::environment::Environment;
use crate::system::host_variables::{chosen, is_of_the_host, without_secrets};

/// What a vllm on this machine gets besides: settings of computation.
const OF_VLLM: &[&str] = &["VIRTUAL_ENV"];
const PREFIXES_OF_VLLM: &[&str] = &[
    "VLLM_",
    "HF_",
    "HUGGINGFACE_",
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

/// Whether a vllm gets a variable of the operator. Of all tokens, it gets the hub's.
fn is_of_vllm(name: &str) -> bool {
    if name == "HF_TOKEN" {
        return true;
    }
    let secret = ["TOKEN", "SECRET", "PASSWORD", "KEY"].iter().any(|word| name.ends_with(word));
    let is_setting = name.starts_with("VLLM_PERF_");
    !secret
        && !is_setting
        && (OF_VLLM.contains(&name) || PREFIXES_OF_VLLM.iter().any(|prefix| name.starts_with(prefix)))
}

/// What `is_allowed` picks, without secrets but for the hub's token.
fn picked(environment: &Environment, is_allowed: impl Fn(&str) -> bool) -> IndexMap<String, String> {
    let mut all = chosen(environment, |name| name == "HF_TOKEN" && is_allowed(name));
    all.extend(without_secrets(environment, is_allowed));
    all
}

/// The variables of a vllm on this machine: the operator's, with those of `env` over them.
pub fn on_host(environment: &Environment, env: &IndexMap<String, String>) -> IndexMap<String, String> {
    let mut all = picked(environment, |name| is_of_the_host(name) || is_of_vllm(name));
    all.extend(env.clone());
    all
}

/// The variables of a container: the operator's, those that the config `added`, the defaults, and those of `env`, each over
/// the ones before.
pub fn in_container(
    environment: &Environment,
    added: &IndexMap<String, String>,
    device: DeviceName,
    env: &IndexMap<String, String>,
) -> IndexMap<String, String> {
    let is_inside = |name: &str| is_of_vllm(name) && ALLOWED_INSIDE.iter().any(|prefix| name.starts_with(prefix));
    let mut all = picked(environment, is_inside);
    if device.is_cpu() {
        all.insert("ON_CPU".to_owned(), "1".to_owned());
    }
    if device == DeviceName::Arm64Cpu {
        all.insert("ON_ARM64_CPU".to_owned(), "1".to_owned());
    }
    let mut above = added.clone();
    above.extend(env.clone());
    all.extend(with_defaults(environment, &above));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn operator() -> Environment {
        let names = [
            "PATH",
            "HOME",
            "DOCKER_HOST",
            "SSH_AUTH_SOCK",
            "HF_TOKEN",
            "GITHUB_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "VLLM_HOST_IP",
            "VLLM_API_KEY",
            "VLLM_PERF_BASE",
            "OMP_NUM_THREADS",
            "BASH_ENV",
        ];
        names.into_iter().map(|name| (name, "x")).collect()
    }

    fn names(variables: IndexMap<String, String>) -> String {
        variables.into_keys().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_vllm_of_this_machine_gets_no_way_to_the_engine_and_only_the_hubs_token() {
        let env = IndexMap::from([("VLLM_A".to_owned(), "1".to_owned())]);
        assert_eq!(names(on_host(&operator(), &env)), "HF_TOKEN HOME OMP_NUM_THREADS PATH VLLM_HOST_IP VLLM_A");
    }

    #[test]
    fn a_variable_with_a_secret_in_its_value_is_not_passed_on() {
        let operator: Environment = [
            ("GITHUB_TOKEN", "ghs_secret1"),
            ("HF_TOKEN", "hf_secret12"),
            ("HTTPS_PROXY", "http://me:pa55word@proxy:8080"),
            ("http_proxy", "http://proxy:8080"),
            ("HF_ENDPOINT", "https://hub.example/?t=ghs_secret1"),
            ("VLLM_LABEL", "hf_secret12"),
            ("VLLM_PORT", "1"),
        ]
        .into_iter()
        .collect();
        assert_eq!(names(on_host(&operator, &IndexMap::new())), "HF_TOKEN VLLM_PORT http_proxy");
        let inside = names(in_container(&operator, &IndexMap::new(), DeviceName::Cuda, &IndexMap::new()));
        assert_eq!(inside, "HF_TOKEN VLLM_PORT VLLM_LOGGING_LEVEL SAVE_TO_PYTORCH_BENCHMARK_FORMAT");
    }

    #[test]
    fn the_variables_of_the_config_are_below_those_of_the_test() {
        let map = |pairs: &[(&str, &str)]| -> IndexMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let added = map(&[("VLLM_HOST_IP", "1"), ("NCCL_DEBUG", "INFO"), ("VLLM_LOGGING_LEVEL", "INFO")]);
        let test = map(&[("NCCL_DEBUG", "WARN")]);
        let inside = in_container(&operator(), &added, DeviceName::Cuda, &test);
        let values = ["VLLM_HOST_IP", "NCCL_DEBUG", "VLLM_LOGGING_LEVEL"].map(|name| inside[name].as_str());
        assert_eq!(values, ["1", "WARN", "INFO"]);
    }

    #[test]
    fn a_container_gets_no_path_of_the_host() {
        let names = names(in_container(&operator(), &IndexMap::new(), DeviceName::Cpu, &IndexMap::new()));
        assert_eq!(names, "HF_TOKEN VLLM_HOST_IP ON_CPU VLLM_LOGGING_LEVEL SAVE_TO_PYTORCH_BENCHMARK_FORMAT");
    }
}
