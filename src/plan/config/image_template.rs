//! The name of the images of one pipeline: a repository, and a template of the tag.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, anyhow, bail, ensure};

/// The tag of a repository that is given without one.
const VLLMS_TAG: &str = "{commit}{suffix}";

/// Longest name that is accepted, in bytes.
const LONGEST: usize = 255;

/// `REPOSITORY` or `REPOSITORY:TAG`. In a tag, `{commit}`, `{suffix}` (of the device's images) and `{build}` (the number of the
/// CI build) are replaced; at least `{commit}` or `{build}` is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTemplate {
    repository: String,
    tag: String,
}

impl ImageTemplate {
    /// A repository whose tags are vLLM's.
    pub(super) fn of(repository: &str) -> Self {
        Self { repository: repository.to_owned(), tag: VLLMS_TAG.to_owned() }
    }

    /// The repository, without the tag.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The name of an image. `build` is the number of the build that made it, where it is known.
    ///
    /// # Errors
    /// The tag needs a build that is not known.
    pub fn name(&self, commit: &str, suffix: &str, build: Option<u64>) -> anyhow::Result<String> {
        let mut tag = self.tag.replace("{commit}", commit).replace("{suffix}", suffix);
        if tag.contains("{build}") {
            let number = build.with_context(|| {
                format!(
                    "the build that made its image is not known, and the tag `{}` of `images` in vllm-perf.yml needs it: \
                     only the head of a CI run has one; give the image as image:REF",
                    self.tag
                )
            })?;
            tag = tag.replace("{build}", &number.to_string());
        }
        Ok(format!("{}:{tag}", self.repository))
    }
}

impl FromStr for ImageTemplate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let shown: String = text.chars().take(80).collect();
        ensure!(!text.contains('@'), "`{shown}` has a digest: expected an image repository, with or without a tag");
        ensure!(!text.contains('$'), "`{shown}` has a `$`: write `{{commit}}`, without it");
        let (repository, tag) = match text.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (text, None),
        };
        ensure!(
            is_repository(repository),
            "`{shown}` is not an image repository: expected `host/path` in lower case, or `host/path:TAG` with `{{commit}}` in the tag"
        );
        if let Some(tag) = tag {
            check_tag(tag).with_context(|| format!("`{shown}` cannot name an image"))?;
        }
        Ok(Self { repository: repository.to_owned(), tag: tag.unwrap_or(VLLMS_TAG).to_owned() })
    }
}

impl fmt::Display for ImageTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if self.tag == VLLMS_TAG { Ok(()) } else { write!(f, ":{}", self.tag) }
    }
}

fn is_repository(text: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
    };
    let (host, path) = text.split_once('/').unwrap_or(("", text));
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let port = host.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok());
    port && (host.is_empty() || part(name)) && path.split('/').all(part) && text.len() <= LONGEST
}

fn check_tag(tag: &str) -> anyhow::Result<()> {
    let mut rest = tag;
    let mut plain = String::new();
    let mut has_version = false;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or_else(|| anyhow!("`{{` in its tag is not closed"))?;
        match name {
            "commit" | "build" => has_version = true,
            "suffix" => {}
            _ => bail!("`{{{name}}}` in its tag is not known: expected {{commit}}, {{suffix}} or {{build}}"),
        }
        plain.push_str(before);
        rest = after;
    }
    plain.push_str(rest);
    ensure!(
        has_version,
        "its tag `{tag}` is the same for every commit: put `{{commit}}` into it, as in `nightly-{{commit}}`, or leave the tag out"
    );
    let letters = plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    ensure!(
        letters && !tag.starts_with(['.', '-']),
        "its tag may have letters, digits and ._- and begins with none of .-"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "1da94e673c257373280026f75ceb4effac80e892";

    fn name(text: &str, build: Option<u64>) -> String {
        let template: ImageTemplate = text.parse().unwrap();
        assert_eq!(template.to_string(), text);
        template.name(COMMIT, "-cpu", build).unwrap().replace(COMMIT, "COMMIT")
    }

    #[test]
    fn a_tag_is_a_template_and_a_repository_alone_has_vllms_tags() {
        assert_eq!(name("rocm/vllm-ci", None), "rocm/vllm-ci:COMMIT-cpu");
        assert_eq!(name("localhost:5000/a", None), "localhost:5000/a:COMMIT-cpu");
        assert_eq!(name("localhost:5000/a:nightly-{commit}", None), "localhost:5000/a:nightly-COMMIT");
        assert_eq!(name("vllm/vllm-openai:nightly-{commit}{suffix}", None), "vllm/vllm-openai:nightly-COMMIT-cpu");
        assert_eq!(name("a/b:build-{build}", Some(7)), "a/b:build-7");
        let written: ImageTemplate = "a/b:{commit}{suffix}".parse().unwrap();
        assert_eq!(written, "a/b".parse().unwrap());
    }

    #[test]
    fn what_cannot_name_an_image_says_what_would() {
        let error = |text: &str| format!("{:#}", text.parse::<ImageTemplate>().unwrap_err());
        let errors = [
            "a/b:nightly-${commit}",
            "a/b:nightly-",
            "a/b:latest",
            "a/b:{sha}",
            "a/b:{commit",
            "a/b:-{commit}",
            "a/b:{commit} x",
            "A/b",
            "{repository}:{commit}{suffix}",
            "a/b@sha256:12",
            "a/b:",
            "",
        ]
        .map(error);
        insta::assert_snapshot!(errors.join("\n"), @"
        `a/b:nightly-${commit}` has a `$`: write `{commit}`, without it
        `a/b:nightly-` cannot name an image: its tag `nightly-` is the same for every commit: put `{commit}` into it, as in `nightly-{commit}`, or leave the tag out
        `a/b:latest` cannot name an image: its tag `latest` is the same for every commit: put `{commit}` into it, as in `nightly-{commit}`, or leave the tag out
        `a/b:{sha}` cannot name an image: `{sha}` in its tag is not known: expected {commit}, {suffix} or {build}
        `a/b:{commit` cannot name an image: `{` in its tag is not closed
        `a/b:-{commit}` cannot name an image: its tag may have letters, digits and ._- and begins with none of .-
        `a/b:{commit} x` cannot name an image: its tag may have letters, digits and ._- and begins with none of .-
        `A/b` is not an image repository: expected `host/path` in lower case, or `host/path:TAG` with `{commit}` in the tag
        `{repository}:{commit}{suffix}` is not an image repository: expected `host/path` in lower case, or `host/path:TAG` with `{commit}` in the tag
        `a/b@sha256:12` has a digest: expected an image repository, with or without a tag
        `a/b:` cannot name an image: its tag `` is the same for every commit: put `{commit}` into it, as in `nightly-{commit}`, or leave the tag out
        `` is not an image repository: expected `host/path` in lower case, or `host/path:TAG` with `{commit}` in the tag
        ");
        let error = "a/b:build-{build}".parse::<ImageTemplate>().unwrap().name(COMMIT, "", None).unwrap_err();
        insta::assert_snapshot!(error, @"the build that made its image is not known, and the tag `build-{build}` of `images` in vllm-perf.yml needs it: only the head of a CI run has one; give the image as image:REF");
    }
}
