//! Carries out requests of the operator, and starts pauses and repositionings that are due.

use super::Coordinator;
use super::pauses::PauseCall;
use super::repositioning::{RepositionCause, RepositionRequest};
use super::session::Session;
use crate::error::Error;
use crate::graph::control::Command;
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;

/// A call to the client that pauses or resumes.
pub(super) struct PendingPause {
    call: PauseCall,
    work: BoxFuture<'static, Result<(), Error>>,
}

/// Pends while there is no such call. Cancel safe: the future stays in its place.
pub(super) async fn pause_call_done(pending: &mut Option<PendingPause>) -> Result<PauseCall, Error> {
    match pending {
        Some(PendingPause { call, work }) => work.await.map(|()| call.clone()),
        None => std::future::pending().await,
    }
}

impl Coordinator {
    pub(super) fn command(&mut self, session: &mut Session, command: Command) {
        match command {
            Command::Pauses => session.pauses.set_desired(self.controls.desired_pauses()),
            Command::Seek { partition, offset, reply } if self.setup.options.exactly_once => {
                // Rows would be stored twice or be missing, and the commit metadata would not show
                // it.
                let what = format!(
                    "exactly_once: {partition} cannot be sought to {offset}; stop the group and use kmr_core::reset_offsets"
                );
                let _ = reply.send(Err(Error::Config(what)));
            }
            Command::Seek { partition, offset, reply } => {
                let cause = RepositionCause::Seek { offset, reply };
                session.reposition_requests.push(RepositionRequest { partition, cause });
            }
        }
    }

    /// A call to the client has paused or resumed partitions.
    pub(super) fn pause_applied(&self, session: &mut Session, call: &PauseCall) {
        session.pauses.applied(&call.partitions, call.paused);
        for partition in &call.partitions {
            let assignment = self.ownership.assignment(partition);
            if let Some(task) = assignment.and_then(|assignment| session.task(assignment)) {
                task.backlog.set_paused(call.paused);
            }
        }
    }

    /// Starts pauses and repositionings that are due and not blocked. Called after every event.
    pub(super) fn steer(&mut self, session: &mut Session) {
        self.setup.budget.backlogs().share_among(self.ownership.partitions().count());
        self.start_repositioning(session);
        self.pause_waiting_replays(session);
        if session.pending_pause.is_some() {
            return;
        }
        let free: Vec<&TopicPartition> =
            self.ownership.partitions().filter(|partition| !session.is_busy(partition)).collect();
        let Some(call) = session.pauses.next_call(free.into_iter()) else { return };
        let (member, to_apply) = (session.member.clone(), call.clone());
        let work = Box::pin(async move { member.pause(&to_apply.partitions, to_apply.paused).await });
        session.pending_pause = Some(PendingPause { call, work });
    }
}
