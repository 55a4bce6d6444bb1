//! `offsets reset`: the operator's hand on a stopped group: explicit offsets, and with them a new epoch of exactly-once delivery.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::{Cell, CellAlignment, Table, presets};
use kmr_core::{ClientConfig, TopicPartition, reset_offsets};

use crate::cli::{OffsetsArgs, ResetArgs, ResetTo};
use crate::kafka_client;
use crate::{output, run};

/// For one request.
const REQUEST: Duration = Duration::from_secs(10);

/// One partition, as it is before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Before {
    low: i64,
    end: i64,
    committed: Option<i64>,
}

/// Runs the subcommand.
pub(crate) async fn offsets(args: OffsetsArgs) -> anyhow::Result<ExitCode> {
    match args {
        OffsetsArgs::Reset(args) => reset(*args).await,
    }
}

async fn reset(args: ResetArgs) -> anyhow::Result<ExitCode> {
    let mut config = kafka_client::config(&args.kafka, "kmr-demo-offsets")?;
    config.set("group.id", &args.group).set("enable.auto.commit", "false");
    let (broker, topic, group) = (args.kafka.broker.clone(), args.kafka.topic.clone(), args.group.clone());
    let looking = tokio::task::spawn_blocking(move || look(&config, &broker, &topic, &group));
    let before = looking.await.context("the thread that asks Kafka")??;
    let after = chosen(&before, &args.to)?;
    output::result(&table(&before, &after).to_string());
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
    let more = run::extra_settings(&args.kafka)?;
    Ok(more.into_iter().fold(config, |config, (name, value)| config.set(name, value)))
}

fn look(
    config: &rdkafka::ClientConfig,
    broker: &str,
    topic: &str,
    group: &str,
) -> anyhow::Result<BTreeMap<i32, Before>> {
    let consumer = kafka_client::consumer(config)?;
    let partitions = kafka_client::partitions(&consumer, broker, topic, REQUEST)?;
    let committed = kafka_client::committed(&consumer, topic, &partitions, group, REQUEST)?;
    let one = |partition: i32| {
        let (low, end) = kafka_client::watermarks(&consumer, topic, partition, REQUEST)?;
        let committed = committed.get(&partition).map(|offset| offset.cast_signed());
        Ok((partition, Before { low: low.cast_signed(), end: end.cast_signed(), committed }))
    };
    partitions.into_iter().map(one).collect()
}

/// The offsets to be committed.
fn chosen(before: &BTreeMap<i32, Before>, to: &ResetTo) -> anyhow::Result<BTreeMap<i32, i64>> {
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
                bail!("the group has committed nothing; choose earliest, latest or offsets");
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

fn table(before: &BTreeMap<i32, Before>, after: &BTreeMap<i32, i64>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["partition", "log", "committed", "new"]);
    let text = |offset: Option<&i64>| offset.map_or_else(|| "-".to_owned(), i64::to_string);
    for (partition, one) in before {
        let log = format!("{}–{}", one.low, one.end);
        let row = [partition.to_string(), log, text(one.committed.as_ref()), text(after.get(partition))];
        table.add_row(row.map(|cell| Cell::new(cell).set_alignment(CellAlignment::Right)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_chosen_for_the_partitions_that_are_there() {
        let before = [
            (0, Before { low: 5, end: 9, committed: Some(7) }),
            (1, Before { low: 0, end: 3, committed: None }),
        ]
        .into();
        let to = |to| chosen(&before, &to).map_err(|error| error.to_string());
        assert_eq!(to(ResetTo::Earliest), Ok([(0, 5), (1, 0)].into()));
        assert_eq!(to(ResetTo::Latest), Ok([(0, 9), (1, 3)].into()));
        assert_eq!(to(ResetTo::Committed), Ok([(0, 7)].into()));
        assert_eq!(to(ResetTo::Offsets([(1, 2)].into())), Ok([(1, 2)].into()));
        assert!(to(ResetTo::Offsets([(2, 2)].into())).is_err_and(|text| text.contains("no partition 2")));
        let shown = table(&before, &[(1, 2)].into()).to_string();
        assert!(shown.contains("5–9") && shown.contains('-'), "{shown}");
    }
}
