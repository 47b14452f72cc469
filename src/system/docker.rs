//! Images on this machine's Docker engine, through the `docker` command: its contexts, credentials and rootless set-ups are the host's own.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::run::launch::LABEL;
use crate::system::host::outside_load;

/// Runs `docker` and returns what it printed.
///
/// # Errors
/// When there is no `docker`, or it failed; its last line is in the error.
#[expect(clippy::disallowed_methods, reason = "asking the Docker engine is what this module is for")]
async fn docker(arguments: &[&str]) -> Result<String> {
    let output = Command::new("docker")
        .args(arguments)
        .env_remove("GITHUB_TOKEN")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run `docker`: image targets need the Docker command on PATH")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!(
            "`docker {}` failed: {}",
            arguments.join(" "),
            errors.trim().lines().next_back().unwrap_or("it said nothing")
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether the engine has the image.
pub async fn is_here(reference: &str) -> bool {
    docker(&["image", "inspect", "--format", "{{.Id}}", reference]).await.is_ok()
}

/// Pulls the image.
///
/// # Errors
/// When the engine cannot.
pub async fn pull(reference: &str) -> Result<()> {
    docker(&["pull", "--quiet", reference]).await.map(|_| ())
}

/// Digest of the image: that of the registry, or the image's own id where it never was in one.
///
/// # Errors
/// When the engine does not have the image.
pub async fn digest(reference: &str) -> Result<String> {
    let format = "{{if .RepoDigests}}{{index .RepoDigests 0}}{{else}}{{.Id}}{{end}}";
    let text = docker(&["image", "inspect", "--format", format, reference]).await?;
    Ok(text.rsplit_once('@').map_or(text.clone(), |(_, digest)| digest.to_owned()))
}

/// When an image was built, RFC 3339; `None` where the engine does not tell.
pub async fn built(reference: &str) -> Option<String> {
    docker(&["image", "inspect", "--format", "{{.Created}}", reference]).await.ok().filter(|date| !date.is_empty())
}

/// Processor time in seconds that a container on this machine has used; `None` where it is elsewhere, or the kernel does
/// not tell.
pub async fn processor_time(container: &str) -> Option<f64> {
    let told = docker(&["inspect", "--format", "{{.Id}} {{.State.Pid}}", container]).await.ok()?;
    let (id, process) = told.split_once(' ')?;
    let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    // Of an engine elsewhere, the number would be that of another process here.
    let stat = group.contains(id).then(|| format!("/sys/fs/cgroup{group}/cpu.stat"))?;
    outside_load::usage(&std::fs::read_to_string(stat).ok()?)
}

/// Removes containers of `run` that a killed run left.
///
/// # Errors
/// When the engine cannot.
pub async fn remove_leftovers(run: &str) -> Result<usize> {
    let found = docker(&["ps", "--all", "--quiet", "--filter", &format!("label={LABEL}={run}")]).await?;
    let ids: Vec<&str> = found.lines().collect();
    for id in &ids {
        docker(&["rm", "--force", "--volumes", id]).await?;
    }
    Ok(ids.len())
}
