//! The files of a model on this machine. Nothing is downloaded.

use std::path::{Path, PathBuf};

use crate::environment::Environment;
use crate::system::regular_file;

/// Longest name of a revision, in bytes.
const REVISION_LIMIT: u64 = 1 << 10;

/// The folder of a model: `model` itself where it is one, else its snapshot in the cache of Hugging Face that
/// `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` or `HOME` names. `None` where it is not on this machine.
pub fn folder(model: &str, env: &Environment) -> Option<PathBuf> {
    let local = Path::new(model);
    if local.is_dir() {
        return Some(local.to_owned());
    }
    main_snapshot(&hub(env)?.join(repository(model)))
}

/// The snapshot of a repository in the cache that is its newest.
fn main_snapshot(repository: &Path) -> Option<PathBuf> {
    let revision = regular_file::text(&repository.join("refs/main"), REVISION_LIMIT).ok()?;
    let snapshot = repository.join("snapshots").join(revision.trim());
    snapshot.is_dir().then_some(snapshot)
}

/// A file of a repository of data sets in the cache, from the newest snapshot that has it.
pub fn data_set(repository: &str, name: &str, env: &Environment) -> Option<PathBuf> {
    let folder = hub(env)?.join(format!("datasets--{}", repository.replace('/', "--")));
    let entries = std::fs::read_dir(folder.join("snapshots")).into_iter().flatten().flatten();
    let mut others: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    others.sort();
    main_snapshot(&folder).into_iter().chain(others).map(|it| it.join(name)).find(|it| it.is_file())
}

/// The folder in which the client of the model hub keeps its models and data sets.
pub fn hub(env: &Environment) -> Option<PathBuf> {
    env.get("HF_HUB_CACHE")
        .or_else(|| env.get("HUGGINGFACE_HUB_CACHE"))
        .map(PathBuf::from)
        .or_else(|| env.get("HF_HOME").map(|home| Path::new(home).join("hub")))
        .or_else(|| env.get("XDG_CACHE_HOME").map(|cache| Path::new(cache).join("huggingface/hub")))
        .or_else(|| env.get("HOME").map(|home| Path::new(home).join(".cache/huggingface/hub")))
}

/// The name of a model's folder in the hub's.
pub fn repository(model: &str) -> String {
    format!("models--{}", model.replace('/', "--"))
}

/// The files of a model's folder that a server reads, sorted by name. Of weights in several formats, a server reads the
/// safetensors.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    let is = |path: &Path, extension: &str| path.extension().is_some_and(|it| it == extension);
    if files.iter().any(|file| is(file, "safetensors")) {
        files.retain(|file| !["bin", "gguf", "pt", "pth", "h5", "msgpack"].iter().any(|other| is(file, other)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_a_folder_or_a_snapshot_in_the_cache() {
        let home = tempfile::tempdir().unwrap();
        let repository = home.path().join("hub/models--org--tiny");
        let snapshot = repository.join("snapshots/abc123");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        let env: Environment = [("HF_HOME", home.path().to_str().unwrap())].into_iter().collect();
        assert_eq!(folder("org/tiny", &env), None);
        crate::system::output::write(&repository.join("refs/main"), b"abc123\n").unwrap();
        assert_eq!(folder("org/tiny", &env), Some(snapshot));
        assert_eq!(folder("org/other", &env), None);
        let local = repository.to_str().unwrap();
        assert_eq!(folder(local, &env), Some(repository.clone()));
    }

    #[test]
    fn a_data_set_is_found_in_the_snapshots_of_its_repository() {
        let home = tempfile::tempdir().unwrap();
        let repository = home.path().join("datasets--org--sets");
        let write = |name: &str| crate::system::output::write(&repository.join(name), b"x").unwrap();
        for variable in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
            let env: Environment = [(variable, home.path().to_str().unwrap())].into_iter().collect();
            let found = |name: &str| {
                let found = data_set("org/sets", name, &env)?;
                Some(found.strip_prefix(&repository).unwrap().display().to_string())
            };
            for name in ["snapshots/1/a.json", "snapshots/2/a.json", "snapshots/1/b.json"] {
                write(name);
            }
            assert_eq!(found("a.json").as_deref(), Some("snapshots/1/a.json"));
            crate::system::output::write(&repository.join("refs/main"), b"2").unwrap();
            assert_eq!(found("a.json").as_deref(), Some("snapshots/2/a.json"));
            assert_eq!(found("b.json").as_deref(), Some("snapshots/1/b.json"));
            assert_eq!((found("c.json"), data_set("org/others", "a.json", &env)), (None, None));
            std::fs::remove_file(repository.join("refs/main")).unwrap();
        }
    }

    #[test]
    fn weights_in_two_formats_are_read_in_one() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["pytorch_model.bin", "config.json"] {
            crate::system::output::write(&folder.path().join(name), b"x").unwrap();
        }
        std::fs::create_dir(folder.path().join("original")).unwrap();
        let names = || -> Vec<String> {
            files(folder.path()).iter().map(|path| path.file_name().unwrap().display().to_string()).collect()
        };
        assert_eq!(names(), ["config.json", "pytorch_model.bin"]);
        crate::system::output::write(&folder.path().join("model-00001-of-00001.safetensors"), b"x").unwrap();
        assert_eq!(names(), ["config.json", "model-00001-of-00001.safetensors"]);
        assert_eq!(files(&folder.path().join("none")), Vec::<PathBuf>::new());
    }
}
