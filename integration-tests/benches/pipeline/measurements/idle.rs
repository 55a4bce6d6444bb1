//! Measures a consumer of many partitions without new records.

use anyhow::Result;

use super::Line;
use crate::contenders::Contender;
use crate::contenders::live::LiveRun;
use crate::options::Options;
use crate::servers::Servers;
use crate::shared::job::Work;

const PARTITIONS: i32 = 500;
const SMOKE_PARTITIONS: i32 = 50;

pub(super) async fn run(options: &Options, servers: &Servers) -> Result<Vec<Line>> {
    let partitions = if options.smoke { SMOKE_PARTITIONS } else { PARTITIONS };
    // A few records in each.
    let records = u64::from(partitions.unsigned_abs()) * 5;
    let topic = servers.topic("bench_idle", partitions, records).await?;
    let job = servers.job(Work::W1, topic.name(), records, options.lz4());
    let run: LiveRun = servers.run(servers.command(Contender::KmrIdle, &job)?, Work::W1, None).await?;
    topic.delete().await?;
    let utilization = 100.0 * run.cpu.as_secs_f64() / run.observed.as_secs_f64();
    Ok(vec![
        Line::new(
            format!("{partitions} partitions, {records} records, read: a processor's time"),
            utilization,
            "%",
        )
        .at_most(1.0),
        Line::new("peak resident", run.peak_bytes as f64 / 1e6, "MB"),
    ])
}
