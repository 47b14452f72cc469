//! Text from outside: names in suites, reasons of programs, everything in `comparison.json`.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Text from outside. It has no `Display`: a renderer has to escape it for its output first. `Debug` quotes it and shows
/// control characters as escapes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Untrusted(String);

impl Untrusted {
    /// The text as it came, to compare and to parse it. To show it, escape it.
    pub fn raw(&self) -> &str {
        &self.0
    }
}

impl From<String> for Untrusted {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Untrusted {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl AsRef<str> for Untrusted {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Untrusted {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Untrusted {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Untrusted {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Debug for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_plain_text_in_files_and_quoted_in_messages() {
        let text = Untrusted::from("a\u{1b}[31m\"b");
        assert_eq!(serde_json::to_string(&text).unwrap(), r#""a\u001b[31m\"b""#);
        assert_eq!(serde_json::from_str::<Untrusted>("\"x\"").unwrap(), "x");
        assert_eq!(format!("{text:?}"), r#""a\u{1b}[31m\"b""#);
    }
}
