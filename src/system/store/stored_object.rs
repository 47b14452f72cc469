//! An object of a store: what is known of it, and the form of its content.

use std::io::{Read, Write};

use anyhow::{Result, ensure};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Most bytes of one object, decompressed: the records of a night have a hundredth of it.
pub const OBJECT_LIMIT: u64 = 256 << 20;

/// An object, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Its path below the root of the store.
    pub key: String,
    /// Bytes as stored, compressed or not.
    pub size: u64,
    pub modified: jiff::Timestamp,
    /// Changes with the content; absent where the store has none.
    pub etag: Option<String>,
}

/// How adding an object ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    Written,
    /// There was an object with this key; it is unchanged.
    AlreadyThere,
}

/// Decompresses what begins like gzip: some stores decompress before they send, whatever the headers state. JSON never
/// begins like that.
pub fn decompressed(content: Vec<u8>) -> Result<Vec<u8>> {
    if !content.starts_with(&[0x1f, 0x8b]) {
        return Ok(content);
    }
    let mut plain = Vec::new();
    MultiGzDecoder::new(content.as_slice()).take(OBJECT_LIMIT + 1).read_to_end(&mut plain)?;
    ensure!(plain.len() as u64 <= OBJECT_LIMIT, "decompressed it has more than {OBJECT_LIMIT} bytes");
    Ok(plain)
}

/// Compresses, without the time, so that the same content has the same bytes.
pub fn compressed(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_content_is_known_by_its_first_bytes() {
        assert_eq!(decompressed(compressed(b"{\"a\":1}").unwrap()).unwrap(), b"{\"a\":1}");
        assert_eq!(decompressed(b"{}".to_vec()).unwrap(), b"{}");
        assert!(decompressed(vec![0x1f, 0x8b, 8]).is_err());
    }

    #[test]
    fn the_same_content_compresses_to_the_same_bytes() {
        assert_eq!(compressed(b"{}").unwrap(), compressed(b"{}").unwrap());
        assert_eq!(compressed(b"{}").unwrap()[4..8], [0; 4]);
    }
}
