//! Asks a container registry whether an image is there for our processors, by its HTTP API (v2), and waits for it. World.

mod challenge;
mod credentials;
mod manifest;

use std::fmt;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use vllm_verdict::v1::DeviceName;

use crate::environment::{Environment, Secret};
use crate::exit::Classify;
use crate::plan::image::Reference;
use challenge::{Bearer, Challenge};
use credentials::Login;

/// Manifests of one platform and of several, by OCI and by Docker.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Tries after the first, for 429, 5xx and lost connections.
const RETRIES: u32 = 3;

/// The longest wait that a registry may ask for between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest that a registry is listened to for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a manifest or of an image's configuration.
const DOCUMENT_LIMIT: usize = 4 << 20;

/// Access to registries, with the credentials of the `docker` command where a registry asks for any.
#[derive(Debug, Clone)]
pub struct Registry {
    http: Client,
    pause: Duration,
    environment: Environment,
    /// Architecture that an image must be for, as images name it: `amd64`.
    architecture: String,
}

/// What a registry has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An image for our processors.
    Here,
    /// Nothing.
    Absent,
    /// An image for other processors alone: for which.
    Elsewhere(Vec<String>),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("is there"),
            Self::Absent => f.write_str("image missing"),
            Self::Elsewhere(platforms) => write!(f, "image missing: it is there for {} alone", platforms.join(", ")),
        }
    }
}

/// The architecture of a device's images, as images name it.
pub fn architecture(device: DeviceName) -> &'static str {
    match (device, std::env::consts::ARCH) {
        (DeviceName::Arm64Cpu, _) | (_, "aarch64") => "arm64",
        (_, "x86_64") => "amd64",
        (_, other) => other,
    }
}

impl Registry {
    /// Access that waits `pause` before its first retry, and doubles it. `architecture` is what images must be for;
    /// `environment` leads to the `docker` command's credentials.
    ///
    /// # Errors
    /// The world's (exit 4): no TLS.
    pub fn new(pause: Duration, architecture: &str, environment: &Environment) -> anyhow::Result<Self> {
        Self::patient(pause, PATIENCE, architecture, environment)
    }

    fn patient(
        pause: Duration,
        patience: Duration,
        architecture: &str,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
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
        let client = Client::builder().redirect(policy).user_agent(agent).timeout(patience).build();
        let http = client.context("cannot make an HTTP client").world()?;
        Ok(Self { http, pause, environment: environment.clone(), architecture: architecture.to_owned() })
    }

    /// What the registry has under `reference`.
    ///
    /// # Errors
    /// The user's mistake (exit 2): not a reference. The world's (exit 4): the registry cannot be reached, refuses, or
    /// still fails after the retries.
    pub async fn find(&self, reference: &str) -> anyhow::Result<Found> {
        let parsed: Reference = reference.parse().mistake()?;
        self.look(&parsed).await.with_context(|| format!("cannot ask the registry for {reference}")).world()
    }

    async fn look(&self, reference: &Reference) -> anyhow::Result<Found> {
        let url = url_of(reference, "manifests", &reference.version)?;
        let mut authorization = None;
        // A look at the head first: registries count whole manifests against a limit, and most polls find nothing.
        let Some(_) = self.ask(Method::HEAD, &url, reference, &mut authorization).await? else {
            return Ok(Found::Absent);
        };
        let document = async |url: &Url, authorization: &mut Option<Secret>| -> anyhow::Result<Vec<u8>> {
            let response = self.ask(Method::GET, url, reference, authorization).await?;
            bounded(response.with_context(|| format!("{url} is gone"))?).await
        };
        let platforms = match manifest::read(&document(&url, &mut authorization).await?)? {
            manifest::Manifest::Index(platforms) => platforms,
            manifest::Manifest::Image(config) => {
                let url = url_of(reference, "blobs", &config)?;
                vec![manifest::platform(&document(&url, &mut authorization).await?)?]
            }
            // Of a time before platforms: the engine will tell.
            manifest::Manifest::Old => return Ok(Found::Here),
        };
        let ours = format!("linux/{}", self.architecture);
        let is_ours = |platform: &String| *platform == ours || platform.starts_with(&format!("{ours}/"));
        Ok(if platforms.iter().any(is_ours) { Found::Here } else { Found::Elsewhere(platforms) })
    }

