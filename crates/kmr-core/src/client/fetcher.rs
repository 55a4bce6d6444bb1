//! What moves the positions of assigned partitions: assign, unassign, seek, pause. All on the control thread, all behind the
//! gate (see `positions`), whoever asks: a member of a group, or one without.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::context::Client;
use super::native::Queue;
use super::positions::{Gate, Places, Positions};
use crate::error::Error;
use crate::member::{Rebalance, RebalanceProtocol, Start};
use crate::record::TopicPartition;
use crate::telemetry;

/// Moving the position of partitions: answered by librdkafka itself.
const SEEK: Duration = Duration::from_secs(10);

/// The fetch queue and what is known of the positions in it.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub(super) queue: Arc<Queue>,
    pub(super) gate: Arc<Gate>,
}

impl Fetcher {
    /// Assigns partitions by `call`, which is given the list, and says whether it took place.
    pub(super) fn assign(
        &self,
        client: &Client,
        rebalance: &Rebalance,
        starts: &[Start],
        call: impl FnOnce(&TopicPartitionList) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let places =
            starts.iter().map(|s| (s.partition.clone(), s.offset.map_or(Offset::Beginning, Offset::Offset)));
        let places: Places = places.collect();
        let assigned = self.gated(|positions| {
            // In librdkafka a pause outlives the assignment.
            let _ = client.resume(&list(&places)?);
            self.forward(&places);
            match rebalance.protocol {
                RebalanceProtocol::Eager => positions.clear(),
                RebalanceProtocol::Cooperative => correct(client, positions)?,
            }
            starts.iter().for_each(|start| positions.assigned(&start.partition, start.offset));
            let assigned = call(&list(&places)?)?;
            if assigned {
                // Where this assignment has overtaken the answer to a revoke, it has replaced one in librdkafka.
                self.forward_anew(client, &places);
            } else {
                starts.iter().for_each(|start| positions.unassigned(&start.partition));
            }
            Ok(assigned)
        })?;
        self.restart(client)?;
        Ok(assigned)
    }

    /// Unassigns partitions by `call`, which is given the list.
    pub(super) fn unassign(
        &self,
        client: &Client,
        rebalance: &Rebalance,
        call: impl FnOnce(&TopicPartitionList) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let places: Places = rebalance.partitions.iter().map(|p| (p.clone(), Offset::Invalid)).collect();
        self.gated(|positions| {
            match rebalance.protocol {
                RebalanceProtocol::Eager => positions.clear(),
                RebalanceProtocol::Cooperative => {
                    rebalance.partitions.iter().for_each(|partition| positions.unassigned(partition));
                    correct(client, positions)?;
                }
            }
            let unassigned = call(&list(&places)?);
            stopped(client);
            unassigned
        })?;
        self.restart(client)
    }

    /// Moves assigned partitions. While a rebalance waits for its answer, those whose fetcher has ended move with the answer.
    pub(super) fn seek(&self, client: &Client, targets: &[(TopicPartition, i64)]) -> Result<(), Error> {
        self.gated(|positions| {
            assigned(positions, "seeking", targets.iter().map(|(partition, _)| partition))?;
            let (running, ended): (Vec<_>, Vec<_>) =
                targets.iter().cloned().partition(|(partition, _)| positions.is_seekable(partition));
            for (partition, offset) in &ended {
                positions.sought(partition, *offset);
                positions.restart(partition);
            }
            let places: Places = running.iter().map(|(p, o)| (p.clone(), Offset::Offset(*o))).collect();
            let refused = seek(client, &places)?;
            for (partition, offset) in &running {
                positions.sought(partition, *offset);
            }
            not_running(positions, &refused).map_err(|error| failed("seeking", &places, error))
        })?;
        self.restart(client)
    }

    /// Pauses or resumes assigned partitions.
    pub(super) fn pause(
        &self,
        client: &Client,
        partitions: &[TopicPartition],
        paused: bool,
    ) -> Result<(), Error> {
        let places: Places = partitions.iter().map(|p| (p.clone(), Offset::Invalid)).collect();
        let what = if paused { "pausing" } else { "resuming" };
        self.gated(|positions| {
            assigned(positions, what, partitions)?;
            let list = list(&places)?;
            let done = if paused { client.pause(&list) } else { client.resume(&list) };
            done.map_err(|error| failed(what, &places, &error))?;
            let refused = list.elements().into_iter().find_map(|element| element.error().err());
            // Pausing took librdkafka's own position as the one to go on from.
            correct(client, positions)?;
            refused.map_or(Ok(()), |error| Err(failed(what, &places, &error)))
        })?;
        self.restart(client)
    }

