//! Options of `docker run`: what the container of an image target may use of this machine. The code of a pull request runs
//! in it, so it gets what vLLM needs and nothing else.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use vllm_verdict::v1::DeviceName;

use crate::environment::Environment;
use crate::plan::config::ContainerConfig;
use crate::system::model_folder;

/// What Docker's default profile allows a container with `SYS_NICE`, and `migrate_pages`: vLLM moves the memory of its
/// threads to their NUMA nodes. Compared call by call with that of engine 28 on x86-64; `io_uring` and `clock_adjtime`, which
/// that one allows, are refused. `clone` may make no namespace (0x7E020000 are the flags that do), and `clone3`, whose flags
/// a filter cannot read, is said not to exist. `socket` may not be AF_VSOCK (40).
pub const SECCOMP: &str = include_str!("seccomp.json");
/// Files of the model hub's own client that hold tokens.
const TOKENS: [&str; 2] = ["token", "stored_tokens"];
/// The folder of the model hub inside a container.
const HUB: &str = "/root/.cache/huggingface/hub";

/// The limits of a container, with the default of this machine, and what the operator adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerLimits {
    memory: Option<String>,
    shm_size: String,
    pids: u32,
    added: Vec<String>,
    /// Variables of every container.
    pub environment: IndexMap<String, String>,
}

impl ContainerLimits {
    /// The limits of the config. `memory_gib` is the memory of this machine, where it is known.
    pub fn of(config: &ContainerConfig, memory_gib: Option<f64>) -> Self {
        // A tenth is left to the load client, the engine and the system.
        let most = memory_gib.map(|gib| format!("{}m", (gib * 1024.0 * 0.9).max(512.0) as u64));
        Self {
            memory: config.memory.clone().or(most),
            shm_size: config.shm_size.clone(),
            pids: config.pids,
            added: config.words(),
            environment: config.environment.clone(),
        }
    }
}

/// Whether containers of a device get [`SECCOMP`] in place of the engine's own profile.
pub fn has_own_seccomp(device: DeviceName) -> bool {
    device.is_cpu()
}

