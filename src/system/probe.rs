//! What this machine has, asked of each vendor's own tool. [`probe`] touches the world; the parsers are pure.

use crate::plan::device::{Probe, ProbedDevice};
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Deserialize;
use vllm_verdict::v1::DeviceName;

use crate::environment::Environment;
use crate::system::host;

/// Asks the vendors' tools on `PATH`, and the system about its processors.
pub fn probe(env: &Environment) -> Probe {
    let mut probe = Probe { on_cpu: env.get("ON_CPU") == Some("1"), ..Probe::default() };
    let asked = [
        (DeviceName::Cuda, nvidia(env)),
        (DeviceName::Rocm, amd(env)),
        (DeviceName::Hpu, gaudi(env)),
        (DeviceName::Xpu, xpu(env)),
    ];
    for (name, answer) in asked {
        match answer {
            Ok(Some((0, _)) | None) => {}
            Ok(Some((count, device_type))) => probe.found.push(ProbedDevice { name, device_type, count }),
            Err(error) => probe.problems.push((name, format!("{error:#}"))),
        }
    }
    match host::processors() {
        Ok(processors) => probe.found.push(cpu(std::env::consts::ARCH, &processors)),
        Err(error) => probe.problems.push((DeviceName::Cpu, format!("{error:#}"))),
    }
    probe
}

/// The accelerators' driver and how they are, as far as the vendor's tool tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Version of the driver.
    pub driver: Option<String>,
    /// Warmest accelerator, in degrees Celsius.
    pub temperature: Option<f64>,
    /// Whether one is slowed down for heat.
    pub throttled: Option<bool>,
}

/// Asks after the accelerators of one kind. Of those without a tool that tells, nothing is known.
pub fn state(name: DeviceName, env: &Environment) -> State {
    match name {
        DeviceName::Cuda => {
            let query = "--query-gpu=driver_version,temperature.gpu,clocks_throttle_reasons.hw_thermal_slowdown,\
                         clocks_throttle_reasons.sw_thermal_slowdown";
            let tool = Tool::find("nvidia-smi", env);
            tool.and_then(|tool| tool.ask(&[query, "--format=csv,noheader,nounits"], env).ok())
                .map_or_else(State::default, |answer| nvidia_state(&answer))
        }
        DeviceName::Rocm => {
            let version = std::fs::read_to_string("/sys/module/amdgpu/version").ok();
            State { driver: version.map(|version| version.trim().to_owned()), ..State::default() }
        }
        DeviceName::Hpu | DeviceName::Xpu | DeviceName::Cpu | DeviceName::Arm64Cpu => State::default(),
    }
}

/// One line a GPU: driver, degrees, and two answers that are `Active`, `Not Active` or `[N/A]`.
fn nvidia_state(answer: &str) -> State {
    let gpus: Vec<Vec<&str>> = lines(answer).map(|line| line.split(',').map(str::trim).collect()).collect();
    let column = |number: usize| gpus.iter().filter_map(move |gpu| gpu.get(number).copied());
    let slowed: Vec<bool> =
        column(2).chain(column(3)).filter(|word| word.ends_with("Active")).map(|word| word == "Active").collect();
    State {
        driver: column(0).next().map(str::to_owned),
        temperature: column(1).filter_map(|degrees| degrees.parse::<f64>().ok()).reduce(f64::max),
        throttled: (!slowed.is_empty()).then(|| slowed.contains(&true)),
    }
}

/// The processors alone: no tool is asked.
pub fn processors() -> Probe {
    let found = host::processors().map(|processors| cpu(std::env::consts::ARCH, &processors));
    Probe { on_cpu: true, found: found.into_iter().collect(), problems: Vec::new() }
}

type Answer = anyhow::Result<Option<(u32, String)>>;

fn nvidia(env: &Environment) -> Answer {
    let Some(tool) = Tool::find("nvidia-smi", env) else { return Ok(None) };
    let names = tool.ask(&["--query-gpu=name", "--format=csv,noheader"], env)?;
    Ok(counted(&names))
}

fn amd(env: &Environment) -> Answer {
    let count = if let Some(tool) = Tool::find("amd-smi", env) {
        amd_smi_gpus(&tool.ask(&["list"], env)?)
    } else if let Some(tool) = Tool::find("rocm-smi", env) {
        rocm_smi_gpus(&tool.ask(&["--showid"], env)?)
    } else {
        return Ok(None);
    };
    let tool = Tool::find("rocminfo", env).context("rocminfo, which knows the AMD device type, is not on PATH")?;
    let name = marketing_name(&tool.ask(&[], env)?).context("rocminfo names no GPU")?;
    Ok(Some((count, name)))
}

fn gaudi(env: &Environment) -> Answer {
    let Some(tool) = Tool::find("hl-smi", env) else { return Ok(None) };
    let modules = tool.ask(&["-Q", "module_id", "-f", "csv,noheader"], env)?;
    let count = lines(&modules).count() as u32;
    let name = gaudi_type(&tool.ask(&["-q"], env)?).context("hl-smi -q names no product")?;
    Ok(Some((count, name)))
}

fn xpu(env: &Environment) -> Answer {
    let Some(tool) = Tool::find("xpu-smi", env) else { return Ok(None) };
    xpu_devices(&tool.ask(&["discovery", "-j"], env)?)
}

/// A vendor's tool.
struct Tool {
    name: &'static str,
    path: PathBuf,
}

