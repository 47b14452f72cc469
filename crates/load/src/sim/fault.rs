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
    /// `error`: an error object after half of the tokens.
    Error,
    /// `error-text`: the same with a text in place of an object.
    ErrorText,
    /// `error-null`: the same with a message that is null.
    ErrorNull,
    /// `error-flat`: the same with the fields of the error in the event itself.
    ErrorFlat,
    /// `error-event`: an event of the type `error` after half of the tokens.
    ErrorEvent,
    /// `error-comment`: the same with a comment in place of data.
    ErrorComment,
    /// `abort`: the reason to finish is `abort` after half of the tokens.
    Abort,
    /// `no-token`: the answer ends before its first token.
    NoToken,
    /// `empty-answer`: the first token ends the answer: an event without text, and a count of 0.
    EmptyAnswer,
    /// `short`: the answer ends after half of the tokens.
    Short,
    /// `no-usage`: the token counts are missing.
    NoUsage,
    /// `no-done`: `[DONE]` is missing. This is valid, as the token counts are there.
    NoDone,
    /// `no-end`: nothing says that the answer is whole: no reason to finish, no token counts, no `[DONE]`.
    NoEnd,
    /// `bare-done`: there is no empty line after `[DONE]`.
    BareDone,
    /// `no-blanks`: there is no empty line after any event.
    NoBlanks,
    /// `byte-order-mark`: one stands before the first event.
    ByteOrderMark,
    /// `role-first`: an event without text is sent at once, as a proxy sends the role of a chat.
    RoleFirst,
    /// `empty-events`: events without choices and comments stand between the tokens.
    EmptyEvents,
    /// `packed`: each event has two tokens.
    Packed,
    /// `big-event`: the text of the first token has a length of one mebibyte. This is valid too.
    BigEvent,
    /// `many-headers`: 90 headers more.
    ManyHeaders,
    /// `open-end`: the response does not end after `[DONE]`.
    OpenEnd,
    /// `close-after`: the connection is closed after the response, which does not announce it.
    CloseAfter,
    /// `encoded`: the head says that the body is compressed.
    Encoded,
    /// `redirect`: the client is sent to another path.
    Redirect,
    /// `whole`: the whole answer at once, as JSON.
    Whole,
    /// `json-error`: a status of success, and an error as JSON.
    JsonError,
    /// `html`: a status of success, and a page.
    Html,
}

const NAMED: [(&str, FaultKind); 33] = [
    ("stall", FaultKind::Stall),
    ("reset", FaultKind::Reset),
    ("close", FaultKind::Close),
    ("bad-utf8", FaultKind::BadUtf8),
    ("split-utf8", FaultKind::SplitUtf8),
    ("error", FaultKind::Error),
    ("error-text", FaultKind::ErrorText),
    ("error-null", FaultKind::ErrorNull),
    ("error-flat", FaultKind::ErrorFlat),
    ("error-event", FaultKind::ErrorEvent),
    ("error-comment", FaultKind::ErrorComment),
    ("abort", FaultKind::Abort),
    ("no-token", FaultKind::NoToken),
    ("empty-answer", FaultKind::EmptyAnswer),
    ("short", FaultKind::Short),
    ("no-usage", FaultKind::NoUsage),
    ("no-done", FaultKind::NoDone),
    ("no-end", FaultKind::NoEnd),
    ("bare-done", FaultKind::BareDone),
    ("no-blanks", FaultKind::NoBlanks),
    ("byte-order-mark", FaultKind::ByteOrderMark),
    ("role-first", FaultKind::RoleFirst),
    ("empty-events", FaultKind::EmptyEvents),
    ("packed", FaultKind::Packed),
    ("big-event", FaultKind::BigEvent),
    ("many-headers", FaultKind::ManyHeaders),
    ("open-end", FaultKind::OpenEnd),
    ("close-after", FaultKind::CloseAfter),
    ("encoded", FaultKind::Encoded),
    ("redirect", FaultKind::Redirect),
    ("whole", FaultKind::Whole),
    ("json-error", FaultKind::JsonError),
    ("html", FaultKind::Html),
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

impl FaultKind {
    /// The event of an error within a stream, where the fault is one.
    pub(super) fn error_event(self) -> Option<&'static str> {
        Some(match self {
            Self::Error => r#"data: {"error":{"message":"simulated","type":"InternalServerError","code":500}}"#,
            Self::ErrorText => r#"data: {"error":"simulated"}"#,
            Self::ErrorNull => r#"data: {"error":{"message":null,"type":"simulated","code":500}}"#,
            Self::ErrorFlat => r#"data: {"object":"error","message":"simulated","type":"ServerError","code":500}"#,
            Self::ErrorEvent => "event: error\ndata: {\"message\":\"simulated\",\"code\":500}",
            Self::ErrorComment => "event: error\n: simulated",
            _ => return None,
        })
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
        insta::assert_snapshot!(message("hang@1"), @"`hang` is not a fault: expected status-NNN, stall, reset, close, bad-utf8, split-utf8, error, error-text, error-null, error-flat, error-event, error-comment, abort, no-token, empty-answer, short, no-usage, no-done, no-end, bare-done, no-blanks, byte-order-mark, role-first, empty-events, packed, big-event, many-headers, open-end, close-after, encoded, redirect, whole, json-error, html");
    }
}
