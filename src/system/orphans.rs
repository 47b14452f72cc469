//! Processes that outlive their parent and became children of this one, a child subreaper: found in `/proc` and killed.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getsid};

/// How long the system may take to remove killed processes.
const LAST: Duration = Duration::from_secs(5);

/// A child of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub pid: Pid,
    session: Pid,
}

impl Found {
    /// Whether it is in the session of this process, as the tools that this process runs to their end are.
    pub fn is_in_our_session(&self) -> bool {
        getsid(None).is_ok_and(|ours| ours == self.session)
    }
}

/// Kills the children of this process that `is_orphan` picks. Each round finds children of those before, as orphans become
/// this process's children.
pub fn end(is_orphan: impl Fn(&Found) -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < LAST {
        let orphans: Vec<Found> = children_of(Pid::this()).into_iter().filter(&is_orphan).collect();
        if orphans.is_empty() {
            return;
        }
        for orphan in &orphans {
            let _ = kill(orphan.pid, Signal::SIGKILL);
        }
        let is_alive =
            |orphan: &Found| matches!(waitpid(orphan.pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive));
        while orphans.iter().any(is_alive) && begun.elapsed() < LAST {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn children_of(parent: Pid) -> Vec<Found> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw));
    let found = pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (its_parent, session) = parent_and_session(&stat)?;
        (its_parent == parent).then_some(Found { pid, session })
    });
    found.collect()
}

/// Parent and session in a line of `/proc/<pid>/stat`; the command's name before them may hold any character, `)` included.
fn parent_and_session(stat: &str) -> Option<(Pid, Pid)> {
    let mut fields = stat.rsplit_once(") ")?.1.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some((Pid::from_raw(parent), Pid::from_raw(session)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_and_session_are_found_after_a_name_with_brackets_and_spaces() {
        let found = parent_and_session("812 (a) b) (c) S 77 812 78 0");
        assert_eq!(found, Some((Pid::from_raw(77), Pid::from_raw(78))));
        assert_eq!(parent_and_session("nonsense"), None);
    }
}
