//! Compares W4, W2's records folded to 1,000 rows a batch, with W2: the processor time of consumer
//! and server.

use anyhow::{Context as _, Result, ensure};
use integration_tests::log_line;

use super::Line;
use crate::contenders::Contender;
use crate::figures::order;
use crate::options::Options;
use crate::servers::{Servers, table_of};
use crate::shared::job::{Job, Work};
use crate::shared::meter::Measured;

const FOLDED: &str = "folded";

/// One run.
struct Run {
    measured: Measured,
    /// Processor time of the server per million records, in seconds, until the rows are merged.
    server: f64,
}

pub(super) async fn run(options: &Options, servers: &Servers) -> Result<Vec<Line>> {
    let records = options.records();
    let topic = servers.topic("bench_fold", options.partitions, records).await?;
    let create = format!(
        "CREATE TABLE {FOLDED} (org_id UInt32, records UInt64, value Float64, highest SimpleAggregateFunction(max, Float64)) \
         ENGINE = SummingMergeTree ORDER BY org_id"
    );
    servers.database.exec(&create).await?;
    let works = [("W2", Contender::Kmr, table_of(Work::W2)), ("W4", Contender::KmrFold, FOLDED)];
    let mut runs: [Vec<Run>; 2] = Default::default();
    for round in 1..=options.rounds() {
        for at in order(round, works.len()) {
            let (name, contender, table) = works[at];
            let job = servers.job(Work::W2, topic.name(), records, options.lz4());
            let run = once(servers, contender, Job { table: table.to_owned(), ..job }).await.context(name)?;
            log_line(format_args!(
                "fold, round {round}: {name} {:.3} CPU-s/M, server {:.3} CPU-s/M",
                run.measured.cpu_per_million, run.server
            ));
            runs[at].push(run);
        }
    }
    topic.delete().await?;
    servers.database.exec(&format!("DROP TABLE {FOLDED} SYNC")).await?;
    let of = |figure: fn(&Run) -> f64| runs.each_ref().map(|runs| runs.iter().map(figure).collect());
    let [plain, folded]: [Vec<f64>; 2] = of(|run| run.measured.cpu_per_million);
    let [plain_server, folded_server]: [Vec<f64>; 2] = of(|run| run.server);
    let [plain_rate, folded_rate]: [Vec<f64>; 2] = of(|run| run.measured.rate);
    let [_, peak]: [Vec<f64>; 2] = of(|run| run.measured.peak_bytes as f64 / 1e6);
    Ok(vec![
        Line::median("W2: CPU-s per million", &plain, ""),
        Line::median("W4: CPU-s per million", &folded, ""),
        Line::ratio("ratio", &folded, &plain).at_most(1.0),
        Line::median("W2: server's CPU-s per million", &plain_server, ""),
        Line::median("W4: server's CPU-s per million", &folded_server, ""),
        Line::ratio("ratio", &folded_server, &plain_server).at_most(0.2),
        Line::median("W2: acknowledged", &plain_rate, "records/s"),
        Line::median("W4: mapped", &folded_rate, "records/s"),
        Line::median("W4: peak", &peak, "MB"),
    ])
}

/// Runs a contender into an empty table, and merges its rows.
async fn once(servers: &Servers, contender: Contender, job: Job) -> Result<Run> {
    let (database, table, records) = (&servers.database, &job.table, job.records);
    database.exec(&format!("TRUNCATE TABLE {FOLDED} SYNC")).await?;
    let (measured, bill) = servers.run_billed(servers.command(contender, &job)?, &job, None).await?;
    let counted = if table == FOLDED { "sum(records)" } else { "count()" };
    let stored = database.number(&format!("SELECT {counted} FROM {table}")).await?;
    ensure!(stored == records, "the table counts {stored} of {records} records");
    Ok(Run { measured, server: bill.server })
}
