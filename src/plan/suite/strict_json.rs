//! Strict JSON of test files: errors have a position, and duplicated keys are found.

use std::collections::HashSet;
use std::fmt;

use anyhow::anyhow;
use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// A key that an object has twice: the second value would silently replace the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DuplicatedKey {
    /// Where the object is: keys and positions from 0, from the outside in.
    pub place: Vec<String>,
    pub key: String,
}

/// The value that `text` holds, and the duplicated keys in it.
///
/// # Errors
/// It is not JSON; the text begins with `path:line:column`.
pub(super) fn parse(path: &str, text: &str) -> anyhow::Result<(Value, Vec<DuplicatedKey>)> {
    let mut found = Found::default();
    let mut read = serde_json::Deserializer::from_str(text);
    let walked = Walk(&mut found).deserialize(&mut read);
    let value = walked.and_then(|()| serde_json::from_str(text)).map_err(|error| located(path, &error))?;
    Ok((value, found.duplicated))
}

/// `file:line:column: what is wrong`.
fn located(path: &str, error: &serde_json::Error) -> anyhow::Error {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let what = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    let wrong = if error.is_data() { "" } else { "not valid JSON: " };
    anyhow!("{path}:{line}:{column}: {wrong}{what}")
}

/// The place of the walk, and what it has found.
#[derive(Default)]
struct Found {
    place: Vec<String>,
    duplicated: Vec<DuplicatedKey>,
}

/// Walks through any JSON.
struct Walk<'a>(&'a mut Found);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        for position in 0.. {
            self.0.place.push(position.to_string());
            let element = array.next_element_seed(Walk(&mut *self.0))?;
            self.0.place.pop();
            if element.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = object.next_key::<String>()? {
            if keys.contains(&key) {
                self.0.duplicated.push(DuplicatedKey { place: self.0.place.clone(), key: key.clone() });
            }
            self.0.place.push(key.clone());
            keys.insert(key);
            object.next_value_seed(Walk(&mut *self.0))?;
            self.0.place.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_position_and_what_was_expected() {
        let errors =
            ["[1,\n 2", "{\"a\": tru}", "[1] 2", ""].map(|text| parse("f.json", text).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"), @"
        f.json:2:2: not valid JSON: EOF while parsing a list
        f.json:1:10: not valid JSON: expected ident
        f.json:1:5: not valid JSON: trailing characters
        f.json:1:0: not valid JSON: EOF while parsing a value
        ");
    }

    #[test]
    fn duplicated_keys_are_found_with_their_place_and_equal_ones_of_different_objects_are_not() {
        let text = r#"{"a": {"a": [null, true, -1, 1.5, "x"]}, "b": {"a": {}}}"#;
        let (value, duplicated) = parse("f.json", text).unwrap();
        assert_eq!((value.to_string(), duplicated), (text.replace(' ', ""), Vec::new()));
        let (_, duplicated) =
            parse("f.json", r#"[1, {"a": [{"b": 1, "b": {"c": 1, "c": 2}}]}, {"d": 1, "d": 2}]"#).unwrap();
        let shown: Vec<String> = duplicated.iter().map(|it| format!("{} {}", it.place.join("/"), it.key)).collect();
        assert_eq!(shown, ["1/a/0 b", "1/a/0/b c", "2 d"]);
    }
}
