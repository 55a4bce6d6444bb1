//! `create-table`: the table that `run` writes to.

use std::process::ExitCode;

use crate::cli::CreateTableArgs;
use crate::clickhouse_client::Server;
use crate::output;

/// Creates the table if it is not there: with a window in which inserts that are sent again are dropped.
pub(crate) async fn create(args: CreateTableArgs) -> anyhow::Result<ExitCode> {
    let server = Server::new(&args.clickhouse);
    let statement = statement(&server.table());
    server.ask("creating the table", server.client().query(&statement).execute()).await?;
    output::result(&statement);
    Ok(ExitCode::SUCCESS)
}

fn statement(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table}\n    (partition UInt32, offset UInt64, timestamp DateTime)\n    ENGINE = MergeTree\n    \
         PRIMARY KEY (partition, offset, timestamp)\n    SETTINGS non_replicated_deduplication_window = 10000"
    )
}
