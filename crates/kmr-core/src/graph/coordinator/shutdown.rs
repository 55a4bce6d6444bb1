//! The ordered end (L3): intake, drain, flush, dead letters, commit, leave, on one absolute deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::reconnect::Without;
use super::session::{Running, Session};
use super::supervision::{Failed, early};
use super::{CLOSE_TIME, Coordinator, Ending, StopRequest};
use crate::error::{BoxError, Error, error_chain};
use crate::graph::commit::handle::Settled;
use crate::listeners::RebalanceEvent;
use crate::member::{GroupMember, MemberEvent};
use crate::partition_report::PartitionReport;
use crate::record::TopicPartition;
use crate::telemetry;

/// How long a forced end waits to learn what is left: the committer answers at once, or not at all.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Coordinator {
    /// Ends the consumer in order after `served`, or at once when a stop request forces it.
    pub(super) async fn finish(
        mut self,
        mut session: Session,
        served: Result<StopRequest, Failed>,
    ) -> Result<Ending, Error> {
        match &served {
            Ok(stop) => telemetry::stopping(stop.source),
            Err(error) => telemetry::stopping(&format!("after an error: {}", error_chain(error))),
        }
        let commits = !matches!(&served, Err(Failed::Client(_)));
        let deadline = Instant::now() + self.setup.options.drain_timeout;
        let mut stops = std::mem::replace(&mut self.controls.stops, mpsc::unbounded_channel().1);
        let first = served.as_ref().ok().copied();
        let committer = session.drain.committer.clone();
        let ended = tokio::select! {
            biased;
            by = forced(first, &mut stops) => {
                let left = timeout(LAST_WORDS, committer.report()).await.unwrap_or_default();
                let what = left_over(&left).map(|what| format!("; {what}")).unwrap_or_default();
                Err(unfinished(format!("forced by {by}{what}"), &left))
            }
            ended = self.end(&mut session, commits, deadline) => ended,
        };
        match (served, ended) {
            (Err(Failed::Client(error) | Failed::Task(error)), ended) => {
                if let Err(second) = ended {
                    telemetry::secondary_failure(&(Box::new(second) as BoxError));
                }
                Err(error)
            }
            (Ok(_), ended) => ended,
        }
    }

    /// The end while there is no client: nothing is owned, so only the stages are left.
    pub(super) async fn finish_without(mut self, without: Without) -> Result<Ending, Error> {
        match &without {
            Without::Stopped(stop) => telemetry::stopping(stop.source),
            Without::Failed(error) => telemetry::stopping(&format!("after an error: {}", error_chain(error))),
        }
        let deadline = Instant::now() + self.setup.options.drain_timeout;
        let mut stops = std::mem::replace(&mut self.controls.stops, mpsc::unbounded_channel().1);
        let first = if let Without::Stopped(stop) = &without { Some(*stop) } else { None };
        let ended = tokio::select! {
            biased;
            by = forced(first, &mut stops) => Err(unfinished(format!("forced by {by}"), &[])),
            ended = self.end_stages(deadline) => ended,
        };
        match (without, ended) {
            (Without::Failed(error), ended) => {
                if let Err(second) = ended {
                    telemetry::secondary_failure(&(Box::new(second) as BoxError));
                }
                Err(error)
            }
            (Without::Stopped(_), ended) => ended.map(|()| Ending::default()),
        }
    }

    async fn end(
        &mut self,
        session: &mut Session,
        commits: bool,
        deadline: Instant,
    ) -> Result<Ending, Error> {
        session.stop_intake();
        session.drain.flow.send_modify(|flow| flow.flushes = commits);
        let gone = self.ownership.give_up_all();
        let running = session.stop_partitions(&gone);
        let (drain, overtaken) = (session.drain.clone(), session.drain.clone());
        session.moves.overtake(&gone.iter().map(|gone| gone.partition.clone()).collect::<Vec<_>>());
        let pending = session.pending.take();
        let leaving = pending.iter().flat_map(|pending| pending.leaving().iter().cloned());
        let all: Vec<Running> = running.iter().cloned().chain(leaving).collect();
        let drained = async {
            tokio::join!(
                // A rebalance under way is finished, too: its partitions drain on a deadline of their own, not a later one.
                async {
                    match pending {
                        Some(pending) if commits && pending.drains() => {
                            let _ = timeout_at(deadline, pending.done()).await;
                        }
                        // Closing answers an assignment or a loss; after the client's failure nothing is committed (C5).
                        Some(pending) => pending.discard(&overtaken, deadline),
                        None => {}
                    }
                },
                async {
                    if commits {
                        drain.hand_back(running, deadline).await
                    } else {
                        drain.discard(&running, deadline).await
                    }
                },
            )
            .1
        };
        let (member, exactly_once) = (session.member.clone(), self.setup.options.exactly_once);
        let drained = tokio::select! {
            biased;
            () = rebalanced(&*member), if exactly_once => None,
            settled = drained => Some(settled),
        };
        let settled = match drained {
            Some(settled) => settled,
            // E9: nobody answers the group any more, so the partitions may be somebody else's at any time from now on. What is planned
            // is made again there.
            None => session.drain.discard(&all, deadline).await,
        };
        let event = if commits { RebalanceEvent::Revoked } else { RebalanceEvent::Lost };
        self.setup.options.listeners.gone(gone.iter().map(|gone| gone.partition.clone()).collect(), event);
        let stages = self.end_stages(deadline).await;
        let tasks = self.end_maps().and(session.task_failure());
        let close_by = deadline.max(Instant::now() + CLOSE_TIME);
        let closed = timeout_at(close_by, session.member.close())
            .await
            .unwrap_or_else(|_| Err(unfinished("the Kafka client did not close in time".to_owned(), &[])));
        tasks?;
        let settled = settled?;
        let finished = match left_over(&settled) {
            Some(what) => Err(unfinished(what, &settled)),
            None => Ok(()),
        };
        match (stages, finished) {
            // A stage that did not end in time is known by the records that it holds: they say more.
            (Err(Error::Unfinished { .. }), Err(unfinished)) => return Err(unfinished),
            (Err(error), _) => return Err(error),
            (Ok(()), finished) => closed.and(finished)?,
        }
        Ok(Ending { settled })
    }

    /// The first failure of a partition's task during the end.
    fn end_maps(&mut self) -> Result<(), Error> {
        while let Some(ended) = self.maps.try_join_next() {
            if !matches!(ended, Ok((_, Ok(())))) {
                return Err(early(ended));
            }
        }
        Ok(())
    }

    /// Ends the reduce stages, the first ones first: each ends when nothing can reach it any more.
    async fn end_stages(&mut self, deadline: Instant) -> Result<(), Error> {
        self.map = None;
        let mut first = Ok(());
        loop {
            match timeout_at(deadline, self.stages.join_next()).await {
                Ok(None) => return first,
                Ok(Some(Ok((_, result)))) => first = first.and(result),
                Ok(Some(Err(error))) => first = first.and(Err(early(Err(error)))),
                Err(_) => {
                    self.stages.abort_all();
                    let what = "a reduce stage did not end within the drain deadline".to_owned();
                    return first.and(Err(unfinished(what, &[])));
                }
            }
        }
    }
}

