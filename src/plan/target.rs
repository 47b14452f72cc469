//! Targets: what can serve. An image, a wheel, an executable, a running server, or the simulated server. `run/launch.rs` starts
//! and stops them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use url::Url;
use vllm_load::sim::Pace;

use crate::plan::wheel::Wheel;

/// Something that can serve, as a user names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// `image:REF`: a container image.
    Image(String),
    /// `wheel:COMMIT`, `wheel:VERSION` or `wheel:PATH.whl`: vLLM installed from a wheel, without a container.
    Wheel(Wheel),
    /// `local[:PATH]`: a vllm executable on this machine.
    Local(PathBuf),
    /// `remote:URL`: a running server.
    Remote(Url),
    /// `sim[:key=value,...]`: the simulated vLLM; the text after the colon.
    Sim(String),
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = text.split_once(':').map_or((text, None), |(scheme, rest)| (scheme, Some(rest)));
        match (scheme, rest) {
            ("image", Some(reference)) if !reference.is_empty() => Ok(Self::Image(reference.to_owned())),
            ("wheel", Some(wheel)) => Ok(Self::Wheel(wheel.parse()?)),
            ("local", None) => Ok(Self::Local(PathBuf::from("vllm"))),
            ("local", Some(path)) if !path.is_empty() => Ok(Self::Local(PathBuf::from(path))),
            ("remote", Some(url)) if !url.is_empty() => {
                let url = Url::parse(url).with_context(|| {
                    let shown = without_user(url);
                    format!("`{shown}` is not a URL such as http://{}", without_user(shown.trim_start_matches('/')))
                })?;
                if !matches!(url.scheme(), "http" | "https") {
                    bail!("`{}` is not an http or https URL", without_user(url.as_str()));
                }
                if !url.username().is_empty() || url.password().is_some() || url.path() != "/" || url.query().is_some()
                {
                    bail!("a remote target is scheme, host and port alone, such as remote:http://127.0.0.1:8000");
                }
                Ok(Self::Remote(url))
            }
            ("sim", rest) => {
                let pace = rest.unwrap_or_default();
                pace.parse::<Pace>().with_context(|| format!("cannot read the pace of `{text}`"))?;
                Ok(Self::Sim(pace.to_owned()))
            }
            _ => {
                let hint = meant(text).map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
                bail!(
                    "`{}` is not a target: expected image:REF, wheel:COMMIT, local[:PATH], remote:URL or sim[:key=value,...]{hint}",
                    without_user(text)
                )
            }
        }
    }
}

impl Target {
    /// Whether its servers need no time to start: simulated, or running already.
    pub fn is_instant(&self) -> bool {
        matches!(self, Self::Sim(_) | Self::Remote(_))
    }
}

/// The target that a text without a scheme probably means.
fn meant(text: &str) -> Option<String> {
    let rest = text.split_once(':').map(|(_, rest)| rest);
    match text.split_once("://").map_or(text.split(':').next().unwrap_or_default(), |(scheme, _)| scheme) {
        "http" | "https" => Some(format!("remote:{}", without_user(text))),
        "docker" => rest.filter(|rest| !rest.is_empty()).map(|rest| format!("image:{}", rest.trim_start_matches('/'))),
        _ if text.ends_with(".whl") => Some(format!("wheel:{text}")),
        _ if text.starts_with(['/', '.', '~']) => Some(format!("local:{text}")),
        _ if text.contains('/') && rest.is_some_and(|tag| !tag.is_empty()) => Some(format!("image:{text}")),
        _ => None,
    }
}

/// A target as it was typed, for an error. The part before an `@` may be a password and is replaced by `***`.
pub fn without_user(text: &str) -> String {
    match text.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
        Some((scheme, Some((_, rest)))) => format!("{scheme}://***@{rest}"),
        _ => text.to_owned(),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(reference) => write!(f, "image:{reference}"),
            Self::Wheel(wheel) => write!(f, "wheel:{wheel}"),
            Self::Local(path) if path.as_os_str() == "vllm" => f.write_str("local"),
            Self::Local(path) => write!(f, "local:{}", path.display()),
            Self::Remote(url) => write!(f, "remote:{url}"),
            Self::Sim(pace) if pace.is_empty() => f.write_str("sim"),
            Self::Sim(pace) => write!(f, "sim:{pace}"),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_read_back_as_it_was_written() {
        for text in [
            "image:reg:5000/a/b:c-cpu",
            "wheel:0.32.0/cu129",
            "wheel:./vllm-0.32.0-cp38-abi3-linux_x86_64.whl",
            "local",
            "local:/opt/vllm",
            "remote:http://127.0.0.1:8000/",
            "sim",
            "sim:itl=10ms",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_password_in_a_target_is_not_shown() {
        for text in ["http://user:secret@127.0.0.1:9", "ftp://user:secret@h/", "http://user:se@cret@h:x"] {
            let error = format!("{:#}", format!("remote:{text}").parse::<Target>().unwrap_err());
            assert!(!error.contains("cret"), "{error}");
        }
        assert_eq!(without_user("remote:http://u:p@h:9/"), "remote:http://***@h:9/");
        assert_eq!(without_user("image:a/b@sha256:c"), "image:a/b@sha256:c");
    }

    #[test]
    fn the_error_for_a_text_that_is_not_a_target_lists_the_targets() {
        let error = "docker:x".parse::<Target>().unwrap_err().to_string();
        assert!(error.contains("expected image:REF, wheel:COMMIT, local[:PATH], remote:URL or sim"), "{error}");
        for (typed, meant) in [
            ("docker:a/b:c", "image:a/b:c"),
            ("docker://a/b:c", "image:a/b:c"),
            ("vllm/vllm-openai:latest", "image:vllm/vllm-openai:latest"),
            ("http://127.0.0.1:8000", "remote:http://127.0.0.1:8000"),
            ("/opt/venv/bin/vllm", "local:/opt/venv/bin/vllm"),
        ] {
            let error = typed.parse::<Target>().unwrap_err().to_string();
            assert!(error.ends_with(&format!("; did you mean `{meant}`?")), "{error}");
        }
        assert!(!"nonsense".parse::<Target>().unwrap_err().to_string().contains("did you mean"));
        let error = "remote:127.0.0.1:8000".parse::<Target>().unwrap_err().to_string();
        assert_eq!(error, "`127.0.0.1:8000` is not a URL such as http://127.0.0.1:8000");
    }
}
