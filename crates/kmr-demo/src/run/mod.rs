//! `run`: a topic of a real Kafka into ClickHouse, until a signal or until no records come.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kmr_cli_support::ingest::{self, RunArgs, SummaryFormat};
use kmr_cli_support::output;
use kmr_core::Health;

mod idle_watch;
mod summary;

use idle_watch::IdleWatch;
use summary::Summary;

use crate::status;

/// How long `--until-idle` waits for a leader that does not respond: as long as a consumer tries to
/// replace its client.
const LEADER_TIMEOUT: Duration = Duration::from_secs(600);
/// Interval between samples of the health.
const HEALTH: Duration = Duration::from_secs(1);
/// Interval between samples of the counters. It limits the precision of the summary's rate.
const SAMPLE: Duration = Duration::from_millis(20);

/// Runs the consumer, and prints a summary however the run ends.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let consumer = ingest::consumer(&args)?;
    let handle = consumer.handle();
    if let Some(address) = &args.status {
        status::serve(address, args.status_token_file.as_deref(), handle.clone()).await?;
    }
    let mut watch = IdleWatch::new(args.until_idle);
    let (mut sample, mut health) = (tokio::time::interval(SAMPLE), tokio::time::interval(HEALTH));
    let mut unreachable = None;
    let mut running = tokio::spawn(consumer.run());
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended.context("the consumer's task")?,
            _ = sample.tick() => if watch.sample(&handle.stats(), handle.has_caught_up(), Instant::now()) {
                tracing::info!("all partitions are read to their end, and no record came for {:?}", args.until_idle);
                handle.stop();
            },
            _ = health.tick(), if args.until_idle.is_some() && unreachable.is_none() => {
                unreachable = unreachable_leader(&handle.health());
                if unreachable.is_some() {
                    handle.stop();
                }
            }
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
    match unreachable {
        None => Ok(ExitCode::SUCCESS),
        Some(unreachable) => bail!(unreachable),
    }
}

/// Why the run cannot reach the end of all partitions. `None`: it can.
fn unreachable_leader(health: &Health) -> Option<String> {
    health.partitions.iter().find_map(|(partition, health)| {
        let leader = health.unreachable_leader.as_ref()?;
        (leader.silent_for >= LEADER_TIMEOUT).then(|| {
            format!(
                "{partition}: its leader has not responded for {:?}: {}; make its address reachable from here, or \
                 correct advertised.listeners of the broker",
                leader.silent_for, leader.name
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use kmr_core::{PartitionHealth, TopicPartition, UnreachableLeader};

    use super::*;

    #[test]
    fn a_leader_that_does_not_respond_ends_a_run_until_idle_after_ten_minutes() {
        let mut leader = UnreachableLeader::default();
        leader.name = "b:9092 (broker 2)".to_owned();
        let mut found = |silent_for: u64| {
            leader.silent_for = Duration::from_secs(silent_for);
            let mut partition = PartitionHealth::default();
            partition.unreachable_leader = Some(leader.clone());
            let mut health = Health::default();
            health.partitions.insert(TopicPartition::new("t", 0), PartitionHealth::default());
            health.partitions.insert(TopicPartition::new("t", 1), partition);
            unreachable_leader(&health)
        };
        assert_eq!(found(599), None);
        let text = found(600).unwrap();
        assert!(text.contains("t/1") && text.contains("b:9092 (broker 2)"), "{text}");
        assert_eq!(unreachable_leader(&Health::default()), None);
    }
}
