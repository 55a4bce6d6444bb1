//! A writer after its start: the described table, and the destination of its batches.

use std::sync::Arc;

use kmr_core::BatchOptions;

use crate::clickhouse::batch::delivery::FrozenBatch;
use crate::clickhouse::batch::destination::{Destination, DestinationOptions};
use crate::clickhouse::batch::encoded_batch::EncodedBatch;
use crate::clickhouse::batch::open_batch::OpenBatch;
use crate::clickhouse::batch::row_type::ClickHouseRow;
use crate::clickhouse::batch::token::Tokens;
use crate::clickhouse::config::{Config, SchemaChange};
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::exactly_once::PlannedRows;
use crate::clickhouse::exactly_once::probe::Probe;
use crate::clickhouse::exactly_once::windows::{FORBIDDEN_SETTINGS, TokenGraph, Window, check_views, graph};
use crate::clickhouse::http::hosts::Hosts;
use crate::clickhouse::http::throttle::Throttle;
use crate::clickhouse::json::table::JsonTable;
use crate::clickhouse::metrics::InsertMetrics;
use crate::clickhouse::table::described::DescribedTable;
use crate::clickhouse::table::startup::StartOptions;
use crate::clickhouse::table::types::ServerRanges;
use crate::clickhouse::table::{conversion, server_ranges, startup};
use crate::clickhouse::telemetry;

/// The results of the start.
pub(crate) struct Started {
    pub(crate) table: Arc<DescribedTable>,
    destination: Arc<Destination>,
    tokens: Tokens,
    /// Only in exactly-once mode: the windows of the table and of the targets of its views.
    windows: Option<Arc<[Window]>>,
}

impl Started {
    /// Describes the table and checks that rows of type `R` fit it.
    pub(crate) async fn new<R: ClickHouseRow>(
        config: &Config,
        options: &BatchOptions,
        metrics: &InsertMetrics,
    ) -> Result<Self, ClickHouseError> {
        let hosts = Hosts::new(config.endpoints()?);
        let name = config.quoted_table();
        let start = StartOptions {
            allow_volatile: config.allow_volatile_table,
            async_insert: config.async_insert,
            start_timeout: config.start_timeout,
        };
        let (host, described) = startup::describe(&hosts, &name, start).await?;
        let mut schema = R::schema(&name, &described, config)?;
        if schema.converts() {
            let check = |endpoint| conversion::check(endpoint, &name, &schema);
            startup::until_ready(&hosts, config.start_timeout, check).await?;
        }
        let ranges = match schema.holds_years() {
            true => server_ranges::read(&hosts, &name, &schema.zones(), config.start_timeout).await?,
            false => ServerRanges::default(),
        };
        schema.set_ranges(&ranges, config.out_of_range);
        telemetry::connected(&hosts.endpoint(host).address(), &name, schema.columns.len());
        let json = match R::IS_JSON {
            true => Some(
                JsonTable::start(&hosts, &name, &schema, &config.json, config.out_of_range, start).await?,
            ),
            false => None,
        };
        let table = Arc::new(DescribedTable::new(name, schema).with_json(json));
        let options = DestinationOptions {
            compression: config.compression,
            limits: config.limits,
            schema_change: config.schema_change,
            throttle: Throttle::new(options.attempt_timeout),
            metrics: metrics.clone(),
            max_rows: options.max_rows,
            async_insert: config.async_insert,
        };
        let destination = Arc::new(Destination::new(hosts, Arc::clone(&table), options));
        Ok(Self { table, destination, tokens: Tokens::new(), windows: None })
    }

    /// Checks that options and tables allow exactly-once mode.
    pub(crate) async fn start_exactly_once(&mut self, config: &Config) -> Result<(), ClickHouseError> {
        if let Some(problem) = self.exactly_once_problem(config) {
            return Err(ClickHouseError::Config(problem));
        }
        let (hosts, name) = (&self.destination.hosts, self.table.name.as_str());
        let (_, TokenGraph { windows, views }) =
            startup::until_ready(hosts, config.start_timeout, |endpoint| graph(endpoint, name)).await?;
        let same_views = |endpoint| check_views(endpoint, name, &views);
        startup::until_ready(hosts, config.start_timeout, same_views).await?;
        let probes = |_| Probe::check_session(&self.destination);
        startup::until_ready(hosts, config.start_timeout, probes).await?;
        windows.iter().for_each(telemetry::window);
        self.windows = Some(windows.into());
        Ok(())
    }

    /// The option that exactly-once mode does not allow.
    fn exactly_once_problem(&self, config: &Config) -> Option<String> {
        let is_forbidden = |name: &str| FORBIDDEN_SETTINGS.contains(&name);
        if let Some((name, _)) = config.settings.iter().find(|(name, _)| is_forbidden(name)) {
            return Some(format!(
                "the setting {name} controls deduplication and cannot be changed with .setting()"
            ));
        }
        let problem = if config.schema_change != SchemaChange::Stop {
            "rows of a planned block stay in it; remove .schema_change_policy()"
        } else if config.async_insert {
            "the server may join asynchronous inserts; remove .async_insert()"
        } else if self.destination.hosts.len() > 1 {
            "several hosts may not share their tokens; use one (or a load balancer before replicas of one table)"
        } else {
            return None;
        };
        Some(problem.to_owned())
    }

    /// Closes a batch.
    pub(crate) fn freeze(&mut self, mut open: OpenBatch, config: &Config) -> FrozenBatch {
        let token = self.tokens.next();
        let planned = self.windows.clone().map(|windows| PlannedRows { hash: open.hash(), windows });
        let (segments, ends) = open.into_parts();
        let header = self.table.schema.header.clone();
        let encoded = EncodedBatch::new(config.compression, header, ends, segments);
        FrozenBatch::new(Arc::clone(&self.destination), token, encoded, planned)
    }
}
