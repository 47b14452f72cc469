//! The limit of open files of this process: every connection needs one.

use anyhow::{Context, Result, anyhow};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files that a process has open beside its connections, with room to spare.
const OTHER_FILES: u64 = 64;

/// Allows `connections` and what else a process has open; many systems begin with 1024 files.
///
/// # Errors
/// The system does not let us have so many.
pub fn allow(connections: u64) -> Result<()> {
    let needed = connections + OTHER_FILES;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    if soft >= needed {
        return Ok(());
    }
    if hard < needed {
        return Err(anyhow!(
            "{connections} connections need {needed} open files and the hard limit is {hard}: \
             raise it (`ulimit -Hn {needed}`, LimitNOFILE, --ulimit nofile), or lower --max-concurrency"
        ));
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).with_context(|| format!("cannot raise the open files to {hard}"))
}

/// Allows as many open connections as the system lets us have; many systems begin with 1024.
pub fn raise() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Where it is refused, connections beyond the limit wait.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
