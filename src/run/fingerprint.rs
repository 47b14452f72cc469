//! What a repetition was measured on, and under which conditions: `environment.json` next to its results. Sides with
//! different fingerprints get no verdict.

use serde::{Deserialize, Serialize};
use vllm_verdict::Untrusted;
use vllm_verdict::side::Side;
use vllm_verdict::v1::Host;

/// Schema of `environment.json`.
pub const SCHEMA: &str = "vllm-perf/environment/v1";

/// Shortest time, in seconds, over which outside load is judged: in less, the ticks of the kernel's clock (10 ms) outweigh
/// the load.
const SHORTEST_WATCH: f64 = 1.0;

/// `environment.json` of a repetition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Surroundings {
    /// Always [`SCHEMA`].
    pub schema: String,
    pub fingerprint: Fingerprint,
    pub conditions: Conditions,
}

/// What a repetition was measured on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fingerprint {
    /// Device type, e.g. `NVIDIA H100`.
    pub device_type: String,
    /// GPUs or NUMA nodes.
    pub device_count: u32,
    /// Version of the accelerator's driver, where it is known.
    pub driver: Option<String>,
    /// Processor model.
    pub cpu: String,
    /// Logical processors.
    pub cores: u32,
    /// Frequency governor, where it can be read.
    pub governor: Option<String>,
    /// NUMA nodes.
    pub numa_nodes: u32,
    pub memory_gib: f64,
    /// Kernel release.
    pub kernel: String,
    /// Digest of the image that ran. The sides may differ in it.
    pub image_digest: Option<String>,
    /// Version that vLLM itself reports. The sides may differ in it.
    pub vllm_version: Option<String>,
}

/// Conditions during a repetition; a value that cannot be read is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Runnable processes over the last minute, at the end.
    pub load_average: Option<f64>,
    /// Share of the processors' time, while measuring, that other programs used.
    pub outside_load: Option<f64>,
    /// Seconds over which `outside_load` was measured.
    pub watched_seconds: f64,
    /// Warmest sensor of processors and accelerators at the end, in degrees Celsius.
    pub temperature: Option<f64>,
    /// How often heat slowed the processors down during the repetition.
    pub throttled: Option<u64>,
    /// Whether heat slowed an accelerator down at the end.
    pub device_throttled: Option<bool>,
}

impl Fingerprint {
    /// The machine; `None` where its processors are not known.
    pub fn host(&self) -> Option<Host> {
        (self.cores > 0).then(|| Host {
            cpu: self.cpu.as_str().into(),
            cores: self.cores,
            memory_gib: self.memory_gib,
            numa_nodes: self.numa_nodes,
            kernel: self.kernel.as_str().into(),
            governor: self.governor.as_deref().map(Untrusted::from),
        })
    }

    /// The differences between two repetitions, in words; `None` where they are comparable.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
        let of = |one: &Self| {
            [
                ("device", format!("{} x {}", one.device_count, one.device_type)),
                ("driver", text(&one.driver)),
                ("processor", format!("{} ({} logical)", one.cpu, one.cores)),
                ("frequency governor", text(&one.governor)),
                ("NUMA nodes", one.numa_nodes.to_string()),
                ("memory", format!("{:.0} GiB", one.memory_gib)),
                ("kernel", one.kernel.clone()),
            ]
        };
        let different: Vec<String> = of(self)
            .into_iter()
            .zip(of(other))
            .filter(|(one, another)| one != another)
            .map(|((what, one), (_, another))| format!("{what} {one} and {another}"))
            .collect();
        (!different.is_empty()).then(|| different.join(", "))
    }
}

/// Why repetitions are not comparable: the first that differs from the very first, in words.
pub fn mismatch(repetitions: &[(Side, u32, Fingerprint)]) -> Option<String> {
    let ((side, number, first), others) = repetitions.split_first()?;
    others.iter().find_map(|(other_side, other_number, other)| {
        let difference = first.difference(other)?;
        let name = |side: &Side, number: &u32| format!("{} {number:02}", side.as_str());
        Some(format!(
            "{} and {} were measured in different environments ({difference})",
            name(side, number),
            name(other_side, other_number)
        ))
    })
}

impl Conditions {
    /// Why the repetition has to be repeated: other programs used more than `limit` (a share) of the processors.
    pub fn disturbed(&self, limit: f64) -> Option<String> {
        let outside = self.outside_load.filter(|outside| *outside > limit)?;
        (self.watched_seconds >= SHORTEST_WATCH).then(|| {
            format!(
                "other programs used {:.0} % of the processors, more than the limit of {:.0} %",
                outside * 100.0,
                limit * 100.0
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint() -> Fingerprint {
        Fingerprint {
            device_type: "NVIDIA H100 80GB HBM3".to_owned(),
            device_count: 8,
            driver: Some("570.133.20".to_owned()),
            cpu: "Intel(R) Xeon(R) Platinum 8480C".to_owned(),
            cores: 224,
            governor: Some("performance".to_owned()),
            numa_nodes: 2,
            memory_gib: 2015.5,
            kernel: "6.8.0-45-generic".to_owned(),
            image_digest: Some("sha256:a".to_owned()),
            vllm_version: Some("0.11.0".to_owned()),
        }
    }

    #[test]
    fn sides_may_differ_only_in_image_and_version() {
        let head = Fingerprint { image_digest: None, vllm_version: Some("0.12.0".to_owned()), ..fingerprint() };
        assert_eq!(mismatch(&[(Side::Base, 1, fingerprint()), (Side::Head, 1, head.clone())]), None);
        let moved = Fingerprint { driver: None, kernel: "6.8.0-48-generic".to_owned(), ..head.clone() };
        let repetitions = [(Side::Base, 1, fingerprint()), (Side::Head, 1, head), (Side::Head, 2, moved)];
        insta::assert_snapshot!(mismatch(&repetitions).unwrap(), @"base 01 and head 02 were measured in different environments (driver 570.133.20 and unknown, kernel 6.8.0-45-generic and 6.8.0-48-generic)");
    }

    #[test]
    fn a_disturbed_repetition_is_repeated_unless_it_was_too_short() {
        let busy = Conditions { outside_load: Some(0.31), watched_seconds: 60.0, ..Conditions::default() };
        insta::assert_snapshot!(busy.disturbed(0.2).unwrap(), @"other programs used 31 % of the processors, more than the limit of 20 %");
        assert_eq!(busy.disturbed(0.4), None);
        assert_eq!(Conditions { watched_seconds: 0.2, ..busy }.disturbed(0.2), None);
        assert_eq!(Conditions { outside_load: None, ..busy }.disturbed(0.2), None);
    }

    #[test]
    fn an_environment_reads_back() {
        let conditions = Conditions { temperature: Some(61.0), throttled: Some(0), ..Conditions::default() };
        let written = Surroundings { schema: SCHEMA.to_owned(), fingerprint: fingerprint(), conditions };
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<Surroundings>(&text).unwrap(), written);
    }
}
