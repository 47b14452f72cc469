//! Asks a container registry whether an image is there, by its HTTP API (v2), and waits for it. World.

mod challenge;
mod credentials;

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::environment::Environment;
use crate::exit::Classify;
use crate::image::Reference;
use challenge::{Challenge, challenge};
use credentials::{Credentials, Login};

/// Manifests of one platform and of several, by OCI and by Docker.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Tries after the first, for 429, 5xx and lost connections.
const RETRIES: u32 = 3;

/// The longest wait that a registry may ask for between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Access to registries: anonymous, as vLLM's images need no login, until one asks for the user's.
#[derive(Debug, Clone)]
pub struct Registry {
    http: Client,
    pause: Duration,
    credentials: Credentials,
}

impl Registry {
    /// Access that waits `pause` before its first retry, and doubles it.
    ///
    /// # Errors
    /// The world's (exit 4): no TLS.
    pub fn new(pause: Duration, environment: &Environment) -> anyhow::Result<Self> {
        // reqwest drops `Authorization` where a redirect leaves the host; we also stop before a plain connection.
        let policy = Policy::custom(|attempt| {
            if attempt.previous().len() > 5 {
                attempt.error("too many redirects")
            } else if is_private(attempt.url()) {
                attempt.follow()
            } else {
                attempt.error("a redirect to plain http")
            }
        });
        let agent = concat!("vllm-perf/", env!("CARGO_PKG_VERSION"));
        let client = Client::builder().redirect(policy).user_agent(agent).timeout(Duration::from_secs(30)).build();
        let http = client.context("cannot make an HTTP client").world()?;
        Ok(Self { http, pause, credentials: Credentials::new(environment) })
    }

    /// Whether the registry has `reference`.
    ///
    /// # Errors
    /// The user's mistake (exit 2): not a reference. The world's (exit 4): the registry cannot be reached, refuses, or
    /// still fails after the retries.
    pub async fn exists(&self, reference: &str) -> anyhow::Result<bool> {
        let parsed: Reference = reference.parse().mistake()?;
        self.find(&parsed).await.with_context(|| format!("cannot ask the registry for {reference}")).world()
    }

    async fn find(&self, reference: &Reference) -> anyhow::Result<bool> {
        let url = manifest_url(reference)?;
        let manifest = || self.http.request(Method::HEAD, url.clone()).header(ACCEPT, MANIFESTS);
        let mut response = self.send(manifest()).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let login = self.credentials.login(&reference.registry).await?;
            let authorized = match (challenge(response.headers())?, login) {
                (Some(challenge), login) => {
                    let token = self.token(&challenge, login).await?;
                    Some(manifest().header(AUTHORIZATION, format!("Bearer {token}")))
                }
                (None, Some(Login::Password(user, password))) => {
                    Some(manifest().basic_auth(user, Some(password.expose())))
                }
                (None, _) => None,
            };
            if let Some(request) = authorized {
                response = self.send(request).await?;
            }
        }
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                bail!(
                    "{} answers {status}: the repository is private or is not there; `docker login {}` may open it",
                    reference.registry,
                    reference.registry
                )
            }
            status if is_passing(status) => Err(Passing(format!("{} answers {status}", reference.registry)).into()),
            status => bail!("{} answers {status}", reference.registry),
        }
    }

    /// A token of the server that the registry names: anonymous, or for the user's login.
    async fn token(&self, challenge: &Challenge, login: Option<Login>) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let server = challenge.server()?;
        let request = match login {
            None => self.http.get(asking(server, &challenge.query())),
            Some(Login::Password(user, password)) => {
                self.http.get(asking(server, &challenge.query())).basic_auth(user, Some(password.expose()))
            }
            Some(Login::Identity(token)) => {
                let mut form = challenge.query();
                form.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "vllm-perf"),
                    ("refresh_token", token.expose()),
                ]);
                let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
                self.http.post(server).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
            }
        };
        let response = self.send(request).await.context("cannot get a token")?;
        let response = response.error_for_status().context("cannot get a token")?;
        let token: Token = response.json().await.context("cannot read the token")?;
        token.token.or(token.access_token).context("the token server sent no token")
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let mut pause = self.pause;
        let mut tries = 0;
        loop {
            let attempt = request.try_clone().context("cannot repeat a request")?.send().await;
            let asked = match &attempt {
                Ok(response) if is_passing(response.status()) => retry_after(response.headers()),
                Ok(_) => return Ok(attempt?),
                Err(error) if error.is_redirect() => return Ok(attempt?),
                Err(_) => None,
            };
            if tries == RETRIES {
                return Ok(attempt?);
            }
            tries += 1;
            sleep(asked.unwrap_or(pause).min(LONGEST_PAUSE)).await;
            pause *= 2;
        }
    }
}

