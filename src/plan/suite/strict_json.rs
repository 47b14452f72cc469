//! Strict JSON of test files: duplicated keys are errors, and errors have a position.

use std::collections::HashSet;
use std::fmt;

use anyhow::anyhow;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The value that `text` holds. An error begins with `path:line:column`.
pub(super) fn parse(path: &str, text: &str) -> anyhow::Result<Value> {
    serde_json::from_str::<Unambiguous>(text)
        .and_then(|_| serde_json::from_str(text))
        .map_err(|error| located(path, &error))
}

/// `file:line:column: what is wrong`.
fn located(path: &str, error: &serde_json::Error) -> anyhow::Error {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let what = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    let wrong = if error.is_data() { "" } else { "not valid JSON: " };
    anyhow!("{path}:{line}:{column}: {wrong}{what}")
}

/// Any JSON without duplicated keys: the second of two equal keys would silently replace the first.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self, A::Error> {
        while array.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = object.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format_args!("the key `{key}` is duplicated in one object")));
            }
            keys.insert(key);
            object.next_value::<Self>()?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_position_and_what_was_expected() {
        let errors = ["[1,\n 2", "{\"a\": tru}", "[1] 2", "{\"a\": [{\"b\": 1,\n\"b\": 2}]}", ""]
            .map(|text| parse("f.json", text).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"), @"
        f.json:2:2: not valid JSON: EOF while parsing a list
        f.json:1:10: not valid JSON: expected ident
        f.json:1:5: not valid JSON: trailing characters
        f.json:2:3: the key `b` is duplicated in one object
        f.json:1:0: not valid JSON: EOF while parsing a value
        ");
    }

    #[test]
    fn equal_keys_of_different_objects_are_accepted() {
        let text = r#"{"a": {"a": [null, true, -1, 1.5, "x"]}, "b": {"a": {}}}"#;
        assert_eq!(parse("f.json", text).unwrap().to_string(), text.replace(' ', ""));
    }
}
