//! Many partitions with nothing to read.

use anyhow::Result;

use super::Line;
use crate::contenders::Contender;
use crate::contenders::live::Lived;
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
    let lived: Lived = servers.run(servers.command(Contender::KmrIdle, &job)?, Work::W1, None).await?;
    topic.delete().await?;
    let share = 100.0 * lived.cpu.as_secs_f64() / lived.watched.as_secs_f64();
    Ok(vec![
        Line::new(
            format!("{partitions} partitions, {records} records, read: a processor's time"),
            share,
            "%",
        )
        .at_most(1.0),
        Line::new("peak resident", lived.peak_bytes as f64 / 1e6, "MB"),
    ])
}
