//! The image that holds vLLM at a commit, for a device; and image references in parts.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, ensure};
use vllm_verdict::v1::{Device, DeviceName};

use crate::exit::Classify;
use crate::names::Commit;
use crate::plan::config::ImagesConfig;

/// The pipeline of vLLM that builds an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipeline {
    PullRequest,
    Main,
}

/// The name of the config, `<repository>:<commit><suffix>` by default. ROCm images are in a repository of their own. `build` is
/// the number of the build that made the image, where it is known.
///
/// # Errors
/// The user's mistake (exit 2): the commit does not have 40 digits, or the config does not give an image reference.
pub fn reference(
    device: &Device,
    commit: &Commit,
    pipeline: Pipeline,
    images: &ImagesConfig,
    build: Option<u64>,
) -> anyhow::Result<String> {
    let template = match (device.name, pipeline) {
        (DeviceName::Rocm, _) => &images.rocm,
        (_, Pipeline::PullRequest) => &images.pull_request,
        (_, Pipeline::Main) => &images.main,
    };
    let checked = || {
        ensure!(Commit::is_full(commit.as_str()), "`{commit}` is not a full commit hash (40 hexadecimal digits)");
        let reference = template.name(commit.as_str(), &device.image_suffix, build)?;
        reference.parse::<Reference>().map(|_| reference)
    };
    checked().with_context(|| format!("cannot name the image of `{commit}`")).mistake()
}

/// The commit in the tag of `reference`, where it has exactly one: `<commit>-cpu`, `nightly-<commit>`.
pub fn commit_of(reference: &str) -> Option<&str> {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    let (_, tag) = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))?;
    let mut commits = tag.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| Commit::is_full(part));
    commits.next().filter(|commit| commits.all(|other| other == *commit))
}

/// An image reference in parts, as the registry API takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host of the registry, with its port if it has one.
    pub registry: String,
    /// Path of the repository.
    pub repository: String,
    /// Tag or digest.
    pub version: String,
}

impl FromStr for Reference {
    type Err = anyhow::Error;

    /// Docker's rules: no host is Docker Hub, one word there is `library/`, no tag is `latest`, a digest beats a tag.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((host, path)) if host == "localhost" || host.contains(['.', ':']) => (host, path.to_owned()),
            Some(_) => ("docker.io", name.to_owned()),
            None => ("docker.io", format!("library/{name}")),
        };
        let host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let component = |part: &str| !part.starts_with(['.', '-']) && !part.is_empty() && part.bytes().all(letter);
        let tagged = |tag: &str| {
            let letters = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            letters && (1..=128).contains(&tag.len()) && !tag.starts_with(['.', '-'])
        };
        let hashed = |digest: &str| {
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let valid = registry.bytes().all(host)
            && repository.split('/').all(component)
            && tag.is_none_or(tagged)
            && digest.is_none_or(hashed);
        ensure!(valid, "`{text}` is not an image reference: expected [HOST/]REPOSITORY[:TAG][@sha256:DIGEST]");
        let version = digest.or(tag).unwrap_or("latest").to_owned();
        Ok(Self { registry: registry.to_owned(), repository, version })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.version.contains(':') { '@' } else { ':' };
        write!(f, "{}/{}{separator}{}", self.registry, self.repository, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{self, Exit};

    const COMMIT: &str = "1da94e673c257373280026f75ceb4effac80e892";

    fn images() -> ImagesConfig {
        ImagesConfig::default()
    }

    fn device(name: DeviceName) -> Device {
        Device { name, device_type: "x".to_owned(), count: 1, image_suffix: name.image_suffix().to_owned() }
    }

    #[test]
    fn every_device_has_its_image() {
        for (name, pipeline, expected) in [
            (DeviceName::Cuda, Pipeline::PullRequest, "public.ecr.aws/q9t5s3a7/vllm-ci-test-repo:{}"),
            (DeviceName::Cpu, Pipeline::PullRequest, "public.ecr.aws/q9t5s3a7/vllm-ci-test-repo:{}-cpu"),
            (DeviceName::Arm64Cpu, Pipeline::Main, "public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo:{}-arm64-cpu"),
            (DeviceName::Hpu, Pipeline::Main, "public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo:{}-hpu"),
            (DeviceName::Rocm, Pipeline::PullRequest, "docker.io/rocm/vllm-ci:{}"),
        ] {
            let image = reference(&device(name), &COMMIT.parse().unwrap(), pipeline, &images(), None).unwrap();
            assert_eq!(image, expected.replace("{}", COMMIT));
            assert_eq!(commit_of(&image), Some(COMMIT));
        }
    }

    #[test]
    fn only_a_hash_of_40_digits_names_an_image() {
        for bad in ["1da94e6", "main", "", &COMMIT.to_uppercase(), &format!("{COMMIT}0"), &format!("{COMMIT} -v /:/h")]
        {
            assert!(bad.parse::<Commit>().is_err(), "{bad}");
        }
        let long = Commit::of_event(&"1".repeat(64)).unwrap();
        let error = reference(&device(DeviceName::Cpu), &long, Pipeline::Main, &images(), None).unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake);
        assert_eq!(commit_of("reg:5000/a:latest"), None);
        assert_eq!(commit_of(&format!("a:{COMMIT}0")), None);
    }

    #[test]
    fn the_tag_of_the_config_names_the_image_and_its_commit_is_found_in_it() {
        let commit = COMMIT.parse().unwrap();
        let images = ImagesConfig {
            pull_request: "a/b:build-{build}".parse().unwrap(),
            main: "vllm/vllm-openai:nightly-{commit}".parse().unwrap(),
            rocm: "a/rocm:v1_{commit}.{build}{suffix}".parse().unwrap(),
            ..ImagesConfig::default()
        };
        let of = |name, pipeline, build| reference(&device(name), &commit, pipeline, &images, build);
        let main = of(DeviceName::Cuda, Pipeline::Main, None).unwrap();
        assert_eq!(
            (main.as_str(), commit_of(&main)),
            (format!("vllm/vllm-openai:nightly-{COMMIT}").as_str(), Some(COMMIT))
        );
        let rocm = of(DeviceName::Rocm, Pipeline::Main, Some(3)).unwrap();
        assert_eq!((rocm.as_str(), commit_of(&rocm)), (format!("a/rocm:v1_{COMMIT}.3").as_str(), Some(COMMIT)));
        assert_eq!(of(DeviceName::Cuda, Pipeline::PullRequest, Some(12)).unwrap(), "a/b:build-12");
        let error = of(DeviceName::Cuda, Pipeline::PullRequest, None).unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake);
        let digest = format!("@sha256:{}", "a".repeat(64));
        assert_eq!(commit_of(&format!("localhost:5000/a:{COMMIT}{digest}")), Some(COMMIT));
        let other = COMMIT.replace('1', "2");
        for none in
            [format!("a:x{COMMIT}"), format!("a:{COMMIT}-{other}"), format!("host:5000/{COMMIT}"), format!("a{digest}")]
        {
            assert_eq!(commit_of(&none), None, "{none}");
        }
    }

    #[test]
    fn references_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, expected) in [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("rocm/vllm-ci:x", "docker.io/rocm/vllm-ci:x".to_owned()),
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("127.0.0.1:5000/a/b:c-cpu", "127.0.0.1:5000/a/b:c-cpu".to_owned()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            (&format!("ghcr.io/a/b:1@{digest}"), format!("ghcr.io/a/b@{digest}")),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), expected);
        }
        for bad in ["", "A", "a/../b", "a b", "a:", "a@sha256:12", "a:b c", "-v", "ghcr.io/", "a//b", "host.io/-x"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
