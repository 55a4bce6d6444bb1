//! The table that new rows are encoded for, which follows changes of the table while a consumer
//! runs.
//!
//! A row gives the reason to look at the table again: it has a name that its `Enum` does not have,
//! or a field without a column. An insert that failed because the table changed is one, too. Rows
//! that fit cost nothing. A look is one `DESCRIBE TABLE`, at most one in [`LOOK_INTERVAL`] for each
//! kind of reason.
//!
//! Invariants:
//! 1. A chunk of rows is encoded for one version. Its insert has the columns of that version, so
//!    rows that are encoded already stay right.
//! 2. A new version has all columns of the one before, and a value that fitted before has the same
//!    bytes ([`extended`]). All other changes are left to the server's conversion.
//! 3. In exactly-once mode no column is added. So a block that is rebuilt is the same whatever
//!    version its rows were encoded for, but for records that were dead letters before.
//! 4. A record waits only for a look that starts after the record was read. If the table does not
//!    have the name then, it becomes a dead letter.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::clickhouse::batch::destination::Destination;
use crate::clickhouse::config::Config;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::json::json_schema;
use crate::clickhouse::json::table::JsonTable;
use crate::clickhouse::table::column::DescribedColumn;
use crate::clickhouse::table::described::DescribedTable;
use crate::clickhouse::table::extension::extended;
use crate::clickhouse::table::schema::Schema;
use crate::clickhouse::table::server_ranges;
use crate::clickhouse::table::startup::StartOptions;
use crate::clickhouse::table::types::ServerRanges;
use crate::clickhouse::telemetry;

/// Minimum time between two looks for the same kind of reason. One request in 10 s costs a server
/// nothing, even from hundreds of consumers. A longer interval would make more dead letters after
/// an ALTER, in a topic that also has names which no ALTER adds.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two looks while the server does not answer. Records wait meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Time limit of each request that follows a description.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What could make a row fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A name, with its number, that is added to an `Enum`.
    EnumName,
    /// A column that is added for a field.
    Column,
}

/// The newest version of a table.
pub(crate) struct CurrentTable {
    table: RwLock<Arc<DescribedTable>>,
    looks: Mutex<Looks>,
    /// `None`: the table never changes.
    reader: Option<Reader>,
}

/// What a look needs.
struct Reader {
    destination: Arc<Destination>,
    config: Config,
    adds_columns: AtomicBool,
    runtime: Handle,
}

/// The looks at the table.
#[derive(Debug, Default)]
struct Looks {
    is_running: bool,
    /// When the last look started that records waited for, and that the server answered.
    awaited: Option<Instant>,
    /// When the last look started.
    last: Option<Instant>,
    /// Whether the server did not answer the last one.
    has_failed: bool,
    /// The description that was compared last.
    described: Vec<DescribedColumn>,
}

impl CurrentTable {
    /// A table that never changes.
    pub(crate) fn fixed(table: DescribedTable) -> Arc<Self> {
        Arc::new(Self { table: RwLock::new(Arc::new(table)), looks: Mutex::default(), reader: None })
    }

    /// A table that `destination` describes again. Must be called in a Tokio runtime.
    pub(crate) fn of(table: DescribedTable, destination: Arc<Destination>, config: &Config) -> Arc<Self> {
        let (config, runtime) = (config.clone(), Handle::current());
        // Only rows without a struct can fill columns that are added.
        let adds_columns = AtomicBool::new(table.json.is_some());
        let reader = Some(Reader { destination, config, adds_columns, runtime });
        Arc::new(Self { table: RwLock::new(Arc::new(table)), looks: Mutex::default(), reader })
    }

    /// The newest version.
    pub(crate) fn get(&self) -> Arc<DescribedTable> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds no columns from now on: a planned block has the columns of the start.
    pub(crate) fn keep_columns(&self) {
        if let Some(reader) = &self.reader {
            reader.adds_columns.store(false, Ordering::Relaxed);
        }
    }

    /// Looks at the table in the background, if the last look is long enough ago.
    pub(crate) fn look(self: &Arc<Self>) {
        let now = Instant::now();
        let mut looks = self.looks();
        if !looks.is_running && looks.last.is_none_or(|last| now - last >= LOOK_INTERVAL) {
            self.start_look(&mut looks, now, false);
        }
    }

    /// The same, if new rows could use what a description of the table shows.
    pub(crate) fn compare(self: &Arc<Self>, described: &[DescribedColumn]) {
        let Some(reader) = &self.reader else { return };
        let fresh = self.adds_columns().then(|| reader.fresh(described));
        let current = self.get();
        if let Ok(fresh) = fresh.transpose()
            && extended(&current.name, &current.schema, described, fresh.as_ref()).is_some()
        {
            self.look();
        }
    }