fn unfinished(what: String, settled: &[Settled]) -> Error {
    Error::Unfinished { unfinished: what, partitions: partition_reports(settled) }
}

/// The next rebalance. Cancel safe.
async fn rebalanced(member: &dyn GroupMember) {
    while !matches!(member.next_event().await, MemberEvent::Rebalance(_)) {}
}

/// What is left of these partitions, as text; `None`: nothing is.
fn left_over(settled: &[Settled]) -> Option<String> {
    let left: Vec<String> = settled
        .iter()
        .filter_map(|settled| {
            let from = settled.unfinished_from.filter(|_| settled.stalled);
            let from = from.map(|from| format!("{} from offset {from}", settled.partition));
            from.or_else(|| {
                settled.commit_failed.then(|| format!("{}: last commit failed", settled.partition))
            })
        })
        .collect();
    (!left.is_empty()).then(|| left.join(", "))
}

/// Waits for a stop request that forces, and returns its source. `first` is the request that began
/// the shutdown. Never ends if no source is left.
async fn forced(
    first: Option<StopRequest>,
    stops: &mut mpsc::UnboundedReceiver<StopRequest>,
) -> &'static str {
    let mut next = first;
    loop {
        if let Some(stop) = next.filter(|stop| stop.forces) {
            return stop.source;
        }
        next = stops.recv().await;
        if next.is_none() {
            return std::future::pending().await;
        }
    }
}

/// How these partitions ended.
pub(crate) fn partition_reports(settled: &[Settled]) -> BTreeMap<TopicPartition, PartitionReport> {
    let end = |s: &Settled| {
        let end = PartitionReport { committed: s.committed, unfinished_from: s.unfinished_from };
        (s.partition.clone(), end)
    };
    settled.iter().map(end).collect()
}
