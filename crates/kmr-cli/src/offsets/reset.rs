//! `offsets reset`: explicit offsets for a stopped group, and a new epoch of exactly-once delivery.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use comfy_table::Table;
use kmr_cli_support::connection::KafkaArgs;
use kmr_cli_support::kafka::extra_settings;
use kmr_cli_support::{output, table};
use kmr_core::{ClientConfig, TopicPartition, reset_offsets};

use crate::kafka_client;

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    /// The consumer group. All of its consumers have to be stopped.
    #[arg(long, env = "KMR_GROUP", default_value = "test-map-reduce-consumer")]
    pub(crate) group: String,
    /// New offsets: `earliest`, `latest`, `committed` (unchanged, with a new epoch), or explicit
    /// ones as in 0=1500,3=20.
    #[arg(long, value_name = "WHERE", value_parser = reset_to)]
    pub(crate) to: ResetTo,
    /// Show the offsets, and commit nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The new offsets of `offsets reset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResetTo {
    Earliest,
    Latest,
    Committed,
    Offsets(BTreeMap<i32, i64>),
}

fn reset_to(text: &str) -> Result<ResetTo, String> {
    let wrong =
        || format!("{text:?} is not valid; write earliest, latest, committed, or offsets as in 0=1500,3=20");
    let one = |part: &str| {
        let (partition, offset) = part.split_once('=')?;
        Some((partition.trim().parse().ok()?, offset.trim().parse().ok()?))
    };
    match text {
        "earliest" => Ok(ResetTo::Earliest),
        "latest" => Ok(ResetTo::Latest),
        "committed" => Ok(ResetTo::Committed),
        _ => text.split(',').map(one).collect::<Option<_>>().map(ResetTo::Offsets).ok_or_else(wrong),
    }
}

/// Timeout of one request.
const REQUEST: Duration = Duration::from_secs(10);

/// One partition before the reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Before {
    /// Lowest offset of the log.
    low: i64,
    end: i64,
    committed: Option<i64>,
}

/// Shows the old and new offsets, and commits the new ones.
pub(super) async fn reset(args: ResetArgs) -> anyhow::Result<ExitCode> {
    let mut config = kafka_client::config(&args.kafka, "kmr-offsets")?;
    config.set("group.id", &args.group).set("enable.auto.commit", "false");
    let (broker, topic, group) = (args.kafka.broker.clone(), args.kafka.topic.clone(), args.group.clone());
    let queried = tokio::task::spawn_blocking(move || query(&config, &broker, &topic, &group));
    let before = queried.await.context("the thread that queries Kafka")??;
    let after = new_offsets(&before, &args.to)?;
    output::result(&offsets_table(&before, &after).to_string());
    if args.dry_run {
        output::result("nothing was committed (--dry-run)");
        return Ok(ExitCode::SUCCESS);
    }
    let named =
        |(partition, offset): (i32, i64)| (TopicPartition::new(args.kafka.topic.as_str(), partition), offset);
    reset_offsets(settings(&args)?, after.into_iter().map(named).collect()).await?;
    output::result(&format!(
        "committed for group {:?}; a new epoch of exactly-once starts there",
        args.group
    ));
    Ok(ExitCode::SUCCESS)
}

fn settings(args: &ResetArgs) -> anyhow::Result<ClientConfig> {
    let config =
        ClientConfig::new().set("bootstrap.servers", &args.kafka.broker).set("group.id", &args.group);
    let more = extra_settings(&args.kafka)?;
    let config = more.into_iter().fold(config, |config, (name, value)| config.set(name, value));
    Ok(kmr_auth::with_token_provider(config)?)
}

fn query(
    config: &rdkafka::ClientConfig,
    broker: &str,
    topic: &str,
    group: &str,
) -> anyhow::Result<BTreeMap<i32, Before>> {
    let consumer = kafka_client::consumer(config)?;
    let partitions = kafka_client::partitions(&consumer, broker, topic, REQUEST)?;
    let committed = kafka_client::committed(&consumer, topic, &partitions, group, REQUEST)?;
    let one = |partition: i32| {
        let (low, end) = kafka_client::log_bounds(&consumer, topic, partition, REQUEST)?;
        let committed = committed.get(&partition).map(|offset| offset.cast_signed());
        Ok((partition, Before { low: low.cast_signed(), end: end.cast_signed(), committed }))
    };
    partitions.into_iter().map(one).collect()
}

/// The offsets to commit.
fn new_offsets(before: &BTreeMap<i32, Before>, to: &ResetTo) -> anyhow::Result<BTreeMap<i32, i64>> {
    let all = |pick: fn(&Before) -> Option<i64>| {
        before
            .iter()
            .filter_map(|(partition, before)| Some((*partition, pick(before)?)))
            .collect::<BTreeMap<_, _>>()
    };
    Ok(match to {
        ResetTo::Earliest => all(|before| Some(before.low)),
        ResetTo::Latest => all(|before| Some(before.end)),
        ResetTo::Committed => {
            let kept = all(|before| before.committed);
            if kept.is_empty() {
                bail!("the group has committed nothing; use earliest, latest or explicit offsets");
            }
            kept
        }
        ResetTo::Offsets(offsets) => {
            if let Some(partition) = offsets.keys().find(|partition| !before.contains_key(partition)) {
                bail!("the topic has no partition {partition}");
            }
            offsets.clone()
        }
    })
}

fn offsets_table(before: &BTreeMap<i32, Before>, after: &BTreeMap<i32, i64>) -> Table {
    let mut table = table::with_header(["partition", "log", "committed", "new"]);
    let text = |offset: Option<&i64>| offset.map_or_else(|| "-".to_owned(), i64::to_string);
    for (partition, one) in before {
        let log = format!("{}–{}", one.low, one.end);
        let row = [partition.to_string(), log, text(one.committed.as_ref()), text(after.get(partition))];
        table.add_row(table::texts(row));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_named_by_partition() {
        assert_eq!(reset_to("0=15, 3=20"), Ok(ResetTo::Offsets([(0, 15), (3, 20)].into())));
        assert_eq!(reset_to("latest"), Ok(ResetTo::Latest));
        for wrong in ["", "0", "0=x", "0=1,,", "newest"] {
            assert!(reset_to(wrong).is_err_and(|text| text.contains("earliest")), "{wrong}");
        }
    }

    #[test]
    fn new_offsets_are_those_of_existing_partitions() {
        let before = [
            (0, Before { low: 5, end: 9, committed: Some(7) }),
            (1, Before { low: 0, end: 3, committed: None }),
        ]
        .into();
        let to = |to| new_offsets(&before, &to).map_err(|error| error.to_string());
        assert_eq!(to(ResetTo::Earliest), Ok([(0, 5), (1, 0)].into()));
        assert_eq!(to(ResetTo::Latest), Ok([(0, 9), (1, 3)].into()));
        assert_eq!(to(ResetTo::Committed), Ok([(0, 7)].into()));
        assert_eq!(to(ResetTo::Offsets([(1, 2)].into())), Ok([(1, 2)].into()));
        assert!(to(ResetTo::Offsets([(2, 2)].into())).is_err_and(|text| text.contains("no partition 2")));
        let shown = offsets_table(&before, &[(1, 2)].into()).to_string();
        assert!(shown.contains("5–9") && shown.contains('-'), "{shown}");
    }
}
