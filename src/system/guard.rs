//! The guard: a process that runs one command and ends all of it, with its children and its container, when the process
//! that started it is gone, even after `kill -9`. Its standard input is a lease: a line asks it to end the command
//! gracefully, the end of input (the starter is gone, or has no time) to end it at once.

use std::fs::File;
use std::io::{BufRead, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;

use crate::system::{bounded_log, exchange, orphans};

/// How long a command may take to end after an interrupt; vLLM's engine needs some seconds.
const GRACEFUL: Duration = Duration::from_secs(20);
/// The same when its starter is gone or was interrupted: CI gives 7.5 s between its two signals.
const URGENT: Duration = Duration::from_millis(1500);
/// How long the system may take to remove killed processes and containers, and to deliver what they printed.
const LAST: Duration = Duration::from_secs(5);
/// How long the engine may take to stop or remove a container: longer than it waits before it kills one.
const ENGINE: Duration = Duration::from_secs(30);
/// Most bytes that are read of what the engine prints.
const PRINTED: u64 = 4096;
/// Pause between two tries to remove a container that is not there yet.
const BETWEEN: Duration = Duration::from_millis(200);

/// What the guard waits for.
enum GuardSignal {
    Ended(Ended),
    Stop(Duration),
}

/// A container that the command runs.
#[derive(Clone, Copy)]
struct Container<'a> {
    /// The program of the command.
    docker: &'a str,
    name: &'a str,
}

/// Runs `words`, waits for it or for the lease to end, and returns its exit code (128 + signal where a signal ended it).
/// What it prints goes to standard output, bounded where that is a file. With `container`, the words are a `docker run` of
/// that name, and the container is removed at the end. Where the starter is gone, so are the folders in `remove`.
///
/// # Errors
/// When the command cannot be started.
pub fn run(words: &[String], container: Option<&str>, remove: &[PathBuf]) -> Result<u8> {
    let Some((program, arguments)) = words.split_first() else { bail!("no command to guard") };
    let container = container.map(|name| Container { docker: program, name });
    // In a session of its own, so that its starter can find the command if the guard is killed.
    let _ = nix::unistd::setsid();
    // Orphans of the command become children of the guard, so that they can be found and ended.
    nix::sys::prctl::set_child_subreaper(true).context("cannot become the parent of the command's orphans")?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGHUP);
    let (mut child, printed) = spawn(program, arguments)?;
    signals.thread_block().context("cannot block signals")?;
    let group = Pid::from_raw(i32::try_from(child.id()).context("the process id is too large")?);

    let (sender, received) = mpsc::channel();
    watch_lease(sender.clone());
    watch_signals(signals, sender.clone());
    let logged = log(printed)?;
    thread::spawn(move || {
        let _ = sender.send(GuardSignal::Ended(child.wait()));
    });
    let (mut status, is_abandoned) = wait(&received, group, container)?;
    let ended_itself = status.is_some();
    let removed = end_group(group, container);
    if let Some(container) = container.filter(|_| !ended_itself && !removed) {
        remove_late(container);
    }
    // The children of the command become the guard's only when the command itself is gone.
    while status.is_none() {
        match received.recv_timeout(LAST) {
            Ok(GuardSignal::Ended(ended)) => status = Some(ended),
            Ok(GuardSignal::Stop(_)) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    orphans::end(|found| found.pid != group);
    // Everything that could print is gone; what it printed is still on its way.
    let _ = logged.recv_timeout(LAST);
    for folder in remove.iter().filter(|_| is_abandoned) {
        let _ = exchange::delete(folder);
    }
    let code = match status {
        Some(Ok(status)) => status.code().or_else(|| status.signal().map(|signal| 128 + signal)),
        _ => None,
    };
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}

/// Starts the command in a process group of its own; both of its outputs can be read from the pipe.
#[expect(clippy::disallowed_methods, reason = "starting processes is what this module is for")]
fn spawn(program: &str, arguments: &[String]) -> Result<(Child, PipeReader)> {
    let (printed, printer) = std::io::pipe().context("cannot make a pipe")?;
    let errors = printer.try_clone().context("cannot make a pipe")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(printer).stderr(errors).process_group(0);
    let child = command.spawn().with_context(|| format!("cannot start `{program}`"))?;
    Ok((child, printed))
}

/// Copies what the command prints to standard output. The receiver gets a message when that ends.
fn log(mut printed: PipeReader) -> Result<Receiver<()>> {
    let log = std::io::stdout().as_fd().try_clone_to_owned().context("cannot open the log")?;
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        bounded_log::copy(&mut printed, &mut File::from(log));
        let _ = sender.send(());
    });
    Ok(received)
}

type Ended = std::io::Result<ExitStatus>;

/// Waits for the end of the command, and asks for it where the lease says so. Returns how it ended, unless it did not in
/// time, and whether the starter is gone.
fn wait(
    received: &Receiver<GuardSignal>,
    group: Pid,
    container: Option<Container<'_>>,
) -> Result<(Option<Ended>, bool)> {
    let mut grace = match received.recv().context("cannot watch the command")? {
        GuardSignal::Ended(ended) => return Ok((Some(ended), false)),
        GuardSignal::Stop(grace) => grace,
    };
    let begun = Instant::now();
    interrupt(group, container, grace);
    loop {
        match received.recv_timeout(grace.saturating_sub(begun.elapsed())) {
            Ok(GuardSignal::Ended(ended)) => return Ok((Some(ended), grace == URGENT)),
            Ok(GuardSignal::Stop(shorter)) => grace = grace.min(shorter),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok((None, grace == URGENT)),
        }
    }
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
fn interrupt(group: Pid, container: Option<Container<'_>>, grace: Duration) {
    match container {
        // `docker stop` returns when it is done; a more urgent signal must be received until then.
        Some(Container { docker: program, name }) => {
            let (program, name, seconds) = (program.to_owned(), name.to_owned(), grace.as_secs().to_string());
            thread::spawn(move || docker(&program, &["stop", "--time", &seconds, &name]));
        }
        None => {
            let _ = killpg(group, Signal::SIGINT);
        }
    }
}

/// Ends the process group and the container; returns whether there was a container. Neither has to exist.
fn end_group(group: Pid, container: Option<Container<'_>>) -> bool {
    let removed = container.is_some_and(remove_container);
    let _ = killpg(group, Signal::SIGKILL);
    removed
}

/// Removes a container that the engine may still be creating: it continues when its `docker run` is gone.
fn remove_late(container: Container<'_>) {
    let begun = Instant::now();
    while !remove_container(container) && begun.elapsed() < LAST {
        thread::sleep(BETWEEN);
    }
}

/// Whether there was such a container. `docker rm --force` succeeds without one, and then prints no name.
fn remove_container(container: Container<'_>) -> bool {
    let Container { docker: program, name } = container;
    docker(program, &["rm", "--force", "--volumes", name]).is_some_and(|printed| printed.trim() == name)
}

/// The output of `docker`, if it could be run.
#[expect(clippy::disallowed_methods, reason = "ending containers is what this module is for")]
fn docker(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let begun = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if begun.elapsed() > ENGINE {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
    // It prints a name at most, which a pipe holds.
    let mut printed = String::new();
    child.stdout.take()?.take(PRINTED).read_to_string(&mut printed).ok()?;
    Some(printed)
}
