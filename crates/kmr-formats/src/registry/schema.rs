//! A schema as the registry has it.

#[cfg(any(feature = "avro", feature = "protobuf"))]
use std::sync::OnceLock;

#[cfg(any(feature = "avro", feature = "protobuf"))]
use crate::error::DecodeError;

/// The type of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaType {
    /// Avro, which the registry does not name.
    Avro,
    /// A file of Protobuf.
    Protobuf,
    /// JSON Schema.
    Json,
    /// A type that kmr does not know.
    Other,
}

impl SchemaType {
    pub(super) fn of(name: Option<&str>) -> Self {
        match name {
            None | Some("AVRO") => Self::Avro,
            Some("PROTOBUF") => Self::Protobuf,
            Some("JSON") => Self::Json,
            Some(_) => Self::Other,
        }
    }
}

/// A schema that another one uses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaReference {
    /// The name by which it is used: a name of Avro, or the path of an import in Protobuf.
    pub name: String,
    /// Its subject.
    pub subject: String,
    /// The version of the subject.
    pub version: i32,
    /// The schema itself.
    pub text: String,
}

/// A schema with all that it uses.
#[derive(Debug)]
pub struct RegisteredSchema {
    schema_type: SchemaType,
    text: String,
    /// Each after those that it uses itself.
    references: Vec<SchemaReference>,
    #[cfg(feature = "avro")]
    pub(crate) avro: OnceLock<Result<crate::avro::AvroSchema, String>>,
    #[cfg(feature = "protobuf")]
    pub(crate) protobuf: OnceLock<Result<crate::protobuf::ProtobufFile, String>>,
}

impl RegisteredSchema {
    pub(super) fn new(schema_type: SchemaType, text: String, references: Vec<SchemaReference>) -> Self {
        Self {
            schema_type,
            text,
            references,
            #[cfg(feature = "avro")]
            avro: OnceLock::new(),
            #[cfg(feature = "protobuf")]
            protobuf: OnceLock::new(),
        }
    }

    /// Its type.
    pub fn schema_type(&self) -> SchemaType {
        self.schema_type
    }

    /// The schema itself.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The schemas that it uses, each after those that it uses itself.
    pub fn references(&self) -> impl Iterator<Item = &SchemaReference> {
        self.references.iter()
    }

    /// Checks the type.
    #[cfg(any(feature = "avro", feature = "protobuf"))]
    pub(crate) fn expect(&self, expected: SchemaType, format: &'static str) -> Result<(), DecodeError> {
        if self.schema_type == expected {
            return Ok(());
        }
        let found = match self.schema_type {
            SchemaType::Avro => "Avro",
            SchemaType::Protobuf => "Protobuf",
            SchemaType::Json => "JSON Schema",
            SchemaType::Other => "a type that kmr does not know",
        };
        Err(DecodeError::new(format, format!("the schema is of another type: {found}")).at(0))
    }
}
