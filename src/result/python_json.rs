//! JSON as Python writes it: with `NaN` and `Infinity`, which other readers refuse, and with `null` for a number that is not
//! known.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Python's literals that JSON lacks, the longest first.
const LITERALS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// `text` with `null` in place of these literals; what stands in a string is kept.
pub fn plain(text: &str) -> Cow<'_, str> {
    let mut plain = String::new();
    let (mut kept, mut at) = (0, 0);
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(at) {
        if *byte == b'"' {
            at = end_of_string(bytes, at);
            continue;
        }
        match LITERALS.iter().find(|literal| bytes[at..].starts_with(literal.as_bytes())) {
            Some(literal) => {
                plain.push_str(&text[kept..at]);
                plain.push_str("null");
                at += literal.len();
                kept = at;
            }
            None => at += 1,
        }
    }
    if kept == 0 {
        return text.into();
    }
    plain.push_str(&text[kept..]);
    plain.into()
}

/// The position after the string that begins at `at`.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        match bytes.get(at) {
            None => return bytes.len(),
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

/// A field that is `None` where its value is of another type, such as `null`: one bad value does not lose the others.
pub fn or_none<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(T::deserialize(Value::deserialize(deserializer)?).ok())
}

/// A field that has its default where its value is of another type.
pub fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    or_none(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_become_null_and_texts_stay() {
        for (written, expected) in [
            (r#"{"a": NaN, "b": [1, -Infinity, Infinity]}"#, r#"{"a": null, "b": [1, null, null]}"#),
            (r#"{"NaN": "NaN, \"Infinity", "b": "x\\"}"#, r#"{"NaN": "NaN, \"Infinity", "b": "x\\"}"#),
            (r#"["\\", NaN]"#, r#"["\\", null]"#),
            ("NaN", "null"),
            ("", ""),
            (r#"["é", NaN, "ü"]"#, r#"["é", null, "ü"]"#),
        ] {
            assert_eq!(plain(written), expected);
        }
        for broken in [r#"{"a": "NaN"#, r#""a\"#, "Inf", "Na"] {
            assert_eq!(plain(broken), broken);
        }
    }
}
