//! The upload API of the dashboard: one POST for each object, repeated where that may help. The body holds the password, so
//! no redirect is followed.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use reqwest::redirect::Policy;
use serde::{Deserialize, Serialize};
use url::Url;

use super::bounded_body;
use super::retry_policy::{RetryPolicy, backoff};
use crate::environment::{Environment, Secret};
use crate::escape;
use crate::exit::Classify;
use crate::plan::config::records_config::is_url;

/// Most bytes of one request: AWS Lambda's limit of 6 MiB, less its own envelope.
const BODY_LIMIT: usize = 6_000_000;
/// Most bytes of an answer.
const ANSWER_LIMIT: usize = 64 << 10;
/// Longest message of the API in an error, in characters.
const MESSAGE_LIMIT: usize = 300;
/// How long one request may take before it counts as lost.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The variables of its credentials.
const USERNAME: &str = "VLLM_PERF_UPLOADER_USERNAME";
const PASSWORD: &str = "VLLM_PERF_UPLOADER_PASSWORD";

/// A connection to the upload API.
pub struct Uploader {
    client: reqwest::Client,
    url: Url,
    username: Secret,
    password: Secret,
    policy: RetryPolicy,
}

/// How the upload of an object ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadReply {
    /// The API has it now.
    Taken,
    /// The API had an object with this key.
    AlreadyThere,
    /// It will never be accepted: why.
    Refused(String),
    /// It was not accepted, or the answer was lost; a later upload may succeed: why.
    Later(String),
}

#[derive(Serialize)]
struct Body<'a> {
    username: &'a str,
    password: &'a str,
    s3_path: &'a str,
    content: &'a str,
}

enum Step {
    Answered(UploadReply),
    /// Try again after so many seconds.
    Wait(u64, String),
}

impl Uploader {
    /// The API at `url`, with the credentials of the environment.
    ///
    /// # Errors
    /// The user's mistake: a URL that a password must not be sent to, or no credentials.
    pub fn new(url: &str, environment: &Environment, policy: RetryPolicy) -> Result<Self> {
        let new = || {
            ensure!(
                is_url(url),
                "`{url}` is not an upload API: expected `https://HOST/PATH`, without a password in it"
            );
            let secret = |name: &str| environment.secret(name).with_context(|| format!("the upload API needs {name}"));
            let client = reqwest::Client::builder()
                .redirect(Policy::none())
                .timeout(policy.second * u32::try_from(REQUEST_TIMEOUT.as_secs())?)
                .connect_timeout(Duration::from_secs(10))
                .user_agent(concat!("vllm-perf/", env!("CARGO_PKG_VERSION")))
                .build()?;
            let (username, password) = (secret(USERNAME)?, secret(PASSWORD)?);
            Ok(Self { client, url: Url::parse(url)?, username, password, policy })
        };
        new().mistake()
    }

    /// Sends an object. A request whose answer was lost is sent again: the API accepts a key once.
    pub async fn post(&self, key: &str, content: &str) -> UploadReply {
        let (username, password) = (self.username.expose(), self.password.expose());
        let body = match serde_json::to_vec(&Body { username, password, s3_path: key, content }) {
            Ok(body) => body,
            Err(error) => return UploadReply::Refused(format!("it cannot be sent as JSON: {error}")),
        };
        if body.len() > BODY_LIMIT {
            return UploadReply::Refused(format!(
                "it makes a request of {} bytes; the API takes {BODY_LIMIT}",
                body.len()
            ));
        }
        let (mut attempt, mut waited) = (1, 0);
        loop {
            match self.once(&body, attempt).await {
                Step::Answered(answer) => return answer,
                Step::Wait(seconds, why) => {
                    waited += seconds;
                    if attempt >= self.policy.attempts || waited > self.policy.total {
                        return UploadReply::Later(format!("{why}; gave up after {attempt} attempts"));
                    }
                    tokio::time::sleep(self.policy.second * u32::try_from(seconds).unwrap_or(u32::MAX)).await;
                    attempt += 1;
                }
            }
        }
    }

