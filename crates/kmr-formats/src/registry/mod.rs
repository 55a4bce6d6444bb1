//! Schemas from a Schema Registry that speaks Confluent's REST API.
//!
//! `wire` splits the id of a schema from a record. `cache` has the schemas. `load` fetches one with
//! those that it refers to, by the requests of `client`. `stage` puts them together with a decoder.

use std::sync::Arc;

mod cache;
mod client;
mod config;
mod connector;
mod error;
mod load;
mod reply;
mod schema;
#[cfg(any(feature = "avro", feature = "protobuf"))]
mod stage;
mod wire;

pub use config::SchemaRegistryBuilder;
pub use error::RegistryError;
pub use schema::{RegisteredSchema, SchemaReference, SchemaType};
#[cfg(any(feature = "avro", feature = "protobuf"))]
pub(crate) use stage::stage;
pub(crate) use wire::{PREFIX, split};

use cache::Cache;
use client::Client;

/// A Schema Registry with Confluent's REST API, such as that of Confluent, Karapace, Apicurio or
/// Redpanda.
///
/// A clone is another handle of the same registry. It fetches each schema once, with the schemas
/// that it refers to, and keeps it for the life of the process. It connects with the first record.
#[derive(Clone, Debug)]
pub struct SchemaRegistry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    cache: Cache,
}

impl SchemaRegistry {
    /// The settings of the registry at `url`, such as `http://registry:8081`. A path is kept.
    pub fn builder(url: impl Into<String>) -> SchemaRegistryBuilder {
        SchemaRegistryBuilder::new(url.into())
    }

    /// The schema of this id, if it was fetched already.
    pub fn cached(&self, id: u32) -> Option<Arc<RegisteredSchema>> {
        self.shared.cache.cached(id)
    }

    /// The schema of this id. One request for an id is under way at a time.
    ///
    /// # Errors
    /// See [`RegistryError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, its request ends, and another caller that waits for the same id
    /// sends one.
    pub async fn schema(&self, id: u32) -> Result<Arc<RegisteredSchema>, RegistryError> {
        let fetch = load::load(&self.shared.client, id);
        self.shared.cache.get_or_fetch(id, fetch).await
    }

    /// Whether each address is a registry that accepts the credentials, for checks before a start.
    /// It sends one request to each, and reads no schema. Cancel safe.
    pub async fn check(&self) -> Vec<(String, Result<(), RegistryError>)> {
        self.shared.client.check().await
    }
}
