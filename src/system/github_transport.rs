//! One request to GitHub: what is sent, what is waited for, and what is said when it is refused. Which requests are
//! made, and why, is `github`'s.

use crate::names::is_safe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use octocrab::Octocrab;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::environment::Secret;
use crate::exit::Classify;

/// Largest answer that is read, in bytes: a comparison of two far commits with its patches stays below.
const ANSWER_LIMIT: usize = 32 << 20;
/// How long one request may take before it counts as lost.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest text of GitHub's that an error repeats, in characters.
const SAID_LIMIT: usize = 300;

/// How patient to be with GitHub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long one second of waiting lasts: a second, and less in tests.
    pub second: Duration,
    /// How often one request is tried.
    pub attempts: u32,
    /// How many seconds may be waited in all.
    pub total: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { second: Duration::from_secs(1), attempts: 3, total: 120 }
    }
}

/// What is asked of GitHub; a text is sent as the body of a comment.
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
    said: String,
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
        anyhow!("GitHub answered {} to {}: {}{hint}", self.status, self.what, self.said)
    }

    /// Whether GitHub found the text too long.
    pub fn is_too_long(&self) -> bool {
        self.status == 422 && self.said.contains("too long")
    }
}

/// How a POST ended. One whose answer was lost may have been carried out: look before it is sent again.
pub enum Posting {
    Answered(Reply),
    Lost(String),
}

/// The connection to one GitHub, with one token.
pub struct Transport {
    octocrab: Octocrab,
    token: Secret,
    patience: Patience,
    waited: AtomicU64,
}

impl Transport {
    /// Must be called inside a tokio runtime. Errors: a token or a URL that cannot be used.
    pub fn new(api_url: &str, token: Secret, patience: Patience) -> anyhow::Result<Self> {
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
        Ok(Self { octocrab, token, patience, waited: AtomicU64::new(0) })
    }

    /// Sends what may be repeated safely. Errors: refused, or not answered after the retries.
    pub async fn call(&self, request: Request<'_>, path: &str) -> anyhow::Result<Reply> {
        match self.settle(request, path).await? {
            Settled::Answered(reply) => Ok(reply),
            Settled::Forbidden(why) => Err(anyhow!(why)),
        }
    }

    /// Sends what the token may not be allowed to do: `None` then.
    pub async fn call_if_allowed(&self, request: Request<'_>, path: &str) -> anyhow::Result<Option<Reply>> {
        match self.settle(request, path).await? {
            Settled::Answered(reply) => Ok(Some(reply)),
            Settled::Forbidden(_) => Ok(None),
        }
    }

    /// Sends a POST, again only where GitHub said that it did nothing.
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
        if attempt >= self.patience.attempts {
            bail!("{why}; gave up after {attempt} attempts");
        }
        let left = self.patience.total.saturating_sub(self.waited.fetch_add(seconds, Ordering::Relaxed));
        if seconds > left {
            bail!("{why}; the next attempt should wait {seconds} s, but only {left} s of waiting are left");
        }
        tokio::time::sleep(self.patience.second * u32::try_from(seconds).unwrap_or(u32::MAX)).await;
        Ok(())
    }

    async fn once(&self, request: Request<'_>, path: &str, attempt: u32) -> anyhow::Result<Step> {
        let what = format!("{} {path}", request.verb());
        let exchange = tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(request, path)).await;
        let answer = match exchange.unwrap_or_else(|_| Err(anyhow!("no answer in {} s", REQUEST_TIMEOUT.as_secs()))) {
            Ok(answer) => answer,
            Err(error) => {
                let why = self.hide(&format!("cannot reach GitHub for {what}: {error:#}"));
                return Ok(Step::Wait { seconds: backoff(attempt, 1), why, lost: true });
            }
        };
        let said = self.hide(&said(&answer.body));
        match judge(&answer, &said, attempt, now()) {
            Judgement::Done => {
                let reply = Reply { status: answer.status, what, said, body: answer.body };
                Ok(Step::Settled(Settled::Answered(reply)))
            }
            Judgement::Wait { seconds, lost } => {
                let why = format!("GitHub answered {} to {what}: {said}", answer.status);
                Ok(Step::Wait { seconds, why, lost })
            }
            Judgement::BadToken => bail!("GitHub refused the token ({said}): it is wrong, expired or revoked"),
            Judgement::Forbidden => Ok(Step::Settled(Settled::Forbidden(forbidden(request, &what, &said)))),
        }
    }

    async fn exchange(&self, request: Request<'_>, path: &str) -> anyhow::Result<Answer> {
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
        let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|error| anyhow!(error))?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), retry_after, remaining, reset, body })
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

