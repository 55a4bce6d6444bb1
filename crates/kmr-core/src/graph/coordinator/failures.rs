//! What a partition that cannot be read means for the consumer.

use super::Coordinator;
use super::session::Session;
use super::supervision::Failed;
use crate::error::Error;
use crate::member::PartitionFailure;
use crate::record::TopicPartition;
use crate::telemetry;

impl Coordinator {
    pub(super) async fn partition_failed(
        &mut self,
        session: &mut Session,
        partition: TopicPartition,
        failure: PartitionFailure,
    ) -> Result<(), Failed> {
        if !self.ownership.owns(&partition) {
            return Ok(()); // it was handed back meanwhile
        }
        let error = match failure {
            PartitionFailure::OutOfRange { offset } => {
                let (low, high) = session.member.watermarks(&partition).await.unwrap_or((-1, -1));
                Error::OffsetOutOfRange { partition, offset, low, high }
            }
            PartitionFailure::Unauthorized => {
                Error::Authorization { what: format!("topic {:?}", partition.topic()) }
            }
            PartitionFailure::Gone(reason) => {
                telemetry::partition_failed(&partition, &reason);
                return Ok(());
            }
            PartitionFailure::Unreadable { offset, reason } => {
                let what = format!("{partition} cannot be read at offset {offset}");
                Error::Client { what, reason, retryable: true }
            }
        };
        // The client itself is well: what the other partitions have finished is committed.
        Err(Failed::Task(error))
    }
}
