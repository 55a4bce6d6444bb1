//! `[NAME.fold]`: which records become one row, and what is in it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::pipeline::value::{Text, Texts, Time};

/// `[NAME.fold]`: the records of a key in a batch become one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Fold {
    /// The columns of the key. A text is a column that is filled from the key of its name.
    pub(crate) by: Vec<KeyEntry>,
    /// The other columns, by their names.
    pub(crate) values: BTreeMap<String, FoldedColumn>,
}

/// A column of the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyColumn {
    /// The column.
    pub(crate) column: Text,
    /// The keys from the outermost object on. Default: the column's name; with `bucket`, the
    /// record's timestamp.
    pub(crate) path: Option<Texts>,
    /// The value is a time, and the column the start of its bucket of this width.
    pub(crate) bucket: Option<Time>,
}

/// A column of the key, as an entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyEntry(pub(crate) KeyColumn);

/// A column that is folded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct FoldedColumn {
    pub(crate) function: Function,
    /// The keys from the outermost object on. Default: the column's name. `count` without a path
    /// counts records, and with one those that have a value there.
    pub(crate) path: Option<Texts>,
}

/// How the values of a key become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Function {
    Count,
    Sum,
    Min,
    Max,
    First,
    Last,
}

/// As it is written: a text, if it is only a column.
impl Serialize for KeyEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            KeyColumn { column, path: None, bucket: None } => column.serialize(serializer),
            column => column.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for KeyEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;

        impl<'de> Visitor<'de> for Entry {
            type Value = KeyEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a column as a text, or as { column, path, bucket }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<KeyEntry, E> {
                let column = Text::read(text).map_err(E::custom)?;
                Ok(KeyEntry(KeyColumn { column, path: None, bucket: None }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<KeyEntry, A::Error> {
                KeyColumn::deserialize(MapAccessDeserializer::new(map)).map(KeyEntry)
            }
        }

        deserializer.deserialize_any(Entry)
    }
}

#[cfg(test)]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{KeyColumn, KeyEntry};

    impl JsonSchema for KeyEntry {
        fn inline_schema() -> bool {
            true
        }

        fn schema_name() -> Cow<'static, str> {
            "KeyEntry".into()
        }

        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            let column = generator.subschema_for::<KeyColumn>();
            json_schema!({ "anyOf": [{ "type": "string" }, column] })
        }
    }
}
