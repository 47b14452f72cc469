//! The endpoint of perf-eval's dashboard: one POST for each row, with a bearer token.

use anyhow::{Context, Result, ensure};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

use super::json_post::{JsonPost, PostReply, ServiceFacts};
use super::retry_policy::RetryPolicy;
use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::config::records_config::is_url;

/// The variable of its token.
const TOKEN: &str = "VLLM_PERF_ROWS_TOKEN";

/// A row has no key, and the endpoint may take it twice: one whose answer was lost is sent again only when a person asks.
const FACTS: ServiceFacts =
    ServiceFacts { name: "the endpoint of rows", credentials: "the words of VLLM_PERF_ROWS_TOKEN", takes_once: false };

/// A connection to the endpoint.
pub struct RowEndpoint(JsonPost);

impl RowEndpoint {
    /// The endpoint at `url`, with the token of the environment.
    ///
    /// # Errors
    /// The user's mistake: a URL that a token must not be sent to, or no token.
    pub fn new(url: &str, environment: &Environment, policy: RetryPolicy) -> Result<Self> {
        let new = || {
            ensure!(
                is_url(url),
                "`{url}` is no endpoint of rows: expected `https://HOST/PATH`, without a password in it"
            );
            let token = environment.secret(TOKEN).with_context(|| format!("the endpoint of rows needs {TOKEN}"))?;
            let bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose().trim()));
            let mut bearer =
                bearer.ok().with_context(|| format!("{TOKEN} has a character that a header cannot have"))?;
            bearer.set_sensitive(true);
            Ok(Self(JsonPost::new(url, &FACTS, token, HeaderMap::from_iter([(AUTHORIZATION, bearer)]), policy)?))
        };
        new().mistake()
    }

    /// Sends a row. Every attempt at one row has the same `Idempotency-Key`, by which the endpoint can know it again.
    pub async fn post(&self, row: &str) -> PostReply {
        let digest = Sha256::digest(row);
        let key: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.0.send(row.as_bytes(), Some(("idempotency-key", &key))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, of};

    #[test]
    fn a_token_is_needed_and_goes_only_over_tls_or_to_this_machine() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mistake = |url: &str, token: &str| {
            let environment = [(TOKEN, token)].into_iter().collect();
            let error = RowEndpoint::new(url, &environment, RetryPolicy::default()).err()?;
            assert_eq!(of(&error), Exit::Mistake);
            Some(format!("{error:#}"))
        };
        assert_eq!(mistake("https://ingest.example.org/", "hidden-token"), None);
        assert!(mistake("http://127.0.0.1:9/", "").unwrap().contains(TOKEN));
        for (url, token) in [("http://ingest.example.org/", "hidden-token"), ("https://h/", "hidden\u{1}token")] {
            assert!(!mistake(url, token).unwrap().contains("hidden"), "{url}");
        }
    }
}
