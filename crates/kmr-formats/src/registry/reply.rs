//! What a registry returns for a schema.

use serde::Deserialize;

/// A schema in a response.
#[derive(Debug, Deserialize)]
pub(super) struct SchemaReply {
    pub(super) schema: String,
    #[serde(rename = "schemaType")]
    pub(super) schema_type: Option<String>,
    pub(super) references: Option<Vec<ReferenceReply>>,
}

/// A reference of a schema to another one.
#[derive(Debug, Deserialize)]
pub(super) struct ReferenceReply {
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) version: i32,
}
