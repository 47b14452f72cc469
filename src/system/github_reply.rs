//! A reply of GitHub, and what follows from it: done, wait, or refused.

use bytes::Bytes;
use serde::Deserialize;

use super::retry_policy::backoff;
use crate::escape;

/// Longest message of GitHub in an error, in characters.
const MESSAGE_LIMIT: usize = 300;

/// The parts of a reply that are used.
pub struct RawReply {
    pub status: u16,
    pub retry_after: Option<u64>,
    pub remaining: Option<u64>,
    pub reset: Option<u64>,
    pub body: Bytes,
}

/// What follows from a reply.
#[derive(Debug, PartialEq)]
pub enum Judgement {
    Done,
    /// `lost`: the request may have been carried out all the same.
    Wait {
        seconds: u64,
        lost: bool,
    },
    BadToken,
    Forbidden,
}

/// GitHub's rules for REST rate limits (docs, "Rate limits for the REST API"): `retry-after`, then the reset of an
/// empty quota, then a minute and more for a secondary limit.
pub fn judge(reply: &RawReply, message: &str, attempt: u32, now: u64) -> Judgement {
    let wait = |seconds| Judgement::Wait { seconds, lost: false };
    match reply.status {
        401 => Judgement::BadToken,
        403 | 429 => match (reply.retry_after, reply.remaining, reply.reset) {
            (Some(seconds), _, _) => wait(seconds),
            (None, Some(0), Some(reset)) => wait(reset.saturating_sub(now).max(1)),
            _ if reply.status == 429 || message.contains("secondary rate limit") => wait(backoff(attempt, 60)),
            _ => Judgement::Forbidden,
        },
        500.. => Judgement::Wait { seconds: backoff(attempt, 1), lost: true },
        _ => Judgement::Done,
    }
}

/// The message of a refusal, on one line and of bounded length.
pub fn message(body: &[u8]) -> String {
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
    escape::clean(sentence, MESSAGE_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, retry_after: Option<u64>, remaining: Option<u64>) -> RawReply {
        RawReply { status, retry_after, remaining, reset: Some(1_040), body: Bytes::new() }
    }

    #[test]
    fn the_wait_is_the_one_that_github_asks_for() {
        let secondary = "You have exceeded a secondary rate limit";
        let wait = |seconds| Judgement::Wait { seconds, lost: false };
        assert_eq!(judge(&reply(403, Some(7), Some(0)), secondary, 1, 1_000), wait(7));
        assert_eq!(judge(&reply(403, None, Some(0)), "API rate limit exceeded", 1, 1_000), wait(40));
        assert_eq!(judge(&reply(403, None, Some(9)), secondary, 1, 1_000), wait(60));
        assert_eq!(judge(&reply(429, None, None), "", 2, 1_000), wait(120));
    }

    #[test]
    fn a_missing_permission_is_not_a_rate_limit_and_a_server_error_may_have_been_carried_out() {
        let refused = judge(&reply(403, None, Some(9)), "Resource not accessible by integration", 1, 1_000);
        assert_eq!(refused, Judgement::Forbidden);
        assert_eq!(judge(&reply(502, None, None), "", 2, 1_000), Judgement::Wait { seconds: 2, lost: true });
        assert_eq!(judge(&reply(422, None, None), "", 1, 1_000), Judgement::Done);
    }
}
