//! The clients of object stores, and the form in which they keep an object. World: the network, through `object_store`.

use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::prefix::PrefixStore;
use object_store::{Attribute, Attributes, Error, ObjectStore, RetryConfig};
use url::Url;

use crate::environment::Environment;

/// How often a request is tried again that the store did not answer, and how long in all.
const RETRIES: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest text of a store's that an error repeats, in characters.
const SAID_LIMIT: usize = 400;

/// The store of a URL; its path is a prefix of every key.
pub(super) fn open(place: &str, environment: &Environment) -> Result<Arc<dyn ObjectStore>> {
    let expected =
        "expected a path, `file:///FOLDER`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`";
    let url = Url::parse(place).with_context(|| format!("`{place}` is no store: {expected}"))?;
    ensure!(
        url.username().is_empty() && url.password().is_none(),
        "the store's URL holds a user or a password: give credentials in the environment, `AWS_ACCESS_KEY_ID` for instance"
    );
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty());
    let bucket = bucket.with_context(|| format!("`{place}` names no bucket: {expected}"))?;
    ensure!(url.query().is_none() && url.fragment().is_none(), "`{place}` has more than a bucket and a prefix");
    let cannot = || format!("cannot use the store `{place}`");
    let prefix = url.path().trim_matches('/').to_owned();
    match url.scheme() {
        "s3" => {
            let client = configured(environment, "AWS_", AmazonS3Builder::new(), AmazonS3Builder::with_config)?;
            let client = client.with_bucket_name(bucket).with_retry(retry());
            rooted(client.build().with_context(cannot)?, &prefix)
        }
        "gs" => {
            let new = GoogleCloudStorageBuilder::new();
            let client = configured(environment, "GOOGLE_", new, GoogleCloudStorageBuilder::with_config)?;
            let client = client.with_bucket_name(bucket).with_retry(retry());
            rooted(client.build().with_context(cannot)?, &prefix)
        }
        "az" => {
            let new = MicrosoftAzureBuilder::new();
            let client = configured(environment, "AZURE_", new, MicrosoftAzureBuilder::with_config)?;
            let client = client.with_container_name(bucket).with_retry(retry());
            rooted(client.build().with_context(cannot)?, &prefix)
        }
        "http" | "https" => bail!(
            "`{place}` is no store that can be read: {expected}; an upload API is named in the config, `records: {{uploader: URL}}`"
        ),
        scheme => bail!("`{scheme}://` is no store: {expected}"),
    }
}

/// Every setting that the environment has for a client; names that it does not know are another program's.
fn configured<Builder, Key: FromStr>(
    environment: &Environment,
    family: &str,
    mut builder: Builder,
    with: fn(Builder, Key, String) -> Builder,
) -> Result<Builder> {
    for (name, value) in environment.iter().filter(|(name, _)| name.starts_with(family)) {
        let Ok(key) = name.to_ascii_lowercase().parse() else { continue };
        // The client takes any text for a URL and panics when it sends its first request there.
        let value = if name.contains("ENDPOINT") { endpoint(name, value)? } else { value.to_owned() };
        builder = with(builder, key, value);
    }
    Ok(builder)
}

fn endpoint(name: &str, value: &str) -> Result<String> {
    let url = Url::parse(value).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.with_context(|| format!("{name} is no URL: expected `https://HOST`, `{value}` was given"))?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn retry() -> RetryConfig {
    RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() }
}

fn rooted(store: impl ObjectStore, prefix: &str) -> Result<Arc<dyn ObjectStore>> {
    if prefix.is_empty() {
        return Ok(Arc::new(store));
    }
    super::key::check(prefix)?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

/// As the dashboard's ingestion takes an object.
pub(super) fn attributes() -> Attributes {
    Attributes::from_iter([(Attribute::ContentType, "application/json"), (Attribute::ContentEncoding, "gzip")])
}

/// Without the time, so that the same content has the same bytes.
pub(super) fn zipped(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

/// What the store said, on one line and of bounded length, and what may be done about it.
pub(super) fn explain(error: Error) -> anyhow::Error {
    let hint = match &error {
        Error::Unauthenticated { .. } | Error::PermissionDenied { .. } => {
            "; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS or \
             AZURE_STORAGE_ACCOUNT_KEY; a public bucket is read with AWS_SKIP_SIGNATURE=true"
        }
        _ => "",
    };
    let said: String = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = said.chars().take(SAID_LIMIT).collect();
    anyhow!("{said}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_zips_to_the_same_bytes() {
        assert_eq!(zipped(b"{}").unwrap(), zipped(b"{}").unwrap());
        assert_eq!(zipped(b"{}").unwrap()[4..8], [0; 4]);
    }

    #[test]
    fn settings_of_a_client_come_from_the_environment_value() {
        let environment: Environment =
            [("AWS_ACCESS_KEY_ID", "me"), ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_WHATEVER", "x")]
                .into_iter()
                .collect();
        let of = |environment: &Environment| {
            configured(environment, "AWS_", AmazonS3Builder::new(), AmazonS3Builder::with_config)
        };
        let client = of(&environment).unwrap();
        let value = |name: &str| client.get_config_value(&name.parse().unwrap());
        assert_eq!(value("aws_access_key_id").as_deref(), Some("me"));
        assert_eq!(value("aws_endpoint_url").as_deref(), Some("http://127.0.0.1:1"));
        for wrong in ["127.0.0.1:1", "http://127.0.0.1:x", "ftp://host", "host", "http://"] {
            let error = of(&[("AWS_ENDPOINT_URL_S3", wrong)].into_iter().collect()).unwrap_err().to_string();
            assert!(error.starts_with("AWS_ENDPOINT_URL_S3 is no URL"), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_a_store_says_is_one_bounded_line_with_what_helps() {
        let error = Error::PermissionDenied { path: "a".into(), source: "no\n<xml>".repeat(200).into() };
        let said = explain(error).to_string();
        assert!(!said.contains('\n') && said.contains("AWS_ACCESS_KEY_ID"), "{said}");
        assert!(said.chars().count() < SAID_LIMIT + 300);
    }
}
