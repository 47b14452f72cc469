//! Where records and noise of main are kept: a folder or an object store behind one interface. World. It only grows: what
//! is there is read and never replaced, because a reader may have taken it already.

pub mod folder_store;
pub mod object_client;
pub mod object_key;

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use flate2::read::MultiGzDecoder;
use folder_store::Folder;
use object_client::Objects;
use url::Url;

use crate::environment::Environment;
use crate::exit::Classify;

/// Bytes of one object, unzipped: a night of records has a hundredth of it.
const OBJECT_LIMIT: u64 = 256 << 20;

/// A folder or an object store.
#[derive(Debug, Clone)]
pub struct Store {
    place: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Folder(Folder),
    Objects(Objects),
}

/// An object, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name below the root of the store.
    pub key: String,
    /// Bytes, as they are kept.
    pub size: u64,
    /// When it was written.
    pub modified: jiff::Timestamp,
    /// What changes when the content does, where the store tells.
    pub etag: Option<String>,
}

/// What became of an object that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is there now.
    Written,
    /// One of this name was there before; it was left as it is.
    AlreadyThere,
}

impl Store {
    /// The store at `place`: a path, `file:///FOLDER`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`.
    /// Nothing is read or made yet. Credentials and endpoints of an object store come from `environment`: `AWS_*`,
    /// `GOOGLE_*`, `AZURE_*`, else from the machine or container that we run on.
    ///
    /// # Errors
    /// The user's mistake: a place of another kind, or settings that make no connection.
    pub fn open(place: &str, environment: &Environment) -> Result<Self> {
        let folder = |path: PathBuf| Ok(Kind::Folder(Folder(path)));
        let kind = match place.split_once("://") {
            None => folder(PathBuf::from(place)),
            Some(("file", _)) => match Url::parse(place).ok().and_then(|url| url.to_file_path().ok()) {
                Some(path) => folder(path),
                None => Err(anyhow!("`{place}` names no folder: expected `file:///` and an absolute path, or a path")),
            },
            Some(_) => Objects::open(place, environment).map(Kind::Objects),
        };
        Ok(Self { place: place.to_owned(), kind: kind.mistake()? })
    }

    /// The name that it was opened by.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether there is anything to ask: a folder that exists, or an object store, which only an answer tells of.
    pub fn is_there(&self) -> bool {
        match &self.kind {
            Kind::Folder(folder) => folder.0.is_dir(),
            Kind::Objects(_) => true,
        }
    }

    /// Every object below a prefix of whole segments (`v3/vllm-project`; all for an empty one), sorted by key. A store that
    /// was never written to has none; what no key of ours can name is left out.
    ///
    /// # Errors
    /// The world's: the store cannot be read.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let prefix = prefix.trim_end_matches('/');
        let listed = match &self.kind {
            Kind::Folder(folder) => folder.list(prefix),
            Kind::Objects(objects) => objects.list(prefix).await,
        };
        let mut entries =
            listed.with_context(|| format!("cannot list `{prefix}` in the store `{}`", self.place)).world()?;
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    /// The content of an object, unzipped where it is kept zipped.
    ///
    /// # Errors
    /// The world's: it is not there, cannot be read, or is larger than any of ours.
    pub async fn read(&self, key: &str) -> Result<Vec<u8>> {
        let read = match &self.kind {
            Kind::Folder(folder) => folder.read(key),
            Kind::Objects(objects) => objects.read(key).await,
        };
        read.and_then(unzipped).with_context(|| format!("cannot read `{key}` in the store `{}`", self.place)).world()
    }

    /// Whether there is an object of this name.
    ///
    /// # Errors
    /// The world's: the store does not tell.
    pub async fn exists(&self, key: &str) -> Result<bool> {
        let exists = match &self.kind {
            Kind::Folder(folder) => folder.exists(key),
            Kind::Objects(objects) => objects.exists(key).await,
        };
        exists.with_context(|| format!("cannot look for `{key}` in the store `{}`", self.place)).world()
    }

    /// Adds an object, unless one of its name is there. An object store gets it zipped, as JSON.
    ///
    /// # Errors
    /// A key with a character that a store would encode is the user's mistake; else the world's: it cannot be written.
    pub async fn add(&self, key: &str, content: &[u8]) -> Result<Added> {
        let cannot = || format!("cannot add `{key}` to the store `{}`", self.place);
        object_key::check(key).with_context(cannot).mistake()?;
        // A look first: not every look-alike keeps to "put if absent", and a look is cheaper than a refused body.
        if self.exists(key).await? {
            return Ok(Added::AlreadyThere);
        }
        let added = match &self.kind {
            Kind::Folder(folder) => folder.add(key, content),
            Kind::Objects(objects) => objects.add(key, content).await,
        };
        added.with_context(cannot).world()
    }
}

