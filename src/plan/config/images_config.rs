//! `images` in the config file: the repositories of images, without tags.

use std::time::Duration;

use serde_json::json;

use super::scalar::{Scalar, Schema, valid};
use super::section::{Section, Walk};
use crate::duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagesConfig {
    pub pull_request: String,
    pub main: String,
    pub rocm: String,
    pub wait: Duration,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            pull_request: "public.ecr.aws/q9t5s3a7/vllm-ci-test-repo".to_owned(),
            main: "public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo".to_owned(),
            rocm: "docker.io/rocm/vllm-ci".to_owned(),
            wait: Duration::from_secs(90 * 60),
        }
    }
}

impl Section for ImagesConfig {
    fn keys(&mut self, walk: &mut impl Walk) {
        let pull_request = "Repository of the images of pull requests.";
        walk.key("pull_request", pull_request, &mut self.pull_request, REPOSITORY);
        walk.key("main", "Repository of the images of main.", &mut self.main, REPOSITORY);
        let rocm = "Repository of the ROCm images of pull requests and of main.";
        walk.key("rocm", rocm, &mut self.rocm, REPOSITORY);
        let wait = "How long to wait for an image that does not exist yet: `90m`, `1h30m`.";
        walk.key("wait", wait, &mut self.wait, WAIT);
    }
}

const REPOSITORY: Scalar<String> = Scalar {
    schema: Schema::Other(|| {
        let pattern = "^([a-z0-9][a-z0-9._-]*(:[0-9]+)?/)?[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$";
        json!({"type": "string", "pattern": pattern, "maxLength": 255})
    }),
    ..Scalar::text("an image repository", "", |text| {
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
        };
        let (host, path) = text.split_once('/').unwrap_or(("", text));
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        let port = host.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok());
        let repository = port && (host.is_empty() || part(name)) && path.split('/').all(part) && text.len() <= 255;
        valid(repository, text, "an image repository: expected `host/path` in lower case, without a tag or digest")
    })
};

const WAIT: Scalar<Duration> = Scalar {
    expecting: "a duration such as `90m`",
    numbers: false,
    schema: Schema::Pattern(r"^\s*([0-9.]+\s*(h|m|min|s|ms)\s*)+$"),
    read: duration::parse,
    show: |wait| duration::setting(*wait),
};
