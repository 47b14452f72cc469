//! Long-running processes, each under a guard, and a list of them so that an interrupt can end them all.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use indexmap::IndexMap;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::system::host_variables;
use crate::system::interrupt::ENDING;
use crate::system::private_files::{FileOption, PrivateFiles};
use crate::system::program::{self, Program};
use crate::system::{orphans, regular_file};

/// How long a guard may take to end its command before the guard is killed.
const GUARD: Duration = Duration::from_secs(30);

/// How long the engine may take to remove a container.
const REMOVAL: Duration = Duration::from_secs(20);

/// Keeps the memory and the environment of this process, which may hold tokens, from other processes of the same user, and
/// out of core files.
pub fn shut_to_other_processes() {
    // Neither fails on Linux with these arguments; where one did, the run would still be right.
    let _ = nix::sys::prctl::set_dumpable(false);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}

/// A command as it is started: the program on this machine, its environment, and its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: IndexMap<String, String>,
    /// Name of the container that the command runs, where it runs one.
    pub container: Option<String>,
    /// Options of `docker run` and `docker exec`, each with a file.
    pub files: Vec<FileOption>,
    /// How many words of `argv` stand before these options.
    pub files_at: usize,
    /// Folders that are removed with the command if this process is killed.
    pub remove: Vec<PathBuf>,
}

/// Starts processes under guards, and knows which are running.
#[derive(Debug, Clone)]
pub struct Processes {
    program: PathBuf,
    next: Arc<AtomicU64>,
    running: Arc<Mutex<HashMap<u64, Guarded>>>,
    /// Containers that could not be removed.
    left: Arc<Mutex<Vec<String>>>,
}

/// A running guard, and what remains if it is killed.
#[derive(Debug, Clone)]
struct Guarded {
    child: Arc<Mutex<Child>>,
    pid: Option<Pid>,
    container: Option<Arc<Invocation>>,
}

/// Something did not end in its time.
#[derive(Debug)]
pub struct TimedOut(pub Duration);

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it did not end within {}", crate::duration::text(self.0))
    }
}

impl std::error::Error for TimedOut {}

/// `exit status: 134 (128 + 6, SIGABRT)`: how a guarded command ended. A guard ends with the status of its command; of a
/// signal that is 128 and its number.
pub fn described(status: ExitStatus) -> String {
    let signal = status.code().and_then(|code| Signal::try_from(code - 128).ok());
    match signal {
        Some(signal) => format!("{status} (128 + {}, {})", signal as i32, signal.as_str()),
        None => status.to_string(),
    }
}

/// A process that was started here.
#[derive(Debug)]
pub struct Process {
    id: u64,
    child: Arc<Mutex<Child>>,
    processes: Processes,
    files: Option<PrivateFiles>,
}

impl Processes {
    /// `program` is this binary: it is the guard. Processes that a killed guard leaves become children of this one.
    pub fn new(program: PathBuf) -> Self {
        let _ = nix::sys::prctl::set_child_subreaper(true);
        Self { program, next: Arc::default(), running: Arc::default(), left: Arc::default() }
    }

    /// Starts `invocation` with both outputs in the file `log`.
    ///
    /// # Errors
    /// The log cannot be opened, a variable cannot be passed on, or the guard cannot be started. A program that does not
    /// exist ends at once, with the reason in the log.
    #[expect(clippy::disallowed_methods, reason = "starting processes is what this module is for")]
    pub async fn start(&self, invocation: &Invocation, log: &Path) -> Result<Process> {
        let cannot = || format!("cannot open the log `{}`", log.display());
        let file = regular_file::append(log).with_context(cannot)?;
        let errors = file.try_clone().with_context(cannot)?;
        let (files, options) = match invocation.files.as_slice() {
            [] => (None, Vec::new()),
            files => PrivateFiles::write(files).map(|(files, words)| (Some(files), words))?,
        };
        let mut command = Command::new(&self.program);
        command.arg("guard");
        if let Some(container) = &invocation.container {
            command.args(["--container", container]);
        }
        let folders = invocation.remove.iter().map(PathBuf::as_path);
        for folder in folders.chain(files.as_ref().map(PrivateFiles::folder)) {
            command.arg("--remove").arg(folder);
        }
        let (first, rest) = invocation.argv.split_at(invocation.files_at.min(invocation.argv.len()));
        command.arg("--").args(first).args(options).args(rest);
        command.env_clear().envs(&invocation.env);
        command.stdin(Stdio::piped()).stdout(file).stderr(errors);
        // A signal for the group of this process (Ctrl-C in a terminal) does not reach the guard, which ends processes in
        // order: it makes a session of its own. No guard is started while orphans are looked for.
        let mut running = self.running.lock().await;
        let child = command.spawn().with_context(|| format!("cannot start the guard `{}`", self.program.display()))?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let child = Arc::new(Mutex::new(child));
        let container = invocation.container.as_ref().map(|_| Arc::new(invocation.clone()));
        running.insert(id, Guarded { child: child.clone(), pid, container });
        Ok(Process { id, child, processes: self.clone(), files })
    }