    /// What the registry answers; `None` where it has no such thing. What it asks for to answer at all is kept in
    /// `authorization` for its next answers.
    async fn ask(
        &self,
        method: Method,
        url: &Url,
        reference: &Reference,
        authorization: &mut Option<Secret>,
    ) -> anyhow::Result<Option<Response>> {
        let request = |authorization: &Option<Secret>| {
            let request = self.http.request(method.clone(), url.clone()).header(ACCEPT, MANIFESTS);
            match authorization {
                Some(secret) => request.header(AUTHORIZATION, secret.expose()),
                None => request,
            }
        };
        let mut response = self.send(request(authorization)).await?;
        let mut refusal = "the repository is private or is not there".to_owned();
        if response.status() == StatusCode::UNAUTHORIZED && authorization.is_none() {
            let login = credentials::of(&reference.registry, &self.environment).await;
            let login = login.unwrap_or_else(|error| {
                refusal = format!("{refusal}; {error:#}");
                None
            });
            *authorization = Some(self.authorize(challenge::read(response.headers())?, login.as_ref()).await?);
            response = self.send(request(authorization)).await?;
        }
        let host = &reference.registry;
        match response.status() {
            status if status.is_success() => Ok(Some(response)),
            StatusCode::NOT_FOUND => Ok(None),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => bail!("{host} answers {status}: {refusal}"),
            status if is_passing(status) => Err(Passing(format!("{host} answers {status}")).into()),
            status => bail!("{host} answers {status}"),
        }
    }

    /// The value of `Authorization` that a registry asks for.
    async fn authorize(&self, challenge: Challenge, login: Option<&Login>) -> anyhow::Result<Secret> {
        let bearer = match (challenge, login) {
            (Challenge::Bearer(bearer), _) => bearer,
            (Challenge::Basic, Some(login)) => return login.basic(),
            (Challenge::Basic, None) => bail!("the registry wants a login: `docker login` to it first"),
        };
        let token = self.token(&bearer, login).await.context("cannot get a token")?;
        Ok(Secret::from(format!("Bearer {token}")))
    }

    /// A token of the server that the registry names.
    async fn token(&self, bearer: &Bearer, login: Option<&Login>) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let request = match login {
            Some(Login::Identity(identity)) => {
                self.http.post(bearer.server()?).form(&bearer.exchange(identity.expose()))
            }
            Some(Login::Password { .. }) => {
                let basic = login.map(Login::basic).transpose()?.context("no login")?;
                self.http.get(bearer.url()?).header(AUTHORIZATION, basic.expose())
            }
            None => self.http.get(bearer.url()?),
        };
        let response = self.send(request).await?.error_for_status()?;
        let token: Token = serde_json::from_slice(&bounded(response).await?).context("cannot read the token")?;
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

/// Pause before the first retry of a request; each further one is twice as long.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Trouble of a registry that may pass.
#[derive(Debug)]
struct Passing(String);

impl fmt::Display for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Passing {}

/// Reads an answer that is no larger than any of its kind.
async fn bounded(mut response: Response) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        content.extend_from_slice(&chunk);
        ensure!(content.len() <= DOCUMENT_LIMIT, "the registry sent more than {DOCUMENT_LIMIT} bytes");
    }
    Ok(content)
}

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
        let (mut absent, mut told) = (Vec::new(), Vec::new());
        for reference in missing {
            match registry.find(&reference).await {
                Ok(Found::Here) => {}
                Ok(Found::Absent) => {
                    told.push(reference.clone());
                    absent.push(reference);
                }
                Ok(Found::Elsewhere(platforms)) => {
                    told.push(format!("{reference} (there for {} alone)", platforms.join(", ")));
                    absent.push(reference);
                }
                Err(error) if may_pass(&error) && start.elapsed() < deadline => {
                    told.push(format!("{reference} ({})", error.root_cause()));
                    absent.push(reference);
                }
                Err(error) => return Err(error),
            }
        }
        missing = absent;
        let waited = start.elapsed();
        if missing.is_empty() {
            return Ok(());
        }
        if waited >= deadline {
            return Err(ImageMissing(format!(
                "image missing: {} after {}: look at the image build of that commit, or choose another --base or --head",
                told.join(", "),
                worded(deadline)
            )))
            .context("nothing was measured")
            .world();
        }
        on_progress(&told, waited);
        sleep(poll.min(deadline - waited)).await;
    }
}

