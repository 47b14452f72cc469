//! The cache of a site: the content of all objects that were read before, so that a build only reads new ones. It only
//! affects the time of a build: without it, or with one of another version, all objects are read again.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use vllm_verdict::change_points::Windows;

use super::record_object::{Object, Run, SeriesName};
use crate::system::store::StoredObject;

/// The version of the cache.
const SCHEMA: &str = "vllm-perf/dashboard-cache/v1";

/// The cached content of a branch in a store.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Cache {
    schema: String,
    /// Version of vllm-perf; another version may read records differently.
    version: String,
    source: Source,
    /// The series; objects refer to them by index.
    pub names: Vec<SeriesName>,
    /// All objects, by key.
    pub objects: BTreeMap<String, CachedObject>,
    /// Windows of the change point search.
    pub windows: Windows,
    /// Files of the site, relative to its folder.
    pub files: Vec<String>,
    #[serde(skip)]
    numbers: HashMap<SeriesName, u32>,
}

/// The source of a cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The store as it was opened.
    pub store: String,
    /// `OWNER/NAME`.
    pub repository: String,
    pub branch: String,
}

/// The cached content of an object, with indices in place of the names of its series.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CachedObject {
    /// Size in the store, in bytes.
    pub size: u64,
    pub modified: jiff::Timestamp,
    /// Entity tag, if the store has one.
    pub etag: Option<String>,
    pub runs: Vec<Run>,
    /// The series of its points, as indices into [`Cache::names`].
    pub series: Vec<u32>,
    /// Index into `runs`, index into `series`, value.
    pub points: Vec<(u32, u32, f64)>,
    /// Skipped records, with the reason.
    pub problems: Vec<String>,
}

impl Cache {
    pub fn new(source: Source) -> Self {
        let (schema, version) = (SCHEMA.to_owned(), crate::VERSION.to_owned());
        Self { schema, version, source, ..Self::default() }
    }

    /// Reads a cache from JSON.
    ///
    /// # Errors
    /// It cannot be parsed, or has another source or version.
    pub fn read(text: &[u8], source: &Source) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
            version: String,
        }
        let head: Head = serde_json::from_slice(text).context("it cannot be parsed")?;
        ensure!(head.schema == SCHEMA && head.version == crate::VERSION, "it has another version");
        let mut cache: Self = serde_json::from_slice(text).context("it cannot be parsed")?;
        ensure!(cache.source == *source, "it belongs to another store or branch");
        cache.numbers = cache.names.iter().cloned().zip(0..).collect();
        Ok(cache)
    }

    /// As JSON.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).context("cannot write the cache as JSON")
    }

    /// Whether the cache has the current content of an object.
    pub fn knows(&self, entry: &StoredObject) -> bool {
        let now = (entry.size, entry.modified, &entry.etag);
        self.objects.get(&entry.key).is_some_and(|kept| (kept.size, kept.modified, &kept.etag) == now)
    }

    /// Stores the content of an object, and replaces older content.
    pub fn keep(&mut self, entry: StoredObject, object: Object) {
        let Object { runs, series, points, problems } = object;
        let names = &mut self.names;
        let mut number = |name: SeriesName| {
            *self.numbers.entry(name).or_insert_with_key(|name| {
                names.push(name.clone());
                names.len() as u32 - 1
            })
        };
        let series = series.into_iter().map(&mut number).collect();
        let StoredObject { key, size, modified, etag } = entry;
        self.objects.insert(key, CachedObject { size, modified, etag, runs, series, points, problems });
    }

    /// Removes objects that no longer exist.
    pub fn retain(&mut self, entries: &[StoredObject]) {
        // Both are sorted by key.
        self.objects.retain(|key, _| entries.binary_search_by(|entry| entry.key.as_str().cmp(key)).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::series::tests::name;

    fn entry(key: &str, size: u64) -> StoredObject {
        StoredObject { key: key.into(), size, modified: jiff::Timestamp::UNIX_EPOCH, etag: None }
    }

    #[test]
    fn a_cache_is_read_back_unless_its_source_or_version_differs() {
        let source = Source { store: "s".into(), repository: "a/b".into(), branch: "main".into() };
        let mut cache = Cache::new(source.clone());
        let object = |rate: &str| Object {
            series: vec![name("m", "latency", rate)],
            points: vec![(0, 0, 0.1)],
            ..Object::default()
        };
        cache.keep(entry("a", 1), object("1"));
        cache.keep(entry("b", 1), object("2"));
        let json = cache.json().unwrap();
        let mut read = Cache::read(&json, &source).unwrap();
        assert!(read.knows(&entry("a", 1)) && !read.knows(&entry("a", 2)) && !read.knows(&entry("c", 1)));
        read.keep(entry("c", 1), object("2"));
        assert_eq!(read.objects["c"].series, [1]);
        read.retain(&[entry("c", 1)]);
        assert_eq!(read.objects.len(), 1);
        let other = Source { branch: "release".into(), ..source.clone() };
        assert!(Cache::read(&json, &other).is_err());
        assert!(Cache::read(&json[..json.len() / 2], &source).is_err());
        let text = String::from_utf8(json).unwrap();
        assert!(Cache::read(text.replace(crate::VERSION, "0.0.0").as_bytes(), &source).is_err());
    }
}
