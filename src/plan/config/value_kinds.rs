//! The kinds of values that keys of the config file have: single values, lists and mappings.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::Hash;

use indexmap::IndexMap;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use super::scalar::{Scalar, ScalarSeed, Schema};
use super::section::{Kind, Place, ValueSeed, below};

impl<T> Kind for Scalar<T> {
    type Value = T;

    fn schema(&self) -> Value {
        self.json_schema()
    }

    fn show(&self, value: &mut T, path: &str, settings: &mut Vec<(String, String)>) {
        settings.push((path.to_owned(), (self.show)(value)));
    }

    fn read<'de, D: Deserializer<'de>>(
        &self,
        value: &mut T,
        place: Place<'_>,
        deserializer: D,
    ) -> Result<(), D::Error> {
        *value = ScalarSeed(self).deserialize(deserializer)?;
        place.set();
        Ok(())
    }
}

/// A single value that may be absent; `none` is shown then.
pub(super) struct Optional<T> {
    pub(super) value: Scalar<T>,
    pub(super) none: &'static str,
}

impl<T> Kind for Optional<T> {
    type Value = Option<T>;

    fn schema(&self) -> Value {
        self.value.json_schema()
    }

    fn show(&self, value: &mut Option<T>, path: &str, settings: &mut Vec<(String, String)>) {
        settings.push((path.to_owned(), value.as_ref().map_or_else(|| self.none.to_owned(), self.value.show)));
    }

    fn read<'de, D: Deserializer<'de>>(
        &self,
        value: &mut Option<T>,
        place: Place<'_>,
        deserializer: D,
    ) -> Result<(), D::Error> {
        *value = Some(ScalarSeed(&self.value).deserialize(deserializer)?);
        place.set();
        Ok(())
    }
}

/// A single value of one key of a map of fields, such as a metric of `min_effect`; not shown while absent.
pub(super) struct Entry<T> {
    pub(super) key: &'static str,
    pub(super) value: Scalar<T>,
}

impl<T> Kind for Entry<T> {
    type Value = IndexMap<&'static str, T>;

    fn schema(&self) -> Value {
        self.value.json_schema()
    }

    fn show(&self, map: &mut Self::Value, path: &str, settings: &mut Vec<(String, String)>) {
        settings.extend(map.get(self.key).map(|value| (path.to_owned(), (self.value.show)(value))));
    }

    fn read<'de, D: Deserializer<'de>>(
        &self,
        map: &mut Self::Value,
        place: Place<'_>,
        deserializer: D,
    ) -> Result<(), D::Error> {
        map.insert(self.key, ScalarSeed(&self.value).deserialize(deserializer)?);
        place.set();
        Ok(())
    }
}

/// A list of single values. With `item`, the word for one, at least one is required.
pub(super) struct ListOf<T> {
    pub(super) of: Scalar<T>,
    pub(super) item: Option<&'static str>,
}

impl<T> Kind for ListOf<T> {
    type Value = Vec<T>;

    fn schema(&self) -> Value {
        let mut schema = json!({"type": "array", "items": self.of.json_schema()});
        if self.item.is_some() {
            schema["minItems"] = 1.into();
        }
        schema
    }

    fn show(&self, list: &mut Vec<T>, path: &str, settings: &mut Vec<(String, String)>) {
        let items: Vec<String> = list.iter().map(self.of.show).collect();
        settings.push((path.to_owned(), items.join(", ")));
    }

    fn read<'de, D: Deserializer<'de>>(
        &self,
        list: &mut Vec<T>,
        place: Place<'_>,
        deserializer: D,
    ) -> Result<(), D::Error> {
        *list = deserializer.deserialize_any(ListVisitor { kind: self, name: place.name() })?;
        place.set();
        Ok(())
    }
}

struct ListVisitor<'a, T> {
    kind: &'a ListOf<T>,
    name: &'a str,
}

impl<'de, T> Visitor<'de> for ListVisitor<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list, each {}", self.kind.of.expecting)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(ScalarSeed(&self.kind.of))? {
            items.push(item);
        }
        not_empty(items.len(), self.kind.item, self.name).map(|()| items)
    }
}

fn not_empty<E: Error>(length: usize, item: Option<&str>, name: &str) -> Result<(), E> {
    match item {
        Some(item) if length == 0 => {
            Err(E::custom(format_args!("at least one {item} is needed: leave `{name}` out for the default")))
        }
        _ => Ok(()),
    }
}

/// A mapping whose keys the file chooses, in the order of the file. It replaces the default as a whole.
pub(super) struct MapOf<K, V: Kind> {
    pub(super) key: Scalar<K>,
    pub(super) value: V,
    /// The default of a value.
    pub(super) default: fn(&K) -> V::Value,
    /// The word for one entry, where at least one is required.
    pub(super) item: Option<&'static str>,
}

impl<K: Hash + Eq, V: Kind> Kind for MapOf<K, V> {
    type Value = IndexMap<K, V::Value>;

    fn schema(&self) -> Value {
        let value = self.value.schema();
        let mut schema = match &self.key.schema {
            Schema::OneOf(words) => {
                let properties: Map<String, Value> =
                    words().into_iter().map(|word| (word.to_owned(), value.clone())).collect();
                json!({"type": "object", "additionalProperties": false, "properties": properties})
            }
            Schema::Pattern(_) | Schema::YesNo | Schema::Other(_) => {
                json!({"type": "object", "additionalProperties": value, "propertyNames": self.key.json_schema()})
            }
        };
        if self.item.is_some() {
            schema["minProperties"] = 1.into();
        }
        schema
    }

    fn show(&self, map: &mut Self::Value, path: &str, settings: &mut Vec<(String, String)>) {
        for (key, value) in map {
            self.value.show(value, &below(path, &(self.key.show)(key)), settings);
        }
    }

    fn read<'de, D: Deserializer<'de>>(
        &self,
        map: &mut Self::Value,
        mut place: Place<'_>,
        deserializer: D,
    ) -> Result<(), D::Error> {
        *map = deserializer.deserialize_map(MapVisitor { kind: self, place: &mut place })?;
        place.set();
        Ok(())
    }
}

struct MapVisitor<'a, 'b, K, V: Kind> {
    kind: &'a MapOf<K, V>,
    place: &'a mut Place<'b>,
}

impl<'de, K: Hash + Eq, V: Kind> Visitor<'de> for MapVisitor<'_, '_, K, V> {
    type Value = IndexMap<K, V::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a mapping, each key {}", self.kind.key.expecting)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = IndexMap::new();
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key_seed(ScalarSeed(&self.kind.key))? {
            let name = (self.kind.key.show)(&key);
            let mut value = (self.kind.default)(&key);
            let place = self.place.below(&name);
            map.next_value_seed(ValueSeed { kind: &self.kind.value, value: &mut value, place })?;
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("duplicate key `{name}`")));
            }
            entries.insert(key, value);
        }
        not_empty(entries.len(), self.kind.item, self.place.name()).map(|()| entries)
    }
}
