//! Measures a stalled sink with a large lag: memory stays within the memory budget and a fixed
//! amount.

use anyhow::{Result, ensure};

use super::Line;
use crate::contenders::Contender;
use crate::contenders::live::LiveRun;
use crate::options::Options;
use crate::servers::Servers;
use crate::shared::job::Work;

const LAG: u64 = 5_000_000;
const SMOKE_LAG: u64 = 400_000;

/// kmr's default budget, and the allowance beyond it, in millions of bytes.
const ALLOWED: f64 = (64 << 20) as f64 / 1e6 + 100.0;

pub(super) async fn run(options: &Options, servers: &Servers) -> Result<Vec<Line>> {
    let lag = if options.smoke { SMOKE_LAG } else { LAG };
    let topic = servers.topic("bench_stalled", options.partitions, lag).await?;
    let job = servers.job(Work::W1, topic.name(), lag, options.lz4());
    let run: LiveRun = servers.run(servers.command(Contender::KmrStalled, &job)?, Work::W1, None).await?;
    ensure!(run.records < lag, "all {lag} records fit into the budget: no back-pressure was measured");
    topic.delete().await?;
    Ok(vec![
        Line::new("lag", lag as f64, "records"),
        Line::new("mapped and held", run.records as f64, "records"),
        Line::new("peak resident (budget 64 MiB)", run.peak_bytes as f64 / 1e6, "MB")
            .at_most(ALLOWED.round()),
    ])
}
