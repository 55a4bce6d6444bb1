//! `create-table`: the table that `run` writes to.

use std::process::ExitCode;

use clap::Args;
use kmr_cli_support::clickhouse::Server;
use kmr_cli_support::connection::ClickHouseArgs;
use kmr_cli_support::output;

#[derive(Debug, Args)]
pub(crate) struct CreateTableArgs {
    #[command(flatten)]
    clickhouse: ClickHouseArgs,
}

/// Creates the table unless it exists. Its deduplication window drops repeated inserts.
pub(crate) async fn create(args: CreateTableArgs) -> anyhow::Result<ExitCode> {
    let server = Server::new(&args.clickhouse);
    let statement = statement(&server.table());
    server.request("creating the table", server.client().query(&statement).execute()).await?;
    output::result(&statement);
    Ok(ExitCode::SUCCESS)
}

fn statement(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table}\n    (partition UInt32, offset UInt64, timestamp DateTime)\n    ENGINE = MergeTree\n    \
         PRIMARY KEY (partition, offset, timestamp)\n    SETTINGS non_replicated_deduplication_window = 10000"
    )
}
