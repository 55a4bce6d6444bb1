//! Handles events of the intake: a partition that cannot be read, or that has reached its end.

use super::Coordinator;
use super::repositioning::{RepositionCause, RepositionRequest};
use super::session::Session;
use super::supervision::ServeError;
use crate::config::ResetPolicy;
use crate::error::Error;
use crate::event::Event;
use crate::graph::fetch::routes::{EventKind, PartitionEvent};
use crate::member::{LogPoint, PartitionFailure};

impl Coordinator {
    /// Handles an event of the intake. Events of earlier assignments are dropped.
    pub(super) async fn partition_event(
        &mut self,
        session: &mut Session,
        PartitionEvent { assignment, kind }: PartitionEvent,
    ) -> Result<(), ServeError> {
        let partition = assignment.partition.clone();
        if self.ownership.assignment(&partition) != Some(&assignment)
            || session.repositionings.contains(&partition)
        {
            return Ok(()); // the assignment has ended, or is being repositioned
        }
        let failure = match kind {
            EventKind::Failed(failure) => failure,
            EventKind::EndReached => {
                self.end_reached(session, &assignment);
                return Ok(());
            }
            EventKind::CaughtUp => {
                if let Some(task) = session.partition_tasks.get_mut(&assignment.id) {
                    task.caught_up = true;
                }
                return Ok(());
            }
        };
        let error = match failure {
            PartitionFailure::OutOfRange { offset: lost }
            | PartitionFailure::Truncated { offset: lost, .. }
                if self.setup.options.out_of_range != ResetPolicy::Fail =>
            {
                let latest = self.setup.options.out_of_range == ResetPolicy::Latest;
                let to = if latest { LogPoint::End } else { LogPoint::Low };
                let cause = RepositionCause::Reset { lost, to };
                session.reposition_requests.push(RepositionRequest { partition, cause });
                return Ok(());
            }
            PartitionFailure::OutOfRange { offset } => {
                let (low, high) = session.member.log_bounds(&partition).await.unwrap_or((-1, -1));
                Error::OffsetOutOfRange { partition, offset: Some(offset), low, high }
            }
            PartitionFailure::Truncated { offset, reason } => {
                Error::LogTruncated { partition, offset, source: reason.into() }
            }
            PartitionFailure::Unauthorized => {
                Error::Authorization { resource: format!("topic {:?}", partition.topic()) }
            }
            PartitionFailure::Unavailable(reason) => {
                if let Some(task) = session.partition_tasks.get_mut(&assignment.id) {
                    task.read_failed(&reason);
                }
                let text = || format!("cannot be read at the moment: {reason}");
                let event = || Event::error(text()).at(&partition, None);
                self.setup.counters.metrics.event(event);
                return Ok(());
            }
            PartitionFailure::Unreadable { offset, reason } => {
                let what = format!("{partition} cannot be read at offset {offset}");
                Error::Client { operation: what, source: reason.into(), retryable: true }
            }
        };
        // The client still works, so finished records of the other partitions are committed.
        Err(ServeError::Task(error))
    }
}
