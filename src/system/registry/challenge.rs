//! The authentication challenge of a registry (`WWW-Authenticate`).

use anyhow::{Context, bail};
use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

use super::registry_url::{is_here, is_private};

/// The authorization that a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token from a token server.
    Bearer(Bearer),
    /// The user and the password.
    Basic,
}

/// The token server, and what the token is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    realm: String,
    /// Whether the registry that names it is on this machine.
    local: bool,
    service: Option<String>,
    scope: Option<String>,
}

impl Bearer {
    /// The URL of the token server, without parameters.
    pub(super) fn server(&self) -> anyhow::Result<Url> {
        let url = Url::parse(&self.realm).with_context(|| format!("token server `{}` is not a URL", self.realm))?;
        if !is_private(&url) {
            bail!("the registry names the token server `{}`, which is not https", self.realm);
        }
        if is_here(&url) && !self.local {
            bail!("the registry names the token server `{}`, which is on this machine", self.realm);
        }
        if !url.username().is_empty() || url.password().is_some() {
            bail!("the registry names a token server with a login in its URL");
        }
        Ok(url)
    }

    /// The URL that returns a token.
    pub(super) fn url(&self) -> anyhow::Result<Url> {
        let mut url = self.server()?;
        for (key, value) in self.parameters() {
            url.query_pairs_mut().append_pair(key, value);
        }
        Ok(url)
    }

    /// The form that exchanges an identity token for a token.
    pub(super) fn exchange<'a>(&'a self, identity: &'a str) -> Vec<(&'static str, &'a str)> {
        let fixed = [("grant_type", "refresh_token"), ("client_id", "vllm-perf"), ("refresh_token", identity)];
        fixed.into_iter().chain(self.parameters()).collect()
    }

    fn parameters(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [("service", &self.service), ("scope", &self.scope)];
        all.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }
}

/// The challenge of an answer of `registry`; where there are several, a token is preferred to a login.
pub(super) fn read(headers: &HeaderMap, registry: &Url) -> anyhow::Result<Challenge> {
    let values: Vec<&str> = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
    let of_scheme = |name: &str| {
        values.iter().find_map(|value| {
            let (scheme, parameters) = value.split_once(' ').unwrap_or((value, ""));
            scheme.eq_ignore_ascii_case(name).then_some(parameters)
        })
    };
    let Some(parameters) = of_scheme("bearer") else {
        return match of_scheme("basic") {
            Some(_) => Ok(Challenge::Basic),
            None => bail!("the registry requires an authorization that is neither a bearer token nor a login"),
        };
    };
    let of = |name: &str| {
        quoted_pairs(parameters).into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let realm = of("realm").context("the registry names no token server")?;
    Ok(Challenge::Bearer(Bearer { realm, local: is_here(registry), service: of("service"), scope: of("scope") }))
}

/// `a="b,c", d=e` as pairs; commas inside quotes do not separate.
fn quoted_pairs(text: &str) -> Vec<(String, String)> {
    let mut quoted = false;
    let parts = text.split(|letter| {
        quoted ^= letter == '"';
        letter == ',' && !quoted
    });
    let pairs = parts.filter_map(|part| part.trim().split_once('='));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().trim_matches('"').to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&str]) -> anyhow::Result<Challenge> {
        read(&headers(values), &"https://registry.example/v2/".parse().unwrap())
    }

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (WWW_AUTHENTICATE, value.parse().unwrap())).collect()
    }

    #[test]
    fn a_challenge_keeps_commas_inside_quotes() {
        let value = r#"Bearer realm="https://auth/token",service="reg",scope="repository:a/b:pull,push""#;
        let Challenge::Bearer(bearer) = challenge(&["Basic realm=x", value]).unwrap() else { panic!() };
        assert_eq!(
            bearer.url().unwrap().as_str(),
            "https://auth/token?service=reg&scope=repository%3Aa%2Fb%3Apull%2Cpush"
        );
        assert_eq!(challenge(&["Basic realm=\"x\""]).unwrap(), Challenge::Basic);
        assert!(challenge(&["Negotiate"]).is_err());
        assert!(challenge(&["Bearer service=\"x\""]).is_err());
    }

    #[test]
    fn a_login_goes_to_a_token_server_of_the_registry_over_tls_only() {
        for realm in [
            "http://auth.example/token",
            "http://127.0.0.1:9/token",
            "https://localhost/token",
            "https://[::1]:9/token",
            "https://me:x@auth.example/token",
            "file:///etc/passwd",
            "//auth.example/token",
            "ftp://auth.example",
        ] {
            let Challenge::Bearer(bearer) = challenge(&[&format!("Bearer realm=\"{realm}\"")]).unwrap() else {
                panic!()
            };
            assert!(bearer.url().is_err() && bearer.server().is_err(), "{realm}");
        }
    }

    #[test]
    fn a_token_server_without_tls_is_refused() {
        let Challenge::Bearer(bearer) = challenge(&["Bearer realm=\"http://auth.example/token\""]).unwrap() else {
            panic!()
        };
        assert!(bearer.url().unwrap_err().to_string().contains("which is not https"));
    }
}
