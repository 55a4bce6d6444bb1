//! Calls that move the positions of assigned partitions: assign, unassign, seek, pause. All of them
//! run on the control thread and hold the gate (see `positions`).

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::context::Client;
use super::errors::retryable;
use super::native::queue::Queue;
use super::partition_list::{PartitionOffsets, native_list, without_offsets};
use super::positions::{Gate, Positions};
use super::timeouts;
use crate::error::Error;
use crate::member::{Rebalance, RebalanceProtocol, Start};
use crate::record::TopicPartition;
use crate::telemetry;

/// The offset after the last record of each partition that poll has returned. `None`: the lowest in
/// the log.
pub(super) type Returned = HashMap<TopicPartition, Option<i64>>;

/// The fetch queue and the positions in it.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub(super) queue: Arc<Queue>,
    pub(super) gate: Arc<Gate>,
}

impl Fetcher {
    /// Assigns partitions by `call`, which receives the lists and returns whether it took place.
    pub(super) fn assign(
        &self,
        client: &Client,
        rebalance: &Rebalance,
        starts: &[Start],
        call: impl FnOnce(&AssignLists) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let offset = |start: &Start| start.offset.map_or(Offset::Beginning, Offset::Offset);
        let targets = starts.iter().map(|start| (start.partition.clone(), offset(start)));
        let targets: PartitionOffsets = targets.collect();
        if !targets.is_empty() {
            client.context().fetch_limit.assigning(client.client())?;
        }
        let assigned = self.gated(|positions| {
            // In librdkafka a pause outlives the assignment.
            let _ = client.resume(&native_list(&targets)?);
            self.forward(&targets);
            match rebalance.protocol {
                RebalanceProtocol::Eager => positions.clear(),
                RebalanceProtocol::Cooperative => correct(client, positions)?,
            }
            let strays = native_list(&strays(client, rebalance.protocol, positions)?)?;
            starts.iter().for_each(|start| positions.assigned(&start.partition, start.offset));
            let assigned = call(&AssignLists { targets: native_list(&targets)?, strays })?;
            if assigned {
                // If this assignment came before the answer to a revoke, it has replaced another
                // one in librdkafka.
                self.forward_again(client, &targets);
            } else {
                starts.iter().for_each(|start| positions.unassigned(&start.partition));
            }
            Ok(assigned)
        })?;
        self.restart(client)?;
        Ok(assigned)
    }

    /// Unassigns partitions by `call`, which receives the list. In a cooperative group these are
    /// the partitions of the rebalance, and strays.
    pub(super) fn unassign(
        &self,
        client: &Client,
        rebalance: &Rebalance,
        call: impl FnOnce(&TopicPartitionList) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        self.gated(|positions| {
            match rebalance.protocol {
                RebalanceProtocol::Eager => positions.clear(),
                RebalanceProtocol::Cooperative => {
                    rebalance.partitions.iter().for_each(|partition| positions.unassigned(partition));
                    correct(client, positions)?;
                }
            }
            let unassigned = call(&native_list(&strays(client, rebalance.protocol, positions)?)?);
            wait_for_stopped_fetchers(client);
            unassigned
        })?;
        self.restart(client)
    }

    /// Assigns partitions where no group waits for an answer. Calls `ready` as
    /// [`GroupMember::assign`](crate::member::GroupMember::assign) does.
    pub(super) fn assign_without_group(
        &self,
        client: &Client,
        rebalance: &Rebalance,
        starts: &[Start],
        ready: impl FnOnce(&[Start]),
    ) -> Result<(), Error> {
        let assigned = self.assign(client, rebalance, starts, |lists| {
            ready(starts);
            let failed = |error| retryable(format!("assigning {:?}", rebalance.partitions), error);
            lists.incremental_assign(client).map_err(failed)?;
            Ok(true)
        });
        assigned.map(drop)
    }

    /// Unassigns partitions where no group waits for an answer.
    pub(super) fn unassign_without_group(&self, client: &Client, rebalance: &Rebalance) -> Result<(), Error> {
        self.unassign(client, rebalance, |list| {
            let failed = |error| retryable(format!("unassigning {:?}", rebalance.partitions), error);
            client.incremental_unassign(list).map_err(failed)?;
            Ok(true)
        })
    }

