//! Images and containers of this machine's Docker engine, through the `docker` command, so that the contexts, credentials
//! and rootless set-ups of the machine apply.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::system::host::outside_load;
use crate::system::program::{self, Program, Variables};

/// Label of every container that vllm-perf starts; its value is the run.
pub const LABEL: &str = "vllm-perf.run";

/// How long a question to the engine may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How long a pull may take: an image of vLLM has tens of gigabytes.
const PULL_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// Runs `docker` and returns what it printed.
///
/// # Errors
/// When there is no `docker`, or it failed; its last line is in the error.
async fn docker(arguments: &[&str], limit: Duration) -> Result<String> {
    let program = Program {
        name: Path::new("docker"),
        arguments,
        variables: Variables::Inherited(&[]),
        folder: None,
        stdin: b"",
        limit,
    };
    let output =
        program::run(&program).await.context("cannot run `docker`: image targets need the Docker command on PATH")?;
    if !output.status.success() {
        bail!("`docker {}` failed: {}", arguments.join(" "), output.last_line());
    }
    Ok(output.text().trim().to_owned())
}

/// Whether the engine has the image.
pub async fn is_here(reference: &str) -> bool {
    docker(&["image", "inspect", "--format", "{{.Id}}", reference], LIMIT).await.is_ok()
}

/// Pulls the image.
///
/// # Errors
/// When the engine cannot.
pub async fn pull(reference: &str) -> Result<()> {
    docker(&["pull", "--quiet", reference], PULL_LIMIT).await.map(|_| ())
}

/// Digest of the image: that of the registry, or the image's own id where it was never in one.
///
/// # Errors
/// When the engine does not have the image.
pub async fn digest(reference: &str) -> Result<String> {
    let format = "{{if .RepoDigests}}{{index .RepoDigests 0}}{{else}}{{.Id}}{{end}}";
    let text = docker(&["image", "inspect", "--format", format, reference], LIMIT).await?;
    Ok(text.rsplit_once('@').map_or(text.clone(), |(_, digest)| digest.to_owned()))
}

/// When an image was built, RFC 3339; `None` where the engine does not know.
pub async fn built(reference: &str) -> Option<String> {
    let arguments = ["image", "inspect", "--format", "{{.Created}}", reference];
    docker(&arguments, LIMIT).await.ok().filter(|date| !date.is_empty())
}

/// Processor time in seconds that a container on this machine has used; `None` where it is on another machine, or the
/// kernel has no such number.
pub async fn processor_time(container: &str) -> Option<f64> {
    let printed = docker(&["inspect", "--format", "{{.Id}} {{.State.Pid}}", container], LIMIT).await.ok()?;
    let (id, process) = printed.split_once(' ')?;
    let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    // With an engine on another machine, that process id is a different process here.
    let stat = group.contains(id).then(|| format!("/sys/fs/cgroup{group}/cpu.stat"))?;
    outside_load::usage(&std::fs::read_to_string(stat).ok()?)
}

/// Removes the containers that a killed run of this id left.
///
/// # Errors
/// When the engine cannot.
pub async fn remove_leftovers(run: &str) -> Result<()> {
    let printed = docker(&["ps", "--all", "--quiet", "--filter", &format!("label={LABEL}={run}")], LIMIT).await?;
    for id in printed.lines() {
        docker(&["rm", "--force", "--volumes", id], LIMIT).await?;
    }
    Ok(())
}
