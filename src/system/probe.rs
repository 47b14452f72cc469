//! The devices of this machine, from each vendor's own tool on `PATH` and, for processors, from the kernel.

mod vendor_output;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use vllm_verdict::v1::DeviceName;

use crate::environment::Environment;
use crate::plan::device::{Probe, ProbedDevice};
use crate::system::host;
use crate::system::program::{self, Output, Program};
use crate::system::program_path;

/// How long a tool may take; the first question after a start of the machine can take half a minute.
const LIMIT: Duration = Duration::from_secs(120);

/// How long a tool may take to tell the state of an accelerator, which is asked after every repetition.
const STATE_LIMIT: Duration = Duration::from_secs(20);

/// Asks the vendors' tools on `PATH` and, for processors, the kernel.
pub async fn probe(env: &Environment) -> Probe {
    let mut probe = Probe { on_cpu: env.get("ON_CPU") == Some("1"), ..Probe::default() };
    let asked = [
        (DeviceName::Cuda, nvidia(env).await),
        (DeviceName::Rocm, amd(env).await),
        (DeviceName::Hpu, gaudi(env).await),
        (DeviceName::Xpu, xpu(env).await),
    ];
    for (name, counted) in asked {
        match counted {
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

/// The state of the accelerators; what the vendor's tool does not report is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AcceleratorState {
    /// Version of the driver.
    pub driver: Option<String>,
    /// Warmest accelerator, in degrees Celsius.
    pub temperature: Option<f64>,
    /// Whether one is slowed down by heat.
    pub throttled: Option<bool>,
}

/// The state of the accelerators of one kind.
pub async fn accelerator_state(name: DeviceName, env: &Environment) -> AcceleratorState {
    match name {
        DeviceName::Cuda => {
            let query = "--query-gpu=driver_version,temperature.gpu,clocks_throttle_reasons.hw_thermal_slowdown,\
                         clocks_throttle_reasons.sw_thermal_slowdown";
            let Some(tool) = Tool::find("nvidia-smi", env) else { return AcceleratorState::default() };
            let printed = tool.ask_within(STATE_LIMIT, &[query, "--format=csv,noheader,nounits"], env).await;
            printed.map_or_else(|_| AcceleratorState::default(), |printed| nvidia_state(&printed))
        }
        DeviceName::Rocm => {
            let version = std::fs::read_to_string("/sys/module/amdgpu/version").ok();
            let driver = version.map(|version| version.trim().to_owned());
            AcceleratorState { driver, ..AcceleratorState::default() }
        }
        DeviceName::Hpu | DeviceName::Xpu | DeviceName::Cpu | DeviceName::Arm64Cpu => AcceleratorState::default(),
    }
}

/// One line a GPU: driver, degrees, and two fields that are `Active`, `Not Active` or `[N/A]`.
fn nvidia_state(printed: &str) -> AcceleratorState {
    let gpus: Vec<Vec<&str>> =
        vendor_output::lines(printed).map(|line| line.split(',').map(str::trim).collect()).collect();
    let column = |number: usize| gpus.iter().filter_map(move |gpu| gpu.get(number).copied());
    let slowed: Vec<bool> =
        column(2).chain(column(3)).filter(|word| word.ends_with("Active")).map(|word| word == "Active").collect();
    AcceleratorState {
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

async fn nvidia(env: &Environment) -> anyhow::Result<Option<(u32, String)>> {
    let Some(tool) = Tool::find("nvidia-smi", env) else { return Ok(None) };
    let names = tool.ask(&["--query-gpu=name", "--format=csv,noheader"], env).await?;
    Ok(vendor_output::counted(&names))
}

async fn amd(env: &Environment) -> anyhow::Result<Option<(u32, String)>> {
    let count = if let Some(tool) = Tool::find("amd-smi", env) {
        vendor_output::amd_smi_gpus(&tool.ask(&["list"], env).await?)
    } else if let Some(tool) = Tool::find("rocm-smi", env) {
        vendor_output::rocm_smi_gpus(&tool.ask(&["--showid"], env).await?)
    } else {
        return Ok(None);
    };
    let tool = Tool::find("rocminfo", env).context("rocminfo, which knows the AMD device type, is not on PATH")?;
    let name = vendor_output::marketing_name(&tool.ask(&[], env).await?).context("rocminfo names no GPU")?;
    Ok(Some((count, name)))
}

async fn gaudi(env: &Environment) -> anyhow::Result<Option<(u32, String)>> {
    let Some(tool) = Tool::find("hl-smi", env) else { return Ok(None) };
    let modules = tool.ask(&["-Q", "module_id", "-f", "csv,noheader"], env).await?;
    let count = vendor_output::lines(&modules).count() as u32;
    let name = vendor_output::gaudi_type(&tool.ask(&["-q"], env).await?).context("hl-smi -q names no product")?;
    Ok(Some((count, name)))
}

async fn xpu(env: &Environment) -> anyhow::Result<Option<(u32, String)>> {
    let Some(tool) = Tool::find("xpu-smi", env) else { return Ok(None) };
    vendor_output::xpu_devices(&tool.ask(&["discovery", "-j"], env).await?)
}

/// A vendor's tool.
struct Tool {
    name: &'static str,
    path: PathBuf,
}

impl Tool {
    fn find(name: &'static str, env: &Environment) -> Option<Self> {
        let path = program_path::find(Path::new(name), env.get("PATH")?)?;
        Some(Self { name, path })
    }

    async fn ask(&self, arguments: &[&str], env: &Environment) -> anyhow::Result<String> {
        self.ask_within(LIMIT, arguments, env).await
    }

    async fn ask_within(&self, limit: Duration, arguments: &[&str], env: &Environment) -> anyhow::Result<String> {
        let passed = ["PATH", "HOME", "LD_LIBRARY_PATH", "HABANA_LOGS"];
        let mut variables: Vec<_> = passed.into_iter().filter_map(|name| Some((name, env.get(name)?))).collect();
        variables.push(("LC_ALL", "C"));
        let program = Program { name: &self.path, arguments, variables: &variables, folder: None, stdin: b"", limit };
        let output = program::run(&program).await.with_context(|| format!("cannot run {}", self.name))?;
        let output = output.checked(Output::first_line).context(self.name)?;
        String::from_utf8(output.stdout).with_context(|| format!("{} did not print text", self.name))
    }
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
    fn nvidia_smi_reports_the_driver_and_the_warmest_gpu() {
        let printed = "570.133.20, 41, Not Active, Not Active\n570.133.20, 88, Not Active, Active\n";
        let expected =
            AcceleratorState { driver: Some("570.133.20".to_owned()), temperature: Some(88.0), throttled: Some(true) };
        assert_eq!(nvidia_state(printed), expected);
        assert_eq!(nvidia_state("570.133.20, [N/A], [N/A], [N/A]\n").throttled, None);
        assert_eq!(nvidia_state(""), AcceleratorState::default());
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

    #[tokio::test]
    async fn a_tool_that_fails_is_a_problem_with_its_own_message() {
        let bin = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/device");
        let env = [("PATH", bin), ("ON_CPU", "1")].into_iter().collect();
        let probe = probe(&env).await;
        assert!(probe.on_cpu);
        let problem = "nvidia-smi: exit status: 9: NVIDIA-SMI has failed".to_owned();
        assert_eq!(probe.problems, [(DeviceName::Cuda, problem)]);
        let gaudi = ProbedDevice { name: DeviceName::Hpu, device_type: "Intel Gaudi3 HL-325L".to_owned(), count: 2 };
        assert_eq!(probe.found[0], gaudi);
        assert!(probe.found[1].name.is_cpu() && probe.found[1].count >= 1, "{probe:?}");
    }
}
