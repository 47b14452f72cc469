//! Logins for registries, as the `docker` command has them: its config file and its credential helpers. World.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::environment::{Environment, Secret};

/// The longest that a credential helper may think.
const HELPER_LIMIT: Duration = Duration::from_secs(30);

/// Docker Hub's name in Docker's config.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A login for one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// User and password.
    Password(String, Secret),
    /// A token that buys tokens of the registry's token server.
    Identity(Secret),
}

/// Where logins are looked up.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    file: Option<PathBuf>,
    environment: Environment,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: HashMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    identitytoken: String,
}

/// What a helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

impl Credentials {
    /// Those of the user: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    pub fn new(environment: &Environment) -> Self {
        let folder = match (environment.get("DOCKER_CONFIG"), environment.get("HOME")) {
            (Some(folder), _) => Some(PathBuf::from(folder)),
            (None, home) => home.map(|home| Path::new(home).join(".docker")),
        };
        Self { file: folder.map(|folder| folder.join("config.json")), environment: environment.clone() }
    }

    /// The login for a registry; `None` where the user has none. Errors: a config file that cannot be read, a helper
    /// that is missing or fails. None of them says a secret.
    pub async fn login(&self, registry: &str) -> anyhow::Result<Option<Login>> {
        let Some(file) = &self.file else { return Ok(None) };
        let text = match std::fs::read_to_string(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", file.display()))?,
        };
        // serde's sentence may quote a value.
        let config = serde_json::from_str::<DockerConfig>(&text).ok();
        let config = config.with_context(|| format!("{} is not Docker's config", file.display()))?;
        let is_asked = |key: &str| host(key) == host(registry) || (key == DOCKER_HUB && host(registry) == "docker.io");
        let helper = config.cred_helpers.iter().find(|(key, _)| is_asked(key)).map(|(_, helper)| helper);
        if let Some(helper) = helper.or(config.creds_store.as_ref()).filter(|helper| !helper.is_empty()) {
            let server = if host(registry) == "docker.io" { DOCKER_HUB } else { registry };
            return self.ask(helper, server).await;
        }
        let Some((_, auth)) = config.auths.iter().find(|(key, _)| is_asked(key)) else { return Ok(None) };
        if !auth.identitytoken.is_empty() {
            return Ok(Some(Login::Identity(auth.identitytoken.clone().into())));
        }
        decoded(&auth.auth).with_context(|| format!("cannot read the login for {registry} in {}", file.display()))
    }

    #[expect(clippy::disallowed_methods, reason = "a helper of the user's docker is asked for the user's login")]
    async fn ask(&self, helper: &str, server: &str) -> anyhow::Result<Option<Login>> {
        let is_name = helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        ensure!(is_name, "the name of a credential helper is no word");
        let program = format!("docker-credential-{helper}");
        let asked = async {
            let mut child = Command::new(&program)
                .arg("get")
                .env_clear()
                .envs(self.environment.iter())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()?;
            if let Some(mut input) = child.stdin.take() {
                // A helper that has its answer already may not read.
                let _ = input.write_all(server.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(HELPER_LIMIT, asked).await;
        let output = output.with_context(|| format!("`{program}` did not answer in {} s", HELPER_LIMIT.as_secs()))?;
        let output = output.with_context(|| format!("cannot run `{program}`"))?;
        if !output.status.success() {
            // What every helper prints where it has no login.
            if String::from_utf8_lossy(&output.stdout).contains("credentials not found") {
                return Ok(None);
            }
            bail!("`{program} get` failed for {server}: {}", output.status);
        }
        let helped = serde_json::from_slice::<Helped>(&output.stdout).ok();
        let helped = helped.with_context(|| format!("`{program} get` printed no login for {server}"))?;
        let secret = Secret::from(helped.secret);
        Ok(Some(match helped.username.as_str() {
            "<token>" => Login::Identity(secret),
            _ => Login::Password(helped.username, secret),
        }))
    }
}

fn decoded(auth: &str) -> anyhow::Result<Option<Login>> {
    if auth.is_empty() {
        return Ok(None);
    }
    let text = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.context("it is not base64")?;
    let (user, password) = text.split_once(':').context("it is no user and password")?;
    Ok(Some(Login::Password(user.to_owned(), password.trim_end_matches('\0').to_owned().into())))
}

/// The host, with its port, of a key of Docker's config, which may be a URL.
fn host(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    if host == "index.docker.io" || host == "registry-1.docker.io" { "docker.io" } else { host }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder with Docker's config and a helper `test`, which knows `known:5000` and `token.example`.
    #[expect(clippy::disallowed_methods, reason = "a test writes the file that it then reads")]
    fn credentials(config: &str) -> (tempfile::TempDir, Credentials) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let helper = folder.path().join("docker-credential-test");
        let script = "#!/bin/sh\nread -r server\ncase \"$1 $server\" in\n\
            'get known:5000') echo '{\"ServerURL\": \"x\", \"Username\": \"ada\", \"Secret\": \"s3\"}' ;;\n\
            'get token.example') echo '{\"Username\": \"<token>\", \"Secret\": \"t0k\"}' ;;\n\
            'get broken') echo 's3cret: no such thing'; exit 2 ;;\n\
            *) echo 'credentials not found in native keychain'; exit 1 ;;\nesac\n";
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let environment = [("DOCKER_CONFIG", folder.path().to_str().unwrap()), ("PATH", &path)].into_iter().collect();
        let credentials = Credentials::new(&environment);
        (folder, credentials)
    }

    fn password(user: &str, password: &str) -> Option<Login> {
        Some(Login::Password(user.to_owned(), password.to_owned().into()))
    }

    #[tokio::test]
    async fn logins_of_the_config_file_are_found_by_host_whatever_their_spelling() {
        let config = r#"{"auths": {"https://r.example/v2/": {"auth": "YWRhOnMzOng="}, "t.example": {"identitytoken": "t0k"},
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"}, "empty.example": {}, "bad.example": {"auth": "%%"}}}"#;
        let (_folder, credentials) = credentials(config);
        assert_eq!(credentials.login("r.example").await.unwrap(), password("ada", "s3:x"));
        assert_eq!(credentials.login("docker.io").await.unwrap(), password("hub", "pw"));
        assert_eq!(credentials.login("t.example").await.unwrap(), Some(Login::Identity("t0k".to_owned().into())));
        assert_eq!(credentials.login("empty.example").await.unwrap(), None);
        assert_eq!(credentials.login("r.example:5000").await.unwrap(), None);
        let error = format!("{:#}", credentials.login("bad.example").await.unwrap_err());
        assert!(error.contains("bad.example") && error.ends_with("it is not base64"), "{error}");
    }

    #[tokio::test]
    async fn a_helper_is_asked_for_its_registry_and_no_error_repeats_what_it_prints() {
        let (_folder, all) = credentials(r#"{"credsStore": "test"}"#);
        assert_eq!(all.login("known:5000").await.unwrap(), password("ada", "s3"));
        assert_eq!(all.login("token.example").await.unwrap(), Some(Login::Identity("t0k".to_owned().into())));
        assert_eq!(all.login("unknown.example").await.unwrap(), None);
        let error = format!("{:#}", all.login("broken").await.unwrap_err());
        assert_eq!(error, "`docker-credential-test get` failed for broken: exit status: 2");
        let (_folder, one) =
            credentials(r#"{"credHelpers": {"known:5000": "test", "other": "nowhere", "evil": "../x"}}"#);
        assert_eq!(one.login("known:5000").await.unwrap(), password("ada", "s3"));
        assert_eq!(one.login("token.example").await.unwrap(), None);
        let error = format!("{:#}", one.login("other").await.unwrap_err());
        assert!(error.starts_with("cannot run `docker-credential-nowhere`"), "{error}");
        assert!(one.login("evil").await.is_err());
    }

    #[tokio::test]
    async fn without_a_config_there_is_no_login_and_a_broken_one_is_named_without_its_text() {
        let none = Credentials::new(&[("HOME", "/nowhere")].into_iter().collect());
        assert_eq!(none.login("r.example").await.unwrap(), None);
        let (_folder, broken) = credentials(r#"{"auths": "s3cret"}"#);
        let error = format!("{:#}", broken.login("r.example").await.unwrap_err());
        assert!(error.ends_with("config.json is not Docker's config") && !error.contains("s3cret"), "{error}");
    }
}
