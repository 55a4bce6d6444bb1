//! A client of the simulated cluster. It implements the traits of the Kafka client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::bounds::Bounds;
use super::cluster::{Cluster, ClusterState};
use super::commits::process_commit;
use super::fetching::{Fetching, Polled};
use super::group::MemberId;
use super::log::PartitionLog;
use super::memory::HeldBytes;
use crate::error::Error;
use crate::member::{
    Change, CommitOutcome, Connected, Connector, FetchQueue, Fetched, GroupMember, LogPoint, LogReaches,
    MemberEvent, OffsetCommit, Ready, Rebalance, Reread, Start,
};
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;

/// Maximum time for a callback. After a longer one the group would count the member as dead.
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Time until it is known how far logs reach.
const LOG_REACH_LATENCY: Duration = Duration::from_millis(500);

/// Connects one process to the cluster, each time as a new member.
pub(super) struct SimConnector {
    pub(super) cluster: Cluster,
    /// The memory that the consumer holds.
    pub(super) held: HeldBytes,
    /// The current member of the process.
    pub(super) member: Arc<std::sync::Mutex<Option<MemberId>>>,
    /// Notified when the credentials change.
    pub(super) renewals: Arc<Notify>,
    pub(super) memory_budget: usize,
    /// The ends of a bounded run.
    pub(super) bounds: Bounds,
    /// Where partitions without a committed offset start, in milliseconds. `None`: at the lowest
    /// offset.
    pub(super) start_at: Option<i64>,
}

#[async_trait]
impl Connector for SimConnector {
    async fn connect(&self) -> Result<Connected, Error> {
        let latency = self.cluster.lock().rng.time(Duration::from_millis(200));
        sleep(latency).await;
        let (id, events, data) = self.cluster.join(self.bounds.until().is_some());
        *self.member.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(id);
        let member = SimMember {
            cluster: self.cluster.clone(),
            id,
            events: Mutex::new(events),
            bounds: self.bounds.clone(),
            start_at: self.start_at,
        };
        let queue = SimQueue {
            cluster: self.cluster.clone(),
            id,
            data,
            held: self.held.clone(),
            memory_budget: self.memory_budget,
        };
        Ok(Connected { member: Arc::new(member), queue: Box::new(queue) })
    }

    fn renewal(&self) -> BoxFuture<'static, String> {
        let renewals = self.renewals.clone();
        Box::pin(async move {
            renewals.notified().await;
            "simulated".to_owned()
        })
    }

    /// Fails while fetches return nothing.
    async fn read_records(
        &self,
        partition: &TopicPartition,
        offsets: &[i64],
        max_bytes: usize,
    ) -> Result<Vec<Reread>, Error> {
        let latency = self.cluster.lock().rng.time(Duration::from_millis(100));
        sleep(latency).await;
        let state = self.cluster.lock();
        let (what, reason) = (format!("reading {partition} again"), "simulated: no answer".to_owned());
        let failed = || Error::Client { operation: what, source: reason.into(), retryable: true };
        let log = state.log.get(partition).filter(|_| Instant::now() >= state.faults.no_fetch_until);
        let log = log.ok_or_else(failed)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for offset in offsets {
            let record = log.read(*offset, 1).into_iter().find(|record| record.offset() == *offset);
            bytes += record.as_ref().map_or(0, |record| record.content_bytes());
            found.push(match record {
                Some(record) => Reread::Record((*record).clone()),
                None => Reread::Gone(format!("the log starts at {}", log.low())),
            });
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(found)
    }
}

/// A member of the simulated group.
struct SimMember {
    cluster: Cluster,
    id: MemberId,
    events: Mutex<mpsc::UnboundedReceiver<MemberEvent>>,
    bounds: Bounds,
    start_at: Option<i64>,
}

impl SimMember {
    /// Waits for the latency of a request, and until the member is no longer isolated.
    async fn request(&self) {
        let (latency, isolated) = {
            let mut state = self.cluster.lock();
            let latency = state.rng.time(Duration::from_millis(50));
            (latency, state.group.isolated_until(self.id, Instant::now()))
        };
        sleep(latency).await;
        if let Some(until) = isolated {
            sleep_until(until).await;
        }
    }

    /// Makes a call to the client, which takes time and may fail.
    async fn call(&self, what: &str) -> Result<(), Error> {
        self.request().await;
        let mut state = self.cluster.lock();
        if Instant::now() < state.faults.failing_calls_until && state.rng.chance(30) {
            state.note(format_args!("member {}: {what} fails", self.id));
            let source = "simulated: the call timed out".into();
            return Err(Error::Client { operation: what.to_owned(), source, retryable: true });
        }
        Ok(())
    }

