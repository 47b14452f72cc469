//! URLs of registries, and which of them may be used without TLS.

use anyhow::Context;
use reqwest::Url;

use crate::plan::image::Reference;

/// Whether no other machine can read or change a connection: TLS, or this machine.
pub fn is_private(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && url.host_str().is_some_and(is_loopback))
}

/// Whether a URL is on this machine.
pub fn is_here(url: &Url) -> bool {
    url.host_str().is_some_and(is_loopback)
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// Host and port, for messages.
pub fn host(url: &Url) -> &str {
    &url[url::Position::BeforeHost..url::Position::AfterPort]
}

/// The URL of a manifest (`manifests`) or of an image's configuration (`blobs`).
pub fn of(reference: &Reference, kind: &str, version: &str) -> anyhow::Result<Url> {
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
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_tls_and_docker_hub_has_its_own_host() {
        let url = |text: &str| {
            let reference: Reference = text.parse().unwrap();
            of(&reference, "manifests", &reference.version).unwrap().to_string()
        };
        assert_eq!(url("rocm/vllm-ci:x"), "https://registry-1.docker.io/v2/rocm/vllm-ci/manifests/x");
        assert_eq!(url("localhost:5000/a:b"), "http://localhost:5000/v2/a/manifests/b");
        assert_eq!(url("[::1]:5000/a:b"), "http://[::1]:5000/v2/a/manifests/b");
        assert_eq!(url("127.0.0.1.example.com/a:b"), "https://127.0.0.1.example.com/v2/a/manifests/b");
    }
}
