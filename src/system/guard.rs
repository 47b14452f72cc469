//! The guard: a process that runs one command and ends all of it, with its children and its container, when the process
//! that started it is gone, even after `kill -9`. Its standard input is a lease: a line asks it to end the command
//! gracefully, the end of input (the starter is gone, or has no time) to end it at once.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::Pid;

/// How long a command may take to end after an interrupt; vLLM's engine needs some seconds.
const GRACEFUL: Duration = Duration::from_secs(20);
/// The same when its starter is gone or was interrupted: CI gives 7.5 s between its two signals.
const URGENT: Duration = Duration::from_millis(1500);
/// How long the system may take to remove killed processes and containers.
const LAST: Duration = Duration::from_secs(5);
/// Pause between two tries to remove a container that is not there yet.
const BETWEEN: Duration = Duration::from_millis(200);

/// What the guard waits for.
enum GuardSignal {
    Ended(std::io::Result<std::process::ExitStatus>),
    Stop(Duration),
}

/// Runs `words`, waits for it or for the lease to end, and returns its exit code (128 + signal where a signal ended it).
/// With `container`, the words are a `docker run` of that name, and the container is removed at the end.
///
/// # Errors
/// When the command cannot be started.
#[expect(clippy::disallowed_methods, reason = "starting processes is what this module is for")]
pub fn run(words: &[String], container: Option<&str>) -> Result<u8> {
    let Some((program, arguments)) = words.split_first() else { bail!("no command to guard") };
    // Orphans of the command become children of the guard, so that they can be found and ended.
    nix::sys::prctl::set_child_subreaper(true).context("cannot become the parent of the command's orphans")?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGHUP);
    let mut child = {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).process_group(0);
        command.spawn().with_context(|| format!("cannot start `{program}`"))?
    };
    signals.thread_block().context("cannot block signals")?;
    let group = Pid::from_raw(i32::try_from(child.id()).context("the process id is too large")?);

    let (sender, received) = mpsc::channel();
    watch_lease(sender.clone());
    watch_signals(signals, sender.clone());
    thread::spawn(move || {
        let _ = sender.send(GuardSignal::Ended(child.wait()));
    });
    let mut status = None;
    match received.recv().context("cannot watch the command")? {
        GuardSignal::Ended(ended) => status = Some(ended),
        GuardSignal::Stop(mut grace) => {
            let begun = Instant::now();
            interrupt(group, container, grace);
            loop {
                match received.recv_timeout(grace.saturating_sub(begun.elapsed())) {
                    Ok(GuardSignal::Ended(ended)) => break status = Some(ended),
                    Ok(GuardSignal::Stop(shorter)) => grace = grace.min(shorter),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
        }
    }
    let ended_itself = status.is_some();
    let removed = end_group(group, container);
    if let Some(name) = container.filter(|_| !ended_itself && !removed) {
        remove_late(name);
    }
    // The children of the command become the guard's only when the command itself is gone.
    while status.is_none() {
        match received.recv_timeout(LAST) {
            Ok(GuardSignal::Ended(ended)) => status = Some(ended),
            Ok(GuardSignal::Stop(_)) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    end_strays(group);
    let code = match status {
        Some(Ok(status)) => status.code().or_else(|| status.signal().map(|signal| 128 + signal)),
        _ => None,
    };
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}

fn watch_lease(sender: Sender<GuardSignal>) {
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            let _ = sender.send(GuardSignal::Stop(GRACEFUL));
        }
        let _ = sender.send(GuardSignal::Stop(URGENT));
    });
}

fn watch_signals(signals: SigSet, sender: Sender<GuardSignal>) {
    thread::spawn(move || {
        while signals.wait().is_ok() {
            let _ = sender.send(GuardSignal::Stop(URGENT));
        }
    });
}

/// Asks the command to end. The first process of a container ignores signals that it does not handle, so the engine is
/// asked to stop it.
fn interrupt(group: Pid, container: Option<&str>, grace: Duration) {
    match container {
        // `docker stop` returns when it is done; a more urgent signal must be received until then.
        Some(name) => {
            let (name, seconds) = (name.to_owned(), grace.as_secs().to_string());
            thread::spawn(move || docker(&["stop", "--time", &seconds, &name]));
        }
        None => {
            let _ = killpg(group, Signal::SIGINT);
        }
    }
}

/// Ends the process group and the container; returns whether there was a container. Neither has to exist.
fn end_group(group: Pid, container: Option<&str>) -> bool {
    let removed = container.is_some_and(remove);
    let _ = killpg(group, Signal::SIGKILL);
    removed
}

/// Removes a container that the engine may still be creating: it continues when its `docker run` is gone.
fn remove_late(name: &str) {
    let begun = Instant::now();
    while !remove(name) && begun.elapsed() < LAST {
        thread::sleep(BETWEEN);
    }
}

/// Whether there was such a container. `docker rm --force` succeeds without one, and then prints no name.
fn remove(name: &str) -> bool {
    docker(&["rm", "--force", "--volumes", name]).is_some_and(|printed| printed.trim() == name)
}

/// Ends processes that left the group. Each round ends children of those before, as orphans become the guard's children.
fn end_strays(group: Pid) {
    let begun = Instant::now();
    while begun.elapsed() < LAST {
        let strays: Vec<Pid> = children_of(Pid::this()).into_iter().filter(|pid| *pid != group).collect();
        if strays.is_empty() {
            return;
        }
        for pid in strays {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, None);
        }
    }
}

/// The output of `docker`, if it could be run.
#[expect(clippy::disallowed_methods, reason = "ending containers is what this module is for")]
fn docker(arguments: &[&str]) -> Option<String> {
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()
}

fn children_of(parent: Pid) -> BTreeSet<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return BTreeSet::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .ok()
                .and_then(|stat| parent_in_stat(&stat))
                .is_some_and(|found| found == parent)
        })
        .collect()
}

/// The parent in a line of `/proc/<pid>/stat`; the command's name before it may hold any character, `)` included.
fn parent_in_stat(stat: &str) -> Option<Pid> {
    stat.rsplit_once(") ")?.1.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_after_a_name_with_brackets_and_spaces() {
        assert_eq!(parent_in_stat("812 (a) b) (c) S 77 812 812 0"), Some(Pid::from_raw(77)));
        assert_eq!(parent_in_stat("nonsense"), None);
    }
}
