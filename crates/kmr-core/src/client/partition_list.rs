//! Partitions with offsets, in the form that librdkafka takes.

use rdkafka::{Offset, TopicPartitionList};

use super::errors::permanent;
use crate::error::Error;
use crate::record::TopicPartition;

/// Partitions, each with an offset.
pub(super) type PartitionOffsets = Vec<(TopicPartition, Offset)>;

/// Partitions without an offset, for calls that need none.
pub(super) fn without_offsets<'p>(
    partitions: impl IntoIterator<Item = &'p TopicPartition>,
) -> PartitionOffsets {
    partitions.into_iter().map(|partition| (partition.clone(), Offset::Invalid)).collect()
}

/// The list for librdkafka. A list that went through librdkafka must not outlive the client: it
/// would block the client's drop.
pub(super) fn native_list(offsets: &PartitionOffsets) -> Result<TopicPartitionList, Error> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (partition, offset) in offsets {
        list.add_partition_offset(partition.topic(), partition.partition(), *offset)
            .map_err(|error| permanent(format!("{partition} at {offset:?}"), error))?;
    }
    Ok(list)
}
