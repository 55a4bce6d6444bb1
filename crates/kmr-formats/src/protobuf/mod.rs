//! Protobuf with the prefix of a Schema Registry: typed by generated code, or as JSON by the schema
//! of the registry.
//!
//! `index` finds the message in its file. `file` compiles a schema with `known_files`, and `json`
//! writes a message; `known_types` are those that are one value.

use kmr_core::{Mapped, Record};
use prost::Message;
use serde::de::DeserializeOwned;

use crate::binary::Binary;
use crate::error::{DecodeError, without_value};
use crate::registry::{RegisteredSchema, SchemaRegistry, SchemaType, split, stage};

mod file;
mod index;
mod json;
mod known_files;
mod known_types;

pub(crate) use file::ProtobufFile;

const PROTOBUF: &str = "Protobuf";

/// Decodes records of Protobuf with the Schema Registry's prefix.
///
/// What becomes of errors: see [`RegistryError`](crate::RegistryError).
///
/// # Examples
/// ```
/// use kmr_core::{RetryPolicy, Strategy};
/// use kmr_formats::{Protobuf, SchemaRegistry};
/// use kmr_sinks::clickhouse::JsonRow;
///
/// # fn strategy() -> Result<(), kmr_formats::RegistryError> {
/// let registry = SchemaRegistry::builder("http://registry:8081").build()?;
/// let strategy = Strategy::new()
///     .map_retry(RetryPolicy::default().with_give_up_after(None))
///     .map(Protobuf::new(registry).rows::<JsonRow>());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Protobuf {
    registry: SchemaRegistry,
    binary: Binary,
}

impl Protobuf {
    /// Records whose schemas `registry` has.
    pub fn new(registry: SchemaRegistry) -> Self {
        Self { registry, binary: Binary::default() }
    }

    /// How `bytes` become JSON. Default [`Binary::Base64`].
    pub fn binary(mut self, binary: Binary) -> Self {
        self.binary = binary;
        self
    }

    /// A `map` stage: each record as an object of JSON, such as a `JsonRow` of kmr-sinks. Fields
    /// have the names of the schema. Fields that the message does not have are left out, if the
    /// schema can tell; others have the default of their type.
    pub fn rows<R: From<Vec<u8>> + Send + 'static>(
        self,
    ) -> impl Fn(&Record<'_>) -> Mapped<R> + Clone + Send + Sync + 'static + use<R> {
        let binary = self.binary;
        stage(PROTOBUF, self.registry, move |schema, body, base| {
            of_registry(schema)?.to_json(binary, body, base).map(R::from)
        })
    }

    /// A `map` stage: each record as a value of the type `T`, by its JSON. See
    /// [`rows`](Self::rows).
    /// Code that prost generated needs neither JSON nor registry: see [`message`](Self::message).
    pub fn typed<T: DeserializeOwned + Send + 'static>(
        self,
    ) -> impl Fn(&Record<'_>) -> Mapped<T> + Clone + Send + Sync + 'static + use<T> {
        let binary = self.binary;
        stage(PROTOBUF, self.registry, move |schema, body, base| {
            let json = of_registry(schema)?.to_json(binary, body, base)?;
            serde_json::from_slice(&json).map_err(|error| {
                let text = error.to_string();
                let text = text.split(" at line ").next().unwrap_or_default();
                DecodeError::new(PROTOBUF, without_value(text)).at(base)
            })
        })
    }

    /// For `map`: each record as a message of code that prost generated. It does not ask the
    /// registry. The type decides, whichever message of its file the record names.
    ///
    /// # Errors
    /// The record goes to `reduce_err`: it has no prefix, or is no message of this type.
    pub fn message<M: Message + Default>(record: &Record<'_>) -> Result<M, DecodeError> {
        let payload = record.payload().ok_or_else(|| DecodeError::tombstone(PROTOBUF))?;
        let framed = split(PROTOBUF, payload)?;
        let base = payload.len() - framed.body.len();
        let (_, body, at) = index::split(framed.body, base).map_err(|error| error.with_schema(framed.id))?;
        M::decode(body).map_err(|error| {
            DecodeError::new(PROTOBUF, format!("no such message: {error}")).at(at).with_schema(framed.id)
        })
    }
}

/// The compiled schema. It is compiled for the first record.
fn of_registry(schema: &RegisteredSchema) -> Result<&ProtobufFile, DecodeError> {
    schema.expect(SchemaType::Protobuf, PROTOBUF)?;
    let compiled = schema.protobuf.get_or_init(|| ProtobufFile::compile(schema));
    compiled
        .as_ref()
        .map_err(|problem| DecodeError::new(PROTOBUF, format!("the schema is wrong: {problem}")).at(0))
}
