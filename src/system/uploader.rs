//! The upload API of the dashboard: one POST an object, its answer checked, tried again where that may help. World. The body
//! holds the password, so no redirect is followed.

use crate::plan::config::records_config::is_url;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use http_body_util::{BodyExt, Limited};
use reqwest::redirect::Policy;
use serde::{Deserialize, Serialize};
use url::Url;

use super::github::Patience;
use super::github_transport::backoff;
use crate::environment::{Environment, Secret};
use crate::exit::Classify;

/// Bytes of one request: AWS Lambda's limit of 6 MiB, less its own envelope.
const BODY_LIMIT: usize = 6_000_000;
/// Bytes of an answer that are read.
const ANSWER_LIMIT: usize = 64 << 10;
/// Longest text of the API's that an error repeats, in characters.
const SAID_LIMIT: usize = 300;
/// How long one request may take before it counts as lost.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The variables that hold its credentials.
const USERNAME: &str = "VLLM_PERF_UPLOADER_USERNAME";
const PASSWORD: &str = "VLLM_PERF_UPLOADER_PASSWORD";

/// A connection to the upload API.
pub struct Uploader {
    client: reqwest::Client,
    url: Url,
    username: Secret,
    password: Secret,
    patience: Patience,
}

/// What the API made of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is there now.
    Taken,
    /// One of its key was there before.
    AlreadyThere,
    /// It will not be taken: why.
    Refused(String),
    /// It was not taken, or nobody knows, and may be another time: why.
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
    Answered(Answer),
    /// Try again after so many seconds.
    Wait(u64, String),
}

impl Uploader {
    /// The API at `url`, with the credentials of the environment.
    ///
    /// # Errors
    /// The user's mistake: a URL that a password must not be sent to, or no credentials.
    pub fn new(url: &str, environment: &Environment, patience: Patience) -> Result<Self> {
        let new = || {
            ensure!(is_url(url), "`{url}` is no upload API: expected `https://HOST/PATH`, without a password in it");
            let secret = |name: &str| environment.secret(name).with_context(|| format!("the upload API needs {name}"));
            let client = reqwest::Client::builder()
                .redirect(Policy::none())
                .timeout(patience.second * u32::try_from(REQUEST_TIMEOUT.as_secs())?)
                .connect_timeout(Duration::from_secs(10))
                .user_agent(concat!("vllm-perf/", env!("CARGO_PKG_VERSION")))
                .build()?;
            let (username, password) = (secret(USERNAME)?, secret(PASSWORD)?);
            Ok(Self { client, url: Url::parse(url)?, username, password, patience })
        };
        new().mistake()
    }

    /// Sends an object. A request whose answer was lost is sent again: the API takes a key once.
    pub async fn post(&self, key: &str, content: &str) -> Answer {
        let (username, password) = (self.username.expose(), self.password.expose());
        let body = match serde_json::to_vec(&Body { username, password, s3_path: key, content }) {
            Ok(body) => body,
            Err(error) => return Answer::Refused(format!("it cannot be sent as JSON: {error}")),
        };
        if body.len() > BODY_LIMIT {
            return Answer::Refused(format!("it makes a request of {} bytes; the API takes {BODY_LIMIT}", body.len()));
        }
        let (mut attempt, mut waited) = (1, 0);
        loop {
            match self.once(&body, attempt).await {
                Step::Answered(answer) => return answer,
                Step::Wait(seconds, why) => {
                    waited += seconds;
                    if attempt >= self.patience.attempts || waited > self.patience.total {
                        return Answer::Later(format!("{why}; gave up after {attempt} attempts"));
                    }
                    tokio::time::sleep(self.patience.second * u32::try_from(seconds).unwrap_or(u32::MAX)).await;
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
                let said = self.hide(&format!("{:#}", anyhow!(error.without_url())));
                return Step::Wait(backoff(attempt, 1), format!("no answer of the upload API: {said}"));
            }
        };
        let status = response.status().as_u16();
        let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let read = Limited::new(reqwest::Body::from(response), ANSWER_LIMIT).collect().await;
        let said = read.map(|body| said(&body.to_bytes())).unwrap_or_else(|_| "an answer that broke off".to_owned());
        judge(status, seconds, attempt, &self.hide(&said))
    }

    fn hide(&self, text: &str) -> String {
        text.replace(self.password.expose(), "***")
    }
}

/// The API's contract: 200 taken, 409 exists, 400 a body that it does not read, 401 and 403 credentials, 500 try again.
fn judge(status: u16, retry_after: Option<u64>, attempt: u32, said: &str) -> Step {
    let answer = match status {
        200..=299 => Answer::Taken,
        409 => Answer::AlreadyThere,
        401 | 403 => Answer::Later(format!(
            "the upload API answered {status} ({said}): {USERNAME} and {PASSWORD} are not its credentials"
        )),
        300..=399 => Answer::Later(format!(
            "the upload API answered {status}: it is elsewhere, and credentials are sent to no other place than the configured one"
        )),
        429 | 500.. => {
            let why = format!("the upload API answered {status} ({said})");
            return Step::Wait(retry_after.unwrap_or_else(|| backoff(attempt, 1)), why);
        }
        _ => Answer::Refused(format!("the upload API answered {status} ({said})")),
    };
    Step::Answered(answer)
}

/// What the API said, on one line and of bounded length.
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Message {
        #[serde(alias = "error")]
        message: String,
    }
    let text = String::from_utf8_lossy(body).into_owned();
    let text = serde_json::from_slice::<Message>(body).map(|message| message.message).unwrap_or(text);
    let line: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).take(SAID_LIMIT).collect();
    if line.trim().is_empty() { "no reason given".to_owned() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> Option<Answer> {
        match judge(status, None, 1, "why") {
            Step::Answered(answer) => Some(answer),
            Step::Wait(..) => None,
        }
    }

    #[test]
    fn what_exists_is_done_and_a_server_error_is_tried_again() {
        assert_eq!(
            (answer(200), answer(201), answer(409)),
            (Some(Answer::Taken), Some(Answer::Taken), Some(Answer::AlreadyThere))
        );
        assert!(matches!(answer(400), Some(Answer::Refused(why)) if why.contains("400 (why)")));
        assert!(matches!(answer(413), Some(Answer::Refused(_))));
        for status in [301, 307, 401, 403] {
            assert!(matches!(answer(status), Some(Answer::Later(_))), "{status}");
        }
        for status in [429, 500, 502, 503] {
            assert_eq!(answer(status), None, "{status}");
        }
    }

    #[test]
    fn a_password_is_sent_over_tls_or_not_off_the_machine() {
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
    fn credentials_are_asked_for_by_name_and_what_is_too_long_is_not_sent() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let new = |environment: &Environment| Uploader::new("http://127.0.0.1:9/", environment, Patience::default());
        let error = new(&Environment::default()).err().unwrap();
        assert_eq!(crate::exit::of(&error), crate::exit::Exit::Mistake);
        assert!(format!("{error:#}").contains(USERNAME), "{error:#}");
        let uploader = new(&[(USERNAME, "me"), (PASSWORD, "hidden")].into_iter().collect()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(uploader.post("v3/a", &"x".repeat(BODY_LIMIT)));
        assert!(matches!(answer, Answer::Refused(why) if why.contains("the API takes 6000000")));
    }
}