    /// Moves assigned partitions. A partition whose fetcher has ended moves with the answer to a
    /// rebalance, if one waits for it.
    pub(super) fn seek(&self, client: &Client, targets: &[(TopicPartition, i64)]) -> Result<(), Error> {
        self.gated(|positions| {
            check_assigned(positions, "seeking", targets.iter().map(|(partition, _)| partition))?;
            let (running, ended): (Vec<_>, Vec<_>) =
                targets.iter().cloned().partition(|(partition, _)| positions.is_seekable(partition));
            for (partition, offset) in &ended {
                positions.sought(partition, *offset);
                positions.needs_restart(partition);
            }
            let sought =
                running.iter().map(|(partition, offset)| (partition.clone(), Offset::Offset(*offset)));
            let sought: PartitionOffsets = sought.collect();
            let rejected = seek(client, &sought)?;
            for (partition, offset) in &running {
                positions.sought(partition, *offset);
            }
            restart_rejected(positions, &rejected).map_err(|error| failed("seeking", &sought, error))
        })?;
        self.restart(client)
    }

    /// Moves assigned partitions, stops their fetchers and starts them again. It takes place with
    /// the answer to a rebalance, if one waits for it.
    pub(super) fn restart_at(&self, client: &Client, targets: &[(TopicPartition, i64)]) -> Result<(), Error> {
        self.gated(|positions| {
            check_assigned(positions, "restarting", targets.iter().map(|(partition, _)| partition))?;
            for (partition, offset) in targets {
                positions.sought(partition, *offset);
                positions.needs_restart(partition);
            }
            Ok(())
        })?;
        self.restart(client)
    }

    /// Forwards assigned partitions to the fetch queue again and wakes its reader. Returns how far
    /// poll has returned them.
    pub(super) fn forward_assigned(&self, partitions: &[TopicPartition]) -> Returned {
        self.gated(|positions| {
            let assigned = partitions.iter().filter(|partition| positions.is_assigned(partition));
            let returned = |partition: &TopicPartition| (partition.clone(), positions.next(partition));
            let returned: Returned = assigned.map(returned).collect();
            for partition in returned.keys() {
                self.queue.forward(partition.topic(), partition.partition());
            }
            returned
        })
    }

    /// Pauses or resumes assigned partitions.
    pub(super) fn pause(
        &self,
        client: &Client,
        partitions: &[TopicPartition],
        paused: bool,
    ) -> Result<(), Error> {
        let what = if paused { "pausing" } else { "resuming" };
        self.gated(|positions| {
            // A rebalance may have overtaken this call. The next assignment is paused anew.
            let assigned = partitions.iter().filter(|partition| positions.is_assigned(partition));
            let assigned: Vec<TopicPartition> = assigned.cloned().collect();
            if assigned.is_empty() {
                return Ok(());
            }
            let targets = without_offsets(&assigned);
            let list = native_list(&targets)?;
            let done = if paused { client.pause(&list) } else { client.resume(&list) };
            done.map_err(|error| failed(what, &targets, &error))?;
            let rejected = list.elements().into_iter().find_map(|element| element.error().err());
            // Pausing has stored librdkafka's own position as the one to continue from.
            correct(client, positions)?;
            rejected.map_or(Ok(()), |error| Err(failed(what, &targets, &error)))
        })?;
        self.restart(client)
    }

    /// Assigns partitions again whose fetcher has ended. Does nothing while a rebalance waits for
    /// its answer, because the call that answers it restarts them.
    pub(super) fn restart(&self, client: &Client) -> Result<(), Error> {
        self.gated(|positions| {
            let due = positions.to_restart();
            if due.is_empty() {
                return Ok(());
            }
            let assign_again = |protocol| match protocol {
                // An eager client cannot assign some partitions, so all are assigned at their
                // positions.
                Some(RebalanceProtocol::Eager) => {
                    let all = positions.all();
                    client.assign(&native_list(&all)?).map_err(|error| failed("restarting", &all, &error))?;
                    Ok(all)
                }
                Some(RebalanceProtocol::Cooperative) | None => {
                    let list = native_list(&due)?;
                    let unassigned = client.incremental_unassign(&list);
                    let assigned = unassigned.and_then(|()| client.incremental_assign(&list));
                    assigned.map_err(|error| failed("restarting", &due, &error))?;
                    Ok(due)
                }
            };
            match client.context().between_rebalances(assign_again) {
                None => Ok(()),
                Some(restarted) => restarted.map(|restarted: PartitionOffsets| {
                    self.forward_again(client, &restarted);
                    telemetry::fetching_restarted(&restarted);
                    positions.restarted(&restarted);
                }),
            }
        })
    }

    fn forward(&self, targets: &PartitionOffsets) {
        for (partition, _) in targets {
            self.queue.forward(partition.topic(), partition.partition());
        }
    }

    /// Forwards partitions that librdkafka may have stopped and started again in one call. Stopping
    /// ends the forwarding. Starting does not restore it once it was the application's
    /// (`rd_kafka_toppar_fetch_stop`, `rd_kafka_toppar_op_fetch_start`), and fetched messages would
    /// wait forever. If the topic is unknown, the partition may even be another object by now.
    fn forward_again(&self, client: &Client, targets: &PartitionOffsets) {
        wait_for_stopped_fetchers(client);
        self.forward(targets);
    }

