//! What was read of a store the last time, so that only what is new is read. Pure: a value and its JSON. Nothing depends
//! on it but the time: without it, or with one of another version, everything is read anew.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use vllm_verdict::change_points::Windows;

use super::record_object::{Name, Object, Run};
use crate::system::store::StoredObject;

/// The version of the cache.
const SCHEMA: &str = "vllm-perf/dashboard-cache/v1";

/// What was read of a branch in a store.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Cache {
    schema: String,
    /// The program that read it: another one may read more of a record.
    version: String,
    source: Source,
    /// The series that objects have numbers of.
    pub names: Vec<Name>,
    /// Every object, by its key.
    pub objects: BTreeMap<String, Kept>,
    /// What was found in the windows of the series.
    pub windows: Windows,
    /// Files of the site, by their path in its folder.
    pub files: Vec<String>,
    #[serde(skip)]
    numbers: HashMap<Name, u32>,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The name that the store was opened by.
    pub store: String,
    /// `OWNER/NAME`.
    pub repository: String,
    /// Branch.
    pub branch: String,
}

/// An object, with numbers in place of the names of its series.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Bytes, as the store keeps them.
    pub size: u64,
    /// When it was written.
    pub modified: jiff::Timestamp,
    /// What changes when the content does, where the store tells.
    pub etag: Option<String>,
    /// What was measured.
    pub runs: Vec<Run>,
    /// The series of its points, as numbers of [`Cache::names`].
    pub series: Vec<u32>,
    /// Run and series of this object, value.
    pub points: Vec<(u32, u32, f64)>,
    /// What is no record in it, and why.
    pub problems: Vec<String>,
}

impl Cache {
    /// An empty one.
    pub fn new(source: Source) -> Self {
        let (schema, version) = (SCHEMA.to_owned(), crate::VERSION.to_owned());
        Self { schema, version, source, ..Self::default() }
    }

    /// Reads one back.
    ///
    /// # Errors
    /// It cannot be read, or is of another store, program or version.
    pub fn read(text: &[u8], source: &Source) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
            version: String,
        }
        let head: Head = serde_json::from_slice(text).context("it cannot be read")?;
        ensure!(head.schema == SCHEMA && head.version == crate::VERSION, "it is of another version");
        let mut cache: Self = serde_json::from_slice(text).context("it cannot be read")?;
        ensure!(cache.source == *source, "it is of another store or branch");
        cache.numbers = cache.names.iter().cloned().zip(0..).collect();
        Ok(cache)
    }

    /// As JSON.
    ///
    /// # Errors
    /// Never for our own types.
    pub fn json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).context("cannot write the cache as JSON")
    }

    /// Whether an object is known as it is now.
    pub fn knows(&self, entry: &StoredObject) -> bool {
        let now = (entry.size, entry.modified, &entry.etag);
        self.objects.get(&entry.key).is_some_and(|kept| (kept.size, kept.modified, &kept.etag) == now)
    }

    /// Keeps what an object gave, in place of what it gave before.
    pub fn keep(&mut self, entry: StoredObject, object: Object) {
        let Object { runs, series, points, problems } = object;
        let names = &mut self.names;
        let mut number = |name: Name| {
            *self.numbers.entry(name).or_insert_with_key(|name| {
                names.push(name.clone());
                names.len() as u32 - 1
            })
        };
        let series = series.into_iter().map(&mut number).collect();
        let StoredObject { key, size, modified, etag } = entry;
        self.objects.insert(key, Kept { size, modified, etag, runs, series, points, problems });
    }

    /// Forgets the objects that are there no more.
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
    fn a_cache_is_read_back_and_one_of_anything_else_is_not() {
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
