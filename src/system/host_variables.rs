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
    fn the_docker_command_gets_a_fixed_list_and_no_token_but_for_logins_at_a_pull() {
        let names =
            "PATH HOME DOCKER_HOST SSH_AUTH_SOCK HF_TOKEN GITHUB_TOKEN AWS_SECRET_ACCESS_KEY VLLM_HOST_IP BASH_ENV";
        let operator: Environment = names.split(' ').map(|name| (name, "x")).collect();
        let names = |variables: IndexMap<String, String>| variables.into_keys().collect::<Vec<_>>().join(" ");
        assert_eq!(names(of_docker(&operator)), "DOCKER_HOST HOME PATH SSH_AUTH_SOCK");
        assert_eq!(names(of_docker_pull(&operator)), "AWS_SECRET_ACCESS_KEY DOCKER_HOST HOME PATH SSH_AUTH_SOCK");
    }
}
