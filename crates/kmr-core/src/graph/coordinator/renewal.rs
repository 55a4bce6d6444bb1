//! Replaces a client that works: its credentials have changed.
//!
//! The partitions are drained and committed, the old client leaves the group, and the new one
//! joins. A static member does not leave, so the group keeps its partitions for the new client.
//!
//! Invariants (numbers of ARCHITECTURE.md):
//! - Bounded revoke (R4): the drain has the drain timeout. What is not finished by then stays
//!   uncommitted, and the new client reads it again.
//! - Lost means uncommitted (C5): no assignment of the old client is live when the new one
//!   connects.

use tokio::time::{Instant, timeout};

use super::drain::{Drained, drain_all};
use super::reconnect::{NoClient, ReconnectBackoff};
use super::session::Session;
use super::shutdown::{left_over, unfinished};
use super::{CLOSE_TIME, Coordinator, StopRequest};
use crate::error::BoxError;
use crate::event::{Event, EventKind};
use crate::graph::commit::handle::AssignmentReport;
use crate::health::Health;
use crate::listeners::RebalanceEvent;
use crate::member::Connected;
use crate::telemetry;
use crate::util::mutants::{Mutant, enabled};

impl Coordinator {
    /// Replaces the client of a session, in order. `why`: the reason of the renewal.
    pub(super) async fn renew(
        &mut self,
        mut session: Session,
        why: &str,
        backoff: &mut ReconnectBackoff,
    ) -> Result<Connected, NoClient> {
        telemetry::client_renewing(why);
        let event = || Event::new(EventKind::Rebalance, format!("credentials have changed: {why}"));
        self.setup.counters.metrics.event(event);
        let drained = self.drain_session(&mut session).await;
        self.controls.board.publish(|health| *health = Health::default());
        self.controls.board.set_caught_up(false);
        let failed = session.task_failure();
        let old = session.abandon().await;
        // The new client joins after the old one has left: a group has one member of a static id.
        let closed = timeout(CLOSE_TIME, old.close()).await;
        drained?;
        failed.map_err(NoClient::Failed)?;
        if let Ok(Err(error)) = closed {
            telemetry::secondary_failure(&(Box::new(error) as BoxError));
        }
        backoff.client_succeeded();
        let connector = self.setup.connector.clone();
        match self.while_disconnected(connector.connect()).await? {
            Ok(connected) => {
                telemetry::client_replaced();
                Ok(connected)
            }
            Err(error) if error.is_retryable() => {
                telemetry::client_not_replaced(&error);
                self.next_client(error, Box::pin(std::future::ready(())), backoff).await
            }
            Err(error) => Err(NoClient::Failed(error)),
        }
    }

    /// Drains and commits all partitions of a session.
    async fn drain_session(&mut self, session: &mut Session) -> Result<(), NoClient> {
        session.stop_intake();
        let gone = self.ownership.give_up_all();
        let tasks = session.stop_partitions(&gone);
        let gone: Vec<_> = gone.iter().map(|gone| gone.partition.clone()).collect();
        session.repositionings.cancel(&gone);
        let deadline = Instant::now() + self.setup.options.drain_timeout;
        let exactly_once = self.setup.options.exactly_once;
        let commits = !enabled(Mutant::RenewsWithoutDrain);
        let mut stop = None;
        let drained = {
            let drained = drain_all(session, tasks, commits, exactly_once, deadline);
            tokio::pin!(drained);
            loop {
                tokio::select! {
                    biased;
                    Some(requested) = self.controls.stops.recv() => {
                        if requested.forces {
                            return Err(NoClient::Stopped(requested));
                        }
                        stop.get_or_insert(requested);
                    }
                    drained = &mut drained => break drained,
                }
            }
        };
        self.setup.options.listeners.gone(gone, RebalanceEvent::Revoked);
        let Drained { settled, .. } = drained;
        ended_by(stop, &settled.map_err(NoClient::Failed)?)
    }
}

/// A stop request that came during the drain ends the consumer after it.
fn ended_by(stop: Option<StopRequest>, settled: &[AssignmentReport]) -> Result<(), NoClient> {
    match (stop, left_over(settled)) {
        (None, _) => Ok(()),
        (Some(stop), None) => Err(NoClient::Stopped(stop)),
        (Some(_), Some(what)) => Err(NoClient::Failed(unfinished(what, settled))),
    }
}
