//! `run`: a topic of a real Kafka into ClickHouse, until a signal or until no records come.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use kmr_cli_support::ingest::{self, RunArgs, SummaryFormat};
use kmr_cli_support::output;

mod idle_watch;
mod summary;

use idle_watch::IdleWatch;
use summary::Summary;

/// Interval between samples of the counters. It limits the precision of the summary's rate.
const SAMPLE: Duration = Duration::from_millis(20);

/// Runs the consumer, and prints a summary however the run ends.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let consumer = ingest::consumer(&args)?;
    let handle = consumer.handle();
    let mut watch = IdleWatch::new(args.until_idle);
    let mut sample = tokio::time::interval(SAMPLE);
    let mut running = tokio::spawn(consumer.run());
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended.context("the consumer's task")?,
            _ = sample.tick() => if watch.sample(&handle.stats(), handle.has_caught_up(), Instant::now()) {
                tracing::info!("all partitions are read to their end, and no record came for {:?}", args.until_idle);
                handle.stop();
            },
        }
    };
    let stats = handle.stats();
    watch.sample(&stats, false, Instant::now());
    let summary = Summary::new(&stats, watch.active());
    // A consumer that never joined the group has no summary: its error is enough.
    if ended.is_ok() || stats.rebalances > 0 {
        output::note(&summary.line());
    }
    if args.summary == SummaryFormat::Json {
        output::result(&summary.json().to_string());
    }
    ended?;
    Ok(ExitCode::SUCCESS)
}
