//! A message as JSON.
//!
//! prost-reflect has a serializer, but it writes floats and maps in a way that rows cannot use: the
//! order of a map's entries is another one in each process, and exactly-once mode compares rows.

use std::io::Write as _;

use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage, SerializeOptions, Value};

use super::known_types;
use crate::binary::Binary;
use crate::text::{push_float, push_string};

/// The package of the messages in [`SPECIAL`] and [`WRAPPERS`].
const GOOGLE: &str = "google.protobuf.";

/// Messages whose JSON is not an object of their fields.
const SPECIAL: [&str; 7] = ["Duration", "Empty", "FieldMask", "ListValue", "Struct", "Timestamp", "Value"];

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

/// Levels of `Any`. A message of other types has at most as many levels.
const DEEPEST: usize = 100;

pub(super) struct JsonWriter<'o> {
    binary: Binary,
    out: &'o mut Vec<u8>,
    /// How many `Any` are around the current message.
    depth: usize,
}

impl<'o> JsonWriter<'o> {
    pub(super) fn new(binary: Binary, out: &'o mut Vec<u8>) -> Self {
        Self { binary, out, depth: 0 }
    }

    /// Writes an object of all fields that the message has or that have a default.
    ///
    /// # Errors
    /// A value has no JSON. The text names the field.
    pub(super) fn message(&mut self, message: &DynamicMessage) -> Result<(), String> {
        let descriptor = message.descriptor();
        match descriptor.full_name().strip_prefix(GOOGLE) {
            Some("Any") => return self.any(message),
            Some(name) if WRAPPERS.contains(&name) => {
                let field = descriptor.get_field(1).ok_or("a wrapper without a value")?;
                return self.value(&message.get_field(&field), &field.kind());
            }
            Some(name) if SPECIAL.contains(&name) => return self.special(message),
            _ => {}
        }
        if let Some(text) = known_types::text(message) {
            push_string(self.out, &text?);
            return Ok(());
        }
        self.out.push(b'{');
        self.fields(message, true)?;
        self.out.push(b'}');
        Ok(())
    }

    /// The fields of an object.
    fn fields(&mut self, message: &DynamicMessage, mut is_first: bool) -> Result<(), String> {
        for field in message.descriptor().fields() {
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
        Ok(())
    }

    /// A message of a type that only its record names: its fields after `@type`, or its JSON as
    /// `value` if that is not an object of its fields.
    fn any(&mut self, any: &DynamicMessage) -> Result<(), String> {
        let (url, bytes) = (any.get_field_by_number(1), any.get_field_by_number(2));
        let url = url.as_deref().and_then(Value::as_str).unwrap_or_default();
        if url.is_empty() {
            self.out.extend_from_slice(b"{}");
            return Ok(());
        }
        let name = url.rsplit('/').next().unwrap_or_default();
        let descriptor = any.descriptor().parent_pool().get_message_by_name(name).ok_or_else(|| {
            format!("an Any holds a message of {name}, which neither the schema nor its imports have")
        })?;
        // Each is decoded by itself, so the decoder's limit does not count them together.
        if self.depth >= DEEPEST {
            return Err(format!("more than {DEEPEST} messages of google.protobuf.Any inside of each other"));
        }
        self.depth += 1;
        let bytes = bytes.as_deref().and_then(Value::as_bytes).cloned().unwrap_or_default();
        let message = DynamicMessage::decode(descriptor, bytes)
            .map_err(|error| format!("an Any holds no message of {name}: {error}"))?;
        self.out.extend_from_slice(br#"{"@type":"#);
        push_string(self.out, url);
        let google = name.strip_prefix(GOOGLE);
        let is_value =
            google.is_some_and(|name| name == "Any" || SPECIAL.contains(&name) || WRAPPERS.contains(&name));
        if is_value || known_types::text(&message).is_some() {
            self.out.extend_from_slice(br#","value":"#);
            self.message(&message)?;
        } else {
            self.fields(&message, false)?;
        }
        self.out.push(b'}');
        self.depth -= 1;
        Ok(())
    }

    /// Protobuf's own JSON of a message.
    fn special(&mut self, message: &DynamicMessage) -> Result<(), String> {
        let options = SerializeOptions::new().stringify_64_bit_integers(false).skip_default_fields(false);
        let mut serializer = serde_json::Serializer::new(&mut *self.out);
        let written = message.serialize_with_options(&mut serializer, &options);
        written.map_err(|error| error.to_string())
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