    /// Runs `body` while it holds the gate. A poll that found the gate closed returned nothing, so
    /// the queue's reader is woken.
    fn gated<T>(&self, body: impl FnOnce(&mut Positions) -> T) -> T {
        let done = body(&mut self.gate.lock());
        self.queue.wake();
        done
    }
}

/// Waits until librdkafka has stopped the fetchers that it received stop requests for. It stops
/// them after its response, and ends their forwarding then. Its main thread serves one request
/// after the other, so a response to a later request means that the fetchers have stopped.
fn wait_for_stopped_fetchers(client: &Client) {
    let _ = client.assignment();
}

/// The lists of an assignment.
pub(super) struct AssignLists {
    /// The partitions to assign, with their starting positions.
    pub(super) targets: TopicPartitionList,
    /// Partitions to unassign before. See [`strays`].
    strays: TopicPartitionList,
}

impl AssignLists {
    /// Assigns the partitions in addition to those that are assigned already.
    pub(super) fn incremental_assign(&self, client: &Client) -> Result<(), KafkaError> {
        if self.strays.count() > 0 {
            // No answer to the assignment that waits for one: that is only a call that assigns.
            client.incremental_unassign(&self.strays)?;
            wait_for_stopped_fetchers(client);
        }
        client.incremental_assign(&self.targets)
    }
}

/// Partitions that librdkafka has assigned and kmr has not.
///
/// When the metadata of topics changes, librdkafka joins the group again, even while a revoke waits
/// for its answer (`rd_kafka_cgrp_metadata_update_check`). The next revoke then replaces that one,
/// whose partitions stay assigned. librdkafka would fetch them for no task, and reject an
/// assignment that returns them. In an eager group each assignment names all partitions, so there
/// are no strays.
fn strays(
    client: &Client,
    protocol: RebalanceProtocol,
    positions: &Positions,
) -> Result<PartitionOffsets, Error> {
    if protocol == RebalanceProtocol::Eager {
        return Ok(PartitionOffsets::new());
    }
    let assigned = client.assignment().map_err(|error| retryable("reading the assignment", error))?;
    let assigned = assigned.elements();
    let assigned = assigned.iter().map(|of| TopicPartition::new(of.topic(), of.partition()));
    let strays: Vec<TopicPartition> =
        assigned.filter(|partition| !positions.is_assigned(partition)).collect();
    Ok(without_offsets(&strays))
}

fn check_assigned<'p>(
    positions: &Positions,
    what: &str,
    partitions: impl IntoIterator<Item = &'p TopicPartition>,
) -> Result<(), Error> {
    match partitions.into_iter().find(|partition| !positions.is_assigned(partition)) {
        None => Ok(()),
        // A rebalance may have overtaken this call.
        Some(partition) => Err(retryable(format!("{what} {partition}"), "the partition is not assigned")),
    }
}

/// Corrects positions that are wrong in librdkafka (invariant 3 of `positions`). The partitions are
/// paused at this time.
fn correct(client: &Client, positions: &mut Positions) -> Result<(), Error> {
    let skewed = positions.skewed();
    let rejected = seek(client, &skewed)?;
    positions.corrected();
    restart_rejected(positions, &rejected).map_err(|error| failed("correcting positions of", &skewed, error))
}

/// A partition that librdkafka could not seek.
struct RejectedSeek {
    partition: TopicPartition,
    error: KafkaError,
}

/// librdkafka rejects a seek of a partition whose fetcher has not started yet or has ended. Such a
/// partition is assigned again.
fn restart_rejected<'e>(
    positions: &mut Positions,
    rejected: &'e [RejectedSeek],
) -> Result<(), &'e KafkaError> {
    for RejectedSeek { partition, error } in rejected {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::State) {
            return Err(error);
        }
        positions.needs_restart(partition);
    }
    Ok(())
}

fn seek(client: &Client, targets: &PartitionOffsets) -> Result<Vec<RejectedSeek>, Error> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let sought = client
        .seek_partitions(native_list(targets)?, timeouts::SEEK)
        .map_err(|error| failed("seeking", targets, &error))?;
    let rejected = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        let partition = TopicPartition::new(element.topic(), element.partition());
        element.error().err().map(|error| RejectedSeek { partition, error })
    };
    Ok(sought.elements().iter().filter_map(rejected).collect())
}

fn failed(what: &str, targets: &PartitionOffsets, error: &KafkaError) -> Error {
    retryable(format!("{what} {targets:?}"), error.clone())
}
