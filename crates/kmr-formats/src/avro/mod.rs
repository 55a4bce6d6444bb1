//! Avro's binary encoding, typed or as JSON.
//!
//! `schema` compiles the writer's schema into nodes. `json` and `de` read a datum along them, with
//! `cursor` for the primitive values. A `fault` is an error before it gets the offset of the datum
//! in its record.

use kmr_core::{Mapped, Record};
use serde::de::DeserializeOwned;

use crate::binary::Binary;
use crate::error::DecodeError;
use crate::registry::{RegisteredSchema, SchemaRegistry, SchemaType, stage};

mod cursor;
mod de;
mod fault;
mod json;
mod schema;

use fault::AVRO;
use schema::Nodes;

/// How dates and times become JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Times {
    /// As text in ISO 8601, such as `2026-11-30T12:34:56.789Z`: it means the same for every column.
    /// The default. A date that is not in the years 0 to 9999 is an error of the record.
    #[default]
    Iso,
    /// As the number that Avro has, in the unit of the schema, for columns of integers.
    Numbers,
}

/// How values become JSON, where there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct AvroOptions {
    binary: Binary,
    times: Times,
}

/// Decodes records of Avro with the Schema Registry's prefix.
///
/// The schema that a record was written with decides how it is read. It is fetched once. Records
/// of several versions of a schema become rows with the fields of their version.
///
/// What becomes of errors: see [`RegistryError`](crate::RegistryError).
///
/// # Examples
/// ```
/// use kmr_core::{RetryPolicy, Strategy};
/// use kmr_formats::{Avro, SchemaRegistry};
/// use kmr_sinks::ClickHouseWriter;
/// use kmr_sinks::clickhouse::JsonRow;
///
/// # fn strategy() -> Result<(), kmr_formats::RegistryError> {
/// let registry = SchemaRegistry::builder("http://registry:8081").build()?;
/// let strategy = Strategy::new()
///     // As long as no registry can be reached, its records wait.
///     .map_retry(RetryPolicy::default().with_give_up_after(None))
///     .map(Avro::new(registry).rows::<JsonRow>())
///     .reduce(ClickHouseWriter::<JsonRow>::new("http://127.0.0.1:8123", "readings"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Avro {
    registry: SchemaRegistry,
    options: AvroOptions,
}

impl Avro {
    /// Records whose schemas `registry` has.
    pub fn new(registry: SchemaRegistry) -> Self {
        Self { registry, options: AvroOptions::default() }
    }

    /// How `bytes` and `fixed` become JSON. Default [`Binary::Base64`].
    pub fn binary(mut self, binary: Binary) -> Self {
        self.options.binary = binary;
        self
    }

    /// How dates and times become JSON. Default [`Times::Iso`].
    pub fn times(mut self, times: Times) -> Self {
        self.options.times = times;
        self
    }

    /// A `map` stage: each record as a value of JSON, such as a `JsonRow` of kmr-sinks.
    pub fn rows<R: From<Vec<u8>> + Send + 'static>(
        self,
    ) -> impl Fn(&Record<'_>) -> Mapped<R> + Clone + Send + Sync + 'static + use<R> {
        let options = self.options;
        stage(AVRO, self.registry, move |schema, body, base| {
            of_registry(schema)?.json_at(options, body, base).map(R::from)
        })
    }

    /// A `map` stage: each record as a value of the type `T`, by the names of its fields.
    /// `#[serde(default)]` is for fields that some versions of the schema do not have.
    ///
    /// Dates and times are the numbers of the schema. Decimals are text, or floats if the field is
    /// one. A `fixed`, a UUID of 16 bytes and a duration are bytes. A union is the value of its
    /// branch.
    pub fn typed<T: DeserializeOwned + Send + 'static>(
        self,
    ) -> impl Fn(&Record<'_>) -> Mapped<T> + Clone + Send + Sync + 'static + use<T> {
        stage(AVRO, self.registry, |schema, body, base| {
            let nodes = &of_registry(schema)?.0;
            de::decode(nodes, body).map_err(|fault| fault.into_error(base))
        })
    }
}

/// The compiled schema. It is compiled for the first record.
fn of_registry(schema: &RegisteredSchema) -> Result<&AvroSchema, DecodeError> {
    schema.expect(SchemaType::Avro, AVRO)?;
    let compiled = schema.avro.get_or_init(|| {
        Nodes::parse(schema.text(), schema.references().map(|reference| reference.text.as_str()))
            .map(AvroSchema)
    });
    compiled.as_ref().map_err(|problem| DecodeError::new(AVRO, format!("the schema is wrong: {problem}")))
}

/// A schema, for data without the prefix of a registry.
///
/// # Examples
/// ```
/// use kmr_formats::AvroSchema;
///
/// let schema = AvroSchema::parse(
///     r#"{"type": "record", "name": "Reading", "fields": [
///         {"name": "id", "type": "long"}, {"name": "tag", "type": ["null", "string"]}]}"#,
/// )?;
/// assert_eq!(schema.to_json(&[10, 2, 2, b'a'])?, br#"{"id":5,"tag":"a"}"#);
/// let (id, tag): (i64, Option<String>) = {
///     #[derive(serde::Deserialize)]
///     struct Reading { id: i64, tag: Option<String> }
///     let reading: Reading = schema.decode(&[10, 0])?;
///     (reading.id, reading.tag)
/// };
/// assert_eq!((id, tag), (5, None));
/// # Ok::<(), kmr_formats::DecodeError>(())
/// ```
#[derive(Debug)]
pub struct AvroSchema(Nodes);

impl AvroSchema {
    /// Parses a schema in JSON.
    ///
    /// # Errors
    /// It is no schema, or uses a name that it does not define.
    pub fn parse(schema: &str) -> Result<Self, DecodeError> {
        let nodes = Nodes::parse(schema, []);
        nodes.map(Self).map_err(|problem| DecodeError::new(AVRO, format!("the schema is wrong: {problem}")))
    }

    /// The datum as JSON, with the default options of [`Avro`].
    ///
    /// # Errors
    /// The datum does not fit the schema.
    pub fn to_json(&self, datum: &[u8]) -> Result<Vec<u8>, DecodeError> {
        self.json_at(AvroOptions::default(), datum, 0)
    }

    /// The datum as a value: see [`Avro::typed`].
    ///
    /// # Errors
    /// The datum does not fit the schema, or the schema does not fit `T`.
    pub fn decode<'d, T: serde::Deserialize<'d>>(&self, datum: &'d [u8]) -> Result<T, DecodeError> {
        de::decode(&self.0, datum).map_err(|fault| fault.into_error(0))
    }

    /// The datum as JSON. It starts at `base` in its record.
    fn json_at(&self, options: AvroOptions, datum: &[u8], base: usize) -> Result<Vec<u8>, DecodeError> {
        // Names of fields and quotes make JSON larger than Avro.
        let mut out = Vec::with_capacity(datum.len() * 3 + 64);
        json::transcode(&self.0, options, datum, &mut out).map_err(|fault| fault.into_error(base))?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
