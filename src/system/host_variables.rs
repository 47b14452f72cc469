//! The variables of the operator that programs of this machine get. Nothing of a suite and no token of a CI is among them.

use indexmap::IndexMap;

use crate::environment::Environment;

/// What every program gets: where programs and files are, how the network is reached.
const OF_THE_HOST: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
/// What the `docker` command gets besides: which engine it asks, and how. An engine may be reached over SSH.
const OF_DOCKER: &[&str] = &[
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "DOCKER_API_VERSION",
    "SSH_AUTH_SOCK",
];
/// What the credential helpers of `docker pull` get besides: the registries of the clouds log in with these.
const PREFIXES_OF_PULL: &[&str] = &["AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_"];

/// Whether every program of this machine gets the variable.
pub fn is_of_the_host(name: &str) -> bool {
    OF_THE_HOST.contains(&name)
}

/// The variables that are set and that `is_allowed` picks.
pub fn chosen(environment: &Environment, is_allowed: impl Fn(&str) -> bool) -> IndexMap<String, String> {
    let allowed = environment.iter().filter(|(name, _)| is_allowed(name));
    allowed.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// [`chosen`] without the variables that hold a secret: a proxy with a password, a token in an address.
pub fn without_secrets(environment: &Environment, is_allowed: impl Fn(&str) -> bool) -> IndexMap<String, String> {
    let secrets = environment.secrets();
    let mut all = chosen(environment, is_allowed);
    all.retain(|_, value| !secrets.iter().any(|secret| value.contains(secret.expose())));
    all
}

/// Variables as names and values.
pub fn words(variables: &IndexMap<String, String>) -> Vec<(&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// The variables of `git`, with the operator's settings of it. Settings in variables are numbered: where one of them holds a
/// secret, none is passed on.
pub fn of_git(environment: &Environment) -> IndexMap<String, String> {
    let is_numbered =
        |name: &str| ["GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_"].iter().any(|it| name.starts_with(it));
    let is_of_git = |name: &str| is_of_the_host(name) || name == "SSH_AUTH_SOCK" || name.starts_with("GIT_CONFIG_");
    let all = chosen(environment, is_of_git);
    let mut harmless = without_secrets(environment, is_of_git);
    if all.keys().any(|name| is_numbered(name) && !harmless.contains_key(name)) {
        harmless.retain(|name, _| !is_numbered(name));
    }
    harmless
}

/// The variables of the `docker` command and of its guard.
pub fn of_docker(environment: &Environment) -> IndexMap<String, String> {
    chosen(environment, is_of_docker)
}

/// The variables of `docker pull`.
pub fn of_docker_pull(environment: &Environment) -> IndexMap<String, String> {
    let is_of_pull = |name: &str| PREFIXES_OF_PULL.iter().any(|prefix| name.starts_with(prefix));
    chosen(environment, |name| is_of_docker(name) || is_of_pull(name))
}

fn is_of_docker(name: &str) -> bool {
    is_of_the_host(name) || OF_DOCKER.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_gets_its_settings_and_no_token() {
        let operator: Environment = [
            ("PATH", "/bin"),
            ("GITHUB_TOKEN", "ghs_secret1"),
            ("AWS_SECRET_ACCESS_KEY", "aws-secret1"),
            ("GIT_SSH_COMMAND", "x"),
            ("GIT_DIR", "x"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
        ]
        .into_iter()
        .collect();
        let names = |environment: &Environment| of_git(environment).into_keys().collect::<Vec<_>>().join(" ");
        let settings = "GIT_CONFIG_COUNT GIT_CONFIG_GLOBAL GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0 PATH";
        assert_eq!(names(&operator), settings);
        let with_token = operator.iter().map(|(name, value)| match name {
            "GIT_CONFIG_VALUE_0" => (name, "AUTHORIZATION: bearer ghs_secret1"),
            _ => (name, value),
        });
        assert_eq!(names(&with_token.collect()), "GIT_CONFIG_GLOBAL PATH");
    }

    #[test]
    fn the_docker_command_gets_a_fixed_list_and_no_token_but_for_logins_at_a_pull() {
        let names =
            "PATH HOME DOCKER_HOST SSH_AUTH_SOCK HF_TOKEN GITHUB_TOKEN AWS_SECRET_ACCESS_KEY VLLM_HOST_IP BASH_ENV";
        let operator: Environment = names.split(' ').map(|name| (name, "x")).collect();
        let names = |variables: IndexMap<String, String>| variables.into_keys().collect::<Vec<_>>().join(" ");
        assert_eq!(names(of_docker(&operator)), "DOCKER_HOST HOME PATH SSH_AUTH_SOCK");
        assert_eq!(names(of_docker_pull(&operator)), "AWS_SECRET_ACCESS_KEY DOCKER_HOST HOME PATH SSH_AUTH_SOCK");
    }
}
