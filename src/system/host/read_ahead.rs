//! Reads files into the page cache before they are needed, until it is stopped.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes between two checks whether to stop: some milliseconds on a slow disk.
const CHUNK: usize = 1 << 20;

/// Files that are being read.
#[derive(Debug)]
pub struct Reading {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<PathBuf>>,
}

impl Reading {
    /// Begins to read `files` without those in `known`, as long as they fit into half of the available memory: more would
    /// evict files that were read before.
    pub fn begin(files: Vec<PathBuf>, known: &BTreeSet<PathBuf>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let files: Vec<PathBuf> = files.into_iter().filter(|file| !known.contains(file)).collect();
        let stopped = Arc::clone(&stop);
        let room = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text)).unwrap_or(0) / 2;
        let task = tokio::task::spawn_blocking(move || read(files, room, &stopped));
        Self { stop, task }
    }

    /// Stops, and returns the files that were read completely. Reading has ended when this returns.
    pub async fn end(mut self) -> Vec<PathBuf> {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.task).await.unwrap_or_default()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Reads files until one does not fit into the remainder of `room` bytes, or `stop` is set. A file that cannot be read is
/// skipped; its server will report it.
fn read(files: Vec<PathBuf>, mut room: u64, stop: &AtomicBool) -> Vec<PathBuf> {
    let mut chunk = vec![0; CHUNK];
    let mut whole = Vec::new();
    for path in files {
        let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if size > room {
            break;
        }
        room -= size;
        match read_file(&path, &mut chunk, stop) {
            Some(true) => whole.push(path),
            Some(false) => break,
            None => {}
        }
    }
    whole
}

/// Whether the file was read completely (`true`) or reading was stopped; `None` where it cannot be read.
fn read_file(path: &Path, chunk: &mut [u8], stop: &AtomicBool) -> Option<bool> {
    let mut file = File::open(path).ok()?;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Some(false);
        }
        if file.read(chunk).ok()? == 0 {
            return Some(true);
        }
    }
}

/// `MemAvailable` in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_of(sizes: &[usize]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..sizes.len()).map(|number| folder.path().join(number.to_string())).collect();
        for (path, size) in paths.iter().zip(sizes) {
            crate::system::output::write(path, &vec![1; *size]).unwrap();
        }
        (folder, paths)
    }

    #[test]
    fn files_are_read_as_far_as_there_is_room() {
        let (_folder, paths) = folder_of(&[10, 3 * CHUNK, 20]);
        let stop = AtomicBool::new(false);
        assert_eq!(read(paths.clone(), u64::MAX, &stop), paths);
        assert_eq!(read(paths.clone(), 3 * CHUNK as u64, &stop), paths[..1]);
        let missing = paths[0].with_extension("gone");
        assert_eq!(read(vec![missing, paths[2].clone()], u64::MAX, &stop), paths[2..]);
    }

    #[test]
    fn nothing_is_read_after_a_stop() {
        let (_folder, paths) = folder_of(&[10]);
        assert_eq!(read(paths, u64::MAX, &AtomicBool::new(true)), Vec::<PathBuf>::new());
    }

    #[tokio::test]
    async fn a_known_file_is_not_read_again() {
        let (_folder, paths) = folder_of(&[10, 20]);
        let known = BTreeSet::from([paths[0].clone()]);
        let reading = Reading::begin(paths.clone(), &known);
        while !reading.task.is_finished() {
            tokio::task::yield_now().await;
        }
        assert_eq!(reading.end().await, paths[1..]);
    }

    #[test]
    fn available_memory_is_in_bytes() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   24 kB\n"), Some(24576));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
    }
}
