//! Queries ClickHouse: the server, the table, and all tables downstream of its views.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use clickhouse::Row;
use kmr_cli_support::clickhouse::{Server, quoted};
use kmr_cli_support::connection::ClickHouseArgs;
use kmr_cli_support::errors::one_line;
use kmr_cli_support::ingest::IngestRow;
use kmr_core::error_chain;
use kmr_sinks::clickhouse::{EngineClass, TableColumn, check_row};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::facts::{Access, ClickHouseFacts, Fact, PROFILE, Scope, TableFacts};
use super::subject::{Rows, Table};
use crate::table_definition::{removing_ttl, setting, target, window_setting};

/// A row of `system.tables`.
#[derive(Clone, Debug, Row, Deserialize)]
struct TableRow {
    uuid: String,
    engine: String,
    engine_full: String,
    create_table_query: String,
    partition_key: String,
    dependencies_database: Vec<String>,
    dependencies_table: Vec<String>,
}

/// A row of `system.columns`.
#[derive(Debug, Row, Deserialize)]
struct ColumnRow {
    name: String,
    #[serde(rename = "type")]
    type_text: String,
    default_kind: String,
}

/// A row of `system.merge_tree_settings`.
#[derive(Debug, Row, Deserialize)]
struct SettingRow {
    name: String,
    value: String,
}

/// The reason of unknown facts of a server without a response.
const SILENT: &str = "the server does not respond";

/// Timeout of a name lookup, and of one connection.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the writer's start may wait for the server.
const START: Duration = Duration::from_secs(5);

/// Database and table.
type Name = (String, String);

/// Queries all facts. A fact that is unknown has its reason.
pub(super) async fn gather(table: &Table, scope: Scope) -> ClickHouseFacts {
    let Table { place, rows, start, .. } = table;
    let queries = Queries { server: table.server() };
    let facts = ClickHouseFacts::unknown(place.clickhouse.clone(), place.table.clone(), SILENT);
    let version = queries.one::<String>("SELECT version()").await;
    let addresses = match scope {
        Scope::Full => addresses(place).await,
        Scope::StartUp => facts.addresses.clone(),
    };
    let is_silent = version.is_err();
    let facts = ClickHouseFacts { version, addresses, ..facts };
    if is_silent {
        return facts;
    }
    let name = match queries.name(place).await {
        Ok(name) => name,
        Err(reason) => return ClickHouseFacts { tables: Err(reason), ..facts },
    };
    let start = start(START).await.map_err(|error| one_line(&error));
    let facts = ClickHouseFacts {
        table: dotted(&name),
        tables: queries.tables(&name).await,
        row: match rows {
            Rows::Ingest => queries.row(&name).await,
            Rows::Json => start.clone(),
        },
        start,
        ..facts
    };
    if scope == Scope::StartUp {
        return facts;
    }
    ClickHouseFacts { may_insert: queries.may_insert(&name).await, profile: queries.profile().await, ..facts }
}

/// The addresses of the server's name. Each is tried.
async fn addresses(args: &ClickHouseArgs) -> Fact<Vec<(IpAddr, Fact<()>)>> {
    let (host, port) = args.host_and_port().map_err(|error| one_line(&error))?;
    let found = timeout(CONNECT, tokio::net::lookup_host((host.as_str(), port))).await;
    let found = match found {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(format!("the name {host:?} has no address: {error}")),
        Err(_) => return Err(format!("the name {host:?} was not resolved within {CONNECT:?}")),
    };
    let mut addresses: Vec<(IpAddr, Fact<()>)> = Vec::new();
    for address in found {
        if addresses.iter().any(|(seen, _)| *seen == address.ip()) {
            continue;
        }
        let reached = match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(connected) => connected.map(drop).map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {CONNECT:?}")),
        };
        addresses.push((address.ip(), reached));
    }
    Ok(addresses)
}

struct Queries<'a> {
    server: Server<'a>,
}

