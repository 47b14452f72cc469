//! Why a request has no complete answer.

use std::fmt;

/// Why a request has no complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be opened.
    Connection(String),
    /// The connection broke or was closed before the end of the answer.
    Lost(String),
    /// The server sent nothing for this many seconds.
    Stalled(u64),
    /// A status other than 2xx, and the beginning of its body.
    Status(u16, String),
    /// The server reported an error within the stream.
    Server(String),
    /// The answer is not a stream of completion chunks.
    Malformed(String),
    /// A status of success, and something that is not a stream.
    NotAStream(String),
    /// A status of success, and something that is not a JSON object with data.
    NoData(String),
    /// The answer was far longer than the request asked for, and was not read to its end.
    TooLong(String),
    /// The stream ended without a token.
    NoToken,
    /// The stream ended before `[DONE]`.
    Truncated,
    /// The request was never sent, or its task ended early.
    NotSent,
}

impl Failure {
    /// The kind, for counting: without details, except for the status code.
    pub fn kind(&self) -> String {
        match self {
            Self::Connection(_) => "no connection".to_owned(),
            Self::Lost(_) => "connection lost".to_owned(),
            Self::Stalled(_) => "stalled".to_owned(),
            Self::Status(status, _) => format!("status {status}"),
            Self::Server(_) => "server error".to_owned(),
            Self::Malformed(_) => "malformed".to_owned(),
            Self::NotAStream(_) => "not a stream".to_owned(),
            Self::NoData(_) => "no data".to_owned(),
            Self::TooLong(_) => "too long".to_owned(),
            Self::NoToken => "no token".to_owned(),
            Self::Truncated => "truncated".to_owned(),
            Self::NotSent => "not sent".to_owned(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(cause) => write!(f, "no connection: {cause}"),
            Self::Lost(cause) => write!(f, "the connection was lost: {cause}"),
            Self::Stalled(seconds) => write!(f, "the answer was silent for {seconds} s"),
            Self::Status(status, text) => write!(f, "the server answered {status}: {text}"),
            Self::Server(message) => write!(f, "the server reported an error: {message}"),
            Self::Malformed(cause) => write!(f, "the answer is not a completion stream: {cause}"),
            Self::NotAStream(cause) => write!(f, "the answer is not a stream: {cause}"),
            Self::NoData(cause) => write!(f, "the answer has no data: {cause}"),
            Self::TooLong(bound) => write!(f, "the answer had more than {bound}: it was not read to its end"),
            Self::NoToken => f.write_str("the answer had no token"),
            Self::Truncated => f.write_str("the answer ended before [DONE]"),
            Self::NotSent => f.write_str("the request was not sent"),
        }
    }
}
