//! Single values of the config file: texts and numbers, each with its own rule.

use std::fmt;

use anyhow::anyhow;
use serde::de::{DeserializeSeed, Deserializer, Error, Unexpected, Visitor};
use serde_json::{Value, json};

/// Longest part of the file that a message quotes, in characters.
const LONGEST_QUOTE: usize = 80;

/// How a single value is read, shown and described.
pub(super) struct Scalar<T> {
    /// What a message names as expected.
    pub(super) expecting: &'static str,
    /// Whether a bare number is accepted and read as its text.
    pub(super) numbers: bool,
    pub(super) schema: Schema,
    pub(super) read: fn(&str) -> anyhow::Result<T>,
    /// The value as a config file contains it.
    pub(super) show: fn(&T) -> String,
}

/// The JSON Schema of a single value.
pub(super) enum Schema {
    /// A text that matches a regular expression.
    Pattern(&'static str),
    /// One of these words.
    OneOf(fn() -> Vec<&'static str>),
    /// `true` or `false`.
    YesNo,
    /// Any other schema.
    Other(fn() -> Value),
}

impl Scalar<String> {
    /// A text that is kept as it is. `read` checks it.
    pub(super) const fn text(
        expecting: &'static str,
        pattern: &'static str,
        read: fn(&str) -> anyhow::Result<String>,
    ) -> Self {
        Self { expecting, numbers: false, schema: Schema::Pattern(pattern), read, show: String::clone }
    }
}

impl<T> Scalar<T> {
    pub(super) fn json_schema(&self) -> Value {
        match self.schema {
            Schema::Pattern(pattern) => json!({"type": "string", "pattern": pattern}),
            Schema::OneOf(words) => json!({"enum": words()}),
            Schema::YesNo => json!({"type": "boolean"}),
            Schema::Other(schema) => schema(),
        }
    }
}

/// Reads one value by its rule.
pub(super) struct ScalarSeed<'a, T>(pub(super) &'a Scalar<T>);

impl<T> ScalarSeed<'_, T> {
    fn number<E: Error>(self, value: f64, found: Unexpected<'_>) -> Result<T, E> {
        if self.0.numbers { self.visit_str(&value.to_string()) } else { Err(E::invalid_type(found, &self)) }
    }
}

impl<'de, T> DeserializeSeed<'de> for ScalarSeed<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        // Not `deserialize_str`: YAML would give `true` or `5` as their texts, and a label is neither.
        deserializer.deserialize_any(self)
    }
}

impl<'de, T> Visitor<'de> for ScalarSeed<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0.read)(text).map_err(|error| E::custom(format_args!("{error:#}")))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<T, E> {
        match self.0.schema {
            Schema::YesNo => self.visit_str(&value.to_string()),
            _ => Err(E::invalid_type(Unexpected::Bool(value), &self)),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        self.number(value, Unexpected::Float(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        self.number(value as f64, Unexpected::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        self.number(value as f64, Unexpected::Signed(value))
    }
}

/// The error for a bad value: what it is not, and what was expected instead.
pub(super) fn not(text: &str, what: &str) -> anyhow::Error {
    anyhow!("`{}` is not {what}", quote(text))
}

/// The text itself where it is valid, else the error that it is not `what`.
pub(super) fn valid(is_valid: bool, text: &str, what: &str) -> anyhow::Result<String> {
    if is_valid { Ok(text.to_owned()) } else { Err(not(text, what)) }
}

/// The value whose word is `text`, else the error that it is not `what`, with the words.
pub(super) fn one_of<T: Copy>(text: &str, what: &str, values: &[T], word: fn(T) -> &'static str) -> anyhow::Result<T> {
    values.iter().copied().find(|value| word(*value) == text).ok_or_else(|| {
        let words: Vec<String> = values.iter().map(|value| format!("`{}`", word(*value))).collect();
        let (last, first) = words.split_last().map_or(("", &[][..]), |(last, first)| (last.as_str(), first));
        not(text, &format!("{what}: expected {} or {last}", first.join(", ")))
    })
}

/// The word of `valid` that is most like `text`.
pub(super) fn nearest<'a>(text: &str, valid: &[&'a str]) -> &'a str {
    valid.iter().copied().min_by_key(|word| strsim::damerau_levenshtein(word, text)).unwrap_or_default()
}

/// The one of `names` that is `text`, else the error for an unknown key, with the nearest known one.
pub(super) fn known_key(text: &str, names: &[&'static str]) -> anyhow::Result<&'static str> {
    names.iter().copied().find(|name| *name == text).ok_or_else(|| {
        let key = quote(text);
        anyhow!("unknown key `{key}`, did you mean `{}`? Valid here: {}", nearest(&key, names), names.join(", "))
    })
}

fn quote(text: &str) -> String {
    text.chars().take(LONGEST_QUOTE).collect()
}

/// A share of one: `2%` or `0.02`, above 0 and below 1.
pub(super) const SHARE: Scalar<f64> = Scalar {
    expecting: "a share such as `2%` or `0.02`",
    numbers: true,
    schema: Schema::Other(|| {
        json!({
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "string", "pattern": r"^[0-9.]+\s*%?$"},
            ],
            "examples": ["2%", 0.02],
        })
    }),
    read: |text| {
        let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
        match number.trim().parse::<f64>() {
            Ok(value) if value > 0.0 && value < scale => Ok(value / scale),
            _ => Err(not(text, "a share: expected more than 0 and less than 100 %, such as `2%` or `0.02`")),
        }
    },
    // Rounded, so that 0.07 reads `7%` and not `7.000000000000001%`.
    show: |share| format!("{}%", (share * 1e8).round() / 1e6),
};
