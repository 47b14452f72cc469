//! The device to measure on: its type and count, and the suffix of its images.

use anyhow::anyhow;
use indexmap::IndexMap;
use vllm_verdict::v1::{Device, DeviceName};

use crate::exit::Classify;
use crate::plan::config::DeviceConfig;

/// The device to measure on: the one that the user names, or else the one that this machine has. `ON_CPU=1` hides
/// accelerators.
///
/// # Errors
/// The user's mistake (exit 2): a device that this machine lacks and whose count is not given, or a count of 0. Exit 4:
/// no device is named, and the tool of a device that this machine seems to have fails.
pub fn resolve(
    name: Option<DeviceName>,
    device_type: Option<&str>,
    count: Option<u32>,
    config: &IndexMap<DeviceName, DeviceConfig>,
    probe: &Probe,
) -> anyhow::Result<Device> {
    let name = match name {
        Some(name) => name,
        None => automatic(probe)?,
    };
    let found = probe.found.iter().find(|found| found.name == name);
    let count = match count.or(found.map(|found| found.count)) {
        Some(0) => return Err(anyhow!("--device-count 0: at least 1 is needed")).mistake(),
        Some(count) => count,
        None => {
            let why = probe.problems.iter().find(|(problem, _)| *problem == name).map(|(_, why)| why.as_str());
            let why = why.unwrap_or("this machine has none");
            return Err(anyhow!(
                "cannot count {name} devices: {why}; to plan for another machine, pass --device-count"
            ))
            .mistake();
        }
    };
    let device_type = device_type.or(found.map(|found| found.device_type.as_str())).unwrap_or(name.as_str());
    let image_suffix = config.get(&name).map_or(name.image_suffix(), |device| &device.image_suffix);
    Ok(Device { name, device_type: device_type.to_owned(), count, image_suffix: image_suffix.to_owned() })
}

fn automatic(probe: &Probe) -> anyhow::Result<DeviceName> {
    let cpu = probe.found.iter().find(|found| found.name.is_cpu());
    let accelerator = probe.found.iter().find(|found| !found.name.is_cpu());
    let chosen = if probe.on_cpu { cpu } else { accelerator.or(cpu) };
    if let (false, None, Some((name, why))) = (probe.on_cpu, accelerator, probe.problems.first()) {
        return Err(anyhow!(
            "cannot detect the device: {why}; pass --device {name} with --device-count, or another device"
        ))
        .world();
    }
    match chosen {
        Some(found) => Ok(found.name),
        None => Err(anyhow!("cannot detect the device: pass --device NAME")).world(),
    }
}

/// A device that the probe found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbedDevice {
    pub name: DeviceName,
    /// Device type as upstream writes it.
    pub device_type: String,
    /// Accelerators, or NUMA nodes of a CPU.
    pub count: u32,
}

/// The devices of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probe {
    /// `ON_CPU=1`: selects the CPU even if there are accelerators.
    pub on_cpu: bool,
    /// Accelerators first.
    pub found: Vec<ProbedDevice>,
    /// Devices whose tool is installed but failed, and why.
    pub problems: Vec<(DeviceName, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{self, Exit};

    fn found(name: DeviceName, device_type: &str, count: u32) -> ProbedDevice {
        ProbedDevice { name, device_type: device_type.to_owned(), count }
    }

    fn gpu_machine() -> Probe {
        Probe {
            on_cpu: false,
            found: vec![
                found(DeviceName::Cuda, "NVIDIA H100 80GB HBM3", 8),
                found(DeviceName::Cpu, "AMD_EPYC_9654_96-Core_192c", 2),
            ],
            problems: Vec::new(),
        }
    }

    fn resolved(name: Option<DeviceName>, count: Option<u32>, probe: &Probe) -> anyhow::Result<Device> {
        resolve(name, None, count, &IndexMap::new(), probe)
    }

    #[test]
    fn the_accelerator_is_the_default_unless_the_user_or_on_cpu_selects_the_cpu() {
        let mut probe = gpu_machine();
        assert_eq!(resolved(None, None, &probe).unwrap().name, DeviceName::Cuda);
        let cpu = resolved(Some(DeviceName::Cpu), None, &probe).unwrap();
        assert_eq!((cpu.count, cpu.image_suffix.as_str(), cpu.gpu_type()), (2, "-cpu", "cpu"));
        probe.on_cpu = true;
        assert_eq!(resolved(None, None, &probe).unwrap().name, DeviceName::Cpu);
        assert_eq!(resolved(Some(DeviceName::Cuda), None, &probe).unwrap().gpu_type(), "H100");
    }

    #[test]
    fn a_device_of_another_machine_needs_its_count() {
        let error = resolved(Some(DeviceName::Rocm), None, &gpu_machine()).unwrap_err();
        insta::assert_snapshot!(error, @"cannot count rocm devices: this machine has none; to plan for another machine, pass --device-count");
        assert_eq!(exit::of(&error), Exit::Mistake);
        let planned = resolved(Some(DeviceName::Rocm), Some(8), &gpu_machine()).unwrap();
        assert_eq!((planned.device_type.as_str(), planned.count, planned.image_suffix.as_str()), ("rocm", 8, ""));
    }

    #[test]
    fn a_broken_driver_never_leads_to_a_cpu_run() {
        let mut probe = gpu_machine();
        probe.found.remove(0);
        probe.problems = vec![(DeviceName::Cuda, "nvidia-smi: exit status: 9: driver not loaded".to_owned())];
        let error = resolved(None, None, &probe).unwrap_err();
        insta::assert_snapshot!(error, @"cannot detect the device: nvidia-smi: exit status: 9: driver not loaded; pass --device cuda with --device-count, or another device");
        assert_eq!(exit::of(&error), Exit::World);
        assert_eq!(resolved(Some(DeviceName::Cpu), None, &probe).unwrap().count, 2);
    }

    #[test]
    fn the_suffix_of_the_config_has_priority_and_each_type_has_upstreams_short_name() {
        let config = [(DeviceName::Cpu, DeviceConfig { image_suffix: "-cpu-avx2".to_owned(), label: None })];
        let cpu = resolve(Some(DeviceName::Cpu), Some("x"), Some(1), &config.into(), &gpu_machine()).unwrap();
        assert_eq!((cpu.image_suffix.as_str(), cpu.device_type.as_str()), ("-cpu-avx2", "x"));
        for (name, device_type, word) in [
            (DeviceName::Rocm, "AMD Instinct MI300X OAM", "MI300X"),
            (DeviceName::Hpu, "Intel Gaudi3 HL-325L", "HL-325L"),
            (DeviceName::Xpu, "Intel(R) Data Center GPU Max 1550", "Intel(R) Data Center GPU Max 1550"),
            (DeviceName::Cuda, "cuda", "cuda"),
        ] {
            let device = resolve(Some(name), Some(device_type), Some(1), &IndexMap::new(), &gpu_machine()).unwrap();
            assert_eq!(device.gpu_type(), word);
        }
    }
}