impl Queries<'_> {
    async fn one<T>(&self, sql: &str) -> Fact<T>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        let response = self.server.request("querying", self.server.client().query(sql).fetch_one::<T>());
        response.await.map_err(|error| one_line(&error))
    }

    /// Database and table. Without a database: the user's.
    async fn name(&self, place: &ClickHouseArgs) -> Fact<Name> {
        let database = match place.database.as_str() {
            "" => self.one::<String>("SELECT currentDatabase()").await?,
            database => database.to_owned(),
        };
        Ok((database, place.table.clone()))
    }

    async fn all<T>(&self, sql: &str, name: &Name) -> Fact<Vec<T>>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        let query = self.server.client().query(sql).bind(&name.0).bind(&name.1);
        self.server.request("querying", query.fetch_all::<T>()).await.map_err(|error| one_line(&error))
    }

    /// The settings of the user's profile that change what a stored batch means.
    async fn profile(&self) -> Fact<BTreeMap<String, String>> {
        let names = PROFILE.map(|name| format!("'{name}'")).join(", ");
        let sql = format!("SELECT name, value FROM system.settings WHERE name IN ({names})");
        let query = self.server.client().query(&sql).fetch_all::<SettingRow>();
        let settings = self.server.request("querying", query).await.map_err(|error| one_line(&error))?;
        Ok(settings.into_iter().map(|setting| (setting.name, setting.value)).collect())
    }

    /// The table and, breadth first, all tables downstream of its views. Empty: it does not exist.
    async fn tables(&self, name: &Name) -> Fact<Vec<TableFacts>> {
        let defaults = self.defaults().await?;
        let ids_per_block = self.ids_per_block().await;
        let mut queue: VecDeque<(Name, Option<Name>)> = [(name.clone(), None)].into();
        let (mut tables, mut seen) = (Vec::new(), BTreeSet::new());
        while let Some((name, view)) = queue.pop_front() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let Some(found) = self.find(&name).await? else {
                if let Some(view) = view {
                    let (name, view) = (dotted(&name), Some(dotted(&view)));
                    tables.push(TableFacts { name, view, ..TableFacts::default() });
                }
                continue;
            };
            let views = found.dependencies_database.iter().zip(&found.dependencies_table);
            for view in views.map(|(database, table)| (database.clone(), table.clone())) {
                if let Some(target) = self.target(&view).await? {
                    queue.push_back((target, Some(view)));
                }
            }
            // Inserts into a view go to its target.
            if found.engine == "MaterializedView" {
                if let Some(target) = self.target(&name).await? {
                    queue.push_front((target, view.or(Some(name))));
                }
                continue;
            }
            let parts = self.parts(&name).await?;
            let mut facts = table_facts(&name, view.as_ref(), &found, parts, &defaults);
            if window_setting(&found.engine) == Some("non_replicated_deduplication_window") {
                facts.window = facts.window.map(|blocks| blocks / ids_per_block);
            }
            let spooled = match found.engine.as_str() {
                "Distributed" => self.spooled(&name).await.unwrap_or(0),
                _ => 0,
            };
            tables.push(TableFacts { spooled, ..facts });
        }
        Ok(tables)
    }

    async fn find(&self, name: &Name) -> Fact<Option<TableRow>> {
        let sql = "SELECT toString(uuid) AS uuid, engine, engine_full, create_table_query, partition_key, \
                   dependencies_database, dependencies_table FROM system.tables WHERE database = ? AND name = ?";
        Ok(self.all::<TableRow>(sql, name).await?.pop())
    }

    /// The table that a view writes to. `None`: it no longer exists, or is not a materialized view.
    async fn target(&self, view: &Name) -> Fact<Option<Name>> {
        let Some(found) = self.find(view).await?.filter(|found| found.engine == "MaterializedView") else {
            return Ok(None);
        };
        if let Some((database, table)) = target(&found.create_table_query) {
            return Ok(Some((database.unwrap_or_else(|| view.0.clone()), table)));
        }
        // A table of its own, named by the view's id or, in databases without ids, by its name.
        let by_id = (view.0.clone(), format!(".inner_id.{}", found.uuid));
        let by_name = (view.0.clone(), format!(".inner.{}", view.1));
        Ok(Some(if self.find(&by_id).await?.is_some() { by_id } else { by_name }))
    }

    async fn parts(&self, name: &Name) -> Fact<u64> {
        let sql = "SELECT max(n) FROM (SELECT count() AS n FROM system.parts WHERE active AND database = ? AND table = ? \
                   GROUP BY partition_id)";
        Ok(self.all::<u64>(sql, name).await?.pop().unwrap_or(0))
    }

    /// Files of a Distributed table that wait for their shard.
    async fn spooled(&self, name: &Name) -> Fact<u64> {
        let sql = "SELECT toUInt64(sum(data_files)) FROM system.distribution_queue WHERE database = ? AND table = ?";
        Ok(self.all::<u64>(sql, name).await?.pop().unwrap_or(0))
    }

    /// The ids under which the server remembers one block of a table that is not replicated. From
    /// 26.2 to 26.5 these are two by default, and the window counts both.
    async fn ids_per_block(&self) -> u64 {
        let sql = "SELECT max(value) FROM system.server_settings WHERE name = 'insert_deduplication_version'";
        match self.one::<String>(sql).await.as_deref() {
            Ok("compatible_double_hashes") => 2,
            _ => 1, // servers of other versions, or without that table
        }
    }

    /// The server's defaults of table settings.
    async fn defaults(&self) -> Fact<BTreeMap<String, u64>> {
        let sql = "SELECT name, value FROM system.merge_tree_settings WHERE name IN ('replicated_deduplication_window', \
                   'non_replicated_deduplication_window', 'parts_to_delay_insert', 'parts_to_throw_insert', \
                   'fsync_after_insert')";
        let query = self.server.client().query(sql).fetch_all::<SettingRow>();
        let settings = self.server.request("querying", query).await.map_err(|error| one_line(&error))?;
        Ok(settings.into_iter().filter_map(|s| Some((s.name, s.value.parse().ok()?))).collect())
    }

    /// Whether the columns accept a row of the demonstration, by encoding one.
    async fn row(&self, name: &Name) -> Fact<()> {
        let sql = "SELECT name, type, default_kind FROM system.columns WHERE database = ? AND table = ? ORDER BY position";
        let columns = self.all::<ColumnRow>(sql, name).await?;
        let columns: Vec<TableColumn> =
            columns.into_iter().map(|c| TableColumn::new(c.name, c.type_text, c.default_kind)).collect();
        let sample = IngestRow { partition: 0, offset: 0, timestamp: 0 };
        check_row(&dotted(name), &columns, sample).map_err(|error| error_chain(&*error))
    }

    async fn may_insert(&self, name: &Name) -> Access {
        match self.one::<String>("SELECT value FROM system.settings WHERE name = 'readonly'").await {
            Ok(readonly) if readonly != "0" => return Access::Denied,
            _ => {}
        }
        let sql = format!("CHECK GRANT INSERT ON {}.{}", quoted(&name.0), quoted(&name.1)).replace('?', "??");
        match self.one::<u8>(&sql).await {
            Ok(0) => Access::Denied,
            Ok(_) => Access::Allowed,
            Err(reason) => Access::Unknown(reason),
        }
    }
}

fn table_facts(
    name: &Name,
    view: Option<&Name>,
    found: &TableRow,
    parts: u64,
    defaults: &BTreeMap<String, u64>,
) -> TableFacts {
    let number = |name: &str| setting(&found.engine_full, name).or_else(|| defaults.get(name).copied());
    TableFacts {
        name: dotted(name),
        view: view.map(dotted),
        engine: found.engine.clone(),
        class: Some(EngineClass::of(&found.engine, &found.engine_full)),
        syncs: number("fsync_after_insert") == Some(1),
        spooled: 0,
        ttl: removing_ttl(&found.engine_full).map(str::to_owned),
        partition_key: found.partition_key.clone(),
        window: window_setting(&found.engine).and_then(number),
        parts,
        parts_to_delay: number("parts_to_delay_insert").unwrap_or(u64::MAX),
        parts_to_throw: number("parts_to_throw_insert").unwrap_or(u64::MAX),
    }
}

fn dotted((database, table): &Name) -> String {
    format!("{database}.{table}")
}
