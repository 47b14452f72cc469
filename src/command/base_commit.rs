//! The base of a comparison: from `--base`, the event, git and GitHub's API to a [`Base`].

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use vllm_verdict::v1::{Event, Provider};

use crate::exit::Classify;
use crate::names::Commit;
use crate::plan::base::{self, Base, NamedSide};
use crate::plan::target::Target;
use crate::system::git::Git;
use crate::system::github::Github;
use crate::system::work_tree::WorkTree;

/// What a text of `--base` is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum BaseFlag<'a> {
    /// No flag: the commit that the event gives.
    Event,
    /// A target, a full commit or `none`.
    Named(&'a str),
    Branch(&'a str),
    /// The output folder of an earlier run.
    Recorded(PathBuf),
}

/// Decides the base. It is `None` where neither the user nor the event names one, and where it is a commit and nothing
/// runs, so that git and GitHub need not be asked. With `tree`, the checkout of a pull request, a branch that only the
/// checkout has and recorded results that the pull request brings are not taken.
///
/// # Errors
/// The user's mistake (exit 2): a text that is not a base, or a commit that git does not know. Exit 4: GitHub's API fails.
pub async fn resolve(
    flag: Option<&str>,
    head: Option<&NamedSide>,
    event: &Event,
    runs: bool,
    tree: Option<&WorkTree>,
    (git, github): (&Git, Option<&Github>),
) -> Result<Option<Base>> {
    let named = head.and_then(NamedSide::commit).map(Commit::as_str);
    let commit = match read(flag, event.provider) {
        BaseFlag::Recorded(folder) => return recorded(folder, tree, git).await.mistake().map(Some),
        BaseFlag::Named(text) => return Base::read(text).map(Some),
        _ if !runs => None,
        BaseFlag::Event if head.is_some_and(NamedSide::is_without_commit) => None,
        BaseFlag::Event => of_event(event, named, git, github).await?,
        BaseFlag::Branch(name) => {
            let github = github.zip(event.repository.as_deref());
            let head = named.or(event.head_sha.as_deref());
            match tree {
                Some(_) => Some(branch_of_proposal(name, head, event, git, github).await?),
                None => Some(branch(name, head, git, github).await?),
            }
        }
    };
    commit.map(|commit| Ok(Base::Commit(commit.parse().context("cannot plan base").mistake()?))).transpose()
}

/// Tells branches and output folders from the rest, by the name alone. Only in a local run a folder needs no `results:`.
fn read(flag: Option<&str>, provider: Provider) -> BaseFlag<'_> {
    let Some(text) = flag else { return BaseFlag::Event };
    if let Some(folder) = text.strip_prefix("results:") {
        return BaseFlag::Recorded(PathBuf::from(folder));
    }
    if provider == Provider::Local && is_output_folder(Path::new(text)) {
        return BaseFlag::Recorded(PathBuf::from(text));
    }
    if text == "none" || base::is_short_hash(text) || text.parse::<Target>().is_ok() || !is_branch(text) {
        return BaseFlag::Named(text);
    }
    BaseFlag::Branch(text)
}

fn is_output_folder(folder: &Path) -> bool {
    folder.join("plan.json").is_file() && folder.join("head").is_dir()
}

/// Results that were recorded before. On a pull request they are none that it brings: neither files of its commit, nor a
/// folder that one of its links leads to.
async fn recorded(folder: PathBuf, tree: Option<&WorkTree>, git: &Git) -> Result<Base> {
    let shown = folder.display();
    if let Some(tree) = tree.filter(|tree| tree.holds(&folder)) {
        let place = tree.place_of(&folder).filter(|_| !tree.is_linked(&folder));
        // A submodule has files that the commit of the checkout does not list.
        let is_of = |root: &Path| tree.repository_of(&folder.join("plan.json")).is_some_and(|nearest| nearest == *root);
        let brought = match &place {
            Some((root, inside)) => !is_of(root) || git.is_tracked(root, inside).await.unwrap_or(true),
            None => true,
        };
        if brought {
            return Err(anyhow!(
                "cannot use --base results:{shown}: the pull request brings it, or git does not tell; put recorded results outside the checkout"
            ));
        }
    }
    if !is_output_folder(&folder) {
        return Err(anyhow!(
            "cannot use --base results:{shown}: it is not the output folder of a run (`plan.json` and `head/` are missing)"
        ));
    }
    Ok(Base::Recorded(folder))
}