    /// Forgets a guard that has ended. What a killed one left is ended here: its container, and the processes that became
    /// children of this one, in other sessions than ours.
    async fn forget(&self, id: u64, status: Option<ExitStatus>) {
        let mut running = self.running.lock().await;
        let Some(guarded) = running.remove(&id) else { return };
        if status.is_some_and(|status| status.signal().is_none()) {
            return;
        }
        let guards: BTreeSet<Pid> = running.values().filter_map(|guarded| guarded.pid).collect();
        let end = move || orphans::end(|found| !found.is_in_our_session() && !guards.contains(&found.pid));
        let _ = tokio::task::spawn_blocking(end).await;
        if let Some(invocation) = guarded.container
            && !remove_container(&invocation).await
        {
            self.left.lock().await.extend(invocation.container.clone());
        }
    }

    /// Ends all processes, and returns when they are gone. After a signal there is little time: a guard that needs more, for
    /// an engine that does not answer, ends its command when this process is gone. Returns the containers that may be left.
    pub async fn end_all(&self, after_signal: bool) -> Vec<String> {
        let limit = if after_signal { ENDING } else { Duration::MAX };
        let _ = tokio::time::timeout(limit, self.end_each()).await;
        let mut left = std::mem::take(&mut *self.left.lock().await);
        let running = std::mem::take(&mut *self.running.lock().await);
        left.extend(running.into_values().filter_map(|guarded| guarded.container?.container.clone()));
        left
    }

    async fn end_each(&self) {
        let running: Vec<_> = self.running.lock().await.iter().map(|(id, guarded)| (*id, guarded.clone())).collect();
        let ends = running.iter().map(|(id, guarded)| async {
            let mut child = guarded.child.lock().await;
            drop(child.stdin.take());
            (*id, wait_or_kill(&mut child).await)
        });
        for (id, status) in futures_util::future::join_all(ends).await {
            self.forget(id, status).await;
        }
    }
}

impl Process {
    /// The exit status, if it has ended.
    ///
    /// # Errors
    /// The system cannot be asked.
    pub async fn ended(&self) -> Result<Option<ExitStatus>> {
        let status = self.child.lock().await.try_wait().context("cannot ask for the state of a process")?;
        if status.is_some() {
            self.processes.forget(self.id, status).await;
        }
        Ok(status)
    }

    /// The process id of its guard, while that runs.
    pub async fn guard(&self) -> Option<u32> {
        self.child.lock().await.id()
    }

    /// Removes the private files of the command: it has read them.
    pub fn remove_files(&mut self) {
        self.files = None;
    }

    /// Waits for the end, at most `limit`; then the process is ended, which is an error.
    ///
    /// # Errors
    /// When the limit passed.
    pub async fn wait(self, limit: Duration) -> Result<ExitStatus> {
        let begun = tokio::time::Instant::now();
        loop {
            if let Some(status) = self.ended().await? {
                return Ok(status);
            }
            if begun.elapsed() > limit {
                self.stop().await;
                return Err(TimedOut(limit).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the process and its descendants, and returns when they are gone.
    pub async fn stop(self) {
        let mut child = self.child.lock().await;
        if let Some(mut lease) = child.stdin.take() {
            let _ = lease.write_all(b"stop\n").await;
            let _ = lease.flush().await;
            // The lease stays open during the graceful end: closing it means "at once".
            let _ = tokio::time::timeout(GUARD, child.wait()).await;
        }
        let status = wait_or_kill(&mut child).await;
        drop(child);
        self.processes.forget(self.id, status).await;
    }
}

/// Tells what could not be ended, and what to do about it.
pub fn left_behind(containers: &[String]) -> Option<String> {
    let names = containers.join(" ");
    let left = "these containers may be left, because the engine did not answer";
    (!containers.is_empty()).then(|| format!("{left}: {names}; `docker rm --force {names}` removes them"))
}

/// Removes the container of a guard that was killed; returns whether the engine did so.
async fn remove_container(invocation: &Invocation) -> bool {
    let (Some(docker), Some(name)) = (invocation.argv.first(), &invocation.container) else { return true };
    let variables = host_variables::words(&invocation.env);
    let program = Program {
        name: Path::new(docker),
        arguments: &["rm", "--force", "--volumes", name],
        variables: &variables,
        folder: None,
        stdin: b"",
        limit: REMOVAL,
    };
    // What the engine does not remove is found by its label when the run is resumed.
    program::run(&program).await.is_ok()
}

/// The status of a guard that ended by itself in time; else it is killed.
async fn wait_or_kill(child: &mut Child) -> Option<ExitStatus> {
    match tokio::time::timeout(GUARD, child.wait()).await {
        Ok(status) => status.ok(),
        Err(_) => {
            let _ = child.kill().await;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_named_with_the_command_that_removes_it() {
        assert_eq!(left_behind(&[]), None);
        insta::assert_snapshot!(left_behind(&["c-1".to_owned()]).unwrap(), @"these containers may be left, because the engine did not answer: c-1; `docker rm --force c-1` removes them");
        assert!(left_behind(&["c-1".to_owned(), "c-2".to_owned()]).unwrap().contains("`docker rm --force c-1 c-2`"));
    }

    #[test]
    fn a_status_names_the_signal_that_it_may_stand_for() {
        let said = |code: i32| described(ExitStatus::from_raw(code << 8));
        for (code, expected) in [
            (0, "exit status: 0"),
            (1, "exit status: 1"),
            (134, "exit status: 134 (128 + 6, SIGABRT)"),
            (137, "exit status: 137 (128 + 9, SIGKILL)"),
            (255, "exit status: 255"),
        ] {
            assert_eq!(said(code), expected);
        }
    }
}
