//! Regular files of bounded size. What a container, a client or a checkout may have put there is opened without following a
//! link and has one name; a link that a person names is followed. A FIFO would wait for ever, and a device has no end.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};

/// Most bytes of a result file.
pub const RESULT_LIMIT: u64 = 64 << 20;

/// Never a link, never a wait for the other end of a pipe, and no terminal that becomes ours.
const SAFE: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Opens a regular file with one name for reading.
///
/// # Errors
/// It is not there, it is something else, or it cannot be opened.
pub fn open(path: &Path) -> std::io::Result<File> {
    // A device is not even opened: that alone may do something.
    checked_type(std::fs::symlink_metadata(path)?.mode())?;
    checked(File::options().read(true).custom_flags(SAFE.bits()).open(path)?)
}

/// Opens a regular file that a person named, also by a link.
///
/// # Errors
/// It cannot be opened, or it is not a regular file.
pub fn open_followed(path: &Path) -> std::io::Result<File> {
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    checked_type(metadata.mode())?;
    Ok(file)
}

/// Reads a text of at most `limit` bytes from a file that a person named.
///
/// # Errors
/// As of [`open_followed`]; it is longer, or is not UTF-8.
pub fn text_followed(path: &Path, limit: u64) -> std::io::Result<String> {
    whole(open_followed(path)?, limit)
}

/// Opens a file for appending; makes it where it is not there.
///
/// # Errors
/// It is something other than a regular file with one name, or it cannot be opened.
pub fn append(path: &Path) -> std::io::Result<File> {
    checked(File::options().create(true).append(true).custom_flags(SAFE.bits()).open(path)?)
}

/// Reads a text of at most `limit` bytes.
///
/// # Errors
/// As of [`open`]; it is longer, or is not UTF-8.
pub fn text(path: &Path, limit: u64) -> std::io::Result<String> {
    whole(open(path)?, limit)
}

/// Reads at most `limit` bytes.
///
/// # Errors
/// As of [`open`]; it is longer.
pub fn bytes(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    bounded(open(path)?, limit)
}

/// Reads a text of at most `limit` bytes, the file `name` directly in `folder`.
///
/// # Errors
/// As of [`text`].
pub fn text_in(folder: &File, name: &str, limit: u64) -> std::io::Result<String> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not the name of a file"));
    }
    checked_type(fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode)?;
    whole(checked(openat(folder, name, OFlag::O_RDONLY | SAFE, Mode::empty())?.into())?, limit)
}

