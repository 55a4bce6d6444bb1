//! Performs the actions of a schedule on the cluster and the processes of a run.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::cluster::{Client, ClusterState, Faults};
use super::drive::Run;
use super::schedule::{Action, TOPICS, millis};
use crate::config::Until;
use crate::error::error_chain;
use crate::record::TopicPartition;

/// Time in which the group detects a lost member and rebalances.
const DETECTION: Duration = Duration::from_secs(12);
/// Time for which retries may continue after the end of a fault.
const RECOVERY: Duration = Duration::from_secs(20);

impl Run<'_> {
    pub(super) fn act(&mut self, action: &Action) {
        let now = Instant::now();
        match action {
            Action::Produce { topic, partition, records, gap } => {
                self.change(*topic, *partition, |state, partition| {
                    state.produce(&self.cluster.simulation, partition, *records, *gap);
                });
            }
            Action::Markers { topic, partition } => {
                self.change(*topic, *partition, |state, partition| state.log.append_markers(partition, 3));
            }
            Action::Truncate { topic, partition, percent } => {
                self.change(*topic, *partition, |state, partition| truncate(state, partition, *percent));
            }
            Action::Unreadable { topic, partition, fault } => {
                self.change(*topic, *partition, |state, partition| {
                    state.unreadable.insert(partition.clone(), *fault);
                });
            }
            Action::FailingCalls { time } => {
                self.fault(now + *time + RECOVERY, |faults| faults.failing_calls_until = now + *time);
            }
            Action::ForeignCommit { topic, partition, keeps_metadata } => {
                self.change(*topic, *partition, |state, partition| {
                    state.commit_foreign(partition, *keeps_metadata);
                });
            }
            Action::Start { process } => self.start(*process, None),
            Action::StartBounded { process, until } => {
                let until = until.map(|time| Until::Timestamp(millis(time)));
                self.start(*process, Some(until.unwrap_or(Until::End)));
            }
            Action::Stop { process } => self.processes[*process].shared.stop(),
            Action::Force { process, after } => self.force(*process, *after),
            Action::Kill { process } => self.kill(*process, now),
            Action::Isolate { process, time } => self.isolate(*process, now, now + *time),
            Action::Deaf { process } => self.deafen(*process),
            Action::Fatal { process } => self.fail_client(*process, now),
            Action::Renew { process } => self.processes[*process].shared.renew(),
            Action::Reshuffle => self.cluster.lock().group.reshuffle(),
            Action::AddPartition { topic } => self.add_partition(*topic),
            Action::DeleteTopic => self.cluster.lock().delete_topic(TOPICS[1]),
            Action::CreateTopic => self.create_topic(),
            Action::Commits { fault, time } => {
                self.fault(now + *time + RECOVERY, |faults| faults.commits = Some((*fault, now + *time)));
            }
            Action::Sinks { fault, time } => {
                self.fault(now + *time + RECOVERY, |faults| faults.sinks = Some((*fault, now + *time)));
            }
            Action::SinkBroken => self.fault(now + RECOVERY, |faults| faults.sink_broken = true),
            Action::NoFetch { time } => {
                self.fault(now + *time, |faults| faults.no_fetch_until = now + *time);
            }
            Action::Pause { process, topic, partition, time } => {
                self.pause(*process, self.partition(*topic, *partition), *time);
                self.fault_until(now + *time);
            }
            Action::Seek { process, topic, partition, percent } => {
                self.seek(*process, self.partition(*topic, *partition), *percent);
            }
            Action::Lenient { time } => self.cluster.lock().blocks.lenient_until = Some(now + *time),
            Action::Silence { topic, partition } => self.change(*topic, *partition, ClusterState::silence),
            Action::ReturnTwice { process } => self.return_twice(*process),
        }
    }

    /// Starts a fault that may have effects until `until`.
    fn fault(&self, until: Instant, start: impl FnOnce(&mut Faults)) {
        start(&mut self.cluster.lock().faults);
        self.fault_until(until);
    }

    /// Records that faults may have effects until then.
    fn fault_until(&self, until: Instant) {
        let mut state = self.cluster.lock();
        state.faults.any_until = state.faults.any_until.max(until);
    }

    /// The partition of a topic, counted modulo the partitions that the topic has.
    fn partition(&self, topic: usize, partition: usize) -> Option<TopicPartition> {
        find(&self.cluster.lock(), topic, partition)
    }

    /// Changes the cluster, if the topic has partitions.
    fn change(
        &self,
        topic: usize,
        partition: usize,
        change: impl FnOnce(&mut ClusterState, &TopicPartition),
    ) {
        let mut state = self.cluster.lock();
        if let Some(partition) = find(&state, topic, partition) {
            change(&mut state, &partition);
        }
    }

    /// Requests a stop, and a forced stop some time later.
    fn force(&self, process: usize, after: Duration) {
        let shared = self.processes[process].shared.clone();
        shared.stop();
        tokio::spawn(async move {
            sleep(after).await;
            shared.force_stop();
        });
    }

    fn kill(&mut self, process: usize, now: Instant) {
        if let Some(task) = self.processes[process].task.take() {
            task.abort();
        }
        self.fault_until(now + DETECTION);
    }

    fn isolate(&self, process: usize, now: Instant, until: Instant) {
        if let Some(member) = self.processes[process].shared.member() {
            self.cluster.lock().group.isolate(member, now, until);
        }
        self.fault_until(until + DETECTION);
    }

    fn deafen(&self, process: usize) {
        if let Some(member) = self.processes[process].shared.member() {
            self.cluster.lock().group.deafen(member);
        }
    }

    /// A process cannot know that its client receives no events, before it has an offset to commit.
    /// So once the group has removed the member, each of its partitions gets one more record.
    /// Without a partition, the operator restarts the process.
    pub(super) async fn reveal_deafness(&mut self) {
        if self.cluster.lock().group.has_deaf() {
            sleep(DETECTION).await;
        }
        for process in 0..self.processes.len() {
            let Some(member) = self.processes[process].shared.member() else { continue };
            let mut state = self.cluster.lock();
            if !state.group.is_deaf(member) {
                continue;
            }
            let fetching = state.clients.get(&member).into_iter().flat_map(|client| &client.fetching);
            let readable = fetching
                .filter(|(partition, fetching)| !fetching.failed && state.log.get(partition).is_some());
            let readable: Vec<TopicPartition> = readable.map(|(partition, _)| partition.clone()).collect();
            for partition in &readable {
                state.produce(&self.cluster.simulation, partition, 1, 0);
            }
            drop(state);
            if readable.is_empty() {
                self.kill(process, Instant::now());
            }
        }
    }

    fn fail_client(&self, process: usize, now: Instant) {
        if let Some(member) = self.processes[process].shared.member() {
            self.cluster.lock().fail_client(member);
        }
        self.fault_until(now + DETECTION);
    }

    fn add_partition(&self, topic: usize) {
        let mut state = self.cluster.lock();
        let partitions = state.log.partition_count(TOPICS[topic]);
        if partitions > 0 {
            state.log.create(&TOPICS[topic].into(), partitions + 1);
            state.group.rebalance();
        }
    }

    /// Creates the deleted topic again, once every member has released it. Commits name topics and
    /// not their ids, so Kafka would accept a late commit of the old topic for the new one. No
    /// client can prevent that.
    fn create_topic(&self) {
        let partitions = self.schedule.partitions;
        let mut state = self.cluster.lock();
        if state.log.partition_count(TOPICS[1]) > 0 || state.is_held(TOPICS[1]) {
            return;
        }
        state.log.create(&TOPICS[1].into(), partitions);
        state.change_topic_id(TOPICS[1]);
        state.group.rebalance();
    }

    fn pause(&self, process: usize, partition: Option<TopicPartition>, time: Duration) {
        let Some((partition, handle)) = partition.zip(self.processes[process].shared.handle()) else {
            return;
        };
        handle.pause([partition.clone()]);
        tokio::spawn(async move {
            sleep(time).await;
            handle.resume([partition]);
        });
    }

    fn seek(&self, process: usize, partition: Option<TopicPartition>, percent: i64) {
        let Some((partition, handle)) = partition.zip(self.processes[process].shared.handle()) else {
            return;
        };
        let cluster = self.cluster.clone();
        let committed = {
            let mut state = cluster.lock();
            state.was_sought = true;
            state.committed.get(&partition).map_or(0, |(offset, _)| *offset)
        };
        tokio::spawn(async move {
            let offset = committed * percent / 100;
            let result = handle.seek(partition.clone(), offset).await.map_err(|error| error_chain(&error));
            cluster
                .lock()
                .note(format_args!("process {process}: seek of {partition} to {offset}: {result:?}"));
        });
    }

    fn return_twice(&self, process: usize) {
        let Some(member) = self.processes[process].shared.member() else { return };
        let mut state = self.cluster.lock();
        let back = i64::try_from(state.rng.between(1, 6)).unwrap_or(1);
        if let Some(client) = state.clients.get_mut(&member) {
            for fetching in client.fetching.values_mut() {
                fetching.position = (fetching.position - back).max(fetching.start);
            }
        }
        state.wake_readers();
    }
}

fn find(state: &ClusterState, topic: usize, partition: usize) -> Option<TopicPartition> {
    let partitions = state.log.partition_count(TOPICS[topic]);
    let number = i32::try_from(partition.checked_rem(partitions)?).ok()?;
    Some(TopicPartition::new(TOPICS[topic], number))
}

fn truncate(state: &mut ClusterState, partition: &TopicPartition, percent: usize) {
    if let Some(low) = state.log.truncate(partition, percent) {
        let position = |client: &Client| client.fetching.get(partition).map(|fetching| fetching.position);
        let readers = state.clients.iter().filter_map(|(member, client)| Some((*member, position(client)?)));
        let readers: Vec<_> = readers.collect();
        state.oracle.truncated(partition, low, &readers);
        state.wake_readers();
    }
}
