//! Logins of the `docker` command: from its config file, and from the credential helpers that the file names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use indexmap::IndexMap;
use serde::Deserialize;

use crate::environment::{Environment, Secret};
use crate::system::host_variables;
use crate::system::program::{self, Program};

/// How long a helper may take: it may ask a key service, but not a person.
const LIMIT: Duration = Duration::from_secs(20);

/// The name of Docker Hub in config files.
const HUB: &str = "https://index.docker.io/v1/";

/// A login to a registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Login {
    Password {
        user: String,
        password: Secret,
    },
    /// An identity token, which a token server exchanges for a token.
    Identity(Secret),
}

impl Login {
    /// The value of `Authorization` for basic authentication.
    ///
    /// # Errors
    /// It is an identity token, which only a token server accepts.
    pub(super) fn basic(&self) -> anyhow::Result<Secret> {
        let Self::Password { user, password } = self else {
            bail!("the login to the registry is an identity token, but the registry requires a password");
        };
        Ok(Secret::from(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{}", password.expose())))))
    }
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    auths: IndexMap<String, Entry>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
    #[serde(rename = "credHelpers", default)]
    helpers: IndexMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    auth: Option<String>,
    #[serde(rename = "identitytoken")]
    identity: Option<String>,
}

#[derive(Deserialize)]
struct HelperOutput {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The login to `registry` that `docker login` stored on this machine, if there is one.
///
/// # Errors
/// The config file or the output of a helper cannot be read. The error holds no secret.
pub(super) async fn of(registry: &str, environment: &Environment) -> anyhow::Result<Option<Login>> {
    let folder = environment
        .get("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| environment.get("HOME").map(|home| Path::new(home).join(".docker")));
    let Some(path) = folder.map(|folder| folder.join("config.json")) else { return Ok(None) };
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| format!("cannot read `{}`", path.display()))?,
    };
    let config: Config = serde_json::from_slice(&text)
        .map_err(|error| anyhow::anyhow!("cannot read `{}`: line {}", path.display(), error.line()))?;
    for name in names(registry) {
        if let Some(helper) = config.helpers.get(&name).or(config.store.as_ref()) {
            if let Some(login) = ask(helper, &name, environment).await? {
                return Ok(Some(login));
            }
        } else if let Some(entry) = config.auths.get(&name) {
            let login =
                entry.login().with_context(|| format!("cannot use the login to {name} in `{}`", path.display()));
            if let Some(login) = login? {
                return Ok(Some(login));
            }
        }
    }
    Ok(None)
}

impl Entry {
    fn login(&self) -> anyhow::Result<Option<Login>> {
        if let Some(identity) = self.identity.clone().filter(|identity| !identity.is_empty()) {
            return Ok(Some(Login::Identity(Secret::from(identity))));
        }
        let Some(auth) = self.auth.as_deref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let plain = BASE64_STANDARD.decode(auth).ok().and_then(|plain| String::from_utf8(plain).ok());
        let plain = plain.context("its `auth` is not base64")?;
        let (user, password) = plain.split_once(':').context("its `auth` is not a user and a password")?;
        Ok(Some(Login::Password { user: user.to_owned(), password: Secret::from(password.to_owned()) }))
    }
}

/// The names that a config file may use for a registry.
fn names(registry: &str) -> Vec<String> {
    match registry {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => vec![HUB.to_owned()],
        host => vec![host.to_owned(), format!("https://{host}"), format!("http://{host}")],
    }
}

/// Asks `docker-credential-<helper>`; `None` where it has no login.
async fn ask(helper: &str, name: &str, environment: &Environment) -> anyhow::Result<Option<Login>> {
    let program = format!("docker-credential-{helper}");
    ensure!(!helper.contains('/'), "`{helper}` in docker's config is not the name of a credential helper");
    let variables = host_variables::of_docker_pull(environment);
    let output = program::run(&Program {
        name: Path::new(&program),
        arguments: &["get"],
        variables: &host_variables::words(&variables),
        folder: None,
        stdin: name.as_bytes(),
        limit: LIMIT,
    })
    .await
    .with_context(|| format!("cannot run `{program}`, which docker's config names"))?;
    if !output.status.success() {
        return Ok(None);
    }
    let helped: HelperOutput =
        serde_json::from_slice(&output.stdout).map_err(|_| anyhow::anyhow!("`{program} get` did not print a login"))?;
    let secret = Secret::from(helped.secret);
    Ok(Some(match helped.user.as_str() {
        "<token>" => Login::Identity(secret),
        _ => Login::Password { user: helped.user, password: secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A folder with docker's config, and the environment that leads to it.
    fn docker(config: &str) -> (tempfile::TempDir, Environment) {
        let folder = tempfile::tempdir().unwrap();
        crate::system::output::write(&folder.path().join("config.json"), config.as_bytes()).unwrap();
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let environment =
            [("DOCKER_CONFIG", folder.path().display().to_string()), ("PATH", path)].into_iter().collect();
        (folder, environment)
    }

    fn password(user: &str, password: &str) -> Option<Login> {
        Some(Login::Password { user: user.into(), password: Secret::from(password.to_owned()) })
    }

    #[tokio::test]
    async fn a_login_comes_from_the_file() {
        let auth = BASE64_STANDARD.encode("me:pass:word");
        let (_folder, environment) = docker(&format!(
            r#"{{"auths": {{"reg:5000": {{"auth": "{auth}"}}, "https://index.docker.io/v1/": {{"identitytoken": "id"}},
            "empty": {{}}, "bad": {{"auth": "%"}}}}}}"#
        ));
        assert_eq!(of("reg:5000", &environment).await.unwrap(), password("me", "pass:word"));
        let hub = of("docker.io", &environment).await.unwrap();
        assert_eq!(hub, Some(Login::Identity(Secret::from("id".to_owned()))));
        for none in ["empty", "other"] {
            assert_eq!(of(none, &environment).await.unwrap(), None);
        }
        assert!(format!("{:#}", of("bad", &environment).await.unwrap_err()).contains("is not base64"));
        assert_eq!(of("reg:5000", &Environment::default()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_login_comes_from_a_helper() {
        let (folder, environment) =
            docker(r#"{"credsStore": "all", "credHelpers": {"one": "single", "gone": "gone"}}"#);
        let helper = |name: &str, script: &str| {
            let path = folder.path().join(format!("docker-credential-{name}"));
            crate::system::output::write(&path, format!("#!/bin/sh\n{script}").as_bytes()).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        helper("single", "printf '{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":\"%s\"}' \"$(cat)\"");
        helper(
            "all",
            "read name; [ \"$name\" = known ] || exit 1; echo '{\"Username\":\"<token>\",\"Secret\":\"id\"}'",
        );
        assert_eq!(of("one", &environment).await.unwrap(), password("u", "one"));
        assert_eq!(of("unknown", &environment).await.unwrap(), None);
        let error = format!("{:#}", of("gone", &environment).await.unwrap_err());
        assert!(error.starts_with("cannot run `docker-credential-gone`"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_named_without_its_content() {
        let (_folder, environment) = docker("{\"auths\": {\"reg\": {\"auth\": hunter2}}}");
        let error = format!("{:#}", of("reg", &environment).await.unwrap_err());
        assert!(error.contains("config.json`: line 1") && !error.contains("hunter2"), "{error}");
    }
}