fn asking(mut url: Url, query: &[(&str, &str)]) -> Url {
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

/// Pause before the first retry of a request; each further one is twice as long.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Trouble of a registry that may pass.
#[derive(Debug)]
struct Passing(String);

impl std::fmt::Display for Passing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Passing {}

/// Waits until the registries have all of `references`, asking every `poll`, at most until `deadline` from now.
/// `on_progress` is told, at every poll, which are missing still and for how long we have waited.
///
/// # Errors
/// The world's (exit 4): an image is missing at the deadline, or see [`Registry::exists`]; a registry that is busy or
/// broken for the moment is asked again until then.
pub async fn wait(
    registry: &Registry,
    references: &[String],
    deadline: Duration,
    poll: Duration,
    mut on_progress: impl FnMut(&[String], Duration),
) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut missing = references.to_vec();
    loop {
        let mut absent = Vec::new();
        for reference in missing {
            match registry.exists(&reference).await {
                Ok(true) => {}
                Ok(false) => absent.push(reference),
                Err(error) if may_pass(&error) && start.elapsed() < deadline => absent.push(reference),
                Err(error) => return Err(error),
            }
        }
        missing = absent;
        let waited = start.elapsed();
        if missing.is_empty() {
            return Ok(());
        }
        if waited >= deadline {
            let names = missing.join(", ");
            return Err(anyhow!(
                "image missing: {names} after {}: look at the image build of that commit, or choose another --base or --head",
                worded(deadline)
            ))
            .world();
        }
        on_progress(&missing, waited);
        sleep(poll.min(deadline - waited)).await;
    }
}

fn worded(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

/// Worth another try: the server is busy or broken for the moment.
fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn may_pass(error: &anyhow::Error) -> bool {
    let timed_out = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout)
    };
    error.chain().any(|cause| cause.is::<Passing>() || timed_out(cause))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Nobody between us and the server can read or change what is said: TLS, or this very machine.
fn is_private(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && url.host_str().is_some_and(is_loopback))
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