/// The merge base of a branch and head, of a pull request. A branch of the clone is not asked: the pull request chose its
/// name.
async fn branch_of_proposal(
    name: &str,
    head: Option<&str>,
    event: &Event,
    git: &Git,
    github: Option<(&Github, &str)>,
) -> Result<String> {
    let of_event = event.base_sha.clone().filter(|_| event.base_branch.as_deref() == Some(name));
    let tip = match (of_event, github) {
        (Some(tip), _) => tip,
        (None, Some((github, repository))) => github.tip(repository, name).await?,
        (None, None) => git
            .branch_of_origin(name)
            .await
            .with_context(|| {
                format!(
                    "cannot use --base {name}: `origin` has no such branch; for recorded results give results:{name}"
                )
            })
            .mistake()?,
    };
    let Some(head) = head else { return Ok(tip) };
    let base = match github {
        Some((github, repository)) => github.merge_base(repository, &tip, head).await?,
        None => git.merge_base(&tip, head).await.with_context(|| format!("cannot use --base {name}")).mistake()?,
    };
    match base == head {
        true => {
            Err(anyhow!("cannot use --base {name}: it contains head, which would be compared with itself")).mistake()
        }
        false => Ok(base),
    }
}

/// Whether git would accept the text as the name of a branch. False for a text that git would read as an option.
fn is_branch(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    !text.is_empty()
        && text.chars().all(letter)
        && !text.starts_with(['-', '/', '.'])
        && !text.ends_with(['/', '.'])
        && !text.contains("..")
        && !text.contains("//")
}

/// The merge base of a branch and head or, where head's commit is not known, the tip of the branch.
async fn branch(name: &str, head: Option<&str>, git: &Git, github: Option<(&Github, &str)>) -> Result<String> {
    if let Some(hash) = git.branch(name).await {
        return match head {
            Some(head) => {
                git.merge_base(&hash, head).await.with_context(|| format!("cannot use --base {name}")).mistake()
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
            "cannot use --base {name}: it is not a target, a full commit hash or an output folder, and git does not know it as a branch"
        ))
        .mistake(),
    }
}

/// The commit that the event gives: the merge base with the target branch, the commit that a push replaced, or else the
/// commit before head. `named` is the head commit that the user names, in place of the event's.
async fn of_event(event: &Event, named: Option<&str>, git: &Git, github: Option<&Github>) -> Result<Option<String>> {
    let other = named.filter(|named| Some(*named) != event.head_sha.as_deref());
    let Some(head) = named.or(event.head_sha.as_deref()).filter(|_| event.provider != Provider::Local) else {
        return Ok(None);
    };
    let cannot = "cannot find the merge base";
    let commit = match (&event.base_sha, &event.base_branch, event.pull_request) {
        (Some(base), _, None) if other.is_none() => base.clone(),
        (Some(base), _, Some(_)) => match (github, &event.repository) {
            (Some(github), Some(repository)) => {
                github.merge_base(repository, base, head).await.context(cannot).world()?
            }
            _ => git.merge_base(base, head).await.context(cannot).mistake()?,
        },
        // Buildkite names branches, not commits.
        (None, Some(branch), Some(_)) => {
            git.merge_base(&format!("refs/remotes/origin/{branch}"), head).await.context(cannot).mistake()?
        }
        (_, _, None) => git.parent(head).await.context("cannot find the commit before head").mistake()?,
        (None, ..) => return Ok(None),
    };
    if event.pull_request.is_some() && commit == head {
        return Err(anyhow!("the merge base of the pull request is its head: there is nothing to compare it with"))
            .mistake();
    }
    Ok(Some(commit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_what_its_text_says() {
        let hash = "7f42dc20bb2800d09faa72b26f25d54e26f1b694";
        for text in
            ["none", hash, "7f42dc2", "sim", "local", "local:/opt/vllm", "image:a/b:c", "docker:x", "-main", "a..b"]
        {
            assert_eq!(read(Some(text), Provider::Local), BaseFlag::Named(text));
        }
        for text in ["main", "releases/v0.11.0", "feature+x"] {
            assert_eq!(read(Some(text), Provider::Local), BaseFlag::Branch(text));
        }
        assert_eq!(read(None, Provider::Local), BaseFlag::Event);
    }

    #[test]
    fn an_output_folder_is_a_recorded_base() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().display().to_string();
        let read = |text, provider| read(Some(text), provider) == BaseFlag::Recorded(folder.path().to_owned());
        assert!(!read(&text, Provider::Local), "it holds no run");
        crate::system::output::write(&folder.path().join("plan.json"), b"{}").unwrap();
        std::fs::create_dir(folder.path().join("head")).unwrap();
        assert!(read(&text, Provider::Local));
        let named = format!("results:{text}");
        for provider in [Provider::Github, Provider::Buildkite] {
            assert!(!read(&text, provider) && read(&named, provider), "in CI a name is never a folder");
        }
    }
}
