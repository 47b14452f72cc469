//! What we measure on: the device, its type and count, and the image suffix that goes with it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Devices that vLLM publishes images for.
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
    /// All of them, in the order in which they are looked for.
    pub const ALL: [Self; 6] = [Self::Cuda, Self::Rocm, Self::Hpu, Self::Xpu, Self::Cpu, Self::Arm64Cpu];

    /// The word that users type and records carry.
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

    /// Whether `tensor_parallel_size` counts NUMA nodes here rather than accelerators.
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

/// A device as one plan measures on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Which device.
    pub name: DeviceName,
    /// Device type as upstream writes it, e.g. `NVIDIA H100 80GB HBM3` or `AMD_EPYC_9654_96-Core_96c`.
    #[serde(rename = "type")]
    pub device_type: String,
    /// GPUs, or NUMA nodes on a CPU.
    pub count: u32,
    /// Suffix of the image tag: `-cpu` in `<commit>-cpu`.
    pub image_suffix: String,
}
