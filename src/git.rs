//! What we ask of the checkout that we stand in.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

#[expect(clippy::disallowed_methods, reason = "asking git is what this module is for")]
async fn git(arguments: &[&str]) -> Result<(bool, String)> {
    let output = Command::new("git")
        .args(arguments)
        .env_remove("GITHUB_TOKEN")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run `git`")?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned()))
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

/// The date of a commit, in seconds since 1970.
///
/// # Errors
/// When git does not know it.
pub async fn committed(commit: &str) -> Result<u64> {
    let (found, seconds) = git(&["show", "--no-patch", "--format=%ct", &format!("{commit}^{{commit}}")]).await?;
    match seconds.parse() {
        Ok(seconds) if found => Ok(seconds),
        _ => bail!("git does not know the date of the commit `{commit}`"),
    }
}

/// The merge base of two commits (or a remote branch and a commit), as a full hash.
///
/// # Errors
/// When git does not know them: the text says how to bring them, and where the clone is shallow, that it is.
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
