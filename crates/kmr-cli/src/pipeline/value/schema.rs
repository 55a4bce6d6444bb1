//! The JSON Schema of the values.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Secret, Settings, Size, Text, Texts, Time};

/// Implements the trait for types whose schema is written where they are used.
macro_rules! inline {
    ($($type:ident => $schema:tt)*) => {
        $(impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        })*
    };
}

inline! {
    Text => { "type": "string" }
    Secret => { "type": "string", "writeOnly": true }
    Texts => { "type": ["string", "array"], "items": { "type": "string" } }
    Time => { "type": "string", "examples": ["500ms", "4s", "2m"] }
    Size => { "type": ["string", "integer"], "minimum": 0, "examples": ["64MiB", 1_048_576] }
    Settings => {
        "type": "object",
        "additionalProperties": { "type": ["string", "integer", "boolean"] },
    }
}