/// The last `most` bytes of a file as text.
///
/// # Errors
/// As of [`open`].
pub fn end(path: &Path, most: u64) -> std::io::Result<String> {
    let mut file = open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn whole(file: File, limit: u64) -> std::io::Result<String> {
    utf8(bounded(file, limit)?)
}

fn bounded(file: File, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

/// The text in `bytes`, without the byte order mark that some editors write before it.
///
/// # Errors
/// It is not UTF-8.
pub fn utf8(bytes: Vec<u8>) -> std::io::Result<String> {
    let is_utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let mut text = String::from_utf8(bytes).map_err(|_| {
        let what = if is_utf16 { "it is UTF-16 text: save it as UTF-8" } else { "it is not UTF-8 text" };
        Error::new(ErrorKind::InvalidData, what)
    })?;
    if text.starts_with(MARK) {
        text.drain(..MARK.len_utf8());
    }
    Ok(text)
}

/// The byte order mark.
const MARK: char = '\u{feff}';

fn checked_type(mode: u32) -> std::io::Result<()> {
    let is_file = mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
    if is_file { Ok(()) } else { Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file")) }
}

fn checked(file: File) -> std::io::Result<File> {
    let found = file.metadata()?;
    checked_type(found.mode())?;
    if found.nlink() != 1 {
        return Err(Error::new(ErrorKind::InvalidInput, "it has more than one name"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_regular_file_with_one_name_and_a_bounded_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        crate::system::output::write(&inside("file"), b"text").unwrap();
        symlink(inside("file"), inside("link")).unwrap();
        symlink("/dev/zero", inside("device")).unwrap();
        symlink(inside("nowhere"), inside("dangling")).unwrap();
        nix::unistd::mkfifo(&inside("pipe"), Mode::S_IRWXU).unwrap();
        std::fs::create_dir(inside("folder")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(inside("socket")).unwrap();
        File::create(inside("sparse")).unwrap().set_len(1 << 40).unwrap();
        crate::system::output::write(&inside("one"), b"secret").unwrap();
        std::fs::hard_link(inside("one"), inside("another")).unwrap();
        crate::system::output::write(&inside("binary"), b"\xff\xfe").unwrap();
        let opened = File::open(folder.path()).unwrap();
        assert_eq!(text(&inside("file"), 4).unwrap(), "text");
        assert_eq!(text_in(&opened, "file", 4).unwrap(), "text");
        assert!(text(&inside("file"), 3).is_err());
        for name in
            ["link", "device", "dangling", "pipe", "folder", "socket", "sparse", "one", "another", "binary", "none"]
        {
            assert!(text(&inside(name), 1 << 20).is_err(), "{name}");
            assert!(text_in(&opened, name, 1 << 20).is_err(), "{name}");
        }
        for name in ["", ".", "..", "../file", "/etc/passwd", "folder/x"] {
            assert!(text_in(&opened, name, 1 << 20).is_err(), "{name}");
        }
    }

    #[test]
    fn nothing_is_appended_to_what_is_not_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        crate::system::output::write(&inside("profile"), b"").unwrap();
        symlink(inside("profile"), inside("link.log")).unwrap();
        symlink(inside("new"), inside("dangling.log")).unwrap();
        std::fs::hard_link(inside("profile"), inside("hard.log")).unwrap();
        nix::unistd::mkfifo(&inside("pipe.log"), Mode::S_IRWXU).unwrap();
        for name in ["link.log", "dangling.log", "hard.log", "pipe.log"] {
            assert!(append(&inside(name)).is_err(), "{name}");
        }
        assert!(append(&inside("server.log")).is_ok() && append(&inside("server.log")).is_ok());
        assert!(!inside("new").exists());
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (bytes, expected) in [
            (&b"\xef\xbb\xbf[1]"[..], Ok("[1]")),
            (b"\xef\xbb\xbf", Ok("")),
            (b"a\xef\xbb\xbf", Ok("a\u{feff}")),
            (b"\xff\xfe[\x00", Err("it is UTF-16 text: save it as UTF-8")),
            (b"\xfe\xff\x00[", Err("it is UTF-16 text: save it as UTF-8")),
            (b"[\xff]", Err("it is not UTF-8 text")),
        ] {
            crate::system::output::write(&path, bytes).unwrap();
            for read in [text(&path, 9), text_followed(&path, 9)] {
                assert_eq!(read.map_err(|error| error.to_string()), expected.map(str::to_owned).map_err(str::to_owned));
            }
        }
    }

    #[test]
    fn of_a_long_file_the_end_is_read_and_of_an_endless_one_nothing() {
        let folder = tempfile::tempdir().unwrap();
        crate::system::output::write(&folder.path().join("log"), b"0123456789").unwrap();
        assert_eq!(end(&folder.path().join("log"), 4).unwrap(), "6789");
        assert_eq!(end(&folder.path().join("log"), 40).unwrap(), "0123456789");
        for path in ["/dev/zero", "/dev/stdin", "/proc/self"] {
            assert!(end(Path::new(path), 4).is_err(), "{path}");
        }
    }

    #[test]
    fn a_link_that_a_person_names_is_followed_to_a_regular_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        crate::system::output::write(&path("plain"), b"12345").unwrap();
        nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
        symlink("plain", path("link")).unwrap();
        symlink("/dev/zero", path("zero")).unwrap();
        symlink("loop", path("loop")).unwrap();
        for name in ["plain", "link"] {
            assert_eq!(text_followed(&path(name), 5).unwrap(), "12345");
            assert_eq!(text_followed(&path(name), 4).unwrap_err().to_string(), "it has more than 4 bytes");
        }
        for special in [path("fifo"), path("zero"), "/dev/null".into(), "/dev/zero".into()] {
            let error = text_followed(&special, 9).unwrap_err().to_string();
            assert_eq!(error, "it is not a regular file", "{}", special.display());
        }
        for other in [path("loop"), path("."), path("none")] {
            assert!(text_followed(&other, 9).is_err(), "{}", other.display());
        }
    }
}
