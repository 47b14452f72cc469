//! Sends one request to GitHub: retries, waits for rate limits, and the errors of refusals.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use octocrab::Octocrab;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bounded_body;
use super::github_reply::{self, Judgement, RawReply, judge};
use super::retry_policy::{RetryPolicy, backoff};
use crate::duration;
use crate::environment::Secret;
use crate::exit::Classify;
use crate::names::is_safe;

/// Most bytes of an answer: a comparison of two distant commits with its patches has fewer.
const ANSWER_LIMIT: usize = 32 << 20;
/// How long one request may take before it counts as lost.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A request; a text is sent as the body of a comment.
#[derive(Debug, Clone, Copy)]
pub enum Request<'a> {
    Get,
    Post(&'a str),
    Patch(&'a str),
    Delete,
}

impl Request<'_> {
    fn verb(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post(_) => "POST",
            Self::Patch(_) => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

#[derive(Serialize)]
struct Text<'a> {
    body: &'a str,
}

/// An answer that is neither a refused token, nor a missing permission, nor a rate limit.
pub struct Reply {
    pub status: u16,
    what: String,
    message: String,
    body: Bytes,
}

impl Reply {
    /// The body of a successful answer.
    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        if !(200..300).contains(&self.status) {
            return Err(self.refusal());
        }
        serde_json::from_slice(&self.body).with_context(|| format!("cannot read GitHub's answer to {}", self.what))
    }

    /// The answer as an error.
    pub fn refusal(&self) -> anyhow::Error {
        let hint = if self.status == 404 { "; it does not exist, or the token may not see it" } else { "" };
        anyhow!("GitHub answered {} to {}: {}{hint}", self.status, self.what, self.message)
    }

    /// Whether the text was refused as too long.
    pub fn is_too_long(&self) -> bool {
        self.status == 422 && self.message.contains("too long")
    }
}

/// How a POST ended. One whose answer was lost may have been carried out: check before sending it again.
pub enum Posting {
    Answered(Reply),
    Lost(String),
}

/// The connection to one GitHub, with one token.
pub struct Transport {
    octocrab: Octocrab,
    token: Secret,
    policy: RetryPolicy,
    waited: AtomicU64,
}