    /// Assigns those anew whose fetcher has ended. While a rebalance waits for its answer nothing is done: the answer does it.
    pub(super) fn restart(&self, client: &Client) -> Result<(), Error> {
        self.gated(|positions| {
            let due = positions.restarts();
            if due.is_empty() {
                return Ok(());
            }
            let anew = |protocol| match protocol {
                // There is no assigning of some partitions: all are assigned anew, where they are.
                Some(RebalanceProtocol::Eager) => {
                    let all = positions.all();
                    client.assign(&list(&all)?).map_err(|error| failed("restarting", &all, &error))?;
                    Ok(all)
                }
                Some(RebalanceProtocol::Cooperative) | None => {
                    let list = list(&due)?;
                    let unassigned = client.incremental_unassign(&list);
                    let assigned = unassigned.and_then(|()| client.incremental_assign(&list));
                    assigned.map_err(|error| failed("restarting", &due, &error))?;
                    Ok(due)
                }
            };
            match client.context().undisturbed(anew) {
                None => Ok(()),
                Some(restarted) => restarted.map(|places: Places| {
                    self.forward_anew(client, &places);
                    telemetry::fetching_restarted(&places);
                    positions.restarted(&places);
                }),
            }
        })
    }

    fn forward(&self, places: &Places) {
        for (partition, _) in places {
            self.queue.forward(partition.topic(), partition.partition());
        }
    }

    /// Forwards partitions that librdkafka may have stopped and started again by one call: stopping takes the forwarding away, and starting
    /// does not bring it back once it was the application's (`rd_kafka_toppar_fetch_stop`, `rd_kafka_toppar_op_fetch_start`). What
    /// is fetched of them would wait for ever. One whose topic is unknown may even be another object by now.
    fn forward_anew(&self, client: &Client, places: &Places) {
        stopped(client);
        self.forward(places);
    }

    /// Runs `body` behind the gate. Who polled meanwhile was told that there is nothing: it is woken.
    fn gated<T>(&self, body: impl FnOnce(&mut Positions) -> T) -> T {
        let done = body(&mut self.gate.lock());
        self.queue.wake();
        done
    }
}

/// Waits until fetchers have stopped that were told to. librdkafka stops them later than it answers, and ends their forwarding
/// then; its main thread does one thing after the other, so an answer to a question means that it has.
fn stopped(client: &Client) {
    let _ = client.assignment();
}

fn assigned<'p>(
    positions: &Positions,
    what: &str,
    partitions: impl IntoIterator<Item = &'p TopicPartition>,
) -> Result<(), Error> {
    match partitions.into_iter().find(|partition| !positions.is_assigned(partition)) {
        None => Ok(()),
        Some(partition) => Err(Error::Client {
            operation: format!("{what} {partition}"),
            source: "the partition is not assigned".into(),
            retryable: false,
        }),
    }
}

/// Corrects what librdkafka takes for the position of partitions (invariant 3 of `positions`); they are paused now.
fn correct(client: &Client, positions: &mut Positions) -> Result<(), Error> {
    let skewed = positions.skewed();
    let refused = seek(client, &skewed)?;
    positions.corrected();
    not_running(positions, &refused).map_err(|error| failed("correcting positions of", &skewed, error))
}

/// Partitions that cannot be sought because their fetcher has not started yet, or has ended, are assigned anew.
fn not_running<'e>(
    positions: &mut Positions,
    refused: &'e [(TopicPartition, KafkaError)],
) -> Result<(), &'e KafkaError> {
    for (partition, error) in refused {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::State) {
            return Err(error);
        }
        positions.restart(partition);
    }
    Ok(())
}

/// Seeks; returns what was refused.
fn seek(client: &Client, places: &Places) -> Result<Vec<(TopicPartition, KafkaError)>, Error> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let sought =
        client.seek_partitions(list(places)?, SEEK).map_err(|error| failed("seeking", places, &error))?;
    let refused = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        let partition = TopicPartition::new(element.topic(), element.partition());
        element.error().err().map(|error| (partition, error))
    };
    Ok(sought.elements().iter().filter_map(refused).collect())
}

/// As librdkafka takes them. Lists that went through librdkafka must not outlive the client: they would hang its drop.
pub(super) fn list(places: &Places) -> Result<TopicPartitionList, Error> {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (partition, offset) in places {
        list.add_partition_offset(partition.topic(), partition.partition(), *offset).map_err(|error| {
            Error::Client {
                operation: format!("{partition} at {offset:?}"),
                source: error.into(),
                retryable: false,
            }
        })?;
    }
    Ok(list)
}

fn failed(what: &str, places: &Places, error: &KafkaError) -> Error {
    Error::Client {
        operation: format!("{what} {places:?}"),
        source: error.to_string().into(),
        retryable: true,
    }
}