    /// Answers an assignment. Returns the starting positions, or none if a later rebalance has
    /// replaced this one.
    fn start_fetching(&self, rebalance: &Rebalance, ready: Ready) -> Vec<Start> {
        let mut state = self.cluster.lock();
        self.check_answer(&mut state, rebalance);
        if !state.group.answer(self.id, rebalance) {
            state.note(format_args!("member {} answers #{} too late", self.id, rebalance.id));
            return Vec::new();
        }
        state.note(format_args!("member {} fetches from now on what #{} assigned", self.id, rebalance.id));
        let mut starts = Vec::new();
        let incarnation = state.group.incarnation(self.id);
        for partition in &rebalance.partitions {
            let committed = state.committed.get(partition).cloned();
            let low = state.log.get(partition).map_or(0, PartitionLog::low);
            let (offset, metadata) = match &committed {
                Some((offset, metadata)) => (Some(*offset), metadata.clone()),
                None => (self.choose_start(&mut state, partition), None),
            };
            let position = offset.unwrap_or(low);
            if let Some(client) = state.clients.get_mut(&self.id) {
                client.fetching.insert(partition.clone(), Fetching::at(position));
                client.incarnations.insert(partition.clone(), incarnation);
                client.rejected.remove(partition);
                client.released.remove(partition);
            }
            state.oracle.reading_restarted(partition, self.id);
            starts.push(Start {
                partition: partition.clone(),
                offset,
                chosen: committed.is_none(),
                metadata,
                log: if state.blocks.enabled { state.log_of(partition) } else { None },
            });
        }
        self.bounds.started(&starts);
        ready(&starts);
        state.wake_readers();
        starts
    }

    /// The starting position of a partition without a committed offset. The policy has chosen the
    /// lowest offset, which is known or not.
    fn choose_start(&self, state: &mut ClusterState, partition: &TopicPartition) -> Option<i64> {
        let low = state.log.get(partition).map_or(0, PartitionLog::low);
        let Some(millis) = self.start_at else { return state.rng.chance(50).then_some(low) };
        let offset = state.log.get(partition).map_or(0, |log| log.at_time(millis));
        // It may be chosen again if the first choice was not committed in time.
        state.chosen.insert(partition.clone(), offset);
        state.oracle.not_required(partition, offset);
        Some(offset)
    }

    /// C8: while a commit is outstanding, its partitions are neither released nor assigned again.
    fn check_answer(&self, state: &mut ClusterState, rebalance: &Rebalance) {
        let Some(client) = state.clients.get(&self.id) else { return };
        if let Some(partition) = rebalance.partitions.iter().find(|p| client.committing.contains(*p)) {
            let what = format!(
                "member {} answers #{} while a commit of {partition} is outstanding",
                self.id, rebalance.id
            );
            state.violate("C8 no release before the commit is answered", what);
        }
    }
}

#[async_trait]
impl GroupMember for SimMember {
    async fn next_event(&self) -> MemberEvent {
        {
            let mut state = self.cluster.lock();
            state.count_call(self.id);
            let callback_at = state.clients.get_mut(&self.id).and_then(|client| client.callback_at.take());
            if let Some(duration) =
                callback_at.map(|at| at.elapsed()).filter(|duration| *duration > CALLBACK_TIMEOUT)
            {
                let what = format!("member {} polled again only after {duration:?}", self.id);
                state.violate("R3 the callback returns at once", what);
            }
        }
        let Some(event) = self.events.lock().await.recv().await else { return std::future::pending().await };
        let mut state = self.cluster.lock();
        if let Some(client) = state.clients.get_mut(&self.id) {
            client.callback_at = Some(Instant::now());
            if let MemberEvent::Rebalance(Rebalance { change: Change::Lose, partitions, .. }) = &event {
                for partition in partitions {
                    client.fetching.remove(partition);
                    client.rejected.remove(partition);
                    client.released.insert(partition.clone(), Change::Lose);
                }
            }
        }
        event
    }

    async fn assign(&self, rebalance: &Rebalance, ready: Ready) -> Result<Vec<Start>, Error> {
        self.call("assign").await?;
        let starts = self.start_fetching(rebalance, ready);
        // The consumer may read and deliver records before it learns where they start.
        self.request().await;
        Ok(starts)
    }

    async fn unassign(&self, rebalance: &Rebalance) -> Result<(), Error> {
        let mut state = self.cluster.lock();
        self.check_answer(&mut state, rebalance);
        state.check_revoke(self.id, rebalance.id, rebalance.change);
        let strays = if state.rng.chance(30) { state.rng.between(1, 40) } else { 0 };
        if let Some(client) = state.clients.get_mut(&self.id) {
            for partition in &rebalance.partitions {
                let stopped = client.fetching.remove(partition);
                client.strays += stopped.map_or(0, |_| strays);
                client.rejected.remove(partition);
                client.released.insert(partition.clone(), rebalance.change);
            }
        }
        let answered = state.group.answer(self.id, rebalance);
        let how = if answered { "has released" } else { "is too late to release" };
        state.note(format_args!("member {} {how} the partitions of #{}", self.id, rebalance.id));
        state.wake_readers();
        Ok(())
    }

