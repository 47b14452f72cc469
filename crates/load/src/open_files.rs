//! The limit of open files of this process. Every connection is an open file.

use std::error::Error;
use std::{fmt, io};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Open files of a process in addition to its connections, with a margin.
const OTHER_FILES: u64 = 64;

/// Why the limit of open files cannot be raised far enough.
#[derive(Debug)]
pub enum OpenFilesError {
    /// The hard limit of the process is too low. A user can raise it, or use fewer connections.
    HardLimit {
        /// Connections that were requested.
        connections: u64,
        /// Open files that these connections need.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// The system cannot read or set the limit.
    System(io::Error),
}

impl fmt::Display for OpenFilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HardLimit { connections, needed, limit } => write!(
                f,
                "{connections} connections need {needed} open files and the hard limit is {limit}: \
                 raise it (`ulimit -Hn {needed}`, LimitNOFILE, --ulimit nofile)"
            ),
            Self::System(_) => f.write_str("cannot raise the limit of open files"),
        }
    }
}

impl Error for OpenFilesError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::HardLimit { .. } => None,
            Self::System(error) => Some(error),
        }
    }
}

/// Raises the limit of open files if `connections` and the other files of the process need it. Many systems start with
/// a limit of 1024.
///
/// # Errors
/// The hard limit is too low, or the system refuses.
pub fn allow(connections: u64) -> Result<(), OpenFilesError> {
    let system = |error: nix::errno::Errno| OpenFilesError::System(error.into());
    let needed = connections + OTHER_FILES;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(system)?;
    if soft >= needed {
        return Ok(());
    }
    if hard < needed {
        return Err(OpenFilesError::HardLimit { connections, needed, limit: hard });
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(system)
}

/// Raises the limit of open files as far as the system allows, for a server that cannot know its number of connections.
pub fn raise() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If the system refuses, connections beyond the limit wait.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