/// Told by its first bytes: some stores unzip on the way, whatever the headers say. No JSON begins with them.
fn unzipped(content: Vec<u8>) -> Result<Vec<u8>> {
    if !content.starts_with(&[0x1f, 0x8b]) {
        return Ok(content);
    }
    let mut plain = Vec::new();
    MultiGzDecoder::new(content.as_slice()).take(OBJECT_LIMIT + 1).read_to_end(&mut plain)?;
    ensure!(plain.len() as u64 <= OBJECT_LIMIT, "unzipped it has more than {OBJECT_LIMIT} bytes");
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{self, Exit};

    fn folder() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("store").display().to_string();
        let store = Store::open(&place, &Environment::default()).unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn what_was_added_is_listed_and_read_and_never_replaced() {
        let (_folder, store) = folder();
        assert_eq!(store.list("").await.unwrap(), []);
        assert!(!store.exists("v3/b/x.json").await.unwrap());
        assert_eq!(store.add("v3/b/x.json", b"first").await.unwrap(), Added::Written);
        assert_eq!(store.add("v3/a.json", b"{}").await.unwrap(), Added::Written);
        assert_eq!(store.add("v3/b/x.json", b"second").await.unwrap(), Added::AlreadyThere);
        assert_eq!(store.read("v3/b/x.json").await.unwrap(), b"first");
        let keys = async |prefix: &str| -> Vec<(String, u64)> {
            store.list(prefix).await.unwrap().into_iter().map(|it| (it.key, it.size)).collect()
        };
        assert_eq!(keys("").await, [("v3/a.json".into(), 2), ("v3/b/x.json".into(), 5)]);
        assert_eq!(keys("v3/b/").await, [("v3/b/x.json".into(), 5)]);
        assert_eq!(keys("v4").await, []);
    }

    #[tokio::test]
    async fn of_two_writers_of_one_key_the_first_wins_and_the_other_is_told() {
        let (_folder, store) = folder();
        let adds: Vec<_> = (0..8)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move { store.add("noise/a.json", format!("{number}").as_bytes()).await.unwrap() })
            })
            .collect();
        let mut written = 0;
        for add in adds {
            written += usize::from(add.await.unwrap() == Added::Written);
        }
        assert_eq!(written, 1);
        assert_eq!(store.list("").await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_key_that_leads_out_or_would_be_encoded_is_refused() {
        let (folder, store) = folder();
        for key in ["../x", "v3//x", "v3/./x", "/x", "a b", "é.json", "a;b", "a+b", "a\"b", "", "x/"] {
            let error = store.add(key, b"x").await.unwrap_err();
            assert_eq!(exit::of(&error), Exit::Mistake, "{key}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_stray_file_in_a_folder_keeps_nobody_from_reading() {
        let (folder, store) = folder();
        store.add("v3/a.json", b"{}").await.unwrap();
        for name in ["a b", "é", "x#1", "%2e%2e", ".hidden", "a\\b", "..x", "~", "a\nb"] {
            crate::system::output::write(&folder.path().join("store/v3").join(name), b"x").unwrap();
        }
        std::os::unix::fs::symlink("/nowhere", folder.path().join("store/v3/dangling")).unwrap();
        std::fs::create_dir(folder.path().join("store/v3/empty")).unwrap();
        let keys: Vec<String> = store.list("v3").await.unwrap().into_iter().map(|entry| entry.key).collect();
        assert!(keys.contains(&"v3/a.json".to_owned()), "{keys:?}");
        assert!(keys.iter().all(|key| object_key::check(key).is_ok()), "{keys:?}");
    }

    #[tokio::test]
    async fn what_is_not_there_is_an_error_that_names_it() {
        let (_folder, store) = folder();
        let error = store.read("v3/none.json").await.unwrap_err();
        assert_eq!(exit::of(&error), Exit::World);
        assert!(format!("{error:#}").starts_with("cannot read `v3/none.json` in the store `"), "{error:#}");
    }

    #[test]
    fn zipped_content_is_unzipped_by_its_first_bytes() {
        assert_eq!(unzipped(object_client::zipped(b"{\"a\":1}").unwrap()).unwrap(), b"{\"a\":1}");
        assert_eq!(unzipped(b"{}".to_vec()).unwrap(), b"{}");
        assert!(unzipped(vec![0x1f, 0x8b, 8]).is_err());
    }

    #[test]
    fn a_place_is_a_path_a_file_url_or_a_bucket() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let environment: Environment =
            [("AWS_SKIP_SIGNATURE", "true"), ("AZURE_STORAGE_ACCOUNT_NAME", "a")].into_iter().collect();
        for (place, remote) in [
            ("noise", false),
            ("file:///srv/vllm%20perf", false),
            ("s3://ossci-benchmarks", true),
            ("s3://ossci-benchmarks/a/b", true),
            ("gs://bucket", true),
            ("az://container/prefix", true),
        ] {
            let store = Store::open(place, &environment).unwrap();
            assert_eq!(matches!(store.kind, Kind::Objects(_)), remote, "{place}");
        }
        for place in
            ["file://host/x", "ftp://x", "s3://", "s3://bucket?x", "s3://a:b@bucket", "https://uploader.example"]
        {
            let error = Store::open(place, &environment).unwrap_err();
            assert_eq!(exit::of(&error), Exit::Mistake, "{place}");
            assert!(!format!("{error:#}").contains("a:b"), "{error:#}");
        }
    }
}
