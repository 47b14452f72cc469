//! A text of a recipe with a rule. It is checked where it is read, so that an error has its line and its field.

use std::fmt;

use serde::de::{Error, Visitor};

/// What is expected, and how it is read.
pub(super) struct Text<T>(pub &'static str, pub fn(&str) -> anyhow::Result<T>);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(|error| E::custom(format_args!("{error:#}")))
    }
}
