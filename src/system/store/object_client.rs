//! Object stores: S3, Google Cloud Storage and Azure, through the crate `object_store`.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    Attribute, Attributes, Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig,
};
use url::Url;

use super::object_key;
use super::stored_object::{Added, OBJECT_LIMIT, StoredObject, compressed};
use crate::environment::Environment;

/// How often a request without an answer is repeated, and how long in all.
const RETRIES: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest message of a store in an error, in characters.
const MESSAGE_LIMIT: usize = 800;

/// An object store, from a prefix on.
#[derive(Debug, Clone)]
pub(super) struct Objects(Arc<dyn ObjectStore>);

impl Objects {
    pub(super) fn open(place: &str, environment: &Environment) -> Result<Self> {
        open(place, environment).map(Self)
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<StoredObject>> {
        let prefix = (!prefix.is_empty()).then(|| Path::parse(prefix)).transpose()?;
        let metas: Vec<ObjectMeta> = self.0.list(prefix.as_ref()).try_collect().await.map_err(explain)?;
        metas.into_iter().filter(|meta| object_key::check(meta.location.as_ref()).is_ok()).map(entry).collect()
    }

    pub(super) async fn read(&self, key: &str) -> Result<Vec<u8>> {
        let got = self.0.get(&Path::parse(key)?).await.map_err(explain)?;
        ensure!(got.meta.size <= OBJECT_LIMIT, "it has {} bytes; at most {OBJECT_LIMIT} are read", got.meta.size);
        Ok(got.bytes().await.map_err(explain)?.to_vec())
    }

    pub(super) async fn exists(&self, key: &str) -> Result<bool> {
        match self.0.head(&Path::parse(key)?).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(explain(error)),
        }
    }

    pub(super) async fn add(&self, key: &str, content: &[u8]) -> Result<Added> {
        let (path, content) = (Path::parse(key)?, compressed(content)?);
        let options = PutOptions { mode: PutMode::Create, attributes: attributes(), ..PutOptions::default() };
        let put = match self.0.put_opts(&path, content.clone().into(), options.clone()).await {
            // A compatible store whose settings exclude "put if absent": the check before has to suffice.
            Err(Error::NotImplemented { .. }) => {
                let options = PutOptions { mode: PutMode::Overwrite, ..options };
                self.0.put_opts(&path, content.into(), options).await
            }
            put => put,
        };
        match put {
            Ok(_) => Ok(Added::Written),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Added::AlreadyThere),
            Err(error) => Err(explain(error)),
        }
    }
}

fn entry(meta: ObjectMeta) -> Result<StoredObject> {
    let (second, nanosecond) = (meta.last_modified.timestamp(), meta.last_modified.timestamp_subsec_nanos());
    Ok(StoredObject {
        key: meta.location.to_string(),
        size: meta.size,
        modified: jiff::Timestamp::new(second, i32::try_from(nanosecond).unwrap_or_default())?,
        etag: meta.e_tag,
    })
}

/// The store of a URL; its path is a prefix of every key.
fn open(place: &str, environment: &Environment) -> Result<Arc<dyn ObjectStore>> {
    let expected =
        "expected a path, `file:///FOLDER`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`";
    let url = Url::parse(place).with_context(|| format!("`{place}` is not a store: {expected}"))?;
    ensure!(
        url.username().is_empty() && url.password().is_none(),
        "the URL of the store has a user or a password: give credentials in the environment, e.g. `AWS_ACCESS_KEY_ID`"
    );
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty());
    let bucket = bucket.with_context(|| format!("`{place}` does not name a bucket: {expected}"))?;
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
            "`{place}` is not a store that can be read: {expected}; an upload API is named in the config, `records: {{uploader: URL}}`"
        ),
        scheme => bail!("`{scheme}://` is not a store: {expected}"),
    }
}

/// Applies every setting of the environment that a client knows; other names belong to other programs.
fn configured<Builder, Key: FromStr>(
    environment: &Environment,
    family: &str,
    mut builder: Builder,
    with: fn(Builder, Key, String) -> Builder,
) -> Result<Builder> {
    for (name, value) in environment.iter().filter(|(name, _)| name.starts_with(family)) {
        let Ok(key) = name.to_ascii_lowercase().parse() else { continue };
        // The client accepts any text as a URL, and panics at its first request.
        let value = if name.contains("ENDPOINT") { endpoint(name, value)? } else { value.to_owned() };
        builder = with(builder, key, value);
    }
    Ok(builder)
}

fn endpoint(name: &str, value: &str) -> Result<String> {
    let url = Url::parse(value).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.with_context(|| format!("{name} is not a URL: expected `https://HOST`, `{value}` was given"))?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn retry() -> RetryConfig {
    RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() }
}

fn rooted(store: impl ObjectStore, prefix: &str) -> Result<Arc<dyn ObjectStore>> {
    if prefix.is_empty() {
        return Ok(Arc::new(store));
    }
    object_key::check(prefix)?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

/// As the dashboard's ingestion takes an object.
fn attributes() -> Attributes {
    Attributes::from_iter([(Attribute::ContentType, "application/json"), (Attribute::ContentEncoding, "gzip")])
}

/// The message of a store, on one line and of bounded length, and a remedy.
fn explain(error: Error) -> anyhow::Error {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        // Some errors repeat their cause; the last cause, which has the reason, is not repeated.
        let text = cause.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        source = cause.source();
    }
    let message: String =
        message.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MESSAGE_LIMIT).collect();
    let hint = match &error {
        // The address where machines of a cloud ask for credentials, as the last resort.
        _ if message.contains("169.254.169.254") => {
            "; there are no credentials: give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
             or AWS_SKIP_SIGNATURE=true for a public bucket"
        }
        Error::Unauthenticated { .. } | Error::PermissionDenied { .. } => {
            "; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS or \
             AZURE_STORAGE_ACCOUNT_KEY; a public bucket is read with AWS_SKIP_SIGNATURE=true"
        }
        _ => "",
    };
    anyhow!("{message}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_client_come_from_the_given_environment() {
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
            assert!(error.starts_with("AWS_ENDPOINT_URL_S3 is not a URL"), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_message_of_a_store_is_one_bounded_line_with_a_remedy() {
        let error = Error::PermissionDenied { path: "a".into(), source: "no\n<xml>".repeat(200).into() };
        let message = explain(error).to_string();
        assert!(!message.contains('\n') && message.contains("AWS_ACCESS_KEY_ID"), "{message}");
        assert!(message.chars().count() < MESSAGE_LIMIT + 300);
    }
}
