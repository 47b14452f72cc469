//! What can go wrong with an answer of the simulated vLLM, on purpose: a client is only known to report a fault once it has
//! met it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `status-503`: an error status instead of an answer.
    Status(u16),
    /// `stall`: nothing more comes after half of the tokens; the connection stays open.
    Stall,
    /// `reset`: the connection is reset after half of the tokens.
    Reset,
    /// `close`: the connection is closed after half of the tokens.
    Close,
    /// `bad-utf8`: the second token's text is not UTF-8, and a chunk ends inside it.
    BadUtf8,
    /// `split-utf8`: chunks end inside characters, which is nobody's fault.
    SplitUtf8,
    /// `error`: an error event after half of the tokens.
    Error,
    /// `no-token`: the answer ends before its first token.
    NoToken,
    /// `no-usage`: the token counts are missing.
    NoUsage,
    /// `no-done`: `[DONE]` is missing.
    NoDone,
    /// `big-event`: the first token's text is a megabyte long.
    BigEvent,
}

const NAMED: [(&str, Kind); 10] = [
    ("stall", Kind::Stall),
    ("reset", Kind::Reset),
    ("close", Kind::Close),
    ("bad-utf8", Kind::BadUtf8),
    ("split-utf8", Kind::SplitUtf8),
    ("error", Kind::Error),
    ("no-token", Kind::NoToken),
    ("no-usage", Kind::NoUsage),
    ("no-done", Kind::NoDone),
    ("big-event", Kind::BigEvent),
];

/// A fault and the requests that meet it. As text: `stall@3` is the third request, `status-503@*` is every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Kind,
    /// With which request, counted from 1; `None`: with every one.
    pub request: Option<u64>,
}

impl Fault {
    /// The first of `faults` that the request meets.
    pub fn of(faults: &[Self], request: u64) -> Option<Kind> {
        faults.iter().find(|fault| fault.request.is_none_or(|nth| nth == request)).map(|fault| fault.kind)
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, request) =
            text.split_once('@').with_context(|| format!("`{text}`: expected KIND@N or KIND@*, as in stall@3"))?;
        let request = match request {
            "*" => None,
            number => Some(number.parse().ok().filter(|number| *number > 0).with_context(|| {
                format!("`{text}`: `{number}` is not the number of a request, which count from 1, nor *")
            })?),
        };
        Ok(Self { kind: kind.parse()?, request })
    }
}

impl FromStr for Kind {
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
                bail!("`{text}` is no fault: there are status-NNN, {}", names.join(", "))
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Status(code) => write!(f, "status-{code}")?,
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
    fn a_fault_reads_back_as_it_was_written_and_meets_the_requests_that_it_names() {
        let faults: Vec<Fault> = ["stall@3", "status-503@*"].map(|text| text.parse().unwrap()).into();
        assert_eq!(faults.iter().map(ToString::to_string).collect::<Vec<_>>(), ["stall@3", "status-503@*"]);
        assert_eq!((Fault::of(&faults, 3), Fault::of(&faults, 4)), (Some(Kind::Stall), Some(Kind::Status(503))));
        assert_eq!(Fault::of(&faults[..1], 4), None);
    }

    #[test]
    fn a_wrong_fault_is_named_with_what_would_be_right() {
        let message = |text: &str| text.parse::<Fault>().unwrap_err().to_string();
        insta::assert_snapshot!(message("stall"), @"`stall`: expected KIND@N or KIND@*, as in stall@3");
        insta::assert_snapshot!(message("stall@0"), @"`stall@0`: `0` is not the number of a request, which count from 1, nor *");
        insta::assert_snapshot!(message("status-200@1"), @"`status-200`: expected a status of 400 to 599, as in status-503");
        insta::assert_snapshot!(message("hang@1"), @"`hang` is no fault: there are status-NNN, stall, reset, close, bad-utf8, split-utf8, error, no-token, no-usage, no-done, big-event");
    }
}