impl Tool {
    fn find(name: &'static str, env: &Environment) -> Option<Self> {
        let path = std::env::split_paths(env.get("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())?;
        Some(Self { name, path })
    }

    #[expect(clippy::disallowed_methods, reason = "the probe asks the vendors' own tools")]
    fn ask(&self, arguments: &[&str], env: &Environment) -> anyhow::Result<String> {
        let passed = ["PATH", "HOME", "LD_LIBRARY_PATH", "HABANA_LOGS"];
        let output = std::process::Command::new(&self.path)
            .args(arguments)
            .env_clear()
            .envs(passed.into_iter().filter_map(|name| Some((name, env.get(name)?))))
            .env("LC_ALL", "C")
            .stdin(std::process::Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.name))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
            bail!("{}: {}: {}", self.name, output.status, said.lines().next().unwrap_or("no message"));
        }
        String::from_utf8(output.stdout).with_context(|| format!("{} did not print text", self.name))
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// One name a line: how many, and the first.
fn counted(names: &str) -> Option<(u32, String)> {
    Some((lines(names).count() as u32, lines(names).next()?.to_owned()))
}

/// `amd-smi list`: a `GPU: <n>` line a device.
fn amd_smi_gpus(text: &str) -> u32 {
    lines(text).filter(|line| line.starts_with("GPU:")).count() as u32
}

/// `rocm-smi --showid`: several `GPU[<n>]` lines a device.
fn rocm_smi_gpus(text: &str) -> u32 {
    let names = lines(text).filter_map(|line| line.strip_prefix("GPU[")?.split(']').next());
    names.collect::<std::collections::HashSet<_>>().len() as u32
}

/// `rocminfo`: the marketing name of the last agent that is a GPU; processors are agents too.
fn marketing_name(text: &str) -> Option<String> {
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
fn gaudi_type(text: &str) -> Option<String> {
    let product = lines(text).filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == "Product Name");
    let product = product?.1.trim();
    let generation = if product.starts_with("HL-2") { 2 } else { 3 };
    Some(format!("Intel Gaudi{generation} {product}"))
}

/// `xpu-smi discovery -j`.
fn xpu_devices(json: &str) -> Answer {
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

/// The CPU of this machine. On x86-64 its type is model and physical cores, on Arm its vendor.
fn cpu(arch: &str, processors: &host::Processors) -> ProbedDevice {
    let count = processors.numa_nodes.max(1);
    if arch == "aarch64" {
        return ProbedDevice { name: DeviceName::Arm64Cpu, device_type: processors.vendor.clone(), count };
    }
    let mut model = processors.model.clone();
    for word in ["Intel(R)", "(R)", "(TM)", "CPU", "Processor"] {
        model = model.replace(word, "");
    }
    let model = model.split_whitespace().collect::<Vec<_>>().join("_");
    ProbedDevice { name: DeviceName::Cpu, device_type: format!("{model}_{}c", processors.physical_cores), count }
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
    fn nvidia_tells_its_driver_and_the_warmest_gpu() {
        let answer = "570.133.20, 41, Not Active, Not Active\n570.133.20, 88, Not Active, Active\n";
        let expected = State { driver: Some("570.133.20".to_owned()), temperature: Some(88.0), throttled: Some(true) };
        assert_eq!(nvidia_state(answer), expected);
        assert_eq!(nvidia_state("570.133.20, [N/A], [N/A], [N/A]\n").throttled, None);
        assert_eq!(nvidia_state(""), State::default());
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

    #[test]
    fn a_cpu_is_its_model_and_physical_cores_on_x86_and_its_vendor_on_arm() {
        let processors = |model: &str, physical_cores| host::Processors {
            model: model.to_owned(),
            vendor: "ARM".to_owned(),
            logical: 2 * physical_cores,
            physical_cores,
            numa_nodes: 4,
        };
        for (model, cores, expected) in [
            ("AMD EPYC 9654 96-Core Processor", 96, "AMD_EPYC_9654_96-Core_96c"),
            ("Intel(R) Xeon(R) Platinum 8488C", 48, "Xeon_Platinum_8488C_48c"),
            ("Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", 36, "Xeon_E5-2686_v4_@_2.30GHz_36c"),
        ] {
            assert_eq!(cpu("x86_64", &processors(model, cores)).device_type, expected);
        }
        let arm = ProbedDevice { name: DeviceName::Arm64Cpu, device_type: "ARM".to_owned(), count: 4 };
        assert_eq!(cpu("aarch64", &processors("ARM part 0xd40", 64)), arm);
    }

    #[test]
    fn a_tool_that_fails_is_a_problem_with_its_own_words() {
        let bin = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/device");
        let env = [("PATH", bin), ("ON_CPU", "1")].into_iter().collect();
        let probe = probe(&env);
        assert!(probe.on_cpu);
        let problem = "nvidia-smi: exit status: 9: NVIDIA-SMI has failed".to_owned();
        assert_eq!(probe.problems, [(DeviceName::Cuda, problem)]);
        let gaudi = ProbedDevice { name: DeviceName::Hpu, device_type: "Intel Gaudi3 HL-325L".to_owned(), count: 2 };
        assert_eq!(probe.found[0], gaudi);
        assert!(probe.found[1].name.is_cpu() && probe.found[1].count >= 1, "{probe:?}");
    }
}
