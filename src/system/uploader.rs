//! The upload API of the dashboard: one POST for each object. The body holds the password.

use anyhow::{Context, Result, ensure};
use reqwest::header::HeaderMap;
use serde::Serialize;

use super::json_post::{JsonPost, PostReply, ServiceFacts};
use super::retry_policy::RetryPolicy;
use crate::environment::{Environment, Secret};
use crate::exit::Classify;
use crate::plan::config::records_config::is_url;

/// Most bytes of one request: AWS Lambda's limit of 6 MiB, less its own envelope.
const BODY_LIMIT: usize = 6_000_000;

/// The variables of its credentials.
const USERNAME: &str = "VLLM_PERF_UPLOADER_USERNAME";
const PASSWORD: &str = "VLLM_PERF_UPLOADER_PASSWORD";

/// The API accepts a key once: a request whose answer was lost is sent again.
const FACTS: ServiceFacts = ServiceFacts {
    name: "the upload API",
    credentials: "VLLM_PERF_UPLOADER_USERNAME and VLLM_PERF_UPLOADER_PASSWORD",
    takes_once: true,
};

/// A connection to the upload API.
pub struct Uploader {
    post: JsonPost,
    username: Secret,
    password: Secret,
}

#[derive(Serialize)]
struct Body<'a> {
    username: &'a str,
    password: &'a str,
    s3_path: &'a str,
    content: &'a str,
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
            let (username, password) = (secret(USERNAME)?, secret(PASSWORD)?);
            let post = JsonPost::new(url, &FACTS, password.clone(), HeaderMap::new(), policy)?;
            Ok(Self { post, username, password })
        };
        new().mistake()
    }

    /// Sends an object.
    pub async fn post(&self, key: &str, content: &str) -> PostReply {
        let (username, password) = (self.username.expose(), self.password.expose());
        let body = match serde_json::to_vec(&Body { username, password, s3_path: key, content }) {
            Ok(body) => body,
            Err(error) => return PostReply::Refused(format!("it cannot be sent as JSON: {error}")),
        };
        if body.len() > BODY_LIMIT {
            return PostReply::Refused(format!(
                "it makes a request of {} bytes; the API takes {BODY_LIMIT}",
                body.len()
            ));
        }
        self.post.send(&body, None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(matches!(answer, PostReply::Refused(why) if why.contains("the API takes 6000000")));
    }
}
