//! Reads regular files of bounded size. A path may be that of a commit that nobody has reviewed: a FIFO would wait for ever, and a
//! device, or a link to one, has no end.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// The text of the file at `path`.
///
/// # Errors
/// It cannot be read, it is not a regular file, it has more than `limit` bytes, or it is not UTF-8.
pub fn text(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    let length = open(path)?.take(limit.saturating_add(1)).read_to_string(&mut text)?;
    if length as u64 > limit {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")));
    }
    Ok(text)
}

/// Opens a regular file, without waiting for the other end of a FIFO.
///
/// # Errors
/// It cannot be opened, or it is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    // Reading a regular file does not depend on the flag.
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
    use crate::system::output;

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        output::write(&path("plain"), b"12345").unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("zero")).unwrap();
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();
        assert_eq!(text(&path("plain"), 5).unwrap(), "12345");
        assert_eq!(text(&path("plain"), 4).unwrap_err().to_string(), "it has more than 4 bytes");
        for special in [path("fifo"), path("zero"), "/dev/null".into(), "/dev/zero".into()] {
            assert_eq!(text(&special, 9).unwrap_err().to_string(), "it is not a regular file", "{}", special.display());
        }
        for other in [path("loop"), path("."), path("none")] {
            assert!(text(&other, 9).is_err(), "{}", other.display());
        }
    }
}
