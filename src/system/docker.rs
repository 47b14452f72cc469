//! Images and containers of this machine's Docker engine, through the `docker` command, so that the contexts, credentials
//! and rootless set-ups of the machine apply.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use indexmap::IndexMap;

use crate::environment::Environment;
use crate::system::host::outside_load;
use crate::system::host_variables;
use crate::system::program::{self, Failure, Output, Program};

/// Label of every container that vllm-perf starts; its value is the run.
pub const LABEL: &str = "vllm-perf.run";
/// Label with the machine and the output folder of the run.
pub const FOLDER_LABEL: &str = "vllm-perf.folder";

/// How long a question to the engine may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How long a pull may take: an image of vLLM has tens of gigabytes.
const PULL_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// Runs `docker` and returns what it printed.
///
/// # Errors
/// When there is no `docker`, or it failed; its last line is in the error.
async fn docker(arguments: &[&str], variables: IndexMap<String, String>, limit: Duration) -> Result<String> {
    let output = output(arguments, variables, limit).await?;
    if !output.status.success() {
        bail!("`docker {}` failed: {}", arguments.join(" "), output.last_line());
    }
    Ok(output.text().trim().to_owned())
}

/// Runs `docker`, whatever its status.
async fn output(arguments: &[&str], variables: IndexMap<String, String>, limit: Duration) -> Result<Output> {
    let variables = host_variables::words(&variables);
    let program =
        Program { name: Path::new("docker"), arguments, variables: &variables, folder: None, stdin: b"", limit };
    program::run(&program).await.map_err(|failure| match failure {
        Failure::NotFound => anyhow!("cannot run `docker`: image targets need the Docker command on PATH"),
        failure => anyhow!("`docker {}`: {failure}; check that the container engine runs", command(arguments)),
    })
}

/// The words of a command before its options.
fn command(arguments: &[&str]) -> String {
    let words = arguments.iter().take_while(|word| !word.starts_with('-'));
    words.copied().collect::<Vec<_>>().join(" ")
}

/// Asks the engine a question.
async fn ask(arguments: &[&str], environment: &Environment) -> Result<String> {
    docker(arguments, host_variables::of_docker(environment), LIMIT).await
}

/// How long the engine may take to say that it is there.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Checks that the engine answers.
///
/// # Errors
/// It does not, or this user may not ask it; the text has its own words.
pub async fn answers(environment: &Environment) -> Result<()> {
    let arguments = ["version", "--format", "{{.Server.Version}}"];
    docker(&arguments, host_variables::of_docker(environment), ANSWER_LIMIT).await.map(drop)
}

/// Whether the engine has the image.
///
/// # Errors
/// The engine does not answer, with its own words.
pub async fn is_here(reference: &str, environment: &Environment) -> Result<bool> {
    let arguments = ["image", "inspect", "--format", "{{.Id}}", reference];
    let output = output(&arguments, host_variables::of_docker(environment), LIMIT).await?;
    if !output.status.success() && is_of_the_engine(&output.message()) {
        bail!("`docker {}` failed: {}", command(&arguments), output.last_line());
    }
    Ok(output.status.success())
}

/// Whether a message is about the engine itself, and not about an image that it does not have.
fn is_of_the_engine(message: &str) -> bool {
    let message = message.to_lowercase();
    ["cannot connect", "connection refused", "permission denied", "is the docker daemon running"]
        .iter()
        .any(|words| message.contains(words))
}

/// Pulls the image.
///
/// # Errors
/// When the engine cannot.
pub async fn pull(reference: &str, environment: &Environment) -> Result<()> {
    docker(&["pull", "--quiet", reference], host_variables::of_docker_pull(environment), PULL_LIMIT).await.map(|_| ())
}

/// The image by its digest, `repository@digest` as the registry named it, or by its own id where it was never in a
/// registry. The engine runs the same image under it even if the tag moves.
///
/// # Errors
/// When the engine does not have the image.
pub async fn pinned(reference: &str, environment: &Environment) -> Result<String> {
    let format = "{{if .RepoDigests}}{{range .RepoDigests}}{{println .}}{{end}}{{else}}{{.Id}}{{end}}";
    let text = ask(&["image", "inspect", "--format", format, reference], environment).await?;
    Ok(one_of(&text, reference).to_owned())
}

/// The line of the reference's own repository, or else the first.
fn one_of<'a>(lines: &'a str, reference: &str) -> &'a str {
    let own = |line: &&str| {
        let repository = line.split('@').next().unwrap_or_default();
        reference.strip_prefix(repository).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
    };
    lines.lines().find(own).or_else(|| lines.lines().next()).unwrap_or_default().trim()
}

/// The digest, or the id, of a pinned image.
pub fn digest_of(pinned: &str) -> &str {
    pinned.rsplit_once('@').map_or(pinned, |(_, digest)| digest)
}

/// When an image was built, RFC 3339; `None` where the engine does not know.
pub async fn built(reference: &str, environment: &Environment) -> Option<String> {
    let arguments = ["image", "inspect", "--format", "{{.Created}}", reference];
    ask(&arguments, environment).await.ok().filter(|date| !date.is_empty())
}

/// Processor time in seconds that a container on this machine has used; `None` where it is on another machine, or the
/// kernel has no such number.
pub async fn processor_time(container: &str, environment: &Environment) -> Option<f64> {
    let printed = ask(&["inspect", "--format", "{{.Id}} {{.State.Pid}}", container], environment).await.ok()?;
    let (id, process) = printed.split_once(' ')?;
    let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    // With an engine on another machine, that process id is a different process here.
    let stat = group.contains(id).then(|| format!("/sys/fs/cgroup{group}/cpu.stat"))?;
    outside_load::usage(&std::fs::read_to_string(stat).ok()?)
}

/// Removes the containers that a killed run in the folder with this label left.
///
/// # Errors
/// When the engine cannot.
pub async fn remove_leftovers(folder: &str, environment: &Environment) -> Result<()> {
    let filter = format!("label={FOLDER_LABEL}={folder}");
    let printed = ask(&["ps", "--all", "--quiet", "--filter", &filter], environment).await?;
    for id in printed.lines() {
        ask(&["rm", "--force", "--volumes", id], environment).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_is_out_of_reach_is_not_a_missing_image() {
        for (message, expected) in [
            ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", true),
            ("permission denied while trying to connect to the Docker daemon socket", true),
            ("Error: dial tcp 127.0.0.1:2375: connect: connection refused", true),
            ("Error response from daemon: No such image: a/b:c", false),
            ("Error: a/b:c: image not known", false),
            ("", false),
        ] {
            assert_eq!(is_of_the_engine(message), expected, "{message}");
        }
    }

    #[test]
    fn an_image_is_pinned_in_its_own_repository() {
        let lines = "other/vllm@sha256:1\nreg:5000/a/vllm@sha256:2\n";
        for (reference, expected) in [
            ("reg:5000/a/vllm:tag", "reg:5000/a/vllm@sha256:2"),
            ("reg:5000/a/vllm@sha256:2", "reg:5000/a/vllm@sha256:2"),
            ("reg:5000/a/vllm-cpu:tag", "other/vllm@sha256:1"),
        ] {
            assert_eq!(one_of(lines, reference), expected);
        }
        assert_eq!(digest_of(one_of("sha256:3", "reg/vllm")), "sha256:3");
        assert_eq!(digest_of("reg:5000/a/vllm@sha256:2"), "sha256:2");
    }
}
