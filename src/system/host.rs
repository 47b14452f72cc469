//! This machine: its processors, memory and kernel, from `/proc` and `/sys` of Linux.

pub mod outside_load;
pub mod read_ahead;
pub mod temperature;

use std::collections::HashSet;
use std::fs;

use anyhow::Context;
use vllm_verdict::v1::Host;

use crate::exit::Classify;

/// The processors of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processors {
    /// Model; on Arm, where the kernel has none, vendor and part number.
    pub model: String,
    /// Vendor, by the name that `lscpu` uses.
    pub vendor: String,
    /// Logical processors.
    pub logical: u32,
    /// Physical cores of all sockets.
    pub physical_cores: u32,
    pub numa_nodes: u32,
}

/// The processors of this machine.
///
/// # Errors
/// External (exit 4): `/proc/cpuinfo` cannot be read or names no processor.
pub fn processors() -> anyhow::Result<Processors> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo").world()?;
    // A kernel without NUMA has no such file, and one node.
    let online = fs::read_to_string("/sys/devices/system/node/online").unwrap_or_else(|_| "0".to_owned());
    parse_processors(&cpuinfo, &online).context("cannot find a processor in /proc/cpuinfo").world()
}

/// This machine, as reports show it.
///
/// # Errors
/// External (exit 4): `/proc` cannot be read.
pub fn host() -> anyhow::Result<Host> {
    let processors = processors()?;
    let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo").world()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel release").world()?;
    let governor = fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").ok();
    Ok(Host {
        cpu: processors.model.into(),
        cores: processors.logical,
        memory_gib: memory_gib(&meminfo).context("cannot find MemTotal in /proc/meminfo").world()?,
        numa_nodes: processors.numa_nodes,
        kernel: kernel.trim().into(),
        governor: governor.map(|governor| governor.trim().into()),
    })
}

fn parse_processors(cpuinfo: &str, online: &str) -> Option<Processors> {
    let fields =
        || cpuinfo.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key.trim(), value.trim()));
    let first = |name: &str| fields().find(|(key, _)| *key == name).map(|(_, value)| value);
    let logical = fields().filter(|(key, _)| *key == "processor").count() as u32;
    let (mut cores, mut socket) = (HashSet::new(), "");
    for (key, value) in fields() {
        match key {
            "physical id" => socket = value,
            "core id" => {
                cores.insert((socket, value));
            }
            _ => {}
        }
    }
    let vendor = match (first("vendor_id"), first("CPU implementer")) {
        (Some(vendor), _) => vendor.to_owned(),
        (None, Some(implementer)) => arm_vendor(implementer).to_owned(),
        (None, None) => "unknown".to_owned(),
    };
    let model = match (first("model name"), first("CPU part")) {
        (Some(model), _) => model.to_owned(),
        (None, Some(part)) => format!("{vendor} part {part}"),
        (None, None) => vendor.clone(),
    };
    let physical_cores = if cores.is_empty() { logical } else { cores.len() as u32 };
    (logical > 0).then(|| Processors { model, vendor, logical, physical_cores, numa_nodes: list_length(online).max(1) })
}

/// The vendor of an Arm `CPU implementer`, by the name that `lscpu` uses.
fn arm_vendor(implementer: &str) -> &str {
    match implementer {
        "0x41" => "ARM",
        "0x46" => "FUJITSU",
        "0x48" => "HiSilicon",
        "0x4e" => "NVIDIA",
        "0x51" => "Qualcomm",
        "0x61" => "Apple",
        "0x6d" => "Microsoft",
        "0xc0" => "Ampere",
        other => other,
    }
}

/// How many numbers a kernel list such as `0-3,8` holds.
fn list_length(list: &str) -> u32 {
    let length = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    list.trim().split(',').filter_map(length).sum()
}

/// `MemTotal` in GiB, to a tenth.
fn memory_gib(meminfo: &str) -> Option<f64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: f64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib / 1024.0 / 1024.0 * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted_over_sockets_and_without_threads() {
        let processor = |number: u32, socket: u32, core: u32| {
            format!(
                "processor\t: {number}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Platinum 8488C\n\
                 physical id\t: {socket}\nsiblings\t: 4\ncore id\t\t: {core}\ncpu cores\t: 2\nbugs\t\t: a:b\n\n"
            )
        };
        let cpuinfo: String =
            (0..8).map(|number| processor(number, number / 2 % 2, number % 2)).collect::<Vec<_>>().concat();
        assert_eq!(
            parse_processors(&cpuinfo, "0-1\n").unwrap(),
            Processors {
                model: "Intel(R) Xeon(R) Platinum 8488C".to_owned(),
                vendor: "GenuineIntel".to_owned(),
                logical: 8,
                physical_cores: 4,
                numa_nodes: 2,
            }
        );
    }

    #[test]
    fn arm_has_an_implementer_instead_of_a_model() {
        let cpuinfo = "processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n\
                       CPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: 0xd40\nCPU revision\t: 1\n\n";
        let graviton = parse_processors(&cpuinfo.repeat(64), "").unwrap();
        assert_eq!((graviton.vendor.as_str(), graviton.model.as_str()), ("ARM", "ARM part 0xd40"));
        assert_eq!((graviton.logical, graviton.physical_cores, graviton.numa_nodes), (64, 64, 1));
        assert_eq!(parse_processors("", "0"), None);
    }

    #[test]
    fn lists_of_the_kernel_are_counted() {
        for (list, length) in [("0\n", 1), ("0-7\n", 8), ("0,2-3\n", 3), ("", 0), ("3-1", 0)] {
            assert_eq!(list_length(list), length, "{list}");
        }
    }

    #[test]
    fn memory_is_in_gib() {
        assert_eq!(memory_gib("MemTotal:       24684092 kB\nMemFree: 16759068 kB\n"), Some(23.5));
        assert_eq!(memory_gib("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn this_machine_has_a_processor_and_a_kernel() {
        let host = host().unwrap();
        assert!(
            host.cores >= 1 && host.numa_nodes >= 1 && host.memory_gib > 0.1 && !host.kernel.raw().is_empty(),
            "{host:?}"
        );
    }
}
