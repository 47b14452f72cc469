//! What head is compared with: from what the user says, git and GitHub's API to a commit, a target or recorded results.

use crate::system::docker;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use vllm_verdict::v1::{Event, Provider};

use crate::exit::Classify;
use crate::plan::config::ImagesConfig;
use crate::plan::image::{self, Source};
use crate::plan::target::Target;
use crate::plan::{Fallback, Plan};
use crate::system::git;
use crate::system::github::Github;
use crate::system::registry::{self, ImageState, Registry};
use crate::system::shell::Shell;

/// What `--base` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing was said: the event's merge base.
    Event,
    /// A target, a full commit or `none`, as it was said.
    Said(String),
    /// The commit that a branch stands for.
    Branch(String),
    /// The output folder of an earlier run: its head.
    Recorded(PathBuf),
}

/// Tells a branch and an output folder from the rest. Names alone decide, and whether a folder is there.
pub fn read(said: Option<&str>) -> Base {
    let Some(said) = said else { return Base::Event };
    let folder = Path::new(said);
    if folder.join("plan.json").is_file() && folder.join("head").is_dir() {
        return Base::Recorded(folder.to_owned());
    }
    let is_hash = (7..=40).contains(&said.len()) && said.bytes().all(|byte| byte.is_ascii_hexdigit());
    if said == "none" || is_hash || said.parse::<Target>().is_ok() || !is_branch(said) {
        return Base::Said(said.to_owned());
    }
    Base::Branch(said.to_owned())
}

/// Whether git would take it as the name of a branch; also that it is no option.
fn is_branch(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    !text.is_empty()
        && text.chars().all(letter)
        && !text.starts_with(['-', '/', '.'])
        && !text.ends_with(['/', '.'])
        && !text.contains("..")
        && !text.contains("//")
}

/// The commit that a branch stands for: where head left it or, where head's commit is not known, its tip.
pub async fn branch(name: &str, head: Option<&str>, github: Option<(&Github, &str)>) -> Result<String> {
    if let Some(hash) = git::branch(name).await {
        return match head {
            Some(head) => {
                git::merge_base(&hash, head).await.with_context(|| format!("cannot use --base {name}")).mistake()
            }
            None => Ok(hash),
        };
    }
    match (github, head) {
        (Some((github, repository)), head) => {
            let tip = github.tip(repository, name).await?;
            match head {
                Some(head) => github.merge_base(repository, &tip, head).await,
                None => Ok(tip),
            }
        }
        (None, _) => Err(anyhow!(
            "cannot use --base {name}: it is no target, no full commit hash and no output folder, and git knows no such branch"
        ))
        .mistake(),
    }
}

/// The commit that head is compared with: where it left the target branch, what a push replaced, else the one before it.
/// `head` is the commit that the user names, in place of the event's.
pub async fn of_event(event: &Event, head: Option<&str>, github: Option<&Github>) -> Result<Option<String>> {
    let named = head.filter(|head| Some(*head) != event.head_sha.as_deref());
    let Some(head) = head.or(event.head_sha.as_deref()).filter(|_| event.provider != Provider::Local) else {
        return Ok(None);
    };
    let found = match (&event.base_sha, &event.base_branch, event.pull_request) {
        (Some(base), _, None) if named.is_none() => return Ok(Some(base.clone())),
        (Some(base), _, Some(_)) => match (github, &event.repository) {
            (Some(github), Some(repository)) => {
                github.merge_base(repository, base, head).await.context("cannot find the merge base").world()?
            }
            _ => git::merge_base(base, head).await.context("cannot find the merge base").mistake()?,
        },
        // Buildkite names branches, not commits.
        (None, Some(branch), Some(_)) => {
            git::merge_base(&format!("origin/{branch}"), head).await.context("cannot find the merge base").mistake()?
        }
        (_, _, None) => git::parent(head).await.context("cannot find the commit before head").mistake()?,
        (None, ..) => return Ok(None),
    };
    Ok(Some(found))
}

/// Where base's image is missing, takes the nearest of at most `most` commits before it that has one, and says so in the
/// plan. A base that is no image of a commit of main stays as it is.
pub async fn fall_back(
    plan: &mut Plan,
    most: u32,
    images: &ImagesConfig,
    github: Option<&Github>,
    shell: &Shell,
) -> Result<()> {
    let device = plan.device.clone();
    let Some(base) = &mut plan.sides.base else { return Ok(()) };
    let (Target::Image(reference), Some(wanted)) = (&base.target, base.commit.clone()) else { return Ok(()) };
    if most == 0 || *reference != image::reference(&device, &wanted, Source::Main, images)? {
        return Ok(());
    }
    let architecture = registry::architecture(device.name);
    let registry = Registry::new(registry::PAUSE, architecture, &shell.environment)?;
    let is_there = async |reference: &str| -> Result<bool> {
        Ok(docker::is_here(reference).await || registry.find(reference).await? == ImageState::Present)
    };
    if is_there(reference).await? {
        return Ok(());
    }
    let commits = match (git::before(&wanted, most).await, github, &plan.event.repository) {
        (Ok(commits), ..) => commits,
        (Err(_), Some(github), Some(repository)) => github.before(repository, &wanted, most).await?,
        (Err(error), ..) => return Err(error).mistake(),
    };
    for (behind, commit) in (1..).zip(commits) {
        let reference = image::reference(&device, &commit, Source::Main, images)?;
        if is_there(&reference).await? {
            shell.say(&format!("the image of {wanted} is missing: base is {commit}, {behind} before it"));
            base.target = Target::Image(reference);
            base.commit = Some(commit.clone());
            plan.fallback = Some(Fallback { wanted, used: commit, behind });
            return Ok(());
        }
    }
    Err(anyhow!("image missing: {reference}, and those of the {most} commits before it (--base-fallback {most})"))
        .world()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_what_its_name_says() {
        let hash = "7f42dc20bb2800d09faa72b26f25d54e26f1b694";
        for said in
            ["none", hash, "7f42dc2", "sim", "local", "local:/opt/vllm", "image:a/b:c", "docker:x", "-main", "a..b"]
        {
            assert_eq!(read(Some(said)), Base::Said(said.to_owned()));
        }
        for said in ["main", "releases/v0.11.0", "feature+x"] {
            assert_eq!(read(Some(said)), Base::Branch(said.to_owned()));
        }
        assert_eq!(read(None), Base::Event);
    }

    #[test]
    fn an_output_folder_is_its_head() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().display().to_string();
        assert_ne!(read(Some(&said)), Base::Recorded(folder.path().to_owned()), "it holds no run");
        crate::system::output::write(&folder.path().join("plan.json"), b"{}").unwrap();
        std::fs::create_dir(folder.path().join("head")).unwrap();
        assert_eq!(read(Some(&said)), Base::Recorded(folder.path().to_owned()));
    }
}
