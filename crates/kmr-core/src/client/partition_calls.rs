//! The calls of a member that are the same with and without a group.

use std::collections::BTreeMap;

use rdkafka::consumer::Consumer;

use super::context::Client;
use super::fetcher::Fetcher;
use super::handle::ClientRef;
use super::log_reach::LogEnds;
use super::native::watermarks::log_end;
use super::starts;
use crate::error::Error;
use crate::member::{LogPoint, LogReaches};
use crate::record::TopicPartition;

/// A client with its fetcher. The methods are those of [`GroupMember`](crate::member::GroupMember).
pub(super) struct PartitionCalls {
    pub(super) client: ClientRef,
    pub(super) fetcher: Fetcher,
    pub(super) ends: LogEnds,
}

impl PartitionCalls {
    pub(super) async fn seek(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error> {
        let (fetcher, positions) = (self.fetcher.clone(), positions.to_vec());
        self.client.call("seek", move |client| fetcher.seek(client, &positions)).await?
    }

    pub(super) async fn restart(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error> {
        let (fetcher, positions) = (self.fetcher.clone(), positions.to_vec());
        self.client.call("restart", move |client| fetcher.restart_at(client, &positions)).await?
    }

    pub(super) async fn log_reach(&self, positions: &[(TopicPartition, Option<i64>)]) -> LogReaches {
        self.ends.reach(&self.client, &self.fetcher, positions).await
    }

    pub(super) async fn pause(&self, partitions: &[TopicPartition], paused: bool) -> Result<(), Error> {
        let (fetcher, partitions) = (self.fetcher.clone(), partitions.to_vec());
        self.client.call("pause", move |client| fetcher.pause(client, &partitions, paused)).await?
    }

    pub(super) async fn offsets(
        &self,
        partitions: &[TopicPartition],
        point: LogPoint,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let partitions = partitions.to_vec();
        let offsets = move |client: &Client| starts::log_offsets(client, &partitions, point);
        self.client.call("offsets", offsets).await?
    }

    pub(super) async fn log_bounds(&self, partition: &TopicPartition) -> Option<(i64, i64)> {
        let partition = partition.clone();
        let log_bounds = move |client: &Client| starts::log_bounds(client, &partition);
        self.client.call("log bounds", log_bounds).await.ok().flatten()
    }

    pub(super) fn log_end(&self, partition: &TopicPartition) -> Option<i64> {
        log_end(self.client.get().client(), partition.topic(), partition.partition())
    }
}
