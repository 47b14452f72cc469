//! Asks a container registry, by its HTTP API (v2), whether it has an image for the processors of this machine.

mod challenge;
mod credentials;
mod manifest;
pub mod registry_url;

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use vllm_verdict::v1::DeviceName;

use crate::environment::{Environment, Secret};
use crate::exit::Classify;
use crate::plan::image::Reference;
use crate::system::retrying_http::{self, RetryingHttp};
use challenge::{Bearer, Challenge};
use credentials::Login;

pub use registry_url::{host, is_private};

/// Manifests of one platform and of several, by OCI and by Docker.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Access to registries, with the credentials of the `docker` command where a registry asks for any.
#[derive(Debug, Clone)]
pub struct Registry {
    http: RetryingHttp,
    environment: Environment,
    /// Architecture that an image must be for, as images name it: `amd64`.
    architecture: String,
}

/// What a registry has for a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageState {
    /// An image for the wanted architecture.
    Present,
    Absent,
    /// Images for other platforms alone, which are named.
    OtherPlatforms(Vec<String>),
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
    /// Access that waits `pause` before its first retry, and doubles it. `architecture` is the one that images must be for;
    /// `environment` leads to the credentials of the `docker` command.
    ///
    /// # Errors
    /// An external failure (exit 4): no TLS.
    pub fn new(pause: Duration, architecture: &str, environment: &Environment) -> anyhow::Result<Self> {
        let http = RetryingHttp::new(pause)?;
        Ok(Self { http, environment: environment.clone(), architecture: architecture.to_owned() })
    }

    /// What the registry has for `reference`.
    ///
    /// # Errors
    /// The user's mistake (exit 2): not a reference. An external failure (exit 4): the registry cannot be reached, refuses,
    /// or still fails after the retries.
    pub async fn find(&self, reference: &str) -> anyhow::Result<ImageState> {
        let parsed: Reference = reference.parse().mistake()?;
        self.state(&parsed).await.with_context(|| format!("cannot query the registry for {reference}")).world()
    }

    async fn state(&self, reference: &Reference) -> anyhow::Result<ImageState> {
        let url = registry_url::of(reference, "manifests", &reference.version)?;
        let mut authorization = None;
        // HEAD first: registries count whole manifests against a limit, and most polls find nothing.
        let Some(_) = self.ask(Method::HEAD, &url, reference, &mut authorization).await? else {
            return Ok(ImageState::Absent);
        };
        let document = async |url: &Url, authorization: &mut Option<Secret>| -> anyhow::Result<Bytes> {
            let response = self.ask(Method::GET, url, reference, authorization).await?;
            retrying_http::body(response.with_context(|| format!("{url} is gone"))?).await
        };
        let platforms = match manifest::read(&document(&url, &mut authorization).await?)? {
            manifest::Manifest::Index(platforms) => platforms,
            manifest::Manifest::Image(config) => {
                let url = registry_url::of(reference, "blobs", &config)?;
                vec![manifest::platform(&document(&url, &mut authorization).await?)?]
            }
            // The oldest form has no platform; a pull will show whether it fits.
            manifest::Manifest::Old => return Ok(ImageState::Present),
        };
        let wanted = format!("linux/{}", self.architecture);
        let is_wanted = |platform: &String| *platform == wanted || platform.starts_with(&format!("{wanted}/"));
        Ok(if platforms.iter().any(is_wanted) { ImageState::Present } else { ImageState::OtherPlatforms(platforms) })
    }

    /// The answer of a registry; `None` where it has no such thing. The authorization that it asks for is kept in
    /// `authorization` for the next requests.
    async fn ask(
        &self,
        method: Method,
        url: &Url,
        reference: &Reference,
        authorization: &mut Option<Secret>,
    ) -> anyhow::Result<Option<Response>> {
        let request = |authorization: &Option<Secret>| {
            let request = self.http.client.request(method.clone(), url.clone()).header(ACCEPT, MANIFESTS);
            match authorization {
                Some(secret) => request.header(AUTHORIZATION, secret.expose()),
                None => request,
            }
        };
        let mut response = self.http.send(request(authorization)).await?;
        if response.status() == StatusCode::UNAUTHORIZED && response.url().origin() != url.origin() {
            // The login is for the registry. Another server, such as a store of blobs, names no token server for it.
            bail!("{} redirects to {}, which asks for a login", reference.registry, registry_url::host(response.url()));
        }
        let mut refusal = "the repository is private or is not there".to_owned();
        if response.status() == StatusCode::UNAUTHORIZED && authorization.is_none() {
            let login = credentials::of(&reference.registry, &self.environment).await;
            let login = login.unwrap_or_else(|error| {
                refusal = format!("{refusal}; {error:#}");
                None
            });
            let challenge = challenge::read(response.headers(), url)?;
            *authorization = Some(self.authorize(challenge, login.as_ref()).await?);
            response = self.http.send(request(authorization)).await?;
        }
        let host = &reference.registry;
        match response.status() {
            status if status.is_success() => Ok(Some(response)),
            StatusCode::NOT_FOUND => Ok(None),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                bail!("{host} answers {status}{}: {refusal}", retrying_http::words(response).await)
            }
            status if retrying_http::is_temporary_status(status) => {
                let words = retrying_http::words(response).await;
                Err(retrying_http::Temporary(format!("{host} answers {status}{words}")).into())
            }
            status => bail!("{host} answers {status}{}", retrying_http::words(response).await),
        }
    }

    /// The value of `Authorization` for a challenge.
    async fn authorize(&self, challenge: Challenge, login: Option<&Login>) -> anyhow::Result<Secret> {
        let bearer = match (challenge, login) {
            (Challenge::Bearer(bearer), _) => bearer,
            (Challenge::Basic, Some(login)) => return login.basic(),
            (Challenge::Basic, None) => bail!("the registry requires a login: run `docker login` for it first"),
        };
        let token = self.token(&bearer, login).await.context("cannot get a token")?;
        Ok(Secret::from(format!("Bearer {token}")))
    }

    /// A token from the token server of a challenge.
    async fn token(&self, bearer: &Bearer, login: Option<&Login>) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let request = match login {
            Some(Login::Identity(identity)) => {
                self.http.tokens.post(bearer.server()?).form(&bearer.exchange(identity.expose()))
            }
            Some(Login::Password { .. }) => {
                let basic = login.map(Login::basic).transpose()?.context("no login")?;
                self.http.tokens.get(bearer.url()?).header(AUTHORIZATION, basic.expose())
            }
            None => self.http.tokens.get(bearer.url()?),
        };
        let response = self.http.send(request).await?;
        if let Some(error) = response.error_for_status_ref().err() {
            bail!("{error}{}", retrying_http::words(response).await);
        }
        let token: Token =
            serde_json::from_slice(&retrying_http::body(response).await?).context("cannot read the token")?;
        token.token.or(token.access_token).context("the token server sent no token")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::extract::{Request, State};
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};

    use super::*;
    use crate::exit::{self, Exit};
    use crate::system::availability::{self, Published};

    /// A registry that gives its replies in order, and then the last one again. It records the requests.
    #[derive(Clone)]
    struct Fake {
        replies: Arc<Mutex<Vec<Reply>>>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    #[derive(Clone)]
    enum Reply {
        Status(u16),
        Busy(u16),
        Challenge(String),
        Redirect(String),
        Token,
        /// An index of images for these architectures.
        Index(&'static [&'static str]),
        /// This text.
        Document(&'static str),
        /// No reply at all.
        Silence,
    }

    /// Images for every architecture that this test may run on.
    const IMAGE: Reply = Reply::Index(&["amd64", "arm64"]);

    async fn reply(State(fake): State<Fake>, request: Request) -> Response {
        let token = request.headers().get("authorization").map(|token| format!(" [{}]", token.to_str().unwrap()));
        let asked = format!("{} {}{}", request.method(), request.uri(), token.unwrap_or_default());
        drop(request);
        fake.asked.lock().unwrap().push(asked);
        let reply = {
            let mut replies = fake.replies.lock().unwrap();
            if replies.len() > 1 { replies.remove(0) } else { replies[0].clone() }
        };
        match reply {
            Reply::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
            Reply::Busy(status) => (StatusCode::from_u16(status).unwrap(), [("retry-after", "0")]).into_response(),
            Reply::Challenge(value) => (StatusCode::UNAUTHORIZED, [("www-authenticate", value)]).into_response(),
            Reply::Redirect(to) => (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response(),
            Reply::Token => r#"{"token": "anonymous-token", "expires_in": 300}"#.into_response(),
            Reply::Index(architectures) => {
                let platform = |it: &&str| format!(r#"{{"platform": {{"os": "linux", "architecture": "{it}"}}}}"#);
                let manifests: Vec<String> = architectures.iter().map(platform).collect();
                format!(r#"{{"manifests": [{}]}}"#, manifests.join(", ")).into_response()
            }
            Reply::Document(text) => text.into_response(),
            Reply::Silence => std::future::pending().await,
        }
    }

    impl Fake {
        /// Starts on a free loopback port; the text is `127.0.0.1:PORT`.
        async fn start(replies: impl FnOnce(&str) -> Vec<Reply>) -> (Self, String) {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let host = listener.local_addr().unwrap().to_string();
            let fake = Self { replies: Arc::new(Mutex::new(replies(&host))), asked: Arc::default() };
            let router = axum::Router::new().fallback(reply).with_state(fake.clone());
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
        Registry {
            http: RetryingHttp::with_limit(Duration::from_millis(1), Duration::from_millis(300)).unwrap(),
            environment: environment.clone(),
            architecture: "amd64".to_owned(),
        }
    }

    /// Waits for an image, asking every millisecond.
    async fn wait(image: &str, deadline: Duration, on_progress: impl FnMut(&str, Duration)) -> anyhow::Result<()> {
        let registry = registry();
        let find = async || registry.find(image).await.map(Published::from);
        availability::wait(image, find, (deadline, Duration::from_millis(1)), on_progress).await
    }

    async fn find(replies: Vec<Reply>) -> (anyhow::Result<ImageState>, Vec<String>) {
        let (fake, host) = Fake::start(|_| replies).await;
        let found = registry().find(&format!("{host}/vllm/ci:abc-cpu")).await;
        (found, fake.asked())
    }

    #[tokio::test]
    async fn an_image_is_present_or_absent() {
        let (found, asked) = find(vec![IMAGE]).await;
        assert_eq!(found.unwrap(), ImageState::Present);
        assert_eq!(asked, ["HEAD /v2/vllm/ci/manifests/abc-cpu", "GET /v2/vllm/ci/manifests/abc-cpu"]);
        let (found, asked) = find(vec![Reply::Status(404)]).await;
        assert_eq!((found.unwrap(), asked.len()), (ImageState::Absent, 1));
    }

    #[tokio::test]
    async fn an_image_for_other_platforms_alone_is_missing() {
        let other = ImageState::OtherPlatforms(vec!["linux/arm64".to_owned()]);
        assert_eq!(find(vec![Reply::Index(&["arm64"])]).await.0.unwrap(), other);
        // One image names its platform in its configuration.
        let manifest = Reply::Document(r#"{"config": {"digest": "sha256:c0"}}"#);
        let config = Reply::Document(r#"{"os": "linux", "architecture": "arm64"}"#);
        let (found, asked) = find(vec![manifest.clone(), manifest, config]).await;
        assert_eq!(found.unwrap(), other);
        assert_eq!(asked[2], "GET /v2/vllm/ci/blobs/sha256:c0");
        assert_eq!(Published::from(other).to_string(), "image missing: only available for linux/arm64");
        let (_, host) = Fake::start(|_| vec![Reply::Index(&["arm64", "s390x"])]).await;
        let image = format!("{host}/vllm/ci:abc");
        let error = wait(&image, Duration::ZERO, |_, _| {}).await.unwrap_err();
        let expected = format!("image missing: {image} (only available for linux/arm64, linux/s390x) after 0 ms");
        assert!(error.root_cause().to_string().starts_with(&expected), "{error:#}");
    }

    #[tokio::test]
    async fn a_private_registry_gets_the_login_of_docker() {
        let folder = tempfile::tempdir().unwrap();
        let environment: Environment = [("DOCKER_CONFIG", folder.path().display().to_string())].into_iter().collect();
        let (fake, host) = Fake::start(|host| {
            let bearer = Reply::Challenge(format!(r#"Bearer realm="http://{host}/token",service="s""#));
            let basic = Reply::Challenge("Basic realm=\"r\"".to_owned());
            vec![basic, IMAGE, IMAGE, bearer.clone(), Reply::Token, IMAGE, IMAGE, bearer, Reply::Token, IMAGE]
        })
        .await;
        let image = format!("{host}/a:b");
        // me:secret
        let login = format!(r#"{{"auths": {{"{host}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#);
        crate::system::output::write(&folder.path().join("config.json"), login.as_bytes()).unwrap();
        for _ in 0..2 {
            assert_eq!(registry_for(&environment).find(&image).await.unwrap(), ImageState::Present);
        }
        let login = format!(r#"{{"auths": {{"{host}": {{"identitytoken": "identity"}}}}}}"#);
        crate::system::output::write(&folder.path().join("config.json"), login.as_bytes()).unwrap();
        assert_eq!(registry_for(&environment).find(&image).await.unwrap(), ImageState::Present);
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
    async fn a_private_registry_without_a_login_is_an_error_with_the_remedy() {
        let (found, asked) = find(vec![Reply::Challenge("Basic realm=\"r\"".to_owned())]).await;
        let error = found.unwrap_err();
        assert!(
            format!("{error:#}").ends_with("the registry requires a login: run `docker login` for it first"),
            "{error:#}"
        );
        assert_eq!((exit::of(&error), asked.len()), (Exit::World, 1));
    }

    #[tokio::test]
    async fn a_registry_that_does_not_answer_is_an_error_and_is_waited_for() {
        let (found, asked) = find(vec![Reply::Silence]).await;
        assert_eq!((exit::of(&found.unwrap_err()), asked.len()), (Exit::World, 4));
        let (_, host) = Fake::start(|_| [vec![Reply::Silence; 4], vec![IMAGE]].concat()).await;
        let image = format!("{host}/vllm/ci:abc");
        let mut polls = 0;
        wait(&image, Duration::from_secs(60), |_, _| polls += 1).await.unwrap();
        assert_eq!(polls, 1);
    }

    #[tokio::test]
    async fn a_registry_that_wants_a_token_gets_one_from_its_token_server() {
        let (fake, host) = Fake::start(|host| {
            let challenge = format!(
                r#"Bearer realm="http://{host}/token",service="registry.example",scope="repository:vllm/ci:pull,push""#
            );
            vec![Reply::Challenge(challenge), Reply::Token, IMAGE]
        })
        .await;
        assert_eq!(registry().find(&format!("{host}/vllm/ci:abc")).await.unwrap(), ImageState::Present);
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
    async fn a_token_is_not_sent_to_the_host_of_a_redirect() {
        let (elsewhere, other) = Fake::start(|_| vec![IMAGE]).await;
        let (_, host) = Fake::start(|host| {
            let challenge = format!(r#"Bearer realm="http://{host}/token""#);
            let redirect = format!("http://{other}/blob");
            vec![Reply::Challenge(challenge), Reply::Token, Reply::Redirect(redirect)]
        })
        .await;
        assert_eq!(registry().find(&format!("{host}/a:b")).await.unwrap(), ImageState::Present);
        assert_eq!(elsewhere.asked(), ["HEAD /blob", "GET /blob"]);
    }

    #[tokio::test]
    async fn the_login_is_for_the_registry_and_the_token_server_that_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let environment: Environment = [("DOCKER_CONFIG", folder.path().display().to_string())].into_iter().collect();
        let (elsewhere, other) = Fake::start(|host| {
            let bearer = format!(r#"Bearer realm="http://{host}/token""#);
            vec![Reply::Challenge("Basic realm=\"r\"".to_owned()), Reply::Challenge(bearer)]
        })
        .await;
        let redirect = Reply::Redirect(format!("http://{other}/stolen"));
        for login in [r#""auth": "bWU6c2VjcmV0""#, r#""identitytoken": "identity""#] {
            let (_, host) = Fake::start(|host| {
                let challenge = Reply::Challenge(format!(r#"Bearer realm="http://{host}/token""#));
                vec![redirect.clone(), redirect.clone(), challenge, redirect.clone()]
            })
            .await;
            let config = format!(r#"{{"auths": {{"{host}": {{{login}}}}}}}"#);
            crate::system::output::write(&folder.path().join("config.json"), config.as_bytes()).unwrap();
            for _ in 0..3 {
                let error = registry_for(&environment).find(&format!("{host}/a:b")).await.unwrap_err();
                assert_eq!(exit::of(&error), Exit::World, "{error:#}");
            }
        }
        let asked = elsewhere.asked();
        assert!(!asked.is_empty() && asked.iter().all(|asked| asked == "HEAD /stolen"), "{asked:?}");
    }

    #[tokio::test]
    async fn neither_a_token_server_nor_a_redirect_may_be_plain_http() {
        let plain = r#"Bearer realm="http://auth.example.com/token""#.to_owned();
        let (found, asked) = find(vec![Reply::Challenge(plain)]).await;
        let error = format!("{:#}", found.unwrap_err());
        assert!(error.ends_with("`http://auth.example.com/token`, which is not https"), "{error}");
        assert_eq!(asked.len(), 1);
        let (found, asked) = find(vec![Reply::Redirect("http://example.com/".to_owned())]).await;
        let error = format!("{:#}", found.unwrap_err());
        assert!(error.contains("a redirect to plain http"), "{error}");
        assert_eq!(asked.len(), 1);
    }

    #[tokio::test]
    async fn a_busy_or_broken_registry_is_asked_three_more_times() {
        let (found, asked) = find(vec![Reply::Busy(429), Reply::Status(502), IMAGE]).await;
        assert_eq!((found.unwrap(), asked.len()), (ImageState::Present, 4));
        let (found, asked) = find(vec![Reply::Status(500)]).await;
        let error = found.unwrap_err();
        assert_eq!((exit::of(&error), asked.len()), (Exit::World, 4));
        assert!(format!("{error:#}").ends_with("answers 500 Internal Server Error"), "{error:#}");
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_a_bad_reference_is_the_users_mistake() {
        let (found, asked) = find(vec![Reply::Status(403)]).await;
        assert_eq!((exit::of(&found.unwrap_err()), asked.len()), (Exit::World, 1));
        let error = registry().find("host.example/../v2").await.unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake);
    }

    #[tokio::test]
    async fn waiting_ends_when_the_image_appears() {
        let missing = Reply::Status(404);
        let (fake, host) = Fake::start(|_| vec![missing.clone(), missing, IMAGE]).await;
        let image = format!("{host}/vllm/ci:abc");
        let mut shown = Vec::new();
        let record = |missing: &str, _| shown.push(missing.to_owned());
        wait(&image, Duration::from_secs(60), record).await.unwrap();
        assert_eq!((fake.asked().len(), shown), (4, vec![image.clone(), image]));
    }

    #[tokio::test]
    async fn waiting_continues_when_a_registry_is_broken_for_longer_than_the_retries() {
        let broken = vec![Reply::Status(503); 9];
        let (fake, host) = Fake::start(|_| [broken, vec![IMAGE]].concat()).await;
        let image = format!("{host}/vllm/ci:abc");
        wait(&image, Duration::from_secs(60), |_, _| {}).await.unwrap();
        assert_eq!(fake.asked().len(), 11);
        let (_, host) = Fake::start(|_| vec![Reply::Status(503)]).await;
        let error = wait(&format!("{host}/a:b"), Duration::ZERO, |_, _| {}).await.unwrap_err();
        assert!(format!("{error:#}").ends_with("answers 503 Service Unavailable"), "{error:#}");
    }

    #[tokio::test]
    async fn an_image_that_never_comes_is_named_at_the_deadline() {
        let (_, host) = Fake::start(|_| vec![Reply::Status(404)]).await;
        let image = format!("{host}/vllm/ci:abc");
        let error = wait(&image, Duration::ZERO, |_, _| {}).await.unwrap_err();
        assert_eq!(exit::of(&error), Exit::World);
        let expected = format!(
            "image missing: {image} after 0 ms: look at the image build of that commit, or choose another --base or --head"
        );
        assert_eq!(error.root_cause().to_string(), expected);
    }
}
