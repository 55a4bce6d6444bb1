//! What the operator wants, and what else steers partitions that are ours: moves and pauses are started here.

use super::Coordinator;
use super::pauses::Step;
use super::repositioning::{Wanted, Why};
use super::session::Session;
use crate::error::Error;
use crate::graph::control::Command;
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;

/// A call to the client that pauses or resumes.
pub(super) struct Pausing {
    step: Step,
    call: BoxFuture<'static, Result<(), Error>>,
}

/// Pends while there is no such call. Cancel safe: the future stays where it is.
pub(super) async fn paused(pausing: &mut Option<Pausing>) -> Result<Step, Error> {
    match pausing {
        Some(Pausing { step, call }) => call.await.map(|()| step.clone()),
        None => std::future::pending().await,
    }
}

impl Coordinator {
    pub(super) fn command(&mut self, session: &mut Session, command: Command) {
        match command {
            Command::Pauses => session.pauses.obey(self.controls.will()),
            Command::Seek { partition, offset, reply } if self.setup.options.exactly_once => {
                // Rows would come twice, or not at all, and the marks would not say so.
                let what = format!(
                    "exactly_once: {partition} cannot be sought to {offset}; stop the group and use kmr_core::reset_offsets"
                );
                let _ = reply.send(Err(Error::Config(what)));
            }
            Command::Seek { partition, offset, reply } => {
                session.wanted.push(Wanted { partition, why: Why::Seek { offset, reply } });
            }
        }
    }

    /// The client was told.
    pub(super) fn paused(&self, session: &mut Session, step: &Step) {
        session.pauses.applied(&step.partitions, step.paused);
        for partition in &step.partitions {
            let assignment = self.ownership.assignment(partition);
            if let Some(running) = assignment.and_then(|assignment| session.running(assignment)) {
                running.backlog.set_paused(step.paused);
            }
        }
    }

    /// Starts what is wanted and can start now. Called whenever something has changed.
    pub(super) fn steer(&mut self, session: &mut Session) {
        self.setup.budget.backlogs().share_among(self.ownership.partitions().count());
        self.start_moves(session);
        self.take_turns(session);
        if session.pausing.is_some() {
            return;
        }
        let free: Vec<&TopicPartition> =
            self.ownership.partitions().filter(|partition| !session.is_busy(partition)).collect();
        let Some(step) = session.pauses.step(free.into_iter()) else { return };
        let (member, said) = (session.member.clone(), step.clone());
        let call = Box::pin(async move { member.pause(&said.partitions, said.paused).await });
        session.pausing = Some(Pausing { step, call });
    }
}