fn manifest_url(reference: &Reference) -> anyhow::Result<Url> {
    let host = match reference.registry.as_str() {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        host => host,
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let scheme = if is_loopback(name) { "http" } else { "https" };
    let url = format!("{scheme}://{host}/v2/{}/manifests/{}", reference.repository, reference.version);
    Url::parse(&url).with_context(|| format!("`{host}` is not a registry host"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::extract::{Request, State};
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};

    use super::*;
    use crate::exit::{self, Exit};

    /// A registry that gives its answers in order, and the last one for ever. It keeps what it was asked.
    #[derive(Clone)]
    struct Fake {
        answers: Arc<Mutex<Vec<Answer>>>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    #[derive(Clone)]
    enum Answer {
        Status(u16),
        Busy(u16),
        Challenge(String),
        Redirect(String),
        Token,
    }

    async fn answer(State(fake): State<Fake>, request: Request) -> Response {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let token = header("authorization").map(|token| format!(" [{token}]")).unwrap_or_default();
        fake.asked.lock().unwrap().push(format!("{} {}{token}", request.method(), request.uri()));
        let mut answers = fake.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        match answer {
            Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
            Answer::Busy(status) => (StatusCode::from_u16(status).unwrap(), [("retry-after", "0")]).into_response(),
            Answer::Challenge(value) => (StatusCode::UNAUTHORIZED, [("www-authenticate", value)]).into_response(),
            Answer::Redirect(to) => (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response(),
            Answer::Token => r#"{"token": "anonymous-token", "expires_in": 300}"#.into_response(),
        }
    }

    impl Fake {
        /// Starts on a free loopback port; the string is `127.0.0.1:PORT`.
        async fn start(answers: impl FnOnce(&str) -> Vec<Answer>) -> (Self, String) {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let host = listener.local_addr().unwrap().to_string();
            let fake = Self { answers: Arc::new(Mutex::new(answers(&host))), asked: Arc::default() };
            let router = axum::Router::new().fallback(answer).with_state(fake.clone());
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            (fake, host)
        }

        fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap().clone()
        }
    }

    fn registry() -> Registry {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Registry::new(Duration::from_millis(1), &Environment::default()).unwrap()
    }

    async fn exists(answers: Vec<Answer>) -> (anyhow::Result<bool>, Vec<String>) {
        let (fake, host) = Fake::start(|_| answers).await;
        let found = registry().exists(&format!("{host}/vllm/ci:abc-cpu")).await;
        (found, fake.asked())
    }

    /// Asks a registry that challenges first, with a login in Docker's config: what it was asked.
    #[expect(clippy::disallowed_methods, reason = "a test writes the file that it then reads")]
    async fn asked_with_login(auth: &str, answers: impl FnOnce(&str) -> Vec<Answer>) -> Vec<String> {
        let (fake, host) = Fake::start(answers).await;
        let folder = tempfile::tempdir().unwrap();
        let config = format!(r#"{{"auths": {{"{host}": {auth}}}}}"#);
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let environment = [("DOCKER_CONFIG", folder.path().to_str().unwrap())].into_iter().collect();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registry = Registry::new(Duration::from_millis(1), &environment).unwrap();
        assert!(registry.exists(&format!("{host}/vllm/ci:abc")).await.unwrap());
        fake.asked()
    }

    /// `ada:s3` as `Authorization: Basic` has it.
    const LOGIN: &str = r#"{"auth": "YWRhOnMz"}"#;

    #[tokio::test]
    async fn the_users_login_goes_to_a_registry_that_asks_for_it_and_not_before() {
        let basic = || Answer::Challenge("Basic realm=\"registry\"".to_owned());
        let asked = asked_with_login(LOGIN, |_| vec![basic(), Answer::Status(200)]).await;
        assert_eq!(asked, ["HEAD /v2/vllm/ci/manifests/abc", "HEAD /v2/vllm/ci/manifests/abc [Basic YWRhOnMz]"]);
        let (found, asked) = exists(vec![basic(), Answer::Status(200)]).await;
        let error = format!("{:#}", found.unwrap_err());
        assert!(error.contains("answers 401 Unauthorized") && error.contains("docker login"), "{error}");
        assert_eq!(asked.len(), 1);
    }

    #[tokio::test]
    async fn a_login_buys_a_token_of_the_token_server_and_an_identity_token_is_sent_in_the_body() {
        let bearer = |host: &str| {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"r\",scope=\"s:pull\"");
            vec![Answer::Challenge(challenge), Answer::Token, Answer::Status(200)]
        };
        let asked = asked_with_login(LOGIN, bearer).await;
        assert_eq!(
            asked[1..],
            [
                "GET /token?service=r&scope=s%3Apull [Basic YWRhOnMz]",
                "HEAD /v2/vllm/ci/manifests/abc [Bearer anonymous-token]"
            ]
        );
        let asked = asked_with_login(r#"{"identitytoken": "t0k"}"#, bearer).await;
        assert_eq!(asked[1..], ["POST /token", "HEAD /v2/vllm/ci/manifests/abc [Bearer anonymous-token]"]);
    }

    #[tokio::test]
    async fn a_login_does_not_follow_a_redirect_to_another_port() {
        let (elsewhere, other) = Fake::start(|_| vec![Answer::Status(200)]).await;
        let asked = asked_with_login(LOGIN, |_| {
            let basic = Answer::Challenge("Basic realm=\"registry\"".to_owned());
            vec![basic, Answer::Redirect(format!("http://{other}/manifest"))]
        })
        .await;
        assert_eq!(asked[1], "HEAD /v2/vllm/ci/manifests/abc [Basic YWRhOnMz]");
        assert_eq!(elsewhere.asked(), ["HEAD /manifest"]);
    }

    #[tokio::test]
    async fn an_image_is_there_or_it_is_not() {
        let (found, asked) = exists(vec![Answer::Status(200)]).await;
        assert!(found.unwrap());
        assert_eq!(asked, ["HEAD /v2/vllm/ci/manifests/abc-cpu"]);
        assert!(!exists(vec![Answer::Status(404)]).await.0.unwrap());
    }

    #[tokio::test]
    async fn a_registry_that_wants_a_token_gets_the_one_that_it_names() {
        let (fake, host) = Fake::start(|host| {
            let challenge = format!(
                r#"Bearer realm="http://{host}/token",service="registry.example",scope="repository:vllm/ci:pull,push""#
            );
            vec![Answer::Challenge(challenge), Answer::Token, Answer::Status(200)]
        })
        .await;
        assert!(registry().exists(&format!("{host}/vllm/ci:abc")).await.unwrap());
        assert_eq!(
            fake.asked(),
            [
                "HEAD /v2/vllm/ci/manifests/abc",
                "GET /token?service=registry.example&scope=repository%3Avllm%2Fci%3Apull%2Cpush",
                "HEAD /v2/vllm/ci/manifests/abc [Bearer anonymous-token]",
            ]
        );
    }

    #[tokio::test]
    async fn a_token_never_follows_a_redirect_to_another_host() {
        let (elsewhere, other) = Fake::start(|_| vec![Answer::Status(200)]).await;
        let (_, host) = Fake::start(|host| {
            let challenge = format!(r#"Bearer realm="http://{host}/token""#);
            let redirect = format!("http://{other}/blob");
            vec![Answer::Challenge(challenge), Answer::Token, Answer::Redirect(redirect)]
        })
        .await;
        assert!(registry().exists(&format!("{host}/a:b")).await.unwrap());
        assert_eq!(elsewhere.asked(), ["HEAD /blob"]);
    }

    #[tokio::test]
    async fn neither_a_token_server_nor_a_redirect_may_be_plain_http() {
        let plain = r#"Bearer realm="http://auth.example.com/token""#.to_owned();
        let (found, asked) = exists(vec![Answer::Challenge(plain)]).await;
        let error = format!("{:#}", found.unwrap_err());
        assert!(error.ends_with("`http://auth.example.com/token`, which is not https"), "{error}");
        assert_eq!(asked.len(), 1);
        let (found, asked) = exists(vec![Answer::Redirect("http://example.com/".to_owned())]).await;
        let error = format!("{:#}", found.unwrap_err());
        assert!(error.contains("a redirect to plain http"), "{error}");
        assert_eq!(asked.len(), 1);
    }

    #[tokio::test]
    async fn a_busy_or_broken_registry_is_asked_three_times_more() {
        let (found, asked) = exists(vec![Answer::Busy(429), Answer::Status(502), Answer::Status(200)]).await;
        assert_eq!((found.unwrap(), asked.len()), (true, 3));
        let (found, asked) = exists(vec![Answer::Status(500)]).await;
        let error = found.unwrap_err();
        assert_eq!((exit::of(&error), asked.len()), (Exit::World, 4));
        assert!(format!("{error:#}").ends_with("answers 500 Internal Server Error"), "{error:#}");
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_a_bad_reference_is_the_users_mistake() {
        let (found, asked) = exists(vec![Answer::Status(403)]).await;
        assert_eq!((exit::of(&found.unwrap_err()), asked.len()), (Exit::World, 1));
        let error = registry().exists("host.example/../v2").await.unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake);
    }

    #[tokio::test]
    async fn waiting_ends_when_the_image_appears() {
        let missing = Answer::Status(404);
        let (fake, host) = Fake::start(|_| vec![missing.clone(), missing, Answer::Status(200)]).await;
        let image = format!("{host}/vllm/ci:abc");
        let mut told = Vec::new();
        let poll = Duration::from_millis(1);
        let tell = |missing: &[String], _| told.push(missing.to_vec());
        wait(&registry(), std::slice::from_ref(&image), Duration::from_secs(60), poll, tell).await.unwrap();
        assert_eq!((fake.asked().len(), told), (3, vec![vec![image.clone()], vec![image]]));
    }

    #[tokio::test]
    async fn waiting_outlasts_a_registry_that_is_broken_for_longer_than_the_retries() {
        let broken = vec![Answer::Status(503); 9];
        let (fake, host) = Fake::start(|_| [broken, vec![Answer::Status(200)]].concat()).await;
        let image = [format!("{host}/vllm/ci:abc")];
        let poll = Duration::from_millis(1);
        wait(&registry(), &image, Duration::from_secs(60), poll, |_, _| {}).await.unwrap();
        assert_eq!(fake.asked().len(), 10);
        let (_, host) = Fake::start(|_| vec![Answer::Status(503)]).await;
        let error = wait(&registry(), &[format!("{host}/a:b")], Duration::ZERO, poll, |_, _| {}).await.unwrap_err();
        assert!(format!("{error:#}").ends_with("answers 503 Service Unavailable"), "{error:#}");
    }

    #[tokio::test]
    async fn an_image_that_never_comes_is_named_at_the_deadline() {
        let (_, host) = Fake::start(|_| vec![Answer::Status(404)]).await;
        let images = [format!("{host}/vllm/ci:abc")];
        let error = wait(&registry(), &images, Duration::ZERO, Duration::ZERO, |_, _| {}).await.unwrap_err();
        assert_eq!(exit::of(&error), Exit::World);
        let expected = format!(
            "image missing: {} after 0 s: look at the image build of that commit, or choose another --base or --head",
            images[0]
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!(worded(Duration::from_secs(5400)), "90 min");
    }

    #[test]
    fn only_this_machine_is_asked_without_tls_and_docker_hub_has_its_own_host() {
        let url = |text: &str| manifest_url(&text.parse().unwrap()).unwrap().to_string();
        assert_eq!(url("rocm/vllm-ci:x"), "https://registry-1.docker.io/v2/rocm/vllm-ci/manifests/x");
        assert_eq!(url("localhost:5000/a:b"), "http://localhost:5000/v2/a/manifests/b");
        assert_eq!(url("[::1]:5000/a:b"), "http://[::1]:5000/v2/a/manifests/b");
        assert_eq!(url("127.0.0.1.example.com/a:b"), "https://127.0.0.1.example.com/v2/a/manifests/b");
    }
}