/// An image that did not come.
#[derive(Debug)]
pub struct ImageMissing(String);

impl fmt::Display for ImageMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ImageMissing {}

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

fn url_of(reference: &Reference, kind: &str, version: &str) -> anyhow::Result<Url> {
    let host = match reference.registry.as_str() {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        host => host,
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let scheme = if is_loopback(name) { "http" } else { "https" };
    let url = format!("{scheme}://{host}/v2/{}/{kind}/{version}", reference.repository);
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
        /// An index of several images: for which platforms.
        Index(&'static [&'static str]),
        /// An answer of these bytes.
        Document(&'static str),
        /// None at all.
        Silence,
    }

    /// An image for every processor that this test may run on.
    const IMAGE: Answer = Answer::Index(&["amd64", "arm64"]);

    async fn answer(State(fake): State<Fake>, request: Request) -> Response {
        let token = request.headers().get("authorization").map(|token| format!(" [{}]", token.to_str().unwrap()));
        let asked = format!("{} {}{}", request.method(), request.uri(), token.unwrap_or_default());
        drop(request);
        fake.asked.lock().unwrap().push(asked);
        let answer = {
            let mut answers = fake.answers.lock().unwrap();
            if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
        };
        match answer {
            Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
            Answer::Busy(status) => (StatusCode::from_u16(status).unwrap(), [("retry-after", "0")]).into_response(),
            Answer::Challenge(value) => (StatusCode::UNAUTHORIZED, [("www-authenticate", value)]).into_response(),
            Answer::Redirect(to) => (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response(),
            Answer::Token => r#"{"token": "anonymous-token", "expires_in": 300}"#.into_response(),
            Answer::Index(architectures) => {
                let platform = |it: &&str| format!(r#"{{"platform": {{"os": "linux", "architecture": "{it}"}}}}"#);
                let manifests: Vec<String> = architectures.iter().map(platform).collect();
                format!(r#"{{"manifests": [{}]}}"#, manifests.join(", ")).into_response()
            }
            Answer::Document(text) => text.into_response(),
            Answer::Silence => std::future::pending().await,
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
        registry_for(&Environment::default())
    }

    fn registry_for(environment: &Environment) -> Registry {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Registry::patient(Duration::from_millis(1), Duration::from_millis(300), "amd64", environment).unwrap()
    }

    async fn find(answers: Vec<Answer>) -> (anyhow::Result<Found>, Vec<String>) {
        let (fake, host) = Fake::start(|_| answers).await;
        let found = registry().find(&format!("{host}/vllm/ci:abc-cpu")).await;
        (found, fake.asked())
    }

    #[tokio::test]
    async fn an_image_is_there_or_it_is_not() {
        let (found, asked) = find(vec![IMAGE]).await;
        assert_eq!(found.unwrap(), Found::Here);
        assert_eq!(asked, ["HEAD /v2/vllm/ci/manifests/abc-cpu", "GET /v2/vllm/ci/manifests/abc-cpu"]);
        let (found, asked) = find(vec![Answer::Status(404)]).await;
        assert_eq!((found.unwrap(), asked.len()), (Found::Absent, 1));
    }

    #[tokio::test]
    async fn an_image_for_other_processors_alone_is_none_for_ours() {
        let elsewhere = Found::Elsewhere(vec!["linux/arm64".to_owned()]);
        assert_eq!(find(vec![Answer::Index(&["arm64"])]).await.0.unwrap(), elsewhere);
        // One image names its platform in its configuration.
        let manifest = Answer::Document(r#"{"config": {"digest": "sha256:c0"}}"#);
        let config = Answer::Document(r#"{"os": "linux", "architecture": "arm64"}"#);
        let (found, asked) = find(vec![manifest.clone(), manifest, config]).await;
        assert_eq!(found.unwrap(), elsewhere);
        assert_eq!(asked[2], "GET /v2/vllm/ci/blobs/sha256:c0");
        assert_eq!(elsewhere.to_string(), "image missing: it is there for linux/arm64 alone");
        let (_, host) = Fake::start(|_| vec![Answer::Index(&["arm64", "s390x"])]).await;
        let images = [format!("{host}/vllm/ci:abc")];
        let error = wait(&registry(), &images, Duration::ZERO, Duration::ZERO, |_, _| {}).await.unwrap_err();
        let said = format!("image missing: {} (there for linux/arm64, linux/s390x alone) after 0 s", images[0]);
        assert!(error.root_cause().to_string().starts_with(&said), "{error:#}");
    }

    #[tokio::test]
    async fn a_private_registry_gets_the_login_of_docker() {
        let folder = tempfile::tempdir().unwrap();
        let environment: Environment = [("DOCKER_CONFIG", folder.path().display().to_string())].into_iter().collect();
        let (fake, host) = Fake::start(|host| {
            let bearer = Answer::Challenge(format!(r#"Bearer realm="http://{host}/token",service="s""#));
            let basic = Answer::Challenge("Basic realm=\"r\"".to_owned());
            vec![basic, IMAGE, IMAGE, bearer.clone(), Answer::Token, IMAGE, IMAGE, bearer, Answer::Token, IMAGE]
        })
        .await;
        let image = format!("{host}/a:b");
        // me:secret
        let login = format!(r#"{{"auths": {{"{host}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#);
        crate::system::output::write(&folder.path().join("config.json"), login.as_bytes()).unwrap();
        for _ in 0..2 {
            assert_eq!(registry_for(&environment).find(&image).await.unwrap(), Found::Here);
        }
        let login = format!(r#"{{"auths": {{"{host}": {{"identitytoken": "identity"}}}}}}"#);
        crate::system::output::write(&folder.path().join("config.json"), login.as_bytes()).unwrap();
        assert_eq!(registry_for(&environment).find(&image).await.unwrap(), Found::Here);
        let (head, get, token) = ("HEAD /v2/a/manifests/b", "GET /v2/a/manifests/b", "[Bearer anonymous-token]");
        let basic = "[Basic bWU6c2VjcmV0]";
        assert_eq!(
            fake.asked(),
            [
                head.to_owned(),
                format!("{head} {basic}"),
                format!("{get} {basic}"),
                head.to_owned(),
                format!("GET /token?service=s {basic}"),
                format!("{head} {token}"),
                format!("{get} {token}"),
                head.to_owned(),
                "POST /token".to_owned(),
                format!("{head} {token}"),
                format!("{get} {token}"),
            ]
        );
    }

    #[tokio::test]
    async fn a_private_registry_without_a_login_says_what_to_do() {
        let (found, asked) = find(vec![Answer::Challenge("Basic realm=\"r\"".to_owned())]).await;
        let error = found.unwrap_err();
        assert!(format!("{error:#}").ends_with("the registry wants a login: `docker login` to it first"), "{error:#}");
        assert_eq!((exit::of(&error), asked.len()), (Exit::World, 1));
    }

    #[tokio::test]
    async fn a_registry_that_does_not_answer_is_given_up_and_waited_for() {
        let (found, asked) = find(vec![Answer::Silence]).await;
        assert_eq!((exit::of(&found.unwrap_err()), asked.len()), (Exit::World, 4));
        let (_, host) = Fake::start(|_| [vec![Answer::Silence; 4], vec![IMAGE]].concat()).await;
        let image = [format!("{host}/vllm/ci:abc")];
        let mut told = 0;
        wait(&registry(), &image, Duration::from_secs(60), Duration::from_millis(1), |_, _| told += 1).await.unwrap();
        assert_eq!(told, 1);
    }

    #[tokio::test]
    async fn a_registry_that_wants_a_token_gets_the_one_that_it_names() {
        let (fake, host) = Fake::start(|host| {
            let challenge = format!(
                r#"Bearer realm="http://{host}/token",service="registry.example",scope="repository:vllm/ci:pull,push""#
            );
            vec![Answer::Challenge(challenge), Answer::Token, IMAGE]
        })
        .await;
        assert_eq!(registry().find(&format!("{host}/vllm/ci:abc")).await.unwrap(), Found::Here);
        assert_eq!(
            fake.asked(),
            [
                "HEAD /v2/vllm/ci/manifests/abc",
                "GET /token?service=registry.example&scope=repository%3Avllm%2Fci%3Apull%2Cpush",
                "HEAD /v2/vllm/ci/manifests/abc [Bearer anonymous-token]",
                "GET /v2/vllm/ci/manifests/abc [Bearer anonymous-token]",
            ]
        );
    }

    #[tokio::test]
    async fn a_token_never_follows_a_redirect_to_another_host() {
        let (elsewhere, other) = Fake::start(|_| vec![IMAGE]).await;
        let (_, host) = Fake::start(|host| {
            let challenge = format!(r#"Bearer realm="http://{host}/token""#);
            let redirect = format!("http://{other}/blob");
            vec![Answer::Challenge(challenge), Answer::Token, Answer::Redirect(redirect)]
        })
        .await;
        assert_eq!(registry().find(&format!("{host}/a:b")).await.unwrap(), Found::Here);
        assert_eq!(elsewhere.asked(), ["HEAD /blob", "GET /blob"]);
    }

    #[tokio::test]
    async fn neither_a_token_server_nor_a_redirect_may_be_plain_http() {
        let plain = r#"Bearer realm="http://auth.example.com/token""#.to_owned();
        let (found, asked) = find(vec![Answer::Challenge(plain)]).await;
        let error = format!("{:#}", found.unwrap_err());
        assert!(error.ends_with("`http://auth.example.com/token`, which is not https"), "{error}");
        assert_eq!(asked.len(), 1);
        let (found, asked) = find(vec![Answer::Redirect("http://example.com/".to_owned())]).await;
        let error = format!("{:#}", found.unwrap_err());
        assert!(error.contains("a redirect to plain http"), "{error}");
        assert_eq!(asked.len(), 1);
    }

    #[tokio::test]
    async fn a_busy_or_broken_registry_is_asked_three_times_more() {
        let (found, asked) = find(vec![Answer::Busy(429), Answer::Status(502), IMAGE]).await;
        assert_eq!((found.unwrap(), asked.len()), (Found::Here, 4));
        let (found, asked) = find(vec![Answer::Status(500)]).await;
        let error = found.unwrap_err();
        assert_eq!((exit::of(&error), asked.len()), (Exit::World, 4));
        assert!(format!("{error:#}").ends_with("answers 500 Internal Server Error"), "{error:#}");
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_a_bad_reference_is_the_users_mistake() {
        let (found, asked) = find(vec![Answer::Status(403)]).await;
        assert_eq!((exit::of(&found.unwrap_err()), asked.len()), (Exit::World, 1));
        let error = registry().find("host.example/../v2").await.unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake);
    }

    #[tokio::test]
    async fn waiting_ends_when_the_image_appears() {
        let missing = Answer::Status(404);
        let (fake, host) = Fake::start(|_| vec![missing.clone(), missing, IMAGE]).await;
        let image = format!("{host}/vllm/ci:abc");
        let mut told = Vec::new();
        let poll = Duration::from_millis(1);
        let tell = |missing: &[String], _| told.push(missing.to_vec());
        wait(&registry(), std::slice::from_ref(&image), Duration::from_secs(60), poll, tell).await.unwrap();
        assert_eq!((fake.asked().len(), told), (4, vec![vec![image.clone()], vec![image]]));
    }

    #[tokio::test]
    async fn waiting_outlasts_a_registry_that_is_broken_for_longer_than_the_retries() {
        let broken = vec![Answer::Status(503); 9];
        let (fake, host) = Fake::start(|_| [broken, vec![IMAGE]].concat()).await;
        let image = [format!("{host}/vllm/ci:abc")];
        let poll = Duration::from_millis(1);
        wait(&registry(), &image, Duration::from_secs(60), poll, |_, _| {}).await.unwrap();
        assert_eq!(fake.asked().len(), 11);
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
        assert_eq!(error.root_cause().to_string(), expected);
        assert_eq!(worded(Duration::from_secs(5400)), "90 min");
    }

    #[test]
    fn only_this_machine_is_asked_without_tls_and_docker_hub_has_its_own_host() {
        let url = |text: &str| {
            let reference: Reference = text.parse().unwrap();
            url_of(&reference, "manifests", &reference.version).unwrap().to_string()
        };
        assert_eq!(url("rocm/vllm-ci:x"), "https://registry-1.docker.io/v2/rocm/vllm-ci/manifests/x");
        assert_eq!(url("localhost:5000/a:b"), "http://localhost:5000/v2/a/manifests/b");
        assert_eq!(url("[::1]:5000/a:b"), "http://[::1]:5000/v2/a/manifests/b");
        assert_eq!(url("127.0.0.1.example.com/a:b"), "https://127.0.0.1.example.com/v2/a/manifests/b");
    }
}
