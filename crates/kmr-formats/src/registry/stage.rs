//! The map stage of all formats whose schemas are in a registry.

use kmr_core::{Mapped, Record};

use super::wire::{PREFIX, split};
use super::{RegisteredSchema, RegistryError, SchemaRegistry};
use crate::error::DecodeError;

/// A stage that calls `decode` with the schema of a record, the message, and where it starts. A
/// record whose schema is cached is ready at once.
pub(crate) fn stage<T, D>(
    format: &'static str,
    registry: SchemaRegistry,
    decode: D,
) -> impl Fn(&Record<'_>) -> Mapped<T> + Clone + Send + Sync + 'static
where
    T: Send + 'static,
    D: Fn(&RegisteredSchema, &[u8], usize) -> Result<T, DecodeError> + Clone + Send + Sync + 'static,
{
    move |record: &Record<'_>| {
        let payload = record.payload().ok_or_else(|| DecodeError::tombstone(format));
        let framed = match payload.and_then(|payload| split(format, payload)) {
            Ok(framed) => framed,
            Err(error) => return Mapped::Ready(Err(error.into())),
        };
        let id = framed.id;
        if let Some(schema) = registry.cached(id) {
            let value = decode(&schema, framed.body, PREFIX);
            return Mapped::Ready(value.map_err(|error| error.with_schema(id).into()));
        }
        let (registry, decode, body) = (registry.clone(), decode.clone(), framed.body.to_vec());
        Mapped::Pending(Box::pin(async move {
            let schema = registry.schema(id).await.map_err(RegistryError::into_stage_error)?;
            decode(&schema, &body, PREFIX).map_err(|error| error.with_schema(id).into())
        }))
    }
}