    async fn once(&self, body: &[u8], attempt: u32) -> Step {
        let request = self.client.post(self.url.clone()).header("content-type", "application/json");
        let response = match request.body(body.to_vec()).send().await {
            Ok(response) => response,
            Err(error) => {
                let cause = self.hide(&format!("{:#}", anyhow!(error.without_url())));
                return Step::Wait(backoff(attempt, 1), format!("no answer of the upload API: {cause}"));
            }
        };
        let status = response.status().as_u16();
        let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let read = bounded_body::read(reqwest::Body::from(response), ANSWER_LIMIT).await;
        let message = read.map_or_else(|_| "an incomplete answer".to_owned(), |body| message(&body));
        judge(status, seconds, attempt, &self.hide(&message))
    }

    fn hide(&self, text: &str) -> String {
        text.replace(self.password.expose(), "***")
    }
}

/// The API's contract: 200 accepted, 409 exists, 400 unreadable body, 401 and 403 credentials, 500 try again.
fn judge(status: u16, retry_after: Option<u64>, attempt: u32, message: &str) -> Step {
    let answer = match status {
        200..=299 => UploadReply::Taken,
        409 => UploadReply::AlreadyThere,
        401 | 403 => UploadReply::Later(format!(
            "the upload API answered {status} ({message}): {USERNAME} and {PASSWORD} are not its credentials"
        )),
        300..=399 => UploadReply::Later(format!(
            "the upload API answered {status}: it redirects, and credentials are sent only to the configured URL"
        )),
        429 | 500.. => {
            let why = format!("the upload API answered {status} ({message})");
            return Step::Wait(retry_after.unwrap_or_else(|| backoff(attempt, 1)), why);
        }
        _ => UploadReply::Refused(format!("the upload API answered {status} ({message})")),
    };
    Step::Answered(answer)
}

/// The message of an answer, on one line and of bounded length.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Message {
        #[serde(alias = "error")]
        message: String,
    }
    let text = String::from_utf8_lossy(body).into_owned();
    let text = serde_json::from_slice::<Message>(body).map(|message| message.message).unwrap_or(text);
    let line = escape::clean(text, MESSAGE_LIMIT);
    if line.trim().is_empty() { "no reason given".to_owned() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> Option<UploadReply> {
        match judge(status, None, 1, "why") {
            Step::Answered(answer) => Some(answer),
            Step::Wait(..) => None,
        }
    }

    #[test]
    fn an_existing_object_is_done_and_a_server_error_is_tried_again() {
        assert_eq!(
            (answer(200), answer(201), answer(409)),
            (Some(UploadReply::Taken), Some(UploadReply::Taken), Some(UploadReply::AlreadyThere))
        );
        assert!(matches!(answer(400), Some(UploadReply::Refused(why)) if why.contains("400 (why)")));
        assert!(matches!(answer(413), Some(UploadReply::Refused(_))));
        for status in [301, 307, 401, 403] {
            assert!(matches!(answer(status), Some(UploadReply::Later(_))), "{status}");
        }
        for status in [429, 500, 502, 503] {
            assert_eq!(answer(status), None, "{status}");
        }
    }

    #[test]
    fn a_password_is_sent_over_tls_or_to_this_machine() {
        for url in ["https://uploader.example.org/x", "http://127.0.0.1:1/", "http://localhost:1"] {
            assert!(is_url(url), "{url}");
        }
        for url in
            ["http://uploader.example.org", "https://a:b@uploader.example.org", "s3://bucket", "", "https://h/#x"]
        {
            assert!(!is_url(url), "{url}");
        }
    }

    #[test]
    fn missing_credentials_are_named_and_an_object_that_is_too_large_is_not_sent() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let new = |environment: &Environment| Uploader::new("http://127.0.0.1:9/", environment, RetryPolicy::default());
        let error = new(&Environment::default()).err().unwrap();
        assert_eq!(crate::exit::of(&error), crate::exit::Exit::Mistake);
        assert!(format!("{error:#}").contains(USERNAME), "{error:#}");
        let uploader = new(&[(USERNAME, "me"), (PASSWORD, "hidden")].into_iter().collect()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(uploader.post("v3/a", &"x".repeat(BODY_LIMIT)));
        assert!(matches!(answer, UploadReply::Refused(why) if why.contains("the API takes 6000000")));
    }
}
