//! Long-running processes, each under a guard, and a list of them so that an interrupt can end them all.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indexmap::IndexMap;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// How long a guard may take to end its command before the guard is killed.
const GUARD: Duration = Duration::from_secs(30);

/// A command as it is started: the program on this machine, its environment, and its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: IndexMap<String, String>,
    /// Name of the container that the command runs, where it runs one.
    pub container: Option<String>,
}

/// Starts processes under guards, and knows which are running.
#[derive(Debug, Clone)]
pub struct Processes {
    program: PathBuf,
    next: Arc<AtomicU64>,
    running: Arc<Mutex<HashMap<u64, Arc<Mutex<Child>>>>>,
}

/// A process that was started here.
#[derive(Debug)]
pub struct Process {
    id: u64,
    child: Arc<Mutex<Child>>,
    processes: Processes,
}

impl Processes {
    /// `program` is this binary: it is the guard.
    pub fn new(program: PathBuf) -> Self {
        Self { program, next: Arc::default(), running: Arc::default() }
    }

    /// Starts `invocation` with both outputs in the file `log`.
    ///
    /// # Errors
    /// The log cannot be opened or the guard cannot be started. A program that does not exist ends at once, with the reason in
    /// the log.
    #[expect(clippy::disallowed_methods, reason = "starting processes is what this module is for")]
    pub async fn start(&self, invocation: &Invocation, log: &Path) -> Result<Process> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open the log `{}`", log.display()))?;
        let errors = file.try_clone().with_context(|| format!("cannot open the log `{}`", log.display()))?;
        let mut command = Command::new(&self.program);
        command.arg("guard");
        if let Some(container) = &invocation.container {
            command.args(["--container", container]);
        }
        command.arg("--").args(&invocation.argv);
        command.env_clear().envs(&invocation.env);
        command.stdin(Stdio::piped()).stdout(file).stderr(errors);
        // A signal for the group of this process (Ctrl-C in a terminal) must not reach the guard, which ends processes in order.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start the guard `{}`", self.program.display()))?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let child = Arc::new(Mutex::new(child));
        self.running.lock().await.insert(id, child.clone());
        Ok(Process { id, child, processes: self.clone() })
    }

    /// Ends all processes, and returns when they are gone.
    pub async fn end_all(&self) {
        let running: Vec<_> = self.running.lock().await.drain().map(|(_, child)| child).collect();
        let ends = running.iter().map(|child| async {
            let mut child = child.lock().await;
            drop(child.stdin.take());
            wait_or_kill(&mut child).await
        });
        futures_util::future::join_all(ends).await;
    }
}

impl Process {
    /// The exit status, if it has ended.
    ///
    /// # Errors
    /// The system cannot be asked.
    pub async fn ended(&self) -> Result<Option<ExitStatus>> {
        self.child.lock().await.try_wait().context("cannot ask for the state of a process")
    }

    /// Waits for the end, at most `limit`; then the process is ended, which is an error.
    ///
    /// # Errors
    /// When the limit passed.
    pub async fn wait(self, limit: Duration) -> Result<ExitStatus> {
        let begun = tokio::time::Instant::now();
        loop {
            if let Some(status) = self.ended().await? {
                self.processes.running.lock().await.remove(&self.id);
                return Ok(status);
            }
            if begun.elapsed() > limit {
                self.stop().await;
                bail!("it did not end within {}", crate::duration::text(limit));
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
        wait_or_kill(&mut child).await;
        drop(child);
        self.processes.running.lock().await.remove(&self.id);
    }
}

async fn wait_or_kill(child: &mut Child) {
    if tokio::time::timeout(GUARD, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}
