//! The decoder of a pipeline whose records are no plain JSON.

use std::sync::Arc;

use anyhow::{Context, ensure};
use kmr_core::{Mapped, Record};
use kmr_formats as formats;
use kmr_formats::{Avro, Binary, Csv, DecodeError, JsonSchema, Protobuf, Raw, SchemaRegistry};
use kmr_sinks::clickhouse::JsonRow;

use super::file::{Bytes, Format, Pipeline, Registry, Times};

/// How a record becomes rows.
#[derive(Clone)]
pub(super) enum Decoder {
    /// The payload is JSON already.
    Json,
    /// One row.
    One(DecodeOne),
    /// Any number of rows.
    Many(DecodeMany),
}

pub(super) type DecodeOne = Arc<dyn Fn(&Record<'_>) -> Mapped<JsonRow> + Send + Sync>;
pub(super) type DecodeMany = Arc<dyn Fn(&Record<'_>) -> Result<Vec<JsonRow>, DecodeError> + Send + Sync>;

impl Decoder {
    /// The decoder of `pipeline`.
    ///
    /// # Errors
    /// A setting of the registry or of the format is wrong.
    pub(super) fn new(pipeline: &Pipeline) -> anyhow::Result<Self> {
        Ok(match pipeline.format {
            Format::Json => Self::Json,
            Format::JsonSchema => Self::One(Arc::new(|record: &Record<'_>| {
                Mapped::Ready(JsonSchema::rows(record).map_err(Into::into))
            })),
            Format::Avro => {
                let avro =
                    Avro::new(registry(pipeline)?).binary(binary(pipeline.avro.bytes)).times(match pipeline
                        .avro
                        .times
                    {
                        Times::Iso => formats::Times::Iso,
                        Times::Numbers => formats::Times::Numbers,
                    });
                Self::One(Arc::new(avro.rows()))
            }
            Format::Protobuf => {
                let protobuf = Protobuf::new(registry(pipeline)?).binary(binary(pipeline.protobuf.bytes));
                Self::One(Arc::new(protobuf.rows()))
            }
            Format::Csv => Self::Many(Arc::new(csv(pipeline)?.rows())),
            Format::Raw => {
                let raw = Raw::new(binary(pipeline.raw.encoding)).rows(pipeline.raw.field.as_str());
                Self::One(Arc::new(move |record: &Record<'_>| Mapped::Ready(raw(record).map_err(Into::into))))
            }
        })
    }
}

fn binary(bytes: Bytes) -> Binary {
    match bytes {
        Bytes::Base64 => Binary::Base64,
        Bytes::Text => Binary::Text,
    }
}

fn csv(pipeline: &Pipeline) -> anyhow::Result<Csv> {
    let [delimiter] = *pipeline.csv.delimiter.as_str().as_bytes() else {
        anyhow::bail!("csv.delimiter is not one character of ASCII");
    };
    let csv = match &pipeline.csv.columns {
        Some(columns) => Csv::with_columns(columns.iter()),
        None => Csv::with_header(),
    };
    Ok(csv.delimiter(delimiter))
}

/// The registry of a pipeline.
///
/// # Errors
/// A setting of it is wrong.
pub(super) fn registry(pipeline: &Pipeline) -> anyhow::Result<SchemaRegistry> {
    let settings = pipeline.registry.as_ref().context("the section registry is missing")?;
    let Registry { urls, user, password, bearer_token, ca_certificate, request_timeout } = settings;
    let mut urls = urls.iter();
    let first = urls.next().context("registry.urls is empty")?;
    let builder = urls.fold(SchemaRegistry::builder(first), |builder, url| builder.fallback_url(url));
    let mut builder = builder.request_timeout(request_timeout.0);
    ensure!(user.is_some() == password.is_some(), "registry.user and registry.password belong together");
    ensure!(
        user.is_none() || bearer_token.is_none(),
        "registry has both a user and a bearer_token: keep one"
    );
    if let (Some(user), Some(password)) = (user, password) {
        builder = builder.user(user.as_str(), password.reveal());
    }
    if let Some(token) = bearer_token {
        builder = builder.bearer_token(token.reveal());
    }
    if let Some(file) = ca_certificate {
        builder = builder.ca_certificate(file.as_str());
    }
    Ok(builder.build()?)
}