    /// The same as [`look`](Self::look), after a row with a field that has no column.
    pub(crate) fn look_for_columns(self: &Arc<Self>) {
        if self.adds_columns() {
            self.look();
        }
    }

    /// Whether a record that does not fit `seen` has to wait, because a newer version may fit it.
    /// Starts a look, if one is due.
    pub(crate) fn may_fit_later(self: &Arc<Self>, seen: &Arc<DescribedTable>, change: Change) -> bool {
        if change == Change::Column && !self.adds_columns() {
            return false;
        }
        if !Arc::ptr_eq(seen, &self.get()) {
            return true;
        }
        let now = Instant::now();
        let mut looks = self.looks();
        if looks.is_running {
            return true;
        }
        if looks.has_failed {
            if looks.last.is_none_or(|last| now - last >= RETRY_INTERVAL) {
                self.start_look(&mut looks, now, true);
            }
            return true;
        }
        if looks.awaited.is_some_and(|last| now - last < LOOK_INTERVAL) {
            return false;
        }
        self.start_look(&mut looks, now, true);
        self.reader.is_some()
    }

    fn adds_columns(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| reader.adds_columns.load(Ordering::Relaxed))
    }

    fn start_look(self: &Arc<Self>, looks: &mut Looks, now: Instant, is_awaited: bool) {
        let Some(reader) = &self.reader else { return };
        (looks.is_running, looks.last) = (true, Some(now));
        let current = Arc::clone(self);
        // It ends by itself: each request has a timeout.
        reader.runtime.spawn(async move {
            let result = current.read().await;
            let mut looks = current.looks();
            looks.is_running = false;
            looks.has_failed = result.as_ref().is_err_and(ClickHouseError::is_retryable);
            if is_awaited && !looks.has_failed {
                looks.awaited = Some(now);
            }
            if let Err(error) = result {
                telemetry::table_not_read(&current.get().name, &error);
            }
        });
    }

    /// Describes the table, and makes a new version if rows can use what has changed.
    async fn read(&self) -> Result<(), ClickHouseError> {
        let Some(reader) = &self.reader else { return Ok(()) };
        let destination = &reader.destination;
        let described = destination.describe(destination.hosts.pick(None)).await?;
        if self.looks().described == described {
            return Ok(());
        }
        let current = self.get();
        let new = match reader.version_after(&current, &described, self.adds_columns()).await {
            Ok(new) => new,
            Err(error) => {
                if !error.is_retryable() {
                    self.looks().described = described;
                }
                return Err(error);
            }
        };
        if let Some(new) = new {
            telemetry::table_changed(&new.name, new.version, new.schema.columns.len());
            *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        }
        self.looks().described = described;
        Ok(())
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// The schema that a start of JSON rows would find now.
    fn fresh(&self, described: &[DescribedColumn]) -> Result<Schema, ClickHouseError> {
        json_schema(&self.destination.name, described, &self.config.record_columns, &self.config.json)
    }

    /// The version after `current`. `None`: nothing has changed that rows could use.
    async fn version_after(
        &self,
        current: &DescribedTable,
        described: &[DescribedColumn],
        adds_columns: bool,
    ) -> Result<Option<DescribedTable>, ClickHouseError> {
        let (config, hosts, name) = (&self.config, &self.destination.hosts, current.name.as_str());
        let fresh = adds_columns.then(|| self.fresh(described)).transpose()?;
        let Some((mut schema, has_more)) = extended(name, &current.schema, described, fresh.as_ref()) else {
            return Ok(None);
        };
        let ranges = match schema.holds_years() {
            true => server_ranges::read(hosts, name, &schema.zones(), REQUEST_TIMEOUT).await?,
            false => ServerRanges::default(),
        };
        schema.set_ranges(&ranges, config.out_of_range);
        let json = match current.json {
            Some(_) => {
                let start = StartOptions {
                    allow_volatile: config.allow_volatile_table,
                    async_insert: config.async_insert,
                    start_timeout: REQUEST_TIMEOUT,
                };
                let (options, policy) = (&config.json, config.out_of_range);
                Some(JsonTable::start(hosts, name, &schema, options, policy, start).await?)
            }
            None => None,
        };
        let table = DescribedTable::new(name.to_owned(), schema).with_json(json).after(current, has_more);
        // Columns of other types are converted from the first insert on.
        table.adapt(described)?;
        Ok(Some(table))
    }
}

impl std::fmt::Debug for CurrentTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CurrentTable").field("table", &self.get()).finish_non_exhaustive()
    }
}
