//! How a registry says what login it wants. Pure.

use anyhow::{Context, bail, ensure};
use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

use super::is_private;

/// What a registry answers to a request without a token (`WWW-Authenticate: Bearer ...`).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// URL of the token server.
    realm: String,
    /// Its name for the registry.
    pub service: Option<String>,
    /// What the token is to be good for.
    pub scope: Option<String>,
}

impl Challenge {
    /// Where a token is asked for, without its query. Errors: no URL, or one that others could listen to.
    pub fn server(&self) -> anyhow::Result<Url> {
        let url = Url::parse(&self.realm).with_context(|| format!("token server `{}` is not a URL", self.realm))?;
        if !is_private(&url) {
            bail!("the registry sends us to the token server `{}`, which is not https", self.realm);
        }
        Ok(url)
    }

    /// What the token is asked for.
    pub fn query(&self) -> Vec<(&'static str, &str)> {
        let named = [("service", &self.service), ("scope", &self.scope)];
        named.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect()
    }
}

/// The challenge of an answer 401; `None` where it asks for user and password instead. Errors: neither of both.
pub(super) fn challenge(headers: &HeaderMap) -> anyhow::Result<Option<Challenge>> {
    let values = || headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let mut bearer = values().filter_map(|value| {
        let (scheme, parameters) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(parameters)
    });
    let Some(parameters) = bearer.next() else {
        let basic = values().any(|value| value.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic")));
        ensure!(basic, "the registry wants a login of a kind that vllm-perf does not know");
        return Ok(None);
    };
    let of = |name: &str| {
        quoted_pairs(parameters).into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let realm = of("realm").context("the registry names no token server")?;
    Ok(Some(Challenge { realm, service: of("service"), scope: of("scope") }))
}

/// `a="b,c", d=e` as pairs; commas inside quotes do not part.
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

    #[test]
    fn a_challenge_keeps_commas_inside_quotes() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Basic realm=\"x\"".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "bearer realm=\"https://a/t\", scope=\"r:pull,push\"".parse().unwrap());
        let expected =
            Challenge { realm: "https://a/t".to_owned(), service: None, scope: Some("r:pull,push".to_owned()) };
        assert_eq!(challenge(&headers).unwrap(), Some(expected));
        headers.remove(WWW_AUTHENTICATE);
        headers.append(WWW_AUTHENTICATE, "basic realm=\"x\"".parse().unwrap());
        assert_eq!(challenge(&headers).unwrap(), None);
        headers.clear();
        assert!(challenge(&headers).is_err());
    }
}