impl Transport {
    /// Must be called inside a tokio runtime. Errors: a token or a URL that cannot be used.
    pub fn new(api_url: &str, token: Secret, policy: RetryPolicy) -> anyhow::Result<Self> {
        let connect = || {
            is_safe(api_url)?;
            if token.expose().is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
                bail!("the token holds characters that no GitHub token has: is there a line break in it?");
            }
            Ok(Octocrab::builder()
                .base_uri(api_url)?
                .personal_token(token.expose().to_owned())
                .add_header("accept".parse()?, "application/vnd.github+json".to_owned())
                .set_connect_timeout(Some(Duration::from_secs(10)))
                .build()?)
        };
        let octocrab = connect().with_context(|| format!("cannot use GitHub at {api_url}")).mistake()?;
        Ok(Self { octocrab, token, policy, waited: AtomicU64::new(0) })
    }

    /// Sends a request that may be repeated. Errors: refused, or not answered after the retries.
    pub async fn call(&self, request: Request<'_>, path: &str) -> anyhow::Result<Reply> {
        match self.settle(request, path).await? {
            Settled::Answered(reply) => Ok(reply),
            Settled::Forbidden(why) => Err(anyhow!(why)),
        }
    }

    /// Sends a request that the token may not be allowed to make; `None` where it is not.
    pub async fn call_if_allowed(&self, request: Request<'_>, path: &str) -> anyhow::Result<Option<Reply>> {
        match self.settle(request, path).await? {
            Settled::Answered(reply) => Ok(Some(reply)),
            Settled::Forbidden(_) => Ok(None),
        }
    }

    /// Sends a POST, again only where GitHub did not carry it out.
    pub async fn post(&self, text: &str, path: &str) -> anyhow::Result<Posting> {
        let mut attempt = 1;
        loop {
            match self.once(Request::Post(text), path, attempt).await? {
                Step::Settled(Settled::Answered(reply)) => return Ok(Posting::Answered(reply)),
                Step::Settled(Settled::Forbidden(why)) => bail!(why),
                Step::Wait { why, lost: true, .. } => return Ok(Posting::Lost(why)),
                Step::Wait { seconds, why, .. } => self.pause(attempt, seconds, &why).await?,
            }
            attempt += 1;
        }
    }

    async fn settle(&self, request: Request<'_>, path: &str) -> anyhow::Result<Settled> {
        let mut attempt = 1;
        loop {
            match self.once(request, path, attempt).await? {
                Step::Settled(settled) => return Ok(settled),
                Step::Wait { seconds, why, .. } => self.pause(attempt, seconds, &why).await?,
            }
            attempt += 1;
        }
    }

    /// Waits before attempt `attempt + 1`. Errors: attempts or waiting time are used up.
    pub async fn pause(&self, attempt: u32, seconds: u64, why: &str) -> anyhow::Result<()> {
        if attempt >= self.policy.attempts {
            bail!("{why}; gave up after {attempt} attempts");
        }
        let left = self.policy.total.saturating_sub(self.waited.fetch_add(seconds, Ordering::Relaxed));
        if seconds > left {
            bail!("{why}; the next attempt should wait {seconds} s, but only {left} s of waiting remain");
        }
        tokio::time::sleep(self.policy.second * u32::try_from(seconds).unwrap_or(u32::MAX)).await;
        Ok(())
    }

    async fn once(&self, request: Request<'_>, path: &str, attempt: u32) -> anyhow::Result<Step> {
        let what = format!("{} {path}", request.verb());
        let exchange = tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(request, path)).await;
        let reply =
            match exchange.unwrap_or_else(|_| Err(anyhow!("no answer within {}", duration::text(REQUEST_TIMEOUT)))) {
                Ok(reply) => reply,
                Err(error) => {
                    let why = self.hide(&format!("cannot reach GitHub for {what}: {error:#}"));
                    return Ok(Step::Wait { seconds: backoff(attempt, 1), why, lost: true });
                }
            };
        let message = self.hide(&github_reply::message(&reply.body));
        match judge(&reply, &message, attempt, now()) {
            Judgement::Done => {
                let reply = Reply { status: reply.status, what, message, body: reply.body };
                Ok(Step::Settled(Settled::Answered(reply)))
            }
            Judgement::Wait { seconds, lost } => {
                let why = format!("GitHub answered {} to {what}: {message}", reply.status);
                Ok(Step::Wait { seconds, why, lost })
            }
            Judgement::BadToken => bail!("GitHub refused the token ({message}): it is wrong, expired or revoked"),
            Judgement::Forbidden => Ok(Step::Settled(Settled::Forbidden(forbidden(request, &what, &message)))),
        }
    }

    async fn exchange(&self, request: Request<'_>, path: &str) -> anyhow::Result<RawReply> {
        let response = match request {
            Request::Get => self.octocrab._get(path).await,
            Request::Post(body) => self.octocrab._post(path, Some(&Text { body })).await,
            Request::Patch(body) => self.octocrab._patch(path, Some(&Text { body })).await,
            Request::Delete => self.octocrab._delete(path, None::<&()>).await,
        }?;
        let (parts, body) = response.into_parts();
        let number = |name: &str| parts.headers.get(name)?.to_str().ok()?.trim().parse().ok();
        let (retry_after, remaining) = (number("retry-after"), number("x-ratelimit-remaining"));
        let reset = number("x-ratelimit-reset");
        let body = bounded_body::read(body, ANSWER_LIMIT).await?;
        Ok(RawReply { status: parts.status.as_u16(), retry_after, remaining, reset, body })
    }

    fn hide(&self, text: &str) -> String {
        text.replace(self.token.expose(), "***")
    }
}

enum Settled {
    Answered(Reply),
    Forbidden(String),
}

enum Step {
    Settled(Settled),
    Wait { seconds: u64, why: String, lost: bool },
}

fn forbidden(request: Request<'_>, what: &str, message: &str) -> String {
    let need = if matches!(request, Request::Get) { "read" } else { "write" };
    format!(
        "the token is not allowed to {what} ({message}): give the job `permissions: {{pull-requests: {need}}}`; for a pull \
         request from a fork or from Dependabot the token only ever reads, so comment from a `workflow_run` workflow"
    )
}

#[expect(clippy::disallowed_methods, reason = "GitHub names the end of a rate limit as a time of day")]
fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_sent_without_tls_to_another_machine() {
        for url in ["https://api.github.com", "https://ghe.example/api/v3", "http://127.0.0.1:1", "http://[::1]:1"] {
            assert!(is_safe(url).is_ok(), "{url}");
        }
        for url in ["http://api.github.com", "http://127.0.0.1.evil.example", "ftp://localhost", "api.github.com"] {
            assert!(is_safe(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_token_with_a_line_break_is_an_error_that_does_not_show_it() {
        let token = Secret::from("ghs_hidden\n".to_owned());
        let error = Transport::new("https://api.github.com", token, RetryPolicy::default()).err().unwrap();
        assert_eq!(
            format!("{error:#}"),
            "cannot use GitHub at https://api.github.com: the token holds characters that no GitHub token has: is \
             there a line break in it?"
        );
    }
}
