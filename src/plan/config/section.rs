//! How the config file is declared: each key once, with its name, description, field and kind of value. Reading a file, the
//! settings of `config show` and the JSON Schema all walk these declarations.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use super::scalar::known_key;

/// A mapping of the config file with known keys. A new instance has the defaults.
pub(super) trait Section {
    /// Passes every key to `walk`, in the order in which settings are shown.
    fn keys(&mut self, walk: &mut impl Walk);
}

/// What is done with the keys of a section.
pub(super) trait Walk {
    /// Takes one key.
    fn key<K: Kind>(&mut self, name: &'static str, description: &str, field: &mut K::Value, kind: K);

    /// Takes one key whose value is a section.
    fn section<S: Section + Default>(&mut self, name: &'static str, description: &str, field: &mut S) {
        self.key(name, description, field, Keys::default());
    }
}

/// What the value of a key may be.
pub(super) trait Kind {
    type Value;

    /// JSON Schema of the value, without a description.
    fn schema(&self) -> Value;

    /// Adds the settings of a value at `path`, each with its path and its text.
    fn show(&self, value: &mut Self::Value, path: &str, settings: &mut Vec<(String, String)>);

    /// Reads a value in place of the default in `value`.
    fn read<'de, D: Deserializer<'de>>(
        &self,
        value: &mut Self::Value,
        place: Place<'_>,
        deserializer: D,
    ) -> Result<(), D::Error>;
}

/// A place in the file that is read, and all keys that were set so far.
pub(super) struct Place<'a> {
    path: String,
    set: &'a mut BTreeSet<String>,
}

impl<'a> Place<'a> {
    pub(super) fn root(set: &'a mut BTreeSet<String>) -> Self {
        Self { path: String::new(), set }
    }

    pub(super) fn below(&mut self, name: &str) -> Place<'_> {
        Place { path: below(&self.path, name), set: self.set }
    }

    /// The last part of the path.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// Notes that the file sets this key.
    pub(super) fn set(self) {
        self.set.insert(self.path);
    }
}

/// The path of `name` below `path`.
pub(super) fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Reads a value at a place.
pub(super) struct ValueSeed<'a, K: Kind> {
    pub(super) kind: &'a K,
    pub(super) value: &'a mut K::Value,
    pub(super) place: Place<'a>,
}

impl<'de, K: Kind> DeserializeSeed<'de> for ValueSeed<'_, K> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.kind.read(self.value, self.place, deserializer)
    }
}

/// The kind of a section.
pub(super) struct Keys<S>(PhantomData<S>);

impl<S> Default for Keys<S> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<S: Section + Default> Kind for Keys<S> {
    type Value = S;

    fn schema(&self) -> Value {
        let mut walk = SchemaWalk(Map::new());
        S::default().keys(&mut walk);
        json!({"type": "object", "additionalProperties": false, "properties": walk.0})
    }

    fn show(&self, section: &mut S, path: &str, settings: &mut Vec<(String, String)>) {
        section.keys(&mut ShowWalk { path, settings });
    }

    fn read<'de, D: Deserializer<'de>>(
        &self,
        section: &mut S,
        place: Place<'_>,
        deserializer: D,
    ) -> Result<(), D::Error> {
        let mut walk = NameWalk(Vec::new());
        section.keys(&mut walk);
        deserializer.deserialize_map(SectionVisitor { section, names: walk.0, place })
    }
}

/// Collects the schemas of the keys.
struct SchemaWalk(Map<String, Value>);

impl Walk for SchemaWalk {
    fn key<K: Kind>(&mut self, name: &'static str, description: &str, _: &mut K::Value, kind: K) {
        let mut schema = kind.schema();
        schema["description"] = description.into();
        self.0.insert(name.to_owned(), schema);
    }
}

/// Collects the settings below a path.
struct ShowWalk<'a> {
    path: &'a str,
    settings: &'a mut Vec<(String, String)>,
}

impl Walk for ShowWalk<'_> {
    fn key<K: Kind>(&mut self, name: &'static str, _: &str, field: &mut K::Value, kind: K) {
        kind.show(field, &below(self.path, name), self.settings);
    }
}

/// Collects the names of the keys.
struct NameWalk(Vec<&'static str>);

impl Walk for NameWalk {
    fn key<K: Kind>(&mut self, name: &'static str, _: &str, _: &mut K::Value, _: K) {
        self.0.push(name);
    }
}

/// Reads the next value of `map` into the field of one key.
struct ReadWalk<'a, A, E> {
    name: &'static str,
    map: &'a mut A,
    place: Place<'a>,
    outcome: Result<(), E>,
}

impl<'de, A: MapAccess<'de>> Walk for ReadWalk<'_, A, A::Error> {
    fn key<K: Kind>(&mut self, name: &'static str, _: &str, field: &mut K::Value, kind: K) {
        if name == self.name {
            let place = self.place.below(name);
            self.outcome = self.map.next_value_seed(ValueSeed { kind: &kind, value: field, place });
        }
    }
}

struct SectionVisitor<'a, S> {
    section: &'a mut S,
    names: Vec<&'static str>,
    place: Place<'a>,
}

impl<'de, S: Section> Visitor<'de> for SectionVisitor<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names.as_slice() {
            [one] => write!(f, "a mapping with `{one}`"),
            [one, other] => write!(f, "a mapping with `{one}` or `{other}`"),
            [one, other, ..] => write!(f, "a mapping with keys such as `{one}` or `{other}`"),
            [] => f.write_str("a mapping"),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key_seed(NameSeed(&self.names))? {
            if !seen.insert(name) {
                return Err(A::Error::custom(format_args!("duplicate key `{name}`")));
            }
            let place = Place { path: self.place.path.clone(), set: self.place.set };
            let mut walk = ReadWalk { name, map: &mut map, place, outcome: Ok(()) };
            self.section.keys(&mut walk);
            walk.outcome?;
        }
        Ok(())
    }
}

/// Reads the name of a key of a section.
struct NameSeed<'a>(&'a [&'static str]);

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<&'static str, E> {
        known_key(text, self.0).map_err(E::custom)
    }
}
