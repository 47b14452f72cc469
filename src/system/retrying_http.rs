//! Requests to registries and wheel indexes: retries, a time limit, and no plain connection to another machine.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use tokio::time::sleep;

use crate::escape;
use crate::exit::Classify;
use crate::system::bounded_body;
use crate::system::registry::is_private;

/// Pause before the first retry of a request; each further one is twice as long.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Attempts after the first, for 429, 5xx and lost connections.
const RETRIES: u32 = 3;

/// The longest pause that a registry may ask for between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Most bytes of a manifest, of an image's configuration or of a token.
const DOCUMENT_LIMIT: usize = 4 << 20;

/// An HTTP client with retries.
#[derive(Debug, Clone)]
pub struct RetryingHttp {
    pub client: Client,
    /// For token servers, which get the login: without redirects, since the body of a request follows them.
    pub tokens: Client,
    pause: Duration,
}

impl RetryingHttp {
    /// A client that waits `pause` before its first retry, and doubles it.
    ///
    /// # Errors
    /// An external failure (exit 4): no TLS.
    pub fn new(pause: Duration) -> anyhow::Result<Self> {
        Self::with_limit(pause, REQUEST_LIMIT)
    }

    /// The same with a time limit for each request.
    pub fn with_limit(pause: Duration, limit: Duration) -> anyhow::Result<Self> {
        let agent = concat!("vllm-perf/", env!("CARGO_PKG_VERSION"));
        let client = |policy| {
            let client = Client::builder().redirect(policy).user_agent(agent).timeout(limit).build();
            client.context("cannot make an HTTP client").world()
        };
        Ok(Self { client: client(redirects())?, tokens: client(Policy::none())?, pause })
    }

    /// Sends a request, again where that may help.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let mut pause = self.pause;
        let mut retries = 0;
        loop {
            let attempt = request.try_clone().context("cannot repeat a request")?.send().await;
            let asked = match &attempt {
                Ok(response) if is_temporary_status(response.status()) => retry_after(response.headers()),
                Ok(_) => return Ok(attempt?),
                Err(error) if error.is_redirect() => return Ok(attempt?),
                Err(_) => None,
            };
            if retries == RETRIES {
                return Ok(attempt?);
            }
            retries += 1;
            sleep(asked.unwrap_or(pause).min(LONGEST_PAUSE)).await;
            pause *= 2;
        }
    }
}

/// Most redirects of one request.
const REDIRECTS: usize = 5;

/// Which redirects are followed: none to a plain connection with another machine. reqwest drops `Authorization` where one leaves
/// the host.
pub fn redirects() -> Policy {
    Policy::custom(|attempt| {
        if attempt.previous().len() > REDIRECTS {
            attempt.error("too many redirects")
        } else if is_private(attempt.url()) {
            attempt.follow()
        } else {
            attempt.error("a redirect to plain http")
        }
    })
}

/// A failure of a server that may pass.
#[derive(Debug)]
pub struct Temporary(pub String);

impl fmt::Display for Temporary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Temporary {}

/// Reads an answer of bounded size.
pub async fn body(response: Response) -> anyhow::Result<Bytes> {
    bounded_body::read(reqwest::Body::from(response), DOCUMENT_LIMIT).await.context("cannot read the answer")
}

/// What a registry or a token server says about a request that it refused, after a colon; empty where it says nothing. Of an
/// answer in the form of the registry's protocol, the first message; of another one, its first line.
pub async fn words(response: Response) -> String {
    let said = bounded_body::read(reqwest::Body::from(response), WORDS_LIMIT).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&said);
    let message = match serde_json::from_slice::<Refusal>(&said) {
        Ok(Refusal { errors, message, details }) => {
            errors.into_iter().find_map(|error| error.message.or(error.code)).or(message).or(details)
        }
        Err(_) => text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned),
    };
    let line = escape::clean(message.unwrap_or_default(), WORDS_LENGTH);
    if line.is_empty() { line } else { format!(": {line}") }
}

/// Most bytes of an answer that is searched for its message, and most characters of the message.
const WORDS_LIMIT: usize = 64 << 10;
const WORDS_LENGTH: usize = 200;

/// A refusal in the form of the registry's protocol, or as token servers write it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    errors: Vec<RefusalError>,
    message: Option<String>,
    details: Option<String>,
}

#[derive(Deserialize)]
struct RefusalError {
    code: Option<String>,
    message: Option<String>,
}

/// Whether the server is busy or broken for the moment.
pub fn is_temporary_status(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// Whether an error may pass: the server was busy, broken or too slow.
pub fn is_temporary(error: &anyhow::Error) -> bool {
    let timed_out = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout)
    };
    error.chain().any(|cause| cause.is::<Temporary>() || timed_out(cause))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_message_of_a_refusal_is_found_and_bounded() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#,
                ": You have reached your pull rate limit.",
            ),
            (r#"{"errors":[{"code":"DENIED"}]}"#, ": DENIED"),
            (r#"{"details":"incorrect username or password"}"#, ": incorrect username or password"),
            ("\n<html>\x1b[31m no\n", ": <html> [31m no"),
            ("", ""),
            ("{}", ""),
        ] {
            let response = axum::http::Response::builder().status(403).body(body.to_owned()).unwrap();
            assert_eq!(words(response.into()).await, expected, "{body}");
        }
        let long = axum::http::Response::builder().status(500).body("x".repeat(5000)).unwrap();
        assert_eq!(words(long.into()).await.chars().count(), 2 + WORDS_LENGTH);
    }
}
