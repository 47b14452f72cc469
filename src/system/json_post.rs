//! POST requests with a JSON body and a secret: repeated where that may help, and sent to the configured URL alone. No redirect is
//! followed.

use std::time::Duration;

use anyhow::{Result, anyhow};
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use serde::Deserialize;
use url::Url;

use super::bounded_body;
use super::retry_policy::{RetryPolicy, backoff};
use crate::environment::Secret;
use crate::escape;

/// Most bytes of an answer.
const ANSWER_LIMIT: usize = 64 << 10;
/// Longest message of the service in an error, in characters.
const MESSAGE_LIMIT: usize = 300;
/// How long one request may take before it counts as lost.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How a POST ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostReply {
    /// The service has it now.
    Taken,
    /// The service had it before.
    AlreadyThere,
    /// It will never be accepted: why.
    Refused(String),
    /// It was not accepted, or the answer was lost; a later attempt may succeed: why.
    Later(String),
    /// It was sent, and the answer was lost: why. The service may have it.
    Unanswered(String),
}

/// A service that takes JSON.
pub struct JsonPost {
    client: reqwest::Client,
    url: Url,
    policy: RetryPolicy,
    /// What messages call it: `the upload API`.
    name: &'static str,
    /// The variables of its credentials, for messages.
    credentials: &'static str,
    /// Hidden in messages.
    secret: Secret,
    /// Whether a request whose answer was lost may be sent again at once, because the service takes a thing once.
    takes_once: bool,
}

/// What a service is called and how it behaves.
pub(super) struct ServiceFacts {
    pub name: &'static str,
    pub credentials: &'static str,
    pub takes_once: bool,
}

enum Step {
    Answered(PostReply),
    /// Try again after so many seconds.
    Wait(u64, String),
}

impl JsonPost {
    /// The service at `url`; every request has `headers`.
    ///
    /// # Errors
    /// It is not a URL.
    pub(super) fn new(
        url: &str,
        facts: &ServiceFacts,
        secret: Secret,
        headers: HeaderMap,
        policy: RetryPolicy,
    ) -> Result<Self> {
        let client = reqwest::Client::builder()
            .redirect(Policy::none())
            .default_headers(headers)
            .timeout(policy.second * u32::try_from(REQUEST_TIMEOUT.as_secs())?)
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("vllm-perf/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let ServiceFacts { name, credentials, takes_once } = *facts;
        Ok(Self { client, url: Url::parse(url)?, policy, name, credentials, secret, takes_once })
    }

    /// Sends a body. `header` is one more header, with its name.
    pub(super) async fn send(&self, body: &[u8], header: Option<(&'static str, &str)>) -> PostReply {
        let (mut attempt, mut waited) = (1, 0);
        loop {
            match self.once(body, header, attempt).await {
                Step::Answered(answer) => return answer,
                Step::Wait(seconds, why) => {
                    waited += seconds;
                    if attempt >= self.policy.attempts || waited > self.policy.total {
                        return PostReply::Later(format!("{why}; gave up after {attempt} attempts"));
                    }
                    tokio::time::sleep(self.policy.second * u32::try_from(seconds).unwrap_or(u32::MAX)).await;
                    attempt += 1;
                }
            }
        }
    }

    async fn once(&self, body: &[u8], header: Option<(&'static str, &str)>, attempt: u32) -> Step {
        let mut request = self.client.post(self.url.clone()).header("content-type", "application/json");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = match request.body(body.to_vec()).send().await {
            Ok(response) => response,
            Err(error) => {
                let was_sent = !error.is_connect();
                let cause = self.hide(&format!("{:#}", anyhow!(error.without_url())));
                let why = format!("no answer of {}: {cause}", self.name);
                return match was_sent && !self.takes_once {
                    true => Step::Answered(PostReply::Unanswered(why)),
                    false => Step::Wait(backoff(attempt, 1), why),
                };
            }
        };
        let status = response.status().as_u16();
        let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let read = bounded_body::read(reqwest::Body::from(response), ANSWER_LIMIT).await;
        let message = read.map_or_else(|_| "an incomplete answer".to_owned(), |body| message(&body));
        self.judge(status, seconds, attempt, &self.hide(&message))
    }

    /// 2xx accepted, 409 exists, 401 and 403 credentials, 429 and 5xx try again, anything else is not acceptable.
    fn judge(&self, status: u16, retry_after: Option<u64>, attempt: u32, message: &str) -> Step {
        let name = self.name;
        let answer = match status {
            200..=299 => PostReply::Taken,
            409 => PostReply::AlreadyThere,
            401 | 403 => PostReply::Later(format!(
                "{name} answered {status} ({message}): {} are not its credentials",
                self.credentials
            )),
            300..=399 => PostReply::Later(format!(
                "{name} answered {status}: it redirects, and credentials are sent only to the configured URL"
            )),
            429 | 500.. => {
                let why = format!("{name} answered {status} ({message})");
                return Step::Wait(retry_after.unwrap_or_else(|| backoff(attempt, 1)), why);
            }
            _ => PostReply::Refused(format!("{name} answered {status} ({message})")),
        };
        Step::Answered(answer)
    }

    fn hide(&self, text: &str) -> String {
        text.replace(self.secret.expose(), "***")
    }
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

    fn answer(status: u16) -> Option<PostReply> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let facts = ServiceFacts { name: "the service", credentials: "A", takes_once: true };
        let secret = Secret::from("hidden".to_owned());
        let post = JsonPost::new("http://127.0.0.1:9/", &facts, secret, HeaderMap::new(), RetryPolicy::default());
        match post.unwrap().judge(status, None, 1, "why") {
            Step::Answered(answer) => Some(answer),
            Step::Wait(..) => None,
        }
    }

    #[test]
    fn an_existing_object_is_done_and_a_server_error_is_tried_again() {
        assert_eq!(
            (answer(200), answer(201), answer(409)),
            (Some(PostReply::Taken), Some(PostReply::Taken), Some(PostReply::AlreadyThere))
        );
        assert!(matches!(answer(400), Some(PostReply::Refused(why)) if why.contains("400 (why)")));
        assert!(matches!(answer(413), Some(PostReply::Refused(_))));
        for status in [301, 307, 401, 403] {
            assert!(matches!(answer(status), Some(PostReply::Later(_))), "{status}");
        }
        for status in [429, 500, 502, 503] {
            assert_eq!(answer(status), None, "{status}");
        }
    }
}
