//! The progress of a replay: offsets that a consumer group of its own has committed.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use crate::topic_reader::{LogConsumer, REQUEST};

/// What the metadata of its commits starts with.
const MARK: &str = "kmr-replay ";

/// The metadata of a commit.
pub(super) fn metadata(fingerprint: &str) -> String {
    format!("{MARK}{fingerprint}")
}

/// The next offset of each partition that has progress.
///
/// # Errors
///
/// The progress is that of another program, or of a replay with other filters: the dead letters
/// that these left out would be missed.
pub(super) fn read(
    consumer: &LogConsumer,
    topic: &str,
    partitions: impl Iterator<Item = i32>,
    name: &str,
    fingerprint: &str,
) -> anyhow::Result<BTreeMap<i32, u64>> {
    let mut wanted = TopicPartitionList::new();
    for partition in partitions {
        wanted.add_partition(topic, partition);
    }
    if wanted.count() == 0 {
        return Ok(BTreeMap::new());
    }
    // Read here: a list that outlives its consumer keeps the consumer from closing.
    let list = consumer
        .committed_offsets(wanted, REQUEST)
        .with_context(|| format!("reading the progress of the replay {name:?}"))?;
    let mut progress = BTreeMap::new();
    for element in list.elements() {
        element.error().with_context(|| format!("progress of {topic}/{}", element.partition()))?;
        if let Offset::Offset(offset) = element.offset() {
            check(element.metadata(), name, fingerprint)?;
            progress.insert(element.partition(), offset.unsigned_abs());
        }
    }
    Ok(progress)
}

fn check(found: &str, name: &str, fingerprint: &str) -> anyhow::Result<()> {
    match found.strip_prefix(MARK) {
        Some(same) if same == fingerprint => Ok(()),
        Some(_) => bail!(
            "the progress of {name:?} is that of a replay with other filters or another target: dead letters that it \
             left out would be missed; name another one with --as"
        ),
        None => bail!(
            "group {name:?} has committed offsets that are not those of a replay; name another one with --as"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_belongs_to_the_filters_that_made_it() {
        let text = |found: &str| check(found, "again", "1f").map_err(|error| error.to_string());
        assert_eq!(text(&metadata("1f")), Ok(()));
        assert!(
            text(&metadata("2f")).is_err_and(|text| text.contains("other filters") && text.contains("--as"))
        );
        assert!(text("").is_err_and(|text| text.contains("not those of a replay")));
    }
}
