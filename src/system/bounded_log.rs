//! The log of a guarded command: its beginning and its end are kept, and its size is bounded, however much is printed.

use std::fs::File;
use std::io::{PipeReader, Read, Write};

/// Largest log.
const LIMIT: u64 = 16 << 20;
/// Bytes of the beginning that are always kept.
const BEGINNING: u64 = 4 << 20;
/// Bytes of the end that are kept when the part between is dropped.
const END: usize = 256 << 10;

/// Copies `printed` to `log`, which is opened for appending, until everything that writes to the pipe has ended. A log that
/// cannot be written ends nothing: the command continues.
pub fn copy(printed: &mut PipeReader, log: &mut File) {
    let is_file = log.metadata().is_ok_and(|found| found.is_file());
    let mut size = log.metadata().map_or(0, |found| found.len());
    let (mut dropped, mut last) = (0, Vec::with_capacity(2 * END));
    let mut chunk = vec![0; 64 << 10];
    loop {
        let read = match printed.read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => &chunk[..read],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        last.extend_from_slice(read);
        if last.len() >= 2 * END {
            last.drain(..last.len() - END);
        }
        if is_file && size + read.len() as u64 > LIMIT {
            let kept = &last[last.len().saturating_sub(END)..];
            dropped += (size + read.len() as u64).saturating_sub(BEGINNING + kept.len() as u64);
            let gap = format!("\n[vllm-perf: {dropped} bytes of this log were dropped here]\n");
            // In append mode the next write follows the new end.
            if log.set_len(BEGINNING.min(size)).is_err() {
                continue;
            }
            let _ = log.write_all(gap.as_bytes()).and_then(|()| log.write_all(kept));
            size = log.metadata().map_or(LIMIT, |found| found.len());
        } else if log.write_all(read).is_ok() {
            size += read.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(printed: impl FnOnce(&mut std::io::PipeWriter) + Send + 'static) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.log");
        let mut log = crate::system::regular_file::append(&path).unwrap();
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let writing = std::thread::spawn(move || printed(&mut writer));
        copy(&mut reader, &mut log);
        writing.join().unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_short_log_is_kept_as_it_is() {
        assert_eq!(logged(|out| out.write_all(b"one\ntwo\n").unwrap()), "one\ntwo\n");
        assert_eq!(logged(|_| ()), "");
    }

    #[test]
    fn of_a_long_log_the_beginning_and_the_end_are_kept() {
        let text = logged(|out| {
            out.write_all(b"first\n").unwrap();
            let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
            for _ in 0..(100 << 10) {
                out.write_all(&line).unwrap();
            }
            out.write_all(b"last\n").unwrap();
        });
        assert!(text.len() as u64 <= LIMIT, "{}", text.len());
        assert!(text.starts_with("first\n") && text.ends_with("x\nlast\n"));
        assert_eq!(text.matches("bytes of this log were dropped here").count(), 1);
    }
}