struct Answer {
    status: u16,
    retry_after: Option<u64>,
    remaining: Option<u64>,
    reset: Option<u64>,
    body: Bytes,
}

#[derive(Debug, PartialEq)]
enum Judgement {
    Done,
    Wait { seconds: u64, lost: bool },
    BadToken,
    Forbidden,
}

/// GitHub's rules for REST rate limits (docs, "Rate limits for the REST API"): `retry-after`, then the reset of an
/// empty budget, then a minute and more for a secondary limit.
fn judge(answer: &Answer, said: &str, attempt: u32, now: u64) -> Judgement {
    let wait = |seconds| Judgement::Wait { seconds, lost: false };
    match answer.status {
        401 => Judgement::BadToken,
        403 | 429 => match (answer.retry_after, answer.remaining, answer.reset) {
            (Some(seconds), _, _) => wait(seconds),
            (None, Some(0), Some(reset)) => wait(reset.saturating_sub(now).max(1)),
            _ if answer.status == 429 || said.contains("secondary rate limit") => wait(backoff(attempt, 60)),
            _ => Judgement::Forbidden,
        },
        500.. => Judgement::Wait { seconds: backoff(attempt, 1), lost: true },
        _ => Judgement::Done,
    }
}

pub fn backoff(attempt: u32, first: u64) -> u64 {
    first << attempt.saturating_sub(1).min(10)
}

fn forbidden(request: Request<'_>, what: &str, said: &str) -> String {
    let need = if matches!(request, Request::Get) { "read" } else { "write" };
    format!(
        "the token is not allowed to {what} ({said}): give the job `permissions: {{pull-requests: {need}}}`; for a pull \
         request from a fork or from Dependabot the token only ever reads, so comment from a `workflow_run` workflow"
    )
}

/// What GitHub said, on one line and of bounded length.
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
        #[serde(default)]
        errors: Vec<Detail>,
    }
    #[derive(Deserialize)]
    struct Detail {
        message: Option<String>,
    }
    let Ok(refusal) = serde_json::from_slice::<Refusal>(body) else { return "no reason given".to_owned() };
    let details = refusal.errors.into_iter().filter_map(|detail| detail.message);
    let sentence = std::iter::once(refusal.message).chain(details).collect::<Vec<_>>().join(": ");
    sentence.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID_LIMIT).collect()
}

#[expect(clippy::disallowed_methods, reason = "GitHub names the end of a rate limit as a time of day")]
fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<u64>, remaining: Option<u64>) -> Answer {
        Answer { status, retry_after, remaining, reset: Some(1_040), body: Bytes::new() }
    }

    #[test]
    fn the_wait_is_the_one_that_github_asks_for() {
        let secondary = "You have exceeded a secondary rate limit";
        let wait = |seconds| Judgement::Wait { seconds, lost: false };
        assert_eq!(judge(&answer(403, Some(7), Some(0)), secondary, 1, 1_000), wait(7));
        assert_eq!(judge(&answer(403, None, Some(0)), "API rate limit exceeded", 1, 1_000), wait(40));
        assert_eq!(judge(&answer(403, None, Some(9)), secondary, 1, 1_000), wait(60));
        assert_eq!(judge(&answer(429, None, None), "", 2, 1_000), wait(120));
    }

    #[test]
    fn a_missing_permission_is_no_rate_limit_and_a_server_error_may_have_been_carried_out() {
        let refused = judge(&answer(403, None, Some(9)), "Resource not accessible by integration", 1, 1_000);
        assert_eq!(refused, Judgement::Forbidden);
        assert_eq!(judge(&answer(502, None, None), "", 2, 1_000), Judgement::Wait { seconds: 2, lost: true });
        assert_eq!(judge(&answer(422, None, None), "", 1, 1_000), Judgement::Done);
    }

    #[test]
    fn a_token_never_travels_in_clear_text_to_another_machine() {
        for url in ["https://api.github.com", "https://ghe.example/api/v3", "http://127.0.0.1:1", "http://[::1]:1"] {
            assert!(is_safe(url).is_ok(), "{url}");
        }
        for url in ["http://api.github.com", "http://127.0.0.1.evil.example", "ftp://localhost", "api.github.com"] {
            assert!(is_safe(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_token_with_a_line_break_is_named_as_such_and_not_shown() {
        let token = Secret::from("ghs_hidden\n".to_owned());
        let error = Transport::new("https://api.github.com", token, Patience::default()).err().unwrap();
        assert_eq!(
            format!("{error:#}"),
            "cannot use GitHub at https://api.github.com: the token holds characters that no GitHub token has: is \
             there a line break in it?"
        );
    }
}
