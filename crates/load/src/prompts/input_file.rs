//! Opens the files of data sets and models. They may be those of a pull request: a FIFO would wait for ever, and a device
//! or a link to one has no end.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Largest data set, in bytes: that of ShareGPT has 0.7 GB.
pub(crate) const DATA_SET: u64 = 2 << 30;

/// Largest file of a tokenizer, in bytes: those of large vocabularies have 40 MB.
pub(crate) const TOKENIZER: u64 = 256 << 20;

/// The content of a regular file of at most `limit` bytes.
///
/// # Errors
/// It cannot be read, it is not a regular file, or it is too large.
pub(crate) fn bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if length as u64 > limit {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

/// The text of a regular file of at most `limit` bytes.
///
/// # Errors
/// As of [`bytes`], or it is not UTF-8.
pub(crate) fn text(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::from_utf8(bytes(path, limit)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "stream did not contain valid UTF-8"))?;
    // Some editors write a byte order mark before a text.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

fn open(path: &Path) -> io::Result<File> {
    // Without waiting for the other end of a FIFO. Reading a regular file does not depend on it.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_fifos_folders_and_links_to_them_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        for path in [fifo.as_path(), &link, Path::new("/dev/zero"), Path::new("/dev/null")] {
            assert_eq!(text(path, 9).unwrap_err().to_string(), "it is not a regular file", "{}", path.display());
        }
        assert_eq!(bytes(folder.path(), 9).unwrap_err().kind(), ErrorKind::IsADirectory);
        let plain = folder.path().join("plain");
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), &plain).unwrap();
        assert!(text(&plain, DATA_SET).unwrap().contains("vllm-load"));
        assert_eq!(text(&plain, 9).unwrap_err().to_string(), "it has more than 9 bytes");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_data_set() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, b"\xef\xbb\xbf{\"prompt\": \"a\"}\n").unwrap();
        assert_eq!(text(file.path(), DATA_SET).unwrap(), "{\"prompt\": \"a\"}\n");
    }
}
