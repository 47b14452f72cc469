//! The end of a log, to show under a failure.

use std::path::Path;

use crate::escape;
use crate::system::regular_file;

/// Lines that are printed.
const LINES: usize = 20;
/// Bytes of the end that are read.
const BYTES: u64 = 4000;
/// Most characters of the last words in a reason.
const WORDS: usize = 200;

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = regular_file::end(log, BYTES).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// `reason (server log: head/01/server-1.log, last words: "...")`: what kind of log it is, its name as it is `shown`, and
/// the last line of the file at `path`.
pub fn with_log(reason: &str, kind: &str, shown: &str, path: &Path) -> String {
    match last_words(path) {
        Some(words) => format!("{reason} ({kind}: {shown}, last words: \"{words}\")"),
        None => format!("{reason} ({kind}: {shown})"),
    }
}

/// The last line that is not empty, of bounded length and without control characters.
fn last_words(log: &Path) -> Option<String> {
    let text = regular_file::end(log, BYTES).ok()?;
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(escape::clean(line, WORDS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::output;

    #[test]
    fn the_last_words_stand_under_the_reason_with_the_name_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server-1.log");
        let said = |content: &[u8]| {
            output::write(&path, content).unwrap();
            with_log("the server ended", "server log", "head/01/server-1.log", &path)
        };
        let long = format!("{}\n", "x".repeat(3000));
        for (content, expected) in [
            (&b"loading\nthe engine died: an assertion failed\n\n"[..], "\"the engine died: an assertion failed\""),
            (b"\xff\x1b[31mout of memory\x1b[0m", "\"\u{fffd} [31mout of memory [0m\""),
            (long.as_bytes(), &format!("\"{}…\"", "x".repeat(WORDS - 1))),
        ] {
            assert_eq!(
                said(content),
                format!("the server ended (server log: head/01/server-1.log, last words: {expected})")
            );
        }
        assert_eq!(said(b"\n \n"), "the server ended (server log: head/01/server-1.log)");
        let missing = with_log("it ended", "log", "a.log", &folder.path().join("missing"));
        assert_eq!(missing, "it ended (log: a.log)");
    }
}
