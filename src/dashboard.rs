//! The dashboard, a static site from the records in a store: recent changes, and all series over the commits of a branch.

pub mod alarms;
pub mod overview;
pub mod page_data;
pub mod pages;
pub mod record_object;
pub mod series;
pub mod site_cache;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use futures_util::{StreamExt, stream};
use vllm_verdict::number;

use crate::exit::Classify;
use crate::system::output;
use crate::system::store::object_key::RecordKey;
use crate::system::store::{Store, StoredObject};
use page_data::{Page, Site};
use record_object::Object;
use series::Setting;
use site_cache::{Cache, Source};

/// The cache file in the folder of the site.
const CACHE: &str = ".vllm-perf-cache.json";

/// Number of concurrent reads: enough to hide the latency of an object store, few enough for memory.
const AT_A_TIME: usize = 16;

/// Summary of a build.
#[derive(Debug, Default)]
pub struct Built {
    pub pages: usize,
    pub series: usize,
    /// Objects that were read in this build.
    pub read: usize,
    /// All objects of the site.
    pub objects: usize,
    /// Files with new content.
    pub written: usize,
    /// Files of earlier builds that no page uses any more.
    pub removed: usize,
    /// Recent changes: number of series that got worse, and better.
    pub alarms: (usize, usize),
    /// Messages for the user: objects that are not records, values that were replaced.
    pub notes: Vec<String>,
    /// Errors of objects that could not be read; the next build tries again.
    pub unread: Vec<String>,
}

/// Builds or updates the site of a branch in a folder. Files whose content does not change are not written.
///
/// # Errors
/// External: the store cannot be listed, or the folder cannot be written.
pub async fn build(store: &Store, setting: &Setting, out: &Path) -> Result<Built> {
    let mut built = Built::default();
    let mut cache = previous(store, setting, out, &mut built.notes);
    let entries = records(store, setting, &mut built.notes).await?;
    cache.retain(&entries);
    let new: Vec<StoredObject> = entries.into_iter().filter(|entry| !cache.knows(entry)).collect();
    let reading = new.into_iter().map(|entry| {
        let (store, repository, branch) = (store.clone(), setting.repository.clone(), setting.branch.clone());
        // A separate task, because parsing is most of the work and CPU-bound.
        tokio::spawn(async move {
            let content = store.read(&entry.key).await;
            (entry, content.map(|content| record_object::read(&content, &repository, &branch)))
        })
    });
    let mut reading = stream::iter(reading).buffer_unordered(AT_A_TIME);
    while let Some(read) = reading.next().await {
        let (entry, object): (StoredObject, Result<Object>) = read.context("cannot read an object of the store")?;
        match object {
            Ok(object) => {
                built.read += 1;
                cache.keep(entry, object);
            }
            Err(error) => built.unread.push(format!("{error:#}")),
        }
    }
    built.unread.sort();
    built.objects = cache.objects.len();
    for (key, kept) in &cache.objects {
        built.notes.extend(kept.problems.iter().map(|problem| format!("`{key}`: skipped: {problem}")));
    }
    let pages = series::pages(&cache.names, cache.objects.values(), setting, &cache.windows);
    if pages.replaced > 0 {
        built.notes.push(format!(
            "{} measured more than once at a commit: only the latest attempt is shown",
            number::plural(pages.replaced, "value")
        ));
    }
    cache.windows = pages.windows;
    write(&pages.pages, setting, out, &mut cache, &mut built)?;
    output::write(&out.join(CACHE), &cache.json()?).world()?;
    Ok(built)
}

/// The repositories that a store has records of.
///
/// # Errors
/// External: the store cannot be listed.
pub async fn repositories(store: &Store) -> Result<BTreeSet<String>> {
    let keys = store.list("v3").await?;
    Ok(keys.iter().filter_map(|entry| Some(entry.key.parse::<RecordKey>().ok()?.repository)).collect())
}

