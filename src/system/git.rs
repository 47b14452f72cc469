//! Questions to git about the current checkout.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::system::program::{self, Program, Variables};

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs `git`; returns whether it succeeded, and what it printed.
async fn git(arguments: &[&str]) -> Result<(bool, String)> {
    let program = Program {
        name: Path::new("git"),
        arguments,
        variables: Variables::Inherited(&[]),
        folder: None,
        stdin: b"",
        limit: LIMIT,
    };
    let output = program::run(&program).await.context("cannot run `git`")?;
    Ok((output.status.success(), output.text()))
}

/// The commit before `commit` on its branch, as a full hash.
///
/// # Errors
/// When git does not know it.
pub async fn parent(commit: &str) -> Result<String> {
    let (found, hash) = git(&["rev-parse", "--verify", "--quiet", &format!("{commit}^1^{{commit}}")]).await?;
    if !found {
        bail!("git does not know the commit before {commit}: fetch it, or name the commit with --base");
    }
    Ok(hash)
}

/// The tip of a branch, of `origin` or of this clone, as a full hash; `None` where git does not know the branch.
pub async fn branch(name: &str) -> Option<String> {
    for reference in [format!("refs/remotes/origin/{name}"), format!("refs/heads/{name}")] {
        let asked = git(&["rev-parse", "--verify", "--quiet", &format!("{reference}^{{commit}}")]).await;
        if let Ok((true, hash)) = asked {
            return Some(hash);
        }
    }
    None
}

/// At most `most` commits before `commit` on its branch, nearest first, as full hashes.
///
/// # Errors
/// When git does not know the commit.
pub async fn before(commit: &str, most: u32) -> Result<Vec<String>> {
    let count = format!("--max-count={}", most.saturating_add(1));
    let (found, list) = git(&["rev-list", "--first-parent", &count, commit]).await?;
    if !found {
        bail!("git does not know the commits before {commit}: fetch them, or give a GITHUB_TOKEN");
    }
    Ok(list.lines().skip(1).map(str::to_owned).collect())
}

/// Whether git knows that `commit` is `later` or a commit before it.
pub async fn is_before(commit: &str, later: &str) -> bool {
    matches!(git(&["merge-base", "--is-ancestor", commit, later]).await, Ok((true, _)))
}

/// When a commit was made, RFC 3339; `None` where git does not know it.
pub async fn date(commit: &str) -> Option<String> {
    let (found, date) = git(&["show", "--no-patch", "--format=%cI", &format!("{commit}^{{commit}}")]).await.ok()?;
    found.then_some(date).filter(|date| !date.is_empty())
}

/// The merge base of two commits (or a remote branch and a commit), as a full hash.
///
/// # Errors
/// When git does not know them; the error says how to get them, and whether the clone is shallow.
pub async fn merge_base(base: &str, head: &str) -> Result<String> {
    let (found, hash) = git(&["merge-base", base, head]).await?;
    if found {
        return Ok(hash);
    }
    let (_, shallow) = git(&["rev-parse", "--is-shallow-repository"]).await?;
    if shallow == "true" {
        bail!(
            "the clone is shallow: check out with `fetch-depth: 0`, give a GITHUB_TOKEN, or name the commit with --base"
        );
    }
    bail!("git does not know both {base} and {head}: fetch them, give a GITHUB_TOKEN, or name the commit with --base")
}

/// A file in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tracked {
    /// Neither the commit nor the checkout has it: it is not a file of the repository.
    Never,
    /// The checkout's index has it, the commit does not.
    Absent,
    /// Its text in the commit.
    As(String),
}

/// The file of `commit` at `path`, which is absolute or relative to the current folder.
///
/// # Errors
/// When git cannot be run.
pub async fn tracked(commit: &str, path: &Path) -> Result<Tracked> {
    let (_, top) = git(&["rev-parse", "--show-toplevel"]).await?;
    // The index gives the path from the top of the repository; a file that only the commit has keeps the given path.
    let (indexed, name) = git(&["ls-files", "--full-name", "--error-unmatch", "--", &path.to_string_lossy()]).await?;
    let name = match path.strip_prefix(&top) {
        _ if indexed => name,
        Ok(inside) => inside.display().to_string(),
        Err(_) if path.is_relative() => format!("./{}", path.display()),
        Err(_) => return Ok(Tracked::Never),
    };
    let (found, text) = git(&["show", &format!("{commit}:{name}")]).await?;
    Ok(match (found, indexed) {
        (true, _) => Tracked::As(text),
        (false, true) => Tracked::Absent,
        (false, false) => Tracked::Never,
    })
}
