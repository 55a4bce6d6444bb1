//! The ordered shutdown (L3): drains, flushes, commits and leaves the group, by one deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::drain::{Drained, drain_all};
use super::reconnect::NoClient;
use super::session::Session;
use super::supervision::{ServeError, unexpected_end};
use super::{CLOSE_TIME, Coordinator, ShutdownOutcome, StopRequest};
use crate::error::{BoxError, Error, error_chain};
use crate::graph::commit::handle::AssignmentReport;
use crate::listeners::RebalanceEvent;
use crate::partition_report::PartitionReport;
use crate::record::TopicPartition;
use crate::telemetry;

/// How long a forced shutdown waits for the committer's report. It comes at once or not at all.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a bounded run in exactly-once mode may not be complete.
const INTERRUPTED: &str = "a rebalance interrupted the end of the bounded run, so nothing more was committed; the next run \
     reads the rest again";

impl Coordinator {
    /// Shuts down in order after `served`, or ends at once when a stop request forces it.
    pub(super) async fn finish(
        mut self,
        mut session: Session,
        served: Result<StopRequest, ServeError>,
    ) -> Result<ShutdownOutcome, Error> {
        self.controls.board.stopping();
        match &served {
            Ok(stop) => telemetry::stopping(stop.source),
            Err(error) => telemetry::stopping(&format!("after an error: {}", error_chain(error))),
        }
        let commits = !matches!(&served, Err(ServeError::Client(_) | ServeError::CommitsEnded(_)));
        let deadline = Instant::now() + self.setup.options.drain_timeout;
        let mut stops = std::mem::replace(&mut self.controls.stops, mpsc::unbounded_channel().1);
        let first = served.as_ref().ok().copied();
        let committer = session.drain.committer.clone();
        let ended = tokio::select! {
            biased;
            by = forced(first, &mut stops) => {
                let left = timeout(REPORT_TIMEOUT, committer.report()).await.unwrap_or_default();
                let what = left_over(&left).map(|what| format!("; {what}")).unwrap_or_default();
                Err(unfinished(format!("forced by {by}{what}"), &left))
            }
            ended = self.shut_down(&mut session, commits, deadline) => ended,
        };
        match (served, ended) {
            (
                Err(ServeError::Client(error) | ServeError::CommitsEnded(error) | ServeError::Task(error)),
                ended,
            ) => {
                if let Err(second) = ended {
                    telemetry::secondary_failure(&(Box::new(second) as BoxError));
                }
                Err(error)
            }
            (Ok(_), ended) => ended,
        }
    }

    /// Shuts down while there is no client. No partition is assigned, so only the stages are left.
    pub(super) async fn finish_without_client(
        mut self,
        no_client: NoClient,
    ) -> Result<ShutdownOutcome, Error> {
        self.controls.board.stopping();
        match &no_client {
            NoClient::Stopped(stop) => telemetry::stopping(stop.source),
            NoClient::Failed(error) => {
                telemetry::stopping(&format!("after an error: {}", error_chain(error)));
            }
        }
        let deadline = Instant::now() + self.setup.options.drain_timeout;
        let mut stops = std::mem::replace(&mut self.controls.stops, mpsc::unbounded_channel().1);
        let first = if let NoClient::Stopped(stop) = &no_client { Some(*stop) } else { None };
        let ended = tokio::select! {
            biased;
            by = forced(first, &mut stops) => Err(unfinished(format!("forced by {by}"), &[])),
            ended = self.end_stages(deadline) => ended,
        };
        match (no_client, ended) {
            (NoClient::Failed(error), ended) => {
                if let Err(second) = ended {
                    telemetry::secondary_failure(&(Box::new(second) as BoxError));
                }
                Err(error)
            }
            (NoClient::Stopped(_), ended) => ended.map(|()| ShutdownOutcome::default()),
        }
    }

    async fn shut_down(
        &mut self,
        session: &mut Session,
        commits: bool,
        deadline: Instant,
    ) -> Result<ShutdownOutcome, Error> {
        session.stop_intake();
        session.drain.assignments.send_modify(|states| states.flushes = commits);
        let gone = self.ownership.give_up_all();
        let tasks = session.stop_partitions(&gone);
        let gone: Vec<TopicPartition> = gone.iter().map(|gone| gone.partition.clone()).collect();
        session.repositionings.cancel(&gone);
        let exactly_once = self.setup.options.exactly_once;
        let Drained { settled, interrupted } =
            drain_all(session, tasks, commits, exactly_once, deadline).await;
        let settled = match settled {
            Ok(settled) if interrupted && self.setup.options.until.is_some() => {
                Err(unfinished(INTERRUPTED.to_owned(), &settled))
            }
            settled => settled,
        };
        let event = if commits { RebalanceEvent::Revoked } else { RebalanceEvent::Lost };
        self.setup.options.listeners.gone(gone, event);
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
            // The unfinished records are more useful than the stage that did not end in time.
            (Err(Error::Unfinished { .. }), Err(unfinished)) => return Err(unfinished),
            (Err(error), _) => return Err(error),
            (Ok(()), finished) => closed.and(finished)?,
        }
        Ok(ShutdownOutcome { settled })
    }

    /// The first failure of a map task during the shutdown.
    fn end_maps(&mut self) -> Result<(), Error> {
        while let Some(ended) = self.maps.try_join_next() {
            if !matches!(ended, Ok((_, Ok(())))) {
                return Err(unexpected_end(ended));
            }
        }
        Ok(())
    }

    /// Ends the reduce stages in order: each ends when all stages upstream of it have ended.
    async fn end_stages(&mut self, deadline: Instant) -> Result<(), Error> {
        self.map = None;
        let mut first = Ok(());
        loop {
            match timeout_at(deadline, self.stages.join_next()).await {
                Ok(None) => return first,
                Ok(Some(Ok((_, result)))) => first = first.and(result),
                Ok(Some(Err(error))) => first = first.and(Err(unexpected_end(Err(error)))),
                Err(_) => {
                    self.stages.abort_all();
                    let what = "a reduce stage did not end within the drain timeout".to_owned();
                    return first.and(Err(unfinished(what, &[])));
                }
            }
        }
    }
}

pub(super) fn unfinished(what: String, settled: &[AssignmentReport]) -> Error {
    Error::Unfinished { unfinished: what, partitions: partition_reports(settled) }
}

/// Describes the unfinished records of these partitions. Returns `None` if there are none.
pub(super) fn left_over(settled: &[AssignmentReport]) -> Option<String> {
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

/// Waits for a stop request that forces, and returns its source. `first` is the request that
/// started the shutdown. Pends forever when all senders are gone.
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
pub(crate) fn partition_reports(settled: &[AssignmentReport]) -> BTreeMap<TopicPartition, PartitionReport> {
    let end = |s: &AssignmentReport| {
        let end = PartitionReport { committed: s.committed, unfinished_from: s.unfinished_from };
        (s.partition.clone(), end)
    };
    settled.iter().map(end).collect()
}