/// The cache of the last build, or an empty one if it cannot be used.
fn previous(store: &Store, setting: &Setting, out: &Path, notes: &mut Vec<String>) -> Cache {
    let source = Source {
        store: store.place().to_owned(),
        repository: setting.repository.clone(),
        branch: setting.branch.clone(),
    };
    let path = out.join(CACHE);
    match std::fs::read(&path) {
        Ok(text) => Cache::read(&text, &source).unwrap_or_else(|error| {
            notes.push(format!("all objects are read again, without the cache `{}`: {error:#}", path.display()));
            Cache::new(source)
        }),
        Err(_) => Cache::new(source),
    }
}

/// The objects of the branch whose keys are keys of records.
async fn records(store: &Store, setting: &Setting, notes: &mut Vec<String>) -> Result<Vec<StoredObject>> {
    let mut entries = store.list(&RecordKey::branch_prefix(&setting.repository, &setting.branch)).await?;
    let all = entries.len();
    entries.retain(|entry| entry.key.parse::<RecordKey>().is_ok());
    if entries.len() < all {
        let others = number::plural(all - entries.len(), "object");
        notes.push(format!("{others} skipped: the key is not a key of records"));
    }
    Ok(entries)
}

/// Writes the files of the site that changed, and removes files of earlier builds that it no longer has.
fn write(pages: &[Page], setting: &Setting, out: &Path, cache: &mut Cache, built: &mut Built) -> Result<()> {
    let site: Site = overview::site(pages, setting);
    let alarms = alarms::alarms(pages, setting);
    built.pages = pages.len();
    built.series = pages.iter().map(|page| page.series.len()).sum();
    built.alarms = (alarms.alarms.len(), alarms.improvements.len());
    let mut files = Vec::new();
    let mut put = |name: String, content: &[u8]| -> Result<()> {
        let path = out.join(&name);
        if std::fs::read(&path).map_or(true, |old| old != content) {
            output::replace(&path, content).world()?;
            built.written += 1;
        }
        files.push(name);
        Ok(())
    };
    for asset in pages::assets() {
        put(format!("assets/{}", asset.name), asset.bytes)?;
    }
    for page in pages {
        put(format!("{}.html", page.id), pages::page(page).as_bytes())?;
        put(format!("data/{}.js", page.id), page_data::page_script(page)?.as_bytes())?;
        put(format!("data/{}.csv", page.id), page_data::table(page).as_bytes())?;
    }
    put("data/index.js".to_owned(), page_data::index_script(&site)?.as_bytes())?;
    put("compare.html".to_owned(), pages::compare(&site).as_bytes())?;
    put("index.html".to_owned(), pages::index(&site).as_bytes())?;
    put("alarms.md".to_owned(), alarms.markdown().as_bytes())?;
    let json = serde_json::to_string_pretty(&alarms).context("cannot write the alarms as JSON")?;
    put("alarms.json".to_owned(), json.as_bytes())?;
    files.sort();
    let assets = std::fs::read_dir(out.join("assets")).into_iter().flatten().flatten();
    let assets = assets.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| pages::is_asset(name));
    let before: BTreeSet<String> = std::mem::replace(&mut cache.files, files).into_iter().collect();
    for old in before.into_iter().chain(assets.map(|name| format!("assets/{name}"))) {
        // The list is in a folder that others may write to, so only names of the site's own form are removed.
        if cache.files.binary_search(&old).is_err()
            && is_site_file(&old)
            && std::fs::remove_file(out.join(&old)).is_ok()
        {
            built.removed += 1;
        }
    }
    Ok(())
}

/// Whether a name has the form of a site file: at most one known folder, and no way out of it.
fn is_site_file(name: &str) -> bool {
    let plain = |part: &str| {
        let mut characters = part.chars();
        characters.next().is_some_and(|first| first.is_ascii_alphanumeric())
            && characters.all(|it| it.is_ascii_alphanumeric() || "-.".contains(it))
    };
    match name.split_once('/') {
        Some((folder, file)) => ["data", "assets"].contains(&folder) && plain(file),
        None => plain(name),
    }
}
