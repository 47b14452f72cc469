//! Exit codes, and the exit code of an error. The codes are a contract: scripts and CI steps branch on them.

use std::fmt;

/// The exit of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, or skipped with a reason.
    Done,
    /// 1: a verdict that the user asked to fail on.
    Verdict,
    /// 2: the user's mistake: arguments, config, suite file. Nothing was started.
    Mistake,
    /// 3: a case could not be measured. The results of the others are kept.
    Unmeasured,
    /// 4: an external service failed (registry, GitHub, Buildkite agent, store), after the retries.
    World,
    /// 130 or 143: interrupted by the signal of this number. All child processes and containers are terminated.
    Signal(u8),
}

impl Exit {
    /// The process exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Verdict => 1,
            Self::Mistake => 2,
            Self::Unmeasured => 3,
            Self::World => 4,
            Self::Signal(number) => 128 + number,
        }
    }
}

/// An error whose exit code is known.
#[derive(Debug)]
struct Classified {
    exit: Exit,
    cause: anyhow::Error,
}

impl fmt::Display for Classified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.cause, f)
    }
}

impl std::error::Error for Classified {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}

/// Gives an error its exit code. The innermost classification has priority.
pub trait Classify<T> {
    /// The user's mistake: exit 2.
    fn mistake(self) -> anyhow::Result<T>;
    /// A case that could not be measured: exit 3.
    fn unmeasured(self) -> anyhow::Result<T>;
    /// An external service failed: exit 4.
    fn world(self) -> anyhow::Result<T>;
    /// Any exit code.
    fn exit(self, exit: Exit) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Classify<T> for Result<T, E> {
    fn mistake(self) -> anyhow::Result<T> {
        self.exit(Exit::Mistake)
    }

    fn unmeasured(self) -> anyhow::Result<T> {
        self.exit(Exit::Unmeasured)
    }

    fn world(self) -> anyhow::Result<T> {
        self.exit(Exit::World)
    }

    fn exit(self, exit: Exit) -> anyhow::Result<T> {
        self.map_err(|error| {
            let cause: anyhow::Error = error.into();
            if known(&cause).is_some() { cause } else { Classified { exit, cause }.into() }
        })
    }
}

fn known(error: &anyhow::Error) -> Option<Exit> {
    error.chain().find_map(|cause| cause.downcast_ref::<Classified>()).map(|classified| classified.exit)
}

/// The exit of an error; 4 where none was given.
pub fn of(error: &anyhow::Error) -> Exit {
    known(error).unwrap_or(Exit::World)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn the_innermost_classification_has_priority_and_context_keeps_it() {
        let inner: anyhow::Result<()> = Err(anyhow!("no such label")).mistake();
        let outer = inner.context("cannot plan").world().unwrap_err();
        assert_eq!(of(&outer), Exit::Mistake);
        assert_eq!(format!("{outer:#}"), "cannot plan: no such label");
    }

    #[test]
    fn the_exit_code_of_a_signal_is_128_plus_its_number() {
        assert_eq!((Exit::Signal(2).code(), Exit::Signal(15).code()), (130, 143));
    }
}
