//! A message as JSON.
//!
//! prost-reflect has a serializer, but it writes floats and maps in a way that rows cannot use: the
//! order of a map's entries is another one in each process, and exactly-once mode compares rows.

use std::io::Write as _;

use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage, SerializeOptions, Value};

use crate::binary::Binary;
use crate::text::{push_float, push_string};

/// Messages whose JSON is not an object of their fields, such as times.
const WELL_KNOWN: &str = "google.protobuf.";

/// Those that have one field, `value`, and are written as it is.
const WRAPPERS: [&str; 9] = [
    "DoubleValue",
    "FloatValue",
    "Int64Value",
    "UInt64Value",
    "Int32Value",
    "UInt32Value",
    "BoolValue",
    "StringValue",
    "BytesValue",
];

pub(super) struct JsonWriter<'o> {
    pub(super) binary: Binary,
    pub(super) out: &'o mut Vec<u8>,
}

impl JsonWriter<'_> {
    /// Writes an object of all fields that the message has or that have a default.
    ///
    /// # Errors
    /// A value has no JSON. The text names the field.
    pub(super) fn message(&mut self, message: &DynamicMessage) -> Result<(), String> {
        let descriptor = message.descriptor();
        if let Some(name) = descriptor.full_name().strip_prefix(WELL_KNOWN) {
            if let Some(field) = descriptor.get_field(1).filter(|_| WRAPPERS.contains(&name)) {
                return self.value(&message.get_field(&field), &field.kind());
            }
            let options = SerializeOptions::new().stringify_64_bit_integers(false).skip_default_fields(false);
            let mut serializer = serde_json::Serializer::new(&mut *self.out);
            let written = message.serialize_with_options(&mut serializer, &options);
            return written.map_err(|error| error.to_string());
        }
        self.out.push(b'{');
        let mut is_first = true;
        for field in descriptor.fields() {
            if field.supports_presence() && !message.has_field(&field) {
                continue;
            }
            if !is_first {
                self.out.push(b',');
            }
            is_first = false;
            push_string(self.out, field.name());
            self.out.push(b':');
            let value = message.get_field(&field);
            self.value(&value, &field.kind()).map_err(|problem| format!("{}: {problem}", field.name()))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn value(&mut self, value: &Value, kind: &Kind) -> Result<(), String> {
        match value {
            Value::Bool(value) => self.display(value),
            Value::I32(number) => self.display(number),
            Value::I64(number) => self.display(number),
            Value::U32(number) => self.display(number),
            Value::U64(number) => self.display(number),
            Value::F32(number) => push_float(self.out, number, f64::from(*number)),
            Value::F64(number) => push_float(self.out, number, *number),
            Value::String(text) => push_string(self.out, text),
            Value::Bytes(bytes) => self.binary.push(self.out, bytes).map_err(|at| {
                format!("the bytes are not valid UTF-8 from byte {at} on: Base64 accepts any bytes")
            })?,
            Value::EnumNumber(number) => {
                let name = kind.as_enum().and_then(|kind| kind.get_value(*number));
                match name {
                    Some(value) => push_string(self.out, value.name()),
                    // Numbers that the schema does not name are kept.
                    None => self.display(number),
                }
            }
            Value::Message(message) => self.message(message)?,
            Value::List(values) => {
                self.out.push(b'[');
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        self.out.push(b',');
                    }
                    self.value(value, kind)?;
                }
                self.out.push(b']');
            }
            Value::Map(entries) => self.map(entries.iter().collect(), kind)?,
        }
        Ok(())
    }

    fn map(&mut self, mut entries: Vec<(&MapKey, &Value)>, kind: &Kind) -> Result<(), String> {
        let entry = kind.as_message().ok_or("a map without the type of its entries")?;
        let kind = entry.map_entry_value_field().kind();
        entries.sort_by_key(|(key, _)| *key);
        self.out.push(b'{');
        for (at, (key, value)) in entries.into_iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            match key {
                MapKey::String(text) => push_string(self.out, text),
                MapKey::Bool(key) => push_string(self.out, &key.to_string()),
                MapKey::I32(key) => push_string(self.out, &key.to_string()),
                MapKey::I64(key) => push_string(self.out, &key.to_string()),
                MapKey::U32(key) => push_string(self.out, &key.to_string()),
                MapKey::U64(key) => push_string(self.out, &key.to_string()),
            }
            self.out.push(b':');
            self.value(value, &kind)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn display(&mut self, value: impl std::fmt::Display) {
        // Writing to a Vec does not fail.
        let _ = write!(self.out, "{value}");
    }
}
