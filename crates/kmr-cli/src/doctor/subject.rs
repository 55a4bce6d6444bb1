//! The consumer that is checked: that of the flags, or a pipeline of a file.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kmr_cli_support::clickhouse::{Access, Server};
use kmr_cli_support::connection::ClickHouseArgs;
use kmr_cli_support::errors::one_line;
use kmr_cli_support::ingest::{self, Protocol, RunArgs};
use kmr_formats::SchemaRegistry;
use rdkafka::ClientConfig;

use super::facts::{SettingsFacts, Writer};
use crate::kafka_client;

/// What a consumer reads, and where it writes to.
pub(crate) struct Subject {
    pub(crate) settings: SettingsFacts,
    /// The bootstrap brokers.
    pub(crate) broker: String,
    /// Settings of a client that joins no group: brokers, credentials, TLS.
    pub(crate) client: ClientConfig,
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) protocol: Protocol,
    pub(crate) dead_letter_topic: Option<String>,
    /// `None`: it writes to no table.
    pub(crate) table: Option<Table>,
    /// The topic that it writes its records to.
    pub(crate) sink_topic: Option<SinkTopic>,
    /// The registry of its schemas, or why its settings are wrong.
    pub(crate) registry: Option<Result<SchemaRegistry, String>>,
    pub(crate) writer: Writer,
}

/// A topic that is written to.
pub(crate) struct SinkTopic {
    pub(crate) topic: String,
    pub(crate) broker: String,
    pub(crate) client: ClientConfig,
}

/// A table, and how it is written.
pub(crate) struct Table {
    pub(crate) place: ClickHouseArgs,
    pub(crate) access: Access,
    pub(crate) rows: Rows,
    pub(crate) start: StartWriter,
}

/// The row type of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// That of the demonstration.
    Ingest,
    /// JSON objects, whose columns the start of the writer checks.
    Json,
}

/// Starts the writer as the consumer does, and stops there. The argument bounds the wait for the
/// server.
pub(crate) type StartWriter =
    Box<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> + Send + Sync>;

impl Table {
    pub(crate) fn server(&self) -> Server<'_> {
        Server::with_access(&self.place, &self.access)
    }
}

impl Subject {
    /// The consumer of `kmr-demo run`.
    ///
    /// # Errors
    /// `--set` holds a password.
    pub(super) fn of_flags(args: &Arc<RunArgs>) -> anyhow::Result<Self> {
        let config = ingest::client_config(args)?;
        let settings = SettingsFacts {
            rejected: ingest::consumer(args).err().map(|error| one_line(&error)),
            notes: config.lint(),
        };
        let start = Arc::clone(args);
        Ok(Self {
            settings,
            broker: args.kafka.broker.clone(),
            client: kafka_client::config(&args.kafka, "kmr-doctor")?,
            topic: args.kafka.topic.clone(),
            group: args.group.clone(),
            protocol: args.protocol,
            dead_letter_topic: args.dead_letter_topic.clone(),
            table: Some(Table {
                place: args.clickhouse.clone(),
                access: Access::of_environment(),
                rows: Rows::Ingest,
                start: Box::new(move |timeout| {
                    let args = Arc::clone(&start);
                    Box::pin(async move { ingest::start_writer(&args, timeout).await })
                }),
            }),
            sink_topic: None,
            registry: None,
            writer: Writer { max_age: args.tuning.max_age },
        })
    }
}
