//! The records of a sample that have the prefix of a Schema Registry, decoded by its schemas.

use anyhow::{Context as _, bail};
use kmr_cli_support::connection::environment;
use kmr_core::{BoxError, Mapped, OwnedRecord, Record, error_chain};
use kmr_formats::{Avro, JsonSchema, Protobuf, SchemaRegistry, SchemaType};
use serde_json::{Map, Value};

use super::sample::Sample;
use crate::pipeline::file::Format;

/// The variables of the registry's user and password, by the keys of a file.
pub(super) const VARIABLES: [(&str, &str); 2] =
    [("user", "KMR_REGISTRY_USER"), ("password", "KMR_REGISTRY_PASSWORD")];

/// Adds the objects of the sample's framed records. Returns their format, if there is one.
///
/// # Errors
/// No registry was named, it cannot be used, or the records have schemas of several types.
pub(super) async fn decode(sample: &mut Sample, url: Option<&str>) -> anyhow::Result<Option<Format>> {
    let framed = std::mem::take(&mut sample.framed);
    let Some(first) = framed.first() else { return Ok(None) };
    let Some(url) = url else {
        bail!(
            "{} of {} records of the sample start with the byte 0, as in the wire format of a Schema Registry: \
             name it with --registry",
            framed.len(),
            sample.records
        );
    };
    let registry = registry(url)?;
    let format = format(&registry, first).await?;
    for payload in framed {
        match object(&registry, format, payload).await {
            Ok(object) => sample.objects.push(object),
            Err(problem) => sample.fail(problem),
        }
    }
    Ok(Some(format))
}

fn registry(url: &str) -> anyhow::Result<SchemaRegistry> {
    let builder = SchemaRegistry::builder(url);
    let [user, password] = VARIABLES.map(|(_, variable)| environment(variable));
    let builder = match (user, password) {
        (Some(user), Some(password)) => builder.user(user, password),
        (None, None) => builder,
        _ => bail!("KMR_REGISTRY_USER and KMR_REGISTRY_PASSWORD belong together"),
    };
    Ok(builder.build()?)
}

/// The format of the records, by the schema of one of them.
async fn format(registry: &SchemaRegistry, payload: &[u8]) -> anyhow::Result<Format> {
    let id = payload.get(1..5).and_then(|id| <[u8; 4]>::try_from(id).ok()).map(u32::from_be_bytes);
    let id = id.context("a record without the id of a schema")?;
    let schema = registry.schema(id).await.context("reading the schema of the first record")?;
    Ok(match schema.schema_type() {
        SchemaType::Avro => Format::Avro,
        SchemaType::Protobuf => Format::Protobuf,
        SchemaType::Json => Format::JsonSchema,
        _ => bail!("schema {id} is of a type that kmr does not know"),
    })
}

/// The object of a record. The error shows no content.
async fn object(
    registry: &SchemaRegistry,
    format: Format,
    payload: Vec<u8>,
) -> Result<Map<String, Value>, String> {
    let record = OwnedRecord::new("sample", 0, 0).with_payload(payload);
    let json = json(registry, format, &record.as_record()).await.map_err(|error| error_chain(&*error))?;
    match serde_json::from_slice(&json) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err("its message is no object".to_owned()),
    }
}

async fn json(registry: &SchemaRegistry, format: Format, record: &Record<'_>) -> Result<Vec<u8>, BoxError> {
    let mapped = match format {
        Format::Avro => Avro::new(registry.clone()).rows()(record),
        Format::Protobuf => Protobuf::new(registry.clone()).rows()(record),
        _ => return Ok(JsonSchema::rows(record)?),
    };
    match mapped {
        Mapped::Ready(json) => json,
        Mapped::Pending(json) => json.await,
    }
}
