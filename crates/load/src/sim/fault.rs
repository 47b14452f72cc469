//! Faults of the simulated vLLM, to test that a client detects them.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// `status-503`: an error status instead of an answer.
    Status(u16),
    /// `stall`: nothing is sent after half of the tokens, and the connection stays open.
    Stall,
    /// `reset`: the connection is reset after half of the tokens.
    Reset,
    /// `close`: the connection is closed after half of the tokens.
    Close,
    /// `bad-utf8`: the text of a token is not UTF-8, and a chunk ends within it.
    BadUtf8,
    /// `split-utf8`: chunks end within characters. This is valid, and must not count as a failure.
    SplitUtf8,
    /// `error`: an error event after half of the tokens.
    Error,
    /// `no-token`: the answer ends before its first token.
    NoToken,
    /// `no-usage`: the token counts are missing.
    NoUsage,
    /// `no-done`: `[DONE]` is missing.
    NoDone,
    /// `big-event`: the text of the first token has a length of one mebibyte. This is valid too.
    BigEvent,
}

const NAMED: [(&str, FaultKind); 10] = [
    ("stall", FaultKind::Stall),
    ("reset", FaultKind::Reset),
    ("close", FaultKind::Close),
    ("bad-utf8", FaultKind::BadUtf8),
    ("split-utf8", FaultKind::SplitUtf8),
    ("error", FaultKind::Error),
    ("no-token", FaultKind::NoToken),
    ("no-usage", FaultKind::NoUsage),
    ("no-done", FaultKind::NoDone),
    ("big-event", FaultKind::BigEvent),
];

/// A fault and the requests that have it. As text: `stall@3` is the third request, `status-503@*` is every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The kind.
    pub kind: FaultKind,
    /// The number of the request, counted from 1; `None`: every request.
    pub request: Option<u64>,
}

impl Fault {
    /// The first of `faults` that applies to the request with this number.
    pub(super) fn of(faults: &[Self], request: u64) -> Option<FaultKind> {
        faults.iter().find(|fault| fault.request.is_none_or(|nth| nth == request)).map(|fault| fault.kind)
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, request) =
            text.split_once('@').with_context(|| format!("`{text}`: expected KIND@N or KIND@*, as in stall@3"))?;
        let request =
            match request {
                "*" => None,
                number => {
                    Some(number.parse().ok().filter(|number| *number > 0).with_context(|| {
                        format!("`{text}`: `{number}` expected the number of a request, from 1, or *")
                    })?)
                }
            };
        Ok(Self { kind: kind.parse()?, request })
    }
}

impl FromStr for FaultKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some((_, kind)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(*kind);
        }
        match text.strip_prefix("status-").and_then(|code| code.parse().ok()) {
            Some(code @ 400..=599) => Ok(Self::Status(code)),
            Some(_) => bail!("`{text}`: expected a status of 400 to 599, as in status-503"),
            None => {
                let names: Vec<_> = NAMED.iter().map(|(name, _)| *name).collect();
                bail!("`{text}` is not a fault: expected status-NNN, {}", names.join(", "))
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FaultKind::Status(code) => write!(f, "status-{code}")?,
            kind => f.write_str(NAMED.iter().find(|(_, named)| *named == kind).map_or("", |(name, _)| name))?,
        }
        match self.request {
            Some(request) => write!(f, "@{request}"),
            None => f.write_str("@*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_back_as_it_was_written_and_applies_to_the_requests_that_it_names() {
        let faults: Vec<Fault> = ["stall@3", "status-503@*"].map(|text| text.parse().unwrap()).into();
        assert_eq!(faults.iter().map(ToString::to_string).collect::<Vec<_>>(), ["stall@3", "status-503@*"]);
        assert_eq!(
            (Fault::of(&faults, 3), Fault::of(&faults, 4)),
            (Some(FaultKind::Stall), Some(FaultKind::Status(503)))
        );
        assert_eq!(Fault::of(&faults[..1], 4), None);
    }

    #[test]
    fn the_error_of_a_wrong_fault_names_it_and_what_is_expected() {
        let message = |text: &str| text.parse::<Fault>().unwrap_err().to_string();
        insta::assert_snapshot!(message("stall"), @"`stall`: expected KIND@N or KIND@*, as in stall@3");
        insta::assert_snapshot!(message("stall@0"), @"`stall@0`: `0` expected the number of a request, from 1, or *");
        insta::assert_snapshot!(message("status-200@1"), @"`status-200`: expected a status of 400 to 599, as in status-503");
        insta::assert_snapshot!(message("hang@1"), @"`hang` is not a fault: expected status-NNN, stall, reset, close, bad-utf8, split-utf8, error, no-token, no-usage, no-done, big-event");
    }
}
