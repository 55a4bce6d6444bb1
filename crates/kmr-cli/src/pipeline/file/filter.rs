//! `[NAME.filter]`: which records are processed.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::pipeline::value::{Text, Texts};

/// Conditions that a record must meet, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Filter(pub(crate) Vec<Condition>);

/// A condition: what is tested (`path`, `header` or `key`), and how (`equals`, `in` or `exists`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Condition {
    /// Tests a value of the JSON object: the keys from the outermost object on.
    pub(crate) path: Option<Texts>,
    /// Tests the headers of this name: one of them must fit.
    pub(crate) header: Option<Text>,
    /// Tests the record's key.
    pub(crate) key: bool,
    /// It must be this value.
    pub(crate) equals: Option<Scalar>,
    /// It must be one of these values.
    #[serde(rename = "in")]
    pub(crate) any_of: Option<Vec<Scalar>>,
    /// It must be there, or must not.
    pub(crate) exists: Option<bool>,
    /// Turns the condition into its opposite.
    pub(crate) not: bool,
}

/// A value to compare with.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Scalar {
    Text(Text),
    Integer(i64),
    Float(f64),
    Bool(bool),
}

/// No value is NaN: it is read from a file, and rejected there.
impl Eq for Scalar {}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Conditions;

        impl<'de> Visitor<'de> for Conditions {
            type Value = Filter;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a section of one condition, or a list of them ([[NAME.filter]])")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Filter, A::Error> {
                let condition = Condition::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Filter(vec![condition]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Filter, A::Error> {
                let mut conditions = Vec::new();
                while let Some(condition) = list.next_element()? {
                    conditions.push(condition);
                }
                Ok(Filter(conditions))
            }
        }

        deserializer.deserialize_any(Conditions)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;

        impl Visitor<'_> for Value {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a boolean")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                Text::read(text).map(Scalar::Text).map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Integer(number))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
                match number.is_finite() {
                    true => Ok(Scalar::Float(number)),
                    false => Err(E::custom("JSON has no such number")),
                }
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(value))
            }
        }

        deserializer.deserialize_any(Value)
    }
}

#[cfg(test)]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{Condition, Filter, Scalar};

    impl JsonSchema for Filter {
        fn inline_schema() -> bool {
            true
        }

        fn schema_name() -> Cow<'static, str> {
            "Filter".into()
        }

        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            let condition = generator.subschema_for::<Condition>();
            json_schema!({ "anyOf": [condition, { "type": "array", "items": condition }] })
        }
    }

    impl JsonSchema for Scalar {
        fn inline_schema() -> bool {
            true
        }

        fn schema_name() -> Cow<'static, str> {
            "Scalar".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "type": ["string", "number", "boolean"] })
        }
    }
}
