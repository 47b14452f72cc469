//! What the config file says of records. Pure.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer};
use url::Url;

use super::config_text::{Read, Scalar, not, owned_if, share};
use crate::plan::config::record_rules::{Choice, Rules};

/// What becomes of records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecordsConfig {
    /// Which cases have records.
    pub rules: Rules,
    /// What the number of a Buildkite build is raised by to be the number of a run, where the dashboard orders by that.
    pub build_number_offset: Option<u64>,
    /// The API that takes records in place of the store; its user and password come from the environment.
    pub uploader: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping with keys such as `collision` or `uploader`")]
pub(super) struct RecordsFile {
    #[serde(deserialize_with = "collision")]
    pub(super) collision: Option<Choice>,
    #[serde(deserialize_with = "share")]
    pub(super) failed_share: Option<f64>,
    #[serde(deserialize_with = "number")]
    pub(super) build_number_offset: Option<u64>,
    #[serde(deserialize_with = "uploader")]
    pub(super) uploader: Option<String>,
}

impl RecordsFile {
    pub(super) fn over_defaults(self) -> RecordsConfig {
        RecordsConfig {
            rules: Rules {
                collision: self.collision.unwrap_or_default(),
                failed_share: self.failed_share.unwrap_or_default(),
            },
            build_number_offset: self.build_number_offset,
            uploader: self.uploader,
        }
    }
}

fn collision<'de, D: Deserializer<'de>>(deserializer: D) -> Read<Choice, D::Error> {
    const CHOICE: Scalar<Choice> = Scalar::text("`highest` or `lowest`", |text| match text {
        "highest" => Ok(Choice::Highest),
        "lowest" => Ok(Choice::Lowest),
        _ => Err(not(text, "a choice: expected `highest` or `lowest` concurrency")),
    });
    CHOICE.deserialize(deserializer).map(Some)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Read<u64, D::Error> {
    const NUMBER: Scalar<u64> = Scalar {
        expecting: "a whole number",
        numbers: true,
        read: |text| text.parse().map_err(|_| not(text, "a whole number")),
    };
    NUMBER.deserialize(deserializer).map(Some)
}

fn uploader<'de, D: Deserializer<'de>>(deserializer: D) -> Read<String, D::Error> {
    const UPLOADER: Scalar<String> = Scalar::text("a URL", |text| {
        owned_if(is_url(text), text, "an upload API: expected `https://HOST/PATH`, without a password in it")
    });
    UPLOADER.deserialize(deserializer).map(Some)
}

/// Whether a URL may be sent a password.
pub fn is_url(url: &str) -> bool {
    crate::names::is_safe(url).is_ok()
        && Url::parse(url)
            .is_ok_and(|url| url.username().is_empty() && url.password().is_none() && url.fragment().is_none())
}
