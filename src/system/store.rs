//! The store of records and noise: a folder or an object store behind one interface. Objects are added and read, never
//! replaced, because a reader may have used them already.

pub mod folder_store;
pub mod object_client;
pub mod object_key;
pub mod stored_object;

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use url::Url;

use crate::environment::Environment;
use crate::exit::Classify;
use folder_store::Folder;
use object_client::Objects;

pub use stored_object::{Added, StoredObject};

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

impl Store {
    /// The store at `place`: a path, `file:///FOLDER`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`.
    /// Nothing is read or made yet. Credentials and endpoints of an object store come from `environment` (`AWS_*`,
    /// `GOOGLE_*`, `AZURE_*`), else from the cloud machine or container.
    ///
    /// # Errors
    /// The user's mistake: a place of another kind, or wrong settings.
    pub fn open(place: &str, environment: &Environment) -> Result<Self> {
        let folder = |path: PathBuf| Ok(Kind::Folder(Folder(path)));
        let kind = match place.split_once("://") {
            None => folder(PathBuf::from(place)),
            Some(("file", _)) => match Url::parse(place).ok().and_then(|url| url.to_file_path().ok()) {
                Some(path) => folder(path),
                None => Err(anyhow!(
                    "`{place}` does not name a folder: expected `file:///` and an absolute path, or a path"
                )),
            },
            Some(_) => Objects::open(place, environment).map(Kind::Objects),
        };
        Ok(Self { place: place.to_owned(), kind: kind.mistake()? })
    }

    /// The place that was given to [`Store::open`].
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether the store can exist: a folder that is there, or any object store, which only a request can check.
    pub fn is_there(&self) -> bool {
        match &self.kind {
            Kind::Folder(folder) => folder.0.is_dir(),
            Kind::Objects(_) => true,
        }
    }

    /// Every object below a prefix of whole segments (`v3/vllm-project`; all for an empty one), sorted by key. A store that
    /// was never written to has none. Files with names that are not keys are left out.
    ///
    /// # Errors
    /// External: the store cannot be read.
    pub async fn list(&self, prefix: &str) -> Result<Vec<StoredObject>> {
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

    /// The content of an object, decompressed.
    ///
    /// # Errors
    /// External: it is not there, cannot be read, or is too large.
    pub async fn read(&self, key: &str) -> Result<Vec<u8>> {
        let read = match &self.kind {
            Kind::Folder(folder) => folder.read(key),
            Kind::Objects(objects) => objects.read(key).await,
        };
        read.and_then(stored_object::decompressed)
            .with_context(|| format!("cannot read `{key}` in the store `{}`", self.place))
            .world()
    }

    /// Whether there is an object with this key.
    ///
    /// # Errors
    /// External: the store cannot be asked.
    pub async fn exists(&self, key: &str) -> Result<bool> {
        let exists = match &self.kind {
            Kind::Folder(folder) => folder.exists(key),
            Kind::Objects(objects) => objects.exists(key).await,
        };
        exists.with_context(|| format!("cannot check for `{key}` in the store `{}`", self.place)).world()
    }

    /// Adds an object, unless there is one with its key. An object store gets it compressed, as JSON.
    ///
    /// # Errors
    /// The user's mistake: a key with a character that a store would encode. External: it cannot be written.
    pub async fn add(&self, key: &str, content: &[u8]) -> Result<Added> {
        let cannot = || format!("cannot add `{key}` to the store `{}`", self.place);
        object_key::check(key).with_context(cannot).mistake()?;
        // Checked first: not every compatible store supports "put if absent", and a check is cheaper than a refused body.
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
    async fn an_added_object_is_listed_and_read_and_never_replaced() {
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
    async fn of_two_writers_of_one_key_one_writes_and_the_other_finds_it_there() {
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
    async fn a_stray_file_in_a_folder_does_not_prevent_reading() {
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
    async fn a_missing_object_is_an_error_that_names_it() {
        let (_folder, store) = folder();
        let error = store.read("v3/none.json").await.unwrap_err();
        assert_eq!(exit::of(&error), Exit::World);
        assert!(format!("{error:#}").starts_with("cannot read `v3/none.json` in the store `"), "{error:#}");
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
