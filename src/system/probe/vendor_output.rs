//! Parsers for the output of the vendors' tools.

use std::collections::HashSet;

use anyhow::Context;
use serde::Deserialize;

/// Lines that are not blank, without white space around them.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// One name in each line: how many, and the first.
pub fn counted(names: &str) -> Option<(u32, String)> {
    Some((lines(names).count() as u32, lines(names).next()?.to_owned()))
}

/// `amd-smi list`: one `GPU: <n>` line for each device.
pub fn amd_smi_gpus(text: &str) -> u32 {
    lines(text).filter(|line| line.starts_with("GPU:")).count() as u32
}

/// `rocm-smi --showid`: several `GPU[<n>]` lines for each device.
pub fn rocm_smi_gpus(text: &str) -> u32 {
    let names = lines(text).filter_map(|line| line.strip_prefix("GPU[")?.split(']').next());
    names.collect::<HashSet<_>>().len() as u32
}

/// `rocminfo`: the marketing name of the last agent that is a GPU; processors are agents too.
pub fn marketing_name(text: &str) -> Option<String> {
    let (mut name, mut gpu) = (None, None);
    for (key, value) in lines(text).filter_map(|line| line.split_once(':')) {
        match (key.trim(), value.trim()) {
            ("Marketing Name", value) => name = Some(value),
            ("Device Type", "GPU") => gpu = name.or(gpu),
            _ => {}
        }
    }
    gpu.filter(|name| !name.is_empty()).map(str::to_owned)
}

/// `hl-smi -q`: `Intel Gaudi3 <product>`; products of the second generation begin with `HL-2`.
pub fn gaudi_type(text: &str) -> Option<String> {
    let product = lines(text).filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == "Product Name");
    let product = product?.1.trim();
    let generation = if product.starts_with("HL-2") { 2 } else { 3 };
    Some(format!("Intel Gaudi{generation} {product}"))
}

/// `xpu-smi discovery -j`.
pub fn xpu_devices(json: &str) -> anyhow::Result<Option<(u32, String)>> {
    #[derive(Deserialize)]
    struct Discovery {
        device_list: Vec<XpuDevice>,
    }
    #[derive(Deserialize)]
    struct XpuDevice {
        device_name: String,
    }
    let devices = serde_json::from_str::<Discovery>(json).context("cannot read xpu-smi discovery -j")?.device_list;
    let count = devices.len() as u32;
    Ok(devices.into_iter().next().map(|device| (count, device.device_name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nvidia_names_one_gpu_a_line() {
        let names = "NVIDIA H100 80GB HBM3\nNVIDIA H100 80GB HBM3\n";
        assert_eq!(counted(names), Some((2, "NVIDIA H100 80GB HBM3".to_owned())));
        assert_eq!(counted("\n"), None);
    }

    #[test]
    fn both_amd_tools_count_devices_and_not_lines() {
        let amd = "GPU: 0\n    BDF: 0000:0a:00.0\n    UUID: 25ff74a1-0000-1000-8059-f1e0dbc2ffd6\n    KFD_ID: 51140\n\
                   \nGPU: 1\n    BDF: 0000:32:00.0\n    UUID: 9dff74a1-0000-1000-8078-a8d6cc2f8b8a\n    KFD_ID: 5656\n";
        assert_eq!(amd_smi_gpus(amd), 2);
        let rocm = "============================ ROCm System Management Interface ============================\n\
                    =========================================== ID ===========================================\n\
                    GPU[0]\t\t: Device Name: \t\tAMD Instinct MI300X\nGPU[0]\t\t: Device ID: \t\t0x74a1\n\
                    GPU[1]\t\t: Device Name: \t\tAMD Instinct MI300X\nGPU[1]\t\t: Device ID: \t\t0x74a1\n";
        assert_eq!(rocm_smi_gpus(rocm), 2);
    }

    #[test]
    fn the_marketing_name_is_the_gpus_and_not_the_processors() {
        let rocminfo = "\
ROCk module is loaded
*******
Agent 1
*******
  Name:                    AMD EPYC 9654 96-Core Processor
  Uuid:                    CPU-XX
  Marketing Name:          AMD EPYC 9654 96-Core Processor
  Vendor Name:             CPU
  Device Type:             CPU
*******
Agent 2
*******
  Name:                    gfx942
  Uuid:                    GPU-1c88d36a9b7b5b32
  Marketing Name:          AMD Instinct MI300X
  Vendor Name:             AMD
  Device Type:             GPU
  ISA Info:
    ISA 1
      Name:                    amdgcn-amd-amdhsa--gfx942:sramecc+:xnack-
";
        assert_eq!(marketing_name(rocminfo).as_deref(), Some("AMD Instinct MI300X"));
        assert_eq!(marketing_name("Marketing Name: AMD EPYC\nDevice Type: CPU\n"), None);
    }

    #[test]
    fn gaudi_is_its_generation_and_product() {
        let query = "================ HL-SMI LOG ================\n[0] AIP (accel0) 0000:4d:00.0\n\
                     \tProduct Name                    : HL-325L\n\tModel Number                    : F03GL0000000000\n";
        assert_eq!(gaudi_type(query).as_deref(), Some("Intel Gaudi3 HL-325L"));
        assert_eq!(gaudi_type("Product Name : HL-225").as_deref(), Some("Intel Gaudi2 HL-225"));
    }

    #[test]
    fn xpu_devices_are_counted_from_the_json() {
        let json = r#"{"device_list": [
            {"device_function_type": "physical", "device_id": 0, "device_name": "Intel(R) Data Center GPU Max 1550"},
            {"device_function_type": "physical", "device_id": 1, "device_name": "Intel(R) Data Center GPU Max 1550"}
        ]}"#;
        assert_eq!(xpu_devices(json).unwrap(), Some((2, "Intel(R) Data Center GPU Max 1550".to_owned())));
        assert_eq!(xpu_devices(r#"{"device_list": []}"#).unwrap(), None);
        assert!(xpu_devices("No device discovered").is_err());
    }
}
