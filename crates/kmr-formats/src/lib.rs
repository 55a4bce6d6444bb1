#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
mod json;
mod text;

#[cfg(any(feature = "avro", feature = "protobuf", feature = "raw"))]
mod binary;
#[cfg(feature = "csv")]
mod csv;
#[cfg(feature = "avro")]
mod date;
#[cfg(any(feature = "avro", feature = "protobuf"))]
mod decimal;
#[cfg(any(feature = "avro", feature = "csv"))]
mod path;
#[cfg(feature = "raw")]
mod raw;
#[cfg(any(feature = "avro", feature = "protobuf"))]
mod time;

#[cfg(feature = "avro")]
mod avro;
#[cfg(feature = "registry")]
mod json_schema;
#[cfg(feature = "protobuf")]
mod protobuf;
#[cfg(feature = "registry")]
mod registry;

#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "csv")]
pub use self::csv::Csv;
#[cfg(feature = "avro")]
pub use avro::{Avro, AvroSchema, Times};
#[cfg(any(feature = "avro", feature = "protobuf", feature = "raw"))]
pub use binary::Binary;
pub use error::DecodeError;
pub use json::json;
#[cfg(feature = "registry")]
pub use json_schema::JsonSchema;
#[cfg(feature = "protobuf")]
pub use protobuf::Protobuf;
#[cfg(feature = "raw")]
pub use raw::Raw;
#[cfg(feature = "registry")]
pub use registry::{
    RegisteredSchema, RegistryError, SchemaReference, SchemaRegistry, SchemaRegistryBuilder, SchemaType,
};
