//! Connects a consumer: opens a client and joins the group, or starts a member without a group.

use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::consumer::Consumer;
use tokio::sync::Mutex;

use super::commits::LostRequests;
use super::context::Client;
use super::coordinator_check::check_coordinator;
use super::errors::permanent;
use super::groupless::{Events, Groupless};
use super::kafka_member::KafkaMember;
use super::log_reach::LogEnds;
use super::membership::StaticMembership;
use super::native::queue::Queue;
use super::open::{OpenOptions, Opened};
use super::partition_calls::PartitionCalls;
use super::reader::Reader;
use super::remembered_offsets::RememberedOffsets;
use super::renewal::Renewal;
use super::starts::StartPolicy;
use super::topic_ids::TopicIds;
use super::topic_watch::{TopicWatch, refresh_interval};
use crate::config::{ResetPolicy, StartAt};
use crate::error::Error;
use crate::member::{Connected, Connector, Reread};
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;

/// The settings of a consumer's clients, and the state that outlives a client.
pub(crate) struct Connect {
    pub(crate) client: OpenOptions,
    /// The starting position of partitions without a committed offset.
    pub(crate) start_at: Option<StartAt>,
    /// For partitions that `start_at` does not name.
    pub(crate) reset: ResetPolicy,
    /// Whether starting positions need the identity of their log.
    pub(crate) exactly_once: bool,
    /// Without a group: where the next client continues.
    pub(crate) remembered: RememberedOffsets,
    /// Reads records again.
    pub(crate) reader: Reader,
    /// Replaces the client when its credentials have changed.
    pub(crate) renewal: Renewal,
}

#[async_trait]
impl Connector for Connect {
    /// # Errors
    /// An invalid setting, an unreachable broker, denied credentials, a missing topic or
    /// permission.
    async fn connect(&self) -> Result<Connected, Error> {
        join(self, self.renewal.client(&self.client).await?).await
    }

    fn renewal(&self) -> BoxFuture<'static, String> {
        self.renewal.due(&self.client)
    }

    async fn read_records(
        &self,
        partition: &TopicPartition,
        offsets: &[i64],
        max_bytes: usize,
    ) -> Result<Vec<Reread>, Error> {
        self.reader.read(&self.client, partition, offsets, max_bytes).await
    }
}

/// Joins the group, if the options name one.
pub(super) async fn join(connect: &Connect, opened: Opened) -> Result<Connected, Error> {
    let group = connect.client.group()?;
    if let Some(group) = &group {
        check_coordinator(&opened, &connect.client, group).await?;
    }
    let queue = Box::new(opened.fetch_queue());
    let Opened { threads, client, fetcher, events, .. } = opened;
    let first_topics = connect.client.first_topics.clone();
    let (start_at, reset) = (connect.start_at.clone(), connect.reset);
    let policy = StartPolicy { start_at, reset, first_topics };
    let topics = connect.client.topics.clone();
    let ends = LogEnds::new(Queue::new(client.clone())?, &connect.client.config);
    let calls = PartitionCalls { client: client.clone(), fetcher, ends };
    let Some(group) = group else {
        let refresh = refresh_interval(&connect.client.config);
        let ids = TopicIds::new(Queue::new(client.clone())?);
        let shared = (connect.remembered.clone(), policy.first_topics.clone());
        let topics = TopicWatch::new(client, topics, ids, refresh, shared);
        let member = Groupless {
            _threads: threads,
            calls,
            policy,
            remembered: connect.remembered.clone(),
            events: Mutex::new(Events { failures: events, topics }),
        };
        return Ok(Connected { member: Arc::new(member), queue });
    };
    let member = KafkaMember {
        _threads: threads,
        events: Mutex::new(events),
        calls,
        commits: Queue::new(client.clone())?,
        topic_ids: TopicIds::new(Queue::new(client.clone())?),
        group,
        policy,
        exactly_once: connect.exactly_once,
        membership: StaticMembership::of(&connect.client.config).map(Arc::new),
        lost: connect.exactly_once.then(|| LostRequests::new(connect.client.config.earliest_resend())),
    };
    let subscribe = move |client: &Client| {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let subscribed = client.subscribe(&names);
        subscribed.map_err(|error| permanent(format!("subscribing to {topics:?}"), error))
    };
    client.call("subscribe", subscribe).await??;
    Ok(Connected { member: Arc::new(member), queue })
}