    async fn commit(&self, offsets: &[OffsetCommit]) -> Vec<CommitOutcome> {
        let gone = || CommitOutcome::Retryable("the member is gone".to_owned());
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.cluster.lock();
            if state.was_removed(self.id, offsets) {
                return vec![CommitOutcome::Removed("another member id".to_owned()); offsets.len()];
            }
            state.check_commit(self.id, offsets);
            // The broker completes the commit even if no task waits for the answer any more.
            let (cluster, id, offsets) = (self.cluster.clone(), self.id, offsets.to_vec());
            tokio::spawn(async move { drop(reply.send(process_commit(&cluster, id, &offsets).await)) });
        }
        answer.await.unwrap_or_else(|_| vec![gone(); offsets.len()])
    }

    fn has_lost_commit(&self) -> bool {
        self.cluster.lock().clients.get(&self.id).is_some_and(|client| client.lost_commit)
    }

    async fn seek(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error> {
        self.call("seek").await?;
        let mut state = self.cluster.lock();
        let ClusterState { clients, oracle, .. } = &mut *state;
        if let Some(client) = clients.get_mut(&self.id) {
            for (partition, offset) in positions {
                client.rejected.remove(partition); // kmr assigns the partition anew
                if let Some(fetching) = client.fetching.get_mut(partition) {
                    if fetching.failed {
                        oracle.reading_reset(partition, self.id);
                    } else {
                        oracle.reading_restarted(partition, self.id);
                    }
                    *fetching = Fetching { paused: fetching.paused, ..Fetching::at(*offset) };
                }
            }
        }
        state.wake_readers();
        Ok(())
    }

    async fn pause(&self, partitions: &[TopicPartition], paused: bool) -> Result<(), Error> {
        self.call("pause").await?;
        let mut state = self.cluster.lock();
        if let Some(client) = state.clients.get_mut(&self.id) {
            for partition in partitions {
                if let Some(fetching) = client.fetching.get_mut(partition) {
                    (fetching.paused, fetching.polled_at) = (paused, Instant::now());
                }
            }
        }
        state.wake_readers();
        Ok(())
    }

    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        point: LogPoint,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        self.call("offsets").await?;
        let state = self.cluster.lock();
        let offset = |partition: &TopicPartition| {
            let log = state.log.get(partition)?;
            let offset = match point {
                LogPoint::Low => log.low(),
                LogPoint::End => log.end(),
                LogPoint::Time(millis) => log.at_time(millis),
            };
            Some((partition.clone(), offset))
        };
        let offsets = partitions.iter().filter_map(offset).collect();
        self.bounds.received(&offsets, point);
        Ok(offsets)
    }

    async fn log_reach(&self, positions: &[(TopicPartition, Option<i64>)]) -> LogReaches {
        sleep(LOG_REACH_LATENCY).await;
        let state = self.cluster.lock();
        if state.is_cut_off(self.id, Instant::now()) {
            return LogReaches::new();
        }
        let reach = |(partition, _): &(TopicPartition, _)| {
            Some((partition.clone(), Ok(state.log_reach(self.id, partition)?)))
        };
        positions.iter().filter_map(reach).collect()
    }

    async fn log_bounds(&self, partition: &TopicPartition) -> Option<(i64, i64)> {
        self.cluster.lock().log.get(partition).map(|log| (log.low(), log.end()))
    }

    async fn close(&self) -> Result<(), Error> {
        self.cluster.lock().leave(self.id);
        Ok(())
    }
}

impl Drop for SimMember {
    fn drop(&mut self) {
        self.cluster.lock().vanish(self.id);
    }
}

/// The fetch queue of a client.
struct SimQueue {
    cluster: Cluster,
    id: MemberId,
    data: Arc<Notify>,
    held: HeldBytes,
    memory_budget: usize,
}

impl FetchQueue for SimQueue {
    fn poll(&mut self, max_records: usize) -> Option<Vec<Fetched>> {
        let held = self.held.now();
        let mut state = self.cluster.lock();
        state.count_call(self.id);
        // While any byte is free, one more poll is allowed. What it returns may exceed the budget.
        if held >= self.memory_budget {
            let what = format!(
                "member {} polls while {held} bytes are held, and the memory budget is {}",
                self.id, self.memory_budget
            );
            state.violate("M1 the memory budget holds", what);
        }
        let fetched = state.fetch(self.id, max_records)?;
        Some(fetched.into_iter().map(|polled| to_fetched(polled, &self.held)).collect())
    }

    fn readable(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.data.notified())
    }
}

fn to_fetched(polled: Polled, held: &HeldBytes) -> Fetched {
    match polled {
        Polled::Records(partition, records) => {
            let (bytes, batch) = held.batch(records);
            let topic = partition.shared_topic().clone();
            Fetched::Records { topic, partition: partition.partition(), bytes, batch }
        }
        Polled::Failed(partition, failure) => Fetched::Failed {
            topic: partition.shared_topic().clone(),
            partition: partition.partition(),
            failure,
        },
        Polled::End(partition, offset) => {
            Fetched::End { topic: partition.shared_topic().clone(), partition: partition.partition(), offset }
        }
    }
}