/// The options by device and limits.
pub fn options(device: DeviceName, limits: &ContainerLimits) -> Vec<String> {
    // The engine does not keep what the container prints: it is in the server's log, whose size is bounded.
    let mut words: Vec<&str> = vec!["--ipc", "private", "--log-driver", "none"];
    let pids = limits.pids.to_string();
    words.extend(["--shm-size", &limits.shm_size, "--pids-limit", &pids]);
    if let Some(memory) = &limits.memory {
        words.extend(["--memory", memory]);
    }
    words.extend(["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]);
    words.extend_from_slice(match device {
        DeviceName::Cuda => &["--gpus", "all"],
        DeviceName::Rocm => {
            &["--device", "/dev/kfd", "--device", "/dev/dri", "--group-add", "video", "--cap-add", "SYS_PTRACE"]
        }
        DeviceName::Hpu => &["--runtime", "habana", "--env", "HABANA_VISIBLE_DEVICES=all", "--cap-add", "SYS_NICE"],
        DeviceName::Xpu => &["--device", "/dev/dri"],
        // vLLM binds its threads to NUMA nodes and moves their memory there.
        DeviceName::Cpu | DeviceName::Arm64Cpu => &["--cap-add", "SYS_NICE"],
    });
    words.extend(limits.added.iter().map(String::as_str));
    words.into_iter().map(str::to_owned).collect()
}

/// The volumes with which a container reads the models of this machine. It cannot change them, as later runs read them
/// too, and does not see the hub's token. Where `model` is not among them there are none, so that the container can
/// download it into its own folder.
pub fn hub_volumes(model: Option<&str>, environment: &Environment) -> Vec<String> {
    let Some(hub) = model.and_then(|model| hub_with(model, environment)) else { return Vec::new() };
    let mut words = vec!["--volume".to_owned(), format!("{}:{HUB}:ro", hub.display())];
    for token in TOKENS.iter().filter(|token| hub.join(token).exists()) {
        words.extend(["--volume".to_owned(), format!("/dev/null:{HUB}/{token}:ro")]);
    }
    words
}

/// The folder of the model hub on this machine that has `model`. Docker takes a colon in a path for a separator.
fn hub_with(model: &str, environment: &Environment) -> Option<PathBuf> {
    let hub = model_folder::hub(environment)?.canonicalize().ok()?;
    let is_mountable = !hub.to_str()?.contains(':');
    let has_model = hub.join(model_folder::repository(model)).is_dir();
    (is_mountable && has_model && hub != Path::new("/")).then_some(hub)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> ContainerLimits {
        ContainerLimits::of(&ContainerConfig::default(), Some(64.0))
    }

    #[test]
    fn every_device_has_a_private_bounded_container_without_privileges() {
        for device in DeviceName::ALL {
            let words = options(device, &limits()).join(" ");
            let expected = "--ipc private --log-driver none --shm-size 16g --pids-limit 16384 --memory 58982m \
                            --cap-drop ALL --security-opt no-new-privileges";
            assert!(words.starts_with(expected), "{device}: {words}");
            for forbidden in ["privileged ", "DAC_OVERRIDE", "SYS_ADMIN", "unconfined", "host", "docker.sock"] {
                assert!(!words.contains(forbidden), "{device}: {forbidden} in {words}");
            }
        }
    }

    #[test]
    fn limits_of_the_config_replace_those_of_the_machine() {
        let memory = Some("8g".to_owned());
        let config = ContainerConfig { memory, shm_size: "1g".to_owned(), pids: 100, ..ContainerConfig::default() };
        let words = options(DeviceName::Cuda, &ContainerLimits::of(&config, Some(64.0))).join(" ");
        assert!(words.contains("--shm-size 1g --pids-limit 100 --memory 8g "), "{words}");
        let unknown = options(DeviceName::Cuda, &ContainerLimits::of(&ContainerConfig::default(), None)).join(" ");
        assert!(!unknown.contains("--memory"), "{unknown}");
    }

    #[test]
    fn what_the_operator_adds_is_last() {
        let text = "container: {volumes: [/data:/d], devices: [/dev/infiniband], options: [--ulimit=memlock=-1]}";
        let config = crate::plan::config::parse(text, "vllm-perf.yml").unwrap().container;
        let words = options(DeviceName::Cuda, &ContainerLimits::of(&config, None)).join(" ");
        assert!(words.ends_with(" --volume /data:/d:ro --device /dev/infiniband --ulimit=memlock=-1"), "{words}");
    }

    #[test]
    fn the_profile_allows_moving_memory_between_nodes_and_no_namespaces_or_mounts() {
        let profile: serde_json::Value = serde_json::from_str(SECCOMP).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let rules = profile["syscalls"].as_array().unwrap();
        let allowed = rules.iter().find(|rule| rule["names"].as_array().unwrap().len() > 1).unwrap();
        let has = |name: &str| allowed["names"].as_array().unwrap().iter().any(|found| found == name);
        for name in ["migrate_pages", "mbind", "set_mempolicy", "get_mempolicy", "execve", "futex", "rseq"] {
            assert!(has(name), "{name}");
        }
        for name in ["mount", "unshare", "setns", "bpf", "keyctl", "init_module", "clone", "clone3", "io_uring_setup"] {
            assert!(!has(name), "{name}");
        }
        for name in
            ["open_by_handle_at", "name_to_handle_at", "process_vm_readv", "process_vm_writev", "perf_event_open"]
        {
            assert!(!has(name), "{name}");
        }
    }

    #[test]
    fn the_models_are_read_only_and_the_token_is_hidden() {
        let home = tempfile::tempdir().unwrap();
        let hub = home.path().join("hub").canonicalize().unwrap_or(home.path().join("hub"));
        std::fs::create_dir_all(hub.join("models--org--tiny")).unwrap();
        crate::system::output::write(&home.path().join("token"), b"hf_outside").unwrap();
        crate::system::output::write(&hub.join("token"), b"hf_inside").unwrap();
        let env: Environment = [("HF_HOME", home.path().to_str().unwrap())].into_iter().collect();
        let words = hub_volumes(Some("org/tiny"), &env).join(" ");
        let expected = format!("--volume {}:{HUB}:ro --volume /dev/null:{HUB}/token:ro", hub.display());
        assert_eq!(words, expected);
        for other in [Some("org/other"), Some("../../etc"), Some("/etc"), None] {
            assert_eq!(hub_volumes(other, &env), Vec::<String>::new(), "{other:?}");
        }
    }
}
