//! The subject of a comparison: the event, the device, the sides and the host.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::untrusted::Untrusted;

/// The source of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// GitHub Actions: `GITHUB_*` and the payload file.
    Github,
    /// Buildkite: `BUILDKITE_*`.
    Buildkite,
    /// A local run: flags only.
    Local,
}

/// The source of the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelsSource {
    /// GitHub's API, at the time of the run.
    Api,
    /// The event's payload or the build's environment, as of the event.
    Payload,
    /// `--label` flags.
    Flag,
}

/// A CI event, in the same form for every CI.
// 14 fields: the keys of the event in `comparison/v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub provider: Provider,
    /// GitHub's event name (`pull_request`, `push`, ...), also for Buildkite builds; `local` for a local run.
    pub name: String,
    /// What happened to the pull request (`labeled`, `synchronize`, ...); `deleted` for a push that deleted its branch.
    pub action: Option<String>,
    /// The label that was just added or removed. Characters that a configured label cannot contain are replaced by `?`.
    pub changed_label: Option<String>,
    /// `owner/name` of the repository that the event belongs to.
    pub repository: Option<String>,
    /// The pushed branch, or the pull request's head branch.
    pub branch: Option<String>,
    /// Full hash of the commit to measure.
    pub head_sha: Option<String>,
    /// Full hash of the tip of the target branch, as of the event; not the merge base.
    pub base_sha: Option<String>,
    /// The target branch of the pull request or merge group.
    pub base_branch: Option<String>,
    /// The pull request's number.
    pub pull_request: Option<u64>,
    /// Names of the labels on the pull request.
    pub labels: Vec<String>,
    pub labels_source: LabelsSource,
    /// What this job measures of a matrix, in words that do not change from run to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// Whether the head commit is in another repository than the pull request's target.
    pub fork: bool,
}

/// A device that vLLM publishes images for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceName {
    /// NVIDIA GPUs.
    Cuda,
    /// AMD GPUs.
    Rocm,
    /// Intel Gaudi.
    Hpu,
    /// Intel GPUs.
    Xpu,
    /// x86-64 processors.
    Cpu,
    /// Arm processors.
    Arm64Cpu,
}

impl DeviceName {
    /// In the order of detection.
    pub const ALL: [Self; 6] = [Self::Cuda, Self::Rocm, Self::Hpu, Self::Xpu, Self::Cpu, Self::Arm64Cpu];

    /// The name in flags, files and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Hpu => "hpu",
            Self::Xpu => "xpu",
            Self::Cpu => "cpu",
            Self::Arm64Cpu => "arm64-cpu",
        }
    }

    /// Whether `tensor_parallel_size` counts NUMA nodes rather than accelerators.
    pub fn is_cpu(self) -> bool {
        matches!(self, Self::Cpu | Self::Arm64Cpu)
    }

    /// Suffix of upstream's test files: `serving-tests<suffix>.json`.
    pub fn suite_suffix(self) -> &'static str {
        match self {
            Self::Cuda => "",
            Self::Rocm => "-rocm",
            Self::Hpu => "-hpu",
            Self::Xpu => "-xpu",
            Self::Cpu => "-cpu",
            Self::Arm64Cpu => "-arm64-cpu",
        }
    }

    /// Suffix of vLLM's image tags, unless the config sets one. Images for NVIDIA and AMD GPUs have none.
    pub fn image_suffix(self) -> &'static str {
        match self {
            Self::Rocm => "",
            other => other.suite_suffix(),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DeviceName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            anyhow::anyhow!("unknown device `{text}`: expected one of {known}")
        })
    }
}

/// The device of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub name: DeviceName,
    /// Device type as upstream writes it, e.g. `NVIDIA H100 80GB HBM3` or `AMD_EPYC_9654_96-Core_96c`.
    #[serde(rename = "type")]
    pub device_type: String,
    /// GPUs, or NUMA nodes on a CPU.
    pub count: u32,
    /// Suffix of the image tag: `-cpu` in `<commit>-cpu`.
    pub image_suffix: String,
}

impl Device {
    /// Upstream's `gpu_type`, the `GPU` column of its results: `cpu`, `arm64-cpu`, `H100`, `MI300X`, `HL-325L`.
    pub fn gpu_type(&self) -> &str {
        let mut words = self.device_type.split_whitespace();
        let word = match self.name {
            DeviceName::Cpu | DeviceName::Arm64Cpu => Some(self.name.as_str()),
            DeviceName::Cuda => words.nth(1),
            DeviceName::Rocm => words.find(|word| word.starts_with("MI")),
            DeviceName::Hpu => words.last(),
            DeviceName::Xpu => None,
        };
        word.unwrap_or(&self.device_type)
    }

    /// Upstream's `gpu_type` file entry: one line for each accelerator, one line for a CPU.
    pub fn gpu_type_lines(&self) -> String {
        let lines = if self.name.is_cpu() { 1 } else { self.count.max(1) as usize };
        vec![self.gpu_type(); lines].join("\n")
    }
}

/// The subject of a comparison: what was compared and where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Version of vllm-perf.
    pub version: Untrusted,
    /// Absent for a comparison of folders.
    pub event: Option<Event>,
    /// Absent if unknown.
    pub device: Option<Device>,
    pub base: Option<SideFacts>,
    pub head: Option<SideFacts>,
    /// The machine; absent if unknown.
    pub host: Option<Host>,
    /// Start of the run, RFC 3339 in UTC.
    pub started: Option<Untrusted>,
    /// Duration of the run, in seconds.
    pub seconds: Option<f64>,
    /// A command that repeats the measurement.
    pub reproduce: Option<Untrusted>,
}

/// What ran on a side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideFacts {
    /// The target or the folder, as written on the command line.
    pub target: Untrusted,
    /// The measured commit.
    pub commit: Option<Untrusted>,
    /// Digest of the image.
    pub image_digest: Option<Untrusted>,
    /// Version reported by vLLM.
    pub vllm_version: Option<Untrusted>,
    /// Arguments that were appended to the server command.
    pub server_args: Vec<Untrusted>,
    /// Date of the commit or, if git does not know the commit, of the image; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dated: Option<Untrusted>,
}

/// The machine of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Processor model.
    pub cpu: Untrusted,
    /// Logical processors.
    pub cores: u32,
    /// Memory in GiB.
    pub memory_gib: f64,
    /// NUMA nodes.
    pub numa_nodes: u32,
    /// Kernel release.
    pub kernel: Untrusted,
    /// Frequency governor, if readable.
    pub governor: Option<Untrusted>,
}
