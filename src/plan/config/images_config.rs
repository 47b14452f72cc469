//! `images` in the config file: where images are, and how their tags are made.

use std::time::Duration;

use serde_json::json;

use super::image_template::ImageTemplate;
use super::scalar::{Scalar, Schema};
use super::section::{Section, Walk};
use crate::duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagesConfig {
    pub pull_request: ImageTemplate,
    pub main: ImageTemplate,
    pub rocm: ImageTemplate,
    pub wait: Duration,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            pull_request: ImageTemplate::of("public.ecr.aws/q9t5s3a7/vllm-ci-test-repo"),
            main: ImageTemplate::of("public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo"),
            rocm: ImageTemplate::of("docker.io/rocm/vllm-ci"),
            wait: Duration::from_secs(90 * 60),
        }
    }
}

impl Section for ImagesConfig {
    fn keys(&mut self, walk: &mut impl Walk) {
        let pull_request = "Images of pull requests: a repository, whose tags are `{commit}{suffix}`, or one with a tag in which `{commit}`, `{suffix}` and `{build}` are replaced.";
        walk.key("pull_request", pull_request, &mut self.pull_request, IMAGE);
        walk.key("main", "Images of main, such as `vllm/vllm-openai:nightly-{commit}`.", &mut self.main, IMAGE);
        walk.key("rocm", "ROCm images of pull requests and of main.", &mut self.rocm, IMAGE);
        let wait = "How long to wait for an image that does not exist yet: `90m`, `1h30m`.";
        walk.key("wait", wait, &mut self.wait, WAIT);
    }
}

const IMAGE: Scalar<ImageTemplate> = Scalar {
    expecting: "an image repository, with or without a tag such as `nightly-{commit}`",
    numbers: false,
    schema: Schema::Other(|| {
        let repository = "([a-z0-9][a-z0-9._-]*(:[0-9]+)?/)?[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*";
        let tag = r"([A-Za-z0-9._-]|\{suffix\})*\{(commit|build)\}([A-Za-z0-9._-]|\{(commit|suffix|build)\})*";
        json!({"type": "string", "pattern": format!("^{repository}(:{tag})?$"), "maxLength": 255})
    }),
    read: str::parse,
    show: ImageTemplate::to_string,
};

const WAIT: Scalar<Duration> = Scalar {
    expecting: "a duration such as `90m`",
    numbers: false,
    schema: Schema::Pattern(r"^\s*([0-9.]+\s*(h|m|min|s|ms)\s*)+$"),
    read: duration::parse,
    show: |wait| duration::setting(*wait),
};
